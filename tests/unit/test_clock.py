"""The hybrid clock: stamps rise, follow what is heard, and are not dragged into the future."""

import pytest

from gossipsess.errors import WireError
from gossipsess.model.clock import AHEAD_MS_MAX, ClockAhead, HybridClock, stamp_at, time_ms_of


def test_stamps_rise_while_time_stands_still():
    """Two writes of one millisecond are two writes."""
    clock = HybridClock(0)
    stamps = [clock.tick(5.0) for _ in range(3)]
    assert stamps == [stamp_at(5000), stamp_at(5000) + 1, stamp_at(5000) + 2]


def test_stamps_rise_when_time_goes_back():
    """A suspended machine's clock may; a stamp used twice would name two writes."""
    clock = HybridClock(0)
    before = clock.tick(5.0)
    assert clock.tick(4.0) == before + 1


def test_a_stamp_follows_physical_time_where_that_is_ahead():
    """Otherwise stamps would say nothing about when a session was used."""
    clock = HybridClock(1_000)
    clock.tick(5.0)
    assert time_ms_of(clock.tick(9.0)) == 10_000


def test_a_write_is_stamped_above_what_it_overwrites():
    """A node whose clock lags must still be able to change what it has read."""
    clock = HybridClock(0)
    assert clock.tick(1.0, above=stamp_at(7000)) == stamp_at(7000) + 1


def test_what_is_written_after_hearing_is_stamped_after_it():
    """Cause before effect, on every node."""
    clock = HybridClock(0)
    clock.hear(stamp_at(6000), 5.0)
    assert clock.last == stamp_at(6000)
    assert clock.tick(5.0) > stamp_at(6000)
    assert clock.time_ms(5.0) == 6000


def test_hearing_what_is_older_changes_nothing():
    """Late messages are normal."""
    clock = HybridClock(0)
    mine = clock.tick(5.0)
    clock.hear(stamp_at(1), 5.0)
    assert clock.last == mine


def test_a_stamp_just_within_the_bound_is_taken():
    """Clocks differ a little everywhere."""
    clock = HybridClock(0)
    clock.hear(stamp_at(5000 + AHEAD_MS_MAX), 5.0)
    assert time_ms_of(clock.last) == 5000 + AHEAD_MS_MAX


def test_a_stamp_too_far_ahead_is_refused_and_the_clock_stays():
    """One machine a day ahead would win every write for a day, on all nodes."""
    clock = HybridClock(0)
    with pytest.raises(ClockAhead, match=r"10\.0 s ahead") as refused:
        clock.hear(stamp_at(5000 + AHEAD_MS_MAX + 1), 5.0)
    assert isinstance(refused.value, WireError)
    assert clock.last == 0


def clock_that_stood_still(for_s: float) -> HybridClock:
    """Return a clock that shows 5 s, and whose machine was suspended for a while since it was set."""
    clock = HybridClock(0)
    clock.hint(5_000 + round(for_s * 1000), 5.0)
    return clock


def test_a_clock_that_stood_still_follows_its_wall_clock_once_a_peer_confirms_it():
    """A suspended machine's node would lag for as long as its process lives, and no peer could be heard."""
    clock = clock_that_stood_still(30)
    assert clock.time_ms(5.0) == 5_000, "the wall clock alone proves nothing"
    assert clock.hear(stamp_at(36_000), 5.0) == 30_000
    assert clock.time_ms(8.0) == 38_000
    assert clock.hear(stamp_at(38_500), 8.0) == 0, "it moves once"


@pytest.mark.parametrize("wall_ms", [5_000 + 3_600_000, 5_000 + 86_400_000, 5_000 - 3_600_000, 5_000])
def test_a_wall_clock_that_no_peer_confirms_changes_nothing(wall_ms):
    """Set an hour or a day ahead on one node it would win every write; and none may write in the past."""
    clock = HybridClock(0)
    clock.hint(wall_ms, 5.0)
    clock.hear(stamp_at(12_000), 5.0)
    with pytest.raises(ClockAhead):
        clock.hear(stamp_at(5_000 + 60_000), 5.0)
    assert clock.offset_ms == 0
    assert time_ms_of(clock.tick(5.0)) == 12_000


@pytest.mark.parametrize(("heard_ms", "moves"), [(32_999, False), (33_000, True), (37_000, True), (37_001, False)])
def test_a_peer_confirms_the_wall_clock_within_two_seconds(heard_ms, moves):
    """An old message that was long under way says little of what time it is."""
    clock = clock_that_stood_still(30)
    if moves:
        assert clock.hear(stamp_at(heard_ms), 5.0) == 30_000
    else:
        with pytest.raises(ClockAhead):
            clock.hear(stamp_at(heard_ms), 5.0)
        assert clock.offset_ms == 0


def test_clocks_that_agree_leave_each_other_alone():
    """A wall clock that runs a second ahead is no clock that had stood still."""
    clock = clock_that_stood_still(1)
    assert clock.hear(stamp_at(6_900), 5.0) == 0
    assert clock.offset_ms == 0


@pytest.mark.parametrize(("heard_ms", "off_ms"), [(3_000, -2_000), (5_000, 0), (7_500, 0), (8_000, 0), (9_000, 1_000)])
def test_a_peer_that_has_heard_of_a_third_clock_is_not_blamed_for_it(heard_ms, off_ms):
    """Who is told to run NTP should be the one whose clock is wrong."""
    clock = HybridClock(0)
    clock.hear(stamp_at(8_000), 5.0)
    assert clock.off_by_ms(stamp_at(heard_ms), 5.0) == off_ms
