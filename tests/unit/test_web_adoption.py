"""The day of the change: browsers still send the framework's own cookie, and nobody is logged out."""

import asyncio
import logging
import uuid
from datetime import UTC, datetime, timedelta

import litestar.testing
import pytest
import quart
from flask import Flask, request, session
from litestar import Litestar
from litestar.middleware.session.client_side import CookieBackendConfig
from markupsafe import Markup
from quart import Quart
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware as StarlettesOwn
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from gossipsess.config import Config
from gossipsess.errors import ConfigError
from gossipsess.model.delta import not_covered
from gossipsess.model.identity import is_session_id
from gossipsess.model.table import TOMBSTONE_MS
from gossipsess.service import lone_node
from gossipsess.web.flask import GossipSessions as FlaskSessions
from gossipsess.web.litestar import GossipSessionConfig
from gossipsess.web.quart import GossipSessions as QuartSessions
from gossipsess.web.starlette import SessionMiddleware
from tests.unit.web_support import UNKNOWN_ID, node_flooded_with_fetches, set_cookies

KEY = "example"


class Starlettes:
    """One application with Starlette's sessions, before and after the change."""

    client = TestClient

    def __init__(self, node=None, backend="asyncio", secret_key=KEY, **settings):
        async def view(request: Request) -> JSONResponse:
            return JSONResponse(dict(request.session))

        async def update(request: Request) -> JSONResponse:
            request.session.update(await request.json())
            return JSONResponse(dict(request.session))

        async def clear(request: Request) -> JSONResponse:
            request.session.clear()
            return JSONResponse({})

        async def untouched(request: Request) -> JSONResponse:
            return JSONResponse({})

        routes = [Route(f"/{one.__name__}", one, methods=["GET", "POST"]) for one in (view, update, clear, untouched)]
        named = {"secret_key": secret_key, **settings}
        middleware = Middleware(SessionMiddleware, node=node, **named) if node else Middleware(StarlettesOwn, **named)
        self.app, self.backend = Starlette(routes=routes, middleware=[middleware]), backend

    def asks(self, path, cookies, json=None):
        """Return the JSON that answers, and the cookies it sets."""
        client = self.client(self.app, backend=self.backend)
        header = {"cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())} if cookies else {}
        answer = client.post(path, json=json, headers=header)
        return answer.json() if answer.is_success else answer.status_code, cookies_of(answer)


class Flasks:
    """The same with Flask's."""

    framework, sessions = Flask, FlaskSessions

    def __init__(self, node=None, backend="", secret_key=KEY, max_age=None, fallbacks=None, **settings):
        self.app = self.framework("shop")
        self.app.secret_key = secret_key
        if max_age is not None:
            self.app.permanent_session_lifetime = timedelta(seconds=max_age)
        if fallbacks:
            self.app.config["SECRET_KEY_FALLBACKS"] = fallbacks
        if node:
            self.sessions(self.app, node=node, **settings)
        self.adds_views()

    def adds_views(self):
        self.app.add_url_rule("/view", "view", lambda: dict(session), methods=["POST"])
        self.app.add_url_rule(
            "/update", "update", lambda: session.update(request.json) or dict(session), methods=["POST"]
        )
        self.app.add_url_rule("/clear", "clear", lambda: session.clear() or {}, methods=["POST"])
        self.app.add_url_rule("/untouched", "untouched", dict, methods=["POST"])

    def asks(self, path, cookies, json=None):
        """Return the JSON that answers, and the cookies it sets."""
        client = self.app.test_client()
        for name, value in cookies.items():
            client.set_cookie(name, value)
        answer = client.post(path, json=json)
        return answer.json if answer.status_code == 200 else answer.status_code, cookies_of(answer)


class Quarts(Flasks):
    """The same with Quart's."""

    framework, sessions = Quart, QuartSessions

    def adds_views(self):
        async def view():
            return dict(quart.session)

        async def update():
            quart.session.update(await quart.request.json)
            return dict(quart.session)

        async def clear():
            quart.session.clear()
            return {}

        async def untouched():
            return {}

        for one in (view, update, clear, untouched):
            self.app.add_url_rule(f"/{one.__name__}", view_func=one, methods=["POST"])

    def asks(self, path, cookies, json=None):
        """Return the JSON that answers, and the cookies it sets."""

        async def asking():
            client = self.app.test_client()
            for name, value in cookies.items():
                client.set_cookie("localhost", name, value)
            answer = await client.post(path, json=json)
            return await answer.json if answer.status_code == 200 else answer.status_code, cookies_of(answer)

        return asyncio.run(asking())


class Litestars(Starlettes):
    """The same with Litestar's, whose cookies are sealed."""

    client = litestar.testing.TestClient

    def __init__(self, node=None, backend="asyncio", secret_key=KEY, **settings):
        @litestar.post("/view")
        async def view(request: litestar.Request) -> dict:
            return dict(request.session)

        @litestar.post("/update")
        async def update(request: litestar.Request) -> dict:
            request.session.update(await request.json())
            return dict(request.session)

        @litestar.post("/clear")
        async def clear(request: litestar.Request) -> dict:
            request.clear_session()
            return {}

        secret = secret_key.encode().ljust(16) if secret_key else None
        if node:
            middleware = GossipSessionConfig(node=node, secret=secret, **settings).middleware
        else:
            middleware = CookieBackendConfig(secret, **settings).middleware
        handlers = [view, update, clear]
        named = {"openapi_config": None, "logging_config": None}
        self.app, self.backend = Litestar(handlers, middleware=[middleware], **named), backend


def cookies_of(answer):
    return {name: line.split(";")[0].partition("=")[2] for name, line in set_cookies(answer).items()}


FRAMEWORKS = {
    "starlette-asyncio": ("asyncio", Starlettes),
    "starlette-trio": ("trio", Starlettes),
    "flask": ("", Flasks),
    "quart": ("", Quarts),
    "litestar": ("asyncio", Litestars),
}


@pytest.fixture(params=FRAMEWORKS.values(), ids=FRAMEWORKS)
def make(request):
    """Builds the application; without a node as it was before the change."""
    backend, framework = request.param
    return lambda *args, **named: framework(*args, backend=backend, **named)


@pytest.fixture(params=[one for one in FRAMEWORKS if one != "litestar"])
def noting(request):
    """The same of the frameworks where it is known whether a request has used its session."""
    backend, framework = FRAMEWORKS[request.param]
    return lambda *args, **named: framework(*args, backend=backend, **named)


def old_cookie(make, values=None, **settings):
    _, cookies = make(**settings).asks("/update", {}, values or {"user_id": 42, "cart": ["book"]})
    return cookies


def test_a_change_of_the_secret_loses_no_session_that_a_cookie_has_become(make):
    """Its id follows from the secret; a browser that was shown no page of the session still has the former cookie."""
    old = old_cookie(make)
    before = lone_node(Config(secret="a" * 16))
    after = lone_node(Config(secret="b" * 16, secret_fallbacks=("a" * 16,)))
    make(before).asks("/view", old)  # an answer that never came to the browser
    for record in before.node.records.values():
        after.node.replica.sessions.table.merge(not_covered(record, {}), after.node.time_ms(), 0.0)
    seen, cookies = make(after).asks("/view", old)
    assert seen == {"user_id": 42, "cart": ["book"]}
    assert make(after).asks("/view", cookies)[0] == seen


def test_who_was_logged_in_before_the_change_stays_so(make, node):
    """Under an id of ours that takes the place of the old cookie, with what the session held."""
    old = old_cookie(make)
    app = make(node)
    seen, cookies = app.asks("/view", old)
    assert seen == {"user_id": 42, "cart": ["book"]}
    assert set(cookies) == {"session"}
    assert is_session_id(cookies["session"])
    assert app.asks("/view", cookies) == (seen, {})
    assert node.store.load(cookies["session"]).user == "42", "a revocation finds it"


def test_a_first_request_may_write_at_once(make, node):
    app = make(node)
    seen, cookies = app.asks("/update", old_cookie(make), {"cart": ["book", "pen"]})
    assert set(cookies) == {"session", "session-v"}
    assert app.asks("/view", cookies)[0] == seen == {"user_id": 42, "cart": ["book", "pen"]}


def test_requests_that_come_together_with_the_old_cookie_have_one_session(make, node):
    """A page with ten images: none of them has seen the cookie that another one's answer sets."""
    old, app = old_cookie(make), make(node)
    answers = [app.asks("/update", old, {f"image-{number}": number}) for number in range(3)]
    assert len({cookies["session"] for _, cookies in answers}) == 1
    assert app.asks("/view", answers[0][1])[0] == {
        "user_id": 42,
        "cart": ["book"],
        "image-0": 0,
        "image-1": 1,
        "image-2": 2,
    }


def test_a_request_that_does_not_use_the_session_says_nothing_of_it(noting, node):
    """A cache may keep that page; the next one that does use it sets the cookie."""
    old, app = old_cookie(noting), noting(node)
    assert app.asks("/untouched", old) == ({}, {})
    assert set(app.asks("/view", old)[1]) == {"session"}


def respelled(value):
    """Return another text of the same signature: the last character of its base64 has bits that say nothing."""
    if value.count(".") < 2:
        return f"!{value}"  # a sealed one: whatever is not of base64 says nothing
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return value[:-1] + alphabet[alphabet.index(value[-1]) ^ 1]


@pytest.mark.parametrize("logs_out", ["by clearing", "by logging in as another"])
def test_once_logged_out_a_copy_of_the_old_cookie_is_nothing(make, node, logs_out):
    """Stock cookies have no logout at all; ours must not bring one back that it has adopted, however it is spelled."""
    old, app = old_cookie(make), make(node)
    path, change = ("/clear", {}) if logs_out == "by clearing" else ("/update", {"user_id": 43})
    _, cookies = app.asks("/view", old)
    app.asks(path, cookies, change)
    for copy in (old["session"], respelled(old["session"])):
        assert app.asks("/view", {"session": copy}) == ({}, {})
    changed, cookies = app.asks("/update", {"session": respelled(old["session"])}, {"a": 1})
    assert changed == {"a": 1}
    assert app.asks("/view", cookies)[0] == {"a": 1}, "it begins anew, like anybody"


def test_it_is_nothing_after_the_tombstone_is_forgotten_either(make, node):
    """A logout is remembered for a day, and the cookie would be valid for weeks."""
    old, app = old_cookie(make), make(node)
    app.asks("/clear", app.asks("/view", old)[1])
    sessions, now_s = node.node.replica.sessions, node.node.now()
    sessions.clock.offset_ms += TOMBSTONE_MS + 1000
    for _ in sessions.table.expired(sessions.clock.time_ms(now_s), now_s):
        pass  # as once a second; a test is faster
    assert not any(record.tombstone for record in sessions.table.records.values())
    assert app.asks("/view", old) == ({}, {})


def test_a_respelled_copy_is_the_same_cookie_before_that_too(make, node):
    """Else whoever has one cookie could make four sessions of it."""
    old, app = old_cookie(make), make(node)
    assert make().asks("/view", {"session": respelled(old["session"])})[0]["user_id"] == 42, "the framework takes it"
    first, second = (app.asks("/view", {"session": copy})[1] for copy in (old["session"], respelled(old["session"])))
    assert first == second


def test_a_first_request_may_log_out(make, node):
    old, app = old_cookie(make), make(node)
    assert set(app.asks("/clear", old)[1]) == {"session", "session-v"}
    assert app.asks("/view", old) == ({}, {})


@pytest.mark.parametrize("how", ["damaged", "another key", "garbage", "with an id"])
def test_what_is_not_authentic_is_no_session(make, node, how):
    """Nothing is stored for it, nothing parsed, and the visitor is anybody."""
    value = old_cookie(make, secret_key="another" if how == "another key" else KEY)["session"]
    cookie = {
        "damaged": {"session": "f" + value[1:]},
        "garbage": {"session": "a.b.c"},
        "with an id": {"session": UNKNOWN_ID},
    }.get(how, {"session": value})
    app = make(node, max_age=3600)
    assert app.asks("/view", cookie) == ({}, {})
    assert not node.node.records


@pytest.mark.parametrize("framework", [Starlettes, Flasks, Quarts])
def test_what_is_too_old_is_no_session(framework, node):
    assert framework(node, max_age=-1).asks("/view", old_cookie(framework)) == ({}, {})
    assert not node.node.records


@pytest.mark.parametrize("switch", ["argument", "setting", "no key"])
def test_adoption_can_be_switched_off(make, switch):
    """When the last old cookie has ended."""
    node = lone_node(Config(adopt="off" if switch == "setting" else "on"))
    settings = {"argument": {"adopt": False}, "no key": {"secret_key": None}}.get(switch, {})
    assert make(node, **settings).asks("/view", old_cookie(make)) == ({}, {})
    assert not node.node.records


def test_a_switch_that_is_none_is_refused(make, node):
    """GOSSIPSESS_ADOPT has words, and any word is true."""
    with pytest.raises(ConfigError, match="adopt='off' must be True, False"):
        make(node, adopt="off").asks("/view", {})


def test_what_cannot_travel_is_left_out_with_a_warning(make, node, caplog):
    """An error page for everybody who happens to have such a value would be worse than its loss."""
    old = old_cookie(make, {"user_id": 42, "k" * 300: "secret", "\0reserved": 1})
    with caplog.at_level(logging.WARNING, "gossipsess"):
        assert make(node).asks("/view", old)[0] == {"user_id": 42}
    assert "without session['kkk" in caplog.text
    assert "too large" in caplog.text
    assert "without session['\\x00reserved']: a str cannot travel" in caplog.text
    assert "secret" not in caplog.text
    assert old["session"] not in caplog.text


def test_a_user_who_was_logged_out_everywhere_does_not_come_back_by_an_old_cookie(make, node):
    """The browser that nobody has opened since is one of the devices that were meant."""
    old = old_cookie(make)
    node.store.revoke("42")
    assert make(node).asks("/view", old) == ({}, {})


def test_where_it_cannot_be_known_whether_a_cookie_is_spent_the_answer_is_503(make):
    """To guess would be a logout, or a login, that nobody asked for; the cookie stays."""
    old = old_cookie(make)
    with node_flooded_with_fetches() as node:
        assert make(node).asks("/view", old) == (503, {})


def test_login_keys_say_whose_an_adopted_session_is(make, node):
    old = old_cookie(make, {"member": "kim"})
    _, cookies = make(node, login_keys=("member",)).asks("/view", old)
    assert node.store.load(cookies["session"]).user == "kim"


@pytest.mark.parametrize("framework", [Flasks, Quarts])
def test_former_keys_count_as_they_do_in_the_framework(framework, node):
    old = old_cookie(framework, secret_key="former")
    assert framework(node, fallbacks=["former"]).asks("/view", old)[0]["user_id"] == 42


def test_values_of_flasks_own_types_keep_them(node):
    """Its cookies carry them under tags; ours too."""
    values = {
        "tuple": (1, 2),
        "bytes": b"\0\xff",
        "uuid": uuid.UUID(int=7),
        "markup": Markup("<b>"),
        "at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "plain": {"a": [1, None, True, 1.5]},
    }
    former, app = Flasks().app, Flasks(node).app

    @former.get("/put")
    def put():
        session.update(values)
        return ""

    client, later = former.test_client(), app.test_client()
    client.get("/put")
    later.set_cookie("session", client.get_cookie("session").value)
    with later as kept:
        kept.post("/view")
        assert dict(session) == values
        assert {key: type(session[key]) for key in values} == {key: type(value) for key, value in values.items()}


def test_starlettes_own_cookies_without_an_end_are_adopted_for_a_month(node, monkeypatch):
    """A mark that nothing ends would fill the memory."""
    import itsdangerous

    old = old_cookie(Starlettes, max_age=None)
    now = itsdangerous.TimestampSigner.get_timestamp
    for days, adopted in ((30, True), (32, False)):
        later = lambda self, days=days: now(self) + days * 24 * 3600  # noqa: E731
        monkeypatch.setattr(itsdangerous.TimestampSigner, "get_timestamp", later)
        assert bool(Starlettes(lone_node(), max_age=None).asks("/view", old)[0]) is adopted
