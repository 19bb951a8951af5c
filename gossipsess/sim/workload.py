# Workload: what one seed does to a cluster. First hurt it, then heal it, then look whether all agree.
#
#   scenario_of   seed -> how many nodes, which faults, which requests at which moments
#   simulate      seed -> one run, checked all along
#
# Requests come as browsers send them: a few sessions, several requests at once for the same one, each to another
# node, with the writes of earlier answers as a token; now and then a logout or a login's rotation, and late
# requests under the old id. Crashes prefer the moment just after a write, where a promise is youngest.
# Not here: sessions that end by time; a run is too short for them.

import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from gossipsess.model.identity import SID_BYTES, Sid
from gossipsess.model.record import ABSOLUTE, CREATED, IDLE
from gossipsess.model.table import register_value
from gossipsess.protocol.events import Accessed, Changes, Confirm, Dot, Fetch, Invalidate, Rotate, Write
from gossipsess.protocol.outcomes import Found, Gone
from gossipsess.protocol.sessions import Written
from gossipsess.sim.checkers import Checker, Violation
from gossipsess.sim.cluster import EPOCH_MS, Cluster, Process
from gossipsess.sim.network import Faults, Network, luck

HURT_S: Final = 8.0
SETTLE_MAX_S: Final = 60.0
"""Enough for the slowest rule: a sync without a reason comes each 36 s at the latest, a resend each 30 s."""
LOOK_EVERY_S: Final = 0.25
NODES_MIN: Final = 2
NODES_MAX: Final = 5
KEYS: Final = ("cart", "user", "theme")
IDLE_MS: Final = 1_800_000


class Request(NamedTuple):
    """One request of the workload."""

    number: int
    at_s: float
    slot: int
    """Where the balancer sends it; the next slot that runs takes it."""
    client: int
    kind: str
    confirm: Confirm
    key: str


class Mishap(NamedTuple):
    """One thing that happens to a slot: its process crashes, or is cut off from the others."""

    at_s: float
    slot: int
    kind: str
    """``crash``, ``vanish`` (the machine goes too), ``cut``"""
    lasts_s: float
    elsewhere: bool
    """It starts again at another address."""


class Scenario(NamedTuple):
    """Everything that is drawn before a run; the fates of messages are drawn on their way."""

    nodes: int
    hosts: list[str]
    faults: Faults
    requests: list[Request]
    mishaps: list[Mishap]


class Result(NamedTuple):
    """What came of one run."""

    seed: int
    violation: str | None
    events: int
    settle_s: float
    """Virtual seconds from the heal until all agreed."""
    counts: Counter[str]
    """How often each path was taken."""
    trace_hash: str
    trace: list[str]


def scenario_of(seed: int, nodes: int | None, loss_max: float) -> Scenario:
    """Draw a scenario. `nodes`: None to draw it too. `loss_max`: the worst share of messages lost, 0 .. 1."""
    rng = random.Random(f"{seed} scenario")  # noqa: S311  # must repeat with the seed
    drawn = rng.choices((2, 3, 4, 5), (15, 35, 25, 25))[0]
    nodes = nodes or drawn
    shared = rng.random() < 0.25
    faults = Faults(
        loss=rng.uniform(0, loss_max),
        duplicate=rng.uniform(0, 0.3) if rng.random() < 0.7 else 0.0,
        delay_s=10 ** rng.uniform(-3.3, -1.3),
        lossy_links=rng.random() < 0.6,
        link_life_s=rng.uniform(1, 6) if rng.random() < 0.5 else 0.0,
        dial_failure=rng.uniform(0, loss_max),
    )
    hosts = [f"host{slot // 2 if shared else slot}" for slot in range(nodes)]
    requests = _draw_requests(rng, nodes)
    return Scenario(nodes, hosts, faults, requests, _draw_mishaps(rng, nodes, requests))


