# Links: one connection to a peer, from the greeting to the last byte.
#
# Greetings have a fixed size and are all that is looked at before a peer has proved that it holds the secret: an
# empty sealed message, both ways, does. From then on the driver gets whole messages, and hands whole ones in.

import os
from collections.abc import Callable
from contextlib import suppress

import trio

from gossipsess.errors import SealError, WireError
from gossipsess.model.identity import NodeId
from gossipsess.runtime.transport import Connection
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
CLOSE_S = 2.0
"""How long a link that is to be closed waits for its peer to take what is queued."""
_PROOF = b""


class Link:
    """An authenticated connection.

    Messages are queued by `send` and leave with `flush`, sealed together and with one system call, on the caller's
    turn; only what the kernel does not take at once waits for a task.
    """

    def __init__(self, number: int, connection: Connection, keys: Keys) -> None:
        self.number = number
        self.peer: NodeId = keys.peer
        self._connection = connection
        self._sealer: FrameSealer = keys.sealer
        self._opener: FrameOpener = keys.opener
        self._queue: list[LinkMessage] = []
        self._unsent = memoryview(b"")
        self._blocked = trio.Event()
        self._closing = False
        self._scope = trio.CancelScope()

    @property
    def is_idle(self) -> bool:
        """Everything that was to be sent is with the kernel."""
        return not self._queue and not self._unsent

    def send(self, message: LinkMessage) -> None:
        """Queue a message for the next `flush`."""
        if len(self._queue) >= QUEUE_MESSAGES_MAX:
            self._scope.cancel()
        else:
            self._queue.append(message)

    def flush(self) -> None:
        """Send what is queued, as far as the kernel takes it now."""
        if self._queue and not self._unsent:
            queue, self._queue = self._queue, []
            self._send_some(memoryview(b"".join([self._sealer.seal(encode(message)) for message in queue])))
        if self._closing and self.is_idle:
            self._scope.cancel()

    def close_soon(self) -> None:
        """Close once what is queued has left, or `CLOSE_S` from now. In the Trio loop."""
        if not self._closing:
            self._closing = True
            self._scope.deadline = trio.current_time() + CLOSE_S

    async def run(self, received: Callable[[list[Message | None]], None]) -> None:
        """Carry messages both ways until the link ends. None stands for a message of an unknown kind.

        Raises:
            WireError: the peer sent bytes that are refused; the link is over.
        """
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write_on)
                    await self._read(received)
                    nursery.cancel_scope.cancel()
        except* OSError:
            pass  # the connection broke: the same as its end
        finally:
            self._connection.close()

    async def _read(self, received: Callable[[list[Message | None]], None]) -> None:
        while True:
            await self._connection.readable()
            try:
                data = self._connection.receive(READ_BYTES)
            except BlockingIOError:
                continue
            if not data:
                return
            received([decode_untrusted(body) for body in self._opener.feed_untrusted(data)])

    async def _write_on(self) -> None:
        while True:
            await self._blocked.wait()
            self._blocked = trio.Event()
            await self._connection.writable()
            self._send_some(self._unsent)
            self.flush()

    def _send_some(self, data: memoryview) -> None:
        try:
            sent = self._connection.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._scope.cancel()
            return
        self._unsent = data[sent:]
        if self._unsent:
            self._blocked.set()


async def greet(connection: Connection, keyring: Keyring, node: NodeId, *, dialer: bool) -> Keys:
    """Exchange greetings and proofs over a fresh connection.

    Raises:
        StrangerError: the other end is a node with another secret, or of another cluster.
        WireError: it is no node at all, or misbehaves.
        OSError: the connection broke meanwhile.
    """
    handshake = LinkHandshake(keyring, node, os.urandom(RANDOM_BYTES), dialer=dialer)
    with trio.move_on_after(GREETING_TIMEOUT_S):
        await _send_all(connection, handshake.greeting)
        keys = handshake.receive_untrusted(await _exactly(connection, GREETING_BYTES))
        try:
            proof = keys.sealer.seal(_PROOF)
            await _send_all(connection, proof)
            # The peer's proof is as long as ours; nothing more is read before it has been opened.
            if keys.opener.feed_untrusted(await _exactly(connection, len(proof))) == [_PROOF]:
                return keys
        except (WireError, OSError):
            handshake.check_peer_key()
            raise
        raise SealError("the peer's first message is no proof")
    raise SealError(f"no greeting within {GREETING_TIMEOUT_S:.0f} s")


async def _send_all(connection: Connection, data: bytes) -> None:
    while data:
        await connection.writable()
        with suppress(BlockingIOError):
            data = data[connection.send(data) :]


async def _exactly(connection: Connection, size: int) -> bytes:
    data = b""
    while len(data) < size:
        await connection.readable()
        with suppress(BlockingIOError):
            more = connection.receive(size - len(data))
            if not more:
                raise WireError("the connection ended during the greeting")
            data += more
    return data
