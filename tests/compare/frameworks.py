"""Applications whose views are given by name, on each framework with each way to keep its sessions, ours included.

A view is a function of the session alone, so that the very same code meets every backend.
"""

import asyncio
import json
import logging
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from bench.callers import Answer, AsgiCaller, Caller, Clock, WsgiCaller
from bench.redis_server import WHY_MISSING, redis_server
from bench.request_apps import SECRET
from gossipsess.config import Config
from gossipsess.service import NodeService, RunningNode, lone_node
from gossipsess.session import Session
from gossipsess.store import SessionStore
from tests.network.nodes import all_linked, settings, static

OURS = "gossipsess"
NODES = 3
View = Callable[[Any], object]
"""Takes the session; what it returns is the answer, as JSON."""

here = threading.local()
"""`here.node`: which of several nodes answers the request that this thread serves."""


class Backend(NamedTuple):
    """One application with one way to keep its sessions."""

    framework: str
    sessions: str
    caller: Caller


class RoutedStore(SessionStore):
    """Whatever a thread asks of it the store of the node does that `here` names."""

    def __init__(self, stores: list[SessionStore]) -> None:
        self._stores = stores

    def __getattribute__(self, name: str) -> Any:
        stores = object.__getattribute__(self, "_stores")
        return getattr(stores[here.node % len(stores)], name)


class Routed(NodeService):
    """What an adapter takes for one node, over several."""

    def __init__(self, nodes: list[RunningNode]) -> None:
        self.nodes = nodes
        self.config = nodes[0].config
        self.keyring = nodes[0].keyring
        self.node = nodes[0].node
        self.store = self.new_store()

    def new_store(self, session_class: type[Session] = Session, *timeouts: float | None) -> SessionStore:
        return RoutedStore([node.new_store(session_class, *timeouts) for node in self.nodes])


class ThreadCaller(Caller):
    """Calls an ASGI application on a loop of the calling thread's own: what a view does to wait holds up no other."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def batch(self, path: str, cookies: list[str], clock: Clock = time.perf_counter) -> tuple[float, list[Answer]]:
        loop = asyncio.new_event_loop()
        try:
            return AsgiCaller(self._app, loop).batch(path, cookies, clock)
        finally:
            loop.close()


def starlette_app(views: dict[str, View]) -> Any:
    """An application of Starlette's without a session middleware."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def view(request: Request) -> JSONResponse:
        return JSONResponse(views[request.path_params["name"]](request.session))

    return Starlette(routes=[Route("/{name}", view)])


def flask_app(views: dict[str, View]) -> Any:
    """An application of Flask's; what keeps its sessions is the caller's to add."""
    from flask import Flask, session

    app = Flask("shop")
    app.add_url_rule("/<name>", view_func=lambda name: json.dumps(views[name](session)), endpoint="view")
    return app


def django_app(engine: str, middleware: str, **changed: object) -> Any:
    """Django's WSGI application with one session engine; `set_up_django` comes first."""
    from django.core.handlers.wsgi import WSGIHandler
    from django.test.utils import override_settings

    # All of it is read while the handler is made; so several engines can be compared in one process.
    with override_settings(MIDDLEWARE=[middleware], SESSION_ENGINE=engine, **changed):
        return WSGIHandler()


@contextmanager
def set_up_django(views: dict[str, View]) -> Iterator[None]:
    """Configure Django in this process, once, with SQLite in a file that goes away afterwards."""
    import django
    from django.conf import settings as of_django
    from django.core.management import call_command
    from django.http import HttpRequest, JsonResponse
    from django.urls import path

    def view(request: HttpRequest, name: str) -> JsonResponse:
        return JsonResponse(views[name](request.session), safe=False)

    with tempfile.TemporaryDirectory() as folder:
        of_django.configure(
            SECRET_KEY=SECRET,
            ALLOWED_HOSTS=["*"],
            ROOT_URLCONF=(path("<name>", view),),
            INSTALLED_APPS=["django.contrib.sessions"],
            DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(Path(folder) / "db.sqlite3")}},
            LOGGING_CONFIG=None,
        )
        logging.getLogger("django").setLevel(logging.CRITICAL)  # a 400 is what is looked for, and no news
        django.setup()
        call_command("migrate", verbosity=0)
        yield


