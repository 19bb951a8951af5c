# Request: what sessions add to a request, in each framework, beside what the framework's users have without us.
#
# The application is called as its server would call it, in this process: no socket, no HTTP parser, no client library
# in the timed part. Its node is alone, so that nothing is waited for.
#
# In:    options (--help).   Out: a table, or with --json an object for each row.
# Columns:  what a request costs above the same application without sessions, microseconds
#             unused   a request of a logged-in visitor, whose view does not look at the session
#             read     the view reads one key
#             write    the view assigns one key a value that it did not have
# Method:   a batch is one request of each of some visitors, timed as a whole; what their answers set goes into the next
#           requests' cookies, outside the timed part, as do all checks. In each round every row does a batch of each
#           kind, so that rows meet the same noise; a figure is the median over rounds of the difference to the batch
#           without sessions in the same round.
# Clock:    the wall clock, since a stock backend may wait for its server; --cpu takes this thread's processor time,
#           which counts neither who else uses the machine, nor the server that is waited for.
# Not here: bounds. Whoever runs this judges; tests/e2e/test_bench.py sees that it works.

import argparse
import asyncio
import gc
import io
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script, with or without install

from bench.redis_server import WHY_MISSING, redis_server
from gossipsess.config import Config
from gossipsess.service import NodeService, lone_node

KINDS: Final = ("unused", "read", "write")
WITHOUT: Final = "without sessions"
OURS: Final = "gossipsess"
SECRET: Final = "a secret of the benchmark's, of no use elsewhere"
USER: Final = 42
STARTING: Final[dict[str, Any]] = {
    "user_id": USER,
    "name": "Kim Minseo",
    "csrf_token": "4f1f2a9d7c6b5e8a0b3c2d1e9f8a7b6c",
    "theme": "dark",
    "cart": ["book", "pen", "lamp"],
}
"""What a visitor's session holds after the login."""

_ticks = count(1)


class BenchError(Exception):
    """An application did not answer as it should; the message says which and how."""


# --- applications: /login fills the session, the others are what is measured ----------------------------------------


class Row(NamedTuple):
    """One application: a framework with one way to keep its sessions."""

    framework: str
    sessions: str
    call: "Caller"


