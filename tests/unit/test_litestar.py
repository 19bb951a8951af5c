"""Litestar's session, held by a real node without network: what is Litestar's own beside what all adapters do alike."""

import asyncio
import dataclasses
import threading
import time
from typing import Any

import pytest
from litestar import Litestar, MediaType, Request, Response, WebSocket, get, websocket
from litestar.exceptions import LitestarException, PermissionDeniedException, WebSocketDisconnect
from litestar.middleware.session.server_side import ServerSideSessionConfig
from litestar.security.session_auth import SessionAuth
from litestar.testing import TestClient

from gossipsess.config import Config
from gossipsess.errors import ConfigError, UnreplicableValue
from gossipsess.service import lone_node
from gossipsess.web.litestar import GossipSessionConfig
from tests.unit.web_support import UNKNOWN_ID, HeldBackNode, TestUser, fill, node_flooded_with_fetches, set_cookies

AnyRequest = Request[Any, Any, Any]
Socket = WebSocket[Any, Any, Any]


@dataclasses.dataclass
class Visitor:
    name: str
    visits: int


@get("/append")
async def append(request: AnyRequest) -> int:
    request.session.setdefault("cart", []).append("book")
    return len(request.session["cart"])


@get("/view")
async def view(request: AnyRequest) -> dict[str, Any]:
    return request.session


@get("/id")
async def session_id(request: AnyRequest) -> str | None:
    return request.get_session_id()


@get("/clear")
async def clear(request: AnyRequest) -> None:
    request.clear_session()


@get("/assign")
async def assign(request: AnyRequest) -> None:
    request.set_session({"user_id": 42})


@get("/assign-visitor")
async def assign_visitor(request: AnyRequest) -> None:
    request.set_session(Visitor("kim", 3))


@get("/crash")
async def crash(request: AnyRequest) -> None:
    request.session["cart"].append(TestUser())


HANDLERS = [append, view, session_id, clear, assign, assign_visitor, crash]


def app_of(node, *handlers, exception_handlers=None, **settings):
    config = GossipSessionConfig(node=node, **settings)
    return Litestar(
        [*HANDLERS, *handlers],
        plugins=[config],
        exception_handlers=exception_handlers,
        logging_config=None,
        openapi_config=None,
    )


def client_of(node, *handlers, backend="asyncio", **settings):
    return TestClient(app_of(node, *handlers, **settings), backend=backend)


# --- what Litestar promises ---------------------------------------------------------------------------------


def test_a_session_lives_across_requests_on_both_loops(node, backend):
    client = client_of(node, backend=backend)
    assert [client.get("/append").json() for _ in range(3)] == [1, 2, 3]
    assert client.get("/view").json() == {"cart": ["book"] * 3}


def test_the_session_is_a_dict_whose_values_travel_as_they_are(node):
    """Litestar's own makes a list of a tuple."""
    seen = []

    @get("/kept")
    async def kept(request: AnyRequest) -> None:
        seen.append((isinstance(request.session, dict), request.session.get("pair")))
        request.session["pair"] = (1, 2)

    client = client_of(node, kept)
    client.get("/kept")
    client.get("/kept")
    assert seen == [(True, None), (True, (1, 2))]


def test_every_answer_tells_caches_of_the_session(node):
    """Litestar's encoder reads a dict past our methods, so that it is not known who has read it."""
    client = client_of(node)
    client.get("/append")
    answer = client.get("/view")
    assert answer.json() == {"cart": ["book"]}
    assert answer.headers["Vary"] == "Cookie"
    assert set_cookies(answer) == {}


def test_what_takes_the_sessions_place_becomes_its_content(node):
    """Keys that are not in it are deleted; and to put a user there is a login."""
    client = client_of(node)
    client.get("/append")
    known = client.cookies["session"]
    client.get("/assign")
    assert client.get("/view").json() == {"user_id": 42}
    assert client.cookies["session"] != known
    assert node.store.load(known) is None
    client.get("/assign-visitor")
    assert client.get("/view").json() == {"name": "kim", "visits": 3}
    assert set_cookies(client.get("/assign-visitor")) == {}, "the same again is no change"


