# Cookies: what frameworks' own sessions have left in browsers, shown to nodes. Each becomes one session, once.
#
# In:    a process, and the number of a cookie.    Out: the session that an application would get, or none.
# What runs is `web/adoption.py` itself over a real store; only the waiting is done in virtual time. Whoever waits at
# a process that ends is told nothing more.
# Not here: who shows which cookie when (swarm.py), what must hold (adoptions.py).

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, Final

from gossipsess.errors import SessionUnavailable
from gossipsess.model.identity import NodeId, Sid, sid_of
from gossipsess.node import Node
from gossipsess.protocol.events import Event
from gossipsess.session import Session
from gossipsess.sim.cluster import Cluster
from gossipsess.sim.process import EPOCH_MS, Process
from gossipsess.store import SessionStore
from gossipsess.tokens import Tokens
from gossipsess.waiting import Steps
from gossipsess.web.adoption import Former, adoption
from gossipsess.web.session import WebSession

SIGNED_S: Final = 2
"""How long before a run begins its cookies were signed."""
VALID_S: Final = 86_400
"""For how long they are valid: longer than any run."""

Then = Callable[[Session | None], None]
Steps_ = Steps[WebSession | None]


class Cookies:
    """The former cookies of one cluster's clients, and the stores of its processes."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._scenario = cluster.scenario
        self._key = f"{cluster.seed}".encode("ascii").ljust(32, b"-")
        self._stores: dict[NodeId, SessionStore] = {}

    def sid(self, number: int) -> Sid:
        """Return the sid of the session that a cookie becomes; the ids of a cluster follow from its secret."""
        return sid_of(self._store(self._cluster.processes[0]).create(self._former(number).name).id)

    def show(self, process: Process, number: int, then: Then) -> None:
        """Show a cookie to a process; `then` is called with the session, or None where the cookie is none.

        It is not called where that cannot be known, nor where the process ends meanwhile.
        """
        steps = adoption(self._store(process), self._former(number))
        self._go_on(process, steps, then, None)

    def _go_on(self, process: Process, steps: Steps_, then: Then, answer: object) -> None:
        if not process.alive:
            return
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as end:
                then(end.value)
                return
            except SessionUnavailable:
                self._cluster.counts["cookies unknown"] += 1
                return
            if isinstance(step, Future):
                if not step.done():
                    step.add_done_callback(partial(self._settled, process, steps, then))
                    return
                step = step.result()
            answer = step

    def _settled(self, process: Process, steps: Steps_, then: Then, done: Future[Any]) -> None:
        error = done.exception()
        if error is None:
            # Not here: whatever a callback of a Future raises is lost, and it may be a violation.
            go_on = partial(self._go_on, process, steps, then, done.result())
            self._cluster.after(0.0, partial(self._cluster.reach, process, go_on))
        elif isinstance(error, SessionUnavailable):
            self._cluster.counts["cookies unknown"] += 1
        else:
            raise error  # lost as well, but for a line on standard error: the wait has no end then

    def _former(self, number: int) -> Former:
        signed_at = EPOCH_MS // 1000 - SIGNED_S
        name = f"{self._cluster.seed} cookie {number}".encode("ascii")
        return Former(name, signed_at, signed_at + VALID_S, {"cart": f"cookie {number}"})

    def _store(self, process: Process) -> SessionStore:
        store = self._stores.get(process.node)
        if store is None:
            idle_s, absolute_s = (one / 1000 for one in (self._scenario.idle_ms, self._scenario.absolute_ms))
            node, tokens = _NodeInWorld(self._cluster, process), Tokens((self._key,))
            store = SessionStore(
                node, tokens, idle_timeout_s=idle_s, absolute_timeout_s=absolute_s, session_class=WebSession
            )
            self._stores[process.node] = store
        return store


class _NodeInWorld(Node):
    """A node whose driver is the cluster."""

    def __init__(self, cluster: Cluster, process: Process) -> None:
        super().__init__(process.replica, lambda: process.clock(cluster.now_s))
        self._cluster = cluster
        self._process = process

    def submit(self, event: Event) -> Any:
        """Take one event; what follows is carried out in the world."""
        return self._cluster.submit(self._process, event)
