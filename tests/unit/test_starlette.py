"""The drop-in for Starlette's session middleware: the application stays as it is."""

import json

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware as StarlettesOwn
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient

from gossipsess.config import Config
from gossipsess.errors import ConfigError, UnreplicableValue
from gossipsess.service import lone_node
from gossipsess.web import starlette as starlette_web
from gossipsess.web.starlette import SessionMiddleware, StarletteWebSession
from tests.unit.web_support import TestUser, fill, set_cookies


async def view(request: Request) -> JSONResponse:
    return JSONResponse({"session": request.session})


async def update(request: Request) -> JSONResponse:
    request.session.update(await request.json())
    return JSONResponse({"session": request.session})


async def clear(request: Request) -> JSONResponse:
    request.session.clear()
    return JSONResponse({"session": request.session})


async def rotate(request: Request) -> JSONResponse:
    request.session.rotate()
    return JSONResponse({"session": request.session})


async def untouched(request: Request) -> JSONResponse:
    return JSONResponse({})


async def bad(request: Request) -> JSONResponse:
    request.session["good"] = "kept"
    refusal = ""
    try:
        request.session["user"] = {"profile": TestUser()}
    except UnreplicableValue as error:
        refusal = str(error)
    return JSONResponse({"refusal": refusal, "session": request.session})


async def crash(request: Request) -> JSONResponse:
    request.session["cart"].append(TestUser())
    return JSONResponse({})


async def socket(websocket) -> None:
    await websocket.accept()
    await websocket.send_json({"session": websocket.session})
    await websocket.close()


ROUTES = [
    Route("/view", view),
    Route("/update", update, methods=["POST"]),
    Route("/clear", clear, methods=["POST"]),
    Route("/rotate", rotate, methods=["POST"]),
    Route("/untouched", untouched),
    Route("/bad", bad),
    Route("/crash", crash),
    WebSocketRoute("/socket", socket),
]


def client_of(backend="asyncio", middleware=SessionMiddleware, *, base_url="http://testserver", **settings):
    if middleware is SessionMiddleware:
        settings = {"node": lone_node(), **settings}
    app = Starlette(routes=ROUTES, middleware=[Middleware(middleware, **settings)])
    return TestClient(app, base_url=base_url, backend=backend)


@pytest.mark.parametrize("middleware", [SessionMiddleware, StarlettesOwn])
def test_an_application_sees_what_it_sees_with_starlettes_own_middleware(backend, middleware):
    """One script against both: any difference would be a change that the application has to make."""
    client = client_of(backend, middleware, secret_key="example")
    seen = [
        client.get("/view").json(),
        client.post("/update", json={"some": "data", "more": [1]}).json(),
        client.get("/view").json(),
        client.post("/update", json={"some": "other"}).json(),
    ]
    with client.websocket_connect("/socket") as websocket:
        seen.append(websocket.receive_json())
    seen += [client.post("/clear").json(), client.get("/view").json()]
    full = {"session": {"some": "data", "more": [1]}}
    other = {"session": {"some": "other", "more": [1]}}
    assert seen == [{"session": {}}, full, full, other, other, {"session": {}}, {"session": {}}]
    assert "session" not in client.cookies


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"max_age": None},
        {"max_age": 60, "path": "/", "same_site": "strict", "https_only": True},
        {"session_cookie": "sid", "domain": "testserver.local", "same_site": "none", "partitioned": True},
    ],
)
def test_the_cookies_have_the_attributes_that_starlette_gives_them(settings):
    """A changed Path or SameSite breaks logins that worked before."""
    name = settings.get("session_cookie", "session")

    def attributes(middleware):
        client = client_of(middleware=middleware, secret_key="example", **settings)
        lines = set_cookies(client.post("/update", json={"some": "data"}))
        return {cookie: {part.strip() for part in line.split(";")[1:]} for cookie, line in lines.items()}

    starlettes = attributes(StarlettesOwn)[name]
    assert attributes(SessionMiddleware) == {name: starlettes, f"{name}-v": starlettes}


