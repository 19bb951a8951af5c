"""Templates of the drop-ins: Jinja2 looks for an attribute before it looks for a key, and must find the application's.

Real applications with real Jinja2 templates, as they were written for the framework's own sessions.
"""

import asyncio
from collections.abc import Callable

import flask
import jinja2
import pytest
import quart
from flask.sessions import SessionMixin
from litestar import Litestar, MediaType
from litestar import Request as LitestarRequest
from litestar import get as litestar_get
from litestar.testing import TestClient as LitestarClient
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware import sessions as starlettes_own
from starlette.requests import Request
from starlette.routing import Route
from starlette.templating import Jinja2Templates
from starlette.testclient import TestClient

import gossipsess.web.flask
import gossipsess.web.quart
from gossipsess.service import NodeService, lone_node
from gossipsess.web.facade import OURS
from gossipsess.web.flask_like import FlaskWebSession
from gossipsess.web.litestar import GossipSessionConfig, LitestarWebSession
from gossipsess.web.quart import QuartWebSession
from gossipsess.web.session import WebSession
from gossipsess.web.starlette import SessionMiddleware, StarletteWebSession

Render = Callable[[Callable[[object], object], str], list[tuple[str, str]]]
"""Takes what each request does to the session, and a template; returns the page and the id cookie of two requests."""


def _flask(node: NodeService, act, template: str) -> list[tuple[str, str]]:
    app = flask.Flask("shop")
    gossipsess.web.flask.GossipSessions(app, node=node)

    @app.get("/")
    def view() -> str:
        act(flask.session)
        return flask.render_template_string(template)

    client = app.test_client()
    pages = [client.get("/").text for _ in range(2)]
    return [(page, client.get_cookie("session").value) for page in pages]


def _quart(node: NodeService, act, template: str) -> list[tuple[str, str]]:
    app = quart.Quart("shop")
    gossipsess.web.quart.GossipSessions(app, node=node)

    @app.get("/")
    async def view() -> str:
        act(quart.session)
        return await quart.render_template_string(template)

    async def pages() -> list[tuple[str, str]]:
        client = app.test_client()
        answers = [await (await client.get("/")).get_data(as_text=True) for _ in range(2)]
        [cookie] = [cookie for cookie in client.cookie_jar if cookie.name == "session"]
        return [(answer, cookie.value) for answer in answers]

    return asyncio.run(pages())


def _starlette(node: NodeService, act, template: str) -> list[tuple[str, str]]:
    templates = Jinja2Templates(env=jinja2.Environment(loader=jinja2.DictLoader({"page": template}), autoescape=True))

    async def view(request: Request) -> object:
        act(request.session)
        return templates.TemplateResponse(request, "page", {"session": request.session})

    client = TestClient(Starlette(routes=[Route("/", view)], middleware=[Middleware(SessionMiddleware, node=node)]))
    pages = [client.get("/").text for _ in range(2)]
    return [(page, client.cookies["session"]) for page in pages]


def _litestar(node: NodeService, act, template: str) -> list[tuple[str, str]]:
    page = jinja2.Environment(autoescape=True).from_string(
        template
    )  # where Litestar's engine is depends on its version

    @litestar_get("/", media_type=MediaType.HTML, sync_to_thread=False)
    def view(request: LitestarRequest) -> str:
        act(request.session)
        return page.render(session=request.session)

    client = LitestarClient(Litestar([view], plugins=[GossipSessionConfig(node=node)], openapi_config=None))
    pages = [client.get("/").text for _ in range(2)]
    return [(page, client.cookies["session"]) for page in pages]


DROP_INS = {
    # The framework, what the store has of its sessions, and the class of the framework's own.
    "flask": (_flask, FlaskWebSession, flask.sessions.SecureCookieSession),
    "quart": (_quart, QuartWebSession, quart.sessions.SecureCookieSession),
    "starlette": (_starlette, StarletteWebSession, getattr(starlettes_own, "Session", dict)),  # older: a dict
    "litestar": (_litestar, LitestarWebSession, dict),
}


