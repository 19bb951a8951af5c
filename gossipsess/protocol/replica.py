# Replica: the state machine of one node. Events in, effects out.
#
#   handle(event, now_s)  ->  effects in `outbox`; for a request's event, what is known at once
#   next_deadline()       ->  when it wants a Tick at the latest
#
# It routes between parts that know nothing of each other: swim.py (who is there), discovery.py (who might be),
# links.py (which TCP link leads to whom), sessions.py (everything about sessions), and diagnoses.py (what is wrong with
# others, in words).
# Not thread-safe: node.py holds the lock.

import random
from collections.abc import Iterable
from typing import Final, NamedTuple

from gossipsess.errors import WireError
from gossipsess.model.clock import AGREE_MS, ClockAhead, HybridClock, Stamp, stamp_at
from gossipsess.model.identity import NodeId, short
from gossipsess.model.member import Address, Member, MemberState, Name, Told
from gossipsess.model.rules import CountBy, Rules
from gossipsess.protocol.diagnoses import Diagnoses
from gossipsess.protocol.discovery import Discovery
from gossipsess.protocol.effects import CloseLink, Dial, Effect, MemberChanged, Send, SendDatagram, Warn
from gossipsess.protocol.events import (
    Abandon,
    Accessed,
    Adopt,
    DialFailed,
    Drain,
    Event,
    Fetch,
    Inherit,
    Invalidate,
    Leave,
    LinkClosed,
    LinkOpened,
    LookedUp,
    Received,
    ReceivedDatagram,
    Revoke,
    Rotate,
    Tick,
    Watch,
    Write,
)
from gossipsess.protocol.links import YOUNG_S, Links
from gossipsess.protocol.memory import MEMORY_LIMIT_MB, MIB
from gossipsess.protocol.moves import Moves, Seen
from gossipsess.protocol.outcomes import Found
from gossipsess.protocol.placement import Placement
from gossipsess.protocol.sessions import SessionProtocol
from gossipsess.protocol.swim import Swim, SwimTimings
from gossipsess.protocol.views import Views
from gossipsess.protocol.writes import Written
from gossipsess.wire.messages import Beacon, Bye, Hello, LinkMessage, Members, Ping, ProbeAck

ALONE_S = 2.0
"""A node that has met nobody for this long takes itself for the first, and serves."""
SEARCH_S: Final = 10.0
"""The same where the name service has not answered yet, or names others that have not been tried: a cluster is there,
probably, and a node that served without it would not know the sessions it is asked for."""
SEARCH_LOOK_S: Final = 0.1


class Settings(NamedTuple):
    """What the machine needs to know that is not the same for every node."""

    confirm_timeout_s: float = 0.25
    swim: SwimTimings = SwimTimings()
    seeds: tuple[Address, ...] = ()
    """Addresses to dial until somebody there is linked."""
    siblings: tuple[Address, ...] = ()
    """Addresses of this machine where its other workers may be."""
    beacons: bool = False
    """Say on the multicast group that this node is here."""
    names: tuple[Name, ...] = ()
    """What to ask the name service for."""
    names_when_alone: bool = False
    """Ask it only while nobody was met otherwise."""
    alone_s: float = ALONE_S
    memory_limit_bytes: int = MEMORY_LIMIT_MB * MIB
    """What all records may cost together before new sessions are refused."""
    # Placement's rules: unlike the others, the same on every node.
    all_to_all_below: int = Rules().all_to_all_below
    secondaries: int = Rules().secondaries
    count_by: CountBy = Rules().count_by


