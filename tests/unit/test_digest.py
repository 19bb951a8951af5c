"""Sums of state hashes: what has settled, and what is put right when it was wrong."""

import random

import pytest

from gossipsess.model.digest import (
    EVERYTHING,
    GROUP_LEAVES,
    GROUPS,
    LEAVES,
    PARTITIONS,
    SETTLE_S,
    SUM_MASK,
    USERS,
    USERS_SCOPE,
    LeafSums,
    in_scope,
    leaf_flags,
    leaf_of,
    leaves_in,
)
from gossipsess.model.revocation import user_sid
from gossipsess.model.table import Table
from tests.unit.machines import ALICE, SID, registers, stamp

OTHER = b"another-16-bytes"


def held(changed: dict[bytes, float]) -> Table:
    """Return a table whose sessions last changed at these times."""
    table = Table()
    for sid, now_s in changed.items():
        table.write(sid, registers().items(), stamp(0), ALICE, now_s)
    return table


def test_leaves_are_the_first_twelve_bits_and_groups_the_first_six():
    """Nodes that cut them differently would never find what differs."""
    assert leaf_of(bytes([0xAB, 0xCD]) + bytes(14)) == 0xABC
    sums = LeafSums()
    sums.replace(bytes([0xAB, 0xCD]) + bytes(14), 0, 7, 0.0)
    assert sums[0xABC] == 7
    assert sums.of_leaves(0xAB >> 2)[0xABC % 64] == 7
    assert [group for group in range(GROUPS) if sums.of_groups()[group]] == [0xAB >> 2]


def test_a_session_is_in_the_settled_digest_while_it_rests():
    """A delta on its way would make two nodes differ all the time, and the digest say nothing."""
    table = held({SID: 10.0, OTHER: 12.0})
    first, second = (table.records[sid].state_hash & SUM_MASK for sid in (SID, OTHER))
    assert table.sums.settled(10.0 + SETTLE_S - 0.01) == 0
    assert table.sums.settled(10.0 + SETTLE_S) == first
    assert table.sums.settled(12.0 + SETTLE_S) == (first + second) & SUM_MASK
    table.write(SID, [("a", b"1")], stamp(1), ALICE, 20.0)
    assert table.sums.settled(20.0) == second
    assert table.sums.settled(20.0 + SETTLE_S) == (table.records[SID].state_hash + second) & SUM_MASK


def test_what_has_ended_is_in_no_sum_at_once():
    """The other node drops it at the same moment, and nothing is left that could settle."""
    table = held({SID: 0.0, OTHER: 0.0})
    table.sums.settled(SETTLE_S)
    table.write(OTHER, [("a", b"1")], stamp(1), ALICE, SETTLE_S)
    assert len(list(table.expired(2**62, SETTLE_S))) == 2
    assert table.sums.settled(SETTLE_S) == 0
    assert not any(table.sums.of_groups())


