"""Which partitions a node may not hold in whole, and from whom it pulls them."""

from collections import Counter

import pytest

from gossipsess.model.delta import not_covered
from gossipsess.model.digest import EVERYTHING, USERS_SCOPE, in_scope, leaf_of
from gossipsess.model.table import Table
from gossipsess.protocol.gains import GRACE_S, STALL_S, Gains
from gossipsess.protocol.sync import Step, Sync, answer, listing
from gossipsess.wire.messages import Pull, SyncAsk, SyncList
from tests.unit.machines import ALICE, BOB, CAROL, EPOCH_MS, registers, stamp

ME = b"me......"
LOW, HIGH = 0b0011, 0b1100


class Shares(dict):
    """A layout made by hand: what each node holds."""

    def partitions_of(self, node: bytes) -> int:
        return self.get(node, 0)


ALL_TO_ALL = Shares(dict.fromkeys((ME, ALICE, BOB, CAROL), EVERYTHING))


def gains(*linked: bytes, shares: Shares = ALL_TO_ALL) -> Gains:
    """Return the account of a node that has just started, with links to these."""
    account = Gains(ME, shares, 100.0)
    for node in linked:
        account.peer_live(node)
        account.link_up(node)
    return account


def settled(*linked: bytes, shares: Shares) -> Gains:
    """Return that of a node to which all these have shown everything."""
    account = gains(*linked, shares=shares)
    pull_all(account, linked, 100.0)
    assert account.started
    return account


def pull_all(account: Gains, linked: tuple[bytes, ...], now_s: float) -> list[tuple[bytes, int]]:
    """Have every donor that is named show at once; return who was asked for what."""
    asked = []
    while (pull := account.next_pull(linked, now_s)) is not None:
        asked.append(pull)
        account.shown(*pull, started=True)
    return asked


# --- the start ----------------------------------------------------------------------------------------------


def test_a_node_is_synced_once_every_live_member_has_shown_everything():
    """Any of them may be the only one that has heard of the newest write."""
    account = gains(ALICE, BOB)
    assert account.unsynced == EVERYTHING
    for node in (ALICE, BOB):
        assert not account.started
        assert account.next_pull([node], 100.0) == (node, EVERYTHING)
        account.shown(node, EVERYTHING, started=True)
    assert account.unsynced == 0
    assert account.started
    assert account.next_pull([ALICE, BOB], 100.0) is None


def test_nodes_that_are_all_new_wait_for_somebody_who_is_not():
    """Two that find each other before they find the others would call the sessions of those absent."""
    account = gains(ALICE)
    account.shown(*account.next_pull([ALICE], 100.0), started=False)
    assert account.unsynced == EVERYTHING
    account.peer_live(BOB)
    account.link_up(BOB)
    account.shown(*account.next_pull([ALICE, BOB], 100.0), started=True)
    assert account.started


def test_who_has_waited_long_enough_takes_what_can_be_had_for_everything():
    """A cluster whose nodes all start at once has nobody who is past its start."""
    account = gains(ALICE)
    account.shown(*account.next_pull([ALICE], 100.0), started=False)
    account.waited_long_enough()
    assert account.started
    alone = gains()
    assert alone.unsynced == EVERYTHING
    alone.waited_long_enough()
    assert (alone.unsynced, alone.started) == (0, True)


@pytest.mark.parametrize(
    ("held", "excused"), [(EVERYTHING, True), (USERS_SCOPE, False), (LOW, False)], ids=["all", "users", "some"]
)
def test_a_member_that_cannot_be_linked_is_excused_where_each_fetch_asks_it_anyway(held, excused):
    """It is asked for what it holds, and nobody asks it for surplus copies; those it must show, or die first.

    The start does not wait for that, or a node with one blocked way would never be ready.
    """
    account = gains(ALICE, shares=Shares({ME: EVERYTHING, ALICE: EVERYTHING, BOB: held}))
    account.peer_live(BOB)
    account.shown(*account.next_pull([ALICE], 100.0), started=True)
    assert (account.unsynced, account.started) == (EVERYTHING, False)  # it may yet be linked
    account.waited_long_enough()
    assert (account.unsynced, account.started) == (0 if excused else EVERYTHING & ~held, True)
    account.peer_gone(BOB)
    assert account.unsynced  # what it had may have gone to the other, who shows it again
    pull_all(account, (ALICE,), 100.0)
    assert account.unsynced == 0


