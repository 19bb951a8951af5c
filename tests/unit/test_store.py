"""The store on a lone node, with the clock in the test's hand; and what it remembers of ids nobody made."""

import gc
import tracemalloc
from concurrent.futures import Future
from weakref import ref

import pytest

from gossipsess import Confirmed, Degraded, Gone, SessionUnavailable
from gossipsess.errors import SessionTooLarge
from gossipsess.model.identity import is_session_id, sid_of
from gossipsess.model.member import Told
from gossipsess.model.table import TOMBSTONE_MS
from gossipsess.protocol.events import Abandon, Drain, Tick
from gossipsess.service import lone_node
from gossipsess.store import ABSENT_FOR_S, ABSENT_MAX, NAMED_MAX, SessionStore
from gossipsess.tokens import TOKEN_AGE_MS, TOKEN_CHARACTERS_MAX
from gossipsess.wire.messages import Members, Pull, PullAnswer
from tests.unit.machines import ALICE, BOB, EPOCH_MS, Clocked, exchange, member, stamp

FOREIGN = "f" * 32
TICK = Tick()


@pytest.fixture
def lone() -> Clocked:
    """A lone node whose sessions idle for a minute and live for an hour."""
    return Clocked(idle_timeout_s=60, absolute_timeout_s=3600).alone()


def stored(here: Clocked, **values):
    session = here.store.create()
    session.update(values)
    assert here.store.commit(session) == Confirmed(0, 0)
    return session


def test_what_is_committed_is_loaded(lone):
    """At once, and without waiting for anybody."""
    session = stored(lone, user="kim")
    again = lone.store.load(session.cookie)
    assert dict(again) == {"user": "kim"}
    assert (again.created_at, again.is_new, again.stale) == (EPOCH_MS / 1000, False, False)
    assert again.id == session.id
    assert again.token == session.token


def test_nothing_is_stored_for_a_session_that_nobody_wrote(lone):
    """Crawlers make a session with every request."""
    session = lone.store.create()
    assert lone.store.commit(session) == Confirmed(0, 0)
    assert lone.store.load(session.id) is None
    assert lone.node.records == {}


def test_every_id_is_made_here_and_no_two_are_the_same(lone):
    """165 random bits; only their hash is stored."""
    ids = {lone.store.create().id for _ in range(1000)}
    assert len(ids) == 1000
    assert all(is_session_id(name) for name in ids)
    session = stored(lone, user="kim")
    assert list(lone.node.records) == [sid_of(session.id)]


@pytest.mark.parametrize(
    "cookie", ["", ".", "x", FOREIGN, FOREIGN + ".", FOREIGN.upper(), FOREIGN + "0", "é" * 32, FOREIGN + ".token", "\0"]
)
def test_a_foreign_id_is_never_adopted(lone, cookie):
    """A cookie that an attacker has planted must not become the victim's session."""
    assert lone.store.load(cookie) is None
    assert lone.node.records == {}


def test_a_rotation_moves_the_data_and_ends_the_old_id(lone):
    """Whoever knew the id before the login knows nothing after it."""
    session = stored(lone, user="kim", cart=["book"])
    old, created_at = session.cookie, lone.store.load(session.cookie).created_at
    lone.now_s += 10
    session["role"] = "admin"
    del session["cart"]
    assert lone.store.rotate(session) == Confirmed(0, 0)
    assert session.id != old
    assert lone.store.load(old) is None
    again = lone.store.load(session.cookie)
    assert dict(again) == {"user": "kim", "role": "admin"}
    assert again.created_at == created_at, "the absolute timeout counts from the first beginning"


def test_the_rotation_of_a_session_that_was_never_stored_only_changes_its_id(lone):
    """A login as the first thing in a session."""
    session = lone.store.create()
    session["user"] = "kim"
    old = session.id
    assert lone.store.rotate(session) == Confirmed(0, 0)
    assert session.id != old
    assert lone.store.commit(session) == Confirmed(0, 0)
    assert dict(lone.store.load(session.cookie)) == {"user": "kim"}


