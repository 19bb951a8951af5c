# Proxy: stands between every two nodes, and loses, delays, stalls and resets what passes, by pair and direction.
#
#     node a (127.0.1.a)  ->  front of b (127.0.2.b)  ->  node b (127.0.1.b)
#
# In:     what is to happen on the way from a to b: `Proxy.way(a, b)`, changed at any time, from any thread.
# UDP:    who sends is told by its address. A datagram is handed on from the sender's own front, so that an answer
#         to it comes back through the proxy too.
# TCP:    who dials is told by the greeting, which names the node in the clear; what is not known yet passes unhurt.
#         Bytes are never lost, only late: that is what TCP does to a lost packet.
# Choice: a proxy and not `tc netem`: it needs no root, and can hurt one direction of one pair. What it cannot do
#         is to be a machine without a listener: a dial to a killed node is accepted here, and then reset.

import random
import socket
import struct
import threading
from dataclasses import dataclass
from typing import Final

import trio

from gossipsess.wire.crypto import DATAGRAM_BYTES_MAX, GREETING_BYTES

LOOK_S: Final = 0.02
"""How often a stalled way is looked at."""
READ_BYTES: Final = 64 * 1024
_NODE_IN_GREETING: Final = slice(10, 14)
"""The first half of the dialer's id: as much of it as a status shows."""
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: close by RST


@dataclass
class Way:
    """What happens from one node to another."""

    loss: float = 0.0
    """Share of the datagrams that vanish."""
    delay_s: float = 0.0
    """Added to each datagram, and to each read of a TCP stream."""
    stalled: bool = False
    """Nothing passes: datagrams are lost, TCP waits."""


class _Carried:
    def __init__(self, dialer: str, to: int, scope: trio.CancelScope) -> None:
        self.dialer = dialer
        self.to = to
        self.scope = scope


