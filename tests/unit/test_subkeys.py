"""Counters and sets of a session: what one request sees of them, what travels, and what is left of them when."""

from collections.abc import MutableSet
from datetime import date
from struct import pack

import pytest

from gossipsess import Confirmed, Gone, SessionTooLarge, UnreplicableValue
from gossipsess.draft import KEYS_MAX
from gossipsess.model.delta import changes_since, not_covered
from gossipsess.model.record import CREATED, SESSION_BYTES_MAX, empty_record
from gossipsess.model.subkeys import COUNTER, NAME_CHARACTERS_MAX, TOTAL_MAX, counter_key
from gossipsess.web.adapter import save
from gossipsess.web.session import WebSession
from gossipsess.wire.values import VALUE_BYTES_MAX
from tests.unit.machines import ALICE, BOB, SID, Clocked, exchange, record, registers, stamp
from tests.unit.test_session import session_over, session_with


@pytest.fixture
def lone() -> Clocked:
    return Clocked(confirm=0).alone()


def begun(here: Clocked):
    session = here.store.create()
    session["user"] = "kim"
    here.store.commit(session)
    return session


def pair() -> tuple[Clocked, Clocked]:
    here, there = (Clocked(node, confirm=0).alone() for node in (ALICE, BOB))
    here.linked(BOB)
    there.linked(ALICE)
    exchange(here, there)
    return here, there


def meet(here: Clocked, there: Clocked) -> None:
    for one in (here, there):
        one.waits(1.0)
    exchange(here, there)


# Counters


def test_a_counter_counts_what_was_committed_and_what_this_request_adds(lone):
    """A page that shows the visits shows this one too."""
    session = begun(lone)
    visits = session.counter_of("visits")
    assert visits.value == 0
    visits.add()
    session.counter_of("visits").add(3)
    assert visits.value == 4
    assert lone.store.load(session.cookie).counter_of("visits").value == 0
    lone.store.commit(session)
    assert visits.value == lone.store.load(session.cookie).counter_of("visits").value == 4
    visits.add(-5)
    lone.store.commit(session)
    assert lone.store.load(session.cookie).counter_of("visits").value == -1
    assert session.changes() == ()


def test_two_requests_at_once_on_one_node_both_count(lone):
    """Each started from the same record: of two assignments one would be lost."""
    session = begun(lone)
    requests = [lone.store.load(session.cookie) for _ in range(5)]
    for request in requests:
        request.counter_of("visits").add()
    for request in requests:
        assert lone.store.commit(request) == Confirmed(0, 0)
    again = lone.store.load(session.cookie)
    assert again.counter_of("visits").value == 5
    assert len([key for key in again.record.entries if key.startswith(COUNTER)]) == 1, "one node, one entry"


def test_two_nodes_at_once_both_count():
    """The reason why there are counters."""
    here, there = pair()
    session = begun(here)
    meet(here, there)
    for _ in range(3):
        for node in (here, there):
            request = node.store.load(session.id)
            request.counter_of("visits").add(2)
            node.store.commit(request)
    meet(here, there)
    for node in (here, there):
        assert node.store.load(session.id).counter_of("visits").value == 12


def test_clearing_takes_off_what_was_seen_and_nothing_else():
    """A message that came while the inbox was opened elsewhere is still unread; two who open it take it off once."""
    here, there = pair()
    session = begun(here)
    session.counter_of("unread").add(5)
    here.store.commit(session)
    meet(here, there)
    for node, arrives in ((here, 1), (there, 10)):
        opened = node.store.load(session.id)
        during = node.store.load(session.id)
        during.counter_of("unread").add(arrives)
        node.store.commit(during)
        unread = opened.counter_of("unread")
        unread.add(100)
        unread.clear()
        assert unread.value == 0
        unread.add(1000)
        assert unread.value == 1000
        node.store.commit(opened)
        assert node.store.load(session.id).counter_of("unread").value == 1000 + arrives
    meet(here, there)
    for node in (here, there):
        assert node.store.load(session.id).counter_of("unread").value == 2011
        node.waits(0)