def test_an_invalidated_session_is_gone_for_loads_and_for_late_writes(lone):
    """Logged out stays logged out, also for the request that was still running."""
    cookie = stored(lone, user="kim").cookie
    session, slow = lone.store.load(cookie), lone.store.load(cookie)
    assert lone.store.invalidate(session) == Confirmed(0, 0)
    assert (dict(session), session.created_at) == ({}, EPOCH_MS / 1000)
    assert lone.store.load(slow.cookie) is None
    slow["cart"] = ["book"]
    assert lone.store.commit(slow) == Gone()
    assert lone.store.rotate(slow) == Gone()
    session["cart"] = ["book"]
    assert lone.store.commit(session) == Gone()
    assert lone.store.load(slow.id) is None


def test_an_idle_session_ends(lone):
    """After a minute, and the five seconds by which accesses are coarse."""
    session = stored(lone, user="kim")
    lone.now_s += 64.9
    assert session.record.sid in lone.node.records
    lone.now_s += 0.2
    assert lone.store.load(session.cookie) is None


def test_a_session_in_use_goes_on_and_ends_after_its_last_use(lone):
    """A read is a use, as coarse as five seconds."""
    session = stored(lone, user="kim")
    for _ in range(10):
        lone.now_s += 60
        assert lone.store.load(session.cookie) is not None
    assert lone.store.load(session.cookie).accessed_at == EPOCH_MS / 1000 + 600
    lone.now_s += 66
    assert lone.store.load(session.cookie) is None


def test_a_session_in_use_ends_at_its_absolute_timeout(lone):
    """However busy it is."""
    session = stored(lone, user="kim")
    for _ in range(59):
        lone.now_s += 60
        assert lone.store.load(session.cookie) is not None
    lone.now_s += 60
    assert lone.store.load(session.cookie) is None


def test_a_write_to_a_session_that_expired_and_was_dropped_is_gone(lone):
    """Without its registers it would be a session that nobody can end."""
    session = stored(lone, user="kim")
    lone.now_s += 100
    table = lone.replica.sessions.table
    assert [one.sid for one in table.expired(lone.node.time_ms(), lone.now_s)] == [session.record.sid]
    session["cart"] = ["book"]
    assert lone.store.commit(session) == Gone()
    assert lone.node.records == {}


def test_a_node_that_has_not_met_the_others_yet_calls_nothing_absent():
    """In its first two seconds it knows nothing; a cleared cookie would be a logout."""
    with pytest.raises(SessionUnavailable, match="Keep the cookie"):
        Clocked().store.load(FOREIGN)


def asked(here: Clocked) -> list[Pull]:
    return [message for message in here.says() if isinstance(message, Pull) and message.request]


def test_a_session_that_is_over_here_is_asked_for_where_a_later_access_may_be_known():
    """A machine that was suspended has heard of none; by its own time alone it would log a busy user out."""
    here, there = (Clocked(node, idle_timeout_s=60).alone() for node in (ALICE, BOB))
    here.linked(BOB)
    there.linked(ALICE)
    session = here.store.create()
    session["user"] = "kim"
    here.store.commit(session)
    here.node.submit(TICK)
    exchange(here, there)
    there.now_s += 50
    there.store.load(session.cookie)
    there.now_s = here.now_s = here.now_s + 80
    assert session.record.sid in here.node.records, "over, but not dropped yet"
    waiting = here.store.load(session.cookie)
    assert isinstance(waiting, Future)
    exchange(here, there)
    again = waiting.result(0)
    assert dict(again) == {"user": "kim"}
    assert (again.stale, again.accessed_at) == (False, EPOCH_MS / 1000 + 50)


@pytest.mark.parametrize("seconds", [0, TOMBSTONE_MS / 1000 + 1], ids=["fresh", "over itself, but not dropped yet"])
def test_an_ended_session_is_absent_at_once_and_nobody_is_asked(seconds):
    """No later access of it can be known anywhere."""
    here = Clocked().alone()
    session = stored(here, user="kim")
    cookie = session.cookie
    here.store.invalidate(session)
    here.linked(BOB)
    here.says()
    here.now_s += seconds
    assert here.store.load(cookie) is None
    assert asked(here) == []


