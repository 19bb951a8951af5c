# Scale, simulated: what requests cost in a cluster of the real machine in virtual time, without faults.
#
# In:      how many nodes and sessions, how often each is written.    Out: `Figures`.
# One request at a time, each with `REQUEST_S` to itself, so that what is sent meanwhile is its own. What comes later
# than that is told by its kind: it is upkeep. A read asks as a store does, with the session's newest writes as token.
# First each session is written by the same two nodes, which shows what a write costs on a holder and elsewhere; then by
# nodes drawn from all, as round robin does.
# Then a rest, in which copies that are no longer needed go; and a minute more, which shows what idle nodes send.
# All requests are over before the first copy of one is a minute old: from then on copies are looked after, by messages
# that would be taken for those of requests.
# A request that does not end as it must ends the measurement: figures of failures would be of no use.
# Not here: seals, sockets and how long anything takes (scale_real.py).

import random
import time
from functools import partial
from hashlib import blake2b
from typing import Any, Final

from replicate import BenchError
from scale_count import (
    ATTRIBUTES,
    VALUE_BYTES,
    Cost,
    Figures,
    Traffic,
    add,
    cost,
    group_of,
    holders,
    joined,
    placement_settings,
    since,
    total,
)

from gossipsess.model.identity import SID_BYTES, Sid
from gossipsess.model.record import ABSOLUTE, CREATED, IDLE
from gossipsess.model.table import register_value
from gossipsess.protocol.effects import Settle
from gossipsess.protocol.events import Dot, Event, Fetch, ReceivedDatagram, Waiter, Write
from gossipsess.protocol.fetch import satisfies
from gossipsess.protocol.outcomes import Confirmed, Found
from gossipsess.protocol.reads import TOKENED_S
from gossipsess.protocol.surplus import QUIET_S
from gossipsess.protocol.writes import Written
from gossipsess.sim.cluster import Cluster
from gossipsess.sim.network import Faults
from gossipsess.sim.process import EPOCH_MS, Process
from gossipsess.sim.scenario import Scenario
from gossipsess.wire.codec import encode
from gossipsess.wire.messages import LinkMessage

START_S: Final = 0.3
MEET_S: Final = 60.0
CALM_S: Final = 5.0
"""From the last link until the first request: member lists have been compared by then."""
REQUEST_S: Final = 0.1
"""Two round trips over links of 1 ms, the late messages of the simulated network included."""
REST_S: Final = 90.0
"""Copies that nobody has used for a minute are gone by then."""
IDLE_S: Final = 60.0
"""How long idle nodes are counted, after the rest: nodes compare their member lists once a minute."""
USE_S: Final = QUIET_S - START_S - CALM_S - 1.0
"""How long requests may go on."""
USES: Final = 7
"""Requests that a session gets in a round: three writes, a read before each, and one more."""
ACCOUNTS: Final = (
    "create",
    "write",
    "write_holder",
    "write_copy",
    "read_holder",
    "read_cold",
    "read_copy",
    "read_aged",
    "read_outdated",
)


class _Counter:
    """Watches a run, and counts what arrives."""

    def __init__(self) -> None:
        self.traffic: Traffic = {}
        self.reached: dict[int, None] = {}
        """Slots that messages of requests came to."""

    def handled(self, process: Process, event: Event, answer: Written | Found | None) -> None:
        if isinstance(event, ReceivedDatagram):
            add(self.traffic, event.message, len(encode(event.message)))

    def settled(self, process: Process, effect: Settle) -> None:
        pass  # each request has a waiter of its own

    def handed_over(self, process: Process) -> None:
        """Nobody leaves here."""

    def delivered(self, sender: Process, receiver: Process, message: LinkMessage) -> None:
        add(self.traffic, message, len(encode(message)))
        if group_of(message) == "requests":
            self.reached[receiver.slot] = None


class _Account:
    """What all requests of one kind have cost."""

    def __init__(self) -> None:
        self.requests = 0
        self.traffic: Traffic = {}
        self._nodes = 0
        self._nodes_max = 0
        self._messages_max = 0.0

    def add(self, traffic: Traffic, nodes: int) -> None:
        """Take one request, which has sent this and reached so many other nodes."""
        self.requests += 1
        self.traffic = joined((self.traffic, traffic))
        self._nodes += nodes
        self._nodes_max = max(self._nodes_max, nodes)
        self._messages_max = max(self._messages_max, total(traffic, "requests").messages)

    def cost(self) -> Cost | None:
        """Return what one of them has cost on average, and what the dearest has; None without any."""
        average = cost(self.requests, self.traffic)
        return average and average._replace(
            nodes=self._nodes / self.requests, nodes_max=self._nodes_max, messages_max=self._messages_max
        )