def test_an_addition_in_flight_does_not_bring_back_what_was_cleared():
    """The later state of a node's entry contains what was taken off; it must not count again."""
    here, there = pair()
    session = begun(there)
    session.counter_of("n").add(5)
    there.store.commit(session)
    meet(here, there)
    clearing = here.store.load(session.id)
    clearing.counter_of("n").clear()
    here.store.commit(clearing)
    there.now_s += 5  # its entry is the later one
    adding = there.store.load(session.id)
    adding.counter_of("n").add(2)
    there.store.commit(adding)
    meet(here, there)
    assert [node.store.load(session.id).counter_of("n").value for node in (here, there)] == [2, 2]


def test_a_node_whose_copy_lacks_what_it_added_begins_another_entry(lone):
    """It dropped a copy and was given an older one: added to its old total, what it has lost would be gone for all."""
    session = begun(lone)
    table, sid = lone.replica.sessions.table, session.record.sid
    copies = [table.records[sid]]
    for amount in (2, 3):
        session.counter_of("n").add(amount)
        lone.store.commit(session)
        copies.append(table.records[sid])
    for older in copies[:2]:
        table.drop(sid, lone.node.node_id, lone.now_s)
        table.merge(not_covered(older, {}), lone.node.time_ms(), lone.now_s)
        request = lone.store.load(session.id)
        request.counter_of("n").add(10)
        lone.store.commit(request)
        copies.append(table.records[sid])
    for copy in copies:
        table.merge(not_covered(copy, {}), lone.node.time_ms(), lone.now_s)
    assert lone.store.load(session.id).counter_of("n").value == 25


def test_only_the_counters_own_entry_travels(lone):
    """A counter beside a large cart costs a few bytes."""
    session = begun(lone)
    session["cart"] = ["x" * 10_000]
    session.counter_of("n").add()
    lone.store.commit(session)
    before = lone.node.records[session.record.sid]
    request = lone.store.load(session.cookie)
    request.counter_of("n").add()
    lone.store.commit(request)
    delta = changes_since(lone.node.records[session.record.sid], before)
    assert [key[:2] for key, *_ in delta.entries] == [COUNTER]
    assert len(delta.entries[0][3]) == 8


def test_what_comes_to_nothing_is_no_change(lone):
    """Adding and taking off in one request, or clearing what is not there."""
    session = begun(lone)
    session.counter_of("n").add(2)
    session.counter_of("n").add(-2)
    session.counter_of("m").clear()
    assert not session.modified
    assert session.counter_of("n").value == 0


@pytest.mark.parametrize("amount", [1.0, True, "1", None])
def test_a_counter_counts_whole_numbers(lone, amount):
    """A sum of floats depends on the order in which they come."""
    session = begun(lone)
    with pytest.raises(TypeError, match="whole numbers"):
        session.counter_of("n").add(amount)
    assert not session.modified


@pytest.mark.parametrize("sign", [1, -1])
def test_a_counter_stays_within_64_bits(lone, sign):
    """Its entry has eight bytes; a total that came back as another would be a silent loss."""
    session = begun(lone)
    session.counter_of("n").add(sign * TOTAL_MAX)
    lone.store.commit(session)
    session.counter_of("n").add(sign)
    session["theme"] = "dark"
    before = lone.node.records[session.record.sid]
    with pytest.raises(SessionTooLarge, match=r"session.counter_of\('n'\) would leave"):
        lone.store.commit(session)
    assert lone.node.records[session.record.sid] is before
    session.counter_of("n").add(-sign)
    assert lone.store.commit(session) == Confirmed(0, 0)