def test_an_id_that_nobody_knows_is_not_asked_for_again_for_a_while():
    """A client with a dead cookie would otherwise cost a question to every node with each request."""
    here = Clocked().linked(BOB)
    here.says()
    waiting = here.store.load(FOREIGN)
    assert isinstance(waiting, Future)
    (pull,) = asked(here)
    here.hears(PullAnswer(pull.request, held=False, synced=True))
    here.does()
    assert waiting.result(0) is None
    here.now_s += ABSENT_FOR_S - 0.1
    assert here.store.load(FOREIGN) is None
    assert asked(here) == []
    here.now_s += 0.2
    assert isinstance(here.store.load(FOREIGN), Future)
    assert len(asked(here)) == 1


def test_what_is_unknown_is_asked_for_again_at_once():
    """Only a sure answer is remembered."""
    here = Clocked().linked(BOB)
    here.says()
    waiting = here.store.load(FOREIGN)
    (pull,) = asked(here)
    here.hears(PullAnswer(pull.request, held=False, synced=False))
    here.now_s += 0.2
    here.node.submit(TICK)
    here.does()
    with pytest.raises(SessionUnavailable):
        waiting.result(0)
    assert isinstance(here.store.load(FOREIGN), Future)


def test_ids_that_nobody_made_are_remembered_up_to_a_bound(lone):
    """Anybody can send any number of them."""
    for number in range(ABSENT_MAX + 10):
        assert lone.store.load(f"{number:032d}") is None
    assert len(lone.store._absent) == ABSENT_MAX
    assert sid_of("0" * 32) not in lone.store._absent, "the oldest go first"


def test_what_is_remembered_of_cookies_has_a_bound(lone):
    """A client chooses what follows the id, and how much of it."""
    session = stored(lone, user="kim")
    tracemalloc.start()
    try:
        for number in range(2 * NAMED_MAX):
            assert dict(lone.store.load(f"{session.id}.{number:020000}")) == {"user": "kim"}
            assert dict(lone.store.load(f"{session.id}.{number:0{TOKEN_CHARACTERS_MAX}}")) == {"user": "kim"}
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1_000_000


def test_a_token_made_here_comes_to_what_it_says_and_for_its_session_only(lone):
    """What it comes to is noted when it is made. Shown with another id it proves nothing, here as on any node."""
    one, other = stored(lone, user="kim"), stored(lone, user="ada")
    fresh = SessionStore(lone.node, lone.store._tokens)
    assert written_of(lone.store, one.id, one.token) != ()
    for session_id, token in [(one.id, other.token), (one.id, one.token), (one.id, one.token), (other.id, one.token)]:
        assert written_of(lone.store, session_id, token) == written_of(fresh, session_id, token)
    assert written_of(lone.store, one.id, other.token) == ()
    assert lone.store.rotate(other) == Confirmed(0, 0)
    assert written_of(lone.store, other.id, other.token) == written_of(fresh, other.id, other.token) != ()
    assert dict(lone.store.load(other.cookie)) == {"user": "ada"}


def written_of(store, session_id, token):
    """The writes that a token proves for an id."""
    return store._named_untrusted(session_id, token).dots


def test_tokens_that_are_never_shown_are_noted_up_to_a_bound(lone):
    """Where a balancer sends each request elsewhere, most are shown on another node."""
    for _ in range(NAMED_MAX + 10):
        stored(lone, n=0)
    assert 0 < len(lone.store._named) <= NAMED_MAX


def test_a_limit_that_a_request_shortens_counts_at_once(lone):
    """What is remembered of its session is from before."""
    session = stored(lone, user="kim")
    shortened = lone.store.held(session.id, session.token)
    shortened.limit(idle_s=1)
    lone.store.commit(shortened)
    assert lone.store.held(shortened.id, shortened.token) is not None
    lone.now_s += 2
    assert lone.store.held(shortened.id, shortened.token) is None