class _Measurement:
    def __init__(self, nodes: int, sessions: int, seed: int, all_to_all: bool) -> None:
        self.nodes = nodes
        self._rng = random.Random(seed)
        hosts = tuple([f"host{number}" for number in range(nodes)])
        scenario = Scenario(seed, hosts, Faults(), (), (), **placement_settings(all_to_all))
        self.cluster = Cluster(scenario, trace=False)
        self.counter = self.cluster.observer = _Counter()
        self.accounts = {name: _Account() for name in ACCOUNTS}
        self.sids = [_sid(seed, number) for number in range(sessions)]
        self._dots: dict[Sid, tuple[Dot, ...]] = {}
        self._confirmed_s: dict[tuple[int, Sid], float] = {}
        """When a node's copy was confirmed last, or a little before: by its creation, or by a read that asked."""
        self.slots: list[Process] = []

    def meet(self) -> None:
        """Start every node, and wait until each is linked to all others."""
        cluster = self.cluster
        for slot in range(self.nodes):
            cluster.after(START_S * slot / self.nodes, partial(cluster.start, slot))
        cluster.run_until(START_S)
        self.slots = cluster.live
        while not all(len(one.replica.linked) == self.nodes - 1 and one.replica.sessions.synced for one in self.slots):
            if cluster.now_s > MEET_S:
                raise BenchError(f"{self.nodes} nodes did not all link and sync within {MEET_S:.0f} virtual s")
            cluster.run_until(cluster.now_s + 0.25)
        cluster.run_until(cluster.now_s + CALM_S)

    def create_all(self) -> None:
        """Create the sessions, each on the next node in turn."""
        for sid, creator in zip(self.sids, self._creators, strict=True):
            time_ms = EPOCH_MS + round(self.cluster.now_s * 1000)
            registers = ((CREATED, time_ms), (IDLE, 1_800_000), (ABSOLUTE, time_ms + 43_200_000))
            changes = [(key, register_value(value)) for key, value in registers]
            changes += [self._change(attribute) for attribute in range(ATTRIBUTES)]
            self._confirmed_s[creator.slot, sid] = self.cluster.now_s
            self._write("create", creator, sid, tuple(changes))

    def use_by_two(self, round_number: int) -> None:
        """Write each session on a holder and on another node, which then reads it once more.

        The same two in each round, one of them its creator: a push names who has written the session lately, and each
        name is some 32 bytes. Sessions of small clusters must not have fewer writers, or sizes could not be compared.
        """
        for number, (sid, creator) in enumerate(zip(self.sids, self._creators, strict=True)):
            holding = self.holders(sid)
            others = [process for process in self.slots if process not in holding]
            holder = creator if creator in holding else holding[number % len(holding)]
            self._update("write_holder", holder, sid, round_number)
            if others:
                other = creator if creator in others else others[number % len(others)]
                self._update("write_copy", other, sid, round_number)
                self._read(other, sid)

    def use_by_any(self, round_number: int) -> None:
        """Write each session on a node drawn from all."""
        for sid in self.sids:
            self._update("write", self._rng.choice(self.slots), sid, round_number)

    @property
    def _creators(self) -> list[Process]:
        """The node that creates each session, in the order of their ids."""
        return [self.slots[number % self.nodes] for number in range(len(self.sids))]

    def holders(self, sid: Sid) -> list[Process]:
        """Return the processes that hold a session by placement, as the first of them sees it."""
        nodes = holders(self.slots[0].replica, sid)
        return [process for process in self.slots if process.node in nodes]

    def _update(self, kind: str, process: Process, sid: Sid, round_number: int) -> None:
        """Replace a value as a web request does, which has read the session where it writes."""
        self._read(process, sid)
        self._write(kind, process, sid, (self._change(round_number % ATTRIBUTES),))

    def _read(self, process: Process, sid: Sid) -> None:
        kind = "read_holder" if process in self.holders(sid) else "read_cold"
        if kind == "read_cold" and sid in process.records:
            fresh = self._confirmed_s[process.slot, sid] + TOKENED_S > self.cluster.now_s
            kind = "read_copy" if fresh else "read_aged"
            if not satisfies(process.records[sid], self._dots[sid]):
                kind = "read_outdated"
        began_s = self.cluster.now_s
        found = self._request(kind, process, partial(Fetch, sid, self._dots[sid]))
        if found is not Found.FRESH:
            raise BenchError(f"with all well, a {kind} of {self.nodes} nodes is {found}")
        if kind != "read_copy":  # which asks nobody
            self._confirmed_s[process.slot, sid] = began_s

    def _write(self, kind: str, process: Process, sid: Sid, changes: tuple[tuple[str, bytes], ...]) -> None:
        outcome = self._request(kind, process, partial(Write, sid, changes, 1))
        if not isinstance(outcome, Confirmed):
            raise BenchError(f"with all well, a {kind} of {self.nodes} nodes is {outcome}")
        self._dots[sid] = ((process.node, process.records[sid].claims[process.node]),)

    def _request(self, kind: str, process: Process, event_with: "partial[Any]") -> Any:
        """Make a request, wait until it is over and all that it caused, and put that on its account."""
        outcomes: list[Any] = []
        waiter: Waiter = outcomes.append
        counter = self.counter
        before = dict(counter.traffic)
        counter.reached.clear()
        answer = self.cluster.submit(process, event_with(waiter))
        self.cluster.run_until(self.cluster.now_s + REQUEST_S)
        counter.reached.pop(process.slot, None)
        self.accounts[kind].add(since(counter.traffic, before), len(counter.reached))
        known = answer.outcome if isinstance(answer, Written) else answer
        return known if known is not None else outcomes[0] if outcomes else "still open"

    def _change(self, attribute: int) -> tuple[str, bytes]:
        return (f"field-{attribute}", self._rng.randbytes(VALUE_BYTES))


