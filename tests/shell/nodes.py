"""Real nodes over a network in memory, all in one Trio loop and in virtual time."""

import functools
import inspect
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import patch

import trio
import trio.testing
from trio._core import _run as trio_run

from gossipsess.config import Config
from gossipsess.runtime.driver import Driver
from gossipsess.service import NodeService
from gossipsess.session import Session
from gossipsess.waiting import on_trio
from tests.shell.fabric import GROUP, Fabric, FabricTransport

SECRET = "correct-horse-battery-staple"
PORT = 7950
MULTICAST = f"multicast://{GROUP[0]}:{GROUP[1]}"


class ShellNode:
    """One node, and what a real process would have around it."""

    def __init__(self, fabric: Fabric, number: int, **settings: Any) -> None:
        self.address = (f"10.0.0.{number}", PORT)
        config = Config(**({"cluster": "shell", "secret": SECRET, "bind": self.address[0], "port": PORT} | settings))
        self.service = NodeService(config, fabric.endpoint(self.address), trio.current_time, trio.current_time)
        self.store = self.service.store
        self.driver: Driver = self.service.make_driver()
        self.transport: FabricTransport = self.driver._transport
        self.failure: BaseException | None = None
        self.over = trio.Event()
        self._scope = trio.CancelScope()

    async def run(self) -> None:
        try:
            with self._scope:
                await self.driver.run()
        except BaseException as error:
            self.failure = error
            if not isinstance(error, Exception):
                raise
        finally:
            self.over.set()

    def kill(self) -> None:
        """End it between two of its steps, without a word."""
        self._scope.cancel()

    async def leave(self) -> None:
        self.driver.leave()
        await self.over.wait()

    @property
    def is_ending(self) -> bool:
        return self._scope.cancel_called or self.driver._leaving.is_set()

    @property
    def id(self) -> bytes:
        return self.service.node.node_id

    def states(self) -> dict[str, str]:
        return {member.address[0]: member.state for member in self.service.status().members}

    def linked(self) -> int:
        return sum(member.state == "alive" and member.linked for member in self.service.status().members)

    def open_connections(self) -> int:
        return sum(not connection.closed for connection in self.transport.connections)

    async def committed(self, confirm: Any = None, **values: Any) -> Session:
        session = self.store.create()
        session.update(values)
        await on_trio(self.store.commit(session, confirm))
        return session

    async def loaded(self, cookie: str) -> Session | None:
        return await on_trio(self.store.load(cookie))


class World:
    """A fabric, and the nodes on it."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.fabric = Fabric()
        self.nursery = nursery
        self.nodes: list[ShellNode] = []

    def start(self, discovery: str = "none", at: int | None = None, **settings: Any) -> ShellNode:
        """Start a node at the address of that number, by default the next one."""
        number = at or len(self.nodes) + 1
        node = ShellNode(self.fabric, number, discovery=discovery, **({"host": f"host-{number}"} | settings))
        self.nodes.append(node)
        self.nursery.start_soon(node.run)
        return node

    async def cluster(self, count: int, **settings: Any) -> list[ShellNode]:
        first = self.start(**settings)
        nodes = [first, *[self.start(static(first), **settings) for _ in range(count - 1)]]
        await all_linked(*nodes)
        return nodes


@asynccontextmanager
async def open_world() -> AsyncIterator[World]:
    """Give a world; at its end whoever still runs is killed, and nobody may have left a connection open."""
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        yield world
        for node in world.nodes:
            node.kill()
            await node.over.wait()
            assert not node.open_connections(), "a connection outlives its node"
            assert not node.service.node.is_driven


def static(*nodes: ShellNode) -> str:
    return "static://" + ",".join(f"{node.address[0]}:{PORT}" for node in nodes)


async def eventually(true: Callable[[], object], what: str, within_s: float = 10.0) -> float:
    """Wait until it is so; return how long that took, in virtual seconds."""
    started_s = trio.current_time()
    while not true():
        assert trio.current_time() < started_s + within_s, f"not within {within_s} s: {what}"
        await trio.sleep(0.005)
    return trio.current_time() - started_s


async def all_linked(*nodes: ShellNode) -> None:
    for node in nodes:
        await eventually(
            lambda node=node: node.linked() == len(nodes) - 1 and node.service.synced, "all nodes are linked"
        )


async def goes_on(world: World, *nodes: ShellNode) -> None:
    """The nodes run and serve what they have, and another one joins them."""
    for node in nodes:
        assert node.failure is None
        assert not node.over.is_set()
    session = await nodes[0].committed(0, user="kim")
    friend = world.start(static(*nodes))
    await all_linked(*nodes, friend)
    assert (await friend.loaded(session.cookie))["user"] == "kim"


def in_world(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Make a test of a function whose first argument is a world: in a loop of its own, each time the same.

    Trio schedules deterministically under pytest-trio, and what a node draws comes from a fixed seed.
    """

    @functools.wraps(test)
    def run(*values: Any, **arguments: Any) -> None:
        async def main() -> None:
            async with open_world() as world:
                await test(world, *values, **arguments)

        trio_run._r.seed(1)
        with patch("os.urandom", random.Random(1).randbytes):
            trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))

    signature = inspect.signature(test)
    run.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])
    del run.__wrapped__  # it is no async test
    return run
