# Cluster: replicas, links and clocks in virtual time; everything the real driver does, done by a heap of events.
#
#   start, crash, leave, pause    what the world does to processes
#   shut, clog                    what it does to the ways between slots
#   submit                        what a request does at one of them
#   observer                      sees each event and each outcome
#
# A process here is the real `Replica`; only sockets, clocks and threads are replaced. Each process has its own
# monotonic clock, which may drift, and a wall clock that is wrong; a restart has a new node id and no memory. What
# reaches a process that is paused waits until it runs again, deadlines included.
# One heap of (time, sequence, action) orders everything, so that a run is a function of its scenario.
# Not here: which faults there are (mishaps.py), what is drawn (swarm.py), what must hold (checkers.py).

import heapq
import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from itertools import count
from math import inf
from typing import Final, Protocol, TypeVar

from gossipsess.model.identity import NODE_ID_BYTES, NodeId, Sid, short
from gossipsess.model.member import Address, Member, MemberState
from gossipsess.model.record import Record
from gossipsess.protocol.effects import (
    CloseLink,
    Dial,
    MemberChanged,
    Notify,
    Send,
    SendBeacon,
    SendDatagram,
    Settle,
    Warn,
)
from gossipsess.protocol.events import (
    Abandon,
    DialFailed,
    Event,
    Invalidate,
    Leave,
    LinkClosed,
    LinkOpened,
    Received,
    ReceivedDatagram,
    Tick,
    Watch,
    Write,
)
from gossipsess.protocol.outcomes import Found
from gossipsess.protocol.replica import Replica, Settings
from gossipsess.protocol.sessions import Written
from gossipsess.protocol.swim import SwimTimings
from gossipsess.sim.network import Faults, Network, luck
from gossipsess.sim.scenario import Scenario
from gossipsess.sim.trace import answer_text, event_text, message_text
from gossipsess.wire.codec import decode_untrusted, encode
from gossipsess.wire.crypto import DATAGRAM_BODY_BYTES_MAX
from gossipsess.wire.messages import Datagram, Hello, LinkMessage, Message, is_datagram

EPOCH_MS: Final = 1_700_000_000_000
DAY_MS: Final = 86_400_000
TIMER_LATE_S: Final = 1e-6
"""No timer is early: without it, rounding could serve a deadline a hair before it is due, for ever."""
DIAL_TIMEOUT_S: Final = 0.5
LEAVE_S: Final = 0.5
"""How long a process that leaves waits, at most, for what it owes and then for what it sends."""
LEAVE_LOOK_S: Final = 0.05

Way = tuple[int, int]
"""From one slot to another."""
M = TypeVar("M", bound=Message)


class Observer(Protocol):
    """Who watches a run."""

    def handled(self, process: "Process", event: Event, answer: Written | Found | None) -> None:
        """A process took an event; its effects are not carried out yet."""

    def settled(self, process: "Process", effect: Settle) -> None:
        """A request's wait ended."""

    def delivered(self, sender: "Process", receiver: "Process", message: LinkMessage) -> None:
        """A message came over a link, and is about to be taken in."""


