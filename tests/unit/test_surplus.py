"""Sessions held here that others are to hold: offered until those have them, and dropped when that is safe."""

import pytest

from gossipsess.model.delta import not_covered
from gossipsess.model.record import Record, empty_record
from gossipsess.model.table import Table
from gossipsess.protocol.offers import AGAIN_S, LACKING_MAX, NAMED_BYTES, NAMED_MAX, answer
from gossipsess.protocol.placement import partition_of
from gossipsess.protocol.surplus import (
    CHECKED_MAX,
    FRESH_S,
    OFFER_AFTER_S,
    QUIET_S,
    REPEAT_S,
    SECURE_AFTER_S,
    Step,
    Surplus,
)
from gossipsess.wire.codec import encode
from gossipsess.wire.messages import Gap, Have, Held
from tests.unit.machines import ALICE, BOB, CAROL, EPOCH_MS, SID, record, registers, stamp
from tests.unit.surplus_world import Layout

DORA = b"dora...."
PARTITION = partition_of(SID)
MINE, OTHERS = Layout(ALICE, CAROL), Layout(BOB, CAROL)


def sid(number: int) -> bytes:
    """Return a sid of the partition."""
    return SID[:2] + number.to_bytes(14, "big")


def table_of(count: int = 1) -> Table:
    table = Table()
    for number in range(count):
        table.write(sid(number), registers().items(), stamp(0, number), ALICE, 0.0)
    return table


def give(table: Table, *records: Record) -> None:
    for one in records:
        table.merge(not_covered(one, {}), EPOCH_MS, 0.0)


class Alice:
    """A node that held the partition together with Carol until second 0; from then on Bob and Carol hold it."""

    def __init__(self, table: Table, *, at_once: bool = True) -> None:
        self.table = table
        self.layout = OTHERS
        self.part = Surplus(ALICE, -100.0)
        for peer in (BOB, CAROL):
            self.part.link_up(peer)
        self.part.layout_changed(MINE, OTHERS, table, 0.0, at_once=at_once)

    def asks(self, now_s: float) -> dict[bytes, Have]:
        return dict(self.part.timeout(now_s, self.layout, self.table).asks)

    def hears(self, peer: bytes, have: Have, now_s: float, *lacking: Gap, holder: bool = True) -> Step:
        return self.part.held(peer, Held(have.round, holder, lacking), self.layout, self.table, now_s)


def secured(table: Table) -> Alice:
    """Return a node whose new holder has everything, a minute after the change."""
    alice = Alice(table)
    have = alice.asks(0.0)[BOB]
    alice.hears(BOB, have, 0.0)
    assert alice.part.securing == 0
    return alice


def test_what_this_node_holds_no_longer_is_offered_to_who_did_not_hold_it_before():
    """Carol held it all along. Bob may have to hold it before the others that held it with him are gone."""
    alice = Alice(table_of(3))
    assert alice.part.securing == 1
    asks = alice.asks(0.0)
    assert list(asks) == [BOB]
    assert [gap.sid for gap in asks[BOB].records] == [sid(0), sid(1), sid(2)]
    assert alice.hears(BOB, asks[BOB], 0.1) == Step()
    assert alice.part.securing == 0


def test_a_node_that_stays_lets_the_new_holder_ask_first():
    """It asks everybody by itself; offered at once, each session would come to it from several at a time."""
    alice = Alice(table_of(), at_once=False)
    assert alice.part.next_deadline() == SECURE_AFTER_S
    assert alice.asks(SECURE_AFTER_S - 0.1) == {}
    assert list(alice.asks(SECURE_AFTER_S)) == [BOB]


def test_changes_each_second_do_not_put_the_offers_off():
    """A rolling restart changes the layout for minutes; were each change a new beginning, nothing would be secured."""
    alice = Alice(table_of(), at_once=False)
    for second in range(1, 11):
        alice.part.layout_changed(OTHERS, OTHERS, alice.table, float(second))
    assert list(alice.asks(SECURE_AFTER_S)) == [BOB]