def test_entries_that_no_node_makes_count_nothing():
    """Of a broken peer, or another version: the counter goes on with what can be read."""
    good = counter_key("n", bytes(16))
    made = record(
        (
            stamp(0),
            ALICE,
            registers()
            | {
                good: pack(">q", 3),
                counter_key("n", b"2" * 16): b"short",
                counter_key("n", b"3" * 16): bytes(9),
                counter_key("n", b"4" * 16): None,
                COUNTER + "z" * 32 + "n": pack(">q", 9),
            },
        )
    )
    assert session_over(made).counter_of("n").value == 3


# Sets


def test_a_set_is_used_as_a_set_is(lone):
    """What the language has is not to be learned anew."""
    session = begun(lone)
    books = session.set_of("books")
    assert isinstance(books, MutableSet)
    books.add(7)
    books |= {("a", 1), date(2026, 1, 2)}
    books.discard("never there")
    assert (7 in books, 8 in books, object() in books, len(books)) == (True, False, False, 3)
    assert books == {7, ("a", 1), date(2026, 1, 2)}
    assert books - {7} == {("a", 1), date(2026, 1, 2)}
    assert type(books | {8}) is set
    lone.store.commit(session)
    again = lone.store.load(session.cookie).set_of("books")
    again.remove(7)
    with pytest.raises(KeyError):
        again.remove(7)
    assert sorted(map(str, again)) == ["('a', 1)", "2026-01-02"]
    again.clear()
    assert (len(again), list(again)) == (0, [])


def test_members_are_the_same_if_they_are_equal_and_of_equal_types(lone):
    """What comes back is what was added."""
    books = begun(lone).set_of("books")
    for member in (1, 1.0, True, "1", b"1", (1,), frozenset({1})):
        books.add(member)
    assert len(books) == 7
    assert sorted(map(repr, books)) == sorted(map(repr, (1, 1.0, True, "1", b"1", (1,), frozenset({1}))))


def test_two_nodes_add_and_discard_members_at_once_and_all_of_it_stays():
    """Two tabs that put two books into one cart."""
    here, there = pair()
    session = begun(here)
    for member in ("a", "b", "c"):
        session.set_of("cart").add(member)
    here.store.commit(session)
    meet(here, there)
    for node, adds, discards in ((here, "d", "a"), (there, "e", "b")):
        request = node.store.load(session.id)
        request.set_of("cart").add(adds)
        request.set_of("cart").discard(discards)
        node.store.commit(request)
    meet(here, there)
    for node in (here, there):
        assert node.store.load(session.id).set_of("cart") == {"c", "d", "e"}


def test_adding_what_is_there_and_discarding_what_is_not_changes_nothing(lone):
    """A request that adds the current page to the pages seen is a read, nearly always."""
    session = begun(lone)
    session.set_of("seen").add(1)
    lone.store.commit(session)
    session.set_of("seen").add(1)
    session.set_of("seen").discard(2)
    session.set_of("seen").add(3)
    session.set_of("seen").discard(3)
    session.set_of("seen").discard(1)
    session.set_of("seen").add(1)
    assert session.changes() == ()


def test_members_that_cannot_be_hashed_or_travel_are_refused(lone):
    """With the path, where they are added."""
    books = begun(lone).set_of("books")
    with pytest.raises(TypeError, match="unhashable"):
        books.add([1])
    with pytest.raises(UnreplicableValue, match=r"session.set_of\('books'\)\[1\]"):
        books.add((1, object()))
    with pytest.raises(SessionTooLarge, match=r"session.set_of\('books'\) takes"):
        books.add("x" * VALUE_BYTES_MAX)
    assert len(books) == 0


