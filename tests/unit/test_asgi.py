"""The middleware for any ASGI application, on both kinds of loop, over a real node without network."""

import threading

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from starlette.testclient import TestClient

from gossipsess.config import Config
from gossipsess.protocol.outcomes import Degraded, Gone
from gossipsess.service import lone_node
from gossipsess.web.adapter import Saving
from gossipsess.web.asgi import SessionMiddleware
from tests.unit.asgi_support import ID, TOKEN, append, client_of, serving
from tests.unit.web_support import UNKNOWN_ID, fill, node_that_misses_a_peer, set_cookies


@pytest.fixture
def full():
    """A node that has met its memory limit."""
    service = lone_node(Config(memory_limit_mb=1))
    fill(service)
    return service


def test_what_one_request_wrote_the_next_one_reads(node, backend):
    """Changes inside a value count as well: this is what other session layers lose silently."""
    client = client_of(append, node, backend)
    assert [client.get("/").text for _ in range(3)] == ["1", "2", "3"]


def test_the_id_is_set_once_and_the_token_by_every_response_that_wrote(node, backend):
    """A slow response that set the id again could put back an id that a login has retired meanwhile."""
    client = client_of(append, node, backend)
    first, second = client.get("/"), client.get("/")
    assert set(set_cookies(first)) == {ID, TOKEN}
    assert set(set_cookies(second)) == {TOKEN}
    for line in set_cookies(first).values():
        assert line.endswith("; path=/; httponly; samesite=lax; secure")
    assert node.store.load(client.cookies[ID])["cart"] == ["book", "book"]


def test_nothing_written_means_nothing_stored_and_no_cookie(node):
    """Bots and health checks must not fill the cluster with empty sessions, nor spoil caches."""
    for view in (lambda session: session.get("user"), lambda session: append(session) and session.clear()):
        response = client_of(view, node).get("/")
        assert set_cookies(response) == {}
        assert response.headers["vary"] == "Cookie"
        assert "cache-control" not in response.headers
    untouched = client_of(lambda session: None, node).get("/")
    assert "vary" not in untouched.headers
    assert not node.node.records


def test_a_request_that_only_reads_sets_no_cookie(node):
    client = client_of(append, node)
    client.get("/")
    reader = client_of(lambda session: session["cart"], node)
    reader.cookies = client.cookies
    response = reader.get("/")
    assert response.text == "['book']"
    assert set_cookies(response) == {}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], ["Cookie"]),
        ([(b"Vary", b"Accept-Encoding")], ["Accept-Encoding, Cookie"]),
        ([(b"vary", b"accept, cookie")], ["accept, cookie"]),
        ([(b"vary", b"*")], ["*"]),
    ],
)
def test_caches_are_told_that_the_answer_depends_on_the_cookie(node, before, after):
    """Without it a cache shows one user's page to another."""
    response = client_of(len, node, headers=before).get("/")
    assert response.headers.get_list("vary") == after


@pytest.mark.parametrize(("before", "after"), [([], "private"), ([(b"Cache-Control", b"no-store")], "no-store")])
def test_an_answer_that_sets_a_cookie_is_kept_out_of_shared_caches(node, before, after):
    response = client_of(append, node, headers=before).get("/")
    assert response.headers.get_list("cache-control") == [after]


def test_a_limit_that_a_request_only_sets_is_stored(node, backend):
    """An application may end all that is older than something it learns of, and write nothing else."""
    client = client_of(append, node, backend)
    client.get("/")
    limiter = client_of(lambda session: session.limit(idle_s=0, ends_at=0), node, backend)
    limiter.cookies = client.cookies
    limiter.get("/")
    assert node.store.load(client.cookies[ID]) is None


def test_deleting_every_key_ends_the_session_and_removes_both_cookies(node, backend):
    """This is how applications log out; the id must be dead everywhere, not only in this browser."""
    client = client_of(append, node, backend)
    client.get("/")
    stolen = client.cookies[ID]
    leaver = client_of(lambda session: session.clear(), node, backend)
    leaver.cookies = client.cookies
    lines = set_cookies(leaver.get("/"))
    assert set(lines) == {ID, TOKEN}
    assert all("expires=Thu, 01 Jan 1970" in line for line in lines.values())
    assert not leaver.cookies
    assert node.store.load(stolen) is None


@pytest.mark.parametrize("cookie", [UNKNOWN_ID, "garbage", "x" * 4000])
def test_an_id_that_we_did_not_make_is_never_adopted(node, cookie):
    """An attacker who chooses the victim's id would share the victim's login."""
    client = client_of(append, node)
    response = client.get("/", headers={"cookie": f"{ID}={cookie}"})
    assert set_cookies(response)[ID].split(";")[0] != f"{ID}={cookie}"
    assert node.store.load(cookie) is None