def test_what_a_holder_lacks_is_owed_and_asked_about_until_it_has_it():
    """A push may be lost; a node that leaves must know, and not hope."""
    alice = Alice(table_of(2))
    have = alice.asks(0.0)[BOB]
    step = alice.hears(BOB, have, 0.0, Gap(sid(1), {CAROL: 5}, 7))
    assert step.owed == ((BOB, sid(1), {CAROL: 5}),)
    assert alice.part.securing == 1
    assert alice.asks(AGAIN_S - 0.01) == {}
    again = alice.asks(AGAIN_S)[BOB]
    assert [gap.sid for gap in again.records] == [sid(1)]
    assert alice.hears(BOB, again, AGAIN_S) == Step()
    assert alice.part.securing == 0


def test_a_holder_whose_newer_state_came_before_its_answer_lacks_nothing():
    """Else a session in use is never found equal: each time it is asked about it has been written again."""
    table = table_of(1)
    alice = Alice(table)
    have = alice.asks(0.0)[BOB]
    assert alice.part.asks(BOB, sid(0))
    assert not alice.part.asks(CAROL, sid(0))
    assert not alice.part.asks(BOB, sid(1))
    newer = table_of(1)
    newer.write(sid(0), [("k", b"1")], stamp(0, 9), BOB, 0.0)
    theirs = newer.get(sid(0))
    give(table, theirs)
    step = alice.hears(BOB, have, 0.0, Gap(sid(0), theirs.claims, theirs.state_hash))
    assert not step.owed
    assert not alice.part.securing
    assert not alice.part.asks(BOB, sid(0))


def test_a_holder_whose_newer_state_came_and_that_is_no_holder_in_its_view_is_asked_again():
    """What it has it may drop, until it knows that it is to hold it."""
    table = table_of(1)
    alice = Alice(table)
    have = alice.asks(0.0)[BOB]
    table.write(sid(0), [("k", b"1")], stamp(0, 9), BOB, 0.0)
    record = table.get(sid(0))
    alice.hears(BOB, have, 0.0, Gap(sid(0), record.claims, record.state_hash), holder=False)
    assert BOB in alice.asks(AGAIN_S)


def test_what_is_still_lacking_goes_as_a_whole_and_is_asked_about_less_and_less():
    """Its claims cover what it does not hold; or it takes no data, and must not be asked ten times a second."""
    alice = Alice(table_of())
    now_s, waits = 0.0, []
    claims: list[object] = []
    for _ in range(7):
        have = alice.asks(now_s)[BOB]
        claims += [claims for _, _, claims in alice.hears(BOB, have, now_s, Gap(sid(0), {CAROL: 5}, 7)).owed]
        waits.append(round(alice.part.next_deadline() - now_s, 3))
        now_s = alice.part.next_deadline()
    assert claims == [{CAROL: 5}] + 6 * [None]
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


def test_a_holder_that_does_not_see_itself_as_one_is_asked_again():
    """Views spread within a second; until they have, it may drop what it was given."""
    alice = Alice(table_of())
    assert alice.hears(BOB, alice.asks(0.0)[BOB], 0.0, holder=False) == Step()
    assert alice.part.securing == 1
    assert alice.hears(BOB, alice.asks(AGAIN_S)[BOB], AGAIN_S) == Step()
    assert alice.part.securing == 0


def test_a_question_without_an_answer_is_asked_again_and_the_late_answer_is_not_taken():
    """One is on its way to each peer; it may be lost with a link that nobody notices."""
    alice = Alice(table_of())
    first = alice.asks(0.0)[BOB]
    assert alice.asks(REPEAT_S - 0.01) == {}
    second = alice.asks(REPEAT_S)[BOB]
    assert second.records == first.records
    assert alice.hears(BOB, first, REPEAT_S) == Step()
    assert alice.part.securing == 1


