"""From the application's dict to a peer's memory: whatever a session accepts, a peer takes."""

import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gossipsess.draft import KEYS_MAX
from gossipsess.errors import SessionTooLarge, UnreplicableValue
from gossipsess.model.delta import Delta, not_covered
from gossipsess.model.record import (
    KEY_CHARACTERS_MAX,
    RECORD_BYTES_MAX,
    VALUE_BYTES_MAX,
    Record,
    empty_record,
    entry_bytes,
)
from gossipsess.model.table import Table
from gossipsess.session import Session
from gossipsess.wire.codec import decode_untrusted, encode
from gossipsess.wire.frame import MESSAGE_BYTES_MAX
from gossipsess.wire.messages import Push
from tests.property.histories import histories, joined
from tests.property.test_value_laws import values
from tests.unit.machines import ALICE, BOB, CAROL, EPOCH_MS, SID, record, registers, stamp

characters = st.characters()  # lone surrogates too: an application may come by them
keys = st.one_of(
    st.text(characters, max_size=8),
    st.builds(lambda character, count: character * count, characters, st.integers(0, KEY_CHARACTERS_MAX + 1)),
)
blobs = st.integers(VALUE_BYTES_MAX - 20, VALUE_BYTES_MAX + 20).map(bytes)


def filled(items: dict) -> Record:
    """Return what a session leaves that was assigned all of this, and accepted what it does."""
    session = Session("0" * 32, empty_record(SID), created_at=0.0, accessed_at=0.0)
    for key, value in items.items():
        try:
            session[key] = value
        except (UnreplicableValue, SessionTooLarge):
            assert key not in session
    changes = (*registers().items(), *session.changes())
    return empty_record(SID).written(changes, stamp(0), ALICE)


def sent(delta: Delta) -> Delta:
    """Return what a peer makes of a delta."""
    message = encode(Push(1, (delta,)))
    assert len(message) <= MESSAGE_BYTES_MAX
    (heard,) = decode_untrusted(message).deltas
    return heard


def size_of(record: Record) -> int:
    return sum(entry_bytes(key, entry.value) for key, entry in record.entries.items())


@given(st.dictionaries(keys, values | blobs, max_size=12))
@example({"": 1})
@example({f"{number:04}" + "\N{GRINNING FACE}" * (KEY_CHARACTERS_MAX - 4): None for number in range(KEYS_MAX)})
@example({f"{number}": None for number in range(KEYS_MAX)})
@settings(max_examples=60, deadline=None)
def test_whatever_a_session_accepts_a_peer_takes(items):
    """Refused there, it would cost the pair its link, again and again, for as long as the session lives."""
    mine = filled(items)
    delta = not_covered(mine, {})._replace(accessed_ms=EPOCH_MS)
    heard = sent(delta)
    assert heard == delta
    theirs = Table().merge(heard, EPOCH_MS, 0.0).record
    assert (theirs.state_hash, theirs.size) == (mine.state_hash, mine.size)
    assert sent(not_covered(theirs, {})) == delta._replace(accessed_ms=0), "and can send it on"


@given(histories())
def test_a_records_size_is_what_its_entries_add_up_to_however_they_came(history):
    """Bounds rest on it; kept wrong by a few bytes a write, it would refuse a small session one day."""
    for one, other in itertools.product(history.held, repeat=2):
        both = joined(one, other)
        assert both.size == size_of(both)


@pytest.mark.parametrize(
    ("count", "size"), [(20_000, 0), (16, VALUE_BYTES_MAX - 200)], ids=["many entries", "large values"]
)
def test_the_largest_record_that_merging_makes_can_be_sent_on(count, size):
    """One that no message carries would end the thread of every node that has come to hold it."""
    table, value = Table(), bytes(size)
    for origin in (ALICE, BOB, CAROL, SID[:8]):
        part = {f"{origin!r}{number}": value for number in range(count)}
        table.merge(not_covered(record((stamp(0), origin, registers() | part)), {}), EPOCH_MS, 0.0)
    largest = not_covered(table.get(SID), {})
    assert len(largest.entries) > 65_535 or table.get(SID).size > RECORD_BYTES_MAX * 0.99
    assert sent(largest) == largest