def _draw_requests(rng: random.Random, nodes: int) -> list[Request]:
    clients = rng.randint(1, 4)
    confirms: tuple[Confirm, ...] = (0, 1, "all")
    kinds = ("read", "write", "read and write", "delete", "access", "rotate", "invalidate", "log in")
    weights = (20, 32, 20, 8, 4, 5, 5, 6)
    requests: list[Request] = []
    at_s = 0.3
    for _ in range(rng.randint(8, 20)):
        at_s += rng.expovariate(2.0)
        if at_s >= HURT_S:
            break
        client = rng.randrange(clients)
        for _ in range(rng.randint(1, 5)):  # a page's requests come together
            requests.append(
                Request(
                    len(requests),
                    at_s + rng.uniform(0, 0.03),
                    rng.randrange(nodes),
                    client,
                    rng.choices(kinds, weights)[0],
                    rng.choice(confirms),
                    rng.choice(KEYS),
                )
            )
    return requests


def _draw_mishaps(rng: random.Random, nodes: int, requests: list[Request]) -> list[Mishap]:
    mishaps: list[Mishap] = []
    for _ in range(rng.choice((0, 1, 2, 2, 3, 4))):
        at_s, slot = rng.uniform(0.5, HURT_S), rng.randrange(nodes)
        if requests and rng.random() < 0.5:
            last = rng.choice(requests)
            at_s, slot = last.at_s + 10 ** rng.uniform(-4, -1), last.slot
        kind = rng.choices(("crash", "vanish", "cut"), (60, 20, 20))[0]
        mishaps.append(Mishap(at_s, slot, kind, 10 ** rng.uniform(-1.5, 0.6), rng.random() < 0.25))
    return mishaps


class _Client:
    """A browser: the session id it was given last, and the newest two writes it was told of."""

    def __init__(self, seed: int, number: int) -> None:
        self._name = f"{seed} client {number}"
        self._ids = 0
        self.sid = self.new_sid()
        self.dots: tuple[Dot, ...] = ()

    def new_sid(self) -> Sid:
        self._ids += 1
        return blake2b(f"{self._name} {self._ids}".encode("ascii"), digest_size=SID_BYTES).digest()


class Workload:
    """Sends a scenario's requests to a cluster."""

    def __init__(self, cluster: Cluster, scenario: Scenario) -> None:
        self._cluster = cluster
        self._clients = [_Client(cluster.seed, number) for number in range(8)]
        for request in scenario.requests:
            cluster.after(request.at_s, partial(self._arrive, request))

    def _arrive(self, request: Request) -> None:
        live = self._cluster.live
        if not live:
            return
        process = next((one for one in live if one.slot >= request.slot), live[0])
        client = self._clients[request.client]
        sid, dots = client.sid, client.dots
        match request.kind:
            case "log in":
                client.sid, client.dots = client.new_sid(), ()
                self._create(process, client, request)
            case "invalidate":
                self._cluster.submit(process, Invalidate(sid, request.confirm, _Waiter()))
            case "access":
                self._cluster.submit(process, Accessed(sid))
            case "write" if process.records.get(sid) is None and not dots:
                self._create(process, client, request)
            case "write" | "delete" | "rotate":
                self._change(process, client, request, sid)
            case _:
                waiter = _Waiter(partial(self._found, process, client, request, sid))
                found = self._cluster.submit(process, Fetch(sid, dots, waiter))
                if isinstance(found, Found):
                    self._found(process, client, request, sid, found)

    def _found(self, process: Process, client: _Client, request: Request, sid: Sid, found: Found) -> None:
        held = found in (Found.FRESH, Found.STALE)
        if request.kind == "read and write" and held and process.alive:
            self._change(process, client, request, sid)

    def _create(self, process: Process, client: _Client, request: Request) -> None:
        time_ms = EPOCH_MS + round(self._cluster.now_s * 1000)
        changes: Changes = (
            (CREATED, register_value(time_ms)),
            (IDLE, register_value(IDLE_MS)),
            (ABSOLUTE, register_value(time_ms + 24 * IDLE_MS)),
            (request.key, _value(request)),
        )
        write = Write(client.sid, changes, request.confirm, _Waiter())
        self._told(process, client, client.sid, self._cluster.submit(process, write))

    def _change(self, process: Process, client: _Client, request: Request, sid: Sid) -> None:
        changes: Changes = ((request.key, None if request.kind == "delete" else _value(request)),)
        event: Write | Rotate
        if request.kind == "rotate":
            event = Rotate(sid, client.new_sid(), changes, request.confirm, _Waiter())
        else:
            event = Write(sid, changes, request.confirm, _Waiter())
        written = self._cluster.submit(process, event)
        if isinstance(event, Rotate) and isinstance(written, Written) and not isinstance(written.outcome, Gone):
            client.sid, client.dots = event.new_sid, ()
            sid = event.new_sid
        self._told(process, client, sid, written)

    def _told(self, process: Process, client: _Client, sid: Sid, written: Written | Found | None) -> None:
        if isinstance(written, Written) and not isinstance(written.outcome, Gone) and sid == client.sid:
            client.dots = (*client.dots, (process.node, written.record.claims[process.node]))[-2:]


