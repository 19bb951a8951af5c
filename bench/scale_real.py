# Scale, real: what requests cost in a cluster of processes on this machine, over loopback and without multicast.
#
# In:      how many nodes and sessions.    Out: `Figures`, with latencies and resident memory.
# A phase for each kind of request, on one node after the other: few cores serve all of them, and nodes at work at one
# time would measure each other. Between phases everything comes to rest: what is sent in a phase is its own.
# Counted: every message where it is encoded, by a wrapper around the codec that is set in these processes only.
# Each process is a host of its own, by its settings: copies go where they would go on as many machines.
# Not here: large clusters, and how many nodes a request reaches (scale_simulated.py).

import os
import random
import secrets
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from replicate import LOOPBACK, PATIENCE_S, Ask, BenchError, serve, side_process, wait_until
from scale_count import (
    ATTRIBUTES,
    VALUE_BYTES,
    Cost,
    Figures,
    Sent,
    Traffic,
    add,
    cost,
    holders,
    joined,
    placement_settings,
    since,
    total,
)

from gossipsess.config import Config
from gossipsess.model.identity import sid_of
from gossipsess.protocol.outcomes import Confirmed
from gossipsess.runtime import driver, links
from gossipsess.service import RunningNode
from gossipsess.session import Session
from gossipsess.waiting import blocking
from gossipsess.wire.codec import encode
from gossipsess.wire.messages import Message

LOOK_S: Final = 0.1
"""At rest is who has sent nothing for a request in between two looks."""


