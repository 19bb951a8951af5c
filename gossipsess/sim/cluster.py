# Cluster: replicas, links and clocks in virtual time; everything the real driver does, done for all at once.
#
#   start, crash, leave, pause    what the world does to processes
#   shut, clog                    what it does to the ways between slots
#   submit                        what a request does at one of them
#   observer                      sees each event and each outcome
#
# What a real driver does for its node is done here for all of them: datagrams, timers, effects. What reaches a process
# that is paused waits until it runs again, deadlines included.
# Not here: time and ways (world.py), clocks (process.py), links (wires.py), which faults there are (mishaps.py), what
# is drawn (swarm.py), what must hold (checkers.py).

from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from math import inf
from typing import Final, Protocol, TypeVar

from gossipsess.model.identity import short
from gossipsess.model.member import Address, MemberState
from gossipsess.protocol.effects import (
    CloseLink,
    Dial,
    Inform,
    LookUp,
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
    Drain,
    Event,
    Invalidate,
    Leave,
    LookedUp,
    Received,
    ReceivedDatagram,
    Tick,
    Watch,
    Write,
)
from gossipsess.protocol.outcomes import Found
from gossipsess.protocol.writes import Written
from gossipsess.sim import places
from gossipsess.sim.network import Faults
from gossipsess.sim.newer import NEWER_KIND, newer_form
from gossipsess.sim.process import Process, Way
from gossipsess.sim.scenario import Scenario
from gossipsess.sim.trace import answer_text, event_text, message_text
from gossipsess.sim.wires import Wires
from gossipsess.sim.world import World
from gossipsess.wire.codec import decode_untrusted, encode
from gossipsess.wire.crypto import DATAGRAM_BODY_BYTES_MAX
from gossipsess.wire.messages import Datagram, LinkMessage, Message, is_datagram

TIMER_LATE_S: Final = 1e-6
"""No timer is early: without it, rounding could serve a deadline a hair before it is due, for ever."""
DRAIN_S: Final = 10.0
"""How long a process that leaves hands over, at most, what others do not hold yet."""
LEAVE_S: Final = 0.5
"""How long it then waits, at most, for what it owes."""
LEAVE_LOOK_S: Final = 0.05
WARNINGS: Final = (("stood still", "clocks caught up"), ("differs by", "clocks apart"), ("clock", "refused clocks"))
"""What a warning is known by, and what it is counted as."""

NEWER_KINDS: Final = 0.1
"""How often a process of a newer version says something more, of a kind that the others do not know."""
M = TypeVar("M", bound=Message)


NameService = Callable[[Process], tuple[float, tuple[Address, ...]]]


class Observer(Protocol):
    """Who watches a run."""

    def handled(self, process: Process, event: Event, answer: Written | Found | None) -> None:
        """A process took an event; its effects are not carried out yet."""

    def settled(self, process: Process, effect: Settle) -> None:
        """A request's wait ended."""

    def delivered(self, sender: Process, receiver: Process, message: LinkMessage) -> None:
        """A message came over a link, and is about to be taken in."""

    def handed_over(self, process: Process) -> None:
        """A process that leaves says that others hold what it held, and is about to go."""


