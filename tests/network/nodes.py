"""What the network tests share: real nodes on 127.0.0.1, and waiting for what they come to."""

import itertools
import os
import time
from collections import Counter
from collections.abc import Callable

from gossipsess.config import Config
from gossipsess.runtime.driver import Driver
from gossipsess.service import RunningNode
from gossipsess.session import Session
from gossipsess.waiting import blocking
from tests.ports import free_ports

SECRET = "correct-horse-battery-staple"
WITHIN_S = 10.0
"""For what takes well under a second: long enough for a machine that is busy with something else."""
_numbers = itertools.count()


def settings(**changes) -> Config:
    """Return settings of a node on loopback that finds nobody by itself, with a cluster name of the test's own."""
    defaults = {"cluster": CLUSTER, "secret": SECRET, "bind": "127.0.0.1", "port": 0, "discovery": "none"}
    return Config(**(defaults | changes))


CLUSTER = f"test-{os.getpid()}"


def static(*nodes: RunningNode) -> str:
    """Return the discovery setting that names these nodes."""
    return "static://" + ",".join(f"127.0.0.1:{node.sockets.port}" for node in nodes)


def multicast_group() -> str:
    """Return the discovery setting for a group that no other test, and no node of this machine's user, uses."""
    return f"multicast://239.255.79.{51 + next(_numbers)}:{free_ports(1)[0]}"


def eventually(true: Callable[[], object], what: str, within_s: float = WITHIN_S) -> float:
    """Wait until it is so; return how long that took, seconds."""
    started_s = time.monotonic()
    while not true():
        assert time.monotonic() < started_s + within_s, f"not within {within_s} s: {what}"
        time.sleep(0.005)
    return time.monotonic() - started_s


def alive(node: RunningNode) -> int:
    """Return how many others this node takes for alive and is linked to."""
    return sum(member.state == "alive" and member.linked for member in node.status().members)


def state_of(node: RunningNode, other: RunningNode) -> str | None:
    """Return what one node thinks of another."""
    port = other.sockets.port if other.sockets.udp.fileno() != -1 else None
    for member in node.status().members:
        if member.node == other.status().node or (port is not None and member.address[1] == port):
            return member.state
    return None


def all_linked(*nodes: RunningNode) -> None:
    """Wait until each is linked to each and has what the others had."""
    for node in nodes:
        eventually(lambda node=node: alive(node) == len(nodes) - 1 and node.synced, "all nodes are linked and synced")


def driver_of(node: RunningNode) -> Driver:
    """Return what runs a node."""
    return node._portal.driver


def rejected(node: RunningNode) -> Counter[str]:
    """Return what a node has refused so far, by kind."""
    return Counter(driver_of(node).rejected)


def committed(node: RunningNode, confirm=None, **values) -> Session:
    """Return a new session with these values, stored at a node."""
    session = node.store.create()
    session.update(values)
    blocking(node.store.commit(session, confirm))
    return session


def loaded(node: RunningNode, cookie: str) -> Session | None:
    """Return what a node makes of a cookie."""
    return blocking(node.store.load(cookie))
