"""A real node hears of its wall clock, and believes nobody's alone."""

import time

from tests.network.nodes import committed, eventually, loaded


def test_a_wall_clock_that_is_set_is_heard_of_and_moves_no_stamp(cluster, monkeypatch):
    """A suspended machine needs it heard before its peers are refused; a wrong one must not decide anything."""
    here, there = cluster(2)
    clock = here.node.replica.sessions.clock
    offset_ms, real = clock.offset_ms, time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600)
    eventually(lambda: clock._wall_offset_ms > offset_ms + 3_590_000, "the driver has told")
    session = committed(here, "all", user="kim")
    assert abs(here.node.time_ms() - real() * 1000) < 5_000
    assert loaded(there, session.cookie)["user"] == "kim"
    assert clock.offset_ms == offset_ms