def test_the_settled_digest_is_that_of_the_records_at_rest_after_any_history():
    """Kept by additions and subtractions for months, it must be what adding everything up would give."""
    rng = random.Random(1)
    table, changed_s, now_s = Table(), {}, 0.0
    for number in range(3000):
        now_s += rng.choice((0.0, 0.01, 0.7))
        sid = rng.randrange(60).to_bytes(2, "little") * 8
        if rng.random() < 0.1:
            table.kill(sid, stamp(number), now_s)
        elif not table.get(sid).tombstone:
            table.write(sid, registers().items(), stamp(number), ALICE, now_s)
        else:
            continue
        changed_s[sid] = now_s
        resting = [sid for sid, at_s in changed_s.items() if at_s + SETTLE_S <= now_s]
        for scope in (EVERYTHING, 2**600 // 7):  # what two nodes both hold may be less than everything
            expected = sum(table.records[sid].state_hash for sid in resting if in_scope(leaf_of(sid), scope))
            assert table.sums.settled(now_s, leaf_flags(scope)) == expected & SUM_MASK


def recheck_all(table: Table) -> int:
    return sum(table.recheck(8, 99.0) for _ in range(LEAVES // 8 + 1))


def test_computing_everything_anew_changes_nothing_where_nothing_is_wrong():
    """It runs all the time."""
    table = held({SID: 0.0, OTHER: 0.0})
    table.kill(OTHER, stamp(1), 0.0)
    records, digest = dict(table.records), table.sums.settled(50.0)
    assert recheck_all(table) == 0
    assert table.records == records
    assert table.sums.settled(50.0) == digest


@pytest.mark.parametrize("what", ["sum", "hash", "mark", "tombstone's hash"])
def test_a_wrong_hash_or_sum_is_put_right(what):
    """One bit that memory flips would be a difference which no repair can mend: each would find equal sessions."""
    right, table = held({SID: 0.0, OTHER: 0.0}), held({SID: 0.0, OTHER: 0.0})
    for one in (right, table):
        one.kill(OTHER, stamp(1), 0.0)
    record = table.records[SID]
    match what:
        case "sum":
            table.sums._sums[leaf_of(SID)] ^= 1
        case "hash":
            record.state_hash ^= 1
        case "mark":
            entry = record.entries["\0c"]
            record.entries["\0c"] = entry._replace(mark=entry.mark ^ 1)
        case _:
            table.records[OTHER].state_hash ^= 1
    assert recheck_all(table) >= 1
    assert recheck_all(table) == 0
    assert {sid: (one.state_hash, one.entries) for sid, one in table.records.items()} == {
        sid: (one.state_hash, one.entries) for sid, one in right.records.items()
    }
    assert table.sums.of_groups() == right.sums.of_groups()
    assert table.sums.settled(200.0) == right.sums.settled(200.0)


def test_a_wrong_sum_of_what_is_unsettled_is_right_again_once_all_has_settled():
    """It is not counted anew with the others: what it is made of changes all the time."""
    right, table = held({SID: 0.0, OTHER: 0.0}), held({SID: 0.0, OTHER: 0.0})
    table.sums._unsettled_sums[leaf_of(SID)] ^= 1
    assert table.sums.settled(200.0) == right.sums.settled(200.0)


def test_revocations_have_a_leaf_of_their_own():
    """Every node holds them, wherever sessions are placed: compared with a session's leaf, some nodes never would."""
    sums, user = LeafSums(), user_sid("kim")
    sums.replace(user, 0, 9, 0.0)
    assert leaf_of(user) == USERS
    assert (sums[USERS], sums.of_groups()[-1], sums.of_leaves(GROUPS - 1)) == (9, 9, (9,))
    assert sum(leaves_in(group) for group in range(GROUPS)) == LEAVES


@pytest.mark.parametrize(
    "scope",
    [0, 1, 1 << 15, 0xFFFF, 0b1011 << 14, USERS_SCOPE, EVERYTHING, EVERYTHING - 1, 2**512 // 3],
    ids=lambda scope: f"{scope.bit_count()} partitions",
)
def test_the_sums_of_a_scope_are_those_of_its_leaves_alone(scope):
    """Nodes that hold different partitions compare what both hold; a leaf too many would differ for ever."""
    sums = LeafSums()
    for leaf in range(LEAVES):
        sums.put_right(leaf, (leaf + 1) * 2**35 + leaf)
    expected = [0] * GROUPS
    for leaf in range(LEAVES):
        if in_scope(leaf, scope):
            expected[leaf // GROUP_LEAVES] += sums[leaf]
    assert sums.of_groups(scope) == tuple([total & SUM_MASK for total in expected])


def test_each_partition_has_four_leaves_and_the_last_one_the_revocations():
    """Placement, scopes and sums must cut sessions alike."""
    for partition in range(PARTITIONS - 1):
        assert [leaf for leaf in range(LEAVES) if in_scope(leaf, 1 << partition)] == [
            *range(4 * partition, 4 * partition + 4)
        ]
    assert [leaf for leaf in range(LEAVES) if in_scope(leaf, USERS_SCOPE)] == [USERS]