class Process:
    """One run of one node, from its start to its crash; kept after it, as a witness."""

    def __init__(self, cluster: "Cluster", slot: int, generation: int, address: Address, seeds: list[Address]) -> None:
        scenario = cluster.scenario
        self.slot = slot
        self.label = f"n{slot}.{generation}"
        self.address = address
        self.alive = True
        self.leaving = False
        self.paused = False
        self.woke_at_s = 0.0
        """When its last pause ended."""
        self.paused_at_s = 0.0
        self.paused_for_s = 0.0
        """How long its last pause was."""
        self.forgets_to_tell = False
        """It will not tell anybody of its next write."""
        self.lag_s = 0.0
        """How much later than it should it does everything."""
        self.links: dict[int, Link] = {}
        self.dialing: dict[Address, None] = {}
        self.tick_at_s: float | None = None
        self.seen: dict[Sid, Record] = {}
        """The records as the observer last saw them."""
        self.waiting: list[Callable[[], object]] = []
        """What has reached it while it was paused."""
        self.free_at_s = 0.0
        """When it is done with what has reached it."""
        base, skew, drift, *_ = luck(cluster.seed, "clocks", self.label)
        self.base_s = base * 100_000
        self.rate = 1 + (2 * drift - 1) * scenario.drift
        self.host = scenario.hosts[slot]
        wrong_ms = round((2 * skew - 1) * scenario.skew_ms) + (DAY_MS if slot in cluster.day_ahead else 0)
        started_s = self.clock(cluster.now_s)
        self.offset_ms = EPOCH_MS + round(cluster.now_s * 1000) + wrong_ms - round(started_s * 1000)
        member = Member(
            node_id(cluster.seed, slot, generation),
            0,
            MemberState.ALIVE,
            address,
            f"{address[0]}:{address[1]}",
            self.host,
        )
        self.replica = Replica(
            member,
            Settings(
                swim=SwimTimings(scenario.probe_interval_s, scenario.probe_interval_s / 5),
                seeds=tuple(seeds),
                beacons=scenario.beacons,
                alone_s=scenario.alone_s,
            ),
            clock_offset_ms=self.offset_ms,
            rng=random.Random(f"{cluster.seed} {self.label}"),  # noqa: S311  # must repeat with the seed
            now_s=started_s,
        )
        self.records = self.replica.sessions.table.records
        self._link_numbers = count(1)

    def clock(self, world_s: float) -> float:
        """Return what its monotonic clock shows at a moment of the world."""
        return self.base_s + world_s * self.rate

    def world(self, clock_s: float) -> float:
        """Return when its monotonic clock shows that."""
        return (clock_s - self.base_s) / self.rate

    @property
    def serves(self) -> bool:
        """A balancer would send it requests."""
        return self.alive and not self.leaving and not self.paused

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
        self.held_up: tuple[list[Callable[[], object]], ...] = ([], [])
        """For each end, what is on its way to it and does not get through at the moment, in order."""

    def toward(self, sender: Process) -> int:
        """Return the index of the other end."""
        return 1 if self.ends[0] is sender else 0

    def way(self, index: int) -> Way:
        """Return the way of what goes to one end."""
        return (self.ends[1 - index].slot, self.ends[index].slot)


