"""Drawn schedules: whatever happens to nodes and links, every wait ends, and the nodes come together."""

from typing import Any

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from gossipsess import Confirmed, Degraded, SessionUnavailable
from gossipsess.protocol.outcomes import Gone
from gossipsess.runtime import links
from gossipsess.runtime.socket_transport import USER_TIMEOUT_MS
from gossipsess.waiting import on_trio
from tests.shell.fabric import PipeConnection
from tests.shell.nodes import PORT, World, all_linked, eventually, in_world

COUNT = 3
NODES = st.integers(0, COUNT - 1)
ANSWERED_S = 1.0
"""Every request is answered long before: commits after a quarter of a second, loads sooner."""
QUIET_S = 20.0
SYNC_S = 40.0
"""A sync with every peer runs each half minute."""

STEPS = st.one_of(
    st.tuples(st.just("commit"), NODES, st.sampled_from([0, 1, 2, "all"])),
    st.tuples(st.just("load"), NODES, st.integers(0, 5)),
    st.tuples(st.just("end"), NODES, st.integers(0, 5)),
    st.tuples(st.sampled_from(["kill", "leave", "start"]), NODES, st.none()),
    st.tuples(st.sampled_from(["reset", "cut", "trickle"]), NODES, st.integers(0, 3)),
    st.tuples(st.sampled_from(["stranger", "garbage"]), NODES, st.binary(max_size=80)),
    st.tuples(st.just("silence"), NODES, st.floats(0.1, 4)),
    st.tuples(st.just("sleep"), st.just(0), st.sampled_from([0.001, 0.005, 0.1, 0.5, 3.0])),
)


def differing(nodes: list[Any]) -> bool:
    """Say whether nodes hold different sessions, or different states of one."""
    held = [{sid: record.state_hash for sid, record in node.service.node.records.items()} for node in nodes]
    return held[1:] != held[:-1]


class Play:
    """One schedule."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.discovery = "static://" + ",".join(f"10.0.0.{number + 1}:{PORT}" for number in range(COUNT))
        self.running: list[Any] = [None] * COUNT
        self.cookies: list[str] = []
        self.open = 0

    def start(self, index: int) -> None:
        node = self.running[index]
        if node is None or node.over.is_set():
            self.world.fabric.silent.pop((f"10.0.0.{index + 1}", PORT), None)
            self.running[index] = self.world.start(self.discovery, at=index + 1)

    async def request(self, node: Any, do: str, what: Any) -> None:
        self.open += 1
        with trio.fail_after(ANSWERED_S):
            if do == "commit":
                session = node.store.create()
                session["user"] = "kim"
                outcome = await on_trio(node.store.commit(session, what))
                assert isinstance(outcome, Confirmed | Degraded)
                self.cookies.append(session.cookie)
            elif self.cookies:
                try:
                    session = await node.loaded(self.cookies[what % len(self.cookies)])
                    if session is not None and do == "end":
                        outcome = await on_trio(node.store.invalidate(session))
                        assert isinstance(outcome, Confirmed | Degraded | Gone)
                except SessionUnavailable:
                    pass
        self.open -= 1

    async def step(self, nursery: trio.Nursery, do: str, index: int, what: Any) -> None:
        node = self.running[index]
        ways = [connection for connection in node.transport.connections if not connection.closed]
        match do:
            case "commit" | "load" | "end":
                nursery.start_soon(self.request, node, do, what)
            case "kill":
                node.kill()
            case "leave":
                node.driver.leave()
            case "start":
                self.start(index)
            case "reset" if ways:
                ways[what % len(ways)].reset()
            case "cut" if ways:
                ways[what % len(ways)].cut()
                nursery.start_soon(self.given_up, ways[what % len(ways)])
            case "trickle":
                self.world.fabric.most = lambda: 1 + 500 * what
            case "stranger" if not node.over.is_set() and node.address not in self.world.fabric.silent:
                stranger = await self.world.fabric.connect(node.address)
                stranger.send(what)
                if len(what) % 2:
                    stranger.close()
            case "garbage":
                node.transport.arrived(what, ("10.0.0.99", PORT))
            case "silence":
                self.world.fabric.silent[node.address] = None
                nursery.start_soon(self.heard_again, node.address, what)
            case "sleep":
                await trio.sleep(what)

    async def given_up(self, connection: PipeConnection) -> None:
        """A kernel does so with a connection whose other end does not acknowledge."""
        await trio.sleep(USER_TIMEOUT_MS / 1000)
        connection.reset()

    async def heard_again(self, address: tuple[str, int], after_s: float) -> None:
        await trio.sleep(after_s)
        self.world.fabric.silent.pop(address, None)


@settings(max_examples=50, deadline=None)
@given(steps=st.lists(STEPS, max_size=25), together=st.booleans())
@in_world
async def test_whatever_happens_every_request_is_answered_and_the_nodes_come_together(world, steps, together):
    """Kills, leaves, restarts, broken and silent links, strangers and requests, in any order and at any moment."""
    play = Play(world)
    for index in range(COUNT):
        play.start(index)
    if together:
        await all_linked(*play.running)
    async with trio.open_nursery() as nursery:
        for do, index, what in steps:
            await play.step(nursery, do, index, what)
    assert not play.open
    for node in world.nodes:
        assert node.failure is None
    for index in range(COUNT):
        if play.running[index].is_ending:
            await play.running[index].over.wait()
        play.start(index)
    await eventually(
        lambda: all(node.linked() == COUNT - 1 and node.service.synced for node in play.running),
        "all are linked",
        within_s=links.GREETING_TIMEOUT_S + QUIET_S,
    )
    if differing(play.running):
        await trio.sleep(SYNC_S)
    assert not differing(play.running)
