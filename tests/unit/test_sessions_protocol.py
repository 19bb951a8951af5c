"""What a node makes of its peers: when it has everything, and what it keeps for who is out of reach for a moment."""

import pytest

from gossipsess.model.delta import not_covered
from gossipsess.model.member import Told
from gossipsess.model.record import RECORD_BYTES_MAX, VALUE_BYTES_MAX
from gossipsess.protocol.effects import CloseLink, Warn
from gossipsess.protocol.events import Accessed, Invalidate, LinkClosed, LinkOpened, Rotate, Write
from gossipsess.protocol.outcomes import Confirmed, Gone
from gossipsess.protocol.replica import ALONE_S
from gossipsess.wire.messages import Hello, Push, Touch
from tests.unit.machines import ALICE, BOB, CAROL, EPOCH_MS, SID, Clocked, exchange, member, record, registers, stamp


def write(here: Clocked, confirm: int = 0, sid: bytes = SID, idle_ms: int = 60_000) -> None:
    here.node.submit(Write(sid, tuple(registers(idle_ms=idle_ms).items()), confirm, lambda outcome: None))


def synced(here: Clocked) -> bool:
    return here.replica.sessions.synced


def pair() -> tuple[Clocked, Clocked]:
    return Clocked(ALICE).linked(BOB), Clocked(BOB).linked(ALICE)


def test_two_newcomers_do_not_make_each_other_believe_that_they_have_everything():
    """Started together, they find each other before the node that holds the sessions: both would call them absent."""
    one, other = pair()
    exchange(one, other)
    assert not synced(one)
    assert not synced(other)


def test_one_peer_that_has_everything_is_enough_and_is_heard_at_once():
    """Waiting on would hold up every start of a deployment."""
    one, other = Clocked(ALICE).linked(BOB), Clocked(BOB).alone().linked(ALICE)
    exchange(one, other)
    assert synced(one)


def test_newcomers_that_meet_nobody_else_have_everything_after_a_while():
    """They are the first nodes of a deployment, and must serve."""
    one, other = pair()
    exchange(one, other)
    one.waits(ALONE_S - 0.01)
    assert not synced(one)
    one.waits(0.01)
    assert synced(one)


def test_a_live_member_without_a_link_keeps_a_node_unsynced_only_while_it_is_patient():
    """A port that one firewall closes would make every id that nobody holds unknown, on all nodes, for ever. And in
    the first seconds the link is about to come."""
    here, there = Clocked(), Clocked(BOB).alone().linked(ALICE)
    here.node.submit(LinkOpened(1, BOB, None))
    here.hears(Hello(member(BOB), stamp(0), (Told(member(CAROL, port=7951)),)))
    exchange(here, there)
    assert CAROL in [one.node for one in here.replica.swim.view.live()]
    here.waits(ALONE_S - 0.01)
    assert not synced(here)
    here.waits(0.01)
    assert synced(here)


def test_patience_does_not_make_up_for_a_peer_whose_sessions_have_not_come():
    """A slow join is one that takes longer than two seconds; its end is what counts."""
    here = Clocked().linked(BOB)
    here.waits(ALONE_S)
    assert not synced(here)
    there = Clocked(BOB).alone().linked(ALICE)
    there.now_s = here.now_s
    exchange(here, there)
    here.waits(1.0)  # the ask from before is repeated
    exchange(here, there)
    assert synced(here)


def test_an_expired_session_is_owed_to_nobody():
    """A peer that is taken for alive and takes nothing would make dead sessions gather."""
    here = Clocked().linked(BOB)
    here.node.submit(LinkClosed(1))
    write(here, confirm=1, idle_ms=1000)
    assert here.replica.sessions.unacknowledged == 1
    here.waits(1.3)
    assert SID not in here.node.records
    assert [member.node for member in here.replica.swim.view.live()] == [BOB]
    assert here.replica.sessions.unacknowledged == 0


def test_accesses_reach_a_peer_whose_link_was_down_when_they_were_told():
    """Equal records are not pulled, so nothing else would tell it: its copy would end while the session is in use."""
    here = Clocked().linked(BOB)
    write(here)
    here.node.submit(LinkClosed(1))
    here.now_s += 10
    here.node.submit(Accessed(SID))
    here.does()
    here.waits(0.0)
    here.does()
    here.linked(BOB, 2)
    assert Touch(1, ((SID, EPOCH_MS + 10_000),)) in here.says()


def test_a_record_that_no_honest_node_makes_costs_its_sender_the_link_and_is_not_kept():
    """Kept, it could be sent on to nobody: the message would be over every bound, and end the node's thread."""
    here = Clocked().linked(BOB).linked(CAROL, 2)
    here.does()
    value = bytes(VALUE_BYTES_MAX)
    values = {f"k{number}": value for number in range(RECORD_BYTES_MAX // VALUE_BYTES_MAX)}
    huge = record((stamp(0), BOB, registers() | values))
    here.hears(Push(1, (not_covered(huge, {}),)))
    done = here.does()
    assert CloseLink(1) in done
    assert [effect.text for effect in done if isinstance(effect, Warn)]
    assert SID not in here.node.records
    fits = record((stamp(1), CAROL, registers()))
    here.hears(Push(1, (not_covered(fits, {}),)), 2)
    assert here.node.records[SID].state_hash == fits.state_hash, "the others are heard as before"


def test_an_id_that_has_a_session_or_had_one_begins_no_other():
    """One user's old cookie would open another user's session."""
    here = Clocked()
    begin = Write(SID, tuple(registers().items()), 0, lambda outcome: None)
    assert here.node.submit(begin).outcome == Confirmed(0, 0)
    first = here.node.records[SID]
    assert here.node.submit(begin).outcome == Gone()
    assert here.node.records[SID] is first
    here.node.submit(Invalidate(SID, 0, lambda outcome: None))
    assert here.node.submit(begin).outcome == Gone()
    assert here.node.records[SID].tombstone


def test_a_session_does_not_rotate_to_an_id_that_is_taken():
    """Both users would lose their data, or see each other's."""
    here = Clocked()
    other = b"another-16-bytes"
    write(here)
    write(here, sid=other)
    before = dict(here.node.records)
    assert here.node.submit(Rotate(SID, other, (), 0, lambda outcome: None)).outcome == Gone()
    assert here.node.records == before


@pytest.mark.parametrize("sent", [False, True], ids=["owed", "in flight"])
@pytest.mark.parametrize(
    "end", [Invalidate(SID, 0, print), Rotate(SID, b"another-16-bytes", (), 0, print)], ids=["logout", "rotation"]
)
def test_a_commit_that_another_request_on_its_node_overtakes_with_an_end_is_gone(end, sent):
    """The tombstone's acknowledgement would confirm it, and its response set the dead id's cookie again."""
    one, other = pair()
    exchange(one, other)
    write(one)
    one.waits(1.0)
    exchange(one, other)
    outcomes = []
    one.node.submit(Write(SID, (("paid", b"1"),), 1, outcomes.append))
    if sent:
        one.waits(0.0)
    one.node.submit(end)
    one.waits(0.0)
    exchange(one, other)
    assert outcomes == [Gone()]
    assert other.node.records[SID].tombstone or not sent


def test_a_second_logout_does_not_end_the_wait_of_the_first():
    """Both requests ended the session, and it is dead: neither has lost anything."""
    one, other = pair()
    exchange(one, other)
    write(one)
    outcomes = []
    for _ in range(2):
        one.node.submit(Invalidate(SID, 1, outcomes.append))
    one.waits(0.0)
    exchange(one, other)
    assert outcomes == [Confirmed(1, 1)] * 2
