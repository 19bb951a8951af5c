"""Deltas: applied where their base is held they are as good as the whole record; elsewhere they do nothing."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from gossipsess.model.delta import apply, changes_since, not_covered
from gossipsess.model.record import covers_claims
from tests.property.histories import histories, joined, same_state


@settings(max_examples=300)
@given(histories())
def test_what_a_holders_claims_do_not_cover_is_as_good_as_the_whole_record(history):
    """A pull names claims to spare bytes; it must not spare a change."""
    for mine, theirs in itertools.permutations(history.held, 2):
        applied = apply(mine, not_covered(theirs, mine.claims))
        # Where a claim of this holder's was dropped as too old, equal claims do not prove equal states: then one
        # whole record too many is asked for, which is always safe.
        assert not applied.gap or not applied.record.covered
        assert same_state(applied.record, joined(mine, theirs))


@given(histories(), st.data())
def test_claims_that_were_dropped_only_cost_bytes(history, data):
    """Claims are pruned, and lost with a restart; an under-claim must still lead to the same state."""
    for mine, theirs in itertools.permutations(history.held, 2):
        kept = data.draw(st.sets(st.sampled_from(sorted(mine.claims) or [b""])))
        fewer = {origin: stamp for origin, stamp in mine.claims.items() if origin in kept}
        assert same_state(apply(mine, not_covered(theirs, fewer)).record, joined(mine, theirs))


@given(histories())
def test_changes_since_a_base_turn_that_base_into_the_record(history):
    """The push of an ordinary write: the peer holds the state before it."""
    for states in history.states:
        for base in states[-4:]:
            if not base.tombstone:
                applied = apply(base, changes_since(states[-1], base))
                assert not applied.gap
                assert same_state(applied.record, states[-1])


@settings(max_examples=300)
@given(histories())
def test_a_delta_over_a_missing_base_changes_nothing_and_reports_a_gap(history):
    """Applied over a gap it would converge one day, but until then claim and confirm writes it never saw."""
    for delta in history.deltas:
        for mine in history.held:
            if delta.base_claims is None:
                held = mine.state_hash == delta.base_hash
            else:
                held = covers_claims(mine.claims, delta.base_claims)
            if not held and not delta.tombstone and not mine.tombstone:
                applied = apply(mine, delta)
                assert applied.record is mine
                assert applied.gap == (mine.state_hash != delta.after_hash)


@given(histories())
def test_a_tombstone_needs_no_base_and_who_does_not_know_is_told(history):
    """A logout must stick on a node that never saw the session, and a late write's sender must hear of it."""
    for delta in history.deltas:
        for mine in history.held:
            applied = apply(mine, delta)
            if delta.tombstone:
                assert applied.record.tombstone == max(mine.tombstone, delta.tombstone)
            assert applied.absorbed == (0 <= delta.tombstone < mine.tombstone)
            assert not (applied.gap and applied.record.tombstone)


@given(histories())
def test_the_deltas_of_everything_bring_all_holders_to_one_state(history):
    """What repair relies on: each pair exchanging what the other's claims leave open, twice round, is enough."""
    held = history.held
    for _ in range(2):
        for one, other in itertools.permutations(range(len(held)), 2):
            held[one] = apply(held[one], not_covered(held[other], held[one].claims)).record
    assert all(same_state(record, held[0]) for record in held)


@given(histories())
def test_applying_never_edits_what_it_was_given(history):
    """Request threads read records without a lock, and the machine keeps old ones as bases."""
    for delta in history.deltas:
        for mine in history.held:
            before = (dict(mine.entries), dict(mine.claims), mine.state_hash, mine.covered, mine.tombstone)
            apply(mine, delta)
            assert (mine.entries, mine.claims, mine.state_hash, mine.covered, mine.tombstone) == before
