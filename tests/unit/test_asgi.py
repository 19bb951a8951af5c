"""The middleware for any ASGI application, on both kinds of loop, over a real node without network."""

import asyncio
import contextlib
import threading

import pytest
import trio
import trio.testing
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from gossipsess.config import Config
from gossipsess.errors import ConfigError
from gossipsess.protocol.outcomes import Degraded, Gone
from gossipsess.service import lone_node
from gossipsess.web.adapter import Saving
from gossipsess.web.asgi import SessionMiddleware
from tests.unit.web_support import (
    UNKNOWN_ID,
    HeldBackNode,
    fill,
    node_flooded_with_fetches,
    node_that_misses_a_peer,
    set_cookies,
)

ID, TOKEN = "__Host-gsid", "__Host-gsid-v"


@pytest.fixture(params=["asyncio", "trio"])
def backend(request):
    return request.param


@pytest.fixture
def node():
    return lone_node()


@pytest.fixture
def full():
    """A node that has met its memory limit."""
    service = lone_node(Config(memory_limit_mb=1))
    fill(service)
    return service


def serving(view, *, headers=()):
    """An ASGI application that calls view(session) and then answers; what it returns is the body."""

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        body = str(view(scope["session"])).encode()
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


def client_of(view, node, backend="asyncio", *, headers=(), **settings):
    app = SessionMiddleware(serving(view, headers=headers), node=node, **settings)
    return TestClient(app, base_url="https://testserver", backend=backend)


def append(session):
    session.setdefault("cart", []).append("book")
    return len(session["cart"])


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


def test_a_session_does_not_outlive_its_cookie(node):
    """A browser forgets the cookie, who stole it does not."""
    node.node.replica.sessions.clock.offset_ms -= 100_000
    for max_age_s, count in ((90, "1"), (110, "2")):
        client = client_of(append, node, max_age_s=max_age_s)
        client.get("/")
        assert client.get("/").text == count


@pytest.mark.parametrize("unreachable", [node_that_misses_a_peer, node_flooded_with_fetches])
def test_a_session_that_is_not_available_is_refused_and_the_cookie_kept(unreachable, backend):
    """It may well exist: to run the application without it would show a logged-in user the login page."""
    ran = []
    with unreachable() as node:
        client = client_of(ran.append, node, backend)
        response = client.get("/", headers={"cookie": f"{ID}={UNKNOWN_ID}"})
        with (
            pytest.raises(WebSocketDisconnect) as closed,
            client.websocket_connect("/", headers={"cookie": f"{ID}={UNKNOWN_ID}"}),
        ):
            pass
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert set_cookies(response) == {}
    assert closed.value.code == 1013
    assert not ran


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


def test_a_websocket_that_begins_a_session_for_which_there_is_no_room_is_closed(full, backend):
    """Accepted, it would hold a session that the client has no id of."""
    talked = []
    app = SessionMiddleware(socket_app(on_open=append, on_message=talked.append), node=full)
    client = TestClient(app, base_url="https://testserver", backend=backend)
    with pytest.raises(WebSocketDisconnect) as closed, client.websocket_connect("/"):
        pass
    assert closed.value.code == 1013
    assert not talked


def test_a_write_that_nobody_confirms_in_time_counts_all_the_same(backend):
    """Another host that is slow must not turn into an error page; the write stands and is on its way."""
    with node_that_misses_a_peer() as node:
        client = client_of(append, node, backend)
        assert set(set_cookies(client.get("/"))) == {ID, TOKEN}
        assert client.get("/").text == "2"


# --- websockets ---------------------------------------------------------------------------------------------


def socket_app(*, on_open, on_message):
    async def app(scope, receive, send):
        session = scope["session"]
        assert (await receive())["type"] == "websocket.connect"
        on_open(session)
        await send({"type": "websocket.accept"})
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message["code"])
            on_message(session)
            await send({"type": "websocket.send", "text": "done"})

    return app


def talk(node, backend, app, cookies=None):
    """Send one message, hang up; return what the accept set."""
    client = TestClient(SessionMiddleware(app, node=node), base_url="https://testserver", backend=backend)
    headers = {"cookie": "; ".join(f"{name}={value}" for name, value in (cookies or {}).items())}
    socket = client.websocket_connect("/", headers=headers)
    with contextlib.suppress(WebSocketDisconnect), socket:  # the application passes on that the client hung up
        lines = [line.decode() for name, line in socket.extra_headers if name == b"set-cookie"]
        socket.send_text("go")
        assert socket.receive_text() == "done"
    return {line.partition("=")[0]: line.partition("=")[2].partition(";")[0] for line in lines}


def test_a_websocket_reads_and_writes_the_session_of_the_requests(node, backend):
    client = client_of(append, node, backend)
    client.get("/")
    seen = []
    app = socket_app(on_open=lambda session: seen.append(str(session["cart"])), on_message=append)
    assert talk(node, backend, app, client.cookies) == {}
    assert seen == ["['book']"]
    assert node.store.load(client.cookies[ID])["cart"] == ["book", "book"]