class _Waiter:
    """Called with the outcome of one wait; each is an object of its own, by which the checker knows the wait."""

    def __init__(self, then: Callable[[Found], None] | None = None) -> None:
        self._then = then

    def __call__(self, outcome: Any) -> None:
        if self._then is not None:
            self._then(outcome)


def _value(request: Request) -> bytes:
    return f"request {request.number}".encode("ascii")


def simulate(seed: int, *, nodes: int | None = None, loss_max: float = 0.3, trace: bool = False) -> Result:
    """Run one seed: hurt, heal, settle. Never raises for what is wrong in the cluster; `violation` tells."""
    scenario = scenario_of(seed, nodes, loss_max)
    cluster = Cluster(seed, Network(seed, scenario.faults), scenario.hosts, trace=trace)
    cluster.observer = checker = Checker(cluster)
    for slot in range(scenario.nodes):
        cluster.after(0.3 * luck(seed, "start", slot)[0], partial(cluster.start, slot))
    Workload(cluster, scenario)
    for mishap in scenario.mishaps:
        cluster.after(mishap.at_s, partial(_strike, cluster, mishap))

    violation: str | None = None
    settle_s = 0.0
    try:
        cluster.run_until(HURT_S)
        _heal(cluster, scenario)
        difference = checker.difference()
        while difference is not None:
            if settle_s >= SETTLE_MAX_S:
                raise Violation(f"no convergence {SETTLE_MAX_S:.0f} s after the heal: {difference}")
            settle_s += LOOK_EVERY_S
            cluster.run_until(HURT_S + settle_s)
            difference = checker.difference()
        checker.check_end()
    except Violation as found:
        violation = f"at {cluster.now_s:.4f} s: {found}"
    except Exception as bug:
        violation = f"at {cluster.now_s:.4f} s: {type(bug).__name__} in the state machine: {bug}"
        if trace:
            raise
    return Result(seed, violation, cluster.events, settle_s, cluster.counts, cluster.trace_hash(), cluster.trace or [])


def _strike(cluster: Cluster, mishap: Mishap) -> None:
    if mishap.at_s >= HURT_S:
        return
    if mishap.kind == "cut":
        cluster.cut(mishap.slot, mishap.lasts_s)
        return
    process = cluster.in_slot(mishap.slot)
    # The last one stays: what dies with all of them is promised by nobody.
    if process is None or len(cluster.live) == 1:
        return
    cluster.crash(process, silent=mishap.kind == "vanish")
    cluster.after(mishap.lasts_s, partial(_start_again, cluster, mishap.slot, elsewhere=mishap.elsewhere))


def _start_again(cluster: Cluster, slot: int, *, elsewhere: bool) -> None:
    if cluster.in_slot(slot) is None:
        cluster.counts["restarts"] += 1
        cluster.start(slot, elsewhere=elsewhere)


def _heal(cluster: Cluster, scenario: Scenario) -> None:
    cluster.note("the faults end")
    cluster.network.faults = Faults()
    cluster.heal()
    for slot in range(scenario.nodes):
        _start_again(cluster, slot, elsewhere=False)
