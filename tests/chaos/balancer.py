# Balancer: round-robin HTTP, as a load balancer with readiness does it, small enough to know what it does.
#
# In:     requests on a port of its own; `put_in` and `take_out` of backends' ports.
# Out:    the answer of the backend whose turn it is, and counts of what it had to do about those that were gone.
# Rules:  a backend that refuses the connection got nothing, so the next one is asked, whatever the request. One that
#         took the request and gave no answer may have carried it out: a GET goes to the next one, anything else is
#         answered 502 with the header X-Cut, and only the client knows whether it may try again.
# Choice: ours, and not nginx: a backend is out from one request to the next, and an error that the backend made can
#         be told from one that the balancer made up.
# Not here: bodies without a Content-Length; neither side of these tests sends any.

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

import trio

from ..e2e.harness import REQUEST_S
from ..ports import LOOPBACK

HEAD_BYTES_MAX: Final = 64 * 1024
CUT: Final = "x-cut"
"""Header of the answer to a request that was lost with its backend, and may have been carried out."""


class CutError(Exception):
    """The connection ended, or stayed silent, before the answer was whole."""


class BrokenOffError(CutError):
    """It ended within the answer: who gave it has died, when a part of it had been passed on."""


class Answer(NamedTuple):
    """What came back. Names of headers are in lower case."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def cut(self) -> bool:
        """The balancer made this answer up, since the backend was gone with the request."""
        return any(name == CUT for name, _ in self.headers)

    def json(self) -> Any:
        """Return what the body says."""
        return json.loads(self.body)


Ask = Callable[[str, str, Mapping[str, str]], Awaitable[Answer]]
"""Makes one request of somebody: method, path and cookies. It raises what `fetch` does."""


async def fetch(port: int, method: str, path: str, cookies: Mapping[str, str] | None = None) -> Answer:
    """Make one request on a connection of its own.

    Raises:
        OSError: nobody listens there.
        CutError: there was no answer.
    """
    stream = await trio.open_tcp_stream(LOOPBACK, port)
    async with stream:
        return await fetch_over(stream, method, path, cookies)


async def fetch_over(
    stream: trio.SocketStream, method: str, path: str, cookies: Mapping[str, str] | None = None
) -> Answer:
    """Make one request on this connection.

    Raises:
        CutError: there was no answer.
    """
    cookie = "; ".join(f"{name}={value}" for name, value in (cookies or {}).items())
    lines = [f"{method} {path} HTTP/1.1", f"Host: {LOOPBACK}", "Content-Length: 0"]
    lines += [f"Cookie: {cookie}"] if cookie else []
    message = await _exchange_over(stream, "\r\n".join([*lines, "", ""]).encode("ascii"))
    head, _, body = message.partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    headers = [(name.strip().lower(), value.strip()) for name, _, value in (line.partition(":") for line in rest)]
    return Answer(int(first.split()[1]), headers, body)


class Balancer:
    """Spreads requests over the backends that are in, in turns.

    Attributes:
        port: where it listens, once `serve` runs.
        counts: ``refused`` (the next one was asked), ``repeated`` (a GET went to the next one) and ``cut``.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.counts: Counter[str] = Counter()
        self._in: list[int] = []
        self._turn = 0
        self._in_flight: Counter[int] = Counter()
        self._idle: dict[int, trio.Event] = {}  # who waits for the last request under way there

    def put_in(self, port: int) -> None:
        """Send requests to this backend too."""
        if port not in self._in:
            self._in.append(port)

    def take_out(self, port: int) -> None:
        """Send no more requests to this backend; those under way go on."""
        if port in self._in:
            self._in.remove(port)

    async def wait_idle(self, port: int) -> None:
        """Wait until no request is under way at this backend."""
        if self._in_flight[port]:
            await self._idle.setdefault(port, trio.Event()).wait()

    async def serve(self, nursery: trio.Nursery) -> None:
        """Listen, and pass requests on in `nursery` until it is cancelled."""
        await nursery.start(partial(trio.serve_tcp, self._serve_one, self.port, host=LOOPBACK))

    async def _serve_one(self, client: trio.SocketStream) -> None:
        async with client:
            try:
                request = await _receive(client)
                await client.send_all(await self._passed_on(request))
            except (CutError, trio.BrokenResourceError):
                return  # the client is gone

    async def _passed_on(self, request: bytes) -> bytes:
        self._turn += 1
        first = self._turn % max(1, len(self._in))
        for port in self._in[first:] + self._in[:first]:
            self._in_flight[port] += 1
            try:
                return await _exchange(port, request)
            except OSError:
                self.counts["refused"] += 1
            except CutError:
                if not request.startswith(b"GET "):
                    self.counts["cut"] += 1
                    return f"HTTP/1.1 502 Bad Gateway\r\n{CUT}: 1\r\ncontent-length: 0\r\n\r\n".encode("ascii")
                self.counts["repeated"] += 1
            finally:
                self._in_flight[port] -= 1
                if not self._in_flight[port] and port in self._idle:
                    self._idle.pop(port).set()
        return b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n"


async def _exchange(port: int, message: bytes) -> bytes:
    """Send a whole request to a port, return the whole answer; OSError where nobody listens, else CutError."""
    stream = await trio.open_tcp_stream(LOOPBACK, port)
    async with stream:
        return await _exchange_over(stream, message)


async def _exchange_over(stream: trio.SocketStream, message: bytes) -> bytes:
    try:
        with trio.fail_after(REQUEST_S):
            await stream.send_all(message)
            return await _receive(stream)
    except (trio.BrokenResourceError, trio.TooSlowError) as error:
        raise CutError(repr(error)) from error


async def _receive(stream: trio.SocketStream) -> bytes:
    """Return one HTTP message, head and body."""
    message, body_ends = b"", HEAD_BYTES_MAX
    while len(message) < body_ends:
        chunk = await stream.receive_some()
        if not chunk:
            raise (BrokenOffError if message else CutError)("the connection ended within a message")
        message += chunk
        head, blank, _ = message.partition(b"\r\n\r\n")
        if blank:
            body_ends = len(head) + len(blank) + _content_length(head)
    return message


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0