def test_a_session_written_before_the_accept_is_given_to_the_client_with_it(node, backend):
    cookies = talk(node, backend, socket_app(on_open=append, on_message=append))
    assert set(cookies) == {ID, TOKEN}
    assert node.store.load(cookies[ID])["cart"] == ["book", "book"]


def test_a_login_on_a_websocket_changes_the_id_before_the_accept_and_not_later(node, backend):
    """Later no cookie can be set: under a new id the session would be lost to its client."""
    client = client_of(append, node, backend)
    client.get("/")
    known = client.cookies[ID]

    def login(session):
        session["user_id"] = session.get("user_id", 41) + 1

    cookies = talk(node, backend, socket_app(on_open=login, on_message=login), client.cookies)
    assert set(cookies) == {ID, TOKEN}
    assert cookies[ID] != known
    assert node.store.load(known) is None
    assert node.store.load(cookies[ID])["user_id"] == 43


def test_a_session_that_the_client_can_never_name_is_not_stored(node, backend):
    """After the accept there is no way left to give it the id."""
    assert talk(node, backend, socket_app(on_open=len, on_message=append)) == {}
    assert not node.node.records


# --- the start of the node ----------------------------------------------------------------------------------


def lifespan_app(started):
    async def app(scope, receive, send):
        assert (await receive())["type"] == "lifespan.startup"
        started()
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        await send({"type": "lifespan.shutdown.complete"})

    return app


async def test_startup_completes_only_when_the_node_can_answer():
    """An open port means ready: a request that comes before the first sync would find nobody logged in."""
    node = HeldBackNode()
    to_app, from_app = trio.open_memory_channel(2), trio.open_memory_channel(9)
    app_started = trio.Event()
    middleware = SessionMiddleware(lifespan_app(app_started.set), node=node)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(middleware, {"type": "lifespan"}, to_app[1].receive, from_app[0].send)
        await to_app[0].send({"type": "lifespan.startup"})
        await app_started.wait()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.WouldBlock):
            from_app[1].receive_nowait()
        node.release.set()
        assert (await from_app[1].receive())["type"] == "lifespan.startup.complete"
        await to_app[0].send({"type": "lifespan.shutdown"})
        assert (await from_app[1].receive())["type"] == "lifespan.shutdown.complete"


async def test_an_application_without_lifespan_is_not_served_before_the_node_can_answer():
    """The server opens its port when the application's call ends, however it ends."""
    node = HeldBackNode()
    ended = trio.Event()

    async def serve():
        with pytest.raises(AssertionError, match="http"):
            await SessionMiddleware(serving(len), node=node)({"type": "lifespan"}, None, None)
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await trio.testing.wait_all_tasks_blocked()
        assert not ended.is_set()
        node.release.set()


def test_a_lifespan_works_on_both_loops(node, backend):
    started = []
    with TestClient(SessionMiddleware(lifespan_app(lambda: started.append(1)), node=node), backend=backend):
        assert started == [1]


@pytest.mark.parametrize("app", [lifespan_app(lambda: None), serving(len)], ids=["lifespan", "no lifespan"])
async def test_a_node_that_cannot_start_stops_the_server_from_starting(app):
    """A server that comes up without sessions would log everybody out, and look healthy."""
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "lifespan.startup"}

    middleware = SessionMiddleware(app, config=Config(advertise="127.0.0.1", bind="192.0.2.1", secret="s" * 16))
    with pytest.raises(ConfigError):
        await middleware({"type": "lifespan"}, receive, send)
    assert [message["type"] for message in sent] == ["lifespan.startup.failed"]
    assert "192.0.2.1" in sent[0]["message"]


async def test_the_first_request_starts_the_node_and_the_loop_goes_on_meanwhile():
    """Where no lifespan runs; a start that blocked the loop would stop every other request for seconds."""
    node = HeldBackNode()
    sent = []

    async def send(message):
        sent.append(message["type"])

    scope = {"type": "http", "headers": []}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(SessionMiddleware(serving(len), node=node), scope, None, send)
        await trio.testing.wait_all_tasks_blocked()
        assert sent == []
        node.release.set()
    assert sent == ["http.response.start", "http.response.body"]


def test_the_loop_of_asyncio_goes_on_while_the_first_request_starts_the_node():
    node = HeldBackNode()

    async def send(message):
        pass

    async def main():
        middleware = SessionMiddleware(serving(len), node=node)
        request = asyncio.create_task(middleware({"type": "http", "headers": []}, None, send))
        await asyncio.sleep(0)
        assert not request.done()
        node.release.set()
        await request

    asyncio.run(main())


def test_other_kinds_of_scope_pass_through(node):
    passed = []

    async def app(scope, receive, send):
        passed.append((scope, receive, send))

    asyncio.run(SessionMiddleware(app, node=node)({"type": "pubsub"}, 1, 2))
    assert passed == [({"type": "pubsub"}, 1, 2)]
