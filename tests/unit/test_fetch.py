"""A request waits for a session: present, absent and unknown are never confused."""

import pytest

from gossipsess.model.delta import changes_since, not_covered
from gossipsess.model.record import empty_record
from gossipsess.protocol import fetch, replication
from gossipsess.protocol.effects import Settle
from gossipsess.protocol.events import Fetch, LinkClosed, LinkOpened, Tick, Watch, Write
from gossipsess.protocol.fetch import FETCH_TIMEOUT_S, Fetches
from gossipsess.protocol.outcomes import Found
from gossipsess.wire.messages import Bye, Gap, Hello, Pull, PullAnswer, Push
from tests.unit.machines import ALICE, BOB, CAROL, SID, Clocked, member, record, registers, stamp

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


def test_a_holder_whose_link_is_replaced_is_asked_again():
    """Both of a pair dial when they meet, and requests come in the same millisecond: they would wait to their bound."""
    here, found = Clocked().alone().linked(BOB), []
    here.node.submit(Fetch(SID, (), found.append))
    here.node.submit(LinkClosed(1))
    here.does()
    here.linked(BOB, 2)
    (asked,) = [message for message in here.says() if isinstance(message, Pull)]
    here.hears(PullAnswer(asked.request, held=False, synced=True), 2)
    here.does()
    assert found == [Found.ABSENT]


def test_who_has_answered_is_not_asked_again():
    """Only what is missing is worth a message; and a write that came meanwhile need not come again."""
    fetches, asked = begun()
    fetches.answered(BOB, PullAnswer(asked.request, held=False, synced=True), NOBODY)
    assert fetches.unanswered_by(BOB, NOBODY) == []
    assert fetches.unanswered_by(CAROL, NOBODY) == [asked]
    assert fetches.unanswered_by(CAROL, HERE) == [Pull(asked.request, (Gap(SID, LIVE.claims, LIVE.state_hash),))]
    assert fetches.unanswered_by(b"stranger", NOBODY) == []


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
    there.replica.sessions.table.kill(SID, stamp(0), 0.0)
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


@pytest.mark.parametrize(
    ("dots", "died", "synced", "found"),
    [
        (((BOB, stamp(9)),), True, True, Found.UNKNOWN),  # it may have told its write to nobody who is left
        (((BOB, stamp(9)),), False, True, Found.ABSENT),  # it left, and handed over what it had
        (((ALICE, stamp(9)),), True, True, Found.ABSENT),
        ((), True, False, Found.UNKNOWN),  # this node has met nobody else: what others hold it cannot tell
    ],
    ids=["writer died", "writer left", "another died", "not synced"],
)
def test_what_the_last_holders_end_says_depends_on_what_it_may_have_taken_along(dots, died, synced, found):
    """Absent ends a login; with the only node that may have held it gone, nobody can say so."""
    fetches, _ = begun(dots=dots, holders=(BOB,))
    assert outcome(fetches.holder_lost(BOB, NOBODY, died=died, synced=synced)) is found


def test_a_token_that_names_a_write_of_a_dead_node_leaves_it_unknown():
    """Out of reach is not dead: it may be back with the session in a moment."""
    here = Clocked().alone().linked(BOB).loses()
    assert here.node.submit(Fetch(SID, ((BOB, stamp(0)),), print)) is Found.UNKNOWN
    assert here.node.submit(Fetch(SID, ((CAROL, stamp(0)),), print)) is Found.ABSENT
    here.node.submit(LinkOpened(2, BOB, None))
    here.hears(Hello(member(BOB)._replace(incarnation=1), 0, ()), 2)
    here.hears(Bye(), 2)
    assert here.node.submit(Fetch(SID, ((BOB, stamp(0)),), print)) is Found.ABSENT, "it came back, and left in order"


def test_a_request_that_waits_for_a_node_without_a_link_wakes_the_driver():
    """Nothing is sent, so nothing else would: its bound would pass unnoticed until the next probe."""
    here, rings = Clocked().linked(BOB), []
    here.node.submit(LinkClosed(1))
    here.does()
    here.node.driven_by(lambda: rings.append(None))
    assert here.node.submit(Fetch(SID, (), print)) is None
    assert rings


def test_a_pulls_verdict_comes_after_its_record_however_much_is_owed_before_it(monkeypatch):
    """Before it, the verdict says that no more will come: a read would miss a write that is on its way."""
    monkeypatch.setattr(replication, "PUSH_BYTES", 1)
    here = Clocked().linked(BOB).alone()
    here.says()
    sids = [bytes([number]) * 16 for number in range(5)]
    for sid in sids:
        here.node.submit(Write(sid, tuple(registers().items()), 0, print))
    here.hears(Pull(7, (Gap(sids[-1], {}, 0),)))
    *pushes, verdict = here.says()
    assert [delta.sid for push in pushes for delta in push.deltas] == sids
    assert verdict == PullAnswer(7, held=True, synced=True)
