"""Sessions whose every operation goes to a random one of several real nodes, as behind a balancer without stickiness.

It takes the place of an adapter's node, and each load, commit, rotation and end picks a node of its own. So whatever a
suite does with one process's sessions it does here with a cluster's.
"""

import os
import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from gossipsess.config import Config
from gossipsess.protocol.events import Confirm
from gossipsess.protocol.outcomes import Outcome, Revoked
from gossipsess.service import NodeService, RunningNode
from gossipsess.session import Session
from gossipsess.status import Status
from gossipsess.store import SessionStore
from gossipsess.waiting import blocking
from tests.network.nodes import SECRET, all_linked, static


class ScatteredStore(SessionStore):
    """A store each of whose answers comes from a random one of these."""

    def __init__(self, stores: list[SessionStore], rng: random.Random, asked: Counter[int]) -> None:
        self._stores = stores
        self._rng = rng
        self._asked = asked

    def _any(self) -> SessionStore:
        number = self._rng.randrange(len(self._stores))
        self._asked[number] += 1
        return self._stores[number]

    def _any_with(self, session: Session) -> SessionStore:
        # A request writes where it has read. So the node that is to write reads first, as if the request had come to
        # it: one that has not heard of the session yet would take it for one that has ended.
        store = self._any()
        if not session.is_new:
            blocking(store.load(session.cookie))
        return store

    def create(self, name: bytes | None = None) -> Session:
        return self._any().create(name)

    def former_ids(self, name: bytes) -> list[str]:
        return self._any().former_ids(name)

    def load(self, cookie: str) -> Session | Future[Session | None] | None:
        return self._any().load(cookie)

    def load_named(self, name: str, token: str) -> Session | Future[Session | None] | None:
        return self._any().load_named(name, token)

    def held(self, name: str, token: str) -> Session | None:
        return self._any().held(name, token)

    def commit(self, session: Session, confirm: Confirm | None = None) -> Outcome | Future[Outcome]:
        return self._any_with(session).commit(session, confirm)

    def rotate(self, session: Session, confirm: Confirm | None = None) -> Outcome | Future[Outcome]:
        return self._any_with(session).rotate(session, confirm)

    def invalidate(self, session: Session, confirm: Confirm | None = None) -> Outcome | Future[Outcome]:
        return self._any().invalidate(session, confirm)

    def load_derived(self, session_id: str) -> Session | Future[Session | None] | None:
        return self._any().load_derived(session_id)

    def mark(self, name: bytes) -> Session | Future[Session | None] | None:
        return self._any().mark(name)

    def adopt(
        self, session: Session, name: bytes, signed_at: float, created_at: float | None = None
    ) -> Outcome | Future[Outcome]:
        return self._any().adopt(session, name, signed_at, created_at)

    def put_mark(self, name: bytes, signed_at: float, ends_at: float) -> Outcome | Future[Outcome]:
        return self._any().put_mark(name, signed_at, ends_at)

    def revoke(self, user: str, confirm: Confirm | None = None) -> Revoked | Future[Revoked]:
        return self._any().revoke(user, confirm)

    def time(self) -> float:
        return self._any().time()


class Scattered(NodeService):
    """What an adapter takes for one node, over several.

    Attributes:
        nodes: the real ones.
        asked: how many operations went to each, so that a test can tell that all of them were asked.
    """

    def __init__(self, nodes: list[RunningNode], seed: int) -> None:
        self.nodes = nodes
        self.config = nodes[0].config
        self.keyring = nodes[0].keyring
        self.node = nodes[0].node
        self.asked: Counter[int] = Counter()
        self._rng = random.Random(seed)
        self.store = self.new_store()

    def new_store(self, session_class: type[Session] = Session, *timeouts: float | None) -> SessionStore:
        stores = [node.new_store(session_class, *timeouts) for node in self.nodes]
        return ScatteredStore(stores, self._rng, self.asked)

    def status(self) -> Status:
        return self.nodes[0].status()


@contextmanager
def scattered(count: int = 3, seed: int = 1, **settings: Any) -> Iterator[Scattered]:
    """Run linked nodes on 127.0.0.1, each counting as a host of its own, and scatter operations over them."""
    defaults: dict[str, Any] = {"cluster": f"suite-{os.getpid()}", "secret": SECRET, "bind": "127.0.0.1", "port": 0}
    nodes: list[RunningNode] = []
    try:
        for number in range(count):
            discovery = static(*nodes) if nodes else "none"
            config = Config(**(defaults | {"discovery": discovery, "host": f"host-{number}"} | settings))
            nodes.append(RunningNode(config))
        all_linked(*nodes)
        yield Scattered(nodes, seed)
    finally:
        for node in nodes:
            node.leave_soon()
        for node in nodes:
            node.close()