def test_what_was_asked_over_a_lost_link_is_asked_over_the_next():
    """The link of a holder that restarts its network is gone for a moment; its copies are not there yet."""
    alice = Alice(table_of())
    alice.asks(0.0)
    alice.part.link_down(BOB, 0.1)
    assert alice.part.securing == 1
    assert alice.asks(5.0) == {}
    alice.part.link_up(BOB)
    assert list(alice.asks(5.0)) == [BOB]


def test_many_sessions_go_in_questions_of_a_bounded_size_each_at_once_after_the_last():
    """A hundred thousand sessions must move within seconds, and no message may hold up a link."""
    alice = Alice(table_of(2 * NAMED_MAX + 10))
    have = alice.asks(0.0)[BOB]
    sizes = []
    while have is not None:
        sizes.append(len(have.records))
        have = dict(alice.hears(BOB, have, 0.0).asks).get(BOB)
    assert sizes == [NAMED_MAX, NAMED_MAX, 10]
    assert alice.part.securing == 0


def test_a_question_about_sessions_of_many_writers_is_one_frame():
    """Claims are most of what a question says."""
    table = Table()
    for number in range(NAMED_MAX):
        writes = [(stamp(0, at), bytes([at]) * 8, registers()) for at in range(1, 17)]
        give(table, record(*writes, sid=sid(number)))
    have = Alice(table).asks(0.0)[BOB]
    assert len(have.records) < NAMED_MAX
    assert NAMED_BYTES * 0.9 < len(encode(have)) < 64 * 1024


def test_no_more_is_owed_to_a_holder_than_it_takes():
    """What is owed to a peer is bounded; beyond, all of it would be given up."""
    alice = Alice(table_of(8 * NAMED_MAX))
    have, owed = alice.asks(0.0)[BOB], 0
    while have is not None:
        step = alice.hears(BOB, have, 0.0, *[Gap(gap.sid, {}, 0) for gap in have.records])
        owed += len(step.owed)
        have = dict(step.asks).get(BOB)
    assert owed == LACKING_MAX or owed < LACKING_MAX + NAMED_MAX


def test_what_has_ended_meanwhile_is_not_asked_about():
    """Nobody holds it any more, and a node that leaves would wait for it."""
    alice = Alice(table_of())
    have = alice.asks(0.0)[BOB]
    list(alice.table.expired(EPOCH_MS + 10**8, 0.0))
    assert alice.hears(BOB, have, 0.0, Gap(sid(0), {}, 0)) == Step()
    assert alice.part.securing == 0


def test_a_partition_that_comes_back_is_not_surplus():
    """Its holders compare their sums; to offer it, or drop it, would be wrong."""
    alice = Alice(table_of())
    have = alice.asks(0.0)[BOB]
    alice.part.used(sid(0), 0.0)
    alice.layout = MINE
    alice.part.layout_changed(OTHERS, MINE, alice.table, 1.0)
    assert alice.hears(BOB, have, 1.0, Gap(sid(0), {}, 0)) == Step()
    assert alice.part.securing == 0
    assert alice.part.validated_s(sid(0)) is None
    assert alice.asks(1.0 + 2 * QUIET_S) == {}
    assert sid(0) in alice.table.records


def test_what_was_pending_goes_to_the_holders_of_the_next_layout():
    """The holder that was to get it has died; somebody else is to hold it now."""
    alice = Alice(table_of())
    alice.part.link_up(DORA)
    alice.layout = Layout(DORA, CAROL)
    alice.part.layout_changed(OTHERS, alice.layout, alice.table, 0.0, at_once=True)
    assert list(alice.asks(0.0)) == [DORA]
    assert alice.part.securing == 1


