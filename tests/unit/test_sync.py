"""One node comes to hold what another holds, page by page; a repair also gives the other what it lacks."""

import pytest

from gossipsess.model.delta import not_covered
from gossipsess.model.digest import EVERYTHING, GROUPS, USERS_SCOPE, in_scope, leaf_of
from gossipsess.model.revocation import user_sid
from gossipsess.model.table import Table
from gossipsess.protocol import sync
from gossipsess.protocol.sync import (
    ASK_AGAIN_S,
    BURST_BYTES,
    LEAVES_PER_LIST,
    PULL_BYTES_PER_S,
    Step,
    Sync,
    answer,
    listing,
)
from gossipsess.wire.messages import Pull, SyncAsk, SyncList, SyncPage, SyncSums
from tests.unit.machines import ALICE, BOB, EPOCH_MS, registers, stamp

NOW_MS = EPOCH_MS + 1


def sid(number: int) -> bytes:
    return number.to_bytes(4, "big") * 4


def table_of(numbers, origin: bytes = ALICE) -> Table:
    table = Table()
    for number in numbers:
        name = (number * 2654435761 % 2**32).to_bytes(4, "big") * 4
        table.write(name, registers().items(), stamp(0, number), origin, 0.0)
    return table


def run(asker: Sync, mine: Table, theirs: Table, *, both_ways: bool = False) -> tuple[list[type], int]:
    """Play both sides to the end; return the kinds of what the asker said, and how many sessions were pulled."""
    kinds: list[type] = []
    pulled = 0
    steps = [asker.start(mine, 0.0, EVERYTHING, both_ways=both_ways)]
    while steps:
        step = steps.pop(0)
        for sid, claims in step.owed:
            theirs.merge(not_covered(mine.get(sid), claims or {}), NOW_MS, 0.0)
        if step.message is None:
            continue
        kinds.append(type(step.message))
        match step.message:
            case SyncAsk():
                steps.append(asker.sums(answer(step.message, theirs, True), mine, 0.0))
            case SyncList():
                steps.append(asker.page(listing(step.message, theirs, True), mine, 0.0))
            case Pull():
                for gap in step.message.wanted:
                    pulled += 1
                    delta = not_covered(theirs.get(gap.sid), gap.claims or {})
                    mine.merge(delta, NOW_MS, 0.0)
                    steps.append(asker.merged(delta, mine, 0.0))
    return kinds, pulled


def held(table: Table) -> dict[bytes, int]:
    return {name: record.state_hash for name, record in table.records.items()}


def begun(mine: Table, theirs: Table) -> tuple[Sync, SyncList]:
    """Return a sync that has asked for its first page."""
    asker = Sync()
    ask = asker.start(mine, 0.0, EVERYTHING).message
    return asker, asker.sums(answer(ask, theirs, True), mine, 0.0).message


@pytest.mark.parametrize("both_ways", [False, True], ids=["sync", "repair"])
@pytest.mark.parametrize(
    ("mine", "theirs", "pulled"),
    [(range(0), range(2000), 2000), (range(2000), range(2000), 0), (range(1999), range(2000), 1)],
    ids=["joiner", "equal", "one missing"],
)
def test_afterwards_everything_the_peer_holds_is_held(mine, theirs, pulled, both_ways):
    """One procedure for who has nothing and for who lacks one; it pulls no more than that."""
    table, other = table_of(mine), table_of(theirs)
    asker = Sync()
    kinds, got = run(asker, table, other, both_ways=both_ways)
    assert held(table) == held(other)
    assert got == pulled
    assert asker.completed
    assert not asker.running
    assert kinds.count(SyncAsk) == 1
    lists = kinds.count(SyncList)
    assert lists == {0: 0, 1: 1}.get(pulled, lists)
    assert lists <= 2 + pulled / LEAVES_PER_LIST + pulled / 256


def test_what_only_this_node_holds_stays_and_is_not_given():
    """The other direction is the peer's own sync."""
    table, other = table_of(range(50)), table_of(range(50, 100))
    run(Sync(), table, other)
    assert len(table.records) == 100
    assert len(other.records) == 50


