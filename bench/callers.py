# Callers: an application called as its server would call it, in this process.
#
# In:    an ASGI or WSGI application, a path, and a Cookie header for each request.
# Out:   what it answered, and how long the calls took; no socket, no HTTP parser, no client library in the timed part.
# Requests have the headers that a browser sends: an application that looks through them has as many to look through.
# Not here: what the answers are worth (request.py, tests/compare).

import asyncio
import io
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

Clock = Callable[[], float]
"""Seconds, from any beginning."""


class Answer(NamedTuple):
    """What an application answered."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class Caller:
    """Calls one application, a batch of requests at a time."""

    def batch(self, path: str, cookies: list[str], clock: Clock = time.perf_counter) -> tuple[float, list[Answer]]:
        """Ask for a path once for each Cookie header; return the seconds that took, and the answers in order."""
        raise NotImplementedError


class AsgiCaller(Caller):
    """Calls an ASGI application on an asyncio loop."""

    def __init__(self, app: Callable[..., Awaitable[None]], loop: asyncio.AbstractEventLoop) -> None:
        self._app = app
        self._loop = loop

    def batch(self, path: str, cookies: list[str], clock: Clock = time.perf_counter) -> tuple[float, list[Answer]]:
        return self._loop.run_until_complete(self._batch(path, cookies, clock))

    async def _batch(self, path: str, cookies: list[str], clock: Clock) -> tuple[float, list[Answer]]:
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

    def batch(self, path: str, cookies: list[str], clock: Clock = time.perf_counter) -> tuple[float, list[Answer]]:
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
