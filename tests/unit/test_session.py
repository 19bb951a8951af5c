"""The session as a mapping: what counts as a change, and what is refused without harm."""

from contextlib import suppress
from datetime import UTC, datetime

import pytest

from gossipsess.draft import KEYS_MAX
from gossipsess.errors import SessionTooLarge, UnreplicableValue
from gossipsess.model.record import (
    CREATED,
    ENTRY_BYTES,
    KEY_CHARACTERS_MAX,
    SESSION_BYTES_MAX,
    Record,
    empty_record,
)
from gossipsess.session import Session
from gossipsess.wire.values import VALUE_BYTES_MAX, encode_value
from tests.unit.machines import ALICE, SID, record, registers, stamp


def session_with(**values) -> Session:
    return session_over(stored(values))


def stored(values) -> Record:
    encoded = {key: encode_value(value, key) for key, value in values.items()}
    return record((stamp(0), ALICE, registers() | encoded))


def session_over(made: Record) -> Session:
    return Session("0" * 32, made, created_at=0.0, accessed_at=0.0)


def changed(session: Session) -> dict:
    return dict(session.changes())


def test_it_is_a_mapping_without_the_registers():
    """What the library keeps for itself is nobody's key."""
    session = session_with(user="kim", cart=["book"])
    assert dict(session) == {"user": "kim", "cart": ["book"]}
    assert len(session) == 2
    assert CREATED not in session
    with pytest.raises(KeyError):
        session[CREATED]
    assert not session.modified


def test_reading_alone_changes_nothing():
    """Otherwise every request would be a write."""
    session = session_with(cart=["book"], at=datetime(2026, 1, 2, tzinfo=UTC))
    assert session["cart"] == ["book"]
    assert session["at"].year == 2026
    assert session.get("missing") is None
    assert session.changes() == ()


def test_a_change_inside_a_value_is_noticed():
    """The classic surprise of session libraries: an append that is never stored."""
    session = session_with(cart={"items": ["book"]}, other=["same"])
    session["cart"]["items"].append("pen")
    assert session["other"] == ["same"]
    assert changed(session) == {"cart": encode_value({"items": ["book", "pen"]}, "")}
    session["cart"]["items"].pop()
    assert not session.modified, "changed back is not changed"
    session["other"] = ["new"]
    session["other"][0] = "same"
    assert not session.modified, "nor is what was assigned and changed back inside"


def test_assigning_what_is_there_already_changes_nothing():
    """Frameworks write flags at each request."""
    session = session_with(user="kim", cart=["book"])
    session["user"] = "kim"
    session["cart"] = ["book"]
    assert not session.modified


def test_equal_values_of_another_type_are_a_change():
    """1, 1.0 and True are equal to Python and not to the application."""
    session = session_with(n=1)
    session["n"] = True
    assert changed(session) == {"n": encode_value(True, "")}


def test_a_deletion_travels_and_a_deleted_key_can_come_back():
    """Logged-out flags are deleted, and set again at the next login."""
    session = session_with(user="kim", theme="dark")
    del session["user"]
    assert changed(session) == {"user": None}
    assert dict(session) == {"theme": "dark"}
    assert "user" not in session
    with pytest.raises(KeyError):
        session["user"]
    with pytest.raises(KeyError):
        del session["user"]
    session["user"] = "sam"
    assert changed(session) == {"user": encode_value("sam", "")}
    session["user"] = "kim"
    assert not session.modified


def test_a_key_that_comes_and_goes_in_one_request_leaves_nothing():
    """Not even a deletion of what never was."""
    session = session_with()
    session["flash"] = ["hello"]
    assert session.pop("flash") == ["hello"]
    assert session.changes() == ()
    assert list(session) == []


def test_an_accessed_session_says_so_and_an_unused_one_does_not():
    """Pages that never look at the session may be cached for everybody."""
    for use in (lambda s: s.get("a"), lambda s: "a" in s, list, len, lambda s: s.update(a=1), lambda s: s.pop("a", 0)):
        session = session_with()
        assert not session.accessed
        use(session)
        assert session.accessed


class User:
    pass


@pytest.mark.parametrize(
    ("key", "value", "error", "says"),
    [
        ("user", User(), UnreplicableValue, r"session\['user'\]"),
        ("user", {"profile": User()}, UnreplicableValue, r"\['profile'\]"),
        ("user", "x" * VALUE_BYTES_MAX, SessionTooLarge, "bytes"),
        (7, "x", UnreplicableValue, r"Write session\['7'\]"),
        ("\0c", "x", UnreplicableValue, "NUL"),
        ("\ud800", "x", UnreplicableValue, "surrogate"),
        ("k" * (KEY_CHARACTERS_MAX + 1), "x", SessionTooLarge, "256 characters"),
    ],
)
def test_a_refused_assignment_names_itself_and_leaves_all_else_alone(key, value, error, says):
    """The error belongs to the line that made it, and must not lose what other lines did."""
    session = session_with(user="kim", cart=["book"])
    session["theme"] = "dark"
    session["cart"].append("pen")
    before = changed(session)
    with pytest.raises(error, match=says):
        session[key] = value
    assert changed(session) == before
    assert session["user"] == "kim"


