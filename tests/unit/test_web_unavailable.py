"""What applications see of a session that may exist and cannot be had in time, with each adapter, over real nodes."""

import contextlib

import pytest
from flask import Flask, stream_with_context
from flask import session as flask_session
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from gossipsess.config import Config
from gossipsess.errors import ConfigError, SessionUnavailable
from gossipsess.service import lone_node
from gossipsess.web.asgi import SessionMiddleware
from gossipsess.web.flask import GossipSessions
from gossipsess.web.starlette import SessionMiddleware as StarletteMiddleware
from gossipsess.web.starlette import StarletteWebSession
from tests.unit.asgi_support import ID, append, client_of, socket_app
from tests.unit.web_support import UNKNOWN_ID, node_flooded_with_fetches, node_that_misses_a_peer, set_cookies

COOKIE = {"cookie": f"{ID}={UNKNOWN_ID}"}


@pytest.fixture
def node():
    """A node that cannot say of any session that it does not exist."""
    with node_flooded_with_fetches() as service:
        yield service


# --- any ASGI application ------------------------------------------------------------------------------------


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


def look(session):
    return f"{session.unavailable} {session.get('user_id')} {len(session)}"


def test_with_empty_the_application_runs_and_the_cookie_is_neither_set_nor_deleted(node, backend):
    """Pages for everybody stay up. A cache that kept one would show it to the visitor when all is well again."""
    client = client_of(look, node, backend, headers=[(b"cache-control", b"max-age=60")], on_unavailable="empty")
    response = client.get("/", headers=COOKIE)
    assert (response.status_code, response.text) == (200, "True None 0")
    assert set_cookies(response) == {}
    assert response.headers.get_list("cache-control") == ["no-store"]
    assert response.headers["vary"] == "Cookie"
    assert not node.node.records
    assert client.get("/").text == "False None 0", "who sends no cookie has a new session, as ever"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda session: session.update(user_id=42), "session['user_id'] = ..."),
        (lambda session: session.setdefault("cart", []), "session['cart'] = ..."),
        (lambda session: session.clear(), "session.clear()"),
        (lambda session: session.pop("user_id", None), "session.pop('user_id')"),
        (lambda session: session.pop("user_id", default=None), "session.pop('user_id')"),
        (lambda session: session.popitem(), "session.popitem()"),
        (lambda session: session.__delitem__("user_id"), "del session['user_id']"),
        (lambda session: session.rotate(), "session.rotate()"),
        (lambda session: session.limit(idle_s=60), "session.limit(...)"),
        (lambda session: setattr(session, "user", "kim"), "session.user = ..."),
    ],
)
@pytest.mark.parametrize("session_class", [None, StarletteWebSession])
def test_whatever_would_change_an_unavailable_session_is_refused_by_what_was_written(node, change, text, session_class):
    """A login that is dropped in silence is lost, a logout that is dropped in silence leaves the thief logged in."""
    raised = []

    def view(session):
        with pytest.raises(SessionUnavailable, match="would be lost") as refused:
            change(session)
        raised.append(str(refused.value).partition(": ")[0])
        return "told the visitor"

    settings = {} if session_class is None else {"session_class": session_class}
    response = client_of(view, node, on_unavailable="empty", **settings).get("/", headers=COOKIE)
    assert (response.status_code, response.text) == (200, "told the visitor"), "the application may catch it"
    assert raised == [text]
    assert set_cookies(response) == {}
    assert not node.node.records


def test_a_change_that_the_application_lets_pass_makes_the_answer_503(node, backend):
    """No answer of the application's has left, and the same request may succeed a second later."""
    response = client_of(append, node, backend, on_unavailable="empty").get("/", headers=COOKIE)
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert set_cookies(response) == {}
    assert not node.node.records


