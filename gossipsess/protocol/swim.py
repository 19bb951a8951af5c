# Swim: who is in the cluster, who has left it, and who only seems to have.
#
# In:    membership datagrams, the member lists of links, deadlines.
# Out:   datagrams to send, and a MemberChanged for each piece of news.
# Round: each probe interval one member is pinged; no answer in a third of it, and helpers ping for us; no
#        answer at its end, and the member is suspect. A suspect that does not refute in time is dead.
# Refuting: only a node itself raises its incarnation. Whoever writes to a suspect tells it so, and the answer
#        to an accusation always carries the answerer's own record. So an ack that is newer than the
#        accusation clears it here by rank alone, and no record ever has to go back.
# Entry: a node becomes a member by a link's Hello or by the gossip of a member. Pings of strangers are
#        answered, but what strangers say is not believed: anything else would make a replayed datagram of
#        a node long forgotten a way in.
# Source: SWIM (Das, Gupta, Motivala, 2002); Lifeguard (Dadgar, Phillips, Currey, 2017).
# Not here: finding addresses to try (discovery.py). Comparing whole views with peers (views.py).

import random
from collections.abc import Iterable
from typing import NamedTuple

from gossipsess.model.identity import NodeId
from gossipsess.model.member import Address, Member, MemberState, Told
from gossipsess.protocol.awareness import Awareness
from gossipsess.protocol.broadcast import Broadcast
from gossipsess.protocol.effects import Effect, MemberChanged, SendDatagram
from gossipsess.protocol.graveyard import Graveyard
from gossipsess.protocol.membership import Membership
from gossipsess.protocol.probe import Probe, ProbeOrder, Probes, Relay
from gossipsess.protocol.suspicion import Suspicions
from gossipsess.wire.messages import Beacon, Datagram, Gossip, Nack, Ping, PingRequest, ProbeAck, WrongId

HELPERS = 3
"""Members asked for an indirect probe; the paper's k. At 20 % loss one of three gets through with 0.8."""
GOSSIP_PEERS = 3
"""Members gossiped to in each round: enough for 50 members to know within a quarter of a second."""
LEAVE_PEERS = 8
"""Members told at once of a drain and of a leave: the process ends soon, and gossip through few may end with it."""
REPROBERS = 10
"""About so many of the members ask each suspect again in each interval, however many hold the suspicion. Among up to
so many everybody does: who missed the gossip of a refutation has only its own questions to learn of it, and who asked
in some intervals only declared live members dead at 30 % loss."""
CONTRADICTED_MAX = 16
"""Pings sent for one Hello to nodes that are dead here and live there: a healed partition, not a flood."""
GOSSIPED_S = 60
"""News of an end longer ago is not gossiped on. Gossip says no age: who has forgotten the member would take it for one
that ended now. Lists tell of it."""
PAUSE_S = 1.0
"""A deadline served later than this means that the process did not run: a stopped machine, a held lock."""
INCARNATION_MAX = 2**32 - 1


class SwimTimings(NamedTuple):
    """The two rhythms everything else is derived from, in seconds."""

    probe_interval_s: float = 0.5
    """Smaller: crashes are noticed sooner, for more datagrams and less patience with slow members."""
    gossip_interval_s: float = 0.1
    """Between gossip rounds, which run only while there is news. Smaller: news travels faster, in bursts."""

    @property
    def answer_wait_s(self) -> float:
        """How long a ping may stay unanswered: a third, so that helpers fit into the same interval."""
        return self.probe_interval_s / 3