def test_what_cannot_travel_is_also_found_where_it_was_put_inside():
    """The append itself cannot be watched; the commit that follows it can."""
    session = session_with(cart=["book"])
    session["cart"].append(User())
    with pytest.raises(UnreplicableValue, match=r"session\['cart'\]\[1\]"):
        session.changes()


def test_a_session_has_a_bounded_size():
    """It is sent whole to every joiner, and must fit into one message."""
    piece = "x" * (VALUE_BYTES_MAX - 1000)
    session = session_with()
    for number in range(SESSION_BYTES_MAX // VALUE_BYTES_MAX):
        session[f"k{number}"] = piece
    with pytest.raises(SessionTooLarge, match="the session"):
        session["more"] = piece
    assert "more" not in session
    session["k0"] = "small"
    session["more"] = piece
    del session["more"]
    session["again"] = piece


def test_a_session_has_a_bounded_number_of_keys_deleted_ones_included():
    """Deleted keys must be remembered; a counter in the key would grow for as long as the session lives."""
    session = session_with()
    room = KEYS_MAX - len(session.record.entries)
    for number in range(room):
        session[f"k{number}"] = number
    with pytest.raises(SessionTooLarge, match="keys"):
        session["more"] = 1
    session["k0"] = 2
    del session["k0"]
    session["more"] = 1


def test_after_a_commit_it_goes_on_from_what_was_stored():
    """A second commit of the same request sends only what came after the first."""
    session = session_with(cart=["book"])
    cart = session["cart"]
    cart.append("pen")
    session["user"] = "kim"
    changes = session.changes()
    session.committed(session.record.written(changes, stamp(1), ALICE), "token", changes)
    assert session.changes() == ()
    assert session.cookie == "0" * 32 + ".token"
    cart.append("ink")
    assert changed(session) == {"cart": encode_value(["book", "pen", "ink"], "")}


def test_a_second_commit_does_not_undo_what_another_request_did_meanwhile():
    """The value read before it is no change of this request's, although it differs from what is stored now."""
    session = session_with(cart=["book"], theme="dark")
    assert session["cart"] == ["book"]
    assert session["theme"] == "dark"
    session["user"] = "kim"
    changes = session.changes()
    other = {"cart": encode_value(["book", "pen"], ""), "theme": None}
    merged = session.record.written(other.items(), stamp(1), ALICE).written(changes, stamp(2), ALICE)
    session.committed(merged, "", changes)
    assert session.changes() == ()
    assert dict(session) == {"user": "kim", "cart": ["book", "pen"]}


def test_a_new_session_is_new_until_it_is_stored():
    """Adapters set the cookie then."""
    session = session_over(empty_record(SID))
    assert session.is_new
    session["user"] = "kim"
    changes = session.changes()
    session.committed(session.record.written(changes, stamp(1), ALICE), "", changes)
    assert not session.is_new
    assert session.cookie == session.id


def test_an_ended_session_is_empty():
    """Nothing of the last user is shown in the response to the logout."""
    session = session_with(user="kim")
    assert session["user"] == "kim"
    session["more"] = 1
    session.ended(empty_record(SID))
    assert dict(session) == {}
    assert session.changes() == ()


def test_a_session_that_grows_inside_its_values_is_bounded_too():
    """Otherwise a list that every request appends to would pass the bound unnoticed."""
    session = session_with()
    for number in range(6):
        session[f"k{number}"] = ["x" * 1000]
    for number in range(6):
        session[f"k{number}"].append("x" * 200_000)
    with pytest.raises(SessionTooLarge, match=r"k5"):
        session.changes()


def test_keys_count_against_a_sessions_size():
    """They travel too: by values alone, a thousand long keys would be next to nothing."""
    session = session_with()
    for number in range(KEYS_MAX - len(session.record.entries)):
        with suppress(SessionTooLarge):
            session[f"{number:04}" + "\N{GRINNING FACE}" * (KEY_CHARACTERS_MAX - 4)] = 1
    room = SESSION_BYTES_MAX - session.record.size
    assert len(session) == room // (4 + 4 * (KEY_CHARACTERS_MAX - 4) + len(encode_value(1, "")) + ENTRY_BYTES)


def test_an_empty_key_is_a_key_like_any_other():
    """A dict takes it, so an application may have it."""
    session = session_with()
    session[""] = "kim"
    assert dict(session) == {"": "kim"}
    assert changed(session) == {"": encode_value("kim", "")}