def test_a_write_does_not_hide_a_limit_that_was_shortened_elsewhere(lone):
    """A request that began on another worker's store, say: what was remembered here is from before."""
    session = stored(lone, user="kim")
    assert lone.store.held(session.id, session.token) is not None
    elsewhere = SessionStore(lone.node, lone.store._tokens)
    shortened = elsewhere.held(session.id, session.token)
    shortened.limit(idle_s=1)
    elsewhere.commit(shortened)
    written = elsewhere.held(shortened.id, shortened.token)
    written["theme"] = "dark"
    lone.store.commit(written)
    assert lone.store.held(written.id, written.token) is not None
    lone.now_s += 2
    assert lone.store.held(written.id, written.token) is None


def test_a_store_that_nobody_uses_is_freed_at_once():
    """With it goes a whole node's memory, and a test suite may make one for each test."""
    gc.collect()
    gc.disable()
    try:
        store = ref(lone_node().store)
        assert store() is None
    finally:
        gc.enable()


def test_a_load_that_misses_writes_nobody_can_find_is_stale_and_keeps_asking_for_them():
    """The client is served, with what there is; its next request still names what it has seen."""
    here, there = Clocked().alone(), Clocked(BOB).alone()
    session = stored(there, user="kim")
    here.replica.sessions.table.records[session.record.sid] = session.record
    cookie = session.cookie
    session["cart"] = ["book"]
    there.store.commit(session)
    ahead = session.cookie
    again = here.store.load(ahead)
    assert not here.store.load(cookie).stale, "a request of the same visitor, from before"
    assert again.stale
    assert "cart" not in again
    again["theme"] = "dark"
    here.store.commit(again)
    assert here.store.load(again.cookie).stale, "the token still names the write that was missed"
    assert there.store._tokens.read_untrusted(session.record.sid, again.token)[0][0] == BOB


def test_a_token_that_is_remembered_grows_too_old_all_the_same():
    """Who comes back after minutes to a session that is over is to begin another, and not to be told to try again."""
    here = Clocked().alone()
    session = stored(here, user="kim")
    sids = session.record.sid, sid_of(FOREIGN)
    of_held, of_none = [here.store._tokens.make(sid, ((BOB, stamp(0)),)) for sid in sids]  # nobody can find that write
    assert here.store.held(session.id, of_held) is None
    with pytest.raises(SessionUnavailable):
        here.store.load_named(FOREIGN, of_none)
    here.now_s += TOKEN_AGE_MS / 1000
    found = here.store.held(session.id, of_held)
    assert (found.token, found.stale) == ("", False)
    assert here.store.load_named(FOREIGN, of_none) is None


def test_a_token_that_was_proven_grows_too_old_all_the_same(lone):
    """A copy that it proves is served for longer without asking a holder, to whom the session may have ended."""
    session = stored(lone, user="kim")
    session.limit(idle_s=3600)  # an access is noted once a minute
    lone.store.commit(session)
    cookie = session.id, session.token
    tokens = []
    for seconds in (560, 39, 2):
        lone.now_s += seconds
        tokens.append(lone.store.held(*cookie).token)
    assert tokens == [session.token, session.token, ""]


def test_a_commit_that_nobody_confirms_in_time_is_degraded_and_stands():
    """Never rolled back: the user may have seen it succeed."""
    here = Clocked().alone().linked(BOB)
    session = here.store.create()
    session["user"] = "kim"
    waiting = here.store.commit(session, 1)
    assert isinstance(waiting, Future)
    here.now_s += 0.3
    here.node.submit(TICK)
    here.does()
    assert waiting.result(0) == Degraded(0, 0)
    assert dict(here.store.load(session.cookie)) == {"user": "kim"}


