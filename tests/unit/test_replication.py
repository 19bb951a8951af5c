"""What one peer is owed, what is on its way, and what comes of its answers."""

import pytest

from gossipsess.model.record import empty_record
from gossipsess.model.table import Table
from gossipsess.protocol import replication
from gossipsess.protocol.confirmation import Ticket
from gossipsess.protocol.replication import RESEND_AFTER_S, Outbound
from gossipsess.wire.messages import Gap, Push, PushAck
from tests.unit.machines import ALICE, EPOCH_MS, SID, record, registers, stamp, tickets_of

OTHER = b"another-16-bytes"
FIRST = record((stamp(1), ALICE, {"a": b"1"}))
SECOND = FIRST.written([("b", b"2")], stamp(2), ALICE)


def keys(push: Push | None) -> list[list[str]]:
    assert push is not None
    return [[entry[0] for entry in delta.entries] for delta in push.deltas]


def table(records: dict) -> Table:
    made = Table()
    made.records.update(records)
    return made


def ticket() -> Ticket:
    return Ticket(SID, print, 1, 9.0)


def test_changes_of_one_session_coalesce_until_the_flush():
    """A burst of writes is one delta, against the state before the first."""
    outbound = Outbound()
    outbound.wrote(empty_record(SID), None, 0.0)
    outbound.wrote(FIRST, None, 0.0)
    push = outbound.flush(table({SID: SECOND}), 0.0)
    assert keys(push) == [["a", "b"]]
    assert outbound.flush(table({SID: SECOND}), 0.0) is None, "nothing is owed any more"


def test_an_acknowledged_write_confirms_its_tickets_and_a_second_ack_nothing():
    """A wait must not be settled by an answer to something else."""
    outbound, waits = Outbound(), ticket()
    outbound.wrote(FIRST, waits, 0.0)
    push = outbound.flush(table({SID: SECOND}), 0.0)
    assert outbound.acknowledged(PushAck(push.sequence + 1)) == {}
    assert outbound.acknowledged(PushAck(push.sequence)) == {SID: [waits]}
    assert outbound.acknowledged(PushAck(push.sequence)) == {}
    assert outbound.unacknowledged == 0


@pytest.mark.parametrize(
    ("claims", "sent"), [({ALICE: stamp(1)}, ["b"]), ({}, ["a", "b"]), (None, ["a", "b"])], ids=["some", "none", "all"]
)
def test_a_gap_is_filled_from_what_the_peer_claims_and_confirms_only_then(claims, sent):
    """Confirmed at the gap, the write would be lost with this node."""
    outbound, waits = Outbound(), ticket()
    outbound.wrote(FIRST, waits, 0.0)
    push = outbound.flush(table({SID: SECOND}), 0.0)
    assert outbound.acknowledged(PushAck(push.sequence, (Gap(SID, claims, 0),))) == {}
    again = outbound.flush(table({SID: SECOND}), 0.0)
    assert keys(again) == [sent]
    assert outbound.acknowledged(PushAck(again.sequence)) == {SID: [waits]}


def test_a_gap_for_what_was_not_sent_is_no_debt():
    """A peer that names sessions at random must not be sent them."""
    outbound = Outbound()
    outbound.wrote(FIRST, None, 0.0)
    push = outbound.flush(table({SID: SECOND}), 0.0)
    outbound.acknowledged(PushAck(push.sequence, (Gap(OTHER, {}, 0),)))
    assert not outbound.owed


def test_what_stays_unacknowledged_is_sent_again_against_the_oldest_base():
    """The peer may have got neither push; only the base of the first is one it holds for certain."""
    outbound, waits = Outbound(), ticket()
    outbound.wrote(empty_record(SID), waits, 0.0)
    outbound.flush(table({SID: FIRST}), 0.0)
    outbound.wrote(FIRST, None, 0.0)
    outbound.flush(table({SID: SECOND}), 0.5)
    assert outbound.next_resend_s() == RESEND_AFTER_S
    outbound.timeout(RESEND_AFTER_S - 0.01, linked=True)
    assert not outbound.owed
    outbound.timeout(RESEND_AFTER_S + 0.5, linked=True)
    again = outbound.flush(table({SID: SECOND}), 2.0)
    assert keys(again) == [["a", "b"]]
    assert outbound.acknowledged(PushAck(again.sequence)) == {SID: [waits]}


def test_each_resend_waits_longer_until_an_answer_comes():
    """A peer that is overloaded is not helped by more of the same."""
    outbound = Outbound()
    outbound.wrote(FIRST, None, 0.0)
    outbound.flush(table({SID: SECOND}), 0.0)
    outbound.timeout(1.0, linked=True)
    push = outbound.flush(table({SID: SECOND}), 1.0)
    assert outbound.next_resend_s() == 1.0 + 2 * RESEND_AFTER_S
    outbound.acknowledged(PushAck(push.sequence))
    outbound.wrote(FIRST, None, 0.0)
    outbound.flush(table({SID: SECOND}), 5.0)
    assert outbound.next_resend_s() == 5.0 + RESEND_AFTER_S


def test_a_lost_link_owes_again_what_was_on_it():
    """And the requests that wait go on waiting, unless they have given up."""
    outbound, waits, gave_up = Outbound(), ticket(), ticket()
    gave_up.settled = True
    outbound.wrote(FIRST, waits, 0.0)
    outbound.wrote(FIRST, gave_up, 0.0)
    outbound.flush(table({SID: SECOND}), 0.0)
    outbound.link_down()
    assert tickets_of(outbound, SID) == [waits]
    push = outbound.flush(table({SID: SECOND}), 1.0)
    assert tickets_of(outbound, SID) == [waits]
    assert outbound.acknowledged(PushAck(push.sequence)) == {SID: [waits]}


