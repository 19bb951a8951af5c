# Fabric: a network in memory, for the real driver under Trio's virtual clock.
#
# In:     who listens where, what is sent and dialed, and what hurts: `silent`, `cut`, `reset`, `loss`.
# Out:    `Fabric.endpoint(address)`, which a NodeService takes in place of bound sockets.
# Choice: a stream takes CAPACITY bytes that nobody has read, and may take and give less than asked for (`most`).
#         Datagrams wait in a queue, and what does not fit is dropped. Both as a kernel does.
# Not here: nodes (nodes.py).

from collections.abc import Callable
from functools import partial

import trio

from gossipsess.model.member import Address, Name
from gossipsess.runtime.transport import Receiver

CAPACITY = 64 * 1024
DATAGRAMS_MAX = 200
BACKLOG = 128
GROUP = ("239.255.79.50", 7949)


class Pipe:
    """One direction of a stream."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.ended = False  # by its writer
        self.unread = False  # its reader has closed
        self.broken = False
        self.cut = False  # nothing arrives, not even the end
        self._changed = trio.Event()

    def touch(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def until(self, true: Callable[[], object]) -> None:
        await trio.lowlevel.checkpoint()
        while not true():
            await self._changed.wait()


class PipeConnection:
    """One end of a stream; see `gossipsess.runtime.transport.Connection`."""

    def __init__(self, fabric: "Fabric", inward: Pipe, outward: Pipe) -> None:
        self._fabric = fabric
        self.inward = inward
        self.outward = outward
        self.closed = False
        self.reads_nothing = False
        fabric.open[self] = None

    def send(self, data: bytes | memoryview) -> int:
        if self.closed or self.outward.broken or (self.outward.unread and not self.outward.cut):
            raise ConnectionResetError("nobody is there any more")
        room = CAPACITY - len(self.outward.data)
        if not room:
            raise BlockingIOError
        taken = data[: min(room, self._fabric.most())]
        self.outward.data += taken
        self.outward.touch()
        return len(taken)

    def receive(self, size: int) -> bytes:
        pipe = self.inward
        if self.closed or pipe.broken:
            raise ConnectionResetError("it broke")
        if not self._has_news():
            raise BlockingIOError
        data = bytes(pipe.data[: min(size, self._fabric.most())])
        del pipe.data[: len(data)]
        pipe.touch()
        return data

    @property
    def host(self) -> str:
        return "10.0.0.99"

    async def readable(self) -> None:
        await self.inward.until(lambda: self.closed or self.inward.broken or self._has_news())

    async def writable(self) -> None:
        pipe = self.outward
        await pipe.until(lambda: self.closed or pipe.broken or pipe.unread or len(pipe.data) < CAPACITY)

    def close(self) -> None:
        self.closed = self.outward.ended = self.inward.unread = True
        self.inward.touch()
        self.outward.touch()
        self._fabric.open.pop(self, None)

    def reset(self) -> None:
        """Break it, for both ends."""
        for pipe in (self.inward, self.outward):
            pipe.broken = True
            pipe.touch()

    def cut(self) -> None:
        """Let nothing through any more, and tell nobody."""
        self.inward.cut = self.outward.cut = True

    def _has_news(self) -> bool:
        return bool(self.inward.data or self.inward.ended) and not self.inward.cut and not self.reads_nothing


class Fabric:
    """Addresses, and everything between them."""

    def __init__(self) -> None:
        self.most: Callable[[], int] = lambda: CAPACITY
        """How many bytes the next call on a stream takes or gives at most."""
        self.lost: Callable[[], bool] = lambda: False
        """Whether the next datagram is lost."""
        self.silent: dict[Address, None] = {}
        """Machines that answer nothing: what is sent there is gone, and dials there do not end."""
        self.open: dict[PipeConnection, None] = {}
        self.listening: dict[Address, FabricTransport] = {}
        self.dials: list[Address] = []
        self.names: dict[str, tuple[Address, ...] | Exception] = {}
        """What the name service knows, or how asking it fails."""

    def endpoint(self, address: Address) -> "FabricEndpoint":
        return FabricEndpoint(self, address)

    def pair(self) -> tuple[PipeConnection, PipeConnection]:
        one, other = Pipe(), Pipe()
        return PipeConnection(self, one, other), PipeConnection(self, other, one)

    def deliver(self, data: bytes, source: Address, target: Address) -> None:
        for address, transport in self.listening.items():
            if target in (address, GROUP) and not {address, source} & self.silent.keys() and not self.lost():
                transport.arrived(data, source)

    async def connect(self, address: Address) -> PipeConnection:
        self.dials.append(address)
        await trio.lowlevel.checkpoint()
        if address in self.silent:
            await trio.sleep_forever()
        transport = self.listening.get(address)
        if transport is None:
            raise ConnectionRefusedError("nobody listens there")
        near, far = self.pair()
        try:
            transport.backlog_in.send_nowait(far)
        except trio.WouldBlock:
            near.close()
            far.close()
            raise TimeoutError("its backlog is full") from None
        return near


class FabricTransport:
    """See `gossipsess.runtime.transport.Transport`."""

    def __init__(self, fabric: Fabric, address: Address) -> None:
        self.fabric = fabric
        self.address = address
        self.datagrams_in, self.datagrams = trio.open_memory_channel[tuple[bytes, Address]](DATAGRAMS_MAX)
        self.backlog_in, self.backlog = trio.open_memory_channel[PipeConnection](BACKLOG)
        self.failures: list[OSError] = []  # what the next receives and accepts raise
        self.dropped = 0
        self.connections: list[PipeConnection] = []
        fabric.listening[address] = self

    @property
    def receivers(self) -> tuple[Receiver, ...]:
        return (partial(self._next, self.datagrams),)

    async def _next(self, channel):
        if self.failures:
            await trio.lowlevel.checkpoint()
            raise self.failures.pop()
        return await channel.receive()

    def arrived(self, data: bytes, source: Address) -> None:
        try:
            self.datagrams_in.send_nowait((data, source))
        except trio.WouldBlock:
            self.dropped += 1

    def send_to(self, data: bytes, address: Address) -> None:
        if not address[1]:
            raise OSError("no such port")
        address[0].encode("ascii").index(b".")  # as a socket's own check, which raises ValueError too
        self.fabric.deliver(data, self.address, address)

    async def accept(self) -> PipeConnection:
        connection = await self._next(self.backlog)
        self.connections.append(connection)
        return connection

    async def connect(self, address: Address) -> PipeConnection:
        if "\0" in address[0]:
            raise ValueError("embedded null character")
        connection = await self.fabric.connect(address)
        self.connections.append(connection)
        return connection

    async def look_up(self, name: Name) -> tuple[Address, ...]:
        await trio.lowlevel.checkpoint()
        if name.host not in self.fabric.names:
            raise OSError("no such name")
        answer = self.fabric.names[name.host]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        if self.fabric.listening.get(self.address) is self:
            del self.fabric.listening[self.address]
        for connection in self.connections:
            connection.close()
        while True:  # as a kernel does with those that nobody accepted
            try:
                self.backlog.receive_nowait().close()
            except trio.WouldBlock:
                return


class FabricEndpoint:
    """See `gossipsess.runtime.transport.Endpoint`."""

    def __init__(self, fabric: Fabric, address: Address) -> None:
        self.address = address
        self.port = address[1]
        self._fabric = fabric

    def transport(self) -> FabricTransport:
        return FabricTransport(self._fabric, self.address)

    def close(self) -> None:
        pass  # taken only with its transport
