"""Quart's session, held by a real node without network: what is Quart's own beside what all adapters do alike."""

import asyncio
import contextlib
from datetime import timedelta
from typing import Any, NamedTuple

import pytest
from flask import Flask
from quart import Quart, make_response, session, websocket
from quart.sessions import SessionMixin

from gossipsess.config import Config
from gossipsess.errors import ConfigError, SessionUnavailable
from gossipsess.service import lone_node
from gossipsess.web.quart import GossipSessions
from tests.unit.web_support import (
    UNKNOWN_ID,
    HeldBackNode,
    TestUser,
    fill,
    node_flooded_with_fetches,
    node_that_misses_a_peer,
    set_cookies,
)


def app_of(node, *, on_unavailable=None, **config):
    app = Quart("shop")
    app.config.update(config)
    GossipSessions(app, node=node, on_unavailable=on_unavailable)

    @app.get("/append")
    async def append():
        session.setdefault("cart", []).append("book")
        return str(len(session["cart"]))

    @app.get("/permanent")
    async def permanent():
        session.permanent = True
        session["a"] = 1
        return ""

    @app.get("/view")
    async def view():
        return dict(session)

    @app.get("/untouched")
    async def untouched():
        return ""

    @app.get("/crash")
    async def crash():
        session["cart"].append(TestUser())
        return ""

    return app


def get(client, path, **named):
    return asyncio.run(client.get(path, **named))


def text(response):
    return asyncio.run(response.get_data(as_text=True))


def json(response):
    return asyncio.run(response.get_json())


# --- Flask's meanings ---------------------------------------------------------------------------------------


def test_the_session_is_quarts_and_ours(node):
    async def main():
        async with app_of(node).test_request_context("/"):
            assert isinstance(session, SessionMixin)
            assert session.new
            assert not session.permanent
            assert not session.modified
            session["a"] = 1
            assert session.modified
            session.modified = False
            assert session.modified, "what was changed is stored whatever the application says"

    asyncio.run(main())


def test_who_asks_whether_the_session_is_new_has_read_it(node):
    """The page for visitors whom it knows nothing of must not be shown to the others."""
    app = app_of(node)

    @app.get("/new")
    async def new():
        return str(session.new)

    assert get(app.test_client(), "/new").headers["Vary"] == "Cookie"


def test_the_cookies_have_quarts_settings(node):
    app = app_of(
        node,
        SESSION_COOKIE_NAME="sid",
        SESSION_COOKIE_DOMAIN="localhost",
        SESSION_COOKIE_PATH="/",
        SESSION_COOKIE_SECURE=True,
        SESSION_COOKIE_HTTPONLY=False,
        SESSION_COOKIE_SAMESITE="Strict",
        SESSION_COOKIE_PARTITIONED=True,
    )
    lines = set_cookies(get(app.test_client(), "/append"))
    assert set(lines) == {"sid", "sid-v"}
    for line in lines.values():
        attributes = {part.strip() for part in line.split(";")[1:]}
        assert attributes == {"Domain=localhost", "Path=/", "Secure", "SameSite=Strict", "Partitioned"}


def test_a_session_that_becomes_permanent_gets_its_cookie_anew_with_an_expiry_date(node):
    """Otherwise it would still end when the browser closes."""
    client = app_of(node).test_client()
    assert "Expires" not in set_cookies(get(client, "/append"))["session"]
    lines = set_cookies(get(client, "/permanent"))
    assert all("Expires" in lines[name] for name in ("session", "session-v"))
    assert json(get(client, "/view"))["_permanent"] is True
    assert set_cookies(get(client, "/permanent")) == {}


@pytest.mark.parametrize(
    ("lifetime_s", "refresh", "of_read", "of_write"),
    [
        (390, True, {"session"}, {"session", "session-v"}),
        (390, False, set(), {"session", "session-v"}),
        (410, True, set(), {"session-v"}),
    ],
)
def test_the_cookie_of_a_permanent_session_is_renewed_after_a_quarter_of_its_life(
    node, lifetime_s, refresh, of_read, of_write
):
    """PERMANENT_SESSION_LIFETIME counts from the last request in Quart; a user who is active stays logged in."""
    node.node.replica.sessions.clock.offset_ms -= 100_000  # what is created now is 100 seconds old
    app = app_of(node, PERMANENT_SESSION_LIFETIME=timedelta(seconds=lifetime_s), SESSION_REFRESH_EACH_REQUEST=refresh)
    client = app.test_client()
    get(client, "/permanent")
    assert set(set_cookies(get(client, "/untouched"))) == of_read
    assert set(set_cookies(get(client, "/append"))) == of_write


