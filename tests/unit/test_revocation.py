"""Ending all sessions of a user: on the node that is asked, on those that hear of it, and on those that hear late."""

import pytest

from gossipsess import Confirmed, Degraded, Gone, Revoked
from gossipsess.errors import SessionTooLarge, UnreplicableValue
from gossipsess.model.delta import not_covered
from gossipsess.model.identity import ENTROPY_BYTES, session_id, sid_of
from gossipsess.model.record import USER, Entry, dead_record
from gossipsess.model.revocation import is_user_sid, login_of, rotated_value, user_of, user_sid, user_value
from gossipsess.model.table import TOMBSTONE_MS, Table
from gossipsess.protocol.effects import Notify
from gossipsess.protocol.events import Fetch, LinkClosed, Watch
from gossipsess.protocol.outcomes import Found
from gossipsess.status import snapshot
from gossipsess.wire.messages import Push
from tests.unit.machines import ALICE, BOB, EPOCH_MS, SID, Clocked, exchange, record, registers, stamp

KIM = user_sid("kim")
OTHER = b"another-16-bytes"


def login(here: Clocked, user: str = "kim"):
    """Return a stored session in which somebody logged in."""
    session = here.store.create()
    session.user = user
    here.store.commit(session, 0)
    return session


def pair() -> tuple[Clocked, Clocked]:
    here, there = Clocked(ALICE).alone().linked(BOB), Clocked(BOB).alone().linked(ALICE)
    exchange(here, there)
    return here, there


def apart(here: Clocked, there: Clocked) -> None:
    """Break the link; both go on taking each other for alive."""
    for one in (here, there):
        one.node.submit(LinkClosed(1))
        one.does()


def again(here: Clocked, there: Clocked) -> None:
    """Let a new link come up, and both say all they have to say."""
    here.linked(BOB, 2)
    there.linked(ALICE, 2)
    exchange(here, there, 2)
    for one in (here, there):
        one.waits(0.1)
    exchange(here, there, 2)


def same(here: Clocked, there: Clocked) -> bool:
    """Say whether two nodes hold equal states."""
    return {sid: one.state_hash for sid, one in here.node.records.items()} == {
        sid: one.state_hash for sid, one in there.node.records.items()
    }


# --- the register -----------------------------------------------------------------------------------------


def test_whose_a_session_is_is_text_that_can_be_read_changed_and_taken_back():
    """An admin page lists devices by it."""
    here = Clocked().alone()
    session = login(here)
    again = here.store.load(session.cookie)
    assert (again.user, dict(again), len(again)) == ("kim", {}, 0)
    again.user = "lee"
    assert (again.user, again.modified) == ("lee", True)
    again.user = "kim"
    assert not again.modified, "the user that it has already is no change"
    again.user = None
    here.store.commit(again)
    assert here.store.load(session.cookie).user is None


@pytest.mark.parametrize(
    ("user", "error"), [(42, UnreplicableValue), ("", UnreplicableValue), ("\ud800", UnreplicableValue)]
)
def test_what_cannot_name_a_user_is_refused_where_it_is_assigned_and_where_it_is_revoked(user, error):
    """A number and its text would be two users, and a revocation of the one would miss the other."""
    here = Clocked().alone()
    session = here.store.create()
    with pytest.raises(error, match="user"):
        session.user = user
    with pytest.raises(error, match="user"):
        here.store.revoke(user)
    assert not session.modified


def test_a_users_name_is_bounded():
    """It travels with every copy of the session."""
    session = Clocked().store.create()
    session.user = "k" * 256
    with pytest.raises(SessionTooLarge, match="256"):
        session.user = "k" * 257


def test_no_session_has_the_sid_of_a_user():
    """Whoever makes an id of a user's name must not read the revocation, or end it, by a cookie."""
    assert is_user_sid(KIM)
    assert len(KIM) == len(SID)
    assert sid_of("kim") != KIM
    assert not is_user_sid(sid_of(session_id(bytes(ENTROPY_BYTES))))


@pytest.mark.parametrize("value", [b"", b"\1", bytes(8), bytes(9), b"\xff" * 8, b"\xff" * 300, bytes(7)])
def test_a_register_that_no_honest_node_wrote_is_read_as_a_login_not_later_than_its_entry(value):
    """A stamp of the future would be a login that no revocation reaches, and 0 a tombstone that is none."""
    read = login_of(Entry(stamp(5), ALICE, value, 0))
    assert 0 < read.stamp <= stamp(5)
    assert login_of(Entry(0, ALICE, value, 0)).stamp == 1
    assert isinstance(user_of(Entry(0, ALICE, value, 0)), str | None)