def test_clear_session_ends_it(node):
    client = client_of(node)
    client.get("/append")
    stolen = client.cookies["session"]
    assert set(set_cookies(client.get("/clear"))) == {"session", "session-v"}
    assert not client.cookies
    assert node.store.load(stolen) is None
    assert set_cookies(client.get("/clear")) == {}, "there is nothing to end"


def test_a_handler_is_told_the_id(node):
    client = client_of(node)
    client.get("/append")
    assert client.get("/id").text == client.cookies["session"]


def test_the_cookies_have_litestars_settings(node):
    client = client_of(node, key="sid", max_age=60, path="/", domain="testserver.local", secure=True, samesite="strict")
    for line in set_cookies(client.get("/append")).values():
        attributes = {part.strip() for part in line.split(";")[1:]}
        assert attributes == {
            "path=/", "Max-Age=60", "httponly", "samesite=strict", "secure", "domain=testserver.local",
        }  # fmt: skip


def test_the_session_of_litestars_test_client_is_the_applications(node):
    """`get_session_data` and `set_session_data` are how Litestar's users test."""
    config = GossipSessionConfig(node=node)
    app = Litestar(HANDLERS, middleware=[config.middleware], logging_config=None, openapi_config=None)
    client = TestClient(app, session_config=config)
    assert client.get_session_data() == {}
    client.set_session_data({"cart": ["pen"]})
    assert client.get("/append").json() == 2
    assert client.get_session_data() == {"cart": ["pen", "book"]}
    client.set_session_data({"only": 1})
    assert client.get("/view").json() == {"only": 1}


def test_routes_that_are_left_out_have_no_session(node):
    """By Litestar's own two ways to say so."""

    @get("/plain", media_type=MediaType.TEXT)
    async def plain(request: AnyRequest) -> str:
        return str("session" in request.scope)

    @get("/opted", skip_session=True, media_type=MediaType.TEXT)
    async def opted(request: AnyRequest) -> str:
        return str("session" in request.scope)

    client = client_of(node, plain, opted, exclude="/plain")
    for path in ("/plain", "/opted"):
        answer = client.get(path)
        assert answer.text == "False"
        assert "Vary" not in answer.headers


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_litestars_session_authentication_stands_on_it(node):
    config = GossipSessionConfig(node=node)

    async def user(session: dict[str, Any], connection: Any) -> str | None:
        return {42: "kim"}.get(session.get("user_id", 0))

    @get("/login")
    async def login(request: AnyRequest) -> None:
        request.set_session({"user_id": 42})

    @get("/login-as-nobody")
    async def login_as_nobody(request: AnyRequest) -> None:
        request.set_session({"user_id": 1})

    @get("/me", media_type=MediaType.TEXT)
    async def me(request: AnyRequest) -> str:
        return str(request.user)

    auth = SessionAuth[Any, Any](
        session_backend_config=config, retrieve_user_handler=user, exclude=["^/login", "^/login-as-nobody"]
    )
    app = Litestar([login, login_as_nobody, me], on_app_init=[auth.on_app_init], lifespan=[config.lifespan],
                   logging_config=None, openapi_config=None)  # fmt: skip
    with TestClient(app) as client:
        assert client.get("/me").status_code == 401
        assert not node.node.records
        client.get("/login")
        assert client.get("/me").text == "kim"
        client.get("/login-as-nobody")
        assert client.get("/me").status_code == 401
        assert not client.cookies, "Litestar ends the session of nobody"


def test_the_arguments_are_those_of_litestars_own_config():
    """Only the import line changes."""
    theirs = {field.name for field in dataclasses.fields(ServerSideSessionConfig)}
    assert theirs <= {field.name for field in dataclasses.fields(GossipSessionConfig)}
    for field in dataclasses.fields(ServerSideSessionConfig):
        if field.default is not dataclasses.MISSING:
            assert getattr(GossipSessionConfig(), field.name) == field.default


