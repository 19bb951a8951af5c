"""Every adapter behind one face: a function that sends a path and cookies through the framework's real test client.

A new adapter is one function and one row in `ADAPTERS`; the tests of what all do alike then hold it too.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NamedTuple

import flask
import pytest
import quart
from django.http import HttpResponse
from django.test import Client as DjangoClient
from django.test import override_settings
from django.urls import path as django_path
from litestar import Litestar, MediaType, Request
from litestar import get as litestar_get
from litestar.testing import TestClient as LitestarClient
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from werkzeug.test import Client

import gossipsess.web.asgi
import gossipsess.web.django
import gossipsess.web.flask
import gossipsess.web.litestar
import gossipsess.web.quart
import gossipsess.web.starlette
import gossipsess.web.wsgi
import tests.unit.django_project  # noqa: F401  # Django's settings, before what reads them
from tests.suites.scattered import Scattered, scattered

USER = 42
"""Whom the path /revoke logs out."""

Views = dict[str, Callable[[Any], object]]
"""By path: what happens to the session of a request, and what it answers."""
Headers = list[tuple[str, str]]


class Answer(NamedTuple):
    """What came back."""

    status: int
    text: str
    headers: Headers

    def header(self, name: str) -> str:
        """Return the lines of one header, comma-joined; "" where there is none."""
        return ", ".join(line for header, line in self.headers if header.lower() == name.lower())

    @property
    def cookies(self) -> dict[str, str]:
        """Return the Set-Cookie lines by cookie."""
        return {line.partition("=")[0]: line for header, line in self.headers if header.lower() == "set-cookie"}


Ask = Callable[[str, Mapping[str, str]], Answer]


class Browser:
    """A client that keeps cookies, as browsers do."""

    def __init__(self, ask: Ask, cookies: Mapping[str, str] = {}) -> None:
        self._ask = ask
        self.cookies = dict(cookies)

    def get(self, path: str) -> Answer:
        answer = self._ask(f"/{path}", self.cookies)
        for name, line in answer.cookies.items():
            if "Max-Age=0" in line or "1970" in line:
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = line.partition("=")[2].partition(";")[0]
        return answer

    def another(self) -> "Browser":
        """A second one with the same cookies: a second request that is sent at the same time."""
        return Browser(self._ask, self.cookies)


def _answer(views: Views, name: str, session: Callable[[], Any]) -> str:
    return "" if name == "untouched" else str(views[name](session()))


def _line(cookies: Mapping[str, str]) -> dict[str, str]:
    return {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())} if cookies else {}


def _starlette(views: Views, node: Any, **settings: Any) -> Ask:
    async def endpoint(request: Any) -> PlainTextResponse:
        if request.path_params["view"] == "revoke":
            revoked = await gossipsess.web.starlette.revoke(request, USER)
            return PlainTextResponse(str(revoked.sessions))
        return PlainTextResponse(_answer(views, request.path_params["view"], lambda: request.session))

    middleware = Middleware(gossipsess.web.starlette.SessionMiddleware, node=node, **settings)
    app = Starlette(routes=[Route("/{view}", endpoint)], middleware=[middleware])
    return _asking(TestClient(app, raise_server_exceptions=False))


def _asgi(views: Views, node: Any, **settings: Any) -> Ask:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        name = scope["path"][1:]
        if name == "revoke":
            text = str((await gossipsess.web.asgi.revoke(scope, USER)).sessions)
        else:
            text = _answer(views, name, lambda: scope["session"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": text.encode()})

    app = gossipsess.web.asgi.SessionMiddleware(app, node=node, **settings)
    return _asking(TestClient(app, raise_server_exceptions=False))


def _litestar(views: Views, node: Any, **settings: Any) -> Ask:
    @litestar_get("/{view:str}", media_type=MediaType.TEXT, sync_to_thread=False)
    def endpoint(request: Request[Any, Any, Any]) -> str:
        return _answer(views, request.path_params["view"], lambda: request.session)

    @litestar_get("/revoke", media_type=MediaType.TEXT)
    async def revoke(request: Request[Any, Any, Any]) -> str:
        return str((await gossipsess.web.litestar.revoke(request, USER)).sessions)

    config = gossipsess.web.litestar.GossipSessionConfig(node=node, **settings)
    app = Litestar([endpoint, revoke], plugins=[config], logging_config=None, openapi_config=None)
    return _asking(LitestarClient(app, raise_server_exceptions=False))


def _asking(client: Any) -> Ask:
    def ask(path: str, cookies: Mapping[str, str]) -> Answer:
        client.cookies.clear()
        response = client.get(path, headers=_line(cookies))
        return Answer(response.status_code, response.text, response.headers.multi_items())

    return ask


def _flask(views: Views, node: Any, **settings: Any) -> Ask:
    app = flask.Flask("shop")
    sessions = gossipsess.web.flask.GossipSessions(app, node=node, **settings)

    @app.get("/<view>")
    def endpoint(view: str) -> str:
        return _answer(views, view, lambda: flask.session)

    @app.get("/revoke")
    def revoke() -> str:
        return str(sessions.revoke(USER).sessions)

    return _asking_werkzeug(app.test_client(use_cookies=False))


def _quart(views: Views, node: Any, **settings: Any) -> Ask:
    app = quart.Quart("shop")
    sessions = gossipsess.web.quart.GossipSessions(app, node=node, **settings)

    @app.get("/<view>")
    def endpoint(view: str) -> str:
        return _answer(views, view, lambda: quart.session)

    @app.get("/revoke")
    async def revoke() -> str:
        return str((await sessions.revoke(USER)).sessions)

    async def asked(path: str, cookies: Mapping[str, str]) -> Answer:
        response = await app.test_client(use_cookies=False).get(path, headers=_line(cookies))
        return Answer(response.status_code, await response.get_data(as_text=True), list(response.headers.items()))

    return lambda path, cookies: asyncio.run(asked(path, cookies))


def _django(views: Views, node: Any, **settings: Any) -> Ask:
    def endpoint(request: Any, view: str) -> HttpResponse:
        return HttpResponse(_answer(views, view, lambda: request.session))

    def revoke(request: Any) -> HttpResponse:
        return HttpResponse(gossipsess.web.django.revoke(USER).sessions)

    urls: Any = ModuleType("urls")
    urls.urlpatterns = [django_path("revoke", revoke), django_path("<view>", endpoint)]
    gossipsess.web.django.configure(node=node, **settings)

    def ask(path: str, cookies: Mapping[str, str]) -> Answer:
        with override_settings(ROOT_URLCONF=urls):
            response = DjangoClient(headers=_line(cookies), raise_request_exception=False).get(path)
        lines = [("Set-Cookie", morsel.OutputString()) for morsel in response.cookies.values()]
        return Answer(response.status_code, response.content.decode(), [*response.items(), *lines])

    return ask


def _wsgi(views: Views, node: Any, **settings: Any) -> Ask:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        name = environ["PATH_INFO"][1:]
        if name == "revoke":
            text = str(gossipsess.web.wsgi.revoke(environ, USER).sessions)
        else:
            text = _answer(views, name, lambda: environ["gossipsess.session"])
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [text.encode()]

    app = gossipsess.web.wsgi.SessionMiddleware(app, node=node, **settings)
    return _asking_werkzeug(Client(app, use_cookies=False))


def _asking_werkzeug(client: Any) -> Ask:
    def ask(path: str, cookies: Mapping[str, str]) -> Answer:
        response = client.get(path, headers=_line(cookies))
        return Answer(response.status_code, response.text, list(response.headers.items()))

    return ask


@contextmanager
def patient_nodes(count: int = 3) -> Iterator[Scattered]:
    """Linked nodes, of which each operation asks a random one, that wait for each other as long as it takes.

    In the time that a request has, a busy build machine may not bring an answer from one to the other; then the session
    is `stale`, or `Degraded`, which is not what these tests are about.
    """
    with pytest.MonkeyPatch.context() as patch, scattered(count, confirm_timeout_s=10.0) as nodes:
        patch.setattr("gossipsess.protocol.fetch.FETCH_TIMEOUT_S", 10.0)
        yield nodes


class Adapter(NamedTuple):
    """One adapter."""

    serve: Callable[..., Ask]
    """Takes `Views`, a node, and what the adapter takes beside."""
    cookie: str
    """Name of its id cookie."""
    varies_always: bool = False
    """It cannot know whether a request has read the session."""
    saves_assignments: bool = False
    """As in its framework every assignment is a change, and every save sets both cookies."""


ADAPTERS = {
    "starlette": Adapter(_starlette, "session"),
    "asgi": Adapter(_asgi, "__Host-gsid"),
    "litestar": Adapter(_litestar, "session", varies_always=True),
    "flask": Adapter(_flask, "session"),
    "quart": Adapter(_quart, "session"),
    "django": Adapter(_django, "sessionid", saves_assignments=True),
    "wsgi": Adapter(_wsgi, "__Host-gsid"),
}