class Cluster(World):
    """A world and the processes in it."""

    observer: Observer
    """Set before the first process starts."""

    def __init__(self, scenario: Scenario, *, trace: bool) -> None:
        super().__init__(scenario, trace=trace)
        self.events = 0
        self.day_ahead: dict[int, None] = {}
        """Slots whose machines have the date wrong."""
        self._wires = Wires(self, self.submit)
        self._clear_since_s = 0.0
        self._generations = [0] * len(scenario.hosts)
        self.name_service: NameService = lambda _: (0.0, ())
        """Asked at each lookup: how long that takes, and what it says."""
        self._digest = blake2b(digest_size=16)
        self._dead_seeds = [(f"10.9.0.{number + 1}", 7950) for number in range(scenario.dead_seeds)]
        for number, address in enumerate(self._dead_seeds):
            if number % 3:  # those with 0 refuse
                (self.silent if number % 3 == 1 else self.foreign)[address] = None

    # --- processes ----------------------------------------------------------------------------------------

    def start(self, slot: int, *, elsewhere: bool = False) -> Process:
        """Start a process in an empty slot, at the slot's address or at one never used before."""
        generation = self._generations[slot]
        self._generations[slot] += 1
        address = (f"10.0.{generation if elsewhere else 0}.{slot + 1}", 7950)
        # The usual addresses, and where those that moved are now, as a name service would tell: two nodes that
        # both moved have no other way to find each other.
        told = self.scenario.seed_slots
        slots = told or range(len(self._generations))
        places = [(f"10.0.0.{other + 1}", 7950) for other in slots if other != slot]
        moved = () if told else self.at
        known = [] if self.scenario.beacons or self.scenario.named else list(dict.fromkeys([*places, *moved]))
        seeds = (*self._dead_seeds, *known)
        process = Process(
            self.scenario,
            slot,
            generation,
            address,
            seeds,
            day_ahead=slot in self.day_ahead,
            now_s=self.now_s,
        )
        self.processes.append(process)
        self.at[address] = process
        self.silent.pop(address, None)
        self.foreign.pop(address, None)
        self.note(f"{process.label} starts as {short(process.node)} at {address[0]}, seeds {len(seeds)}")
        if self.scenario.watch:
            self.submit(process, Watch(True))
        self._arm(process)
        return process

    def crash(self, process: Process, *, silent: bool) -> None:
        """End a process with its memory. `silent`: its machine goes too, and tells nobody."""
        if silent:
            self.silent[process.address] = None
        self.counts["crashes"] += 1
        self.note(f"{process.label} crashes{', silently' if silent else ''}")
        self._end(process, 2.0 + 3 * self.luck("silence", process.label) if silent else 0.0)

    def leave(self, process: Process) -> None:
        """Have a process end as the driver ends it: told to all, and after what it owes has left."""
        self.counts["leaves"] += 1
        self.note(f"{process.label} is about to leave")
        process.leaving = True
        self.submit(process, Drain())
        self._drain(process, self.now_s + DRAIN_S)

    def pause(self, process: Process, *, clock_stops: bool = False) -> None:
        """Have a process stand still. `clock_stops`: its monotonic clock too, as that of a suspended machine does."""
        self.note(f"{process.label} stands still{', and its clock' if clock_stops else ''}")
        process.paused = True
        process.stopped_at_s = self.now_s if clock_stops else None
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
        if process.stopped_at_s is not None:
            process.stopped_at_s = None
            process.stopped_s += process.paused_for_s
            process.paused_for_s = 0.0  # it cannot have noticed
            if process.alive:
                self.submit(process, Tick(process.wall_ms(self.now_s)))
        waiting, process.waiting = process.waiting, []
        for action in waiting:
            if process.alive:
                action()

    def shut(self, channel: str, ways: list[Way]) -> None:
        """Let nothing through on these ways; each `shut` needs its `open`. Links stand, and are silent."""
        for way in ways:
            self.shut_ways[channel, way] += 1

    def open(self, channel: str, ways: list[Way]) -> None:
        """Undo one `shut`: what links have held up arrives now."""
        for way in ways:
            self.shut_ways[channel, way] -= 1
        self._clear_since_s = max(self._clear_since_s, self.now_s)
        self._wires.let_through()

    def break_links(self, ways: list[Way]) -> None:
        """Break every link that stands across these ways."""
        self._wires.break_across(ways)

    def clog(self, ways: list[Way], until_s: float) -> None:
        """Have everything on these ways arrive at `until_s` at the earliest."""
        for way in ways:
            self.clogged[way] = max(self.clogged.get(way, 0.0), until_s)
        self.after(until_s - self.now_s + TIMER_LATE_S, self._wires.let_through)
        self._clear_since_s = max(self._clear_since_s, until_s)

    @property
    def clear_since_s(self) -> float:
        """Since when every way is open, and every process runs at its usual speed."""
        hindered = any(one.paused or one.lag_s or one.read_s or one.unread for one in self.at.values())
        return inf if hindered or any(times > 0 for times in self.shut_ways.values()) else self._clear_since_s

    def heal(self) -> None:
        """End every fault of the network, and let whoever stands still go on."""
        self.network.faults = Faults()
        self.clogged.clear()
        self._wires.let_through()
        for channel, way in [shut for shut, times in self.shut_ways.items() if times > 0]:
            self.shut_ways[channel, way] = 1
            self.open(channel, [way])
        for process in list(self.at.values()):
            process.lag_s = process.read_s = 0.0
            process.stepped_ms = 0
            process.forgets_to_tell = False
            self._clear_since_s = self.now_s
            self.resume(process)

    def submit(self, process: Process, event: Event) -> Written | Found | None:
        """Hand an event to a process that runs, and carry out what follows."""
        assert process.alive
        if isinstance(event, Received):
            link = process.links[event.link]
            self.observer.delivered(link.ends[link.toward(process)], process, event.message)
        self.events += 1
        kind = type(event.message).__name__ if isinstance(event, Received | ReceivedDatagram) else type(event).__name__
        self._digest.update(f"{self.now_s!r} {process.label} {kind}\n".encode("ascii"))
        answer = process.replica.handle(event, process.clock(self.now_s))
        # Of what another node is to hold no digest tells; only who holds a session may forget to tell of it.
        if process.forgets_to_tell and isinstance(event, Write | Invalidate) and places.is_holder(process, event.sid):
            process.forgets_to_tell = False
            self.note(f"{process.label} tells nobody of that")
            for peer in process.replica.sessions.peers:  # no rule of the machine does this, so none is called
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

    # --- effects ------------------------------------------------------------------------------------------

    def _arm(self, process: Process) -> None:
        due_s = max(process.world(process.replica.next_deadline()), self.now_s) + TIMER_LATE_S
        if process.tick_at_s is None or due_s < process.tick_at_s:
            process.tick_at_s = due_s
            self.after(due_s - self.now_s, lambda: self.reach(process, lambda: self._timer(process, due_s)))

    def _timer(self, process: Process, due_s: float) -> None:
        if process.alive and process.tick_at_s == due_s:
            process.tick_at_s = None
            self.submit(process, Tick(process.wall_ms(self.now_s)))

    def _carry_out(self, process: Process) -> None:
        effects = process.replica.outbox[:]
        process.replica.outbox.clear()
        for effect in effects:
            match effect:
                case SendDatagram(address, message):
                    self._send_datagram(process, address, self._carried(process, message))
                case SendBeacon(message):
                    for address in list(self.at):
                        if address != process.address and self._is_heard(process):
                            self._send_datagram(process, address, self._carried(process, message))
                case Send(number, message):
                    self._wires.send(process, number, self._carried(process, message))
                case Dial(address):
                    self._wires.dial(process, address)
                case LookUp(name):
                    after_s, addresses = self.name_service(process)
                    answer = LookedUp(name, addresses, "" if addresses else "no such name")
                    self.after(after_s, partial(self.reach, process, partial(self._submit_to_living, process, answer)))
                case CloseLink(number):
                    self._wires.close(process, number)
                case Settle():
                    self.observer.settled(process, effect)
                    self.after(0.0, partial(effect.waiter, effect.outcome))
                case MemberChanged(member, _):
                    if member.state is MemberState.DEAD:
                        running = any(one.node == member.node for one in self.at.values())
                        self.counts["false deaths" if running else "deaths"] += 1
                        self.note(f"{process.label} takes {short(member.node)} for dead")
                case Notify(kind, _, remote):
                    self.counts[f"heard {kind}{' elsewhere' if remote else ''}"] += 1
                case Warn(text):
                    self.counts[next((mark for part, mark in WARNINGS if part in text), "warnings")] += 1
                    self.note(f"{process.label} warns: {text}")
                case Inform(text):
                    self.note(f"{process.label} says: {text}")
                case _:
                    raise AssertionError(f"{effect} has no place in this world")

    def _carried(self, sender: Process, message: M) -> M:
        """Return what arrives of a message; where the scenario says so, by way of bytes."""
        is_newer = sender.slot in self.scenario.newer
        if not (self.scenario.codec or is_newer):
            return message
        data = encode(message)
        assert len(data) <= DATAGRAM_BODY_BYTES_MAX or not is_datagram(message), f"a datagram of {len(data)} bytes"
        if is_newer:
            data = newer_form(data)
            if self.luck("newer", sender.label) < NEWER_KINDS:
                assert decode_untrusted(NEWER_KIND) is None, "a message of an unknown kind arrives"
                self.counts["unknown kinds"] += 1
        arrives = decode_untrusted(data)
        assert type(arrives) is type(message), f"{message} arrives as {arrives}"
        return arrives

    def _submit_to_living(self, process: Process, event: Event) -> None:
        if process.alive:
            self.submit(process, event)

    def _is_heard(self, sender: Process) -> bool:
        loss = self.network.faults.beacon_loss
        return not loss or self.luck("beacon", sender.label) >= loss

    def _send_datagram(self, sender: Process, address: Address, message: Datagram) -> None:
        for delay_s in self.network.delays("udp", sender.label, address[0]):
            self.after(delay_s, partial(self._datagram, sender, address, message))

    def _datagram(self, sender: Process, address: Address, message: Datagram) -> None:
        target = self.at.get(address)
        if target is None or self.is_shut("udp", (sender.slot, target.slot)):
            return
        clogged_s = self.clogged_for_s((sender.slot, target.slot))
        if clogged_s > 0:
            self.after(clogged_s, partial(self._datagram, sender, address, message))
        else:
            event = ReceivedDatagram(sender.node, sender.address, message)
            self.reach(target, lambda: target.alive and self.submit(target, event))

    # --- the end of a process -----------------------------------------------------------------------------

    def _drain(self, process: Process, until_s: float) -> None:
        if process.alive and process.replica.sessions.securing and self.now_s < until_s:
            self.after(LEAVE_LOOK_S, lambda: self.reach(process, lambda: self._drain(process, until_s)))
        else:
            self._say_goodbye(process, self.now_s + LEAVE_S)

    def _say_goodbye(self, process: Process, until_s: float) -> None:
        if not process.alive:
            return
        if process.replica.sessions.unacknowledged and self.now_s < until_s:
            self.after(LEAVE_LOOK_S, lambda: self.reach(process, lambda: self._say_goodbye(process, until_s)))
            return
        if not (process.replica.sessions.securing or process.replica.sessions.unacknowledged):
            self.observer.handed_over(process)
        self.submit(process, Leave())
        self.after(LEAVE_LOOK_S, lambda: self.reach(process, lambda: self._left(process)))

    def _left(self, process: Process) -> None:
        if process.alive:
            self.submit(process, Abandon())
            self.note(f"{process.label} has left")
            self._end(process, 0.0)

    def _end(self, process: Process, notice_s: float) -> None:
        process.alive = False
        process.ended_at_s = self.now_s
        del self.at[process.address]
        self._wires.close_all(process, notice_s)

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