class Answer(NamedTuple):
    """What an application answered."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class Caller:
    """Calls one application, a batch of requests at a time."""

    def batch(self, path: str, cookies: list[str]) -> tuple[float, list[Answer]]:
        """Ask for a path once for each Cookie header; return the seconds that took, and the answers in order."""
        raise NotImplementedError


class AsgiCaller(Caller):
    """Calls an ASGI application on an asyncio loop."""

    def __init__(self, app: Callable[..., Awaitable[None]], loop: asyncio.AbstractEventLoop) -> None:
        self._app = app
        self._loop = loop

    def batch(self, path: str, cookies: list[str]) -> tuple[float, list[Answer]]:
        return self._loop.run_until_complete(self._batch(path, cookies))

    async def _batch(self, path: str, cookies: list[str]) -> tuple[float, list[Answer]]:
        app = self._app
        requests = [(self._scope(path, cookie), self._receiver()) for cookie in cookies]
        messages: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            messages.append(message)

        began_s = clock()
        for scope, receive in requests:
            await app(scope, receive, send)
        took_s = clock() - began_s
        return took_s, _answers(messages)

    def _receiver(self) -> Callable[[], Awaitable[dict[str, Any]]]:
        """Return what gives the one message of a request, and after it waits as a browser does that stays."""
        messages = [{"type": "http.request", "body": b"", "more_body": False}]

        async def receive() -> dict[str, Any]:
            return messages.pop() if messages else await self._loop.create_future()

        return receive

    @staticmethod
    def _scope(path: str, cookie: str) -> dict[str, Any]:
        headers = [
            (b"host", b"shop.example"),
            (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0"),
            (b"accept", b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
            (b"accept-language", b"en-US,en;q=0.5"),
            (b"accept-encoding", b"gzip, deflate, br"),
            (b"connection", b"keep-alive"),
        ]
        if cookie:
            headers.append((b"cookie", cookie.encode("ascii")))
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "https",
            "path": path,
            "raw_path": path.encode("ascii"),
            "query_string": b"",
            "root_path": "",
            "headers": headers,
            "client": ("127.0.0.1", 40000),
            "server": ("shop.example", 443),
            "state": {},
            "extensions": {},
        }


def _answers(messages: list[dict[str, Any]]) -> list[Answer]:
    answers: list[Answer] = []
    for message in messages:
        if message["type"] == "http.response.start":
            headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in message["headers"]]
            answers.append(Answer(message["status"], headers, b""))
        else:
            answers[-1] = answers[-1]._replace(body=answers[-1].body + message.get("body", b""))
    return answers


class WsgiCaller(Caller):
    """Calls a WSGI application."""

    def __init__(self, app: Callable[..., Any]) -> None:
        self._app = app

    def batch(self, path: str, cookies: list[str]) -> tuple[float, list[Answer]]:
        app = self._app
        environs = [self._environ(path, cookie) for cookie in cookies]
        started: list[tuple[str, list[tuple[str, str]]]] = []
        bodies: list[bytes] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> None:
            started.append((status, headers))

        began_s = clock()
        for environ in environs:
            body = app(environ, start_response)
            bodies.append(b"".join(body))
            close = getattr(body, "close", None)
            if close is not None:
                close()
        took_s = clock() - began_s
        return took_s, [
            Answer(int(status[:3]), [(name.lower(), value) for name, value in headers], body)
            for (status, headers), body in zip(started, bodies, strict=True)
        ]

    @staticmethod
    def _environ(path: str, cookie: str) -> dict[str, Any]:
        environ: dict[str, Any] = {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "QUERY_STRING": "",
            "SERVER_NAME": "shop.example",
            "SERVER_PORT": "443",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "HTTP_HOST": "shop.example",
            "HTTP_USER_AGENT": "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0",
            "HTTP_ACCEPT": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "HTTP_ACCEPT_LANGUAGE": "en-US,en;q=0.5",
            "HTTP_ACCEPT_ENCODING": "gzip, deflate, br",
            "HTTP_CONNECTION": "keep-alive",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "https",
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": False,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        if cookie:
            environ["HTTP_COOKIE"] = cookie
        return environ


def raw_app(*, with_sessions: bool) -> Callable[..., Awaitable[None]]:
    """An ASGI application without a framework."""

    async def app(scope: dict[str, Any], receive: object, send: Callable[..., Awaitable[None]]) -> None:
        path = scope["path"]
        text = str(USER)
        if path == "/unused":
            pass
        elif not with_sessions:
            next(_ticks)
        elif path == "/read":
            text = str(scope["session"]["user_id"])
        elif path == "/write":
            scope["session"]["seen"] = next(_ticks)
        else:
            scope["session"].update(STARTING)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": text.encode("ascii")})

    return app


def raw_wsgi_app(*, with_sessions: bool) -> Callable[..., list[bytes]]:
    """A WSGI application without a framework."""

    def app(environ: dict[str, Any], start_response: Callable[..., object]) -> list[bytes]:
        path = environ["PATH_INFO"]
        text = str(USER)
        if path == "/unused":
            pass
        elif not with_sessions:
            next(_ticks)
        elif path == "/read":
            text = str(environ["gossipsess.session"]["user_id"])
        elif path == "/write":
            environ["gossipsess.session"]["seen"] = next(_ticks)
        else:
            environ["gossipsess.session"].update(STARTING)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [text.encode("ascii")]

    return app


def starlette_app(*, with_sessions: bool) -> Any:
    """The same on Starlette."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def unused(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(USER))

    async def counted(request: Request) -> PlainTextResponse:
        next(_ticks)
        return PlainTextResponse(str(USER))

    async def read(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(request.session["user_id"]))

    async def write(request: Request) -> PlainTextResponse:
        request.session["seen"] = next(_ticks)
        return PlainTextResponse(str(USER))

    async def login(request: Request) -> PlainTextResponse:
        request.session.update(STARTING)
        return PlainTextResponse(str(USER))

    views = (read, write, login) if with_sessions else (unused, counted, unused)
    paths = zip(("/read", "/write", "/login"), views, strict=True)
    return Starlette(routes=[Route("/unused", unused), *(Route(path, view) for path, view in paths)])


def flask_app(*, with_sessions: bool) -> Any:
    """The same on Flask; without a secret key its own sessions are off."""
    from flask import Flask, session

    app = Flask("shop")

    @app.get("/unused")
    def unused() -> str:
        return str(USER)

    @app.get("/read")
    def read() -> str:
        return str(session["user_id"] if with_sessions else USER)

    @app.get("/write")
    def write() -> str:
        if with_sessions:
            session["seen"] = next(_ticks)
        else:
            next(_ticks)
        return str(USER)

    @app.get("/login")
    def login() -> str:
        if with_sessions:
            session.update(STARTING)
        return str(USER)

    return app