@pytest.mark.parametrize("path", ["/view", "/untouched"])
def test_vary_is_set_where_starlette_sets_it(path):
    """A page without it may be shown to another user; a page with it for nothing cannot be cached."""
    ours, starlettes = (client_of(middleware=one, secret_key="x") for one in (SessionMiddleware, StarlettesOwn))
    assert ours.get(path).headers.get("vary") == starlettes.get(path).headers.get("vary")


def test_arguments_may_be_given_by_position_as_to_starlettes_own():
    async def app(scope, receive, send):
        scope["session"]["a"] = 1
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    middleware = SessionMiddleware(app, "secret", "sid", 60, "/p", "strict", True, None, True, node=lone_node())
    line = set_cookies(TestClient(middleware).get("/"))["sid"]
    assert line.endswith("; path=/p; Max-Age=60; httponly; samesite=strict; secure; partitioned")


@pytest.mark.parametrize(("secret_key", "adopt", "lines"), [("secret", None, 1), ("secret", False, 0), (None, None, 0)])
def test_old_cookies_that_nothing_here_can_read_are_said_so(secret_key, adopt, lines, monkeypatch, caplog):
    """Their visitors are logged out by the change, and nobody would know why."""
    monkeypatch.setattr(starlette_web, "find_spec", lambda name: None)
    SessionMiddleware(Starlette(), secret_key, node=lone_node(), adopt=adopt)
    assert len(caplog.messages) == lines
    assert "itsdangerous" in caplog.text or not lines


def test_a_session_that_max_age_has_ended_is_gone_even_if_its_cookie_comes():
    client = client_of(max_age=-1)
    cookie = set_cookies(client.post("/update", json={"some": "data"}))["session"]
    assert client.get("/view", headers={"cookie": cookie.partition(";")[0]}).json() == {"session": {}}


HOUR_S, DAY_S = 3600, 24 * 3600


@pytest.mark.parametrize(
    ("settings", "timeouts", "lives_s", "is_over_s"),
    [
        ({}, {}, 13 * DAY_S, 15 * DAY_S),
        ({"max_age": 60 * DAY_S}, {}, 59 * DAY_S, 61 * DAY_S),
        ({"max_age": None}, {}, 30 * DAY_S, 32 * DAY_S),
        ({}, {"idle_timeout_s": HOUR_S}, HOUR_S - 60, HOUR_S + 61),
        ({}, {"absolute_timeout_s": HOUR_S}, HOUR_S - 60, HOUR_S + 1),
    ],
)
def test_a_session_lives_as_long_as_starlettes_own_unless_the_settings_say_otherwise(
    settings, timeouts, lives_s, is_over_s
):
    """Whoever changes one import does not expect that users are logged out after half an hour."""
    for after_s, session in ((lives_s, {"some": "data"}), (is_over_s, {})):
        node = lone_node(Config(**timeouts))
        client = client_of(node=node, **settings)
        cookie = set_cookies(client.post("/update", json={"some": "data"}))["session"].partition(";")[0]
        node.node.replica.sessions.clock.offset_ms += after_s * 1000
        assert TestClient(client.app).get("/view", headers={"cookie": cookie}).json() == {"session": session}


def test_a_value_that_cannot_travel_is_refused_where_it_is_assigned_and_the_rest_is_kept(backend):
    """Found in the request that made it, and by name; not in production when the second replica is added."""
    client = client_of(backend)
    answer = client.get("/bad").json()
    assert "session['user']" in answer["refusal"]
    assert "TestUser" in answer["refusal"]
    assert answer["session"] == {"good": "kept"}
    assert client.get("/view").json() == {"session": {"good": "kept"}}


def test_a_value_that_cannot_travel_inside_a_list_fails_its_request_and_changes_nothing(backend):
    client = client_of(backend)
    client.post("/update", json={"cart": ["book"]})
    with pytest.raises(UnreplicableValue, match="TestUser"):
        client.get("/crash")
    assert client.get("/view").json() == {"session": {"cart": ["book"]}}
    visitor = TestClient(client.app, backend=backend, raise_server_exceptions=False, cookies=dict(client.cookies))
    assert visitor.get("/crash").status_code == 500


