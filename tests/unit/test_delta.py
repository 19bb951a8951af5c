"""Deltas: how they are cut, and the bug that a base of "since my stamp" would have."""

from gossipsess.model.delta import Applied, apply, changes_since, not_covered
from gossipsess.model.record import CLAIM_AGE, CLAIMS_MAX, dead_record, empty_record
from tests.unit.machines import ALICE, BOB, SID, record, stamp


def test_a_delta_carries_only_what_changed():
    """A cart of a hundred items is not sent again for one more."""
    base = record((stamp(1), ALICE, {"a": b"1", "b": b"1"}))
    delta = changes_since(base.written([("a", b"2")], stamp(2), ALICE), base)
    assert [entry[0] for entry in delta.entries] == ["a"]
    assert delta.base_claims == {ALICE: stamp(1)}


def test_an_overwritten_write_of_another_is_not_claimed_by_who_missed_it():
    """Alice writes k, Bob overwrites it, Alice sends what is left of her own: nothing. With a base of "since my
    stamp" Carol would now claim a write that she holds neither itself nor as what replaced it."""
    first = record((stamp(1), ALICE, {"k": b"alice"}))
    at_alice = first.written([("k", b"bob")], stamp(2), BOB)
    at_carol = empty_record(SID)
    applied = apply(at_carol, changes_since(at_alice, first))
    assert applied.gap
    assert applied.record is at_carol
    assert not applied.record.contains(ALICE, stamp(1))


def test_a_base_that_is_not_covered_by_its_claims_is_named_by_its_hash():
    """Claims that were dropped say too little about what the base held."""
    base = record((stamp(1), BOB, {"a": b"1"}), (stamp(1) + CLAIM_AGE + 1, ALICE, {"b": b"2"}))
    after = base.written([("b", b"3")], base.newest + 1, ALICE)
    delta = changes_since(after, base)
    assert delta.base_claims is None
    assert delta.base_hash == base.state_hash
    assert apply(base, delta).record.state_hash == after.state_hash
    other = record((stamp(1), BOB, {"a": b"1"}))
    assert apply(other, delta) == Applied(other, gap=True)


def test_who_holds_the_outcome_already_reports_no_gap():
    """A doubled push must not be asked for once more."""
    base = record((stamp(1), BOB, {"a": b"1"}), (stamp(1) + CLAIM_AGE + 1, ALICE, {"b": b"2"}))
    after = base.written([("b", b"3")], base.newest + 1, ALICE)
    assert apply(after, changes_since(after, base)) == Applied(after, gap=False)


def test_the_outcome_is_compared_where_the_claims_are_the_senders():
    """The one check that finds a base which claimed more than it held."""
    sender = record((stamp(1), ALICE, {"a": b"1"}), (stamp(2), ALICE, {"b": b"2"}))
    delta = not_covered(sender.written([("c", b"3")], stamp(3), ALICE), {ALICE: stamp(2)})
    liar = empty_record(SID).written([("b", b"2")], stamp(2), ALICE)  # claims all up to 2, and holds half
    applied = apply(liar, delta)
    assert applied.gap
    assert "c" in applied.record.entries


def test_a_tombstone_beats_entries_and_a_later_tombstone_an_earlier():
    """And the sender of anything else is told that the session is dead."""
    live = record((stamp(5), ALICE, {"a": b"1"}))
    dead, later = dead_record(SID, stamp(1)), dead_record(SID, stamp(2))
    assert apply(live, not_covered(dead, {})).record.tombstone == stamp(1)
    assert apply(dead, not_covered(live, {})) == Applied(dead, gap=False, absorbed=True)
    assert apply(dead, not_covered(later, {})).record.tombstone == stamp(2)
    assert apply(later, not_covered(dead, {})) == Applied(later, gap=False, absorbed=True)
    assert apply(later, not_covered(later, {})) == Applied(later, gap=False)


def test_everything_is_sent_to_who_claims_nothing():
    """A joiner's first pull."""
    made = record((stamp(1), ALICE, {"a": b"1", "b": None}))
    assert {entry[0] for entry in not_covered(made, {}).entries} == {"a", "b"}


def test_two_writes_of_one_key_that_did_not_know_of_each_other_are_counted_by_whichever_wins():
    """One of them is gone, and its writer was told that it stands; an operator wants to know how often."""
    base = record((stamp(1), ALICE, {"k": b"0", "a": b"0"}))
    at_alice = base.written([("k", b"alice")], stamp(2), ALICE)
    at_bob = base.written([("k", b"bob")], stamp(3), BOB)
    to_bob, to_alice = changes_since(at_alice, base), changes_since(at_bob, base)
    wins, loses = apply(at_alice, to_alice), apply(at_bob, to_bob)
    assert (wins.overwrites, loses.overwrites) == (1, 1)
    assert wins.record.entries["k"] == loses.record.entries["k"]
    assert apply(wins.record, to_alice).overwrites == 0, "a doubled push is counted once"
    assert apply(loses.record, to_bob).overwrites == 0


def test_a_write_after_a_read_is_no_race():
    """Counted too, the number would only say how many nodes write a session."""
    base = record((stamp(1), ALICE, {"k": b"0"}))
    at_alice = base.written([("k", b"alice")], stamp(2), ALICE)
    at_bob = apply(base, changes_since(at_alice, base)).record.written([("k", b"bob")], stamp(3), BOB)
    assert apply(at_alice, changes_since(at_bob, at_alice)).overwrites == 0
    assert apply(at_bob, changes_since(at_alice, base)).overwrites == 0, "alice's push, doubled and late"
    assert apply(empty_record(SID), not_covered(at_bob, {})).overwrites == 0


def test_writes_of_different_keys_are_no_race():
    """Both stay."""
    base = record((stamp(1), ALICE, {"k": b"0"}))
    at_alice, at_bob = base.written([("a", b"1")], stamp(2), ALICE), base.written([("b", b"1")], stamp(2), BOB)
    assert apply(at_alice, changes_since(at_bob, base)).overwrites == 0


def test_a_write_whose_claim_was_dropped_is_not_taken_for_unseen():
    """Claims are forgotten after ten minutes, and beyond sixteen: then nothing tells a race from a sequence."""
    base = record((stamp(1), BOB, {"k": b"0"}))
    later = base.written([("k", b"1")], stamp(1) + CLAIM_AGE + 1, ALICE)
    assert BOB not in later.claims
    assert apply(base, not_covered(later, {})).overwrites == 0
    many = base
    for number in range(CLAIMS_MAX):
        many = many.written([("k", b"1")], stamp(2 + number), bytes([number] * 8))
    assert BOB not in many.claims
    assert apply(base, not_covered(many, {})).overwrites == 0
