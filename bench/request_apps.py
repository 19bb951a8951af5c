# Request's applications: one for each framework, the same four views in all of them, to which sessions are added.
#
# In:    whether there will be sessions.   Out: an application that does without, or one that has yet to be given them.
# Views: /login fills the session; /unused does not look at it, /read reads one key, /write assigns one a new value.
#        Each answers with the user. Without sessions /read has that from a constant, and /write counts all the same:
#        the difference is the session's alone.
# A framework is imported where its application is made, since it may not be installed.
# Not here: which sessions are added (request_rows.py).

import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final

SECRET: Final = "a secret of the benchmark's, of no use elsewhere"
"""What a framework's own cookies are signed with."""
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
