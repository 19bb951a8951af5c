"""A request waits for a session: present, absent and unknown are never confused."""

from gossipsess.model.delta import changes_since, not_covered
from gossipsess.model.record import empty_record
from gossipsess.protocol import fetch
from gossipsess.protocol.effects import Settle
from gossipsess.protocol.events import Fetch, Tick, Watch
from gossipsess.protocol.fetch import FETCH_TIMEOUT_S, Fetches
from gossipsess.protocol.outcomes import Found
from gossipsess.wire.messages import Gap, Pull, PullAnswer, Push
from tests.unit.machines import ALICE, BOB, CAROL, SID, Clocked, record, registers, stamp

LIVE = record((stamp(0), BOB, registers()))
HERE = {SID: LIVE}
NOBODY: dict = {}


def begun(dots=(), mine=None, holders=(BOB, CAROL)) -> tuple[Fetches, Pull]:
    fetches = Fetches()
    asked = fetches.start(SID, dots, print, mine or empty_record(SID), holders, doubtful=False, now_s=0.0)
    assert isinstance(asked, Pull)
    return fetches, asked


def outcome(settled: list[Settle]) -> Found | None:
    assert len(settled) <= 1
    return settled[0].outcome if settled else None


def test_every_holder_is_asked_with_what_is_held_here():
    """A holder answers with no more than what is missing."""
    _, asked = begun(mine=LIVE, dots=((CAROL, stamp(9)),))
    assert asked == Pull(1, (Gap(SID, LIVE.claims, LIVE.state_hash),))


def test_the_first_state_with_every_write_in_it_ends_the_wait():
    """Nobody waits for the slowest node."""
    fetches, _ = begun(dots=((BOB, stamp(0)),))
    assert outcome(fetches.merged(record((stamp(1), CAROL, registers())))) is None
    assert outcome(fetches.merged(LIVE)) is Found.FRESH
    assert fetches.next_deadline() is None


def test_absent_needs_every_holder_to_have_everything_and_not_this():
    """One node that is still joining cannot say so."""
    fetches, asked = begun()
    assert outcome(fetches.answered(BOB, PullAnswer(1, held=False, synced=True), NOBODY)) is None
    assert outcome(fetches.answered(BOB, PullAnswer(1, held=False, synced=True), NOBODY)) is None
    assert outcome(fetches.answered(b"stranger", PullAnswer(1, held=False, synced=True), NOBODY)) is None
    assert outcome(fetches.answered(CAROL, PullAnswer(asked.request, held=False, synced=True), NOBODY)) is Found.ABSENT


def test_a_holder_that_is_not_synced_leaves_it_unknown():
    """A cleared cookie would be a logout."""
    fetches, _ = begun()
    fetches.answered(BOB, PullAnswer(1, held=False, synced=True), NOBODY)
    assert outcome(fetches.answered(CAROL, PullAnswer(1, held=False, synced=False), NOBODY)) is None
    assert outcome(fetches.timeout(NOBODY, FETCH_TIMEOUT_S)) is Found.UNKNOWN


def test_held_elsewhere_and_not_come_is_never_absent():
    """The record may be behind other deltas of a full link."""
    fetches, _ = begun()
    fetches.answered(BOB, PullAnswer(1, held=True, synced=True), NOBODY)
    assert outcome(fetches.answered(CAROL, PullAnswer(1, held=False, synced=True), NOBODY)) is None
    assert fetches.holder_lost(BOB, NOBODY, died=False, synced=True) == []
    assert outcome(fetches.timeout(NOBODY, FETCH_TIMEOUT_S)) is Found.UNKNOWN


def test_when_all_have_answered_what_is_here_is_the_best_there_is():
    """Stale, and said so, long before the timeout."""
    fetches, _ = begun(mine=LIVE, dots=((CAROL, stamp(9)),))
    fetches.answered(BOB, PullAnswer(1, held=True, synced=True), HERE)
    assert outcome(fetches.answered(CAROL, PullAnswer(1, held=False, synced=True), HERE)) is Found.STALE