def measure(nodes: int, sessions: int, writes: int, seed: int, *, all_to_all: bool) -> Figures:
    """Return what a simulated cluster of so many nodes costs.

    Raises:
        BenchError: the nodes did not meet, a request failed though nothing was wrong, or there are too many requests.
    """
    began_s = time.monotonic()
    if sessions * (1 + USES * writes) * REQUEST_S > USE_S:
        most = int(USE_S / REQUEST_S / (1 + USES * writes))
        raise BenchError(f"{sessions} sessions are too many for one minute: at most {most} with {writes} writes each")
    one = _Measurement(nodes, sessions, seed, all_to_all)
    cluster, counter = one.cluster, one.counter
    one.meet()
    met = dict(counter.traffic)
    one.create_all()
    for number in range(writes):
        one.use_by_two(number)
    for number in range(writes):
        one.use_by_any(number)
    records = [len(process.records) for process in one.slots]
    used = dict(counter.traffic)
    cluster.run_until(cluster.now_s + REST_S)
    rested = dict(counter.traffic)
    rested_records = [len(process.records) for process in one.slots]
    upkeep = total(since(rested, met), "upkeep").plus(total(since(rested, used), "requests"))
    cluster.run_until(cluster.now_s + IDLE_S)
    idle = since(counter.traffic, rested)
    return Figures(
        where="simulated",
        nodes=nodes,
        sessions=sessions,
        holders=sum(len(one.holders(sid)) for sid in one.sids) / sessions,
        **{name: account.cost() for name, account in one.accounts.items()},
        upkeep=upkeep.over(sum(account.requests for account in one.accounts.values())),
        idle=total(idle, "membership", "requests", "upkeep").over(nodes * IDLE_S),
        idle_sessions=total(idle, "requests", "upkeep").over(nodes * IDLE_S),
        records_mean=sum(records) / nodes,
        records_max=max(records),
        rested_records_mean=sum(rested_records) / nodes,
        rested_records_max=max(rested_records),
        table_bytes=sum(process.replica.sessions.table.bytes for process in one.slots) / nodes,
        rss_bytes=None,
        rss_grown_bytes=None,
        took_s=time.monotonic() - began_s,
    )


def _sid(seed: int, number: int) -> Sid:
    return blake2b(f"{seed} session {number}".encode("ascii"), digest_size=SID_BYTES).digest()
