"""One node comes to hold what another holds, page by page."""

import random

import pytest

from gossipsess.model.delta import not_covered
from gossipsess.model.digest import PARTITIONS, partition_of
from gossipsess.model.table import Table
from gossipsess.protocol import sync
from gossipsess.protocol.sync import ASK_AGAIN_S, PARTITIONS_PER_ASK, SYNC_EVERY_S, Sync, answer
from gossipsess.wire.messages import Pull, SyncAsk, SyncPage
from tests.unit.machines import ALICE, EPOCH_MS, registers, stamp

NOW_MS = EPOCH_MS + 1


def sid(number: int) -> bytes:
    return number.to_bytes(4, "big") * 4


def table_of(numbers, origin: bytes = ALICE) -> Table:
    table = Table()
    for number in numbers:
        name = (number * 2654435761 % 2**32).to_bytes(4, "big") * 4
        table.write(name, registers().items(), stamp(0, number), origin)
    return table


def run(asker: Sync, mine: Table, theirs: Table) -> tuple[int, int]:
    """Play both sides to the end; return how many asks were made, and how many sessions were pulled."""
    asks = pulled = 0
    said: list = [asker.start(mine, 0.0)]
    while said:
        message = said.pop(0)
        if isinstance(message, SyncAsk):
            asks += 1
            said += asker.page(answer(message, theirs, True), mine, 0.0)
        elif isinstance(message, Pull):
            for gap in message.wanted:
                pulled += 1
                mine.merge(not_covered(theirs.get(gap.sid), gap.claims or {}), NOW_MS)
                next_ask = asker.merged(gap.sid, mine, 0.0)
                if next_ask is not None:
                    said.append(next_ask)
    return asks, pulled


def held(table: Table) -> dict[bytes, int]:
    return {name: record.state_hash for name, record in table.records.items()}


@pytest.mark.parametrize(
    ("mine", "theirs", "pulled"),
    [(range(0), range(2000), 2000), (range(2000), range(2000), 0), (range(1999), range(2000), 1)],
    ids=["joiner", "equal", "one missing"],
)
def test_afterwards_everything_the_peer_holds_is_held(mine, theirs, pulled):
    """One procedure for who has nothing and for who lacks one; it pulls no more than that."""
    table, other = table_of(mine), table_of(theirs)
    asker = Sync(random.Random(1))
    asks, got = run(asker, table, other)
    assert held(table) == held(other)
    assert got == pulled
    assert asker.completed == 1
    assert PARTITIONS / PARTITIONS_PER_ASK <= asks <= PARTITIONS / PARTITIONS_PER_ASK + len(theirs) / 200


def test_what_only_this_node_holds_stays():
    """The other direction is the peer's own sync."""
    table, other = table_of(range(50)), table_of(range(50, 100))
    run(Sync(random.Random(1)), table, other)
    assert len(table.records) == 100
    assert len(other.records) == 50


def test_of_two_tombstones_the_later_one_comes_everywhere():
    """Held differently for ever, they would make every sync of their partition a mismatch."""
    table, other = Table(), Table()
    table.kill(sid(1), stamp(1))
    other.kill(sid(1), stamp(2))
    run(Sync(random.Random(1)), table, other)
    assert held(table) == held(other)


def test_a_page_ends_after_the_partition_that_fills_it(monkeypatch):
    """A partition that was cut in two could never be compared."""
    monkeypatch.setattr(sync, "SESSIONS_PER_PAGE", 3)
    theirs = table_of(range(5000))
    page = answer(SyncAsk(1, 0, (), PARTITIONS), theirs, True)
    assert page.resume == 1
    assert len(page.sessions) == len(list(theirs.in_partition(0))) >= 3


def test_an_answer_names_only_partitions_that_differ():
    """Nearly all agree in a healthy cluster."""
    theirs = table_of(range(100))
    name = next(iter(theirs.records))
    sums = tuple((p, theirs.sums[p]) for p in range(PARTITIONS) if theirs.sums[p] and p != partition_of(name))
    page = answer(SyncAsk(1, 0, sums, PARTITIONS), theirs, True)
    assert {partition_of(one) for one, _ in page.sessions} == {partition_of(name)}


def test_a_page_that_does_not_come_is_asked_for_again_and_a_late_one_ignored():
    """Both pages taken, the sync would skip a range and call itself complete."""
    table, theirs = table_of(range(0)), table_of(range(10))
    asker = Sync(random.Random(1))
    first = asker.start(table, 0.0)
    assert asker.timeout(table, ASK_AGAIN_S - 0.1) is None
    second = asker.timeout(table, ASK_AGAIN_S)
    assert (second.start, second.round) == (first.start, first.round + 1)
    assert asker.page(answer(first, theirs, True), table, 1.0) == []
    assert asker.page(answer(second, theirs, True), table, 1.0) != []


def test_records_that_do_not_come_are_asked_for_again_from_the_same_place():
    """What has come meanwhile is no longer among them."""
    table, theirs = Table(), table_of(range(3000))
    asker = Sync(random.Random(1))
    ask = asker.start(table, 0.0)
    (pull,) = asker.page(answer(ask, theirs, True), table, 0.0)
    came = pull.wanted[0].sid
    table.merge(not_covered(theirs.get(came), {}), NOW_MS)
    assert asker.merged(came, table, 0.0) is None
    again = asker.timeout(table, ASK_AGAIN_S)
    assert again.start == ask.start
    (pull_again,) = asker.page(answer(again, theirs, True), table, 1.0)
    assert {gap.sid for gap in pull_again.wanted} == {gap.sid for gap in pull.wanted} - {came}


def test_a_second_start_runs_once_more_after_the_first():
    """A member died while a sync was running: what it told others may have come behind the pages already read."""
    table, theirs = table_of(range(10)), table_of(range(10))
    asker = Sync(random.Random(1))
    ask = asker.start(table, 0.0)
    assert asker.start(table, 0.0) is None
    starts = []
    while ask is not None:
        starts.append(ask.start)
        ask = next(iter(asker.page(answer(ask, theirs, True), table, 0.0)), None)
    assert starts.count(0) == 2
    assert asker.completed


def test_a_link_is_synced_now_and_then_without_a_reason():
    """It repairs what no other rule has noticed."""
    table = table_of(range(3))
    asker = Sync(random.Random(1))
    run(asker, table, table)
    assert 0.8 * SYNC_EVERY_S <= asker.next_deadline() <= 1.2 * SYNC_EVERY_S
    assert asker.timeout(table, asker.next_deadline()).start == 0


def test_a_stopped_sync_begins_from_the_front_and_takes_no_late_page():
    """The link is another one, and so may the peer's memory be."""
    table, theirs = Table(), table_of(range(10))
    asker = Sync(random.Random(1))
    ask = asker.start(table, 0.0)
    asker.stop()
    assert asker.next_deadline() is None
    assert asker.page(answer(ask, theirs, True), table, 0.0) == []
    assert asker.start(table, 1.0).start == 0


def test_a_page_nobody_asked_for_is_ignored():
    """A peer could make a node pull, again and again."""
    assert Sync(random.Random(1)).page(SyncPage(0, PARTITIONS, ((sid(1), 1),), True), Table(), 0.0) == []