class Proxy:
    """One front for each of `count` nodes, run by a thread of its own.

    Attributes:
        fronts: where nodes are reached, (ip, port); what a node must advertise.
        backs: where nodes must listen.
        lost, passed: datagrams. resets: connections reset on demand.
    """

    def __init__(self, count: int, port: int, seed: int = 0) -> None:
        self.fronts = [(f"127.0.2.{index + 1}", port) for index in range(count)]
        self.backs = [(f"127.0.1.{index + 1}", port) for index in range(count)]
        self.lost = self.passed = self.resets = 0
        self._rng = random.Random(seed)
        self._ways = {(a, b): Way() for a in range(count) for b in range(count)}
        self._index_of_back = {ip: index for index, (ip, _) in enumerate(self.backs)}
        self._index_of_node: dict[str, int] = {}
        self._carried: dict[_Carried, None] = {}
        self._started = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._run,), name="chaos-proxy", daemon=True)
        self._thread.start()
        assert self._started.wait(10), "the proxy did not come up; its thread's traceback says why"

    def name(self, node: str, index: int) -> None:
        """Say at which place a node lives; `node` is its id as a status shows it."""
        self._index_of_node[node] = index

    def way(self, a: int, b: int) -> Way:
        """Return the way from node a to node b, to be changed in place."""
        return self._ways[a, b]

    def isolate(self, index: int, *, stalled: bool) -> None:
        """Stall, or open again, every way to and from a node."""
        for (a, b), way in self._ways.items():
            if index in (a, b):
                way.stalled = stalled

    def reset(self, a: int, b: int) -> None:
        """Reset every connection between two nodes."""
        self._token.run_sync_soon(self._reset_now, a, b)

    def heal(self) -> None:
        """Open every way."""
        for way in self._ways.values():
            way.loss, way.delay_s, way.stalled = 0.0, 0.0, False

    def close(self) -> None:
        """End all connections, and the thread."""
        self._token.run_sync_soon(self._scope.cancel)
        self._thread.join(10)

    async def _run(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._udp = [await _udp_socket(*front) for front in self.fronts]
        with trio.CancelScope() as self._scope:
            async with trio.open_nursery() as nursery:
                for index, (ip, port) in enumerate(self.fronts):
                    listeners = await trio.open_tcp_listeners(port, host=ip)
                    nursery.start_soon(self._accept, listeners[0], index)
                    nursery.start_soon(self._pass_datagrams, index, nursery)
                self._started.set()

    # --- UDP ------------------------------------------------------------------------------------------------

    async def _pass_datagrams(self, to: int, nursery: trio.Nursery) -> None:
        with self._udp[to] as sock:
            while True:
                try:
                    data, source = await sock.recvfrom(DATAGRAM_BYTES_MAX + 1)
                except ConnectionError:
                    continue  # an earlier one was refused where it went
                sender = self._index_of_back[source[0]]
                way = self._ways[sender, to]
                if way.stalled or self._rng.random() < way.loss:
                    self.lost += 1
                elif way.delay_s:
                    nursery.start_soon(self._hand_on, data, sender, to, way.delay_s)
                else:
                    await self._hand_on(data, sender, to, 0)

    async def _hand_on(self, data: bytes, sender: int, to: int, delay_s: float) -> None:
        await trio.sleep(delay_s)
        try:
            await self._udp[sender].sendto(data, self.backs[to])
        except OSError:
            return  # nobody listens: lost, as on a real network
        self.passed += 1

    # --- TCP ------------------------------------------------------------------------------------------------

    async def _accept(self, listener: trio.SocketListener, to: int) -> None:
        async with listener, trio.open_nursery() as nursery:
            while True:
                nursery.start_soon(self._carry, await listener.accept(), to)

    async def _carry(self, near: trio.SocketStream, to: int) -> None:
        far: trio.SocketStream | None = None
        with trio.CancelScope() as scope:
            try:
                greeting = b""
                while len(greeting) < GREETING_BYTES:
                    more = await near.receive_some(GREETING_BYTES - len(greeting))
                    if not more:
                        return
                    greeting += more
                carried = _Carried(greeting[_NODE_IN_GREETING].hex(), to, scope)
                self._carried[carried] = None
                try:
                    await self._delayed(carried, there=True)
                    far = await trio.open_tcp_stream(*self.backs[to])
                    await far.send_all(greeting)
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._pump, far, near, carried, False)
                        await self._pump(near, far, carried, True)
                        nursery.cancel_scope.cancel()
                finally:
                    del self._carried[carried]
            except* OSError:
                pass  # nobody listens there
            except* (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            finally:
                for stream in (near, far):
                    if stream is not None:
                        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                        stream.socket.close()

    async def _pump(self, source: trio.SocketStream, sink: trio.SocketStream, carried: _Carried, there: bool) -> None:
        while True:
            data = await source.receive_some(READ_BYTES)
            await self._delayed(carried, there=there)
            if not data:
                # The end of the stream is held up as bytes are, and then ends both directions.
                raise trio.BrokenResourceError
            await sink.send_all(data)

    async def _delayed(self, carried: _Carried, *, there: bool) -> None:
        way = self._way_of(carried, there)
        if way.delay_s:
            await trio.sleep(way.delay_s)
        while self._way_of(carried, there).stalled:  # noqa: ASYNC110  # set by other threads, at any time
            await trio.sleep(LOOK_S)

    def _way_of(self, carried: _Carried, there: bool) -> Way:
        dialer = self._index_of_node.get(carried.dialer)
        if dialer is None:
            return _OPEN
        return self._ways[(dialer, carried.to) if there else (carried.to, dialer)]

    def _reset_now(self, a: int, b: int) -> None:
        for carried in self._carried:
            if {self._index_of_node.get(carried.dialer), carried.to} == {a, b}:
                carried.scope.cancel()
                self.resets += 1


_OPEN: Final = Way()


async def _udp_socket(ip: str, port: int) -> trio.socket.SocketType:
    sock = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    await sock.bind((ip, port))
    return sock