def test_members_count_as_keys_and_against_the_size():
    """A set that grew without a bound would be sent whole to every joiner."""
    session = session_with()
    books = session.set_of("books")
    for number in range(KEYS_MAX - len(session.record.entries)):
        books.add(number)
    with pytest.raises(SessionTooLarge, match=r"session.set_of\('books'\): a session has at most 1024 keys"):
        books.add(-1)
    with pytest.raises(SessionTooLarge, match=r"session.counter_of\('n'\): a session has at most 1024 keys"):
        session.counter_of("n").add()
    books.discard(0)
    session["more"] = 1
    fat = session_with().set_of("fat")
    for number in range(SESSION_BYTES_MAX // 100_100):
        fat.add(f"{number}".ljust(100_000))
    with pytest.raises(SessionTooLarge, match=r"session.set_of\('fat'\) would make the session"):
        fat.add("one more".ljust(100_000))


# Both


@pytest.mark.parametrize("make", ["counter_of", "set_of"])
@pytest.mark.parametrize(
    ("name", "error"),
    [(1, UnreplicableValue), ("\ud800", UnreplicableValue), ("x" * (NAME_CHARACTERS_MAX + 1), SessionTooLarge)],
)
def test_a_name_that_cannot_travel_is_refused(make, name, error):
    """At the line that has it."""
    with pytest.raises(error, match=f"session.{make}"):
        getattr(session_with(), make)(name)


@pytest.mark.parametrize("name", ["", "visits", "\0c", "a\0b", "x" * NAME_CHARACTERS_MAX, "00" * 16])
def test_counters_sets_and_keys_of_one_name_are_three_things(lone, name):
    """None of them is seen among the keys, and none is taken for another."""
    session = begun(lone)
    session.counter_of(name).add(3)
    session.set_of(name).add(4)
    if name[:1] != "\0":
        session[name] = 5
    session.counter_of(name + "x" if len(name) < 5 else "x").add(100)
    lone.store.commit(session)
    again = lone.store.load(session.cookie)
    assert again.counter_of(name).value == 3
    assert again.set_of(name) == {4}
    expected = {"user": "kim"} | ({name: 5} if name[:1] != "\0" else {})
    assert dict(again) == expected
    assert (len(again), sorted(again)) == (len(expected), sorted(expected))
    for key in again.record.entries:
        assert key in expected or (key not in again and again.get(key) is None)


def test_they_are_content_of_a_session(lone):
    """A visitor without a login who has looked at books is no empty session, which would end."""
    session = lone.store.create()
    assert session.is_empty
    session.counter_of("n").add()
    assert not session.is_empty
    lone.store.commit(session)
    assert CREATED in session.record.entries
    session.counter_of("n").add(-1)
    assert session.is_empty
    session.set_of("s").add(1)
    assert not session.is_empty
    lone.store.commit(session)
    assert not lone.store.load(session.cookie).is_empty
    session.set_of("s").discard(1)
    assert session.is_empty


def test_a_saved_session_ends_when_nothing_is_left_of_them_either():
    """What an adapter asks of a session from which everything was deleted."""
    here = Clocked(session_class=WebSession, confirm=0).alone()
    session = here.store.create()
    session.counter_of("n").add()
    session.set_of("s").add(1)
    assert not save(here.store, session, "gsid", None).ended
    session["user_id"] = 1
    del session["user_id"]
    session["theme"] = "dark"
    save(here.store, session, "gsid", None)
    del session["theme"]
    assert not save(here.store, session, "gsid", None).ended, "the counter and the set are still there"
    session.set_of("s").discard(1)
    assert not save(here.store, session, "gsid", None).ended
    session.counter_of("n").add(-1)
    assert save(here.store, session, "gsid", None).ended
    assert here.store.load(session.id) is None


def test_clearing_a_session_clears_them(lone):
    """`session.clear()` is how applications log a user out."""
    session = begun(lone)
    session.counter_of("n").add()
    session.set_of("s").add(1)
    lone.store.commit(session)
    session.counter_of("m").add()
    session.set_of("s").add(2)
    session.clear()
    assert session.is_empty
    assert (session.counter_of("n").value, session.counter_of("m").value, len(session.set_of("s"))) == (0, 0, 0)
    lone.store.commit(session)
    assert lone.store.load(session.cookie).is_empty


def test_they_move_with_a_rotation_and_what_this_request_does_to_them_too(lone):
    """A login changes the id, and keeps the cart."""
    session = begun(lone)
    session.counter_of("n").add(5)
    session.counter_of("cleared").add(5)
    session.set_of("s").add("a")
    lone.store.commit(session)
    other = lone.store.load(session.cookie)
    other.counter_of("n").add(2)
    other.counter_of("cleared").add(2)
    lone.store.commit(other)
    session.counter_of("n").add(1)
    session.counter_of("new").add(1)
    session.counter_of("cleared").clear()
    session.set_of("s").add("b")
    session.set_of("s").discard("a")
    lone.store.rotate(session)
    for seen in (session, lone.store.load(session.cookie)):
        values = [seen.counter_of(name).value for name in ("n", "cleared", "new")]
        assert (values, set(seen.set_of("s"))) == ([8, 2, 1], {"b"})
    session.counter_of("n").add(1)
    lone.store.commit(session)
    assert lone.store.load(session.cookie).counter_of("n").value == 9


def test_a_rotation_makes_one_entry_of_a_counter_and_none_of_one_at_0():
    """Every node that ever added has one, and a session may outlive many of them."""
    here, there = pair()
    session = begun(here)
    meet(here, there)
    for node in (here, there):
        request = node.store.load(session.id)
        request.counter_of("n").add(2)
        request.counter_of("zero").add(1 if node is here else -1)
        node.store.commit(request)
    meet(here, there)
    request = here.store.load(session.id)
    here.store.rotate(request)
    assert [key[34:] for key in request.record.entries if key.startswith(COUNTER)] == ["n"]
    assert request.counter_of("n").value == 4


def test_they_end_with_the_session(lone):
    """Nothing of the last user is counted on."""
    session = begun(lone)
    session.counter_of("n").add()
    late = lone.store.load(session.cookie)
    late.counter_of("n").add()
    lone.store.invalidate(session)
    assert session.counter_of("n").value == 0
    assert lone.store.commit(late) == Gone()
    assert lone.node.records[session.record.sid].entries == {}


def test_after_a_commit_others_additions_are_seen_and_own_ones_counted_once(lone):
    """A websocket commits often with one session."""
    session = begun(lone)
    for expected in (11, 22, 33):
        other = lone.store.load(session.cookie)
        other.counter_of("n").add(10)
        lone.store.commit(other)
        session.counter_of("n").add()
        lone.store.commit(session)
        assert session.counter_of("n").value == expected


def test_use_of_them_is_noted_and_changes_of_a_stand_in_are_refused():
    """They are no way around what a session that cannot be had refuses."""
    session = WebSession("0" * 32, empty_record(SID), created_at=0.0, accessed_at=0.0)
    assert session.counter_of("n").value == 0
    assert session.accessed
    session.unavailable = True
    for change in (
        lambda: session.counter_of("n").add(),
        lambda: session.counter_of("n").clear(),
        lambda: session.set_of("s").add(1),
        lambda: session.set_of("s").discard(1),
        lambda: session.set_of("s").clear(),
    ):
        with pytest.raises(Exception, match="cannot be known just now"):
            change()


def test_they_show_their_names_only():
    """A repr ends up in logs."""
    session = session_with()
    session.set_of("s").add("secret")
    session.counter_of("n").add(4711)
    assert repr(session.set_of("s")) == "<SessionSet 's'>"
    assert repr(session.counter_of("n")) == "<SessionCounter 'n'>"
    assert "secret" not in repr(session)


def test_counters_count_among_the_keys_of_a_session(lone):
    """One for each page that a visitor comes to, say: each costs every holder, also where its name is short."""
    session = lone.store.create()
    session["k"] = 1
    for number in range(KEYS_MAX - 1):
        session.counter_of(f"c{number}").add()
    with pytest.raises(SessionTooLarge, match=r"session.counter_of\('more'\)"):
        session.counter_of("more").add()
    with pytest.raises(SessionTooLarge, match="at most 1024 keys"):
        session["more"] = 1
    session.counter_of("c0").add()
    lone.store.commit(session, 0)
    with pytest.raises(SessionTooLarge, match="at most 1024 keys"):
        session.counter_of("more").add()
