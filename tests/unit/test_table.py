"""The table: sums, deadlines and touches beside the records."""

import pytest

from gossipsess.errors import SessionTooLarge
from gossipsess.model.delta import not_covered
from gossipsess.model.digest import LEAVES, leaf_of, partitions_in
from gossipsess.model.record import IDLE, SESSION_BYTES_MAX, empty_record
from gossipsess.model.revocation import user_sid
from gossipsess.model.table import PARTITION_LEAVES, TOMBSTONE_MS, Table, register_value, touch_grain_ms
from tests.unit.machines import ALICE, BOB, EPOCH_MS, SID, record, registers, stamp


def table_with(idle_ms: int = 60_000, absolute_ms: int = 3_600_000) -> Table:
    table = Table()
    table.write(SID, registers(idle_ms=idle_ms, absolute_ms=absolute_ms).items(), stamp(0), ALICE, 0.0)
    return table


def expired(table: Table, ms: int) -> list[bytes]:
    return [record.sid for record in table.expired(EPOCH_MS + ms, 0.0)]


@pytest.mark.parametrize(
    ("idle_ms", "grain_ms"),
    [(1_000, 250), (19_999, 4_999), (20_000, 5_000), (100_000, 5_000), (200_000, 10_000), (86_400_000, 60_000)],
)
def test_accesses_are_as_coarse_as_the_idle_timeout_allows(idle_ms, grain_ms):
    """Finer would make a message of every read; coarser would let idle sessions live on."""
    assert touch_grain_ms(idle_ms) == grain_ms


def test_an_idle_session_ends_after_its_timeout_and_the_grain():
    """An access within the grain is told to nobody, so nobody may end the session within it."""
    table = table_with(idle_ms=60_000)
    assert expired(table, 64_999) == []
    assert expired(table, 65_000) == [SID]
    assert SID not in table.records
    assert table.sums[leaf_of(SID)] == 0
    assert list(table.in_leaf(leaf_of(SID))) == []


def test_a_touch_and_a_write_each_put_the_end_off():
    """Both are use."""
    table = table_with(idle_ms=60_000)
    assert table.touch(SID, EPOCH_MS + 30_000)
    assert expired(table, 65_000) == []
    table.write(SID, [("a", b"1")], stamp(80_000), ALICE, 0.0)
    assert expired(table, 95_000) == []
    assert expired(table, 145_000) == [SID]


def test_touches_only_move_forward():
    """A late batch must not shorten a session's life."""
    table = table_with()
    assert table.touch(SID, EPOCH_MS + 30_000)
    assert not table.touch(SID, EPOCH_MS + 20_000)
    assert table.life(table.get(SID)).accessed_ms == EPOCH_MS + 30_000


def test_a_touch_of_a_session_that_is_not_held_is_not_kept():
    """Memory for sessions nobody has would grow with every message."""
    table = Table()
    assert not table.touch(SID, EPOCH_MS)
    assert table.life(empty_record(SID)).accessed_ms == 0


def test_the_absolute_timeout_ends_a_session_in_use():
    """A stolen cookie is not kept alive for ever by its thief."""
    table = table_with(idle_ms=60_000, absolute_ms=100_000)
    table.touch(SID, EPOCH_MS + 99_000)
    assert expired(table, 99_999) == []
    assert expired(table, 100_000) == [SID]


def test_a_session_without_its_registers_has_ended():
    """Fail closed: nobody knows how long it may live."""
    table = Table()
    table.write(SID, [("a", b"1")], stamp(0), ALICE, 0.0)
    assert expired(table, 1) == [SID]
    assert table.get(SID).entries == {}


def test_a_tombstone_outlives_a_day():
    """A node that was away comes back with the old record."""
    table = table_with()
    table.kill(SID, stamp(0), 0.0)
    assert expired(table, TOMBSTONE_MS - 1) == []
    assert expired(table, TOMBSTONE_MS) == [SID]


def test_a_tombstone_ends_at_its_time_also_where_the_session_would_have_lived_longer():
    """Where the session was never held it ends then; kept on here, the two nodes would differ for weeks."""
    long_ms = 30 * TOMBSTONE_MS
    table = table_with(idle_ms=long_ms, absolute_ms=long_ms)
    table.kill(SID, stamp(0), 0.0)
    assert expired(table, TOMBSTONE_MS) == [SID]


def test_a_later_tombstone_stays():
    """Two logouts of one session, heard in any order, leave the same state."""
    table = Table()
    table.kill(SID, stamp(2), 0.0)
    assert table.kill(SID, stamp(1), 0.0).tombstone == stamp(2)