def test_a_rotation_of_a_stale_session_gives_a_token_that_names_nothing_missing(lone):
    """What was missed was a write to the old id: no write of the new one, and not to be waited for ever after."""
    session = stored(lone, user="kim")
    sid = session.record.sid
    missed = lone.store._tokens.make(sid, ((BOB, EPOCH_MS << 16), (lone.node.node_id, session.record.newest)))
    stale = lone.store.load(f"{session.id}.{missed}")
    assert stale.stale
    lone.store.rotate(stale)
    assert stale.stale, "what it shows still lacks that write"
    again = lone.store.load(stale.cookie)
    assert not again.stale
    again["theme"] = "dark"
    lone.store.commit(again)
    assert not lone.store.load(again.cookie).stale


@pytest.mark.parametrize("end", ["commit", "rotate"])
def test_parallel_requests_do_not_grow_a_session_past_its_bound_together(lone, end):
    """Each had room for its own when it assigned. The second is told, and neither it nor the session is lost."""
    session = stored(lone, user="kim")
    first, second = lone.store.load(session.cookie), lone.store.load(session.cookie)
    for number in range(3):
        first[f"first{number}"] = second[f"second{number}"] = "x" * 200_000
    lone.store.commit(first)
    with pytest.raises(SessionTooLarge, match="meanwhile"):
        getattr(lone.store, end)(second)
    again = lone.store.load(session.cookie)
    assert set(again) == {"user", "first0", "first1", "first2"}
    del second["second0"], second["second1"]
    assert lone.store.commit(second) == Confirmed(0, 0)


def test_a_session_that_is_only_read_is_alive_at_a_node_that_joins_later():
    """The joiner pulls the record; the accesses that kept it alive are no part of that."""
    here = Clocked(idle_timeout_s=60).alone()
    session = stored(here, user="kim")
    for _ in range(10):
        here.waits(30)
        assert here.store.load(session.cookie) is not None
    there = Clocked(BOB)
    there.now_s = here.now_s
    here.linked(BOB)
    there.linked(here.node.node_id)
    exchange(here, there)
    again = there.store.load(session.cookie)
    assert dict(again) == {"user": "kim"}
    assert again.accessed_at == EPOCH_MS / 1000 + 300


def test_after_the_drivers_end_nothing_is_confirmed_and_nothing_absent():
    """The others live on, and cannot be told or asked any more: neither may look like a node that is alone."""
    here = Clocked().alone().linked(BOB)
    held = here.store.create()
    held["user"] = "kim"
    waiting = here.store.commit(held)
    here.node.submit(Abandon())
    here.does()
    assert waiting.result(0) == Degraded(0, 0)
    assert here.store.commit(held, 0) == Confirmed(0, 0), "nothing changed"
    held["cart"] = ["book"]
    assert here.store.commit(held) == Degraded(0, 0)
    again = here.store.load(held.cookie)
    assert dict(again) == {"user": "kim", "cart": ["book"]}
    assert again.stale, "who has ended it since cannot tell"
    with pytest.raises(SessionUnavailable):
        here.store.load(FOREIGN)
    assert stored_alone_and_abandoned() == Confirmed(0, 0)


def stored_alone_and_abandoned():
    """A node that nobody was linked to has lost nothing by the end of its driver."""
    lonely = Clocked().alone()
    lonely.node.submit(Abandon())
    session = lonely.store.create()
    session["user"] = "kim"
    return lonely.store.commit(session)


def test_a_request_that_outlasts_the_copy_it_read_still_commits():
    """Others hold the session, so this node may drop its copy while a WebSocket that has read it stays open."""
    here = Clocked(confirm=0).linked(BOB).linked(b"carol...", link=2).linked(b"dave....", link=3)
    session = stored(here, user="kim")
    here.replica.sessions.table.drop(session.record.sid, here.node.node_id, here.now_s)
    session["cart"] = [1]
    assert here.store.commit(session) == Confirmed(0, 0)
    assert "cart" in here.node.records[session.record.sid].entries


def test_a_session_that_was_ended_is_over_at_once_also_where_others_hold_it():
    """No answer could bring it back, and whoever keeps sending its cookie would have holders asked each time."""
    here = Clocked(confirm=0).linked(BOB).linked(b"carol...", link=2).linked(b"dave....", link=3)
    for _ in range(8):
        session = stored(here, user="kim")
        here.store.invalidate(session, 0)
        assert here.store.load(session.id) is None