def test_a_rotation_keeps_when_the_login_was():
    """It writes every entry anew; a login must not grow younger by it, however often it happens."""
    first = Entry(stamp(1), ALICE, user_value("kim"), 0)
    second = Entry(stamp(2), BOB, rotated_value(USER, first), 0)
    third = Entry(stamp(3), ALICE, rotated_value(USER, second), 0)
    assert [login_of(entry) for entry in (first, second, third)] == [(KIM, stamp(1))] * 3
    assert user_of(third) == "kim"


# --- on one node ------------------------------------------------------------------------------------------


def test_a_revocation_ends_the_users_sessions_and_no_others():
    """The stolen laptop's, and not the colleague's."""
    here = Clocked().alone()
    kims, lees, nobodys = [login(here), login(here)], login(here, "lee"), here.store.create()
    nobodys["cart"] = ["book"]
    here.store.commit(nobodys)
    assert here.store.revoke("kim") == Revoked(2, Confirmed(0, 0))
    assert [here.store.load(session.cookie) for session in kims] == [None, None]
    assert here.store.load(lees.cookie).user == "lee"
    assert here.store.load(nobodys.cookie) is not None
    kims[0]["late"] = 1
    assert here.store.commit(kims[0]) == Gone()
    assert here.store.revoke("kim") == Revoked(0, Confirmed(0, 0))


def test_a_login_after_the_revocation_lives():
    """Otherwise the user would be locked out for a day."""
    here = Clocked().alone()
    here.store.revoke("kim")
    session = login(here)
    assert here.store.load(session.cookie).user == "kim"
    assert here.store.revoke("kim").sessions == 1


def test_whose_a_session_is_no_more_does_not_end_it():
    """Logged out and shopping on, or handed over to somebody else."""
    here = Clocked().alone()
    left, given = login(here), login(here)
    left.user, given.user = None, "lee"
    left["cart"] = 1
    here.store.commit(left)
    here.store.commit(given)
    assert here.store.revoke("kim").sessions == 0
    assert here.store.load(given.cookie).user == "lee"
    assert here.store.revoke("lee").sessions == 1


def test_a_rotated_session_ends_too_and_its_old_id_is_not_counted():
    """Each login rotates."""
    here = Clocked().alone()
    session = login(here)
    here.now_s += 1
    here.store.rotate(session)
    assert session.user == "kim"
    assert here.store.revoke("kim").sessions == 1
    assert here.store.load(session.cookie) is None


def test_a_session_that_expired_is_the_users_no_more():
    """The index would grow for as long as the process lives."""
    table = Table()
    table.write(SID, [*registers(idle_ms=1000).items(), (USER, user_value("kim"))], stamp(0), ALICE, 0.0)
    assert table._owners.sessions_of(KIM) == [SID]
    assert len(list(table.expired(EPOCH_MS + 10_000, 10.0))) == 1
    assert table._owners.sessions_of(KIM) == []
    assert table._owners._sessions == {}


def test_a_revocation_is_no_session_in_counts_and_is_kept_as_long_as_a_logout():
    """An operator counts sessions; and who was cut off for hours must still hear of it."""
    here = Clocked().alone()
    login(here)
    here.node.submit(Watch(on=True))
    here.store.revoke("kim")
    assert snapshot(here.node).sessions == 1, "the tombstone of the session"
    assert [(effect.kind, effect.remote) for effect in here.does() if isinstance(effect, Notify)] == [
        ("invalidated", False)
    ]
    table = here.replica.sessions.table
    revoked_ms = here.node.records[KIM].tombstone >> 16
    list(table.expired(revoked_ms + TOMBSTONE_MS - 1, here.now_s))
    assert KIM in table.records
    list(table.expired(revoked_ms + TOMBSTONE_MS, here.now_s))
    assert (table.records, table.revocations) == ({}, 0)


# --- between nodes ----------------------------------------------------------------------------------------


def test_sessions_that_only_another_node_holds_end_there_and_its_subscribers_hear_of_each():
    """Whoever presses the button is served by any node."""
    here, there = pair()
    apart(here, there)
    sessions = [login(there), login(there)]
    here.now_s += 1
    there.now_s += 1
    assert here.store.revoke("kim", 0).sessions == 0
    there.node.submit(Watch(on=True))
    there.linked(ALICE, 2)
    there.does()
    there.hears(Push(1, (not_covered(here.node.records[KIM], {}),)), 2)
    heard = [effect for effect in there.does() if isinstance(effect, Notify)]
    assert heard == [Notify("invalidated", sid_of(session.id), True) for session in sessions]
    assert [there.store.load(session.cookie) for session in sessions] == [None, None]


