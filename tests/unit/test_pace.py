"""Sessions that are sent all the time rest between two sends; those that a request waits for never do."""

from gossipsess.model.record import empty_record
from gossipsess.model.table import Table
from gossipsess.protocol.confirmation import Ticket
from gossipsess.protocol.pace import HOT_EVERY_S, HOT_SENDS, Pace
from gossipsess.protocol.replication import FLUSH_DELAY_S, Outbound
from gossipsess.wire.messages import Push, PushAck
from tests.unit.machines import ALICE, SID, stamp

OTHER = b"another-16-bytes"
EVERY_S = 0.01
"""How often the sessions of these tests are written; none coalesces by itself, since flushes come faster."""


class Writer:
    """A node that writes to one peer which acknowledges at once, and flushes when it was told to."""

    def __init__(self) -> None:
        self.outbound = Outbound()
        self.table = Table()
        self.flush_at_s: float | None = None
        self.sent_at_s: list[float] = []
        """When something of `SID` left."""
        self._count = 0

    def writes(self, now_s: float, ticket: Ticket | None = None, sid: bytes = SID) -> float:
        """Write once; return when to flush for it."""
        before = self.table.get(sid)
        self._count += 1
        self.table.write(sid, [("a", b"%d" % self._count)], stamp(0, self._count), ALICE, now_s)
        due_s = self.outbound.wrote(before, ticket, now_s if ticket else now_s + FLUSH_DELAY_S)
        self.flush_at_s = due_s if self.flush_at_s is None else min(due_s, self.flush_at_s)
        return due_s

    def flushes(self, now_s: float) -> Push | None:
        """Do what a flush does; the peer has it at once."""
        self.flush_at_s = None
        push = self.outbound.flush(self.table, now_s)
        if push is not None:
            self.outbound.acknowledged(PushAck(push.sequence))
            self.sent_at_s += [now_s for delta in push.deltas if delta.sid == SID]
        self.flush_at_s = self.outbound.next_flush_s(now_s)
        return push

    def runs(self, from_s: float, until_s: float, every_s: float = EVERY_S) -> int:
        """Write all the time, and flush whenever it is due; return how often `SID` was sent meanwhile."""
        before = len(self.sent_at_s)
        steps = round((until_s - from_s) * 1000)
        for step in range(steps):
            now_s = from_s + step / 1000
            if step % round(every_s * 1000) == 0:
                self.writes(now_s)
            if self.flush_at_s is not None and self.flush_at_s <= now_s:
                self.flushes(now_s)
        return len(self.sent_at_s) - before


def hot(now_s: float = 0.0) -> Pace:
    """Return a pace by which `SID` has just become hot."""
    pace = Pace()
    for _ in range(HOT_SENDS):
        pace.sent([SID], now_s)
    return pace


def ticket() -> Ticket:
    return Ticket(SID, print, 1, 9.0)


def test_a_session_rests_once_it_was_sent_twenty_times_within_a_second():
    """Fewer are what a page with some requests makes, and each of them wants to be quick."""
    pace = Pace()
    for number in range(HOT_SENDS):
        assert not pace.rests(SID, 0.0), f"after {number} sends"
        pace.sent([SID], number / 100)
    assert HOT_SENDS == 20
    assert pace.rests(SID, 0.2)
    assert not pace.rests(OTHER, 0.2)


def test_as_many_sends_over_a_longer_time_make_nothing_hot():
    """Counts begin anew each second; otherwise every session that lives long enough would be hot."""
    pace = Pace()
    for number in range(10 * HOT_SENDS):
        pace.sent([SID], number * 1.01 / (HOT_SENDS - 1))
        assert not pace.rests(SID, 0.0)


def test_hot_sessions_share_one_beat_each_fifty_milliseconds():
    """They travel together, and there is one deadline to keep."""
    pace = hot(3.0)
    assert HOT_EVERY_S == 0.05
    assert pace.beat_s == 3.0 + HOT_EVERY_S
    for _ in range(HOT_SENDS):
        pace.sent([OTHER], 3.02)
    assert pace.beat_s == 3.0 + HOT_EVERY_S, "a send before the beat does not put it off"
    assert pace.rests(SID, 3.04)
    assert pace.rests(OTHER, 3.04)
    assert not pace.rests(SID, 3.0 + HOT_EVERY_S)
    pace.sent([SID], 3.06)
    assert pace.beat_s == 3.06 + HOT_EVERY_S


def test_where_nothing_is_hot_there_is_no_beat():
    """A push of sessions that rest would else wait for one that nobody needs."""
    pace = Pace()
    pace.sent([SID, OTHER], 1.0)
    assert pace.beat_s <= 1.0