def test_a_member_whose_link_was_lost_is_not_excused():
    """It is linked again within a moment, with all that it has not shown yet."""
    account = gains(ALICE)
    account.next_pull([ALICE], 100.0)
    account.link_down(ALICE)
    account.waited_long_enough()
    assert account.unsynced == EVERYTHING


def test_who_comes_later_must_show_what_is_missing_by_then_and_no_more():
    """A synced node has no reason to wait for a newcomer; one that is not may miss what just this one has."""
    account = settled(ALICE, shares=BEFORE)
    account.layout_changed(AFTER, 200.0, grace=False)
    account.peer_live(BOB)
    account.link_up(BOB)
    assert pull_all(account, (ALICE,), 200.0) == [(ALICE, HIGH)]
    assert account.unsynced == HIGH
    assert pull_all(account, (BOB,), 200.0) == [(BOB, HIGH)]
    account.peer_live(CAROL)
    account.link_up(CAROL)
    assert account.unsynced == 0
    assert account.next_pull([ALICE, CAROL], 100.0) is None


# --- layouts ------------------------------------------------------------------------------------------------

BEFORE = Shares({ME: LOW | USERS_SCOPE, ALICE: HIGH | USERS_SCOPE, BOB: HIGH | LOW | USERS_SCOPE})
AFTER = Shares({ME: LOW | HIGH | USERS_SCOPE, BOB: HIGH | LOW | USERS_SCOPE, CAROL: USERS_SCOPE})


def test_what_is_gained_is_unsynced_until_all_have_shown_it_and_the_rest_stays_synced():
    """Only about these partitions does a "not held" say nothing."""
    account = settled(ALICE, BOB, shares=BEFORE)
    account.layout_changed(AFTER, 200.0, grace=False)
    assert account.unsynced == HIGH
    assert account.next_pull([ALICE, BOB], 200.0) == (BOB, HIGH)
    account.shown(BOB, HIGH | LOW, started=True)
    assert account.unsynced == HIGH
    assert account.next_pull([ALICE, BOB], 200.0) == (ALICE, HIGH)
    account.shown(ALICE, HIGH, started=True)
    assert account.unsynced == 0


def test_what_a_death_brings_is_pulled_after_a_grace_and_what_a_join_brings_at_once():
    """A restart in place gives its partitions back within seconds, and nothing should have moved."""
    account = settled(ALICE, BOB, shares=BEFORE)
    account.peer_gone(ALICE)
    account.layout_changed(AFTER, 200.0, grace=True)
    assert account.unsynced == HIGH
    assert account.next_pull([BOB], 200.0) is None
    assert account.next_deadline() == 200.0 + GRACE_S
    assert account.next_pull([BOB], 200.0 + GRACE_S - 0.01) is None
    assert account.next_pull([BOB], 200.0 + GRACE_S) == (BOB, HIGH)


def test_what_is_lost_again_within_the_grace_is_never_pulled():
    """The holder has restarted."""
    account = settled(ALICE, BOB, shares=BEFORE)
    account.layout_changed(AFTER, 200.0, grace=True)
    account.layout_changed(BEFORE, 202.0, grace=False)
    assert account.unsynced == 0
    assert account.next_deadline() is None
    assert account.progress(202.0) is None
    assert account.next_pull([ALICE, BOB], 300.0) is None
    account.layout_changed(AFTER, 301.0, grace=False)  # and what was waited for then is not now
    assert account.next_pull([BOB], 301.0) == (BOB, HIGH)


def test_a_start_knows_no_grace():
    """It holds nothing yet, whatever happens to the others."""
    account = gains(BOB, shares=BEFORE)
    account.layout_changed(AFTER, 101.0, grace=True)
    assert account.next_pull([BOB], 101.0) == (BOB, AFTER[ME])


