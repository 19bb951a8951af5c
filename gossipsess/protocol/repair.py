# Repair: when a difference between two digests is one to be repaired.
#
# In:    each time a peer's digest was heard: whether it equals this node's own.    Out: whether to start a repair.
# Rule:  not at the first difference: a session that settles here a moment before it does there looks the same. Of a
#        pair one node repairs at once, for both; the other only if the difference stands for long, since datagrams may
#        reach one of the two alone. While it stands, repairs come less and less often: what the last one did not mend,
#        the next may not either, and must not cost more than it is worth.
# Not here: the digests (model/digest.py), and the repair itself (sync.py).

import random
from typing import Final

OTHER_AFTER_S: Final = 10.0
"""How long a difference must stand until the greater node id repairs it too."""
WAIT_S: Final = 2.0
WAIT_MAX_S: Final = 8.0
"""Between two repairs of a difference that stands: the first wait, doubled each time up to the second. Where clocks
differ so much that sessions are always ending on one side only, longer would cost less, and hide real differences."""


class Comparison:
    """What one pair's digests have shown so far, as one of the two sees it."""

    def __init__(self, *, first: bool, rng: random.Random) -> None:
        """`first`: this node is the one of the pair that repairs at once."""
        self._first = first
        self._rng = rng
        self._due_s: float | None = None  # when to repair at the earliest; None while all is equal
        self._wait_s = WAIT_S

    def repair_due(self, equal: bool, now_s: float) -> bool:
        """Take the outcome of one comparison; return whether to start a repair."""
        if equal:
            self._due_s = None
            self._wait_s = WAIT_S
            return False
        if self._due_s is None:
            self._due_s = now_s if self._first else now_s + OTHER_AFTER_S
            return False
        if now_s < self._due_s:
            return False
        self._due_s = now_s + self._wait_s * self._rng.uniform(0.8, 1.2)
        self._wait_s = min(2 * self._wait_s, WAIT_MAX_S)
        return True
