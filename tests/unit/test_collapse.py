"""A peer that takes nothing costs a bounded amount, and is brought up to date once it takes data again."""

from itertools import pairwise

import pytest

from gossipsess.model.record import Record, empty_record
from gossipsess.model.table import Table
from gossipsess.protocol import replication
from gossipsess.protocol.confirmation import Ticket
from gossipsess.protocol.events import LinkClosed, Write
from gossipsess.protocol.outcomes import Degraded
from gossipsess.protocol.replica import Settings
from gossipsess.protocol.replication import FLUSH_DELAY_S, LAG_MAX_S, RESEND_AFTER_S, Outbound
from gossipsess.wire.messages import Gap, Push, PushAck, SyncAsk, SyncSums
from tests.unit.machines import ALICE, BOB, SID, Clocked, exchange, record, registers, stamp, tickets_of

FIRST = record((stamp(1), ALICE, {"a": b"1"}))
SECOND = FIRST.written([("b", b"2")], stamp(2), ALICE)


def sid(number: int) -> bytes:
    return number.to_bytes(16, "big")


def sessions(count: int) -> dict[bytes, Record]:
    return {sid(number): record((stamp(1), ALICE, {"a": b"1"}), sid=sid(number)) for number in range(count)}


def table(records: dict[bytes, Record]) -> Table:
    made = Table()
    made.records.update(records)
    return made


def ticket() -> Ticket:
    return Ticket(SID, print, 1, 9.0)


def collapsed() -> Outbound:
    """Return a peer that is linked and has been silent for too long."""
    outbound = Outbound()
    outbound.wrote(FIRST, None, 0.0)
    outbound.timeout(0.0, linked=True)
    outbound.timeout(LAG_MAX_S, linked=True)
    assert outbound.collapsed
    return outbound


# --- when it collapses ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [False, True], ids=["owed", "in flight and owed again"])
def test_a_peer_that_is_owed_too_many_sessions_has_collapsed(monkeypatch, sent):
    """To compare sums is cheaper than to remember so many bases."""
    monkeypatch.setattr(replication, "DIRTY_MAX", 3)
    monkeypatch.setattr(replication, "ASKED_MAX", 0)
    outbound, held = Outbound(), sessions(4)
    for one in list(held)[:3]:
        assert outbound.wrote(empty_record(one), ticket(), 1.0) == 1.0
    if sent:
        outbound.flush(table(held), 1.0)
    flush_at_s = outbound.wrote(empty_record(sid(3)), ticket(), 2.0)
    if sent:
        assert not outbound.collapsed, "what is in flight is not owed yet"
        outbound.link_down()
    else:
        assert flush_at_s == float("inf"), "nothing is to be flushed"
    assert outbound.collapsed
    assert not outbound.owed
    assert not any(tickets_of(outbound, one) for one in held), "their waits end by themselves"


def test_as_many_as_may_be_owed_collapse_nothing(monkeypatch):
    """Ten writes to one session are one that is owed."""
    monkeypatch.setattr(replication, "DIRTY_MAX", 3)
    outbound = Outbound()
    for number in range(30):
        outbound.wrote(empty_record(sid(number % 3)), None, 0.0)
    assert not outbound.collapsed
    assert len(outbound.owed) == 3


@pytest.mark.parametrize("linked", [True, False], ids=["linked", "without a link"])
def test_a_peer_that_is_owed_something_and_stays_silent_for_too_long_has_collapsed(linked):
    """Its link may stand while its process is stuck, or never come up while datagrams get through."""
    outbound = Outbound()
    outbound.timeout(0.0, linked=linked)
    outbound.wrote(FIRST, None, 10.0)
    for second in range(10, 10 + int(LAG_MAX_S)):
        outbound.timeout(float(second), linked=linked)
        if linked and outbound.can_flush:
            outbound.flush(table({SID: SECOND}), float(second))
        assert not outbound.collapsed, second
    outbound.timeout(10 + LAG_MAX_S, linked=linked)
    assert outbound.collapsed
    assert not outbound.owed


def test_what_is_in_flight_is_silence_too_and_what_rests():
    """Neither has come."""
    outbound = Outbound()
    outbound.wrote(FIRST, None, 0.0)
    outbound.flush(table({SID: SECOND}), 0.0)
    outbound.timeout(0.0, linked=False)
    outbound.timeout(LAG_MAX_S, linked=False)
    assert outbound.collapsed
    resting = Outbound()
    resting.resting[SID] = {}
    resting.timeout(0.0, linked=False)
    resting.timeout(LAG_MAX_S, linked=False)
    assert resting.collapsed