def quart_app(*, with_sessions: bool) -> Any:
    """The same on Quart; without a secret key its own sessions are off."""
    from quart import Quart, session

    app = Quart("shop")

    @app.get("/unused")
    async def unused() -> str:
        return str(USER)

    @app.get("/read")
    async def read() -> str:
        return str(session["user_id"] if with_sessions else USER)

    @app.get("/write")
    async def write() -> str:
        if with_sessions:
            session["seen"] = next(_ticks)
        else:
            next(_ticks)
        return str(USER)

    @app.get("/login")
    async def login() -> str:
        if with_sessions:
            session.update(STARTING)
        return str(USER)

    return app


def litestar_app(*, with_sessions: bool, **sessions: Any) -> Any:
    """The same on Litestar; `sessions` are the arguments that add them."""
    from litestar import Litestar, Request, get

    @get("/unused")
    async def unused() -> str:
        return str(USER)

    @get("/read")
    async def read(request: Request) -> str:
        return str(request.session["user_id"] if with_sessions else USER)

    @get("/write")
    async def write(request: Request) -> str:
        if with_sessions:
            request.session["seen"] = next(_ticks)
        else:
            next(_ticks)
        return str(USER)

    @get("/login")
    async def login(request: Request) -> str:
        if with_sessions:
            request.session.update(STARTING)
        return str(USER)

    # Its annotations are read in the names of this module, where the import above is not.
    return Litestar([unused, read, write, login], signature_types=[Request], **sessions)


def django_app(engine: str | None, middleware: str = "django.contrib.sessions.middleware.SessionMiddleware") -> Any:
    """The same on Django's WSGI handler, with one session engine; None: without the session middleware."""
    from django.core.handlers.wsgi import WSGIHandler
    from django.test.utils import override_settings

    # Both are read while the handler is made; so several engines can be compared in one process.
    settings = {"MIDDLEWARE": [middleware], "SESSION_ENGINE": engine} if engine else {"MIDDLEWARE": []}
    with override_settings(**settings):
        return WSGIHandler()


def django_views() -> tuple[Any, ...]:
    """Return the URL patterns of the Django application."""
    from django.http import HttpRequest, HttpResponse
    from django.urls import path

    def unused(request: HttpRequest) -> HttpResponse:
        return HttpResponse(str(USER))

    def read(request: HttpRequest) -> HttpResponse:
        return HttpResponse(str(request.session["user_id"] if hasattr(request, "session") else USER))

    def write(request: HttpRequest) -> HttpResponse:
        if hasattr(request, "session"):
            request.session["seen"] = next(_ticks)
        else:
            next(_ticks)
        return HttpResponse(str(USER))

    def login(request: HttpRequest) -> HttpResponse:
        if hasattr(request, "session"):
            request.session.update(STARTING)
        return HttpResponse(str(USER))

    return (path("unused", unused), path("read", read), path("write", write), path("login", login))


# --- rows -----------------------------------------------------------------------------------------------------------


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
        _say_left_out("Flask-Session on Redis", WHY_MISSING)
    elif find_spec("flask_session") is None or find_spec("redis") is None:
        _say_left_out("Flask-Session on Redis", "pip install flask-session redis")
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


@contextmanager
def django_set_up() -> Iterator[None]:
    """Configure Django in this process, with a database in a file that goes away afterwards."""
    import django
    from django.conf import settings
    from django.core.management import call_command

    with tempfile.TemporaryDirectory() as folder:
        settings.configure(
            SECRET_KEY=SECRET,
            ALLOWED_HOSTS=["*"],
            ROOT_URLCONF=django_views(),
            INSTALLED_APPS=["django.contrib.sessions"],
            DATABASES={
                "default": {
                    "ENGINE": "django.db.backends.sqlite3",
                    "NAME": str(Path(folder) / "db.sqlite3"),
                    "CONN_MAX_AGE": None,  # else each request opens the database anew
                }
            },
        )
        django.setup()
        call_command("migrate", verbosity=0)
        try:
            yield
        finally:
            from django.db import connection

            connection.close()


ROWS: Final = {
    "asgi": raw_rows,
    "wsgi": wsgi_rows,
    "starlette": starlette_rows,
    "flask": flask_rows,
    "quart": quart_rows,
    "litestar": litestar_rows,
    "django": django_rows,
}