@pytest.mark.parametrize(("per_page", "per_list"), [(256, 128), (1, 128), (256, 1), (2, 3)])
def test_a_repair_makes_both_equal_whoever_lacks_what(monkeypatch, per_page, per_list):
    """Of the two only one runs it: sessions that one lacks, and such of which each has a part, on pages of any size."""
    monkeypatch.setattr(sync, "SESSIONS_PER_PAGE", per_page)
    monkeypatch.setattr(sync, "LEAVES_PER_LIST", per_list)
    table, other = table_of(range(80)), table_of(range(40, 120))
    shared = list(table_of(range(40, 60)).records)
    for number, name in enumerate(shared):
        table.write(name, [("mine", b"1")], stamp(1, number), ALICE, 0.0)
        other.write(name, [("theirs", b"1")], stamp(1, number), BOB, 0.0)
    table.kill(shared[0], stamp(2), 0.0)
    other.kill(shared[1], stamp(2), 0.0)
    run(Sync(), table, other, both_ways=True)
    assert held(table) == held(other)
    assert len(table.records) == 120


def test_of_two_tombstones_the_later_one_comes_everywhere():
    """Held differently for ever, they would make every comparison a mismatch."""
    table, other = Table(), Table()
    table.kill(sid(1), stamp(1), 0.0)
    other.kill(sid(1), stamp(2), 0.0)
    run(Sync(), table, other)
    assert held(table) == held(other)


def test_what_stays_unequal_is_asked_for_as_a_whole_the_next_time():
    """Claims that cover too much would make the same pull bring nothing, again and again."""
    table, theirs = table_of(range(1)), table_of(range(1))
    (name,) = theirs.records
    theirs.write(name, [("a", b"1")], stamp(5), BOB, 0.0)
    claims = []
    asker = Sync()
    for _ in range(2):
        ask = asker.start(table, 0.0, EVERYTHING).message
        listed = asker.sums(answer(ask, theirs, True), table, 0.0).message
        pull = asker.page(listing(listed, theirs, True), table, 0.0).message
        claims.append(pull.wanted[0].claims)
        asker.stop()
    assert claims[0]
    assert claims[1] is None


def test_a_page_ends_after_the_leaf_that_fills_it(monkeypatch):
    """A leaf that was cut in two could never be compared."""
    monkeypatch.setattr(sync, "SESSIONS_PER_PAGE", 3)
    theirs = table_of(range(20_000))
    page = listing(SyncList(1, (0, 1, 2)), theirs, True)
    assert page.answered == 1
    assert len(page.sessions) == len(list(theirs.in_leaf(0))) >= 3


def test_an_answer_names_only_groups_that_differ_and_a_list_only_leaves():
    """Nearly all agree in a healthy cluster."""
    mine, theirs = table_of(range(10_000)), table_of(range(10_000))
    name = next(iter(theirs.records))
    theirs.kill(name, stamp(1), 0.0)
    sums = answer(SyncAsk(1, mine.sums.of_groups()), theirs, True)
    assert [group for group, _ in sums.groups] == [leaf_of(name) >> 6]
    _, listed = begun(mine, theirs)
    assert listed.leaves == (leaf_of(name),)


def test_sums_that_do_not_come_are_asked_for_again_and_late_ones_ignored():
    """Both taken, the sync would begin with its leaves twice."""
    table, theirs = table_of(range(0)), table_of(range(10))
    asker = Sync()
    first = asker.start(table, 0.0, EVERYTHING).message
    assert asker.timeout(table, ASK_AGAIN_S - 0.1).message is None
    second = asker.timeout(table, ASK_AGAIN_S).message
    assert second.round == first.round + 1
    assert asker.sums(answer(first, theirs, True), table, 1.0).message is None
    assert asker.sums(answer(second, theirs, True), table, 1.0).message is not None
    assert asker.sums(answer(second, theirs, True), table, 1.0).message is None


def test_a_page_that_does_not_come_is_asked_for_again_and_a_late_one_ignored():
    """Both pages taken, the sync would skip leaves and call itself complete."""
    table, theirs = table_of(range(0)), table_of(range(10))
    asker, first = begun(table, theirs)
    second = asker.timeout(table, ASK_AGAIN_S).message
    assert (second.leaves, second.round) == (first.leaves, first.round + 1)
    assert asker.page(listing(first, theirs, True), table, 1.0).message is None
    assert asker.page(listing(second, theirs, True), table, 1.0).message is not None


