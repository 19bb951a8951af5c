"""The merge laws of a session's state: whatever is lost, doubled or reordered on the way, replicas agree."""

import itertools

from hypothesis import given, settings

from gossipsess.model.record import covers
from tests.property.histories import (
    HOLDERS,
    SID,
    History,
    histories,
    includes,
    joined,
    origin,
    recomputed_hash,
    same_state,
)


@given(histories())
def test_merge_does_not_care_about_order(history):
    """Two nodes that hear the same news in another order must show the same session."""
    for one, other in itertools.combinations(history.held, 2):
        assert same_state(joined(one, other), joined(other, one))


@given(histories())
def test_merge_does_not_care_about_grouping(history):
    """A node may hear news one by one, or already merged by another."""
    a, b, c = history.held
    assert same_state(joined(joined(a, b), c), joined(a, joined(b, c)))


@given(histories())
def test_merging_what_is_already_held_changes_nothing(history):
    """Doubled deltas are normal; a change that was none would be told on for ever."""
    a, b, _ = history.held
    both = joined(a, b)
    assert joined(both, b) is both
    assert joined(both, a) is both
    assert joined(a, a) is a


@given(histories())
def test_a_tombstone_absorbs_whatever_comes(history):
    """Logged out stays logged out, however late the last write comes in."""
    for dead, other in itertools.permutations(history.held, 2):
        if dead.tombstone:
            merged = joined(other, dead)
            assert merged.tombstone == max(dead.tombstone, other.tombstone)
            assert not merged.entries
            assert joined(dead, other).tombstone == merged.tombstone


@given(histories())
def test_the_greatest_dot_of_each_key_wins(history):
    """The merge of everything against the plain statement of the rule."""
    a, b, c = history.held
    merged = joined(joined(a, b), c)
    if merged.tombstone:
        return
    for key in {key for record in history.held for key in record.entries}:
        entries = [record.entries[key] for record in history.held if key in record.entries]
        assert merged.entries[key] == max(entries, key=lambda entry: (entry.stamp, entry.origin))


@given(histories())
def test_the_kept_state_hash_is_the_recomputed_one(history):
    """Convergence rests on this hash: one that drifts hides a difference, or shows one for ever."""
    for states in history.states:
        for record in states:
            assert record.state_hash == recomputed_hash(record)


@settings(max_examples=300)
@given(histories())
def test_a_record_says_covered_only_where_its_claims_cover_every_entry(history):
    """A delta cut against the claims of a record that is not covered would leave entries out."""
    for states in history.states:
        for record in states:
            assert not record.covered or covers(record.claims, record.entries)


@settings(max_examples=300)
@given(histories())
def test_claims_are_true_after_any_deliveries_losses_and_repetitions(history):
    """A claim to a write that is not held would confirm it, show old data as fresh, and lose it for good."""
    for states in history.states:
        for record in states:
            for write in history.writes:
                made_by, stamp, _ = write
                if record.claims.get(made_by, 0) >= stamp or record.contains(made_by, stamp):
                    assert includes(record, write), (record.claims, record.entries, write)


@given(histories(ends=False))
def test_a_write_is_stamped_above_everything_its_writer_held(history):
    """Otherwise a node whose clock lags could not change what it has read."""
    for holder, states in enumerate(history.states):
        for before, after in itertools.pairwise(states):
            mine = after.claims.get(origin(holder), 0)
            if mine > before.claims.get(origin(holder), 0):
                assert mine > before.newest
    assert len({(made_by, stamp) for made_by, stamp, _ in history.writes}) == len(history.writes)


def test_the_histories_drawn_here_reach_the_rare_cases():
    """Laws that hold because nothing ever happens would hold for any code."""
    write_each = [step for holder in range(HOLDERS) for step in (("write", holder, ("a",), False), ("cut", holder, 9))]
    history = History([*write_each, ("wait", 700_000), *[("deliver", 0, which) for which in range(HOLDERS)]])
    history.write(0, ("b",), False)
    record = history.held[0]
    assert record.sid == SID
    assert list(record.claims) == [origin(0)], "claims older than ten minutes are dropped"
    assert not record.covered, "entries whose claims were dropped are not covered"

    history = History([("write", 0, ("a",), False), ("wait", 700_000), ("write", 1, ("b",), False), ("cut", 1, 9)])
    history.deliver(0, 0)
    record = history.held[0]
    assert set(record.entries) == {"a", "b"}
    assert list(record.claims) == [origin(1)]
    assert not record.covered, "nor are they when the newer claim came from elsewhere"
