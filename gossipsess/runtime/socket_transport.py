# Sockets as a transport: what production runs on.
#
# Everything that is opened is noted here until it is closed, under the lock that a fork waits for. A child must close
# each copy that it has got: as long as one is open, no peer notices that the parent died.
# Why plain sockets that do not block and not Trio's streams: a link sends from synchronous code.

import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import trio

from gossipsess.model.member import Address, Name
from gossipsess.runtime import resolver
from gossipsess.runtime.forks import unforked
from gossipsess.runtime.transport import Receiver
from gossipsess.wire.crypto import DATAGRAM_BYTES_MAX

MAPPED = "::ffff:"
"""How a socket that serves both versions of IP writes an address of IPv4 (RFC 4291, section 2.5.5.2)."""
USER_TIMEOUT_MS = 10_000
"""After this long without an acknowledgement from the peer's kernel the connection is given up."""


class SocketConnection:
    """One TCP connection; see `transport.Connection`."""

    def __init__(self, sock: socket.socket, closed: Callable[["SocketConnection"], None]) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.send = sock.send
        self.receive = sock.recv
        self._closed = closed

    @property
    def host(self) -> str:
        """The IP address of the other end; empty where it has gone."""
        with suppress(OSError):
            return str(self.sock.getpeername()[0]).removeprefix(MAPPED)
        return ""

    async def readable(self) -> None:
        """Wait until something can be received."""
        await trio.lowlevel.wait_readable(self.sock.fileno())

    async def writable(self) -> None:
        """Wait until something can be sent."""
        await trio.lowlevel.wait_writable(self.sock.fileno())

    def close(self) -> None:
        """Close the socket."""
        if self.sock.fileno() != -1:
            trio.lowlevel.notify_closing(self.sock.fileno())
            self.sock.close()
        self._closed(self)

    def tune(self) -> None:
        """Set up for small messages, and for noticing a dead peer."""
        with suppress(OSError):  # it has gone already: whoever reads will notice
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)


class SocketTransport:
    """A node's own sockets, and all connections made over them; see `transport.Transport`."""

    def __init__(
        self, udp: socket.socket, tcp: socket.socket, beacon: socket.socket | None, *, is_dual: bool = False
    ) -> None:
        """`is_dual`: the first two serve IPv4 and IPv6 both."""
        self._udp = udp
        self._tcp = tcp
        self._hearing = (udp,) if beacon is None else (udp, beacon)
        self._open: dict[SocketConnection, None] = {}
        self._is_dual = is_dual

    @property
    def receivers(self) -> tuple[Receiver, ...]:
        """One for the node's own port, and one for the multicast group."""
        return tuple([partial(_receive_from, sock) for sock in self._hearing])

    def send_to(self, data: bytes, address: Address) -> None:
        """Send one datagram."""
        if self._is_dual and ":" not in address[0]:
            address = (MAPPED + address[0], address[1])
        self._udp.sendto(data, address)

    async def look_up(self, name: Name) -> tuple[Address, ...]:
        """Ask the name service."""
        return await resolver.look_up(name, socket.AF_UNSPEC if self._is_dual else self._udp.family)

    async def accept(self) -> SocketConnection:
        """Wait for a connection."""
        while True:
            await trio.lowlevel.wait_readable(self._tcp.fileno())
            with suppress(BlockingIOError), unforked:
                connection = self._noted(self._tcp.accept()[0])
                connection.tune()
                return connection

    async def connect(self, address: Address) -> SocketConnection:
        """Dial."""
        with unforked:
            family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
            connection = self._noted(socket.socket(family, socket.SOCK_STREAM))
        try:
            await trio.socket.from_stdlib_socket(connection.sock).connect(address)
        except BaseException:
            connection.close()
            raise
        connection.tune()
        return connection

    def close(self) -> None:
        """Close everything."""
        for sock in (*self._hearing, self._tcp, *[connection.sock for connection in self._open]):
            sock.close()
        self._open.clear()

    def _noted(self, sock: socket.socket) -> SocketConnection:
        connection = SocketConnection(sock, lambda closed: self._open.pop(closed, None))
        self._open[connection] = None
        return connection


async def _receive_from(sock: socket.socket) -> tuple[bytes, Address]:
    while True:
        await trio.lowlevel.wait_readable(sock.fileno())
        with suppress(BlockingIOError):
            data, address = sock.recvfrom(DATAGRAM_BYTES_MAX + 1)
            return data, (address[0].removeprefix(MAPPED), address[1])