class Side:
    """One node, doing what it is asked. Public methods take and return what JSON can say."""

    _service: RunningNode

    def __init__(self) -> None:
        self._traffic: Traffic = {}
        self._loaded: dict[str, Session] = {}  # by session id

    def hello(self) -> None:
        """Show that this process runs."""

    def start(self, index: int, discovery: str, cluster: str, secret: str, all_to_all: bool) -> int:
        """Start the node, and count from now on what it sends; return its port."""

        def counting(message: Message) -> bytes:
            data = encode(message)
            add(self._traffic, message, len(data))
            return data

        for module in (driver, links):
            vars(module)["encode"] = counting
        config = Config(
            cluster=cluster,
            secret=secret,
            bind=LOOPBACK,
            port=0,
            discovery=discovery,
            host=f"host-{index}",
            node_name=f"node-{index}",
            **placement_settings(all_to_all),
        )
        self._service = RunningNode(config)
        return self._service.status().address[1]

    def meet(self, others: int) -> None:
        """Wait until every other node is linked, and this one has what they had."""

        def met() -> bool:
            return self._service.synced and sum(one.linked for one in self._service.status().members) == others

        wait_until(met, "a link to each other node")

    def holds(self, cookies: list[str]) -> list[bool]:
        """Say of each session whether placement gives it to this node."""
        with self._service.node.locked() as replica:
            return [replica.node in holders(replica, sid_of(_id(cookie))) for cookie in cookies]

    def create(self, sessions: int) -> list[tuple[str, float]]:
        """Create sessions; return the cookie of each, and how long its request took, milliseconds."""
        return [self._commit(self._service.store.create(), range(ATTRIBUTES)) for _ in range(sessions)]

    def read(self, cookies: list[str]) -> list[tuple[str, float]]:
        """Load sessions, and keep them for `write`."""
        return [self._read(cookie) for cookie in cookies]

    def write(self, cookies: list[str]) -> list[tuple[str, float]]:
        """Replace one value in each of these sessions, which this node has read."""
        return [self._commit(self._loaded[_id(cookie)], range(1)) for cookie in cookies]

    def traffic(self) -> Traffic:
        """Return all that was sent since the start."""
        return dict(self._traffic)

    def unconfirmed(self) -> int:
        """Return how much is not acknowledged yet."""
        return self._service.status().unconfirmed

    def memory(self) -> tuple[int, int, int]:
        """Return (resident bytes of this process, bytes of its records by its own account, how many records)."""
        (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS:")]
        status = self._service.status()
        return int(line.split()[1]) * 1024, status.memory_bytes, status.sessions

    def stop(self) -> None:
        """Leave."""
        self._service.close()

    def _read(self, cookie: str) -> tuple[str, float]:
        began_s = time.perf_counter()
        session = blocking(self._service.store.load(cookie))
        took_s = time.perf_counter() - began_s
        if session is None or session.stale:
            raise BenchError(f"with all well, a read is {'absent' if session is None else 'stale'}")
        self._loaded[_id(cookie)] = session
        return cookie, took_s * 1000

    def _commit(self, session: Session, attributes: Iterable[int]) -> tuple[str, float]:
        for attribute in attributes:
            session[f"field-{attribute}"] = os.urandom(VALUE_BYTES)
        began_s = time.perf_counter()
        outcome = blocking(self._service.store.commit(session, 1))
        took_s = time.perf_counter() - began_s
        if not isinstance(outcome, Confirmed):
            raise BenchError(f"with all well, a write is {outcome}")
        return session.cookie, took_s * 1000


class _Cluster:
    """The processes, and what they are asked together."""

    def __init__(self, sides: list[Ask]) -> None:
        self.sides = sides

    def traffic(self) -> Traffic:
        return joined({kind: Sent(*sent) for kind, sent in side("traffic").items()} for side in self.sides)

    def come_to_rest(self) -> Traffic:
        """Wait until nobody sends anything for a request any more; return all that was sent so far."""
        wait_until(lambda: not any(side("unconfirmed") for side in self.sides), "the last acknowledgement")
        give_up_s = time.monotonic() + PATIENCE_S
        traffic = self.traffic()
        while True:
            time.sleep(LOOK_S)
            now = self.traffic()
            if total(now, "requests") == total(traffic, "requests"):
                return now
            if time.monotonic() > give_up_s:
                raise BenchError(f"messages of requests go on for {PATIENCE_S:.0f} s after the last one")
            traffic = now

    def phase(self, do: str, chosen: list[tuple[int, Any]]) -> tuple[list[tuple[str, float]], Cost | None]:
        """Have nodes do something, each with what was chosen for it: (index, argument).

        Returns (cookie, milliseconds) of each request, and what they cost.
        """
        before = self.come_to_rest()
        told: list[tuple[str, float]] = []
        for index, argument in chosen:
            name = "sessions" if do == "create" else "cookies"
            told += [(cookie, took_ms) for cookie, took_ms in self.sides[index](do, **{name: argument})]
        return told, cost(len(told), since(self.come_to_rest(), before), took_ms=[took_ms for _, took_ms in told])


def measure(nodes: int, sessions: int, idle_s: float, seed: int, *, all_to_all: bool) -> Figures:
    """Return what a cluster of so many processes costs. `idle_s`: for how long idle nodes are counted.

    Raises:
        BenchError: a process failed, or a request did though nothing was wrong.
    """
    began_s = time.monotonic()
    rng = random.Random(seed)
    with ExitStack() as stack:
        sides = [stack.enter_context(side_process([], __file__))[0] for _ in range(nodes)]
        cluster = _Cluster(sides)
        common = {"cluster": f"scale-{os.getpid()}", "secret": secrets.token_urlsafe(), "all_to_all": all_to_all}
        port = sides[0]("start", index=0, discovery="none", **common)
        for index, side in enumerate(sides[1:], 1):
            side("start", index=index, discovery=f"static://{LOOPBACK}:{port}", **common)
        for side in sides:
            side("meet", others=nodes - 1)
        met_rss = [side("memory")[0] for side in sides]
        met = cluster.come_to_rest()

        shares = [(index, len(range(index, sessions, nodes))) for index in range(nodes)]
        told, create = cluster.phase("create", shares)
        cookies = [cookie for cookie, _ in told]
        creators = [index for index, share in shares for _ in range(share)]
        held = [side("holds", cookies=cookies) for side in sides]
        at = [[index for index in range(nodes) if held[index][number]] for number in range(sessions)]
        without = [
            [index for index in range(nodes) if not held[index][number] and index != creators[number]]
            for number in range(sessions)
        ]
        holding = _choice(cookies, at, rng.choice)
        _, read_holder = cluster.phase("read", holding)
        _, write_holder = cluster.phase("write", holding)
        strangers = _choice(cookies, without, rng.choice)
        _, read_cold = cluster.phase("read", strangers)
        _, read_copy = cluster.phase("read", strangers)
        _, write_copy = cluster.phase("write", strangers)
        writers = _choice(cookies, [list(range(nodes))] * sessions, rng.choice)
        cluster.phase("read", writers)
        _, write = cluster.phase("write", writers)

        rested = cluster.come_to_rest()
        time.sleep(idle_s)
        idle = since(cluster.traffic(), rested)
        memory = [side("memory") for side in sides]
    costs = (create, read_holder, write_holder, read_cold, read_copy, write_copy, write)
    requests = sum(one.requests for one in costs if one is not None)
    return Figures(
        where="real",
        nodes=nodes,
        sessions=sessions,
        holders=sum(len(indexes) for indexes in at) / sessions,
        create=create,
        write=write,
        write_holder=write_holder,
        write_copy=write_copy,
        read_holder=read_holder,
        read_cold=read_cold,
        read_copy=read_copy,
        read_aged=None,
        read_outdated=None,
        upkeep=total(since(rested, met), "upkeep").over(requests),
        idle=total(idle, "membership", "requests", "upkeep").over(nodes * idle_s),
        idle_sessions=total(idle, "requests", "upkeep").over(nodes * idle_s),
        records_mean=sum(records for _, _, records in memory) / nodes,
        records_max=max(records for _, _, records in memory),
        rested_records_mean=None,
        rested_records_max=None,
        table_bytes=sum(table for _, table, _ in memory) / nodes,
        rss_bytes=sum(rss for rss, _, _ in memory) / nodes,
        rss_grown_bytes=(sum(rss for rss, _, _ in memory) - sum(met_rss)) / nodes,
        took_s=time.monotonic() - began_s,
    )


def _choice(
    cookies: list[str], places: list[list[int]], choose: Callable[[list[int]], int]
) -> list[tuple[int, list[str]]]:
    """Choose one of its places for each session that has any; return (index, cookies) for each place."""
    chosen: dict[int, list[str]] = {}
    for cookie, indexes in zip(cookies, places, strict=True):
        if indexes:
            chosen.setdefault(choose(indexes), []).append(cookie)
    return sorted(chosen.items())


def _id(cookie: str) -> str:
    return cookie.partition(".")[0]


if __name__ == "__main__":
    if sys.argv[1:] != ["--side"]:
        print(
            "scale_real.py is one node of several, and started by scale.py: see bench/scale.py --help", file=sys.stderr
        )
        sys.exit(2)
    serve(Side())
