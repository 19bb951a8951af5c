# Memory: how much all sessions of a node may take together.
#
# In:    what all records cost, by the table's account.
# Out:   whether a new session is refused; a warning when the limit is met.
# Only new sessions are refused. To drop old ones instead would log users out, and a flood of visitors could do so to
# everybody. To refuse a login (a rotation), a logout or what a peer holds would break promises already made; what they
# add is bounded by the sessions there are, and by the limit at the other nodes.

from typing import Final

from gossipsess.errors import MemoryFull
from gossipsess.protocol.effects import Effect, Warn

MIB: Final = 1024 * 1024
MEMORY_LIMIT_MB: Final = 512
"""In MiB, where the settings say nothing else."""
LEFT_BELOW_PERCENT: Final = 95
"""The limit is left below this part of it: at the limit sessions come and go, and each of them would warn again."""


class MemoryLimit:
    """The limit of one node, and whether it has been warned of."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._warned = False

    def is_met(self, held_bytes: int) -> bool:
        """Say whether records that cost so much leave no room for a new session."""
        return held_bytes >= self.limit_bytes

    def looked_at(self, held_bytes: int) -> list[Effect]:
        """Return the warning that is due: one each time the limit is met, after it was left."""
        if self.is_met(held_bytes) and not self._warned:
            self._warned = True
            return [Warn(self._text(held_bytes))]
        if 100 * held_bytes < LEFT_BELOW_PERCENT * self.limit_bytes:
            self._warned = False
        return []

    def admit(self, held_bytes: int) -> None:
        """Let a new session in.

        Raises:
            MemoryFull: there is no room for it.
        """
        if self.is_met(held_bytes):
            raise MemoryFull(self._text(held_bytes))

    def _text(self, held_bytes: int) -> str:
        return (
            f"all sessions together take {held_bytes / MIB:.1f} MiB, and the limit is {self.limit_bytes / MIB:g}: new "
            "sessions are refused until others have ended. Raise GOSSIPSESS_MEMORY_LIMIT_MB (memory_limit_mb), or "
            "shorten GOSSIPSESS_IDLE_TIMEOUT_S (idle_timeout_s)."
        )
