# Transport: all that the driver needs of a network.
#
# One implementation serves production: sockets (socket_transport.py). The driver knows none of them, so that the
# very same code also runs over any other network, one that lives in memory among them.
# Why not Trio's own stream interface: its `send_all` waits. A link sends on the turn of whoever caused the message,
# and only what is not taken at once waits for a task.

from collections.abc import Awaitable, Callable
from typing import Protocol

from gossipsess.model.member import Address, Name

Receiver = Callable[[], Awaitable[tuple[bytes, Address]]]
"""Waits for the next datagram, and returns it with where it came from; raises OSError where one is not to be had."""


class Connection(Protocol):
    """A stream of bytes to one peer. Its methods raise OSError when it is broken."""

    @property
    def host(self) -> str:
        """The IP address of the other end, for what is said of it."""
        ...

    def send(self, data: bytes | memoryview) -> int:
        """Send as much as is taken now, and return how many bytes that was.

        Raises:
            BlockingIOError: nothing is taken now; wait until `writable`.
        """
        ...

    def receive(self, size: int) -> bytes:
        """Return 1 to `size` bytes, or none at the end of the stream.

        Raises:
            BlockingIOError: nothing has come yet; wait until `readable`.
        """
        ...

    async def readable(self) -> None:
        """Wait until `receive` may give something. Lets other tasks run in any case."""
        ...

    async def writable(self) -> None:
        """Wait until `send` may take something. Lets other tasks run in any case."""
        ...

    def close(self) -> None:
        """Close it, also a second time; tasks that wait for it go on."""
        ...


class Transport(Protocol):
    """A node's place in the network, for use in one Trio loop."""

    @property
    def receivers(self) -> tuple[Receiver, ...]:
        """One for each place at which datagrams arrive; datagrams of more than DATAGRAM_BYTES_MAX may be cut."""
        ...

    def send_to(self, data: bytes, address: Address) -> None:
        """Send one datagram.

        Raises:
            OSError: it could not be sent.
        """
        ...

    async def accept(self) -> Connection:
        """Wait for a connection that somebody dialed.

        Raises:
            OSError: there is none to be had at this moment.
        """
        ...

    async def connect(self, address: Address) -> Connection:
        """Dial.

        Raises:
            ConnectionRefusedError: the machine answered that nobody listens there.
            OSError: it failed in another way.
        """
        ...

    async def look_up(self, name: Name) -> tuple[Address, ...]:
        """Ask the name service; return the addresses that this transport can reach, of nobody in particular.

        Raises:
            OSError: it gave no answer; the text says why.
        """
        ...

    def close(self) -> None:
        """Close everything, connections included, without a word to anybody.

        For when no task waits for any of it: at the end, or in a forked child, whose copies they are.
        """
        ...


class Endpoint(Protocol):
    """A port that is taken, for datagrams and streams both, before anything runs."""

    @property
    def port(self) -> int:
        """Its number."""
        ...

    def transport(self) -> Transport:
        """Return what a driver uses it by. Once only."""
        ...

    def close(self) -> None:
        """Give it back."""
        ...