class Replica:
    """One node."""

    def __init__(
        self, myself: Member, settings: Settings, *, clock_offset_ms: int, rng: random.Random, now_s: float
    ) -> None:
        self.node = myself.node
        self.outbox: list[Effect] = []
        self.swim = Swim(myself, timings=settings.swim, rng=rng, now_s=now_s)
        self._clock = HybridClock(clock_offset_ms)
        self._rules = Rules(settings.all_to_all_below, settings.secondaries, settings.count_by)
        self.placement = Placement(myself, self._rules, now_s)
        self.sessions = SessionProtocol(
            myself,
            self.placement,
            self.outbox,
            clock=self._clock,
            confirm_timeout_s=settings.confirm_timeout_s,
            memory_limit_bytes=settings.memory_limit_bytes,
            rng=rng,
            now_s=now_s,
        )
        self._diagnoses = Diagnoses()
        self._moves = Moves(self._rules)
        self._views = Views(rng=rng, now_s=now_s)
        self._links = Links(myself.node)
        self._discovery = Discovery(
            myself=myself.address,
            seeds=settings.seeds,
            siblings=settings.siblings,
            beacons=settings.beacons,
            names=settings.names,
            names_when_alone=settings.names_when_alone,
            rng=rng,
            now_s=now_s,
        )
        self._patient_until_s: float | None = now_s + settings.alone_s
        self._search_until_s = now_s + SEARCH_S
        self._reached: dict[Address, NodeId] = {}  # addresses behind which a linked node was found
        self._leaving: list[NodeId] = []  # nodes that said Bye; their link's end proves nothing

    def handle(self, event: Event, now_s: float) -> Written | Found | None:
        """Take one event. Returns what a request's event already knows.

        Raises:
            SessionTooLarge, MemoryFull: a write is refused, and has changed nothing.
            WireError: what is to be inherited is none of ours.
        """
        match event:
            case Write():
                return self.sessions.writes.write(event, now_s)
            case Received(link, message):
                self._received(link, message, now_s)
            case Tick(wall_ms):
                if wall_ms is not None:
                    self._clock.hint(wall_ms, now_s)
                self._tick(now_s)
            case ReceivedDatagram():
                self._received_datagram(event, now_s)
            case Fetch():
                return self.sessions.fetch(event, now_s)
            case Accessed():
                self.sessions.accessed(event, now_s)
            case Invalidate():
                return self.sessions.writes.invalidate(event, now_s)
            case Rotate():
                return self.sessions.writes.rotate(event, now_s)
            case Revoke():
                return self.sessions.writes.revoke(event, now_s)
            case Adopt():
                return self.sessions.writes.adopt(event, now_s)
            case LinkOpened(link, node, dialed):
                self._links.opened(link, node, dialed, now_s)
                self.outbox.append(Send(link, self._hello(now_s)))
            case LinkClosed(link):
                self._link_closed(link, now_s)
            case DialFailed():
                self._dial_failed(event, now_s)
            case LookedUp(name, addresses, problem):
                alone = not self._links.in_use()
                self.outbox += self._discovery.looked_up(name, addresses, problem, alone=alone, now_s=now_s)
            case Inherit():
                self.sessions.inherit(event, now_s)
            case Watch():
                self.sessions.watch(event, now_s)
            case Drain():
                self._drain(now_s)
            case Leave():
                self._leave(now_s)
            case Abandon():
                self.sessions.abandon(now_s)
                self._place((self.swim.myself,), now_s)
        return None

    def next_deadline(self) -> float:
        """Return when a Tick is wanted at the latest."""
        deadlines = (
            self.sessions.next_deadline(),
            self.swim.next_deadline(),
            self._discovery.next_deadline(),
            self._links.next_deadline(),
            self._views.next_deadline(),
            self.placement.next_deadline(),
            self._patient_until_s,
        )
        return min(due_s for due_s in deadlines if due_s is not None)

    @property
    def linked(self) -> dict[NodeId, int]:
        """The links in use, by node."""
        return self._links.in_use()

    # --- links and what comes over them -------------------------------------------------------------------

    def _received(self, link: int, message: LinkMessage, now_s: float) -> None:
        node = self._links.node_of(link)
        if node is None:
            return  # closed meanwhile
        try:
            if isinstance(message, Hello):
                self._heard_hello(link, node, message, now_s)
                return
            if self._links.of(node) != link:
                return  # not in use: before its Hello, or the one of two that goes
            match message:
                case Members(members, reply):
                    self.sessions.heard_apart(node, members, now_s)
                    self._route(self.swim.heard_members(members, now_s), now_s)
                    if reply and self._views.exchange(node, now_s):
                        self._tell_members(node, now_s, reply=False)
                case Bye(incarnation):
                    self._said_bye(node, incarnation, now_s)
                case _:
                    self.sessions.received(node, message, now_s)
        except ClockAhead as refused:
            self._refuse(link, node, f"{refused}. Set its machine's clock (NTP), and start it again")
        except WireError as refused:
            self._refuse(link, node, str(refused))

    def _said_bye(self, node: NodeId, incarnation: int, now_s: float) -> None:
        self._leaving.append(node)
        member = self.swim.view.get(node)
        if member is not None:
            left = member._replace(state=MemberState.LEFT, incarnation=max(member.incarnation, incarnation))
            self._route(self.swim.heard_members((Told(left),), now_s), now_s)

    def _refuse(self, link: int, node: NodeId, why: str) -> None:
        self.outbox.append(CloseLink(link))
        self.outbox += self._diagnoses.refused(node, why)

    def _hello(self, now_s: float) -> Hello:
        time_ms = self._clock.time_ms(now_s)
        members = self._with_apart(self.swim.view.all_told(now_s), now_s)
        return Hello(self.swim.myself, stamp_at(time_ms), members, self.sessions.since_ms(now_s), self._rules)

    def _with_apart(self, members: Iterable[Told], now_s: float) -> tuple[Told, ...]:
        return tuple(one._replace(apart_s=self.sessions.apart_s(one.member.node, now_s)) for one in members)

    def _hear_clock(self, node: NodeId, clock: Stamp, now_s: float) -> None:
        off_ms = self._clock.off_by_ms(clock, now_s)
        moved_ms = self._clock.hear(clock, now_s)
        if moved_ms:
            self.outbox.append(
                Warn(
                    f"this node's clock had stood still for {moved_ms / 1000:.1f} s, as when a machine is suspended; "
                    f"it follows the wall clock, which node {short(node)} confirms."
                )
            )
        elif abs(off_ms) > AGREE_MS:
            self.outbox += self._diagnoses.clock_differs(node, off_ms)

    def _heard_hello(self, link: int, node: NodeId, hello: Hello, now_s: float) -> None:
        self._hear_clock(node, hello.clock, now_s)
        if hello.member.node != node:
            self.outbox.append(CloseLink(link))
            return
        differences = self._rules.differences(hello.rules)
        if differences:
            self.outbox += self._diagnoses.rules_differ(hello.member, differences)
        for address in (hello.member.address, self._links.dialed_of(link)):
            if address is not None:
                self._reached[address] = node
                self._discovery.linked(address)
        self._route(self.swim.heard_members((*hello.members, Told(hello.member)), now_s), now_s)
        member = self.swim.view.get(node)
        if member is None or not member.is_live:
            # Dead here and alive there: it hears of it by now, refutes, and is dialed again.
            self.outbox.append(CloseLink(link))
            return
        unwanted = self._links.established(link, now_s)
        if unwanted is not None:
            self.outbox.append(CloseLink(unwanted))
        if unwanted != link:
            self.sessions.heard_apart(node, hello.members, now_s)  # of this node: the fence is set by it
            self.sessions.link_up(node, link, hello.since_ms, now_s)
            self.sessions.heard_apart(node, hello.members, now_s)  # of others, where the link is not fenced

    def _link_closed(self, link: int, now_s: float) -> None:
        peer, dialed = self._links.node_of(link), self._links.dialed_of(link)
        opened_at_s = self._links.opened_at_s(link, now_s)
        node = self._links.closed(link)
        if peer is not None and self._links.of(peer) is None:
            # Also where this link was no more in use, its member being dead: a seed there is tried again.
            # A link that ended young, as a refused Hello's does, was no success: its seed waits longer each time.
            ended = self._discovery.dial_failed if now_s - opened_at_s < YOUNG_S else self._discovery.unlinked
            lost = [address for address, reached in self._reached.items() if reached == peer]
            for address in lost:
                del self._reached[address]
                ended(address, now_s)
            if dialed is not None and dialed not in lost:
                ended(dialed, now_s)  # it ended before its Hello
        if peer in self._leaving:
            self._leaving.remove(peer)
            if node is not None:
                self.sessions.link_down(node, now_s)
            return
        if node is None:
            return
        self.sessions.link_down(node, now_s)
        member = self.swim.view.get(node)
        if member is not None and member.is_live:
            self._links.lost(node, opened_at_s, now_s)
            self._route(self.swim.suspect_link(node, now_s), now_s)
            self._dial_due(now_s)

    def _dial_failed(self, event: DialFailed, now_s: float) -> None:
        self._discovery.dial_failed(
            event.address, now_s, refused=event.refused, stranger=event.stranger, itself=event.itself
        )
        if event.refused:
            for member in self.swim.view.live():
                if member.address == event.address and self._links.of(member.node) is None:
                    self._route(self.swim.certain_death(member.node, now_s), now_s)

    def _dial_due(self, now_s: float) -> None:
        live = {member.node: member for member in self.swim.view.live()}
        self.outbox += [Dial(address) for address in self._links.due(live, now_s)]

    # --- membership ---------------------------------------------------------------------------------------

    def _received_datagram(self, event: ReceivedDatagram, now_s: float) -> None:
        message = event.message
        if isinstance(message, Beacon):
            known = self._links.of(event.sender) is not None
            address = (event.address[0], message.port)
            self._route(
                self._discovery.heard_beacon(
                    event.sender,
                    address,
                    reply=message.reply,
                    known=known,
                    myself=self.node,
                    now_s=now_s,
                ),
                now_s,
            )
        else:
            self._route(self.swim.receive(event.sender, event.address, message, now_s), now_s)
            linked = self._links.of(event.sender) is not None
            if isinstance(message, Ping | ProbeAck) and linked:
                self._heard_view(event.sender, message.view, now_s)
                if message.view == self.placement.layout.tag:  # else they need not hold the same
                    self.sessions.heard_digest(event.sender, message.digest, now_s)

    def _heard_view(self, peer: NodeId, view: int, now_s: float) -> None:
        if self._views.heard(peer, view, self.placement.layout.tag, now_s):
            self._tell_members(peer, now_s, reply=True)

    def _tell_members(self, peer: NodeId, now_s: float, *, reply: bool) -> None:
        link = self._links.of(peer)
        if link is not None and self.swim.myself.state is not MemberState.LEFT:
            others = self._with_apart(self.swim.view.told(now_s), now_s)
            self.outbox.append(Send(link, Members((Told(self.swim.myself), *others), reply)))

    def _route(self, effects: list[Effect], now_s: float) -> None:
        """Pass effects on, probes with the digest; and tell the other parts of members that came or went."""
        for effect in effects:
            if isinstance(effect, SendDatagram) and isinstance(effect.message, Ping | ProbeAck):
                digest = self.sessions.digest(self._asked_by(effect), now_s)
                told = effect.message._replace(view=self.placement.layout.tag, digest=digest)
                effect = effect._replace(message=told)
            self.outbox.append(effect)
            if isinstance(effect, MemberChanged):
                self._member_changed(effect.member, effect.before, now_s)

    def _member_changed(self, member: Member, before: MemberState | None, now_s: float) -> None:
        self._moves.member_changed(member, before)
        live = (*self.swim.view.live(), self.swim.myself)
        if member.is_live:
            if before is MemberState.DEAD:
                self.outbox += self._diagnoses.back(member)
            self.sessions.member_live(member, now_s)
            self._place(live, now_s)
            self._links.wanted(member.node, now_s)
            self._dial_due(now_s)
            return
        self._views.gone(member.node)
        link = self._links.unwanted(member.node)
        if link is not None:
            self.outbox.append(CloseLink(link))
        died = member.state is MemberState.DEAD
        if died and link is not None:
            self._diagnoses.died_linked(member.node)
        self.sessions.member_gone(member.node, died=died, now_s=now_s)
        self._place(live, now_s)

    def _place(self, live: tuple[Member, ...], now_s: float) -> None:
        before = self.placement.layout
        if self.placement.view_changed(live, self.swim.view.ended_last(), now_s):
            self.sessions.layout_changed(before, now_s)

    def _asked_by(self, probe: SendDatagram) -> NodeId | None:
        """Return who gets a probe or its answer; None for somebody who is no member."""
        if isinstance(probe.message, Ping):
            return probe.message.target
        return next((member.node for member in self.swim.view.live() if member.address == probe.address), None)

    # --- time ---------------------------------------------------------------------------------------------

    def _tick(self, now_s: float) -> None:
        if self._patient_until_s is not None and self._patient_until_s <= now_s:
            if self._discovery.is_searching and now_s < self._search_until_s:
                self._patient_until_s = now_s + SEARCH_LOOK_S
            else:
                self._patient_until_s = None
                self.sessions.waited_long_enough(now_s)
        before = self.placement.layout
        if self.placement.timeout(now_s):
            self.sessions.layout_changed(before, now_s)
        self._route(self.swim.timeout(now_s), now_s)
        self._route(self._discovery.timeout(now_s, alone=not self._links.in_use()), now_s)
        peer = self._views.timeout(self._links.in_use(), now_s)
        if peer is not None:
            self._tell_members(peer, now_s, reply=True)
        self._dial_due(now_s)
        self.sessions.timeout(now_s)
        if self._moves.look_at_s <= now_s:
            self.outbox += self._moves.look(self._seen(now_s), now_s)

    def _seen(self, now_s: float) -> Seen:
        anti_entropy = self.sessions.anti_entropy
        return Seen(
            self.placement.layout,
            self.placement.counted(self.swim.view.ended_last(), now_s),
            anti_entropy.gains.held,
            anti_entropy.gains.progress(now_s),
            anti_entropy.pulled_bytes,
            self.sessions.securing,
        )

    def _drain(self, now_s: float) -> None:
        if self.swim.myself.leaving:
            return
        self._route(self.swim.drain(now_s), now_s)
        self._place((*self.swim.view.live(), self.swim.myself), now_s)
        self.outbox += self._moves.drains(self.sessions.securing, now_s)
        # Over the links too, ahead of what is handed over: who is a holder now must know it.
        for peer in self._links.in_use():
            self._tell_members(peer, now_s, reply=False)

    def _leave(self, now_s: float) -> None:
        self.outbox += self._moves.ends(self.sessions.securing, now_s)
        self.sessions.tell_accesses(now_s)
        self.sessions.flush(now_s)
        self._route(self.swim.leave(now_s), now_s)
        self.outbox += [Send(link, Bye(self.swim.myself.incarnation)) for link in self._links.in_use().values()]