def test_a_peer_that_is_owed_nothing_may_be_silent_for_ever():
    """Nobody writes at night."""
    outbound = Outbound()
    outbound.wrote(FIRST, None, 0.0)
    outbound.timeout(0.0, linked=True)
    outbound.forget(SID)
    outbound.timeout(LAG_MAX_S - 1, linked=True)
    outbound.wrote(FIRST, None, LAG_MAX_S)
    outbound.timeout(LAG_MAX_S, linked=True)
    assert not outbound.collapsed, "the silence counts from the new debt"


@pytest.mark.parametrize("sign", ["an acknowledgement", "a new link"])
def test_a_sign_of_life_begins_the_silence_anew(sign):
    """A peer that is merely slow must not collapse."""
    outbound = Outbound()
    outbound.wrote(FIRST, None, 0.0)
    outbound.timeout(0.0, linked=True)
    outbound.flush(table({SID: SECOND}), 0.0)
    outbound.wrote(SECOND, None, 0.0)
    if sign == "a new link":
        outbound.link_up()
    else:
        outbound.acknowledged(PushAck(1))
    outbound.timeout(LAG_MAX_S, linked=True)
    assert not outbound.collapsed
    outbound.timeout(2 * LAG_MAX_S, linked=True)
    assert outbound.collapsed


# --- while it has collapsed -------------------------------------------------------------------------------


def test_what_changes_is_not_noted_any_more():
    """That is what bounds it."""
    outbound = collapsed()
    for number in range(100):
        assert outbound.wrote(empty_record(sid(number)), ticket(), 0.0) == float("inf")
    assert not outbound.owed
    assert not outbound.resting
    assert not outbound.waiting


def test_at_least_one_session_is_not_known_to_be_held_until_it_is_repaired():
    """A node that leaves, or says how far behind its peers are, must not take the collapsed for the best of them."""
    outbound = collapsed()
    assert outbound.unacknowledged == 1
    outbound.wrote(FIRST, None, 40.0)
    outbound.acknowledged(PushAck(1))
    assert not outbound.collapsed
    assert outbound.unacknowledged == 1, "what was given up is not there yet"
    outbound.repaired()
    assert outbound.unacknowledged == 0


def test_it_is_asked_by_an_empty_push_later_and_later_whether_it_takes_data():
    """It holds nothing up, and its answer shows that what was sent before has been read."""
    outbound, asked_at_s = collapsed(), []
    for tenth in range(10 * int(LAG_MAX_S), 10 * int(LAG_MAX_S) + 200):
        outbound.timeout(tenth / 10, linked=True)
        if outbound.can_flush:
            push = outbound.flush(table({SID: SECOND}), tenth / 10)
            assert push.deltas == ()
            asked_at_s.append(tenth / 10)
    waits = [later - earlier for earlier, later in pairwise(asked_at_s)]
    assert len(waits) >= 2
    assert all(later == pytest.approx(2 * earlier) for earlier, later in pairwise(waits))


def test_nobody_is_asked_without_a_link():
    """There is nothing to ask over; a new link is the sign."""
    outbound = collapsed()
    outbound.link_down()
    for second in range(100):
        outbound.timeout(LAG_MAX_S + second, linked=False)
        assert not outbound.can_flush
    assert outbound.collapsed


@pytest.mark.parametrize("sign", ["an acknowledgement", "a new link"])
def test_from_its_next_sign_of_life_on_what_changes_is_noted_again(sign):
    """The sync that repairs it has no eye for what is written after it has compared."""
    outbound = collapsed()
    if sign == "a new link":
        outbound.link_up()
    else:
        outbound.acknowledged(PushAck(1))
    assert outbound.wrote(SECOND, None, 31.0) == 31.0
    assert list(outbound.owed) == [SID]


def test_a_commit_that_waits_for_a_collapsed_peer_wakes_the_driver_and_ends_at_its_bound(monkeypatch):
    """Nothing is to be sent, so nothing else would: the request would hang until the next probe."""
    one, _ = pair()
    overwhelmed(one, monkeypatch)
    one.waits(FLUSH_DELAY_S)
    one.does()
    rings, outcomes, bound_s = [], [], Settings().confirm_timeout_s
    one.node.driven_by(lambda: rings.append(None))
    one.node.take()
    one.node.submit(Write(SID, (("a", b"1"),), 1, outcomes.append))
    assert rings
    _, due_s = one.node.take()
    assert due_s <= one.now_s + bound_s
    one.waits(bound_s)
    one.does()
    assert outcomes == [Degraded(0, 0)]


def test_a_peer_that_asks_is_answered_all_the_same():
    """Who pulls reads; a request waits there."""
    outbound = collapsed()
    outbound.lacks(SID, None)
    push = outbound.flush(table({SID: SECOND}), 31.0)
    assert [delta.sid for delta in push.deltas] == [SID]
    outbound.acknowledged(PushAck(push.sequence, (Gap(SID, {}, 0),)))
    assert SID in outbound.owed