class Cluster:
    """A world of processes. Times are virtual seconds from its beginning."""

    observer: Observer
    """Set before the first process starts."""

    def __init__(self, scenario: Scenario, *, trace: bool) -> None:
        self.scenario = scenario
        self.seed = scenario.seed
        self.network = Network(scenario.seed, scenario.faults)
        self.now_s = 0.0
        self.counts: Counter[str] = Counter()
        self.events = 0
        self.processes: list[Process] = []
        """All there ever were."""
        self.day_ahead: dict[int, None] = {}
        """Slots whose machines have the date wrong."""
        self.trace: list[str] | None = [] if trace else None
        self._heap: list[tuple[float, int, Callable[[], object]]] = []
        self._order = count()
        self._at: dict[Address, Process] = {}
        self._silent: dict[Address, None] = {}
        self._shut: Counter[tuple[str, Way]] = Counter()
        self._clogged: dict[Way, float] = {}
        self._held_up: list[tuple[Link, int]] = []
        self._clear_since_s = 0.0
        self._generations = [0] * len(scenario.hosts)
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
        """The processes that run and are not about to leave, by slot."""
        return sorted((one for one in self._at.values() if not one.leaving), key=lambda process: process.slot)

    def in_slot(self, slot: int) -> Process | None:
        """Return the process that runs in a slot, also one that is about to leave."""
        return next((process for process in self._at.values() if process.slot == slot), None)

    def start(self, slot: int, *, elsewhere: bool = False) -> Process:
        """Start a process in an empty slot, at the slot's address or at one never used before."""
        generation = self._generations[slot]
        self._generations[slot] += 1
        address = (f"10.0.{generation if elsewhere else 0}.{slot + 1}", 7950)
        # The usual addresses, and where those that moved are now, as a name service would tell: two nodes that
        # both moved have no other way to find each other.
        slots = range(len(self._generations))
        places = [(f"10.0.0.{other + 1}", 7950) for other in slots if other != slot]
        seeds = [] if self.scenario.beacons else list(dict.fromkeys([*places, *self._at]))
        process = Process(self, slot, generation, address, seeds)
        self.processes.append(process)
        self._at[address] = process
        self._silent.pop(address, None)
        self.note(f"{process.label} starts as {short(process.node)} at {address[0]}, seeds {len(seeds)}")
        if self.scenario.watch:
            self.submit(process, Watch(True))
        self._arm(process)
        return process

    def crash(self, process: Process, *, silent: bool) -> None:
        """End a process with its memory. `silent`: its machine goes too, and tells nobody."""
        if silent:
            self._silent[process.address] = None
        self.counts["crashes"] += 1
        self.note(f"{process.label} crashes{', silently' if silent else ''}")
        self._end(process, 2.0 + 3 * self._luck("silence", process.label) if silent else 0.0)

    def leave(self, process: Process) -> None:
        """Have a process end as the driver ends it: told to all, and after what it owes has left."""
        self.counts["leaves"] += 1
        self.note(f"{process.label} is about to leave")
        process.leaving = True
        self._drain(process, self.now_s + LEAVE_S)

    def pause(self, process: Process) -> None:
        """Have a process stand still."""
        self.note(f"{process.label} stands still")
        process.paused = True
        process.paused_at_s = self.now_s

    def resume(self, process: Process) -> None:
        """Let a paused process go on: what has reached it meanwhile comes first, in order."""
        if not process.paused:
            return
        self.note(f"{process.label} goes on")
        process.paused = False
        process.woke_at_s = self.now_s
        process.paused_for_s = self.now_s - process.paused_at_s
        self._clear_since_s = self.now_s
        waiting, process.waiting = process.waiting, []
        for action in waiting:
            if process.alive:
                action()

    def shut(self, channel: str, ways: list[Way]) -> None:
        """Let nothing through on these ways; each `shut` needs its `open`. Links stand, and are silent."""
        for way in ways:
            self._shut[channel, way] += 1

    def open(self, channel: str, ways: list[Way]) -> None:
        """Undo one `shut`: what links have held up arrives now."""
        for way in ways:
            self._shut[channel, way] -= 1
        self._clear_since_s = max(self._clear_since_s, self.now_s)
        held_up, self._held_up = self._held_up, []
        for link, index in held_up:
            if self._is_shut("tcp", link.way(index)):
                self._held_up.append((link, index))
                continue
            actions = link.held_up[index][:]
            link.held_up[index].clear()
            for action in actions:
                action()

    def break_links(self, ways: list[Way]) -> None:
        """Break every link that stands across these ways."""
        for process in self.live:
            for link in list(process.links.values()):
                if link.ends[0] is process and not link.broken and link.way(1) in ways:
                    self._break(link)

    def clog(self, ways: list[Way], until_s: float) -> None:
        """Have everything on these ways arrive at `until_s` at the earliest."""
        for way in ways:
            self._clogged[way] = max(self._clogged.get(way, 0.0), until_s)
        self._clear_since_s = max(self._clear_since_s, until_s)

    @property
    def clear_since_s(self) -> float:
        """Since when every way is open, and every process runs at its usual speed."""
        hindered = any(process.paused or process.lag_s for process in self._at.values())
        return inf if hindered or any(times > 0 for times in self._shut.values()) else self._clear_since_s

    def heal(self) -> None:
        """End every fault of the network, and let whoever stands still go on."""
        self.network.faults = Faults()
        self._clogged.clear()
        for channel, way in [shut for shut, times in self._shut.items() if times > 0]:
            self._shut[channel, way] = 1
            self.open(channel, [way])
        for process in list(self._at.values()):
            process.lag_s = 0.0
            process.forgets_to_tell = False
            self._clear_since_s = self.now_s
            self.resume(process)

    def submit(self, process: Process, event: Event) -> Written | Found | None:
        """Hand an event to a process that runs, and carry out what follows."""
        assert process.alive
        self.events += 1
        kind = type(event.message).__name__ if isinstance(event, Received | ReceivedDatagram) else type(event).__name__
        self._digest.update(f"{self.now_s!r} {process.label} {kind}\n".encode("ascii"))
        answer = process.replica.handle(event, process.clock(self.now_s))
        if process.forgets_to_tell and isinstance(event, Write | Invalidate):
            process.forgets_to_tell = False
            self.note(f"{process.label} tells nobody of that")
            for peer in process.replica.sessions._peers.values():  # no rule of the machine does this, so none is called
                peer.outbound.forget(event.sid)
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
        due_s = max(process.world(process.replica.next_deadline()), self.now_s) + TIMER_LATE_S
        if process.tick_at_s is None or due_s < process.tick_at_s:
            process.tick_at_s = due_s
            self.after(due_s - self.now_s, lambda: self._reach(process, lambda: self._timer(process, due_s)))

    def _reach(self, process: Process, action: Callable[[], object]) -> None:
        """Have something happen at a process as soon as it gets to it."""
        if process.paused:
            process.waiting.append(action)
            return
        at_s = max(self.now_s + process.lag_s, process.free_at_s)
        if at_s <= self.now_s:
            action()
        else:
            process.free_at_s = at_s
            self.after(at_s - self.now_s, lambda: process.waiting.append(action) if process.paused else action())

    def _timer(self, process: Process, due_s: float) -> None:
        if process.alive and process.tick_at_s == due_s:
            process.tick_at_s = None
            self.submit(process, self._tick)

    def _carry_out(self, process: Process) -> None:
        effects = process.replica.outbox[:]
        process.replica.outbox.clear()
        for effect in effects:
            match effect:
                case SendDatagram(address, message):
                    self._send_datagram(process, address, self._carried(message))
                case SendBeacon(message):
                    for address in list(self._at):
                        if address != process.address:
                            self._send_datagram(process, address, self._carried(message))
                case Send(number, message):
                    self._send(process, number, self._carried(message))
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
                case Notify(kind, _, remote):
                    self.counts[f"heard {kind}{' elsewhere' if remote else ''}"] += 1
                case Warn(text):
                    self.counts["refused clocks" if "clock" in text else "warnings"] += 1
                    self.note(f"{process.label} warns: {text}")
                case _:
                    raise AssertionError(f"{effect} has no place in this world")

    def _carried(self, message: M) -> M:
        """Return what arrives of a message; where the scenario says so, by way of bytes."""
        if not self.scenario.codec:
            return message
        data = encode(message)
        assert len(data) <= DATAGRAM_BODY_BYTES_MAX or not is_datagram(message), f"a datagram of {len(data)} bytes"
        arrives = decode_untrusted(data)
        assert type(arrives) is type(message), f"{message} arrives as {arrives}"
        return arrives

    def _send_datagram(self, sender: Process, address: Address, message: Datagram) -> None:
        for delay_s in self.network.delays("udp", sender.label, address[0]):
            self.after(delay_s, partial(self._datagram, sender, address, message))

    def _datagram(self, sender: Process, address: Address, message: Datagram) -> None:
        target = self._at.get(address)
        if target is None or self._is_shut("udp", (sender.slot, target.slot)):
            return
        clogged_s = self._clogged.get((sender.slot, target.slot), 0.0) - self.now_s
        if clogged_s > 0:
            self.after(clogged_s, partial(self._datagram, sender, address, message))
        else:
            event = ReceivedDatagram(sender.node, sender.address, message)
            self._reach(target, lambda: target.alive and self.submit(target, event))

    def _is_shut(self, channel: str, way: Way) -> bool:
        return self._shut[channel, way] > 0 or self._shut["all", way] > 0

    # --- the end of a process -----------------------------------------------------------------------------

    def _drain(self, process: Process, until_s: float) -> None:
        if not process.alive:
            return
        if process.replica.sessions.unacknowledged and self.now_s < until_s:
            self.after(LEAVE_LOOK_S, lambda: self._reach(process, lambda: self._drain(process, until_s)))
            return
        self.submit(process, Leave())
        self.after(LEAVE_LOOK_S, lambda: self._reach(process, lambda: self._left(process)))

    def _left(self, process: Process) -> None:
        if process.alive:
            self.submit(process, Abandon())
            self.note(f"{process.label} has left")
            self._end(process, 0.0)

    def _end(self, process: Process, notice_s: float) -> None:
        process.alive = False
        del self._at[process.address]
        for link in list(process.links.values()):
            self._close_end_later(link, link.toward(process), notice_s)
        process.links.clear()

    # --- links --------------------------------------------------------------------------------------------

    def _luck(self, channel: str, label: str) -> float:
        return self.network.draw(channel, label, "")[0]

    def _dial(self, dialer: Process, address: Address) -> None:
        if address in dialer.dialing:
            return
        dialer.dialing[address] = None
        fails, late, *_ = self.network.draw("dial", dialer.label, address[0])
        if fails < self.network.faults.dial_failure or address in self._silent:
            self._dial_ends_later(dialer, address)
        else:
            delay_s = self.network.faults.delay_s * (1 + 3 * late)
            self.after(delay_s, lambda: self._reach(dialer, lambda: self._connect(dialer, address)))

    def _connect(self, dialer: Process, address: Address) -> None:
        if not dialer.alive:
            return
        acceptor = self._at.get(address)
        if acceptor is None:
            self._dial_failed(dialer, address, refused=True)
        elif acceptor is dialer:
            self._dial_failed(dialer, address, refused=False)  # its own greeting came back
        elif acceptor.paused or self._is_apart(dialer, acceptor):
            self._dial_ends_later(dialer, address)
        else:
            del dialer.dialing[address]
            link = Link(dialer, acceptor, self.now_s)
            self.counts["links"] += 1
            life_s = self.network.faults.link_life_s
            if life_s:
                self.after(2 * life_s * self._luck("life", dialer.label), lambda: self._wear_out(link))
            self.submit(acceptor, LinkOpened(link.numbers[1], dialer.node, dialed=None))
            self.submit(dialer, LinkOpened(link.numbers[0], acceptor.node, dialed=address))

    def _is_apart(self, a: Process, b: Process) -> bool:
        there, back = (a.slot, b.slot), (b.slot, a.slot)
        clogged_s = max(self._clogged.get(there, 0.0), self._clogged.get(back, 0.0))
        return self._is_shut("tcp", there) or self._is_shut("tcp", back) or clogged_s > self.now_s

    def _dial_ends_later(self, dialer: Process, address: Address) -> None:
        self.after(
            DIAL_TIMEOUT_S,
            lambda: self._reach(dialer, lambda: self._dial_failed(dialer, address, refused=False)),
        )

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
        if self._waits(link, index, lambda: self._deliver(link, index, message)):
            return
        receiver = link.ends[index]
        self._reach(receiver, lambda: self._delivered(link, index, message))

    def _delivered(self, link: Link, index: int, message: LinkMessage) -> None:
        sender, receiver = link.ends[1 - index], link.ends[index]
        number = link.numbers[index]
        if link.broken or not receiver.alive or number not in receiver.links:
            return
        self.observer.delivered(sender, receiver, message)
        self.submit(receiver, Received(number, message))

    def _waits(self, link: Link, index: int, action: Callable[[], object]) -> bool:
        """Say whether what goes to that end of a link does not get there now; then `action` comes later."""
        way = link.way(index)
        if self._is_shut("tcp", way):
            if not link.held_up[index]:
                self._held_up.append((link, index))
            link.held_up[index].append(action)
            return True
        clogged_s = self._clogged.get(way, 0.0) - self.now_s
        if clogged_s > 0:
            self.after(clogged_s, action)
        return clogged_s > 0

    def _wear_out(self, link: Link) -> None:
        if self.network.faults.link_life_s:
            self._break(link)

    def _break(self, link: Link) -> None:
        """Both ends learn of it, each in its own time; nothing arrives any more."""
        link.broken = True
        self.counts["broken links"] += 1
        for index in (0, 1):
            self._close_end_later(link, index, self._luck("notice", link.ends[index].label), certain=True)

    def _close(self, closer: Process, link: Link) -> None:
        other = link.toward(closer)
        self._close_end_later(link, 1 - other, 0.0, certain=True)
        self._close_end_later(link, other, 0.0)

    def _close_end_later(self, link: Link, index: int, delay_s: float, *, certain: bool = False) -> None:
        """Have one end of a link end. `certain`: whatever lies between it and the other end."""
        behind_s = max(0.0, link.free_at_s[index] - self.now_s)  # the end of a stream comes after what is in it
        self.after(max(delay_s, behind_s), lambda: self._close_end(link, index, certain))

    def _close_end(self, link: Link, index: int, certain: bool) -> None:
        if certain or not self._waits(link, index, lambda: self._close_end(link, index, certain)):
            self._reach(link.ends[index], lambda: self._closed(link, index))

    def _closed(self, link: Link, index: int) -> None:
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