def test_the_session_is_a_dict_whichever_way_it_is_changed():
    """json.dumps reads a dict's own storage, so the storage has to follow every kind of change."""
    store = lone_node().new_store(StarletteWebSession)
    created = store.create()
    session = created.for_application()
    session["a"] = 1
    session.update(b=2, c=3)
    session |= {"d": [4]}
    session.setdefault("e", {})["f"] = 5
    session["d"].append(6)
    del session["a"]
    assert session.pop("b") == 2
    expected = {"c": 3, "d": [4, 6], "e": {"f": 5}}
    assert isinstance(session, dict)
    assert session == expected
    assert dict(dict.items(session)) == expected
    assert json.loads(json.dumps(session)) == expected
    session.gossipsess["g"] = 7
    assert json.loads(json.dumps(session)) == expected | {"g": 7}
    del session.gossipsess["g"]
    store.commit(created)
    loaded = store.load(created.id)
    again = loaded.for_application()
    assert dict(dict.items(again)) == dict(again) == expected
    assert not again.modified
    again["d"].append(7)
    assert again.modified
    store.invalidate(loaded)
    assert json.dumps(again) == "{}"
    assert not dict.items(again)


@pytest.mark.parametrize(("path", "change"), [("/update", {"user_id": 42}), ("/rotate", {})])
def test_a_login_moves_the_session_to_a_new_id(backend, path, change):
    """Starlette's own session is all in its cookie; here the id must change, or who knows it shares the login."""
    client = client_of(backend)
    client.post("/update", json={"cart": ["book"]})
    before = dict(client.cookies)
    answer = client.post(path, json=change)
    assert set(set_cookies(answer)) == {"session", "session-v"}
    assert client.cookies["session"] != before["session"]
    assert answer.json() == client.get("/view").json() == {"session": {"cart": ["book"], **change}}
    thief = TestClient(client.app, backend=backend, cookies=before)
    assert thief.get("/view").json() == {"session": {}}


def test_loading_a_session_does_not_count_as_using_it():
    """Else every page of a logged-in user would vary by cookie, and no cache could keep one."""
    client = client_of()
    client.post("/update", json={"some": "data"})
    assert "vary" not in client.get("/untouched").headers
    assert client.get("/view").headers["vary"] == "Cookie"


def test_a_session_that_cannot_be_stored_for_lack_of_memory_makes_the_answer_503(backend):
    """The page of a successful login, and no login: the visitor would be sent in circles. Others stay logged in."""
    node = lone_node(Config(memory_limit_mb=1))
    known = client_of(backend, node=node)
    known.post("/update", json={"cart": ["book"]})
    fill(node)
    answer = client_of(backend, node=node).post("/update", json={"user_id": 42})
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert set_cookies(answer) == {}
    login = known.post("/update", json={"user_id": 42})
    assert set(set_cookies(login)) == {"session", "session-v"}
    assert login.json() == known.get("/view").json() == {"session": {"cart": ["book"], "user_id": 42}}


async def test_a_node_that_cannot_start_is_told_to_the_server_once():
    """Starlette answers an error in its startup with a failure of its own; servers take a second one for a bug."""
    sent = []

    async def send(message):
        sent.append(message["type"])

    async def receive():
        return {"type": "lifespan.startup"}

    config = Config(bind="192.0.2.1", secret="s" * 16)
    with pytest.raises(ConfigError):
        await SessionMiddleware(Starlette(), config=config)({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.failed"]


def test_who_only_reads_stays_logged_in_as_long_as_with_the_starlette_that_is_here():
    """Before 1.0 its own set the cookie anew with every response, since then only with those that wrote."""
    stock = TestClient(
        Starlette(
            routes=[Route("/put", lambda request: JSONResponse(request.session.update(a=1))), Route("/view", view)],
            middleware=[Middleware(StarlettesOwn, secret_key="example")],
        )
    )
    stock.get("/put")
    rolls = bool(set_cookies(stock.get("/view")))
    node = lone_node()
    node.node.replica.sessions.clock.offset_ms -= 100_000  # what is written now was written 100 seconds ago
    for max_age, there, renewed in ((90, rolls, rolls), (390, True, rolls), (410, True, False)):
        client = client_of(node=node, max_age=max_age)
        client.post("/update", json={"some": "data"})
        answer = client.get("/view")
        assert answer.json() == {"session": {"some": "data"} if there else {}}
        assert set(set_cookies(answer)) == ({"session"} if renewed else set())
        client.cookies.clear()
