# Awareness: how far this node should doubt itself before it doubts others.
#
# In:    probes answered, helpers that kept silent, accusations to refute, pauses of this process.
# Out:   one factor that stretches the probe interval and the wait for an answer.
# Why:   a node whose own process or network is slow misses answers of healthy nodes. A helper that cannot
#        reach the target still says so (Nack); a helper that says nothing points at this node's own side.
# Source: Lifeguard, section IV-A (local health multiplier).

SCORE_MAX = 7
"""Stretches the probe interval at most eightfold: slower, a real crash would stay unseen too long."""


class Awareness:
    """A score, 0 (healthy) .. `SCORE_MAX`."""

    def __init__(self) -> None:
        self.score = 0

    @property
    def factor(self) -> int:
        """What probe times are multiplied by, 1 .. `SCORE_MAX` + 1."""
        return 1 + self.score

    def better(self) -> None:
        """A probe was answered."""
        self.score = max(0, self.score - 1)

    def worse(self, by: int = 1) -> None:
        """`by` signs (0 or more) that this node is the slow one."""
        self.score = min(SCORE_MAX, self.score + by)