@contextmanager
def backends(views: dict[str, View], left_out: Callable[[str, str], None]) -> Iterator[list[Backend]]:
    """Give every backend that can run here; `left_out(what, why)` is told of the others."""
    with ExitStack() as stack:
        found: list[Backend] = []
        cluster = stack.enter_context(linked_nodes())
        for service, where in ((lone_node(Config(discovery="none")), "lone node"), (cluster, "three nodes")):
            found += _ours_on_starlette_and_flask(views, service, f"{OURS}, {where}")
        found += _stock_starlette_and_flask(views)
        port = stack.enter_context(redis_server())
        if port is None:
            left_out("Flask-Session on Redis", WHY_MISSING)
        elif find_spec("flask_session") is None or find_spec("redis") is None:
            left_out("Flask-Session on Redis", "not installed: pip install flask-session redis")
        else:
            found.append(_flask_session(views, port))
        if find_spec("django") is None:
            left_out("Django", "not installed: pip install django")
        else:
            stack.enter_context(set_up_django(views))
            found += _on_django(cluster, left_out)
        yield sorted(found, key=lambda backend: (backend.framework, backend.sessions.startswith(OURS)))


@contextmanager
def linked_nodes() -> Iterator[Routed]:
    """Run nodes on loopback, each counting as a host of its own, that have met."""
    nodes: list[RunningNode] = []
    try:
        for number in range(NODES):
            discovery = static(*nodes) if nodes else "none"
            nodes.append(RunningNode(settings(cluster="compare", discovery=discovery, host=f"host-{number}")))
        all_linked(*nodes)
        yield Routed(nodes)
    finally:
        for node in nodes:
            node.close()


def _ours_on_starlette_and_flask(views: dict[str, View], service: NodeService, name: str) -> Iterator[Backend]:
    from gossipsess.web.flask import GossipSessions
    from gossipsess.web.starlette import SessionMiddleware

    yield Backend("Starlette", name, ThreadCaller(SessionMiddleware(starlette_app(views), node=service)))
    app = flask_app(views)
    GossipSessions(app, node=service)
    yield Backend("Flask", name, WsgiCaller(app))


def _stock_starlette_and_flask(views: dict[str, View]) -> Iterator[Backend]:
    from starlette.middleware.sessions import SessionMiddleware

    app = SessionMiddleware(starlette_app(views), secret_key=SECRET)
    yield Backend("Starlette", "its own, signed cookie", ThreadCaller(app))
    flask = flask_app(views)
    flask.secret_key = SECRET
    yield Backend("Flask", "its own, signed cookie", WsgiCaller(flask))


def _flask_session(views: dict[str, View], port: int) -> Backend:
    from flask_session import Session as FlaskSession
    from redis import Redis

    app = flask_app(views)
    app.config.update(SESSION_TYPE="redis", SESSION_REDIS=Redis(port=port))
    FlaskSession(app)
    return Backend("Flask", "Flask-Session, Redis", WsgiCaller(app))


def _on_django(cluster: NodeService, left_out: Callable[[str, str], None]) -> Iterator[Backend]:
    middleware = "django.contrib.sessions.middleware.SessionMiddleware"
    for engine in ("db", "cached_db", "signed_cookies"):
        app = django_app(f"django.contrib.sessions.backends.{engine}", middleware)
        yield Backend("Django", f"its own, {engine}", WsgiCaller(app))
    if find_spec("gossipsess.web.django") is None:
        left_out("gossipsess on Django", "there is no adapter for it")
        return
    ours = import_module("gossipsess.web.django")  # once there are settings
    ours.configure(node=cluster)
    app = django_app(ours.__name__, f"{ours.__name__}.SessionMiddleware")
    yield Backend("Django", f"{OURS}, three nodes", WsgiCaller(app))