def test_two_requests_at_once_that_change_different_keys_both_keep_their_change(node, backend):
    login = client_of(lambda session: session.update(user="kim"), node, backend)
    login.get("/")
    both_loaded = threading.Barrier(2, timeout=5)

    def put(key):
        def view(session):
            both_loaded.wait()
            session[key] = 1

        client = client_of(view, node, backend)
        client.cookies = login.cookies
        thread = threading.Thread(target=client.get, args=("/",))
        thread.start()
        return thread

    for thread in [put("a"), put("b")]:
        thread.join()
    assert dict(node.store.load(login.cookies[ID])) == {"user": "kim", "a": 1, "b": 1}


def test_a_session_that_was_ended_meanwhile_stays_ended(node, backend):
    """A slow request must not log the user in again, and must not put the dead id back into the browser."""
    client = client_of(append, node, backend)
    client.get("/")
    cookie = client.cookies[ID]

    def slow(session):
        node.store.invalidate(node.store.load(cookie))
        session["late"] = True

    late = client_of(slow, node, backend)
    late.cookies = client.cookies
    assert set_cookies(late.get("/")) == {}
    assert node.store.load(cookie) is None


def test_a_session_that_is_ended_while_its_write_waits_for_confirmation_gives_no_cookies():
    """The answer to whoever ended or rotated it has set the cookies, and may have come first."""
    cookies = ((ID, "id"), (TOKEN, "token"))
    assert Saving(Gone(), cookies, ended=False).cookies_after(Gone()) == ()
    assert Saving(Gone(), cookies, ended=False).cookies_after(Degraded(0, 0)) == cookies
    assert Saving(Gone(), cookies, ended=True).cookies_after(Gone()) == cookies, "who logs out loses the cookies"


# --- a login changes the id ---------------------------------------------------------------------------------


def in_turn(node, client, view):
    """Return the answer to the same browser's next request, which `view` serves."""
    other = client_of(view, node)
    other.cookies = client.cookies
    response = other.get("/")
    client.cookies = other.cookies
    return response


@pytest.mark.parametrize("key", ["user_id", "_user_id", "_auth_user_id"])
def test_a_login_moves_a_stored_session_to_a_new_id(node, backend, key):
    """Who has made a visitor use an id that they know would be logged in together with the visitor."""
    client = client_of(append, node, backend)
    client.get("/")
    known = client.cookies[ID]
    response = in_turn(node, client, lambda session: session.update({key: 42}))
    assert set(set_cookies(response)) == {ID, TOKEN}
    assert client.cookies[ID] != known
    assert node.store.load(known) is None
    assert dict(node.store.load(client.cookies[ID])) == {"cart": ["book"], key: 42}


def test_another_users_login_changes_the_id_again_and_the_same_users_does_not(node):
    """Some applications assign the user with every request; an id that changed each time would lose parallel ones."""
    client = client_of(lambda session: session.update(user_id=42), node)
    client.get("/")
    first = client.cookies[ID]
    assert set_cookies(client.get("/")) == {}
    assert set(set_cookies(in_turn(node, client, lambda session: session.update(user_id=42, seen=1)))) == {TOKEN}
    assert client.cookies[ID] == first
    in_turn(node, client, lambda session: session.pop("user_id"))
    assert client.cookies[ID] == first
    in_turn(node, client, lambda session: session.update(user_id=42))
    second = client.cookies[ID]
    in_turn(node, client, lambda session: session.update(user_id=43))
    assert len({first, second, client.cookies[ID]}) == 3
    assert node.store.load(first) is None
    assert node.store.load(second) is None
    assert dict(node.store.load(client.cookies[ID])) == {"user_id": 43, "seen": 1}


def test_a_login_in_a_new_session_stores_it_once(node):
    """Nobody else can know its id yet."""
    client = client_of(lambda session: session.rotate() or session.update(user_id=42), node)
    client.get("/")
    assert [record.tombstone for record in node.node.records.values()] == [0]
    assert node.store.load(client.cookies[ID])["user_id"] == 42


def test_an_application_with_other_names_asks_for_the_new_id(node, backend):
    client = client_of(append, node, backend)
    client.get("/")
    known = client.cookies[ID]
    response = in_turn(node, client, lambda session: session.rotate())
    assert response.headers["vary"] == "Cookie"
    assert client.cookies[ID] != known
    assert node.store.load(known) is None
    assert node.store.load(client.cookies[ID])["cart"] == ["book"]
    assert set(set_cookies(in_turn(node, client, append))) == {TOKEN}, "it was asked for once"


@pytest.mark.parametrize("change", [{"late": True}, {"user_id": 43}])
def test_a_request_on_the_old_id_that_ends_after_the_login_gets_no_cookies(node, backend, change):
    """Its cookies would put the dead id back into the browser, and end the login."""
    client = client_of(append, node, backend)
    client.get("/")
    known = client.cookies[ID]

    def slow(session):
        in_turn(node, client, lambda other: other.update(user_id=42))
        session.update(change)

    late = client_of(slow, node, backend)
    late.cookies = client.cookies
    assert set_cookies(late.get("/")) == {}
    assert client.cookies[ID] != known
    assert dict(node.store.load(client.cookies[ID])) == {"cart": ["book"], "user_id": 42}


