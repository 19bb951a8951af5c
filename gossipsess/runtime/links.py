# Links: one TCP connection to a peer, from the greeting to the last byte.
#
# Greetings have a fixed size and are all that is looked at before a peer has proved that it holds the secret: an
# empty sealed message, both ways, does. From then on the driver gets whole messages, and hands whole ones in.

import errno
import os
import socket
from collections.abc import Callable

import trio

from gossipsess.errors import SealError, WireError
from gossipsess.model.identity import NodeId
from gossipsess.wire.codec import decode_untrusted, encode
from gossipsess.wire.crypto import GREETING_BYTES, RANDOM_BYTES, FrameOpener, FrameSealer, LinkHandshake
from gossipsess.wire.crypto import Link as Keys
from gossipsess.wire.keyring import Keyring
from gossipsess.wire.messages import LinkMessage, Message

GREETING_TIMEOUT_S = 5.0
READ_BYTES = 64 * 1024
QUEUE_MESSAGES_MAX = 4096
"""Messages waiting for a peer that does not read. Pushes are bounded by what is in flight, so only a peer that
keeps asking and does not read its answers gets here; its link is closed."""
USER_TIMEOUT_MS = 10_000
"""After this long without an acknowledgement from the peer's kernel the connection is given up."""
_PROOF = b""


class Link:
    """An authenticated connection."""

    def __init__(self, number: int, stream: trio.SocketStream, keys: Keys) -> None:
        self.number = number
        self.peer: NodeId = keys.peer
        self._stream = stream
        self._sealer: FrameSealer = keys.sealer
        self._opener: FrameOpener = keys.opener
        self._queue: list[LinkMessage] = []
        self._something = trio.Event()
        self._closing = False
        self._writing = False

    @property
    def is_idle(self) -> bool:
        """Everything that was to be sent is with the kernel."""
        return not self._queue and not self._writing

    def send(self, message: LinkMessage) -> None:
        """Queue a message."""
        if len(self._queue) >= QUEUE_MESSAGES_MAX:
            self._closing = True
            self._queue.clear()
        self._queue.append(message)
        self._something.set()

    def close_soon(self) -> None:
        """Close once what is queued has left."""
        self._closing = True
        self._something.set()

    async def run(self, received: Callable[[Message], None]) -> None:
        """Carry messages both ways until the link ends.

        Raises:
            WireError: the peer sent bytes that are refused; the link is over.
        """
        async with self._stream:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write, nursery.cancel_scope)
                    await self._read(received)
                    nursery.cancel_scope.cancel()
            except* (trio.BrokenResourceError, trio.ClosedResourceError):
                pass

    async def _read(self, received: Callable[[Message], None]) -> None:
        while data := await self._stream.receive_some(READ_BYTES):
            for body in self._opener.feed_untrusted(data):
                received(decode_untrusted(body))

    async def _write(self, link_scope: trio.CancelScope) -> None:
        while True:
            queue, self._queue = self._queue, []
            if queue:
                self._writing = True
                await self._stream.send_all(b"".join([self._sealer.seal(encode(message)) for message in queue]))
                self._writing = False
            elif self._closing:
                link_scope.cancel()
                return
            else:
                await self._something.wait()
                self._something = trio.Event()


async def greet(stream: trio.SocketStream, keyring: Keyring, node: NodeId, *, dialer: bool) -> Keys:
    """Exchange greetings and proofs over a fresh connection.

    Raises:
        WireError: the other end is not a node of this cluster, or none at all.
        trio.BrokenResourceError: the connection broke meanwhile.
    """
    handshake = LinkHandshake(keyring, node, os.urandom(RANDOM_BYTES), dialer=dialer)
    with trio.move_on_after(GREETING_TIMEOUT_S):
        await stream.send_all(handshake.greeting)
        keys = handshake.receive_untrusted(await _exactly(stream, GREETING_BYTES))
        proof = keys.sealer.seal(_PROOF)
        await stream.send_all(proof)
        # The peer's proof is as long as ours; nothing more is read before it has been opened.
        if keys.opener.feed_untrusted(await _exactly(stream, len(proof))) == [_PROOF]:
            return keys
        raise SealError("the peer's first message is no proof")
    raise SealError(f"no greeting within {GREETING_TIMEOUT_S:.0f} s")


async def connect(host: str, port: int) -> trio.SocketStream:
    """Open a connection.

    Raises:
        OSError: it cannot be opened; `refused` tells whether the machine said so.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = trio.socket.socket(family, socket.SOCK_STREAM)
    try:
        await sock.connect((host, port))
    except BaseException:
        sock.close()
        raise
    return tuned(sock)


def refused(error: OSError) -> bool:
    """Say whether the peer's machine answered that nobody listens."""
    return error.errno == errno.ECONNREFUSED


def tuned(sock: trio.socket.SocketType) -> trio.SocketStream:
    """Return a stream over a connected socket, set up for small messages and for noticing a dead peer."""
    stream = trio.SocketStream(sock)  # sets TCP_NODELAY
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
    return stream


async def _exactly(stream: trio.SocketStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = await stream.receive_some(size - len(data))
        if not more:
            raise WireError("the connection ended during the greeting")
        data += more
    return data