def test_a_session_lives_as_long_as_litestars_unless_the_settings_say_otherwise(node):
    """Its max_age counts from the last use; what is set for the node is a rule for all its applications."""
    limited = lone_node(Config(idle_timeout_s=60, absolute_timeout_s=100))
    for there, gone_after_s in ((node, 3600), (limited, 60)):
        client = client_of(there, max_age=3600)
        client.get("/append")
        clock = there.node.replica.sessions.clock
        clock.offset_ms += (gone_after_s - 10) * 1000
        assert client.get("/view").json() == {"cart": ["book"]}
        clock.offset_ms += gone_after_s * 2000
        assert client.get("/view").json() == {}


def test_who_only_reads_stays_logged_in_for_longer_than_max_age(node):
    """Litestar's own writes and sets its cookie with every response: a login once a fortnight is none there."""
    node.node.replica.sessions.clock.offset_ms -= 100_000  # what is written now was written 100 seconds ago
    for max_age, renewed in ((90, {"session"}), (390, {"session"}), (410, set())):
        client = client_of(node, max_age=max_age)
        client.get("/append")
        answer = client.get("/view")
        assert answer.json() == {"cart": ["book"]}
        assert set(set_cookies(answer)) == renewed
        assert answer.headers.get("cache-control") == ("private" if renewed else None)
        client.get("/clear")
        assert not set_cookies(client.get("/view"))


def test_of_two_requests_at_once_litestars_own_loses_one_and_ours_none(node):
    """Litestar's writes the whole session with every response, also with one that has changed nothing."""
    apps = {
        "theirs": Litestar(
            [*HANDLERS, slow_handler()],
            middleware=[ServerSideSessionConfig().middleware],
            logging_config=None,
            openapi_config=None,
        ),
        "ours": app_of(node, slow_handler()),
    }
    kept = {}
    for name, app in apps.items():
        client = TestClient(app)
        client.get("/append")
        cookies = dict(client.cookies)
        LETS_GO.clear()
        READ.clear()
        reading = threading.Thread(
            target=lambda app=app, cookies=cookies: TestClient(app, cookies=cookies).get("/slow")
        )
        reading.start()
        assert READ.wait(5)
        client.get("/append")
        LETS_GO.set()
        reading.join()
        kept[name] = client.get("/view").json()["cart"]
    assert kept == {"theirs": ["book"], "ours": ["book", "book"]}


READ, LETS_GO = threading.Event(), threading.Event()


def slow_handler():
    @get("/slow", sync_to_thread=True)
    def slow(request: AnyRequest) -> int:
        seen = len(request.session["cart"])
        READ.set()
        assert LETS_GO.wait(5)
        return seen

    return slow


# --- where the session is not available ---------------------------------------------------------------------


def test_the_refusal_of_a_change_is_by_the_applications_own_page(backend):
    def busy(request: AnyRequest, error: Exception) -> Response[str]:
        return Response("the shop is busy", status_code=503, media_type=MediaType.TEXT)

    with node_flooded_with_fetches() as node:
        client = client_of(node, backend=backend, on_unavailable="empty", exception_handlers={503: busy})
        client.cookies.set("session", UNKNOWN_ID)
        for path in ("/append", "/assign-visitor", "/assign", "/clear"):
            answer = client.get(path)
            assert answer.status_code == 503
            assert set_cookies(answer) == {}
        assert client.get("/append").text == "the shop is busy"
        assert client.get("/view").json() == {}


def test_a_value_that_cannot_travel_inside_a_list_fails_its_request_and_changes_nothing(node):
    client = client_of(node)
    client.get("/append")
    with pytest.raises(LitestarException) as failed:
        client.get("/crash")
    assert isinstance(failed.value.__cause__, UnreplicableValue), "and not one of the layers between"
    assert client.get("/view").json() == {"cart": ["book"]}


# --- websockets ---------------------------------------------------------------------------------------------


def socket_handler(*, on_open=lambda socket: None, on_message=lambda socket: None):
    @websocket("/socket")
    async def handler(socket: Socket) -> None:
        on_open(socket)
        await socket.accept()
        while True:
            try:
                await socket.receive_text()
            except WebSocketDisconnect:
                return
            on_message(socket)
            await socket.send_text("done")

    return handler