def test_a_session_cools_down_when_two_beats_go_by_without_it():
    """It is sent less often because it rests; that alone does not cool it. One written now and then never waits."""
    pace = hot(0.0)
    now_s = 0.0
    for _ in range(50):  # through several seconds
        now_s += 1.9 * HOT_EVERY_S
        pace.sent([OTHER, SID], now_s)
        pace.beat_s = 9.0
        assert pace.rests(SID, now_s + 0.01)
    assert pace.rests(SID, now_s + 1.9 * HOT_EVERY_S)
    assert not pace.rests(SID, now_s + 2.1 * HOT_EVERY_S)
    pace.sent([SID], now_s + 2.1 * HOT_EVERY_S)
    assert not pace.rests(SID, now_s + 2.1 * HOT_EVERY_S), "one send does not make it hot again"


def test_a_session_that_is_written_all_the_time_leaves_twenty_times_a_second():
    """Every peer would merge it a hundred times a second, for states that nobody looks at."""
    here = Writer()
    here.runs(0.0, 1.0)
    assert 19 <= here.runs(1.0, 2.0) <= 21
    assert 19 <= here.runs(2.0, 3.0) <= 21, "it stays hot"
    last = here.table.records[SID]
    here.runs(3.0, 3.1, every_s=1.0)
    assert not here.outbound.resting, "and its last state has left"
    assert last is not here.table.records[SID]


def test_the_first_twenty_leave_as_fast_as_any():
    """A burst is no reason to wait yet."""
    here = Writer()
    here.runs(0.0, HOT_SENDS * EVERY_S)
    assert len(here.sent_at_s) == HOT_SENDS


def test_a_write_that_somebody_waits_for_never_rests_and_takes_what_rests_with_it():
    """A response is held back by it."""
    here = Writer()
    here.runs(0.0, 0.5)
    now_s = here.outbound._pace.beat_s - 0.03  # between two beats
    rested_until_s = here.writes(now_s)
    assert rested_until_s == here.outbound._pace.beat_s
    assert SID in here.outbound.resting
    assert here.flushes(now_s) is None
    assert here.writes(now_s, ticket()) == now_s
    push = here.flushes(now_s)
    assert [entry[3] for delta in push.deltas for entry in delta.entries] == [b"%d" % here._count]
    assert not here.outbound.resting


def test_a_write_that_somebody_waits_for_never_rests_either_where_nothing_was_owed():
    """The first of a beat is no better than the second."""
    here = Writer()
    here.runs(0.0, 0.5)
    now_s = here.outbound._pace.beat_s - 0.03
    assert not here.outbound.resting
    assert here.writes(now_s, ticket()) == now_s
    assert here.flushes(now_s) is not None


def test_others_do_not_rest_with_the_hot_ones():
    """One script that polls must not slow down everybody's sessions."""
    here = Writer()
    here.runs(0.0, 0.5)
    now_s = here.outbound._pace.beat_s - 0.03
    here.writes(now_s)
    assert here.writes(now_s, sid=OTHER) == now_s + FLUSH_DELAY_S
    push = here.flushes(now_s + FLUSH_DELAY_S)
    assert [delta.sid for delta in push.deltas] == [OTHER]


def test_what_rests_counts_as_unacknowledged_and_is_forgotten_when_it_expires():
    """A node that leaves waits until its peers have everything."""
    here = Writer()
    here.runs(0.0, 0.5)
    here.writes(here.outbound._pace.beat_s - 0.03)
    assert here.outbound.unacknowledged == 1
    assert here.outbound.next_flush_s(0.0) == here.outbound._pace.beat_s
    here.outbound.forget(SID)
    assert here.outbound.unacknowledged == 0
    assert here.outbound.next_flush_s(0.0) is None


def test_a_peer_that_lacks_what_rests_is_sent_it_at_once():
    """It asked, since a request there waits or a base is missing."""
    here = Writer()
    here.runs(0.0, 0.5)
    now_s = here.outbound._pace.beat_s - 0.03
    here.writes(now_s)
    here.outbound.lacks(SID, None)
    push = here.flushes(now_s)
    assert [delta.sid for delta in push.deltas] == [SID]
    assert not here.outbound.resting


def test_resting_goes_by_peer():
    """One that was just met has been sent nothing yet."""
    here, fresh = Writer(), Outbound()
    here.runs(0.0, 0.5)
    assert SID in here.outbound._pace._hot
    assert fresh.wrote(empty_record(SID), None, 0.5) == 0.5
    assert SID in fresh.owed