def test_records_that_do_not_come_are_asked_for_again_from_the_same_place():
    """What has come meanwhile is no longer among them."""
    table, theirs = Table(), table_of(range(3000))
    asker, listed = begun(table, theirs)
    pull = asker.page(listing(listed, theirs, True), table, 0.0).message
    delta = not_covered(theirs.get(pull.wanted[0].sid), {})
    table.merge(delta, NOW_MS, 0.0)
    assert asker.merged(delta, table, 0.0).message is None
    again = asker.timeout(table, ASK_AGAIN_S).message
    assert again.leaves == listed.leaves
    pull_again = asker.page(listing(again, theirs, True), table, 1.0).message
    assert {gap.sid for gap in pull_again.wanted} == {gap.sid for gap in pull.wanted} - {delta.sid}


@pytest.mark.parametrize("second_both_ways", [False, True])
def test_a_second_start_runs_once_more_after_the_first(second_both_ways):
    """A member died while a sync was running: what it told others may have come behind the pages already read."""
    table, theirs = table_of(range(10)), table_of(range(10))
    asker = Sync()
    step = asker.start(table, 0.0, EVERYTHING, both_ways=not second_both_ways)
    assert asker.start(table, 0.0, EVERYTHING, both_ways=second_both_ways).message is None
    rounds = []
    while step.message is not None:
        rounds.append(asker.both_ways)
        step = asker.sums(answer(step.message, theirs, True), table, 0.0)
    assert rounds == [not second_both_ways, second_both_ways]
    assert asker.completed


def test_a_sync_that_has_ended_rests():
    """What a quiet pair says must not depend on how many sessions it holds."""
    table = table_of(range(3))
    asker = Sync()
    run(asker, table, table)
    assert asker.next_deadline() is None
    assert asker.timeout(table, 1e9).message is None


def test_whether_the_peer_had_everything_is_as_it_said_last():
    """It may have got it while this node was pulling."""
    table, theirs = table_of(range(0)), table_of(range(5))
    for said in (False, True):
        asker, listed = begun(table_of(range(0)), theirs)
        pull = asker.page(listing(listed, theirs, said), table, 0.0).message
        for gap in pull.wanted:
            asker.merged(not_covered(theirs.get(gap.sid), {}), theirs, 0.0)
        assert asker.completed
        assert asker.peer_synced == said


def test_a_stopped_sync_begins_from_the_front_and_takes_no_late_page():
    """The link is another one, and so may the peer's memory be."""
    table, theirs = Table(), table_of(range(1000))
    asker, listed = begun(table, theirs)
    page = listing(listed, theirs, True)
    asker.page(page, table, 0.0)
    asker.stop()
    assert asker.next_deadline() is None
    assert asker.page(page, table, 0.0).message is None
    ask = asker.start(table, 1.0, EVERYTHING).message
    assert isinstance(ask, SyncAsk)
    assert asker.sums(answer(ask, theirs, True), table, 1.0).message.leaves == listed.leaves


@pytest.mark.parametrize("answered", [0, 4000])
def test_a_page_that_answers_nothing_or_too_much_does_no_harm(answered):
    """A broken peer could make a node ask for ever, without a pause."""
    table, theirs = table_of(range(0)), table_of(range(10))
    asker, listed = begun(table, theirs)
    step = asker.page(SyncPage(listed.round, answered, (), True), table, 0.0)
    assert step.message is None
    assert asker.running == (answered == 0)


def test_what_nobody_asked_for_is_ignored():
    """A peer could make a node pull, again and again."""
    asker = Sync()
    assert asker.page(SyncPage(0, 1, ((sid(1), 1),), True), Table(), 0.0).message is None
    assert asker.sums(SyncSums(0, ((0, (1,) * GROUPS),), True), Table(), 0.0).message is None


# --- scopes -------------------------------------------------------------------------------------------------


def within(table: Table, scope: int) -> set[bytes]:
    return {name for name in table.records if in_scope(leaf_of(name), scope)}


def ended(asker: Sync, step: Step, mine: Table, theirs: Table) -> Step:
    """Play both sides until the asker wants nothing more or says what it was shown."""
    while step.message is not None and not step.shown:
        match step.message:
            case SyncAsk():
                step = asker.sums(answer(step.message, theirs, True), mine, 0.0)
            case SyncList():
                step = asker.page(listing(step.message, theirs, True), mine, 0.0)
            case Pull():
                for gap in step.message.wanted:
                    delta = not_covered(theirs.get(gap.sid), gap.claims or {})
                    mine.merge(delta, NOW_MS, 0.0)
                    step = asker.merged(delta, mine, 0.0)
    return step