def _say_left_out(what: str, why: str) -> None:
    print(f"left out: {what}: {why}", file=sys.stderr)


# --- measuring ------------------------------------------------------------------------------------------------------

clock = time.perf_counter


class Visitors:
    """The visitors of one application, each with the cookies that its answers have set."""

    def __init__(self, row: Row, number: int) -> None:
        self._row = row
        self._jars: list[dict[str, str]] = [{} for _ in range(number)]

    def ask(self, kind: str) -> float:
        """Send one request of each visitor; return the seconds for each.

        Raises:
            BenchError: an answer is not what the view says.
        """
        cookies = ["; ".join(f"{name}={value}" for name, value in jar.items()) for jar in self._jars]
        took_s, answers = self._row.call.batch(f"/{kind}", cookies)
        for jar, answer in zip(self._jars, answers, strict=True):
            if answer.status != 200 or answer.body != str(USER).encode("ascii"):
                raise BenchError(f"{self._row.framework}, {self._row.sessions}, {kind}: {answer}")
            _keep_cookies(jar, answer.headers)
        return took_s / len(self._jars)


def _keep_cookies(jar: dict[str, str], headers: list[tuple[str, str]]) -> None:
    for name, line in headers:
        if name == "set-cookie":
            key, _, value = line.partition(";")[0].partition("=")
            jar[key] = value


class Figures(NamedTuple):
    """One row of the table, microseconds a request: of the row without sessions the cost itself, else what is added."""

    framework: str
    sessions: str
    unused: float
    read: float
    write: float


def measure(rows: list[Row], rounds: int, visitors: int) -> list[Figures]:
    """Return the figures of the rows of one framework, of which the first is that without sessions."""
    crowds = [Visitors(row, visitors) for row in rows]
    for crowd in crowds:
        crowd.ask("login")
        for kind in KINDS:
            crowd.ask(kind)  # imports, caches
    taken_s: list[dict[str, list[float]]] = [{kind: [] for kind in KINDS} for _ in rows]
    for _ in range(rounds):
        for kind in KINDS:
            gc.collect()  # what one row leaves behind is not counted to the next
            for crowd, taken in zip(crowds, taken_s, strict=True):
                taken[kind].append(crowd.ask(kind))
    without = taken_s[0]
    figures = [Figures(*rows[0][:2], *(median(without[kind]) * 1e6 for kind in KINDS))]
    for row, taken in zip(rows[1:], taken_s[1:], strict=True):
        added = (
            median(took - base for took, base in zip(taken[kind], without[kind], strict=True)) * 1e6 for kind in KINDS
        )
        figures.append(Figures(*row[:2], *added))
    return figures


def print_table(figures: list[Figures]) -> None:
    """Print the figures of one framework."""
    for line in figures:
        costs = "".join(f"{cost:{'' if line.sessions == WITHOUT else '+'}.1f}".rjust(10) for cost in line[2:])
        print(f"{line.framework:<11}{line.sessions:<26}{costs}", flush=True)


def main() -> int:
    """Measure what the options say."""
    global clock
    parser = argparse.ArgumentParser(
        prog="python bench/request.py", description="what sessions add to a request, microseconds"
    )
    parser.add_argument("--framework", choices=ROWS, action="append", help="default: each that is installed")
    parser.add_argument("--rounds", type=int, default=200, help="default: 200")
    parser.add_argument("--visitors", type=int, default=20, help="requests in a batch; default: 20")
    parser.add_argument("--cpu", action="store_true", help="processor time of this thread in place of time")
    parser.add_argument("--json", action="store_true", help="an object for each row")
    options = parser.parse_args()
    if options.cpu:
        clock = time.thread_time
    if not options.json:
        print(" " * 37 + "".join(kind.rjust(10) for kind in KINDS))
    with ExitStack() as stack:
        loop = asyncio.new_event_loop()
        stack.callback(loop.close)
        node = lone_node(Config(discovery="none"))
        redis_port = stack.enter_context(redis_server())
        for name in options.framework or ROWS:
            if name not in ("asgi", "wsgi") and find_spec(name) is None:
                _say_left_out(name, f"pip install {name}")
                continue
            if name == "django":
                stack.enter_context(django_set_up())
            figures = measure(list(ROWS[name](node, loop, redis_port)), options.rounds, options.visitors)
            if options.json:
                for line in figures:
                    print(json.dumps(line._asdict()), flush=True)
            else:
                print_table(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