def test_quarts_test_client_can_prepare_and_inspect_a_session(node):
    async def main():
        client = app_of(node).test_client()
        async with client.session_transaction() as prepared:
            prepared["cart"] = ["pen"]
        assert await (await client.get("/append")).get_data(as_text=True) == "2"
        async with client.session_transaction() as left:
            assert left["cart"] == ["pen", "book"]

    asyncio.run(main())


def test_a_view_that_is_no_coroutine_has_the_session_too(node):
    """Quart runs it in a thread."""
    app = app_of(node)
    app.add_url_rule("/plain", view_func=lambda: session.update(a=1) or "")
    client = app.test_client()
    assert set(set_cookies(get(client, "/plain"))) == {"session", "session-v"}
    assert json(get(client, "/view")) == {"a": 1}


def test_a_write_that_nobody_confirms_in_time_counts_all_the_same():
    with node_that_misses_a_peer() as node:
        client = app_of(node).test_client()
        assert set(set_cookies(get(client, "/append"))) == {"session", "session-v"}
        assert text(get(client, "/append")) == "2"


def test_a_value_that_cannot_travel_inside_a_list_fails_its_request_by_the_applications_own_page(node, caplog):
    """Quart saves again with the error's page: a second error there would take the page's place, and be logged too."""
    app = app_of(node, PROPAGATE_EXCEPTIONS=False)

    @app.errorhandler(500)
    async def sorry(error):
        return f"sorry, {session['cart'][0]}", 500

    client = app.test_client()
    get(client, "/append")
    response = get(client, "/crash")
    assert (response.status_code, text(response)) == (500, "sorry, book")
    assert response.headers["Vary"] == "Cookie"
    assert [record.message for record in caplog.records] == ["Exception on request GET /crash"]
    assert json(get(client, "/view")) == {"cart": ["book"]}


def test_one_extension_object_serves_several_applications(node):
    sessions = GossipSessions(node=node)
    for name in ("one", "two"):
        app = Quart(name)
        sessions.init_app(app)
        app.add_url_rule("/", view_func=lambda: session.update(a=1) or "")
        assert set(set_cookies(get(app.test_client(), "/"))) == {"session", "session-v"}


# --- where the session is not available ---------------------------------------------------------------------


def test_the_refusal_is_by_the_applications_own_page_and_hooks_may_write():
    """Hooks that prepare every request or answer must not make a 500 of it."""
    with node_flooded_with_fetches() as node:
        app = app_of(node)

        @app.before_request
        async def before():
            session["seen"] = True

        @app.after_request
        async def after(response):
            session["seen"] = True
            return response

        @app.errorhandler(503)
        async def busy(error):
            return "the shop is busy", 503

        client = app.test_client()
        response = get(client, "/view", headers={"Cookie": f"session={UNKNOWN_ID}"})
        assert (response.status_code, text(response)) == (503, "the shop is busy")
        assert set_cookies(response) == {}


@pytest.mark.parametrize("where", ["before", "view", "after", "handler"])
def test_a_change_of_a_stand_in_that_passes_is_a_503_wherever_it_is_made(where):
    """Hooks after the view, and error handlers, are asked about by no error handler of Quart's."""
    with node_flooded_with_fetches() as node:
        app = app_of(node, on_unavailable="empty")
        register = {
            "before": app.before_request,
            "view": app.get("/"),
            "after": app.after_request,
            "handler": app.errorhandler(404),
        }

        async def change(*given):
            session["user_id"] = 42
            return given[0] if given else None

        register[where](change)
        if where != "view":
            app.add_url_rule("/other", view_func=lambda: "page")
        path = {"view": "/", "handler": "/nowhere"}.get(where, "/other")
        response = get(app.test_client(), path, headers={"Cookie": f"session={UNKNOWN_ID}"})
        assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
        assert set_cookies(response) == {}


def test_the_answer_that_is_replaced_for_lack_of_room_leaves_nothing_of_its_own():
    """No redirect to the page of a login that is none, and no cookie."""
    node = lone_node(Config(memory_limit_mb=1))
    app = app_of(node)

    @app.get("/login")
    async def login():
        session["user_id"] = 42
        response = await make_response("Welcome", 302, {"Location": "/welcome", "ETag": "1"})
        response.set_cookie("seen", "1")
        return response

    fill(node)
    answer = get(app.test_client(), "/login")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert "Welcome" not in text(answer)
    assert set_cookies(answer) == {}
    assert "Location" not in answer.headers
    assert "ETag" not in answer.headers


# --- websockets ---------------------------------------------------------------------------------------------