def given(asker: Sync, step: Step, mine: Table, theirs: Table) -> tuple[set[bytes], Step]:
    """Go on with a sync that has nothing to pull, to its end; return what the peer is owed, and the last step."""
    owed: list[bytes] = []
    while step.message is not None:
        match step.message:
            case SyncAsk():
                step = asker.sums(answer(step.message, theirs, True), mine, 0.0)
            case SyncList():
                step = asker.page(listing(step.message, theirs, True), mine, 0.0)
        owed += [name for name, _ in step.owed]
    return set(owed), step


SCOPES = [0, 1 << 512, 0xFF << 60, EVERYTHING // 3, USERS_SCOPE, EVERYTHING - 1]


@pytest.mark.parametrize("scope", SCOPES, ids=lambda scope: f"{scope.bit_count()} partitions")
def test_a_sync_pulls_what_is_in_scope_and_nothing_else_and_says_what_it_was_shown(scope):
    """Of partitions that this node does not hold it wants nothing; the rest must come whole."""
    mine, theirs = table_of(range(500)), table_of(range(2000))
    before = set(mine.records)
    asker = Sync()
    step = ended(asker, asker.start(mine, 0.0, scope), mine, theirs)
    assert set(mine.records) == before | within(theirs, scope)
    assert step.shown == scope | USERS_SCOPE
    assert asker.completed


@pytest.mark.parametrize("scope", SCOPES, ids=lambda scope: f"{scope.bit_count()} partitions")
def test_a_repair_gives_what_is_in_scope_and_nothing_else(scope):
    """The peer may hold less than this node: what it does not hold is no difference."""
    mine, theirs = table_of(range(2000)), table_of(range(500))
    before = set(theirs.records)
    asker = Sync()
    owed, _ = given(asker, asker.start(mine, 0.0, scope, both_ways=True), mine, theirs)
    assert owed == within(mine, scope) - before


def test_what_is_pulled_after_a_repair_that_waited_with_it_is_not_given():
    """Of what only the asker is to hold, the peer is no holder: given to it, all of that would go again."""
    mine, theirs = table_of(range(500)), table_of(())
    asker = Sync()
    step = asker.start(mine, 0.0, 0)
    repaired, gained = (1 << 512) - 1, EVERYTHING - (1 << 512) + 1
    asker.start(mine, 0.0, repaired, both_ways=True)
    asker.start(mine, 0.0, gained)
    owed, step = given(asker, step, mine, theirs)
    assert owed == within(mine, repaired)
    assert step.shown == EVERYTHING


def test_where_only_what_is_out_of_scope_differs_a_sync_is_one_question():
    """Two holders of one partition would else list all their others each time a link comes up."""
    mine, theirs = table_of(range(2000)), table_of(range(1500))
    differing = {leaf_of(name) >> 2 for name in set(mine.records) - set(theirs.records)}
    scope = EVERYTHING & ~sum(1 << partition for partition in differing)
    asker = Sync()
    ask = asker.start(mine, 0.0, scope).message
    sums = answer(ask, theirs, True)
    assert sums.groups == ()
    assert asker.sums(sums, mine, 0.0).message is None
    assert asker.completed


def test_revocations_are_compared_whatever_the_scope():
    """Every member holds them, and one that is missing lets sessions live."""
    mine, theirs = Table(), Table()
    theirs.kill(user_sid("kim"), stamp(1), 0.0)
    asker = Sync()
    ended(asker, asker.start(mine, 0.0, 1 << 3), mine, theirs)
    assert held(mine) == held(theirs)


def test_leaves_of_which_the_peer_has_nothing_are_not_asked_for_but_by_a_repair():
    """A gainer asks one donor after another, each of which holds a part: thirty questions to each, for nothing."""
    mine, theirs = table_of(range(1000)), table_of(range(0))
    for both_ways in (False, True):
        asker = Sync()
        ask = asker.start(mine, 0.0, EVERYTHING, both_ways=both_ways).message
        step = asker.sums(answer(ask, theirs, True), mine, 0.0)
        assert isinstance(step.message, SyncList) == both_ways
        assert asker.running == both_ways


def test_scopes_asked_for_while_a_sync_runs_are_one_sync_after_it():
    """Several members may die within a second, each with partitions of its own."""
    table, theirs = table_of(range(10)), table_of(range(10))
    asker = Sync()
    step = asker.start(table, 0.0, 0b0001)
    asker.start(table, 0.0, 0b0010)
    asker.start(table, 0.0, 0b0100, both_ways=True)
    step = asker.sums(answer(step.message, theirs, True), table, 0.0)
    assert step.shown == 0b0001  # the revocations were asked for again
    assert step.message.scope == 0b0110 | USERS_SCOPE
    assert asker.both_ways
    step = asker.sums(answer(step.message, theirs, True), table, 0.0)
    assert (step.message, step.shown) == (None, 0b0110 | USERS_SCOPE)


def test_what_is_asked_for_again_is_shown_by_the_later_sync_only():
    """A partition lost and gained again meanwhile: what was shown before says nothing of the time between."""
    table, theirs = table_of(range(0)), table_of(range(10))
    asker, listed = begun(table, theirs)
    asker.start(table, 0.0, 0b1000)
    step = ended(asker, Step(listed), table, theirs)
    assert step.shown == EVERYTHING & ~0b1000 & ~USERS_SCOPE
    assert ended(asker, step._replace(shown=0), table, theirs).shown == 0b1000 | USERS_SCOPE


def test_a_stopped_sync_has_shown_nothing():
    """Half of its pages may be missing."""
    table, theirs = table_of(range(0)), table_of(range(1000))
    asker, listed = begun(table, theirs)
    asker.stop()
    step = asker.page(listing(listed, theirs, True), table, 0.0)
    assert (step.message, step.shown) == (None, 0)


# --- pace ---------------------------------------------------------------------------------------------------


def table_of_large(sessions: int, value_bytes: int) -> Table:
    table = table_of(range(sessions))
    for name in list(table.records):
        table.write(name, [("cart", bytes(value_bytes))], stamp(1), ALICE, 0.0)
    return table


def pulled_within(theirs: Table, seconds: float) -> tuple[float, int, int]:
    """Pull from a peer that answers at once; return when it had ended, how many bytes had come and how many lists."""
    mine, asker, now_s, lists = Table(), Sync(), 100.0, 0
    step = asker.start(mine, now_s, EVERYTHING)
    while asker.running and now_s < 100.0 + seconds:
        match step.message:
            case SyncAsk():
                step = asker.sums(answer(step.message, theirs, True), mine, now_s)
            case SyncList():
                lists += 1
                step = asker.page(listing(step.message, theirs, True), mine, now_s)
            case Pull():
                for gap in step.message.wanted:
                    delta = not_covered(theirs.get(gap.sid), gap.claims or {})
                    mine.merge(delta, NOW_MS, now_s)
                    step = asker.merged(delta, mine, now_s)
            case None:
                now_s = asker.next_deadline()
                step = asker.timeout(mine, now_s)
    return now_s - 100.0, sum(record.size for record in mine.records.values()), lists


def test_a_bulk_pull_keeps_to_its_rate():
    """A donor serves requests meanwhile, and each byte costs it a seal and an encoding."""
    theirs = table_of_large(4000, 6000)
    size = sum(record.size for record in theirs.records.values())
    took_s, pulled, lists = pulled_within(theirs, 60.0)
    assert pulled == size
    page = size / lists
    assert (size - BURST_BYTES - 2 * page) / PULL_BYTES_PER_S <= took_s <= size / PULL_BYTES_PER_S
    _, pulled, _ = pulled_within(theirs, 1.0)
    assert pulled <= BURST_BYTES + PULL_BYTES_PER_S + 2 * page


def test_what_fits_the_burst_is_never_delayed():
    """A repair of a few sessions stands between a request and its session."""
    took_s, pulled, _ = pulled_within(table_of_large(400, 2000), 60.0)
    assert took_s == 0.0
    assert BURST_BYTES * 0.8 < pulled <= BURST_BYTES


def test_while_a_sync_rests_it_takes_no_page_that_comes_twice():
    """It would skip as many leaves again, and call them shown."""
    mine, theirs = Table(), table_of_large(1000, 12_000)
    asker, listed = begun(mine, theirs)
    page = listing(listed, theirs, True)
    step = asker.page(page, mine, 0.0)
    for gap in step.message.wanted:
        delta = not_covered(theirs.get(gap.sid), {})
        mine.merge(delta, NOW_MS, 0.0)
        assert asker.merged(delta, mine, 0.0).message is None
    assert 0.0 < asker.next_deadline() < ASK_AGAIN_S
    assert 0.0 < asker.share < 1.0
    assert asker.page(page, mine, 0.0) == Step()
    left = sorted({leaf_of(name) for name in set(theirs.records) - set(mine.records)})
    assert asker.timeout(mine, asker.next_deadline()).message.leaves == tuple(left[:LEAVES_PER_LIST])