def talk(client):
    """Send one message, hang up; return what the accept set."""
    with client.websocket_connect("/socket") as socket:
        lines = [line.decode() for name, line in socket.extra_headers if name == b"set-cookie"]
        socket.send_text("go")
        assert socket.receive_text() == "done"
    return {line.partition("=")[0]: line.partition("=")[2].partition(";")[0] for line in lines}


def put_book(socket):
    socket.session.setdefault("cart", []).append("book")


def refuse(socket):
    put_book(socket)
    raise PermissionDeniedException


def test_a_websocket_reads_and_writes_the_session_of_the_requests(node, backend):
    """Litestar's own saves nothing of a websocket."""
    seen = []
    handler = socket_handler(on_open=lambda socket: seen.append(list(socket.session["cart"])), on_message=put_book)
    client = client_of(node, handler, backend=backend)
    client.get("/append")
    assert talk(client) == {}
    assert seen == [["book"]]
    assert client.get("/append").json() == 3


def test_a_session_written_before_the_accept_is_given_to_the_client_with_it(node):
    client = client_of(node, socket_handler(on_open=put_book, on_message=lambda socket: socket.set_session({"a": 1})))
    cookies = talk(client)
    assert set(cookies) == {"session", "session-v"}
    assert dict(node.store.load(cookies["session"])) == {"a": 1}


def test_a_session_that_begins_after_the_accept_is_not_stored_and_the_log_says_so(node, caplog):
    """The client can never name it."""
    client = client_of(node, socket_handler(on_message=put_book))
    assert talk(client) == {}
    assert not node.node.records
    assert "begins after its websocket was accepted" in caplog.text
    caplog.clear()
    for on_open in (put_book, lambda socket: None):
        talk(client_of(node, socket_handler(on_open=on_open)))
    with pytest.raises(WebSocketDisconnect):
        talk(client_of(node, socket_handler(on_open=refuse)))
    assert not caplog.records


def test_an_accepted_websocket_whose_stand_in_is_changed_is_closed():
    with node_flooded_with_fetches() as node:
        client = client_of(node, socket_handler(on_message=put_book), on_unavailable="empty")
        client.cookies.set("session", UNKNOWN_ID)
        with pytest.raises(WebSocketDisconnect) as closed:
            talk(client)
    assert closed.value.code == 1013


def test_a_websocket_that_begins_a_session_for_which_there_is_no_room_is_closed():
    """Accepted, it would hold a session that the client has no id of."""
    full = lone_node(Config(memory_limit_mb=1))
    fill(full)
    with pytest.raises(WebSocketDisconnect) as closed:
        talk(client_of(full, socket_handler(on_open=put_book)))
    assert closed.value.code == 1013


# --- when the node starts -----------------------------------------------------------------------------------


def test_serving_starts_only_when_the_node_can_answer(backend):
    """An open port means ready: a request that comes before the first sync would find nobody logged in."""
    node = HeldBackNode()
    began_s = time.monotonic()
    threading.Timer(0.2, node.release.set).start()
    with client_of(node, backend=backend) as client:
        assert time.monotonic() - began_s >= 0.2
        assert client.get("/append").json() == 1


def test_a_node_that_cannot_start_stops_the_server_from_starting():
    """A server that comes up without sessions would log everybody out, and look healthy."""
    app = app_of(None, config=Config(bind="192.0.2.1", secret="s" * 16))

    async def serve():
        async with app.lifespan():
            raise AssertionError("it serves")

    with pytest.RaisesGroup(pytest.RaisesExc(ConfigError, match=r"192\.0\.2\.1")):
        asyncio.run(serve())


def test_all_routes_share_one_store(node, monkeypatch):
    """Each route has a middleware of its own in Litestar."""
    made = []
    new_store = node.new_store
    monkeypatch.setattr(node, "new_store", lambda *given: made.append(1) or new_store(*given))
    client = client_of(node)
    for path in ("/append", "/view", "/id"):
        client.get(path)
    assert made == [1]