def test_a_holder_that_dies_is_not_waited_for():
    """The others' answers are all there will be."""
    fetches, _ = begun()
    fetches.answered(BOB, PullAnswer(1, held=False, synced=True), NOBODY)
    assert outcome(fetches.holder_lost(CAROL, NOBODY, died=False, synced=True)) is Found.ABSENT


def test_alone_the_answer_depends_on_whether_the_others_were_ever_met():
    """In its first seconds a node knows nothing; later it knows everything there is."""
    for doubtful, found in ((False, Found.ABSENT), (True, Found.UNKNOWN)):
        assert Fetches().start(SID, (), print, empty_record(SID), (), doubtful=doubtful, now_s=0.0) is found
        assert Fetches().start(SID, (), print, LIVE, (), doubtful=doubtful, now_s=0.0) is Found.STALE


def test_waiting_requests_are_bounded(monkeypatch):
    """Anybody can send ids that nobody made."""
    monkeypatch.setattr(fetch, "FETCHES_MAX", 1)
    fetches, _ = begun()
    assert fetches.start(SID, (), print, empty_record(SID), (BOB,), doubtful=False, now_s=0.0) is Found.UNKNOWN
    assert fetches.start(SID, (), print, LIVE, (BOB,), doubtful=False, now_s=0.0) is Found.STALE


def waiting_node() -> tuple[Clocked, list]:
    """A node with a peer, and a request that waits for a session it does not hold; its outcomes go to the list."""
    here, outcomes = Clocked().linked(BOB), []
    here.node.submit(Watch(on=True))
    assert here.node.submit(Fetch(SID, (), outcomes.append)) is None
    return here, outcomes


def test_a_delta_whose_base_is_not_held_ends_no_wait():
    """A push of somebody's next change comes in while the request waits for the session itself: taken for the
    session, it would be called absent, and the login lost."""
    here, outcomes = waiting_node()
    after = LIVE.written([("a", b"1")], stamp(1), BOB)
    here.hears(Push(1, (changes_since(after, LIVE),)))
    said = here.does()
    assert outcomes == []
    assert not [effect for effect in said if type(effect).__name__ == "Notify"]
    here.hears(Push(2, (not_covered(after, {}),)))
    here.does()
    assert outcomes == [Found.FRESH]


def test_a_session_that_has_expired_on_the_way_ends_no_wait_and_is_told_to_nobody():
    """It is not held afterwards, so it is neither found nor created."""
    here, outcomes = waiting_node()
    here.now_s += 3600
    here.hears(Push(1, (not_covered(LIVE, {}),)))
    said = here.does()
    assert SID not in here.node.records
    assert outcomes == []
    assert not [effect for effect in said if type(effect).__name__ == "Notify"]
    here.node.submit(Tick())
    here.does()
    assert outcomes == [Found.UNKNOWN]


def test_a_tombstone_ends_a_wait():
    """The session is no more: that is an answer, and a sure one."""
    here, outcomes = waiting_node()
    there = Clocked(BOB)
    there.replica.sessions.table.kill(SID, stamp(0))
    here.hears(Push(1, (not_covered(there.node.records[SID], {}),)))
    here.does()
    assert outcomes == [Found.FRESH]
    assert here.node.records[SID].tombstone == stamp(0)


def test_a_pull_is_answered_after_the_records_it_asked_for():
    """The verdict must not come before what it speaks of."""
    here = Clocked().linked(BOB).alone()
    here.replica.sessions.table.records[SID] = record((stamp(0), ALICE, registers()))
    here.says()
    here.hears(Pull(7, (Gap(SID, {}, 0),)))
    push, verdict = here.says()
    assert isinstance(push, Push)
    assert [delta.sid for delta in push.deltas] == [SID]
    assert verdict == PullAnswer(7, held=True, synced=True)
    here.hears(Pull(8, (Gap(CAROL * 2, {}, 0),)))
    assert here.says() == [PullAnswer(8, held=False, synced=True)]
