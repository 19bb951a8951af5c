# Hybrid logical clock: stamps that follow physical time and never run backwards.
#
# A stamp is one int: 48 bits of milliseconds, then a 16-bit counter. Within one node stamps strictly rise; a
# stamp heard from a peer pushes this clock past it, so what is written after reading is stamped after it.
# Source: Kulkarni et al., "Logical Physical Clocks", 2014, figure 5.
#
# Physical time is the caller's monotonic clock plus an offset fixed at the node's start: a wall clock that is
# set back while the node runs cannot make it write in the past.

from gossipsess.errors import VersionError

Stamp = int
"""Milliseconds since the Unix epoch << 16 | counter."""

COUNTER_BITS = 16
AHEAD_MS_MAX = 10_000
"""How far ahead of this node's time a heard stamp may be. One node a day ahead would win every write for a day
and drag every clock with it; NTP keeps machines within a fraction of a second."""


def stamp_at(time_ms: int) -> Stamp:
    """Return the first stamp of a millisecond."""
    return time_ms << COUNTER_BITS


def time_ms_of(stamp: Stamp) -> int:
    """Return a stamp's physical part, milliseconds since the Unix epoch."""
    return stamp >> COUNTER_BITS


class ClockAhead(VersionError):
    """A peer's stamp lies too far in the future; nothing of it was taken over."""


class HybridClock:
    """One node's clock. `offset_ms` turns the caller's monotonic seconds into Unix milliseconds."""

    __slots__ = ("_last", "offset_ms")

    def __init__(self, offset_ms: int) -> None:
        self.offset_ms = offset_ms
        self._last: Stamp = 0

    @property
    def last(self) -> Stamp:
        """The highest stamp given out or heard."""
        return self._last

    def time_ms(self, now_s: float) -> int:
        """Return cluster time, never behind any stamp given out or heard, in milliseconds."""
        return max(int(now_s * 1000) + self.offset_ms, self._last >> COUNTER_BITS)

    def tick(self, now_s: float, above: Stamp = 0) -> Stamp:
        """Return a new stamp, greater than every one before it and than `above`.

        `above` is the highest stamp in the state that the write replaces: a node whose clock lags still
        overwrites what it has read.
        """
        stamp = max((int(now_s * 1000) + self.offset_ms) << COUNTER_BITS, self._last + 1, above + 1)
        self._last = stamp
        return stamp

    def hear(self, stamp: Stamp, now_s: float) -> None:
        """Move past a stamp that a peer sent.

        Raises:
            ClockAhead: it is more than `AHEAD_MS_MAX` ahead of this node's time; the clock did not move.
        """
        if stamp > self._last:
            ahead_ms = (stamp >> COUNTER_BITS) - int(now_s * 1000) - self.offset_ms
            if ahead_ms > AHEAD_MS_MAX:
                raise ClockAhead(f"a peer's clock is {ahead_ms / 1000:.1f} s ahead of this node's")
            self._last = stamp
