"""Nodes that end with the test that started them."""

from collections.abc import Callable, Iterator

import pytest

from gossipsess.service import RunningNode
from tests.network.nodes import all_linked, settings, static


@pytest.fixture
def start() -> Iterator[Callable[..., RunningNode]]:
    """Return a function that starts a node with `settings(...)`."""
    started: list[RunningNode] = []

    def one(**changes) -> RunningNode:
        node = RunningNode(settings(**changes))
        started.append(node)
        return node

    yield one
    for node in started:
        node.close()


@pytest.fixture
def cluster(start) -> Callable[..., list[RunningNode]]:
    """Return a function that starts linked nodes, each of which counts as a host of its own."""

    def several(count: int, **changes) -> list[RunningNode]:
        nodes = [start(host="host-0", **changes)]
        for number in range(1, count):
            nodes.append(start(**({"host": f"host-{number}", "discovery": static(nodes[0])} | changes)))
        all_linked(*nodes)
        return nodes

    return several
