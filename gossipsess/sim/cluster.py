# Cluster: replicas, links and clocks in virtual time; everything the real driver does, done by a heap of events.
#
#   start, crash, cut   what the world does to processes          run_until   let time pass
#   submit              what a request does at one of them        observer    sees each event and each outcome
#
# A process here is the real `Replica`; only sockets, clocks and threads are replaced. Each process has its own
# monotonic clock and a wall clock that is wrong by up to two seconds; a restart has a new node id and no memory.
# One heap of (time, sequence, action) orders everything, so that a run is a function of its seed.
# Not here: what is drawn from a seed and done (workload.py), what must hold (checkers.py).

import heapq
import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from itertools import count
from typing import Final, Protocol

from gossipsess.model.identity import NODE_ID_BYTES, NodeId, Sid, short
from gossipsess.model.member import Address, Member, MemberState
from gossipsess.model.record import Record
from gossipsess.protocol.effects import CloseLink, Dial, MemberChanged, Send, SendDatagram, Settle, Warn
from gossipsess.protocol.events import (
    DialFailed,
    Event,
    LinkClosed,
    LinkOpened,
    Received,
    ReceivedDatagram,
    Tick,
)
from gossipsess.protocol.outcomes import Found
from gossipsess.protocol.replica import Replica, Settings
from gossipsess.protocol.sessions import Written
from gossipsess.sim.network import Network, luck
from gossipsess.sim.trace import answer_text, event_text, message_text
from gossipsess.wire.messages import Hello, LinkMessage, Push, PushAck, SyncPage

EPOCH_MS: Final = 1_700_000_000_000
SKEW_MS: Final = 2_000
TIMER_LATE_S: Final = 1e-6
"""No timer is early: without it, rounding could serve a deadline a hair before it is due, for ever."""
DIAL_TIMEOUT_S: Final = 0.5


class Observer(Protocol):
    """Who watches a run."""

    def handled(self, process: "Process", event: Event, answer: Written | Found | None) -> None:
        """A process took an event; its effects are not carried out yet."""

    def settled(self, process: "Process", effect: Settle) -> None:
        """A request's wait ended."""


class Process:
    """One run of one node, from its start to its crash; kept after it, as a witness."""

    def __init__(self, cluster: "Cluster", slot: int, generation: int, address: Address, seeds: list[Address]) -> None:
        self.slot = slot
        self.label = f"n{slot}.{generation}"
        self.address = address
        self.alive = True
        self.links: dict[int, Link] = {}
        self.dialing: dict[Address, None] = {}
        self.tick_at_s: float | None = None
        self.seen: dict[Sid, Record] = {}
        """The records as the observer last saw them."""
        base, skew, *_ = luck(cluster.seed, "clocks", self.label)
        self.base_s = base * 100_000
        rng = random.Random(f"{cluster.seed} {self.label}")  # noqa: S311  # must repeat with the seed
        host = cluster.hosts[slot]
        member = Member(
            node_id(cluster.seed, slot, generation), 0, MemberState.ALIVE, address, f"{address[0]}:{address[1]}", host
        )
        self.host = host
        self.replica = Replica(
            member,
            Settings(seeds=tuple(seeds)),
            clock_offset_ms=EPOCH_MS + round((2 * skew - 1) * SKEW_MS) - round(self.base_s * 1000),
            rng=rng,
            now_s=cluster.now_s + self.base_s,
        )
        self.records = self.replica.sessions.table.records
        self._link_numbers = count(1)

    @property
    def node(self) -> NodeId:
        """Its node id."""
        return self.replica.node

    def add_link(self, link: "Link") -> int:
        """Give a link this end's own number."""
        number = next(self._link_numbers)
        self.links[number] = link
        return number


class Link:
    """One TCP connection between two processes."""

    def __init__(self, dialer: Process, acceptor: Process, opened_at_s: float) -> None:
        self.ends = (dialer, acceptor)
        self.numbers = (dialer.add_link(self), acceptor.add_link(self))
        self.opened_at_s = opened_at_s
        self.broken = False
        self.free_at_s = [0.0, 0.0]
        """For each end, when the last message for it arrives: in order means not before that."""

    def toward(self, sender: Process) -> int:
        """Return the index of the other end."""
        return 1 if self.ends[0] is sender else 0


