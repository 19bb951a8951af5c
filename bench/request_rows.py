# Request's rows: each framework without sessions, with ours, and with what its users have without us.
#
# In:    a lone node, a loop, and the port of a Redis server, where there is one.
# Out:   for each framework an iterator of rows, of which the first is the one without sessions.
# What is not installed is left out, with a sentence on stderr. So adapters are imported where their row is made.
# Not here: what the views do (request_apps.py), and what is measured (request.py).

import asyncio
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Final, NamedTuple

from bench.callers import AsgiCaller, Caller, WsgiCaller
from bench.redis_server import WHY_MISSING
from bench.request_apps import (
    SECRET,
    django_app,
    flask_app,
    litestar_app,
    quart_app,
    raw_app,
    raw_wsgi_app,
    starlette_app,
)
from gossipsess.service import NodeService

WITHOUT: Final = "without sessions"
OURS: Final = "gossipsess"


class Row(NamedTuple):
    """One application: a framework with one way to keep its sessions."""

    framework: str
    sessions: str
    call: Caller


def raw_rows(node: NodeService, loop: asyncio.AbstractEventLoop, redis_port: int | None) -> Iterator[Row]:
    """ASGI without a framework."""
    from gossipsess.web.asgi import SessionMiddleware

    yield Row("ASGI", WITHOUT, AsgiCaller(raw_app(with_sessions=False), loop))
    yield Row("ASGI", OURS, AsgiCaller(SessionMiddleware(raw_app(with_sessions=True), node=node), loop))


def wsgi_rows(node: NodeService, loop: asyncio.AbstractEventLoop, redis_port: int | None) -> Iterator[Row]:
    """WSGI without a framework."""
    from gossipsess.web.wsgi import SessionMiddleware

    yield Row("WSGI", WITHOUT, WsgiCaller(raw_wsgi_app(with_sessions=False)))
    yield Row("WSGI", OURS, WsgiCaller(SessionMiddleware(raw_wsgi_app(with_sessions=True), node=node)))


def quart_rows(node: NodeService, loop: asyncio.AbstractEventLoop, redis_port: int | None) -> Iterator[Row]:
    """Quart, and its own sessions in signed cookies."""
    from gossipsess.web.quart import GossipSessions

    yield Row("Quart", WITHOUT, AsgiCaller(quart_app(with_sessions=False), loop))
    ours = quart_app(with_sessions=True)
    GossipSessions(ours, node=node)
    yield Row("Quart", OURS, AsgiCaller(ours, loop))
    stock = quart_app(with_sessions=True)
    stock.secret_key = SECRET
    yield Row("Quart", "its own, signed cookies", AsgiCaller(stock, loop))


def litestar_rows(node: NodeService, loop: asyncio.AbstractEventLoop, redis_port: int | None) -> Iterator[Row]:
    """Litestar, and its own sessions in this process's memory."""
    from litestar.middleware.session.server_side import ServerSideSessionConfig

    from gossipsess.web.litestar import GossipSessionConfig

    yield Row("Litestar", WITHOUT, AsgiCaller(litestar_app(with_sessions=False), loop))
    ours = litestar_app(with_sessions=True, plugins=[GossipSessionConfig(node=node)])
    yield Row("Litestar", OURS, AsgiCaller(ours, loop))
    stock = litestar_app(with_sessions=True, middleware=[ServerSideSessionConfig().middleware])
    yield Row("Litestar", "its own, in memory", AsgiCaller(stock, loop))


def starlette_rows(node: NodeService, loop: asyncio.AbstractEventLoop, redis_port: int | None) -> Iterator[Row]:
    """Starlette, and its own sessions in signed cookies."""
    from starlette.middleware.sessions import SessionMiddleware as StockMiddleware

    from gossipsess.web.starlette import SessionMiddleware

    yield Row("Starlette", WITHOUT, AsgiCaller(starlette_app(with_sessions=False), loop))
    ours = starlette_app(with_sessions=True)
    ours.add_middleware(SessionMiddleware, node=node)
    yield Row("Starlette", OURS, AsgiCaller(ours, loop))
    stock = starlette_app(with_sessions=True)
    stock.add_middleware(StockMiddleware, secret_key=SECRET)
    yield Row("Starlette", "its own, signed cookies", AsgiCaller(stock, loop))


def flask_rows(node: NodeService, loop: asyncio.AbstractEventLoop, redis_port: int | None) -> Iterator[Row]:
    """Flask, its own sessions in signed cookies, and Flask-Session's in Redis."""
    from gossipsess.web.flask import GossipSessions

    yield Row("Flask", WITHOUT, WsgiCaller(flask_app(with_sessions=False)))
    ours = flask_app(with_sessions=True)
    GossipSessions(ours, node=node)
    yield Row("Flask", OURS, WsgiCaller(ours))
    stock = flask_app(with_sessions=True)
    stock.secret_key = SECRET
    yield Row("Flask", "its own, signed cookies", WsgiCaller(stock))
    if redis_port is None:
        say_left_out("Flask-Session on Redis", WHY_MISSING)
    elif find_spec("flask_session") is None or find_spec("redis") is None:
        say_left_out("Flask-Session on Redis", "pip install flask-session redis")
    else:
        from flask_session import Session
        from redis import Redis

        on_redis = flask_app(with_sessions=True)
        on_redis.config.update(SESSION_TYPE="redis", SESSION_REDIS=Redis(port=redis_port))
        Session(on_redis)
        yield Row("Flask", "Flask-Session, Redis", WsgiCaller(on_redis))


def django_rows(node: NodeService, loop: asyncio.AbstractEventLoop, redis_port: int | None) -> Iterator[Row]:
    """Django, and three of its own engines, the database being SQLite and the cache this process's memory."""
    ours = import_module("gossipsess.web.django")  # once there are settings
    yield Row("Django", WITHOUT, WsgiCaller(django_app(None)))
    ours.configure(node=node)
    app = django_app(ours.__name__, f"{ours.__name__}.SessionMiddleware")
    yield Row("Django", OURS, WsgiCaller(app))
    for engine in ("signed_cookies", "cached_db", "db"):
        yield Row("Django", f"its own, {engine}", WsgiCaller(django_app(f"django.contrib.sessions.backends.{engine}")))


ROWS: Final = {
    "asgi": raw_rows,
    "wsgi": wsgi_rows,
    "starlette": starlette_rows,
    "flask": flask_rows,
    "quart": quart_rows,
    "litestar": litestar_rows,
    "django": django_rows,
}
"""By the name of the package that must be installed, but for the first two. Django's wants `django_set_up` first."""


def say_left_out(what: str, why: str) -> None:
    """Say on stderr what is not measured, and what would have to be installed."""
    print(f"left out: {what}: {why}", file=sys.stderr)