def public(thing: object) -> set[str]:
    return {name for name in dir(thing) if not name.startswith("_")}


def names_of(web_session: type[WebSession], own: type) -> list[str]:
    """Return every public name of a session of ours that the framework's own session has no attribute of."""
    session = lone_node().new_store(web_session).create()
    names = public(session) | public(session.for_application()) | {"for_application"}
    assert {"id", "token", "cookie", "user", "sid", "record", "login_keys", "unavailable", "assigned"} <= names
    return sorted(names - public(own) - {"gossipsess"})


@pytest.mark.parametrize("name", DROP_INS)
def test_a_template_shows_the_applications_key_whatever_its_name(name):
    """``{{ session.user }}`` is what most applications write, and none of them knows of our attributes."""
    render, web_session, own = DROP_INS[name]
    names = names_of(web_session, own)
    keys = {key: {"name": f"the application's {key}"} for key in names}
    template = "".join(f"[{{{{ session.{key}.name }}}}][{{{{ session['{key}'].name }}}}]" for key in names)
    expected = "".join(f"[the application&#39;s {key}]" * 2 for key in names)
    for page, _ in render(lone_node(), lambda session: session.update(keys), template):
        assert page == expected


@pytest.mark.parametrize("name", DROP_INS)
def test_without_the_key_a_template_shows_nothing_of_what_belongs_in_the_cookie(name):
    """The id in a page is the login in the hands of any script there: HttpOnly would be worth nothing."""
    render, web_session, own = DROP_INS[name]
    names = names_of(web_session, own)
    template = "{% if session.user %}logged in{% endif %}"
    template += "".join(f"{{{{ session.{key} }}}}{{{{ session['{key}'] }}}}" for key in names if key not in OURS)
    dump = "{{ session }}{{ session.__dict__ }}" + "".join(f"{{{{ session.{key} }}}}" for key in OURS)

    def act(session) -> None:
        session["cart"] = ["book"]
        session.user = "kim"

    for page, session_id in render(lone_node(), act, template + "|" + dump):
        nothing, _, dumped = page.partition("|")
        assert nothing == ""
        assert len(session_id) == 32
        assert "cart" in dumped
        assert session_id not in dumped


@pytest.mark.parametrize("name", DROP_INS)
def test_an_application_that_knows_us_has_the_session_itself(name):
    """What it may want is at hand under the documented names; all of it behind the one name that nobody else uses."""
    render, web_session, own = DROP_INS[name]
    seen = []

    def act(session) -> None:
        assert isinstance(session, SessionMixin if own.__module__.startswith("flask") else dict)
        session.user = "kim"
        session["cart"] = ["book"]
        session.counter_of("visits").add()
        itself = session.gossipsess
        assert type(itself) is web_session
        assert not hasattr(session, "user")
        assert not hasattr(session, "id")
        seen.append((itself.user, itself.id, {key: getattr(session, key) == getattr(itself, key) for key in OURS}))

    _, (page, session_id) = render(lone_node(), act, "{{ session.gossipsess.user }} {{ session.stale }}")
    assert page == "kim False"
    alike = dict.fromkeys(OURS, True)
    assert seen[1] == ("kim", session_id, alike)
    assert seen[0][0] == "kim"


@pytest.mark.parametrize("name", DROP_INS)
def test_what_the_frameworks_own_session_has_is_there(name):
    """Applications and extensions call it; a mapping alone would end them with an AttributeError."""
    render, _, own = DROP_INS[name]
    missing: list[str] = []
    extra = {"on_update", "fromkeys"}  # of Werkzeug's dict that calls back, and of the class dict
    render(
        lone_node(),
        lambda session: missing.extend(public(own) - public(session) - extra) or session.update(cart=1),
        "{{ session.cart }}",
    )
    assert missing == []