class Talk(NamedTuple):
    """What a server would have seen of a websocket."""

    sent: list[dict[str, Any]]

    def of(self, kind: str) -> dict[str, Any]:
        """Return the first message of that kind, {} where there is none."""
        return next((message for message in self.sent if message["type"] == f"websocket.{kind}"), {})

    @property
    def cookies(self) -> dict[str, str]:
        """Return the cookies that the accept has set."""
        lines = [line.decode() for name, line in self.of("accept").get("headers", ()) if name == b"set-cookie"]
        return {line.partition("=")[0]: line.partition("=")[2].partition(";")[0] for line in lines}


def talk(app, cookies=None) -> Talk:
    """Open a websocket as a server does, send one message, and hang up once it is answered or closed.

    Quart's test client does not tell what an accept has set.
    """
    line = "; ".join(f"{name}={value}" for name, value in (cookies or {}).items())
    scope = {
        "type": "websocket", "asgi": {"spec_version": "2.3"}, "http_version": "1.1", "scheme": "ws", "path": "/socket",
        "raw_path": b"/socket", "query_string": b"", "root_path": "", "headers": [(b"host", b"localhost")],
        "client": None, "server": None, "subprotocols": [], "state": {}, "extensions": {"websocket.http.response": {}},
    }  # fmt: skip
    scope["headers"] += [(b"cookie", line.encode())] if line else []
    sent = []

    async def main():
        over = asyncio.Event()
        received = iter([{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "go"}])

        async def receive():
            message = next(received, None)
            if message is None:
                await asyncio.wait_for(over.wait(), 5)
                return {"type": "websocket.disconnect", "code": 1000}
            return message

        async def send(message):
            sent.append(message)
            if message["type"] != "websocket.accept":
                over.set()

        with contextlib.suppress(asyncio.CancelledError):
            await app(scope, receive, send)

    asyncio.run(main())
    return Talk(sent)


def with_socket(app, *, on_open=lambda: None, on_message=lambda: None, ends=False):
    """Give the application a websocket that calls these, and ends by itself or by the client's going."""

    @app.websocket("/socket")
    async def socket():
        on_open()
        while True:
            await websocket.receive()
            on_message()
            await websocket.send("done")
            if ends:
                return

    return app


def append():
    session.setdefault("cart", []).append("book")


def cookies_of(client):
    return {cookie.name: cookie.value for cookie in client.cookie_jar}


@pytest.mark.parametrize("ends", [True, False], ids=["ends by itself", "client goes"])
def test_a_websocket_reads_and_writes_the_session_of_the_requests(node, ends):
    """Quart cancels the handler when the client goes, and saves nothing."""
    seen = []
    app = with_socket(app_of(node), on_open=lambda: seen.append(list(session["cart"])), on_message=append, ends=ends)
    client = app.test_client()
    get(client, "/append")
    assert talk(app, cookies_of(client)).cookies == {}
    assert seen == [["book"]]
    assert text(get(client, "/append")) == "3"


@pytest.mark.parametrize(("on_message", "lines"), [(append, 1), (lambda: None, 0)])
def test_how_long_a_session_is_to_live_is_no_loss_to_a_websocket_that_begins_none(node, caplog, on_message, lines):
    """Many applications say so before every one; the log is for those that lose something."""
    app = with_socket(app_of(node), on_message=on_message)

    @app.before_websocket
    async def all_are_permanent():
        session.permanent = True

    assert talk(app).cookies == {}
    assert not node.node.records
    assert caplog.text.count("begins after its websocket was accepted") == lines


def test_a_session_written_before_the_accept_is_given_to_the_client_with_it(node):
    cookies = talk(with_socket(app_of(node), on_open=append, on_message=append)).cookies
    assert set(cookies) == {"session", "session-v"}
    assert node.store.load(cookies["session"])["cart"] == ["book", "book"]


def test_of_two_tasks_that_accept_at_once_none_leaves_before_the_cookies(node):
    """A handler that receives and sends in tasks of its own accepts in whichever comes first."""
    with node_that_misses_a_peer() as slow:  # saving takes until nobody has confirmed
        app = app_of(slow)

        @app.websocket("/socket")
        async def socket():
            session["a"] = 1

            async def receive():
                await websocket.receive()

            async def send():
                await websocket.send("done")

            await asyncio.gather(send(), receive(), websocket.accept())

        assert set(talk(app).cookies) == {"session", "session-v"}


def test_a_login_on_a_websocket_changes_the_id_before_the_accept_and_not_later(node):
    """Later no cookie can be set: under a new id the session would be lost to its client."""

    def login():
        session["user_id"] = session.get("user_id", 41) + 1

    app = with_socket(app_of(node), on_open=login, on_message=login)
    client = app.test_client()
    get(client, "/append")
    known = cookies_of(client)["session"]
    cookies = talk(app, cookies_of(client)).cookies
    assert set(cookies) == {"session", "session-v"}
    assert cookies["session"] != known
    assert node.store.load(known) is None
    assert node.store.load(cookies["session"])["user_id"] == 43