# --- bytes on the way -------------------------------------------------------------------------------------


def test_what_is_owed_again_keeps_its_room_on_the_link(monkeypatch):
    """The kernel has it still: sent anew each second, a stuck peer would be sent everything over and over."""
    monkeypatch.setattr(replication, "IN_FLIGHT_BYTES_MAX", 1)
    outbound, held = Outbound(), table({SID: SECOND})
    outbound.wrote(FIRST, None, 0.0)
    first = outbound.flush(held, 0.0)
    under_way = outbound.in_flight_bytes
    assert under_way > 0
    asks: list[Push] = []
    for tenth in range(100):
        outbound.timeout(tenth / 10, linked=True)
        while outbound.can_flush:
            asks.append(outbound.flush(held, tenth / 10))
        assert outbound.in_flight_bytes == outbound._in_flight_bytes == under_way
    assert SID in outbound.owed
    assert len(asks) >= 3, "the answer to a question may be lost too"
    assert all(ask.deltas == () and ask.sequence > first.sequence for ask in asks)
    outbound.acknowledged(PushAck(asks[-1].sequence))
    assert outbound.in_flight_bytes == outbound._in_flight_bytes == 0, "it has read everything before the question"
    again = outbound.flush(held, 10.0)
    assert [delta.sid for delta in again.deltas] == [SID]


def test_an_answer_frees_only_what_was_sent_before_its_question(monkeypatch):
    """What was sent later may still be on the way."""
    monkeypatch.setattr(replication, "PUSH_BYTES", 1)
    outbound, held = Outbound(), sessions(3)
    for one in held:
        outbound.wrote(empty_record(one), None, 0.0)
    sizes = []
    for _ in held:
        outbound.flush(table(held), 0.0)
        sizes.append(outbound.in_flight_bytes - sum(sizes))
    outbound.timeout(RESEND_AFTER_S, linked=True)
    assert outbound.in_flight_bytes == sum(sizes)
    outbound.acknowledged(PushAck(2))
    assert outbound.in_flight_bytes == outbound._in_flight_bytes == sizes[2]


def test_what_was_given_up_again_and_again_stays_bounded_and_is_released_in_the_order_it_was_sent(monkeypatch):
    """An acknowledgement that comes late speaks for all that was sent before it, whenever that was given up."""
    monkeypatch.setattr(replication, "PUSH_BYTES", 1)
    monkeypatch.setattr(replication, "IN_FLIGHT_BYTES_MAX", 1000)
    outbound, held, now_s = Outbound(), table(sessions(50)), 0.0
    for one in held.records:
        outbound.wrote(empty_record(one), None, now_s)
    sent = {}  # sequence -> bytes
    for _ in range(4):  # the second half finds no room
        for _ in range(4):
            before = outbound.in_flight_bytes
            push = outbound.flush(held, now_s)
            if push is not None and push.deltas:
                sent[push.sequence] = outbound.in_flight_bytes - before
        now_s = outbound.next_resend_s()
        outbound.timeout(now_s, linked=True)
        assert outbound.in_flight_bytes == outbound._in_flight_bytes == sum(sent.values())
    assert 1000 <= sum(sent.values()) < 1000 + max(sent.values())
    assert len(sent) > 4, "more than one round was given up"
    outbound._collapse()
    for answered in (2, 1, 5, *sent):
        outbound.acknowledged(PushAck(answered))
        sent = {sequence: size for sequence, size in sent.items() if sequence > answered}
        assert outbound.in_flight_bytes == outbound._in_flight_bytes == sum(sent.values())
    assert sent == {}


def test_what_a_collapsed_peer_was_sent_keeps_its_room_until_it_answers_or_the_link_ends():
    """Otherwise each collapse would let as much again onto the link."""
    for end in ("answer", "link"):
        outbound = Outbound()
        outbound.wrote(FIRST, None, 0.0)
        outbound.flush(table({SID: SECOND}), 0.0)
        under_way = outbound.in_flight_bytes
        outbound.timeout(0.0, linked=False)
        outbound.timeout(LAG_MAX_S, linked=False)
        assert outbound.collapsed
        assert outbound.in_flight_bytes == outbound._in_flight_bytes == under_way
        if end == "answer":
            outbound.acknowledged(PushAck(1))
        else:
            outbound.link_down()
        assert outbound.in_flight_bytes == outbound._in_flight_bytes == 0


def test_a_late_acknowledgement_of_what_was_given_up_confirms_nothing():
    """Its tickets are gone; the sync shows what is there."""
    outbound, waits = Outbound(), ticket()
    outbound.wrote(FIRST, waits, 0.0)
    push = outbound.flush(table({SID: SECOND}), 0.0)
    outbound.timeout(0.0, linked=False)
    outbound.timeout(LAG_MAX_S, linked=False)
    assert outbound.acknowledged(PushAck(push.sequence)) == {}
    assert not outbound.collapsed, "but it takes data"


