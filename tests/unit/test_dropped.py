"""Dropped copies: what a node must not claim after it has lost its own writes, and how long it remembers them."""

import pytest

from gossipsess.model import dropped as dropped_module
from gossipsess.model.delta import apply, changes_since, not_covered
from gossipsess.model.dropped import OVERHEAD_BYTES, Dropped
from gossipsess.model.record import CLAIM_AGE, CLAIMS_MAX, Record, dead_record
from gossipsess.model.table import Table
from gossipsess.protocol.events import Fetch
from gossipsess.protocol.outcomes import Found
from gossipsess.protocol.replication import cut
from gossipsess.store import SessionStore
from gossipsess.wire.messages import Pull, PullAnswer, Push
from tests.unit.machines import ALICE, BOB, CAROL, EPOCH_MS, SID, Clocked, record, registers, stamp

OLDER = record((stamp(0), BOB, registers()))
NEWER = OLDER.written([("cart", b"1")], stamp(10), ALICE)
BEGUN_HERE = record((stamp(0), ALICE, registers()))


def takes_in(table: Table, held: Record) -> None:
    table.merge(not_covered(held, table.get(SID).claims), EPOCH_MS + 100, 0.0)


def back_with(copy: Record, lost: Record = NEWER) -> Table:
    """Return ALICE's table after it has dropped one copy and got another."""
    table = Table()
    takes_in(table, lost)
    table.drop(SID, ALICE, 0.0)
    takes_in(table, copy)
    return table


def test_a_write_to_an_older_copy_than_the_dropped_one_is_not_claimed():
    """To claim it is to claim the lost one before it, which nobody would ever send here then."""
    written = back_with(OLDER).write(SID, [("seen", b"1")], stamp(20), ALICE, 0.0)
    assert not written.contains(ALICE, stamp(10))
    assert ALICE not in written.claims
    assert not written.covered
    assert written.newest == stamp(20)


def test_a_write_that_is_not_claimed_can_still_be_named():
    """Its client's token names it; without it every read would be stale."""
    assert back_with(OLDER).write(SID, [("seen", b"1")], stamp(20), ALICE, 0.0).contains(ALICE, stamp(20))


def test_an_earlier_claim_that_holds_stays():
    """It is true, and the base of the next delta."""
    lost = BEGUN_HERE.written([("cart", b"1")], stamp(10), ALICE)
    written = back_with(BEGUN_HERE, lost).write(SID, [("seen", b"1")], stamp(20), ALICE, 0.0)
    assert written.claims == {ALICE: stamp(0)}
    assert not written.contains(ALICE, stamp(10))


@pytest.mark.parametrize("there", [OLDER, NEWER], ids=["that is behind too", "that has the lost write"])
def test_writes_that_are_not_claimed_travel_to_a_peer(there):
    """The first is cut against claims, the next against the state; neither makes the peer claim too much."""
    table, before = back_with(OLDER), OLDER
    for ms in (20, 30):
        written = table.write(SID, [("seen", b"%d" % ms)], stamp(ms), ALICE, 0.0)
        applied = apply(there, cut(written, before.claims if before.covered else before))
        if applied.gap:  # the peer has more than the base; then it is sent all of the record
            applied = apply(there, not_covered(written, {}))
        there, before = applied.record, written
        assert there.contains(ALICE, stamp(ms))
        assert there.contains(ALICE, stamp(10)) == ("cart" in there.entries)


@pytest.mark.parametrize(
    "copy",
    [NEWER, NEWER.written([("cart", b"2")], stamp(15), CAROL), record((stamp(15), BOB, {**registers(), "cart": b""}))],
    ids=["the same", "a newer one", "one without a claim of the write"],
)
def test_a_copy_as_good_as_the_dropped_one_is_claimed(copy):
    """Nearly every copy is: the holders had all of it when it was dropped. And claims are dropped after ten minutes."""
    table = back_with(copy)
    assert table.wrote_before_drop(SID, EPOCH_MS) == 0
    assert table.write(SID, [("seen", b"1")], stamp(20), ALICE, 0.0).claims[ALICE] == stamp(20)
    assert not table._dropped.copies


def test_what_is_pulled_after_all_makes_the_next_write_claimed():
    """Then the lost write is here, and so are those made meanwhile."""
    table = back_with(OLDER)
    table.write(SID, [("seen", b"1")], stamp(20), ALICE, 0.0)
    takes_in(table, NEWER)
    written = table.write(SID, [("seen", b"2")], stamp(30), ALICE, 0.0)
    assert written.claims[ALICE] == stamp(30)
    assert {"cart", "seen"} <= set(written.entries)


def test_what_was_lost_with_the_first_copy_is_lost_with_the_second_too():
    """The second one has what was written to it, and still lacks what the first one had."""
    table = back_with(OLDER)
    second = table.write(SID, [("seen", b"1")], stamp(20), ALICE, 0.0)
    table.drop(SID, ALICE, 0.0)
    takes_in(table, second)
    assert ALICE not in table.write(SID, [("seen", b"2")], stamp(30), ALICE, 0.0).claims