def test_what_was_asked_for_before_a_partition_was_lost_does_not_count_once_it_is_gained_again():
    """Writes in between went to others, and the donor may have listed it before."""
    account = settled(BOB, shares=BEFORE)
    account.layout_changed(AFTER, 200.0, grace=False)
    assert account.next_pull([BOB], 200.0) == (BOB, HIGH)
    account.layout_changed(BEFORE, 201.0, grace=False)
    account.layout_changed(AFTER, 202.0, grace=False)
    account.shown(BOB, HIGH, started=True)
    assert account.unsynced == HIGH
    assert account.next_pull([BOB], 202.0) == (BOB, HIGH)


def test_what_nobody_asked_for_here_is_not_shown():
    """A sync that began when this partition was not this node's says nothing about it."""
    account = settled(BOB, shares=BEFORE)
    account.layout_changed(AFTER, 200.0, grace=False)
    account.shown(BOB, EVERYTHING, started=True)
    assert account.unsynced == HIGH


# --- donors -------------------------------------------------------------------------------------------------


def test_the_first_donor_is_the_one_that_holds_most_of_what_is_missing():
    """The others' sums are equal then, and nothing comes twice."""
    shares = Shares({ME: HIGH | LOW, ALICE: 0b0001, BOB: HIGH, CAROL: 0b0010})
    account = gains(ALICE, BOB, CAROL, shares=shares)
    assert [node for node, _ in pull_all(account, (ALICE, BOB, CAROL), 100.0)] == [BOB, ALICE, CAROL]


def test_one_donor_at_a_time():
    """Two would send the same."""
    account = gains(ALICE, BOB)
    assert account.next_pull([ALICE, BOB], 100.0) == (ALICE, EVERYTHING)
    assert account.next_pull([ALICE, BOB], 100.0) is None
    account.shown(ALICE, EVERYTHING, started=True)
    assert account.next_pull([ALICE, BOB], 100.0) == (BOB, EVERYTHING)


def test_a_donor_that_stalls_does_not_block_and_must_still_show():
    """Its process may be paused; and it may be the only one that has the newest write."""
    account = gains(ALICE, BOB)
    account.next_pull([ALICE, BOB], 100.0)
    account.advanced(ALICE, 0.1, 102.0)
    assert account.next_deadline() == 102.0 + STALL_S
    assert account.next_pull([ALICE, BOB], 101.9 + STALL_S) is None
    assert account.next_pull([ALICE, BOB], 102.0 + STALL_S) == (BOB, EVERYTHING)
    account.shown(BOB, EVERYTHING, started=True)
    assert account.unsynced == EVERYTHING
    assert account.next_pull([ALICE, BOB], 110.0) is None  # it was asked, and the sync asks again
    assert account.next_deadline() is None
    account.shown(ALICE, EVERYTHING, started=True)
    assert account.started


def test_no_deadline_stays_due_where_a_donor_stalls_behind_one_that_does_not():
    """A driver ticks whenever a deadline is due; one that stays so would have it do nothing else."""
    account = gains(ALICE, BOB, shares=Shares({ME: EVERYTHING, ALICE: HIGH, BOB: LOW}))
    linked = [ALICE, BOB]
    assert account.next_pull(linked, 100.0)
    first, second = ALICE, BOB
    if not account._donors[ALICE].asked:
        first, second = BOB, ALICE
    assert account.next_pull(linked, 100.0 + STALL_S)[0] == second
    account.advanced(first, 0.5, 104.0)
    account.advanced(second, 0.5, 104.0)
    for now_s in (105.0, 106.0, 107.0, 108.0):
        account.advanced(ALICE, 0.5, now_s)  # it stands first
        assert account.next_pull(linked, now_s) is None
        due_s = account.next_deadline()
        assert due_s is not None
        assert due_s > now_s


def test_a_donor_over_a_new_link_is_asked_again():
    """A sync over the old one has ended without an end."""
    account = gains(ALICE)
    for again in (account.link_down, account.link_up):
        assert account.next_pull([ALICE], 100.0) == (ALICE, EVERYTHING)
        again(ALICE)
    account.shown(ALICE, EVERYTHING, started=True)
    assert account.unsynced == EVERYTHING
    assert account.next_pull([ALICE], 100.0) == (ALICE, EVERYTHING)