def test_a_session_that_the_client_can_never_name_is_not_stored_and_the_log_says_so(node, caplog):
    """After the accept there is no way left to give it the id."""
    assert talk(with_socket(app_of(node), on_message=append)).cookies == {}
    assert not node.node.records
    assert [record.levelname for record in caplog.records if "never name" in record.message] == ["WARNING"]


@pytest.mark.parametrize("ends", [True, False], ids=["ends by itself", "client goes"])
def test_what_a_websocket_left_that_cannot_travel_is_logged_and_nothing_is_stored(node, caplog, ends):
    app = with_socket(app_of(node), on_message=lambda: session["cart"].append(TestUser()), ends=ends)
    client = app.test_client()
    get(client, "/append")
    talk(app, cookies_of(client))
    assert json(get(client, "/view")) == {"cart": ["book"]}
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1


def test_a_websocket_whose_session_is_not_available_is_refused():
    ran = []
    with node_flooded_with_fetches() as node:
        app = with_socket(app_of(node), on_open=lambda: ran.append(1))
        denied = talk(app, {"session": UNKNOWN_ID}).of("http.response.start")
    assert (denied["status"], dict(denied["headers"])[b"retry-after"]) == (503, b"1")
    assert not ran


def test_an_accepted_websocket_whose_stand_in_is_changed_is_closed():
    with node_flooded_with_fetches() as node:
        app = with_socket(app_of(node, on_unavailable="empty"), on_message=append)
        assert talk(app, {"session": UNKNOWN_ID}).of("close")["code"] == 1013


def test_what_a_handler_returns_after_the_accept_sets_no_cookie(node):
    """Quart makes a response of it, and sends it nowhere."""
    app = app_of(node)

    @app.websocket("/socket")
    async def socket():
        await websocket.receive()
        session["user_id"] = 42
        await websocket.send("done")
        return "bye"

    client = app.test_client()
    get(client, "/append")
    assert talk(app, cookies_of(client)).cookies == {}
    assert json(get(client, "/view")) == {"cart": ["book"], "user_id": 42}


def test_a_websocket_that_begins_a_session_for_which_there_is_no_room_is_refused(caplog):
    """Accepted, it would hold a session that the client has no id of. The node's warning of the limit is enough."""
    full = lone_node(Config(memory_limit_mb=1))
    fill(full)
    assert talk(with_socket(app_of(full), on_open=append)).of("http.response.start")["status"] == 503
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


# --- when the node starts -----------------------------------------------------------------------------------


def test_serving_starts_only_when_the_node_can_answer():
    """An open port means ready: a request that comes before the first sync would find nobody logged in."""
    node = HeldBackNode()
    app = Quart("shop")
    others = []
    app.before_serving(lambda: others.append(1))
    GossipSessions(app, node=node)

    async def main():
        starting = asyncio.create_task(app.startup())
        await asyncio.sleep(0.05)
        assert not starting.done()
        assert not others, "what the application does when serving starts may use sessions"
        node.release.set()
        await starting
        assert others
        await app.shutdown()

    asyncio.run(main())


def test_a_node_that_cannot_start_stops_the_server_from_starting(caplog):
    """A server that comes up without sessions would log everybody out, and look healthy."""
    app = Quart("shop")
    GossipSessions(app, config=Config(bind="192.0.2.1", secret="s" * 16))
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1"):
        asyncio.run(app.startup())


def test_the_first_request_starts_the_node_and_the_loop_goes_on_meanwhile():
    """Where Quart is not told that serving starts."""
    node = HeldBackNode()
    app = app_of(node)

    async def main():
        request = asyncio.create_task(app.test_client().get("/append"))
        await asyncio.sleep(0.05)
        assert not request.done()
        node.release.set()
        assert (await request).status_code == 200

    asyncio.run(main())


def test_a_session_that_the_view_loaded_itself_is_no_stand_in(node):
    """Its error is the application's own business."""
    app = app_of(node, PROPAGATE_EXCEPTIONS=False)

    @app.get("/other")
    async def other():
        raise SessionUnavailable("of somebody else's session")

    with contextlib.suppress(SessionUnavailable):
        assert get(app.test_client(), "/other").status_code == 500


def test_an_application_is_taken_once_and_flasks_are_refused(node):
    """What came of either before was an error that named neither."""
    app = Quart("shop")
    GossipSessions(app, node=node)
    with pytest.raises(TypeError, match="already"):
        GossipSessions(app, node=node)
    with pytest.raises(TypeError, match=r"gossipsess\.web\.flask"):
        GossipSessions(Flask("shop"), node=node)
