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