class Cluster:
    """A world of processes. Times are virtual seconds from its beginning."""

    observer: Observer
    """Set before the first process starts."""

    def __init__(self, seed: int, network: Network, hosts: list[str], *, trace: bool) -> None:
        self.seed = seed
        self.network = network
        self.hosts = hosts
        """The host of each slot; a slot is a place where one process at a time runs."""
        self.now_s = 0.0
        self.counts: Counter[str] = Counter()
        self.events = 0
        self.processes: list[Process] = []
        """All there ever were."""
        self.trace: list[str] | None = [] if trace else None
        self._heap: list[tuple[float, int, Callable[[], object]]] = []
        self._order = count()
        self._at: dict[Address, Process] = {}
        self._silent: dict[Address, None] = {}
        self._cut: dict[int, float] = {}
        self._generations = [0] * len(hosts)
        self._digest = blake2b(digest_size=16)
        self._tick = Tick()

    # --- time ---------------------------------------------------------------------------------------------

    def after(self, delay_s: float, action: Callable[[], object]) -> None:
        """Do something later."""
        heapq.heappush(self._heap, (self.now_s + delay_s, next(self._order), action))

    def run_until(self, time_s: float) -> None:
        """Let everything happen that is due by then."""
        heap = self._heap
        while heap and heap[0][0] <= time_s:
            self.now_s, _, action = heapq.heappop(heap)
            action()
        self.now_s = time_s

    # --- processes ----------------------------------------------------------------------------------------

    @property
    def live(self) -> list[Process]:
        """The processes that run, by slot."""
        return sorted(self._at.values(), key=lambda process: process.slot)

    def in_slot(self, slot: int) -> Process | None:
        """Return the process that runs in a slot."""
        return next((process for process in self._at.values() if process.slot == slot), None)

    def start(self, slot: int, *, elsewhere: bool = False) -> Process:
        """Start a process in an empty slot, at the slot's address or at one never used before."""
        generation = self._generations[slot]
        self._generations[slot] += 1
        address = (f"10.0.{generation if elsewhere else 0}.{slot + 1}", 7950)
        # The usual addresses, and where those that moved are now, as a name service would tell: two nodes that
        # both moved have no other way to find each other.
        places = [(f"10.0.0.{other + 1}", 7950) for other in range(len(self.hosts)) if other != slot]
        seeds = list(dict.fromkeys([*places, *self._at]))
        process = Process(self, slot, generation, address, seeds)
        self.processes.append(process)
        self._at[address] = process
        self._silent.pop(address, None)
        self.note(f"{process.label} starts as {short(process.node)} at {address[0]}, seeds {len(seeds)}")
        self._arm(process)
        return process

    def crash(self, process: Process, *, silent: bool) -> None:
        """End a process with its memory. `silent`: its machine goes too, and tells nobody."""
        process.alive = False
        del self._at[process.address]
        if silent:
            self._silent[process.address] = None
        self.counts["crashes"] += 1
        self.note(f"{process.label} crashes{', silently' if silent else ''}")
        for link in list(process.links.values()):
            other = link.toward(process)
            delay_s = 2.0 + 3 * self._luck("silence", process.label) if silent else 0.0
            self._close_end_later(link, other, delay_s)
        process.links.clear()

    def cut(self, slot: int, duration_s: float) -> None:
        """Cut a slot off from all others for a time."""
        self._cut[slot] = self.now_s + duration_s
        self.counts["cuts"] += 1
        self.note(f"n{slot} is cut off for {duration_s:.2f} s")
        process = self.in_slot(slot)
        if process is not None:
            for link in list(process.links.values()):
                self._break(link)

    def heal(self) -> None:
        """Undo every cut."""
        self._cut.clear()

    def submit(self, process: Process, event: Event) -> Written | Found | None:
        """Hand an event to a process that runs, and carry out what follows."""
        assert process.alive
        self.events += 1
        kind = type(event.message).__name__ if isinstance(event, Received | ReceivedDatagram) else type(event).__name__
        self._digest.update(f"{self.now_s!r} {process.label} {kind}\n".encode("ascii"))
        answer = process.replica.handle(event, self.now_s + process.base_s)
        if self.trace is not None:
            self._trace(process, event, answer)
        self.observer.handled(process, event, answer)
        self._carry_out(process)
        self._arm(process)
        return answer

    def trace_hash(self) -> str:
        """Return a hash of everything that happened, and of what every process held at its end."""
        digest = self._digest.copy()
        for process in self.processes:
            for sid, record in process.records.items():
                digest.update(f"{process.label} {sid.hex()} {record.state_hash:x}\n".encode("ascii"))
        return digest.hexdigest()

    def note(self, text: str) -> None:
        """Add a line to the trace."""
        if self.trace is not None:
            self.trace.append(f"{self.now_s:9.4f}  {text}")

    # --- effects ------------------------------------------------------------------------------------------

    def _arm(self, process: Process) -> None:
        due_s = max(process.replica.next_deadline() - process.base_s, self.now_s) + TIMER_LATE_S
        if process.tick_at_s is None or due_s < process.tick_at_s:
            process.tick_at_s = due_s
            self.after(due_s - self.now_s, lambda: self._timer(process, due_s))

    def _timer(self, process: Process, due_s: float) -> None:
        if process.alive and process.tick_at_s == due_s:
            process.tick_at_s = None
            self.submit(process, self._tick)

    def _carry_out(self, process: Process) -> None:
        effects = process.replica.outbox[:]
        process.replica.outbox.clear()
        for effect in effects:
            match effect:
                case SendDatagram(address, _):
                    for delay_s in self.network.delays("udp", process.label, address[0]):
                        self.after(delay_s, partial(self._datagram, process, effect))
                case Send(number, message):
                    self._send(process, number, message)
                case Dial(address):
                    self._dial(process, address)
                case CloseLink(number):
                    if number in process.links:
                        self._close(process, process.links[number])
                case Settle():
                    self.observer.settled(process, effect)
                    self.after(0.0, partial(effect.waiter, effect.outcome))
                case MemberChanged(member, _):
                    if member.state is MemberState.DEAD:
                        running = any(one.node == member.node for one in self._at.values())
                        self.counts["false deaths" if running else "deaths"] += 1
                        self.note(f"{process.label} takes {short(member.node)} for dead")
                case Warn(text):
                    self.counts["warnings"] += 1
                    self.note(f"{process.label} warns: {text}")
                case _:
                    raise AssertionError(f"{effect} has no place in this world")

    def _datagram(self, sender: Process, effect: SendDatagram) -> None:
        target = self._at.get(effect.address)
        if target is not None and not self._apart(sender, target):
            self.submit(target, ReceivedDatagram(sender.node, sender.address, effect.message))

    def _apart(self, a: Process, b: Process) -> bool:
        return any(self._cut.get(one.slot, 0.0) > self.now_s for one in (a, b))

    # --- links --------------------------------------------------------------------------------------------

    def _luck(self, channel: str, label: str) -> float:
        return self.network.draw(channel, label, "")[0]

    def _dial(self, dialer: Process, address: Address) -> None:
        if address in dialer.dialing:
            return
        dialer.dialing[address] = None
        fails, late, *_ = self.network.draw("dial", dialer.label, address[0])
        if fails < self.network.faults.dial_failure or address in self._silent:
            self.after(DIAL_TIMEOUT_S, lambda: self._dial_failed(dialer, address, refused=False))
        else:
            self.after(self.network.faults.delay_s * (1 + 3 * late), lambda: self._connect(dialer, address))

    def _connect(self, dialer: Process, address: Address) -> None:
        if not dialer.alive:
            return
        acceptor = self._at.get(address)
        if acceptor is None:
            self._dial_failed(dialer, address, refused=True)
        elif acceptor is dialer:
            self._dial_failed(dialer, address, refused=False)  # its own greeting came back
        elif self._apart(dialer, acceptor):
            self.after(DIAL_TIMEOUT_S, lambda: self._dial_failed(dialer, address, refused=False))
        else:
            del dialer.dialing[address]
            link = Link(dialer, acceptor, self.now_s)
            self.counts["links"] += 1
            life_s = self.network.faults.link_life_s
            if life_s:
                self.after(2 * life_s * self._luck("life", dialer.label), lambda: self._wear_out(link))
            self.submit(acceptor, LinkOpened(link.numbers[1], dialer.node, dialed=None))
            self.submit(dialer, LinkOpened(link.numbers[0], acceptor.node, dialed=address))

    def _dial_failed(self, dialer: Process, address: Address, *, refused: bool) -> None:
        if dialer.alive:
            del dialer.dialing[address]
            self.submit(dialer, DialFailed(address, refused))

    def _send(self, sender: Process, number: int, message: LinkMessage) -> None:
        link = sender.links.get(number)
        if link is None:
            return
        index = link.toward(sender)
        receiver = link.ends[index]
        if self.network.faults.lossy_links:
            hello = isinstance(message, Hello)
            delays = self.network.delays("tcp", sender.label, receiver.label, certain=hello)
            if not delays:
                self.counts[f"lost {type(message).__name__}"] += 1
        else:
            delay_s = self.network.ordered_delay("tcp", sender.label, receiver.label)
            link.free_at_s[index] = max(link.free_at_s[index], self.now_s + delay_s)
            delays = [link.free_at_s[index] - self.now_s]
        for delay_s in delays:
            self.after(delay_s, lambda: self._deliver(link, index, message))

    def _deliver(self, link: Link, index: int, message: LinkMessage) -> None:
        receiver = link.ends[index]
        number = link.numbers[index]
        if link.broken or not receiver.alive or number not in receiver.links:
            return
        match message:
            case PushAck(_, gaps) if gaps:
                self.counts["gaps"] += 1
            case SyncPage(_, _, sessions) if sessions:
                self.counts["sync differences"] += 1
            case Push(_, deltas):
                for delta in deltas:
                    held = receiver.records.get(delta.sid)
                    if held is not None and held.tombstone and not delta.tombstone:
                        self.counts["absorbed"] += 1
        self.submit(receiver, Received(number, message))

    def _wear_out(self, link: Link) -> None:
        if self.network.faults.link_life_s:
            self._break(link)

    def _break(self, link: Link) -> None:
        """Both ends learn of it, each in its own time; nothing arrives any more."""
        link.broken = True
        self.counts["broken links"] += 1
        for index in (0, 1):
            self._close_end_later(link, index, self._luck("notice", link.ends[index].label))

    def _close(self, closer: Process, link: Link) -> None:
        other = link.toward(closer)
        self._close_end_later(link, 1 - other, 0.0)
        self._close_end_later(link, other, 0.0)

    def _close_end_later(self, link: Link, index: int, delay_s: float) -> None:
        behind_s = max(0.0, link.free_at_s[index] - self.now_s)  # the end of a stream comes after what is in it
        self.after(max(delay_s, behind_s), lambda: self._close_end(link, index))

    def _close_end(self, link: Link, index: int) -> None:
        process, number = link.ends[index], link.numbers[index]
        if process.alive and process.links.pop(number, None) is not None:
            self.submit(process, LinkClosed(number))

    # --- trace --------------------------------------------------------------------------------------------

    def _trace(self, process: Process, event: Event, answer: Written | Found | None) -> None:
        match event:
            case Tick() | ReceivedDatagram():
                return
            case Received(number, message):
                link = process.links[number]
                text = f"<- {link.ends[link.toward(process)].label}  {message_text(message)}"
            case _:
                text = event_text(event)
        self.note(f"{process.label} {text}{'' if answer is None else f'  = {answer_text(answer)}'}")


def node_id(seed: int, slot: int, generation: int) -> NodeId:
    """Return the id of one run of a slot: new at each start."""
    return blake2b(f"{seed} {slot} {generation}".encode("ascii"), digest_size=NODE_ID_BYTES).digest()