def test_who_dies_before_it_has_shown_all_makes_the_others_show_it_again():
    """What it alone had, it may have passed on to one of them after that one had been asked."""
    account = gains(ALICE, BOB)
    account.shown(*account.next_pull([BOB], 100.0), started=True)
    account.peer_gone(ALICE)
    assert account.unsynced == EVERYTHING
    assert pull_all(account, (BOB,), 100.0) == [(BOB, EVERYTHING)]
    assert account.started


def test_who_dies_while_another_one_shows_makes_that_one_begin_anew():
    """It may have told it of a session whose page had been read by then."""
    account = gains(ALICE, BOB)
    assert account.next_pull([BOB], 100.0) == (BOB, EVERYTHING)
    account.peer_gone(ALICE)
    account.shown(BOB, EVERYTHING, started=True)
    assert account.unsynced == EVERYTHING
    assert account.next_pull([BOB], 100.0) == (BOB, EVERYTHING)


def test_who_dies_after_it_has_shown_all_leaves_nothing_to_do():
    """Each death would else set every joiner back."""
    account = gains(ALICE, BOB)
    account.shown(*account.next_pull([ALICE], 100.0), started=True)
    account.next_pull([BOB], 100.0)
    account.peer_gone(ALICE)
    account.shown(BOB, EVERYTHING, started=True)
    assert account.started


# --- progress -----------------------------------------------------------------------------------------------


def test_progress_is_what_holders_have_shown_and_the_share_of_what_one_is_showing():
    """An operator asks when a node may be taken away."""
    shares = Shares({ME: HIGH | LOW, ALICE: LOW, BOB: HIGH})
    account = gains(ALICE, BOB, shares=shares)
    assert account.progress(104.0) == (4, 4, 100.0, None, 0)
    pull = account.next_pull([ALICE, BOB], 100.0)
    account.advanced(ALICE, 0.5, 104.0)
    assert account.progress(104.0) == (4, 4, 100.0, 12.0, 0)  # one of four in four seconds
    account.shown(*pull, started=True)
    assert account.progress(108.0) == (4, 4, 100.0, 8.0, 2)
    account.shown(*account.next_pull([ALICE, BOB], 108.0), started=True)
    assert account.progress(109.0) is None
    account.layout_changed(Shares(shares | {ME: 0b11111}), 200.0, grace=False)
    assert account.progress(201.0) == (1, 1, 200.0, None, 0)


def test_how_long_it_takes_is_told_when_some_of_the_sessions_have_come_and_not_before():
    """The revocations are compared within milliseconds, and tell nothing of hours."""
    shares = Shares({ME: EVERYTHING, ALICE: EVERYTHING})
    account = gains(ALICE, shares=shares)
    scope = account.next_pull([ALICE], 100.0)[1]
    account.advanced(ALICE, 0.04, 104.0)
    assert account.progress(104.0) == (1024, 1024, 100.0, None, 0)
    account.advanced(ALICE, 0.5, 104.0)
    assert account.progress(104.0) == (1024, 1024, 100.0, 4.0, 0)
    account.shown(ALICE, scope & ~USERS_SCOPE, started=True)
    assert account.progress(104.0) is None


# --- with real syncs ----------------------------------------------------------------------------------------

LATENCY_S = 0.005


