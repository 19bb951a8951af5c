"""Records: what a write leaves, and which claims are kept."""

import pytest

from gossipsess.model.record import CLAIM_AGE, CLAIMS_MAX, dead_record, empty_record, pruned_claims
from tests.unit.machines import ALICE, BOB, SID, record, stamp


def test_a_deleted_key_stays_as_an_entry_without_a_value():
    """Forgotten, an old copy would bring back a role that was taken away."""
    made = record((stamp(1), ALICE, {"role": b"admin"}), (stamp(2), ALICE, {"role": None}))
    assert made.entries["role"].value is None
    assert made.entries["role"].stamp == stamp(2)
    assert made.state_hash != empty_record(SID).state_hash


def test_a_write_claims_itself_and_leaves_the_old_record_alone():
    """Request threads may still be reading the old one."""
    old = record((stamp(1), ALICE, {"a": b"1"}))
    new = old.written([("a", b"2")], stamp(2), ALICE)
    assert (old.entries["a"].value, old.claims) == (b"1", {ALICE: stamp(1)})
    assert (new.entries["a"].value, new.claims) == (b"2", {ALICE: stamp(2)})


def test_equal_sessions_of_different_ids_have_different_hashes():
    """Partition sums add them up; what cancels in a sum hides a difference."""
    one = record((stamp(1), ALICE, {"a": b"1"}))
    other = record((stamp(1), ALICE, {"a": b"1"}), sid=b"another-16-bytes")
    assert one.state_hash != other.state_hash


@pytest.mark.parametrize(
    ("dot", "held"),
    [
        ((ALICE, stamp(1)), True),
        ((ALICE, stamp(2)), True),
        ((ALICE, stamp(3)), False),
        ((BOB, stamp(1)), False),
    ],
)
def test_a_record_contains_what_it_claims(dot, held):
    """This answers whether a replica is fresh enough to serve a client."""
    made = record((stamp(1), ALICE, {"a": b"1"}), (stamp(2), ALICE, {"b": b"2"}))
    assert made.contains(*dot) is held


def test_a_record_contains_an_entry_whose_claim_was_dropped():
    """A claim may go; what is plainly there still counts."""
    made = record((stamp(1), BOB, {"a": b"1"}), (stamp(1) + CLAIM_AGE + 1, ALICE, {"b": b"2"}))
    assert list(made.claims) == [ALICE]
    assert made.contains(BOB, stamp(1))
    assert not made.covered


def test_a_dead_record_contains_every_write():
    """No node is asked for writes to a session that is no more."""
    assert dead_record(SID, stamp(1)).contains(BOB, stamp(9))


def test_at_most_so_many_claims_are_kept_and_the_newest():
    """A session that lives for weeks meets a new node id with every deployment."""
    claims = {bytes([number]) * 8: stamp(number) for number in range(CLAIMS_MAX + 3)}
    kept, dropped = pruned_claims(claims)
    assert dropped
    assert sorted(kept.values()) == sorted(claims.values())[-CLAIMS_MAX:]


def test_claims_of_the_last_ten_minutes_are_kept():
    """As long as a version token may name them."""
    claims = {ALICE: stamp(0), BOB: stamp(0) + CLAIM_AGE}
    assert pruned_claims(claims) == (claims, False)
    claims[BOB] += 1
    assert pruned_claims(claims) == ({BOB: claims[BOB]}, True)


def test_the_newest_stamp_of_a_record_is_known_whatever_was_dropped():
    """The next write must be stamped above it."""
    made = record((stamp(1), BOB, {"a": b"1"}), (stamp(1) + CLAIM_AGE + 1, ALICE, {"b": b"2"}))
    assert made.newest == stamp(1) + CLAIM_AGE + 1
    assert empty_record(SID).newest == 0
    assert dead_record(SID, stamp(3)).newest == stamp(3)