def test_a_write_is_not_confirmed_by_nobody_where_all_leave():
    """They stay holders then, and what is waited for is what they have."""
    here = Clocked().alone().linked(BOB)
    session = here.store.create()
    session["user"] = "kim"
    waiting = here.store.commit(session, 1)
    here.node.submit(Drain())
    here.hears(Members((Told(member(BOB)._replace(incarnation=1, leaving=True)),), reply=False))
    here.does()
    assert not waiting.done()


def test_a_session_may_have_limits_of_its_own(lone):
    """Django's set_expiry: one session ends sooner or later than the settings say, on every node."""
    session = lone.store.create()
    session["user"] = "kim"
    session.limit(idle_s=7200, ends_at=lone.node.time_ms() / 1000 + 7200)
    lone.store.commit(session)
    lone.waits(5000)
    assert lone.store.load(session.id) is not None, "the settings say a minute"
    lone.waits(2201)
    assert lone.store.load(session.id) is None


def test_a_session_that_is_over_when_it_is_stored_is_not_waited_for():
    """Nobody takes it in. Django's tests, and applications, end sessions by an expiry in the past."""
    here = Clocked().linked(BOB)
    for limit in ({"ends_at": here.node.time_ms() / 1000 - 1}, {"idle_s": 0}):
        session = here.store.create()
        session["user"] = "kim"
        session.limit(**limit)
        assert here.store.commit(session) == Confirmed(0, 0)
    later = here.store.create()
    later["user"] = "kim"
    later.limit(ends_at=here.node.time_ms() / 1000 + 1)
    assert isinstance(here.store.commit(later), Future)
    later.limit(ends_at=here.node.time_ms() / 1000 - 1)
    assert isinstance(here.store.rotate(later), Future), "the old id ends elsewhere before its user is answered"


def test_limits_alone_make_no_session_and_end_none(lone):
    """A framework may set them on every request, also for those who only look."""
    session = lone.store.create()
    session.limit(ends_at=lone.node.time_ms() / 1000 + 10)
    assert not session.changes()
    session["user"] = "kim"
    lone.store.commit(session)
    again = lone.store.load(session.id)
    again.limit(ends_at=lone.node.time_ms() / 1000 + 3000)
    assert len(again.changes()) == 1
    lone.store.commit(again)
    assert not again.changes()
    assert dict(lone.store.load(session.id)) == {"user": "kim"}


def test_a_limit_that_did_not_change_does_not_travel(lone):
    """Only what changes costs a message."""
    session = lone.store.create()
    session["user"] = "kim"
    session.limit(idle_s=30)
    lone.store.commit(session)
    again = lone.store.load(session.id)
    again.limit(idle_s=30)
    assert not again.modified


def test_of_two_limits_the_last_counts_also_where_it_is_the_stored_one(lone):
    """A view sets one, and thinks better of it."""
    session = lone.store.create()
    session["user"] = "kim"
    session.limit(idle_s=30)
    lone.store.commit(session)
    again = lone.store.load(session.id)
    again.limit(idle_s=60)
    again.limit(idle_s=30)
    assert not again.modified


@pytest.mark.parametrize("seconds", [-1, 1e11, float("nan"), float("inf")])
def test_a_limit_that_is_none_is_refused(lone, seconds):
    """Eight bytes carry it; and an endless session would fill the memory."""
    with pytest.raises(ValueError, match="allowed are 0 to"):
        lone.store.create().limit(idle_s=seconds)


def test_a_session_whose_limit_was_shortened_leaves_the_memory_then(lone):
    """And not at the time it was to end before."""
    session = stored(lone, user="kim")
    for ends_in_s in (3000, 20, 2000, 10):
        session.limit(ends_at=lone.node.time_ms() / 1000 + ends_in_s, idle_s=5000)
        lone.store.commit(session)
    other = stored(lone, user="lee")
    lone.waits(11)
    assert list(lone.node.records) == [sid_of(other.id)]
    lone.waits(3600)
    assert not lone.node.records