class Joiner:
    """A node that pulls from tables of others, each a few milliseconds away; what came how often is counted."""

    def __init__(self, shares: Shares, donors: dict[bytes, Table]) -> None:
        self.now_s = 100.0
        self.table = Table()
        self.donors = dict(donors)
        self.account = gains(*donors, shares=shares)
        self.syncs = {node: Sync() for node in donors}
        self.came: Counter[bytes] = Counter()
        self.under_way: list[tuple[float, bytes, object]] = []

    def takes(self, node: bytes, step: Step) -> None:
        if step.message is not None:
            self.under_way.append((self.now_s + LATENCY_S, node, step.message))
        self.account.shown(node, step.shown, started=True)

    def pulls(self) -> None:
        pull = self.account.next_pull(self.donors, self.now_s)
        if pull is not None:
            node, scope = pull
            self.takes(node, self.syncs[node].start(self.table, self.now_s, scope))

    def answers(self, node: bytes, message: object) -> None:
        theirs, asker = self.donors[node], self.syncs[node]
        match message:
            case SyncAsk():
                self.takes(node, asker.sums(answer(message, theirs, True), self.table, self.now_s))
            case SyncList():
                self.takes(node, asker.page(listing(message, theirs, True), self.table, self.now_s))
            case Pull():
                for gap in message.wanted:
                    delta = not_covered(theirs.get(gap.sid), gap.claims or {})
                    self.table.merge(delta, EPOCH_MS + 1, self.now_s)
                    self.came[gap.sid] += 1
                    self.takes(node, asker.merged(delta, self.table, self.now_s))
        self.account.advanced(node, asker.share, self.now_s)

    def dies(self, node: bytes) -> None:
        del self.donors[node], self.syncs[node]
        self.under_way = [one for one in self.under_way if one[1] != node]
        self.account.peer_gone(node)

    def run(self, until) -> None:
        while not until():
            self.pulls()
            deadlines = [sync.next_deadline() for sync in self.syncs.values()] + [self.account.next_deadline()]
            due_s = min([at_s for at_s in deadlines if at_s is not None] + [at_s for at_s, _, _ in self.under_way])
            self.now_s = max(self.now_s, due_s)
            assert self.now_s < 200.0, "it comes to an end"
            arrived = [one for one in self.under_way if one[0] <= self.now_s]
            self.under_way = [one for one in self.under_way if one[0] > self.now_s]
            for _, node, message in arrived:
                self.answers(node, message)
            for node, asker in self.syncs.items():
                self.takes(node, asker.timeout(self.table, self.now_s))


def table_of(numbers) -> Table:
    table = Table()
    for number in numbers:
        name = (number * 2654435761 % 2**32).to_bytes(4, "big") * 4
        table.write(name, [*registers().items(), ("cart", bytes(1000))], stamp(0, number), ALICE, 0.0)
    return table


def three_donors(sessions: int, mine: int) -> tuple[Shares, dict[bytes, Table]]:
    """Return a layout in which each partition is held by two of three members, and their tables; it holds some too."""
    nodes = (ALICE, BOB, CAROL)
    masks = [sum(1 << partition for partition in range(1024) if partition % 3 != left) for left in range(3)]
    shares = Shares({ME: mine | USERS_SCOPE} | {n: mask | USERS_SCOPE for n, mask in zip(nodes, masks, strict=True)})
    tables = {node: Table() for node in nodes}
    for name, record in table_of(range(sessions)).records.items():
        for node in nodes:
            if in_scope(leaf_of(name), shares[node]):
                tables[node].merge(not_covered(record, {}), EPOCH_MS + 1, 0.0)
    return shares, tables


def expected(mine: int, tables: dict[bytes, Table]) -> dict[bytes, int]:
    return {
        name: record.state_hash
        for table in tables.values()
        for name, record in table.records.items()
        if in_scope(leaf_of(name), mine)
    }


@pytest.mark.parametrize("dies_after", [None, 1, 500, 1500])
def test_a_joiner_pulls_each_record_once_even_if_a_donor_dies_under_way(dies_after):
    """A join costs as many bytes as the joiner is to hold; what was pulled before a death is not pulled again."""
    mine = sum(1 << partition for partition in range(0, 1024, 2))
    shares, tables = three_donors(6000, mine)
    joiner = Joiner(shares, tables)
    if dies_after is not None:
        joiner.run(lambda: joiner.came.total() >= dies_after)
        joiner.dies(ALICE)
    joiner.run(lambda: joiner.account.started)
    assert {name: record.state_hash for name, record in joiner.table.records.items()} == expected(mine, tables)
    assert set(joiner.came.values()) == {1}
    assert joiner.account.unsynced == 0


def test_a_surplus_copy_is_found_though_its_node_holds_nothing_of_the_partition():
    """A write under another view, which its writer has not handed over yet, may be the only copy there is."""
    shares, tables = three_donors(100, EVERYTHING)
    newest = next(name for name in tables[ALICE].records if name not in tables[BOB].records)
    tables[BOB].merge(not_covered(tables[ALICE].get(newest), {}), EPOCH_MS + 1, 0.0)
    tables[BOB].write(newest, [("paid", b"1")], stamp(9), BOB, 0.0)
    joiner = Joiner(shares, tables)
    joiner.run(lambda: joiner.account.started)
    assert joiner.table.get(newest).state_hash == tables[BOB].get(newest).state_hash
