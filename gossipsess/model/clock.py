# Hybrid logical clock: stamps that follow physical time and never run backwards.
#
# A stamp is one int: 48 bits of milliseconds, then a 16-bit counter. Within one node stamps strictly rise; a
# stamp heard from a peer pushes this clock past it, so what is written after reading is stamped after it.
# Source: Kulkarni et al., "Logical Physical Clocks", 2014, figure 5.
#
# Physical time is the caller's monotonic clock plus an offset. The offset is the wall clock's at the node's start,
# and moves in one case only: a peer's time is far ahead, and the wall clock, of which the caller tells now and then,
# says the same. Then the monotonic clock has stood still, as it does while a machine is suspended, and the offset
# moves forward. The wall clock alone proves nothing: set an hour ahead on one node, it would win every write.
# Nothing moves an offset back, so that nobody writes in the past.

from gossipsess.errors import VersionError

Stamp = int
"""Milliseconds since the Unix epoch << 16 | counter."""

COUNTER_BITS = 16
AHEAD_MS_MAX = 10_000
"""How far ahead of this node's time a heard stamp may be. One node a day ahead would win every write for a day
and drag every clock with it; NTP keeps machines within a fraction of a second."""
AGREE_MS = 2_000
"""Clocks that differ by no more than this agree."""


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

    __slots__ = ("_last", "_wall_offset_ms", "offset_ms")

    def __init__(self, offset_ms: int) -> None:
        self.offset_ms = offset_ms
        self._wall_offset_ms = offset_ms
        self._last: Stamp = 0

    @property
    def last(self) -> Stamp:
        """The highest stamp given out or heard."""
        return self._last

    def time_ms(self, now_s: float) -> int:
        """Return cluster time, never behind any stamp given out or heard, in milliseconds."""
        own_ms, last_ms = int(now_s * 1000) + self.offset_ms, self._last >> COUNTER_BITS
        return own_ms if own_ms > last_ms else last_ms  # each request asks: a third of what max() costs

    def tick(self, now_s: float, above: Stamp = 0) -> Stamp:
        """Return a new stamp, greater than every one before it and than `above`.

        `above` is the highest stamp in the state that the write replaces: a node whose clock lags still
        overwrites what it has read.
        """
        stamp = (int(now_s * 1000) + self.offset_ms) << COUNTER_BITS
        if stamp <= self._last:  # each write asks: two comparisons cost half of what max() does
            stamp = self._last + 1
        if stamp <= above:
            stamp = above + 1
        self._last = stamp
        return stamp

    def hint(self, wall_ms: int, now_s: float) -> None:
        """Note what the wall clock says. It is believed only where a peer confirms it."""
        self._wall_offset_ms = wall_ms - int(now_s * 1000)

    def hear(self, stamp: Stamp, now_s: float) -> int:
        """Move past a stamp that a peer sent.

        Returns by how many milliseconds this node's time moved forward to the wall clock, since the peer confirms
        it; 0 nearly always.

        Raises:
            ClockAhead: it is more than `AHEAD_MS_MAX` ahead of this node's time; the clock did not move.
        """
        if stamp <= self._last:
            return 0
        moved_ms = 0
        heard_ms = stamp >> COUNTER_BITS
        ahead_ms = heard_ms - int(now_s * 1000) - self.offset_ms
        if ahead_ms > AGREE_MS:
            wall_ms = int(now_s * 1000) + self._wall_offset_ms
            if self._wall_offset_ms > self.offset_ms and abs(wall_ms - heard_ms) <= AGREE_MS:
                moved_ms = self._wall_offset_ms - self.offset_ms
                self.offset_ms = self._wall_offset_ms
            elif ahead_ms > AHEAD_MS_MAX:
                raise ClockAhead(f"a peer's clock is {ahead_ms / 1000:.1f} s ahead of this node's")
        self._last = stamp
        return moved_ms

    def off_by_ms(self, stamp: Stamp, now_s: float) -> int:
        """Return how wrong a peer's clock seems that shows this time, in milliseconds.

        Positive: it is ahead of this node's own time and of all that this node has heard. Negative: it is behind
        this node's own time. Between the two it is 0: there the peer may have heard of a third node's clock.
        """
        heard_ms = stamp >> COUNTER_BITS
        own_ms = int(now_s * 1000) + self.offset_ms
        return max(0, heard_ms - self.time_ms(now_s)) or min(0, heard_ms - own_ms)