def test_what_has_expired_is_not_taken_in_again():
    """A peer that is slower to drop it would bring it back for a moment, again and again."""
    old = record((stamp(0), ALICE, registers(idle_ms=60_000)))
    table = Table()
    applied = table.merge(not_covered(old, {}), EPOCH_MS + 65_000, 0.0)
    assert not applied.gap
    assert table.records == {}
    table.merge(not_covered(old, {}), EPOCH_MS + 64_999, 0.0)
    assert list(table.records) == [SID]


def test_an_idle_timeout_that_was_made_longer_counts_at_once():
    """The check was planned for the old deadline; it looks again."""
    table = table_with(idle_ms=60_000)
    table.write(SID, [(IDLE, register_value(600_000))], stamp(10), ALICE, 0.0)
    assert expired(table, 65_100) == []
    assert SID in table.records


def test_an_access_that_comes_with_a_record_counts_but_never_from_the_future():
    """Accesses are no part of the state: without it a session that is only read would be over before it arrives."""
    old = record((stamp(0), ALICE, registers(idle_ms=60_000)))
    table = Table()
    table.merge(not_covered(old, {})._replace(accessed_ms=EPOCH_MS + 80_000), EPOCH_MS + 100_000, 0.0)
    assert table.life(table.get(SID)).accessed_ms == EPOCH_MS + 80_000
    table.merge(not_covered(old, {})._replace(accessed_ms=EPOCH_MS + 999_000), EPOCH_MS + 100_000, 0.0)
    assert table.life(table.get(SID)).accessed_ms == EPOCH_MS + 100_000
    table.merge(not_covered(old, {})._replace(accessed_ms=EPOCH_MS + 1), EPOCH_MS + 100_000, 0.0)
    assert table.life(table.get(SID)).accessed_ms == EPOCH_MS + 100_000, "accesses only move forward"


def test_a_session_that_nodes_grew_past_its_bound_together_can_only_shrink():
    """Parallel requests each see room for theirs; refused for good, the user could not even empty the cart."""
    table = table_with()
    big = bytes(SESSION_BYTES_MAX // 2)
    table.write(SID, [("a", big)], stamp(1), ALICE, 0.0)
    elsewhere = record((stamp(2), BOB, {"b": big, "c": big}))
    before = table.merge(not_covered(elsewhere, {}), EPOCH_MS, 0.0).record
    with pytest.raises(SessionTooLarge, match="meanwhile"):
        table.write(SID, [("d", b"1")], stamp(3), ALICE, 0.0)
    assert table.get(SID) is before
    assert table.write(SID, [("a", None)], stamp(3), ALICE, 0.0).size > SESSION_BYTES_MAX
    table.write(SID, [("b", None)], stamp(4), ALICE, 0.0)
    table.write(SID, [("d", b"1")], stamp(5), ALICE, 0.0)


def test_a_dropped_session_is_gone_and_may_come_again():
    """What other nodes hold is dropped here to make room; a request may bring it back at any time."""
    table = table_with()
    kept = table.get(SID)
    table.drop(SID, ALICE, 0.0)
    assert SID not in table.records
    assert table.in_partition(leaf_of(SID) // PARTITION_LEAVES) == []
    assert not table.occupied
    assert table.sums[leaf_of(SID)] == 0
    table.merge(not_covered(kept, {}), EPOCH_MS, 0.0)
    assert table.in_partition(leaf_of(SID) // PARTITION_LEAVES) == [SID]


def test_a_session_that_comes_and_goes_still_ends_in_time_and_is_looked_at_once():
    """A copy may be dropped and fetched every minute for hours: neither may checks of it pile up, nor one be lost."""
    table = table_with(idle_ms=60_000)
    kept = table.get(SID)
    for _ in range(100):
        table.drop(SID, ALICE, 0.0)
        table.merge(not_covered(kept, {}), EPOCH_MS, 0.0)
        table.touch(SID, EPOCH_MS + 30_000)
    assert expired(table, 65_000) == []
    assert len(table._checks) == 1
    assert expired(table, 94_999) == []
    assert expired(table, 95_000) == [SID]
    assert not table._checks
    assert not table._check_at


def test_of_a_session_that_was_dropped_for_good_nothing_stays():
    """A node sees very many sessions that it does not keep."""
    table = table_with(idle_ms=60_000)
    table.drop(SID, ALICE, 0.0)
    assert expired(table, 65_000) == []
    assert not table._checks
    assert not table._check_at


def test_the_partitions_together_are_the_whole_table():
    """What lies in none is never handed over, and dropped by nobody."""
    table = Table()
    sids = [bytes((number, 7 * number % 256)) * 8 for number in range(256)]
    for sid in [*sids, user_sid("kim")]:
        table.kill(sid, stamp(0), 0.0)
    partitions = range((LEAVES - 1) // PARTITION_LEAVES + 1)
    assert sorted(sid for one in partitions for sid in table.in_partition(one)) == sorted(table.records)
    assert partitions_in(table.occupied) == [one for one in partitions if table.in_partition(one)]