# --- as a whole -------------------------------------------------------------------------------------------


def write(here: Clocked, name: bytes = SID) -> None:
    here.node.submit(Write(name, tuple(registers(idle_ms=600_000).items()), 0, lambda outcome: None))


def pair() -> tuple[Clocked, Clocked]:
    one, other = Clocked(ALICE).alone().linked(BOB), Clocked(BOB).alone().linked(ALICE)
    exchange(one, other)
    return one, other


def outbound_of(here: Clocked) -> Outbound:
    return here.replica.sessions.peers[BOB].outbound


def overwhelmed(here: Clocked, monkeypatch) -> Outbound:
    """Let the peer be owed more than it may be; return what is kept for it. It is told of nothing."""
    with monkeypatch.context() as patch:
        patch.setattr(replication, "DIRTY_MAX", 1)
        write(here)
        write(here, b"another-16-bytes")
        write(here, b"a-third-16-bytes")
    here.does()
    assert outbound_of(here).collapsed
    return outbound_of(here)


def ask_of(here: Clocked) -> SyncAsk:
    """Return the question that this node's new sync has begun with."""
    (ask,) = [message for message in here.says() if isinstance(message, SyncAsk)]
    return ask


def carry(one: Clocked, other: Clocked, link: int) -> None:
    """Carry what is said, and what follows, but no sync that the other side begins."""
    for _ in range(10):
        for message in one.says():
            other.hears(message, link)
        for message in other.says():
            if not isinstance(message, SyncAsk):
                one.hears(message, link)
        for here in (one, other):
            here.waits(0.01)


def relinked(one: Clocked, other: Clocked) -> None:
    """Let the link of the two break, and a new one, 2, come up."""
    for here, node in ((one, BOB), (other, ALICE)):
        here.node.submit(LinkClosed(1))
        here.does()
        here.linked(node, 2)


@pytest.mark.parametrize("link", [1, 2], ids=["it answers", "a new link"])
def test_a_peer_that_takes_data_again_is_repaired_by_a_sync_of_this_side_alone(monkeypatch, link):
    """What was given up is noted nowhere. And the peer may run no sync, or have run it just before."""
    one, other = pair()
    outbound = overwhelmed(one, monkeypatch)
    if link == 2:
        relinked(one, other)
    else:
        one.waits(RESEND_AFTER_S)  # it is asked whether it takes data
        other.waits(RESEND_AFTER_S)
    carry(one, other, link)
    assert len(other.node.records) == 3
    assert {name: held.state_hash for name, held in other.node.records.items()} == {
        name: held.state_hash for name, held in one.node.records.items()
    }
    assert not outbound.collapsed
    assert one.replica.sessions.unacknowledged == 0


def test_it_is_repaired_when_the_sync_has_ended_and_not_before(monkeypatch):
    """A sync that runs may yet be lost with its link."""
    one, _ = pair()
    outbound = overwhelmed(one, monkeypatch)
    one.hears(PushAck(1))
    ask = ask_of(one)
    one.waits(0.5)
    assert not outbound.collapsed
    assert outbound.unrepaired
    assert one.replica.sessions.unacknowledged == 1
    one.hears(SyncSums(ask.round, (), True))
    assert one.replica.sessions.unacknowledged == 0


def test_a_link_that_ends_before_the_repair_leaves_it_to_the_next(monkeypatch):
    """The next sync would only pull, were it forgotten."""
    one, other = pair()
    outbound = overwhelmed(one, monkeypatch)
    one.hears(PushAck(1))
    relinked(one, other)
    assert outbound.unrepaired
    carry(one, other, 2)
    assert len(other.node.records) == 3
    assert not outbound.unrepaired


def test_who_collapses_again_while_it_is_repaired_is_repaired_again(monkeypatch):
    """The first sync has passed what was given up the second time."""
    one, _ = pair()
    outbound = overwhelmed(one, monkeypatch)
    one.hears(PushAck(1))
    first = ask_of(one)
    outbound._collapse()
    one.hears(PushAck(1))
    one.hears(SyncSums(first.round, (), True))
    second = ask_of(one)
    assert outbound.unrepaired
    one.hears(SyncSums(second.round, (), True))
    assert not outbound.unrepaired


def test_a_sync_that_ends_while_it_takes_nothing_repairs_nothing(monkeypatch):
    """It was begun for another reason, and compared what has changed since."""
    one, _ = pair()
    outbound = overwhelmed(one, monkeypatch)
    one.replica.sessions.anti_entropy._sync_all(one.now_s)
    one.hears(SyncSums(ask_of(one).round, (), True))
    one.waits(0.1)
    assert outbound.unrepaired
