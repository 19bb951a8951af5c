"""Whose a web session is, by the keys that frameworks keep the user in; and ending all of a user's sessions."""

import pytest
from flask import Flask, session
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from gossipsess import Confirmed, Revoked
from gossipsess.config import LOGIN_KEYS, Config
from gossipsess.errors import ConfigError
from gossipsess.model.identity import sid_of
from gossipsess.model.record import empty_record
from gossipsess.service import lone_node
from gossipsess.web.adapter import save
from gossipsess.web.flask import GossipSessions
from gossipsess.web.session import WebSession
from gossipsess.web.starlette import SessionMiddleware, revoke

NEW_ID = "0" * 32


def web_session() -> WebSession:
    return WebSession(NEW_ID, empty_record(sid_of(NEW_ID)), created_at=0, accessed_at=0)


@pytest.mark.parametrize("key", LOGIN_KEYS)
@pytest.mark.parametrize(("value", "user"), [(42, "42"), ("kim", "kim"), (None, None), ("", None), ("k" * 257, None)])
def test_a_login_key_says_whose_the_session_is(key, value, user):
    """Applications that log in as they always did can revoke; what names nobody must not fail their login."""
    one = web_session()
    one[key] = value
    assert one.user == user
    del one[key]
    assert one.user is None


def test_a_logout_that_leaves_the_cart_leaves_nobodys_session():
    """The next one to revoke that user must not empty a stranger's cart."""
    one = web_session()
    one.update({"user_id": 42, "cart": ["book"]})
    one.pop("user_id")
    assert (one.user, dict(one)) == (None, {"cart": ["book"]})
    one["user_id"] = 43
    one.clear()
    assert (one.user, dict(one)) == (None, {})


def test_of_two_login_keys_the_one_that_stays_counts():
    """Flask-Login's beside the application's own."""
    one = web_session()
    one["_user_id"] = "42"
    one["user_id"] = 42
    del one["_user_id"]
    assert one.user == "42"


def test_an_application_with_a_key_of_its_own_says_itself_whose_the_session_is():
    """Its login is one too, and the id changes."""
    store = lone_node().new_store(WebSession)
    one = store.create()
    one["cart"] = 1
    store.commit(one)
    one["account"] = 7
    assert not one.rotates
    one.user = "7"
    assert one.rotates
    one.user = None
    assert not one.rotates


@pytest.mark.parametrize("by", ["setting", "argument"])
def test_the_login_keys_are_the_applications_to_say(by):
    """One with a key of its own would else have to remember to rotate; and ``user_id`` may be no login in it."""
    keys = ("account", "member")
    node = lone_node(Config(login_keys=keys) if by == "setting" else Config(login_keys=()))
    app, sessions = flask_app(node, **({"login_keys": keys} if by == "argument" else {}))

    @app.get("/put/<key>/<value>")
    def put(key, value):
        session[key] = value
        return {"user": session.gossipsess.user}

    client = app.test_client()

    def id_after(path):
        client.get(path)
        return client.get_cookie("session").value

    ids = [id_after(f"/put/{key}/1") for key in ("cart", "user_id", "account", "account", "member")]
    assert ids[0] == ids[1] != ids[2] == ids[3] != ids[4]
    assert client.get("/put/member/kim").json == {"user": "kim"}
    assert sessions.revoke("kim").sessions == 1


@pytest.mark.parametrize("keys", ["user_id", ["user_id"], ("",), (1,)])
def test_login_keys_that_are_none_are_refused_at_once(keys):
    """One key without its tuple would watch every letter of it."""
    for make in (GossipSessions, lambda **named: SessionMiddleware(None, **named), Config):
        with pytest.raises(ConfigError, match="login_keys"):
            make(login_keys=keys)


def flask_app(node, **settings):
    app = Flask("shop")
    sessions = GossipSessions(app, node=node, **settings)

    @app.get("/login/<user>")
    def login(user):
        session.clear()
        session["user_id"] = user
        return ""

    @app.get("/who")
    def who():
        return {"who": session.get("user_id"), "user": session.gossipsess.user}

    @app.get("/revoke/<user>")
    def revoke_all(user):
        revoked = sessions.revoke(user)
        assert revoked.outcome == Confirmed(0, 0)
        session["late"] = 1
        return str(revoked.sessions)

    return app, sessions


def test_flask_ends_a_user_on_every_device_the_asking_one_included():
    """What "log out everywhere" and "block this account" are made of; a late write must not bring the session back."""
    app, sessions = flask_app(lone_node())
    phone, laptop, colleague = (app.test_client() for _ in range(3))
    for client, user in ((phone, "42"), (laptop, "42"), (colleague, "43")):
        client.get(f"/login/{user}")
    assert phone.get("/who").json == {"who": "42", "user": "42"}
    assert laptop.get("/revoke/42").text == "2"
    assert [client.get("/who").json["who"] for client in (phone, laptop, colleague)] == [None, None, "43"]
    phone.get("/login/42")
    assert phone.get("/who").json["who"] == "42", "a login afterwards lives"
    assert sessions.revoke(42) == Revoked(1, Confirmed(0, 0)), "as the login key holds it, text or number"


def test_deleting_every_key_ends_the_session_whoever_it_is():
    """An application that names the user itself logs out like any other."""
    store = lone_node().new_store(WebSession)
    one = store.create()
    one["account"] = 7
    one.user = "7"
    store.commit(one)
    del one["account"]
    assert save(store, one, "session", None).ended
    only_named = store.create()
    only_named.user = "7"
    store.commit(only_named)
    only_named.user = "8"
    assert not save(store, only_named, "session", None).ended, "nothing was deleted"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_starlette_ends_a_user_on_every_device(backend):
    """From within a handler, which has nothing but its request."""

    async def login(request: Request) -> JSONResponse:
        request.session["user_id"] = 42
        return JSONResponse({})

    async def who(request: Request) -> JSONResponse:
        return JSONResponse(request.session)

    async def end(request: Request) -> JSONResponse:
        return JSONResponse({"ended": (await revoke(request, 42)).sessions})

    routes = [Route("/login", login), Route("/who", who), Route("/revoke", end)]
    app = Starlette(routes=routes, middleware=[Middleware(SessionMiddleware, node=lone_node())])
    phone, laptop = (TestClient(app, backend=backend) for _ in range(2))
    for client in (phone, laptop):
        client.get("/login")
    assert phone.get("/who").json() == {"user_id": 42}
    assert laptop.get("/revoke").json() == {"ended": 2}
    assert [client.get("/who").json() for client in (phone, laptop)] == [{}, {}]


async def test_a_request_that_did_not_come_through_the_middleware_is_told_so():
    """A forgotten line of configuration should say its name."""
    with pytest.raises(RuntimeError, match="SessionMiddleware"):
        await revoke(Request({"type": "http"}), 42)