def test_a_write_whose_session_is_dead_is_not_missed():
    """Nothing is written to it any more, and nothing of it remembered."""
    table = back_with(OLDER)
    takes_in(table, dead_record(SID, stamp(20)))
    assert table.wrote_before_drop(SID, EPOCH_MS) == 0
    assert not table._dropped.copies


def test_the_lost_write_is_asked_for_while_anybody_may_still_claim_it():
    """Later no holder could show that it has it, and every read here would be stale."""
    table = back_with(OLDER)
    age_ms = CLAIM_AGE >> 16
    assert table.wrote_before_drop(SID, EPOCH_MS + 10 + age_ms - 1) == stamp(10)
    assert table.wrote_before_drop(SID, EPOCH_MS + 10 + age_ms) == 0


@pytest.mark.parametrize(
    ("copy", "remembered"),
    [
        (OLDER, False),
        (NEWER, True),
        (NEWER.written([("cart", b"2")], stamp(15), BOB), True),
        (OLDER.written([("cart", b"1")], stamp(0) + CLAIM_AGE, BOB), False),
        (OLDER.written([("cart", b"1")], stamp(0) + CLAIM_AGE + 1, BOB), True),
        (record(*[(stamp(n), b"node%4d" % n, registers()) for n in range(CLAIMS_MAX - 1)]), False),
        (record(*[(stamp(n), b"node%4d" % n, registers()) for n in range(CLAIMS_MAX)]), True),
        (dead_record(SID, stamp(10)), False),
    ],
    ids=["read only", "written", "overwritten", "young", "forgotten by age", "few", "forgotten by number", "dead"],
)
def test_remembered_is_what_this_node_may_have_written(copy, remembered):
    """A node fetches and drops very many sessions that it only reads."""
    dropped = Dropped()
    dropped.note(copy, ALICE)
    assert bool(dropped.copies) == remembered


def test_what_is_remembered_is_bounded_and_its_account_right(monkeypatch):
    """A node that runs for months drops more sessions than it ever holds."""
    places_bytes = 24 * len(NEWER.entries)
    monkeypatch.setattr(dropped_module, "BYTES_MAX", 3 * (OVERHEAD_BYTES + places_bytes))
    dropped = Dropped()
    sids = [bytes([number]) * 16 for number in range(5)]
    for sid in [*sids, sids[2]]:
        dropped.note(record((stamp(0), ALICE, {**registers(), "cart": b""}), sid=sid), ALICE)
    assert list(dropped.copies) == [sids[3], sids[4], sids[2]]
    for sid in sids:
        dropped.forget(sid)
    assert dropped._bytes == 0


def test_to_take_a_copy_for_older_changes_nothing_that_is_held():
    """Request threads read records without a lock."""
    table = back_with(OLDER)
    held = table.get(SID)
    before = (dict(held.entries), dict(held.claims))
    table.write(SID, [("seen", b"1")], stamp(20), ALICE, 0.0)
    assert (held.entries, held.claims) == before
    assert changes_since(table.get(SID), held).entries == (("seen", stamp(20), ALICE, b"1"),)


def node_that_dropped() -> tuple[Clocked, list[Found]]:
    """Return a node with two peers that begins to fetch what it had, and how that ends."""
    here, found = Clocked().linked(BOB).linked(CAROL, 2), list[Found]()
    table = here.replica.sessions.table
    takes_in(table, NEWER)
    table.drop(SID, ALICE, here.now_s)
    here.does()
    assert here.node.submit(Fetch(SID, (), found.append)) is None
    return here, found


def answers(here: Clocked, copy: Record, link: int) -> None:
    """Let the peer that was asked answer with its copy."""
    (pull,) = [message for message in here.says() if isinstance(message, Pull) and message.request]
    here.hears(Push(1, (not_covered(copy, {}),)), link)
    here.hears(PullAnswer(pull.request, True, True), link)


def test_a_read_goes_on_until_the_copy_with_the_lost_write_is_found():
    """The first holder may be the one that is behind; no token of the client's need name the write."""
    here, found = node_that_dropped()
    answers(here, OLDER, 1)
    assert found == []
    answers(here, NEWER, 2)
    here.does()
    assert found == [Found.FRESH]


def test_a_read_without_the_lost_write_is_stale():
    """Nobody in reach has it: what there is, is served."""
    here, found = node_that_dropped()
    answers(here, OLDER, 1)
    answers(here, OLDER, 2)
    here.does()
    assert found == [Found.STALE]


def test_the_token_names_a_write_that_is_not_claimed():
    """The response that wrote gives it to the client."""
    here = Clocked().alone()
    store: SessionStore = here.store
    session = store.create()
    session["cart"] = b"1"
    store.commit(session, 0)
    sid = session.record.sid
    table = here.replica.sessions.table
    older = record((stamp(-1), BOB, registers()), sid=sid)
    table.drop(sid, ALICE, here.now_s)
    table.merge(not_covered(older, {}), EPOCH_MS, here.now_s)
    stale = store._opened(session.id, table.get(sid), table.life(table.get(sid)), "", EPOCH_MS)
    stale["seen"] = b"1"
    store.commit(stale, 0)
    assert ALICE not in table.get(sid).claims
    again = store.load(stale.cookie)
    assert again["seen"] == b"1"
    assert not again.stale