def test_a_session_that_was_pushed_here_by_another_view_is_offered_to_all_holders():
    """Its writer may have told no holder, and may die."""
    alice = secured(table_of())
    give(alice.table, record((stamp(0), BOB, registers()), sid=sid(9)))
    alice.part.received(sid(9), 1.0)
    assert alice.part.securing == 1
    assert alice.part.next_deadline() == 1.0 + OFFER_AFTER_S
    asks = alice.asks(1.0 + OFFER_AFTER_S)
    assert {node: [gap.sid for gap in have.records] for node, have in asks.items()} == {BOB: [sid(9)], CAROL: [sid(9)]}
    for node, have in asks.items():
        alice.hears(node, have, 1.6)
    assert alice.part.securing == 0


def test_copies_are_dropped_when_all_holders_have_confirmed_them_in_quiet_times():
    """What others hold costs memory here for nothing."""
    alice = secured(table_of(2))
    assert alice.asks(QUIET_S - 0.1) == {}
    asks = alice.asks(QUIET_S)
    assert list(asks) == [BOB], "one after the other"
    first = alice.hears(BOB, asks[BOB], QUIET_S)
    assert (first.dropped, [node for node, _ in first.asks]) == ((), [CAROL])
    assert alice.hears(CAROL, dict(first.asks)[CAROL], QUIET_S).dropped == (sid(0), sid(1))
    assert alice.table.records == {}
    assert alice.part.dropped == 2


def test_a_copy_that_is_only_older_is_dropped_in_one_check():
    """Round robin leaves many of those behind. What is newer comes with the first holder's answer; the other holder is
    asked about that at once, is not sent it, and nobody is offered it."""
    alice = secured(table_of())
    bobs = table_of()
    bobs.write(sid(0), [("a", b"1")], stamp(5), BOB, QUIET_S)
    asks = alice.asks(QUIET_S)
    assert alice.part.asks(BOB, sid(0))
    held, owed = answer(asks[BOB], bobs, holder=True)
    assert [one for one, _ in owed] == [sid(0)]
    give(alice.table, bobs.records[sid(0)])
    alice.part.validated(sid(0), QUIET_S, used=False)
    step = alice.part.held(BOB, held, alice.layout, alice.table, QUIET_S)
    assert step.owed == ()
    ((node, have),) = step.asks
    assert (node, have.records[0].state_hash) == (CAROL, bobs.records[sid(0)].state_hash)
    assert alice.hears(CAROL, have, QUIET_S).dropped == (sid(0),)
    assert alice.part.securing == 0


def test_a_copy_in_which_only_the_second_holder_has_more_stays():
    """What comes with its answer is not what the first one said it holds."""
    alice = secured(table_of())
    carols = table_of()
    carols.write(sid(0), [("a", b"1")], stamp(5), CAROL, QUIET_S)
    step = alice.hears(BOB, alice.asks(QUIET_S)[BOB], QUIET_S)
    have = dict(step.asks)[CAROL]
    held, _ = answer(have, carols, holder=True)
    give(alice.table, carols.records[sid(0)])
    assert alice.part.held(CAROL, held, alice.layout, alice.table, QUIET_S).dropped == ()
    assert sid(0) in alice.table.records


@pytest.mark.parametrize("why", ["lacking", "no holder", "late", "changed", "used", "lost link", "unlinked"])
def test_a_copy_stays_while_one_thing_is_not_as_it_should_be(why):
    """Each of them may mean that this is the last copy, or one that is wanted here."""
    alice = secured(table_of())
    now_s = QUIET_S
    if why == "unlinked":
        alice.part.link_down(CAROL, now_s)
        assert alice.asks(now_s) == {}
        return
    have = alice.hears(BOB, alice.asks(now_s)[BOB], now_s, holder=why != "no holder").asks
    if why == "no holder":
        assert have == (), "no need to ask the others"
        return
    if why == "late":
        now_s += FRESH_S + 0.1
    if why == "changed":
        alice.table.write(sid(0), [("a", b"1")], stamp(5), ALICE, now_s)
    if why == "used":
        alice.part.used(sid(0), now_s)
    if why == "lost link":
        alice.part.link_down(BOB, now_s)
    lacking = (Gap(sid(0), {}, 0),) if why == "lacking" else ()
    assert alice.hears(CAROL, dict(have)[CAROL], now_s, *lacking).dropped == ()
    assert sid(0) in alice.table.records