def test_a_push_ends_at_its_size_and_the_rest_goes_with_the_next(monkeypatch):
    """One huge message would hold up everything behind it."""
    monkeypatch.setattr(replication, "PUSH_BYTES", 1000)
    big = {bytes([number]) * 16: b"x" * 600 for number in range(5)}
    records = {sid: record((stamp(1), ALICE, {"a": value}), sid=sid) for sid, value in big.items()}
    outbound = Outbound()
    for sid in records:
        outbound.wrote(empty_record(sid), None, 0.0)
    sent = []
    while push := outbound.flush(table(records), 0.0):
        assert len(push.deltas) <= 2
        sent += [delta.sid for delta in push.deltas]
    assert sent == list(records)


def test_a_peer_that_does_not_answer_holds_up_a_bounded_number_of_bytes(monkeypatch):
    """What it does not take stays owed, and coalesces."""
    monkeypatch.setattr(replication, "IN_FLIGHT_BYTES_MAX", 1)
    outbound = Outbound()
    outbound.wrote(FIRST, None, 0.0)
    push = outbound.flush(table({SID: SECOND}), 0.0)
    outbound.wrote(SECOND, None, 0.0)
    assert outbound.flush(table({SID: SECOND}), 0.0) is None
    assert not outbound.can_flush
    assert outbound.unacknowledged == 2
    outbound.acknowledged(PushAck(push.sequence))
    assert outbound.can_flush


def test_a_session_that_expired_before_the_flush_is_not_sent():
    """The peer's copy ends by itself."""
    outbound = Outbound()
    outbound.wrote(FIRST, None, 0.0)
    assert outbound.flush(table({}), 0.0) is None
    assert outbound.unacknowledged == 0


def test_what_somebody_waits_for_is_sent_before_all_else_that_is_owed(monkeypatch):
    """Behind all that a repair owes, a commit would wait to its bound."""
    monkeypatch.setattr(replication, "PUSH_BYTES", 1)
    sids = [bytes([number]) * 16 for number in range(4)]
    held = table({sid: record((stamp(1), ALICE, {"a": b"1"}), sid=sid) for sid in sids})
    outbound, waits = Outbound(), ticket()
    for sid in sids[:3]:
        outbound.lacks(sid, None)
    outbound.wrote(empty_record(sids[3]), waits, 0.0)
    first = outbound.flush(held, 0.0)
    assert outbound.acknowledged(PushAck(first.sequence)) == {sids[3]: [waits]}
    sent = [delta.sid for delta in first.deltas]
    while push := outbound.flush(held, 0.0):
        sent += [delta.sid for delta in push.deltas]
    assert sent == [sids[3], *sids[:3]], "each once, the others in their order"


def test_keys_count_against_a_pushs_size_too(monkeypatch):
    """A message of long keys alone could grow past what any peer takes, and its assertion end the node's thread."""
    monkeypatch.setattr(replication, "PUSH_BYTES", 1000)
    sids = [bytes([number]) * 16 for number in range(5)]
    records = {sid: record((stamp(1), ALICE, {"\N{SNOWMAN}" * 200: b"x"}), sid=sid) for sid in sids}
    outbound = Outbound()
    for sid in sids:
        outbound.wrote(empty_record(sid), None, 0.0)
    pushes = []
    while push := outbound.flush(table(records), 0.0):
        pushes.append(len(push.deltas))
    assert pushes == [2, 2, 1]


def test_a_delta_says_when_the_session_was_last_used_where_that_was_after_its_last_write():
    """Who lacks the state may have heard of no access, and its copy would end too early; and a write is an access."""
    outbound, first = Outbound(), record((stamp(1), ALICE, registers()))
    held = table({SID: first})
    held.touch(SID, EPOCH_MS + 30_000)
    second = held.records[SID] = first.written([("a", b"1")], stamp(30_001), ALICE)
    outbound.wrote(first, None, 0.0)
    (pushed,) = outbound.flush(held, 0.0).deltas
    held.touch(SID, EPOCH_MS + 60_000)
    outbound.link_down()
    (sent_again,) = outbound.flush(held, 0.0).deltas
    outbound.lacks(SID, None)
    (asked_for,) = outbound.flush(held, 0.0).deltas
    assert second.newest == stamp(30_001)
    assert [one.accessed_ms for one in (pushed, sent_again, asked_for)] == [0, EPOCH_MS + 60_000, EPOCH_MS + 60_000]


def test_a_session_that_has_expired_is_owed_no_more_nor_its_waits_kept():
    """A peer that takes nothing would make them gather for as long as it is taken for alive."""
    outbound = Outbound()
    outbound.wrote(FIRST, ticket(), 0.0)
    outbound.forget(SID)
    assert outbound.unacknowledged == 0
    assert tickets_of(outbound, SID) == []


def test_waits_that_are_over_are_not_kept_for_a_peer_that_takes_nothing():
    """A busy session of a peer without a link would keep one for each of its writes."""
    outbound = Outbound()
    for _ in range(100):
        waits = ticket()
        outbound.wrote(FIRST, waits, 0.0)
        waits.settled = True
    assert tickets_of(outbound, SID) == [waits]