class Swim:
    """One node's part in the membership protocol.

    Events: receive(), heard_members(), certain_death(), suspect_link(), drain(), leave(), timeout().
    Each returns the effects it asks for. Times are seconds on the caller's monotonic clock.
    """

    def __init__(self, myself: Member, *, timings: SwimTimings, rng: random.Random, now_s: float) -> None:
        self.myself = myself
        """This node's own record; replaced when it refutes an accusation, drains or leaves."""
        self.view = Membership()
        """All others."""
        self._timings = timings
        self._rng = rng
        self._awareness = Awareness()
        self._broadcast = Broadcast()
        self._order = ProbeOrder(rng)
        self._probes = Probes(first_sequence=rng.getrandbits(32))
        self._suspicions = Suspicions(timings.probe_interval_s, now_s)
        self._graveyard = Graveyard(rng)
        self._next_probe_s: float | None = None  # None while there is nobody to probe
        self._next_gossip_s: float | None = None  # None while there is no news
        self._gossip_from_s = now_s

    # --- events -------------------------------------------------------------------------------------------

    def receive(self, sender: NodeId, address: Address, message: Datagram, now_s: float) -> list[Effect]:
        """Take in one membership message that `sender` sealed and that came from `address`."""
        is_member = self.view.get(sender) is not None
        effects: list[Effect] = []
        accused = False
        if isinstance(message, Ping | ProbeAck | PingRequest | Gossip) and is_member:
            accused = any(self._is_accusation(update) for update in message.updates)
            effects += self._merge_all(message.updates, now_s)
        match message:
            case Ping(sequence, target) if target != self.myself.node:
                effects.append(SendDatagram(address, WrongId(sequence, target)))
            case Ping(sequence):
                answer = ProbeAck(sequence, self._news_for(sender, [self.myself] if accused else []))
                effects.append(SendDatagram(address, answer))
            case ProbeAck(sequence):
                effects += self._answered(sequence, sender)
            case PingRequest() if is_member:
                effects += self._help(sender, address, message, now_s)
            case Nack(sequence):
                self._probes.nacked(sequence, sender)
            case WrongId(sequence, asked):
                effects += self._disowned(sequence, asked, now_s)
            case PingRequest() | Gossip() | Beacon():
                pass
        return effects

    def heard_members(self, members: Iterable[Told], now_s: float) -> list[Effect]:
        """Take in the member list of a link: all its sender knows, dead ones too, and the sender itself.

        A death told here is old news that may have been refuted since: who is live here becomes suspect, and
        the usual time to refute runs. Who is dead here and live there is told so, and refutes if it lives.
        """
        effects: list[Effect] = []
        contradicted: list[Member] = []
        for told, ended_s, _ in members:
            held = self.view.get(told.node)
            if held is not None and held.is_live and told.state is MemberState.DEAD:
                told = told._replace(state=MemberState.SUSPECT)
            elif held is not None and held.state is MemberState.DEAD and told.is_live and told.rank < held.rank:
                contradicted.append(held)
            effects += self._merge_all([told], now_s, 0 if told.is_live else ended_s)
        effects += [self._accuse(held) for held in contradicted[:CONTRADICTED_MAX]]
        return effects

    def certain_death(self, node: NodeId, now_s: float) -> list[Effect]:
        """Declare `node` dead without suspicion: its address is another's now, or refuses connections.

        Like every verdict it can be refuted by a higher incarnation.
        """
        held = self.view.get(node)
        if held is None or not held.is_live:
            return []
        return self._merge(held._replace(state=MemberState.DEAD), now_s)

    def suspect_link(self, node: NodeId, now_s: float) -> list[Effect]:
        """Probe `node` now and out of turn: its link broke without a Bye."""
        held = self.view.get(node)
        if held is None or not held.is_live or self._has_left or self._probes.is_open(node):
            return []
        return self._probe(held, now_s, self._awareness.factor)

    def drain(self, now_s: float) -> list[Effect]:
        """Say that this node is about to leave: nothing is to be placed on it any more. It stays a member until then.

        The flag comes with a higher incarnation, so that it outranks what others say of this node, and stays in every
        refutation after it.
        """
        if self._has_left or self.myself.leaving:
            return []
        incarnation = min(self.myself.incarnation + 1, INCARNATION_MAX)
        self.myself = self.myself._replace(incarnation=incarnation, leaving=True)
        return self._announce(now_s)

    def leave(self, now_s: float) -> list[Effect]:
        """Leave for good: tell several members at once, and gossip on while the caller still runs timeouts.

        From here on this node judges nobody and answers pings with the news that it has left.
        """
        if self._has_left:
            return []
        self.myself = self.myself._replace(state=MemberState.LEFT)
        self._probes.clear()
        self._suspicions.clear()
        self._graveyard.close()
        self._next_probe_s = None
        return self._announce(now_s)

    def next_deadline(self) -> float | None:
        """Return when timeout() wants to be called; None when only an event can make that necessary."""
        deadlines = (
            self._suspicions.next_deadline(),
            self._probes.next_deadline(),
            self._graveyard.next_deadline(),
            self._next_probe_s,
            self._next_gossip_s,
        )
        return min((due_s for due_s in deadlines if due_s is not None), default=None)

    def timeout(self, now_s: float) -> list[Effect]:
        """Do what is due by `now_s`; harmless when nothing is."""
        deadline_s = self.next_deadline()
        if deadline_s is None or deadline_s > now_s:
            return []
        if now_s - deadline_s > PAUSE_S:
            self._paused(now_s - deadline_s, now_s)
        effects: list[Effect] = []
        for probe in self._probes.due_for_help(now_s):
            effects += self._ask_helpers(probe)
        for relay in self._probes.take_silent(now_s):
            effects.append(SendDatagram(relay.address, Nack(relay.sequence)))
        for probe in self._probes.take_failed(now_s):
            effects += self._failed(probe, now_s)
        for convicted in self._suspicions.convicted(now_s):
            effects += self.certain_death(convicted.node, now_s)
        for suspect in self._suspicions.take_unasked(now_s):
            if self._rng.random() * self._member_count < REPROBERS:
                # Not stretched by awareness: what is asked here is whether to throw a member out, and soon.
                effects += self._probe(suspect, now_s, 1)
        if self._next_probe_s is not None and self._next_probe_s <= now_s:
            effects += self._probe_next(now_s)
        taken = [self.myself.address, *(member.address for member in self.view.live())]
        effects += [self._accuse(dead) for dead in self._graveyard.due(self.view.ended(), taken, now_s)]
        if self._next_gossip_s is not None and self._next_gossip_s <= now_s:
            effects += self._gossip(now_s)
        return effects

    # --- news ---------------------------------------------------------------------------------------------

    @property
    def _has_left(self) -> bool:
        return self.myself.state is MemberState.LEFT

    @property
    def _member_count(self) -> int:
        return len(self.view.live()) + 1

    def _merge_all(self, updates: Iterable[Member], now_s: float, ended_s: int = 0) -> list[Effect]:
        effects: list[Effect] = []
        for update in updates:
            if update.node != self.myself.node:
                effects += self._merge(update, now_s, ended_s)
            elif self._is_accusation(update):
                self._refute(update, now_s)
        return effects

    def _merge(self, update: Member, now_s: float, ended_s: int = 0) -> list[Effect]:
        if self._has_left:
            return []
        change = self.view.merge(update, now_s, ended_s)
        if change is None:
            return []
        effects: list[Effect] = [change]
        if ended_s <= GOSSIPED_S:
            self._tell(update, now_s)
        self._suspicions.end(update.node)
        if update.state is MemberState.SUSPECT:
            self._suspicions.begin(update, self._member_count, now_s)
        elif not update.is_live:
            self._probes.close(update.node)
            if update.state is MemberState.DEAD:
                self._graveyard.died(now_s)
        if _is_arrival(change):
            effects += self._arrived(update, now_s)
        return effects

    def _arrived(self, newcomer: Member, now_s: float) -> list[Effect]:
        self._order.joined(newcomer.node)
        if self._next_probe_s is None:
            # Somewhere within the first interval, or nodes started together would probe in step for ever.
            self._next_probe_s = now_s + self._rng.random() * self._timings.probe_interval_s
        # A restart in place: whoever lives there answers WrongId at once to the question for the other. News of the
        # two may come in either order, so both are asked.
        there = [member for member in self.view.live() if member.address == newcomer.address]
        return [effect for member in there for effect in self.suspect_link(member.node, now_s)] if there[1:] else []

    def _is_accusation(self, update: Member) -> bool:
        return update.node == self.myself.node and update.state is not MemberState.ALIVE

    def _refute(self, accusation: Member, now_s: float) -> None:
        # No honest node comes near the last incarnation; one above it could not be sent.
        if self._has_left or accusation.incarnation >= INCARNATION_MAX:
            return
        if accusation.incarnation >= self.myself.incarnation:
            self.myself = self.myself._replace(incarnation=accusation.incarnation + 1)
            self._awareness.worse()
        # Also for an accusation refuted before: whoever still sends it has not heard the refutation.
        self._tell(self.myself, now_s)

    def _announce(self, now_s: float) -> list[Effect]:
        self._tell(self.myself, now_s)
        return [
            SendDatagram(peer.address, Gossip(self._news_for(peer.node, [self.myself])))
            for peer in self._some(self.view.live(), LEAVE_PEERS)
        ]

    def _tell(self, update: Member, now_s: float) -> None:
        self._broadcast.add(update)
        if self._next_gossip_s is None:
            self._next_gossip_s = max(now_s, self._gossip_from_s)

    def _news_for(self, peer: NodeId, first: Iterable[Member] = ()) -> tuple[Member, ...]:
        must = list(first)
        if self._has_left and self.myself not in must:
            must.append(self.myself)
        held = self.view.get(peer)
        if held is not None and held.state is not MemberState.ALIVE:
            must.append(held)
        return self._broadcast.take(must, self._member_count)

    def _accuse(self, dead: Member) -> SendDatagram:
        """Tell a node that it is dead here, and let it object."""
        # No open question is kept: only the answer counts, and its lack says nothing new about the dead.
        ping = Ping(self._probes.next_sequence(), dead.node, self._news_for(dead.node))
        return SendDatagram(dead.address, ping)

    def _gossip(self, now_s: float) -> list[Effect]:
        self._gossip_from_s = now_s + self._timings.gossip_interval_s
        live = self.view.live()
        if not live:
            self._broadcast.clear()
        effects: list[Effect] = []
        for peer in self._some(live, GOSSIP_PEERS):
            if self._broadcast:
                effects.append(SendDatagram(peer.address, Gossip(self._news_for(peer.node))))
        self._next_gossip_s = self._gossip_from_s if self._broadcast else None
        return effects

    def _some(self, members: Iterable[Member], count: int) -> list[Member]:
        members = list(members)
        return self._rng.sample(members, min(count, len(members)))

    # --- probes -------------------------------------------------------------------------------------------

    def _probe_next(self, now_s: float) -> list[Effect]:
        live = self.view.live()
        if not live:
            self._next_probe_s = None
            return []
        self._next_probe_s = now_s + self._timings.probe_interval_s * self._awareness.factor
        target = self._order.next({member.node: member for member in live if not self._probes.is_open(member.node)})
        return [] if target is None else self._probe(target, now_s, self._awareness.factor)

    def _probe(self, target: Member, now_s: float, patience: int) -> list[Effect]:
        probe = self._probes.start(
            target,
            help_due_s=now_s + self._timings.answer_wait_s * patience,
            verdict_s=now_s + self._timings.probe_interval_s * patience,
        )
        ping = Ping(probe.sequence, target.node, self._news_for(target.node))
        return [SendDatagram(target.address, ping)]

    def _ask_helpers(self, probe: Probe) -> list[Effect]:
        target = probe.target
        able = (m for m in self.view.live() if m.state is MemberState.ALIVE and m.node != target.node)
        helpers = self._some(able, HELPERS)
        probe.helpers = tuple(helper.node for helper in helpers)
        # A helper that knows of the accusation passes it on with its ping, and brings back the refutation.
        held = self.view.get(target.node)
        about = [] if held is None or held.state is MemberState.ALIVE else [held]
        return [
            SendDatagram(
                helper.address,
                PingRequest(probe.sequence, target.node, target.address, self._news_for(helper.node, about)),
            )
            for helper in helpers
        ]

    def _help(self, sender: NodeId, address: Address, asked: PingRequest, now_s: float) -> list[Effect]:
        relay = Relay(asked.sequence, sender, address, asked.target, now_s + self._timings.answer_wait_s)
        sequence = None if asked.target == self.myself.node else self._probes.relay(relay)
        if sequence is None:
            return []
        return [SendDatagram(asked.address, Ping(sequence, asked.target, self._news_for(asked.target)))]

    def _answered(self, sequence: int, sender: NodeId) -> list[Effect]:
        if self._probes.answered(sequence, sender):
            self._awareness.better()
        relay = self._probes.relay_done(sequence, sender)
        if relay is None:
            return []
        held = self.view.get(sender)
        news = self._news_for(relay.requester, [] if held is None else [held])
        return [SendDatagram(relay.address, ProbeAck(relay.sequence, news))]

    def _disowned(self, sequence: int, asked: NodeId, now_s: float) -> list[Effect]:
        relay = self._probes.relay_done(sequence, asked)
        if relay is not None:
            return [
                *self.certain_death(asked, now_s),
                SendDatagram(relay.address, WrongId(relay.sequence, asked)),
            ]
        return self.certain_death(asked, now_s) if self._probes.disowned(sequence, asked) else []

    def _failed(self, probe: Probe, now_s: float) -> list[Effect]:
        # One helper that was heard shows that this node hears. Silence of some is what a lossy network does to all;
        # counted each, it made every member slow to ask, and a lost machine went unnoticed for up to ten seconds.
        if probe.helpers and not probe.nacks:
            self._awareness.worse()
        held = self.view.get(probe.target.node)
        # Refuted since it was asked: it was well later than this probe can tell.
        if held is None or held.incarnation != probe.target.incarnation:
            return []
        effects: list[Effect] = []
        if held.state is MemberState.ALIVE:
            effects += self._merge(held._replace(state=MemberState.SUSPECT), now_s)
        self._suspicions.confirm(held.node, probe.nacks, now_s)
        return effects

    def _paused(self, late_s: float, now_s: float) -> None:
        """Hold the pause, not the others, responsible for every answer that did not come."""
        self._awareness.worse()
        self._probes.clear()
        self._suspicions.paused(late_s, now_s)


def _is_arrival(change: MemberChanged) -> bool:
    return change.member.is_live and (change.before is None or change.before > MemberState.SUSPECT)