def test_copies_in_use_are_not_asked_about_until_nobody_used_them_for_a_minute():
    """They would be fetched again with the next request."""
    alice = secured(table_of(2))
    alice.part.validated(sid(0), 30.0)
    assert [gap.sid for gap in alice.asks(QUIET_S)[BOB].records] == [sid(1)]
    assert alice.part.validated_s(sid(0)) == 30.0
    alice.part.used(sid(0), 40.0)
    assert alice.part.validated_s(sid(0)) == 30.0
    alice.part.forget(sid(0))
    assert alice.part.validated_s(sid(0)) is None


def test_when_all_was_looked_at_the_next_look_comes_later():
    """Copies that stay must not be asked about without end."""
    alice = secured(table_of(1))
    now_s = QUIET_S
    step = alice.hears(BOB, alice.asks(now_s)[BOB], now_s)
    alice.hears(CAROL, dict(step.asks)[CAROL], now_s, Gap(sid(0), {}, 0))
    for _ in range(5):
        alice.asks(now_s)
    assert alice.part.next_deadline() > now_s


def test_a_partition_that_comes_back_in_the_midst_of_a_look_is_not_looked_at_any_more():
    """Copies beyond the first check still waited for theirs; this node is their holder now."""
    alice = secured(table_of(CHECKED_MAX + 2))
    assert len(alice.asks(QUIET_S)[BOB].records) == CHECKED_MAX
    alice.layout = Layout(CAROL, ALICE)
    alice.part.link_down(BOB, QUIET_S)  # and with the link the check
    alice.part.layout_changed(OTHERS, alice.layout, alice.table, QUIET_S)
    assert not any(alice.asks(now_s) for now_s in (2 * QUIET_S, 3 * QUIET_S))


ENTRIES = {"k": b"1"} | registers()
OLD = record((stamp(1), BOB, ENTRIES))
NEW = OLD.written([("l", b"2")], stamp(2), CAROL)
ASIDE = OLD.written([("m", b"3")], stamp(3), BOB)
DEAD, DEADER = (Table().kill(SID, stamp(ms), 0.0) for ms in (4, 5))
NONE = empty_record(SID)


@pytest.mark.parametrize(
    ("theirs", "mine", "held", "owes"),
    [
        (OLD, OLD, True, False),
        (OLD, NONE, False, False),
        (OLD, NEW, False, True),
        (NEW, OLD, False, False),
        (NEW, ASIDE, False, True),
        (NEW, DEAD, True, True),
        (DEAD, NEW, False, False),
        (DEAD, DEAD, True, False),
        (DEAD, DEADER, False, True),
        (DEADER, DEAD, False, True),
    ],
)
@pytest.mark.parametrize("covered", [True, False])
def test_held_is_the_same_state_or_dead_and_each_owes_the_other_what_it_may_lack(theirs, mine, held, owes, covered):
    """Said of anything less, the last copy of a write would be dropped; owed less, it would be asked for ever."""
    table = Table()
    if mine is not NONE:
        give(table, mine)
    claims = theirs.claims if covered or theirs.tombstone else None
    owes = owes or (not covered and not theirs.tombstone and mine.state_hash not in (0, theirs.state_hash))
    reply, owed = answer(Have(3, PARTITION, (Gap(SID, claims, theirs.state_hash),)), table, holder=True)
    assert reply.round == 3
    assert (not reply.lacking) == held
    assert (owed == ((SID, claims),)) == owes