def test_an_error_of_the_application_stays_its_own(node):
    """Only what follows from the stand-in is answered for the application; its bugs are to be seen."""

    def raises(session):
        raise ZeroDivisionError

    async def raises_late(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        scope["session"]["a"] = 1

    with pytest.raises(ZeroDivisionError):
        client_of(raises, node, on_unavailable="empty").get("/", headers=COOKIE)
    late = SessionMiddleware(raises_late, node=node, on_unavailable="empty")
    with pytest.raises(SessionUnavailable):
        TestClient(late, base_url="https://testserver").get("/", headers=COOKIE)


def test_a_websocket_opens_with_an_empty_session_and_closes_where_it_would_change_it(node, backend):
    """1013 tells the client to come back later."""
    seen = []

    def connect(on_open):
        app = SessionMiddleware(socket_app(on_open=on_open, on_message=look), node=node, on_unavailable="empty")
        return TestClient(app, base_url="https://testserver", backend=backend).websocket_connect("/", headers=COOKIE)

    with contextlib.suppress(WebSocketDisconnect), connect(lambda session: seen.append(look(session))) as socket:
        assert [name for name, _ in socket.extra_headers if name == b"set-cookie"] == []
        socket.send_text("go")
        assert socket.receive_text() == "done", "it goes on until the client hangs up"
    assert seen == ["True None 0"]
    with pytest.raises(WebSocketDisconnect) as closed, connect(append):
        pass
    assert closed.value.code == 1013


async def talk(app, node, *incoming):
    """Run app(scope, receive, send) behind the middleware, with these messages from the client; return what it sent."""
    to_come, sent = iter([{"type": "websocket.connect"}, *incoming]), []

    async def receive():
        return next(to_come)

    async def send(message):
        sent.append((message["type"], message.get("code")))

    scope = {"type": "websocket", "headers": [(b"cookie", COOKIE["cookie"].encode())]}
    try:
        await SessionMiddleware(app, node=node, on_unavailable="empty")(scope, receive, send)
    except SessionUnavailable:
        sent.append("raised")
    return sent


@pytest.mark.parametrize(
    ("before", "says"),
    [
        (["websocket.accept"], [("websocket.close", 1013)]),
        (["websocket.accept", "websocket.send"], [("websocket.close", 1013)]),
        (["websocket.accept", "websocket.close"], ["raised"]),
        (["websocket.http.response.start"], ["raised"]),
    ],
)
async def test_an_accepted_websocket_that_would_change_the_session_is_closed_if_it_is_open(node, before, says):
    """The client can come back; where the application has ended it, one more message would be the server's error."""

    async def app(scope, receive, send):
        await receive()
        for kind in before:
            await send({"type": kind})
        scope["session"]["a"] = 1

    assert (await talk(app, node))[len(before) :] == says


async def test_a_websocket_that_the_client_has_left_is_not_closed_once_more(node):
    """There is nobody to tell; some servers raise where it is tried."""

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        assert (await receive())["type"] == "websocket.disconnect"
        scope["session"]["a"] = 1

    sent = await talk(app, node, {"type": "websocket.disconnect", "code": 1001})
    assert sent == [("websocket.accept", None), "raised"]


def test_the_setting_of_the_node_counts_where_the_adapter_says_nothing(node):
    """One variable for all applications of an image; an argument for the one that differs."""
    assert client_of(look, node).get("/", headers=COOKIE).status_code == 503
    with node_that_misses_a_peer(Config(on_unavailable="empty")) as lenient:
        assert client_of(look, lenient).get("/", headers=COOKIE).status_code == 200
        assert client_of(look, lenient, on_unavailable="error").get("/", headers=COOKIE).status_code == 503


@pytest.mark.parametrize("make", [SessionMiddleware, StarletteMiddleware, GossipSessions])
def test_a_setting_that_is_neither_is_refused_when_the_application_is_built(make):
    """Found by the first outage it would be found too late."""
    app = Flask("shop") if make is GossipSessions else look
    with pytest.raises(ConfigError, match="on_unavailable='none' must be 'error' or 'empty'"):
        make(app, node=lone_node(), on_unavailable="none")


def test_a_session_is_available_again_as_soon_as_it_can_be_had(backend):
    """Under the cookie that the browser has kept."""
    with node_that_misses_a_peer() as one:
        client = client_of(append, one, backend, on_unavailable="empty")
        client.get("/")
        reader = client_of(look, one, backend, on_unavailable="empty")
        assert reader.get("/", headers=COOKIE).text == "True None 0"
        reader.cookies = client.cookies
        assert reader.get("/").text == "False None 1"


# --- Starlette ----------------------------------------------------------------------------------------------


def starlette_client(node, backend):
    async def view(request: Request) -> JSONResponse:
        return JSONResponse({"session": request.session, "unavailable": request.session.unavailable})

    async def login(request: Request) -> JSONResponse:
        request.session["user_id"] = 42
        return JSONResponse({})

    routes = [Route("/view", view), Route("/login", login)]
    middleware = Middleware(StarletteMiddleware, node=node, on_unavailable="empty")
    return TestClient(Starlette(routes=routes, middleware=[middleware]), backend=backend)


def test_starlettes_pages_stay_up_and_its_logins_are_told_to_come_back(node, backend):
    """Starlette makes a 500 of what a view raises, if nobody answers before."""
    client = starlette_client(node, backend)
    cookie = {"cookie": f"session={UNKNOWN_ID}"}
    page, login = client.get("/view", headers=cookie), client.get("/login", headers=cookie)
    assert (page.status_code, page.json()) == (200, {"session": {}, "unavailable": True})
    assert (login.status_code, login.headers["retry-after"]) == (503, "1")
    assert set_cookies(page) == set_cookies(login) == {}
    assert client.get("/view").json() == {"session": {}, "unavailable": False}


# --- Flask --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unreachable", [node_that_misses_a_peer, node_flooded_with_fetches])
def test_flask_refuses_before_any_view_and_hooks_of_others_do_not_make_it_a_500(unreachable):
    """It may well exist: to run the view without it would show a logged-in user the login page.

    Hooks of other extensions use the session, some after a refusal too; they must not turn it into a 500.
    """
    ran = []
    with unreachable() as node:
        app = Flask("shop")
        app.before_request(lambda: ran.append(flask_session.get("user")))
        app.add_url_rule("/view", view_func=lambda: ran.append("view"))

        @app.after_request
        def remember(response):
            flask_session.setdefault("_remember", "no")
            return response

        GossipSessions(app, node=node)
        client = app.test_client()
        client.set_cookie("session", UNKNOWN_ID)
        response = client.get("/view")
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "1"
    assert set_cookies(response) == {}
    assert not ran


def flask_client(node, **config):
    app = Flask("shop")
    app.config.update(config)
    GossipSessions(app, node=node, on_unavailable="empty")

    @app.before_request
    def keep_logged_in():
        flask_session.permanent = True

    @app.get("/view")
    def view():
        return {"session": dict(flask_session), "unavailable": flask_session.unavailable}

    @app.get("/login")
    def login():
        flask_session["user_id"] = 42
        return ""

    client = app.test_client()
    client.set_cookie("session", UNKNOWN_ID)
    return client


@pytest.mark.parametrize("config", [{}, {"TESTING": True}])
def test_flasks_pages_stay_up_and_its_logins_are_told_to_come_back(node, config):
    """Many applications make every session permanent before every request; that alone must not refuse them all."""
    client = flask_client(node, **config)
    page, login = client.get("/view"), client.get("/login")
    assert (page.status_code, page.json) == (200, {"session": {}, "unavailable": True})
    assert page.headers["Cache-Control"] == "no-store"
    assert page.headers["Vary"] == "Cookie"
    assert (login.status_code, login.headers["Retry-After"]) == (503, "1")
    assert set_cookies(page) == set_cookies(login) == {}
    assert client.get_cookie("session").value == UNKNOWN_ID
    assert not node.node.records


def test_a_hook_that_writes_after_the_refusal_does_not_make_it_a_500(node):
    """Extensions keep notes in the session after every request."""
    client = flask_client(node)

    @client.application.after_request
    def remember(response):
        if response.status_code == 503:
            flask_session["_remember"] = "set"
        return response

    login = client.get("/login")
    assert (login.status_code, login.headers["Retry-After"]) == (503, "1")
    assert set_cookies(login) == {}
    assert not node.node.records


def note_visit(response):
    flask_session["_visited"] = "now"
    return response


@pytest.mark.parametrize("config", [{}, {"TESTING": True}, {"DEBUG": True}])
def test_a_hook_after_the_view_that_lets_the_refusal_pass_makes_the_answer_503(node, config, caplog):
    """Flask asks no error handler there: it would log a traceback for each visitor, and answer 500."""
    client = flask_client(node, **config)
    client.application.after_request(note_visit)
    response = client.get("/view")
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert set_cookies(response) == {}
    assert not caplog.records
    assert not node.node.records


def test_a_hook_after_the_view_may_catch_the_refusal(node):
    """It was told, and can do without; the page stays up."""
    client = flask_client(node)

    @client.application.after_request
    def note_visit_if_possible(response):
        with contextlib.suppress(SessionUnavailable):
            return note_visit(response)
        return response

    assert client.get("/view").status_code == 200


@pytest.mark.parametrize("path", ["/login", "/view"], ids=["of a view", "of a hook after it"])
def test_the_applications_own_handler_answers_for_a_refused_change(node, path):
    """Registered afterwards it is asked first, wherever the change was; what it writes into the session is no error."""
    client = flask_client(node)
    client.application.after_request(note_visit)

    @client.application.errorhandler(SessionUnavailable)
    def try_again(error):
        flask_session["flashes"] = ["try again"]
        return "try again", 409

    response = client.get(path)
    assert (response.status_code, response.text) == (409, "try again")
    assert set_cookies(response) == {}


def test_a_handler_that_fails_while_it_answers_for_a_hook_is_seen(node):
    """Its bug is the application's, and is answered as Flask answers bugs."""
    client = flask_client(node)
    client.application.after_request(note_visit)
    client.application.register_error_handler(SessionUnavailable, lambda error: 1 / 0)
    assert client.get("/view").status_code == 500


def of_another_store(session):
    raise SessionUnavailable("a session of somebody else's, which a view loaded")


@pytest.mark.parametrize("on_unavailable", ["error", "empty"])
def test_what_another_store_could_not_load_is_the_applications_own_to_answer(on_unavailable):
    """The visitor's session is there: a 503 for the whole page would hide a bug, and drop what the view had changed."""
    one = lone_node()
    with pytest.raises(SessionUnavailable, match="somebody else's"):
        client_of(of_another_store, one, on_unavailable=on_unavailable).get("/")

    app = Flask("shop")
    GossipSessions(app, node=one, on_unavailable=on_unavailable)

    @app.get("/view")
    def view():
        flask_session["seen"] = True
        of_another_store(flask_session)

    failed = app.test_client().get("/view")
    assert failed.status_code == 500
    assert "session" in set_cookies(failed), "what the view changed is saved, as with any other error"
    app.testing = True
    with pytest.raises(SessionUnavailable, match="somebody else's"):
        app.test_client().get("/view")


def test_flasks_503_is_the_applications_own_page_if_it_has_one(node):
    """With either setting: a visitor sees one kind of error page, the shop's."""
    client = flask_client(node)
    client.application.register_error_handler(503, lambda error: ("The shop is short of breath", 503))
    client.application.after_request(note_visit)
    assert client.get("/login").text == "The shop is short of breath"
    assert client.get("/view").text == "The shop is short of breath"


def test_what_a_streamed_page_of_flasks_would_change_is_an_error_that_the_server_sees(node):
    """The status has left: nothing can become a 503 any more."""
    client = flask_client(node)

    @client.application.get("/stream")
    def stream():
        @stream_with_context
        def body():
            yield "the first part"
            flask_session["user_id"] = 42

        return body()

    with pytest.raises(SessionUnavailable):
        _ = client.get("/stream").text
    assert not node.node.records
