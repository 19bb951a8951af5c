# Rules: what all nodes of a cluster must agree on to place sessions alike. Each node says its own in its Hello.
#
# Not here: what follows from them (protocol/placement.py).

from typing import Literal, NamedTuple

CountBy = Literal["node", "host"]


class Rules(NamedTuple):
    """The settings of placement, the same on every node."""

    all_to_all_below: int = 4
    """With fewer names than this, every member holds every session; 2 or more, below 2**32."""
    secondaries: int = 1
    """Copies beside the primary's, from there on; 1 or more, below 2**32."""
    count_by: CountBy = "node"
    """Whether that counts nodes or hosts."""

    def differences(self, others: "Rules") -> str:
        """Return in which settings another node's rules differ, by their environment variables; empty in none."""
        return ", ".join(
            f"GOSSIPSESS_{name.upper()} is {mine} here and {theirs} there"
            for name, mine, theirs in zip(self._fields, self, others, strict=True)
            if mine != theirs
        )