def test_a_request_that_fails_before_it_answers_stores_nothing(node):
    def view(session):
        append(session)
        raise RuntimeError("view")

    with pytest.raises(RuntimeError, match="view"):
        client_of(view, node).get("/")
    assert not node.node.records


def test_a_response_that_is_never_sent_stores_nothing(node, backend):
    """It is sent when it is awaited: a task may be cancelled before it comes to that."""

    async def app(scope, receive, send):
        append(scope["session"])
        send({"type": "http.response.start", "status": 200, "headers": []}).close()
        raise RuntimeError("cancelled")

    client = TestClient(SessionMiddleware(app, node=node), base_url="https://testserver", backend=backend)
    with pytest.raises(RuntimeError, match="cancelled"):
        client.get("/")
    assert not node.node.records


def test_an_application_that_sends_from_a_thread_is_not_warned(node):
    """asgiref's adapter of WSGI applications does, and warns of a `send` that is not marked as async."""

    async def app(scope, receive, send):
        append(scope["session"])
        send_from_thread = sync_to_async(async_to_sync(send))
        await send_from_thread({"type": "http.response.start", "status": 200, "headers": []})
        await send_from_thread({"type": "http.response.body", "body": b"sent"})

    answer = TestClient(SessionMiddleware(app, node=node), base_url="https://testserver").get("/")
    assert (answer.text, set(set_cookies(answer))) == ("sent", {ID, TOKEN})


def test_cookies_have_the_settings_of_the_middleware(node):
    client = client_of(append, node, cookie_name="s", max_age_s=60, path="/shop", same_site="strict", secure=False)
    assert set_cookies(client.get("/"))["s"].endswith("; path=/shop; Max-Age=60; httponly; samesite=strict")


def test_writes_renew_the_id_cookie_after_a_quarter_of_its_life(node):
    """Otherwise a user who is active all the time would be logged out when the first cookie ends."""
    node.node.replica.sessions.clock.offset_ms -= 100_000  # what is created now is 100 seconds old
    for max_age_s, renewed in ((390, {ID, TOKEN}), (410, {TOKEN})):
        client = client_of(append, node, max_age_s=max_age_s)
        client.get("/")
        assert set(set_cookies(client.get("/"))) == renewed


def test_where_it_rolls_reads_renew_the_id_cookie_too(node):
    """Also those of a request that has nothing to store."""
    node.node.replica.sessions.clock.offset_ms -= 100_000
    for max_age_s, renewed in ((90, {ID}), (390, {ID}), (410, set())):
        client = client_of(append, node, max_age_s=max_age_s, rolls=True)
        client.get("/")
        reader = client_of(lambda session: session.get("user"), node, max_age_s=max_age_s, rolls=True)
        reader.cookies = client.cookies
        assert set(set_cookies(reader.get("/"))) == renewed


def test_a_session_does_not_outlive_its_cookie(node):
    """A browser forgets the cookie, who stole it does not."""
    node.node.replica.sessions.clock.offset_ms -= 100_000
    for max_age_s, count in ((90, "1"), (110, "2")):
        client = client_of(append, node, max_age_s=max_age_s)
        client.get("/")
        assert client.get("/").text == count


def catching(app):
    """Let a layer make an error page of whatever an application raises, as frameworks do."""

    async def layer(scope, receive, send):
        try:
            await app(scope, receive, send)
        except Exception as error:
            body = b"Oh no!"
            await send({"type": "http.response.start", "status": 500, "headers": []})
            await send({"type": "http.response.body", "body": body})
            raise RuntimeError("told the visitor") from error

    return layer


@pytest.mark.parametrize("layer", [lambda app: app, catching])
def test_a_new_session_for_which_there_is_no_room_makes_the_answer_503(full, backend, layer):
    """What the application goes on to do after its response would rest on a session that is not there."""
    went_on, sent = [], []

    async def app(scope, receive, send):
        await serving(append)(scope, receive, send)
        went_on.append(True)

    async def server(scope, receive, send):
        async def noting(message):
            sent.append(message["type"])
            await send(message)

        await SessionMiddleware(layer(app), node=full)(scope, receive, noting)

    client = TestClient(server, base_url="https://testserver", backend=backend)
    answer = client.get("/")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert "try again" in answer.text
    assert set_cookies(answer) == {}
    assert sent == ["http.response.start", "http.response.body"]
    assert not went_on


def test_an_error_of_the_application_is_its_own_where_there_is_no_room(full, backend):
    """Only what follows from the refusal is answered for the application."""
    with pytest.raises(ZeroDivisionError):
        client_of(lambda session: 1 / 0, full, backend).get("/")


def test_a_write_that_nobody_confirms_in_time_counts_all_the_same(backend):
    """Another host that is slow must not turn into an error page; the write stands and is on its way."""
    with node_that_misses_a_peer() as node:
        client = client_of(append, node, backend)
        assert set(set_cookies(client.get("/"))) == {ID, TOKEN}
        assert client.get("/").text == "2"
