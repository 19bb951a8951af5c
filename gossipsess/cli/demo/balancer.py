# Balancer: round robin over the replicas, as plain as one gets: no health checks, no sticky sessions.
#
# In:    a browser's connection.    Out: the same bytes, to and from one replica.
# Choice: bytes and not HTTP. The replicas close after every response, so each request comes on a connection of its
#         own and goes to the next replica in turn. A replica that refuses the connection is passed over. Where one
#         dies before it answers, the next is asked only what changes nothing (GET, HEAD), as nginx does it; a POST
#         may have been carried out, so it is never sent again, and the browser gets a 502.
# Not here: starting replicas again (crew.py).

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Sequence
from typing import Final

from gossipsess.cli.demo.ports import LOOPBACK

CHUNK_BYTES: Final = 65536
REPEATABLE: Final = (b"GET ", b"HEAD ")


class Balancer:
    """Spreads connections over the replicas that listen on `ports()` of 127.0.0.1, asked anew for each."""

    def __init__(self, ports: Callable[[], Sequence[int]]) -> None:
        self._ports = ports
        self._turn = itertools.count()
        self._serving: set[asyncio.Task[None] | None] = set()

    async def serve(self, client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter) -> None:
        """Serve one connection of a browser; the callback of `asyncio.start_server`."""
        # Once the browser has closed, only what this task waits for would refer to it, and only this task to that.
        task = asyncio.current_task()
        self._serving.add(task)
        try:
            # ConnectionError: the browser went away. CancelledError: the demo ends, and Python 3.11 would print a
            # traceback for every connection that a browser still keeps open.
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await self._exchange(client_in, client_out)
        finally:
            self._serving.discard(task)
            client_out.close()

    async def _exchange(self, client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter) -> None:
        # A browser may open connections ahead of need. The replica is chosen when a request comes, since the one
        # chosen earlier may be dead by then.
        request = await client_in.read(CHUNK_BYTES)
        if not request:
            return
        ports = self._ports()
        first = next(self._turn) % len(ports) if ports else 0
        for port in (*ports[first:], *ports[:first]):
            with contextlib.suppress(ConnectionRefusedError):
                if await _ask(port, request, client_in, client_out):
                    return
                if not request.startswith(REPEATABLE):
                    gone = "The replica died before it answered. The request was not sent again. Reload."
                    client_out.write(_error("502 Bad Gateway", gone))
                    return
        client_out.write(_error("503 Service Unavailable", "No replica is up just now. Reload in a second."))


async def _ask(port: int, request: bytes, client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter) -> int:
    """Carry one request to a replica and its answer back; return the answer's bytes, 0 where none came.

    Raises:
        ConnectionRefusedError: nobody listens there. Nothing was sent.
    """
    replica_in, replica_out = await asyncio.open_connection(LOOPBACK, port)
    replica_out.write(request)
    sending = asyncio.create_task(_copy(client_in, replica_out))
    try:
        return await _copy(replica_in, client_out)
    finally:
        sending.cancel()
        await asyncio.wait([sending])  # two may not read from the browser at once
        replica_out.close()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> int:
    """Copy until either end closes; return how many bytes came."""
    copied = 0
    with contextlib.suppress(ConnectionError):
        while chunk := await source.read(CHUNK_BYTES):
            copied += len(chunk)
            sink.write(chunk)
            await sink.drain()
    return copied


def _error(status: str, text: str) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(text)}\r\nConnection: close"
    return f"{head}\r\n\r\n{text}".encode("ascii")