def test_confirmed_means_that_the_others_have_ended_theirs():
    """The page that says done must not be wrong."""
    here, there = pair()
    session = login(there)
    there.waits(0.1)
    exchange(here, there)
    future = here.store.revoke("kim")
    assert not future.done()
    here.waits(0.0)
    exchange(here, there)
    assert future.result(0) == Revoked(1, Confirmed(1, 1))
    assert there.store.load(session.cookie) is None
    assert same(here, there)


def test_a_node_that_does_not_answer_makes_it_degraded_and_it_counts_all_the_same():
    """The request ends in time; the node hears of it when it is back."""
    here, there = pair()
    session = login(there)
    there.waits(0.1)
    exchange(here, there)
    apart(here, there)
    future = here.store.revoke("kim")
    here.waits(0.25)
    here.does()
    assert future.result(0) == Revoked(1, Degraded(0, 0))
    assert there.store.load(session.cookie) is not None
    again(here, there)
    assert there.store.load(session.cookie) is None
    assert same(here, there)


def test_requests_that_wait_for_a_session_of_the_user_hear_at_once_that_it_is_gone():
    """They would hang until their bound, and the one that writes would set cookies of a dead id."""
    here = Clocked(ALICE).alone().linked(BOB)
    session = login(here)
    session["cart"] = 1
    writes = here.store.commit(session, 1)
    found = []
    here.node.submit(Fetch(sid_of(session.id), ((BOB, stamp(9)),), found.append))
    here.does()
    here.hears(Push(1, (not_covered(dead_record(KIM, stamp(1000)), {}),)))
    here.does()
    assert writes.result(0) == Gone()
    assert found == [Found.FRESH], "what it waits for would not bring the session back"


def test_two_revocations_at_once_are_both_confirmed_and_leave_the_same():
    """Two admins, two nodes; neither may hear that the sessions were gone, or wait in vain."""
    here, there = pair()
    session = login(here)
    here.waits(0.1)
    exchange(here, there)
    one, other = here.store.revoke("kim"), there.store.revoke("kim")
    here.waits(0.0)
    there.waits(0.0)
    exchange(here, there)
    assert one.result(0) == other.result(0) == Revoked(1, Confirmed(1, 1))
    assert same(here, there)
    assert here.store.load(session.cookie) is None


def test_a_session_rotated_by_a_node_that_had_not_heard_of_it_does_not_escape():
    """Its entries are newer than the revocation, and its login is not."""
    here, there = pair()
    session = login(there)
    there.waits(0.1)
    exchange(here, there)
    apart(here, there)
    here.store.revoke("kim", 0)
    there.now_s += 5
    there.store.rotate(session, 0)
    assert there.node.records[sid_of(session.id)].newest > here.node.records[KIM].tombstone
    again(here, there)
    assert there.store.load(session.cookie) is None
    assert same(here, there)


def test_nodes_that_end_a_session_after_different_revocations_hold_the_same_without_a_message():
    """Else each would send its tombstone to all others, for every session of the user."""
    old = record((stamp(0), ALICE, {**registers(), USER: user_value("kim")}))
    tables = []
    for revoked_ms in (10, 20):
        table = Table()
        table.merge(not_covered(old, {}), EPOCH_MS, 0.0)
        table.kill(KIM, stamp(revoked_ms), 0.0)
        table.end_sessions_of(KIM, 0.0)
        tables.append(table)
    late = Table()
    late.kill(KIM, stamp(30), 0.0)
    applied = late.merge(not_covered(old, {}), EPOCH_MS, 0.0)
    assert applied.absorbed, "the sender is told, should it not know"
    assert {table.records[SID].state_hash for table in (*tables, late)} == {late.records[SID].state_hash}
    assert late.records[SID].tombstone


def test_a_login_that_is_heard_of_after_a_revocation_which_it_followed_lives():
    """Messages overtake each other."""
    table = Table()
    table.kill(KIM, stamp(10), 0.0)
    before = record((stamp(10), ALICE, {**registers(), USER: user_value("kim")}))
    after = record((stamp(10, 1), ALICE, {**registers(), USER: user_value("kim")}), sid=OTHER)
    assert table.merge(not_covered(before, {}), EPOCH_MS, 0.0).record.tombstone
    assert not table.merge(not_covered(after, {}), EPOCH_MS, 0.0).record.tombstone
    assert table._owners.sessions_of(KIM) == [OTHER]
