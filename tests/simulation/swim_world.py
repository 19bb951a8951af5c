"""A world of Swim machines alone: the simulator's network and virtual time, without links, sessions and bytes.

In:    how many nodes, a seed, the share of datagrams lost; then who is down, paused or cut off, at any time.
Out:   `history`: each change of each node's view, with its moment.
Why:   a whole replica costs ten times as much, and links make a death known sooner: what is measured here is what
       datagrams alone can do, which is all there is when a machine is lost without a word.
Whether a datagram is lost depends on the seed, the pair and its number on that pair, so a change elsewhere does not
reshuffle the losses.
Not here: what must hold (test_swim.py), figures (detection.py).
"""

import heapq
import random
from collections.abc import Iterable
from itertools import count

from gossipsess.model.identity import NodeId
from gossipsess.model.member import Address, Member, MemberState, Told
from gossipsess.protocol.effects import Effect, MemberChanged, SendDatagram
from gossipsess.protocol.swim import Swim, SwimTimings
from gossipsess.sim.network import Faults, Network
from gossipsess.wire.messages import Datagram

Arrival = tuple[NodeId, Address, Datagram]
"""Who sent a datagram, from where, and what it says."""
HAIR_S = 1e-6
"""Puts one thing behind another that happens at the same moment."""


class World:
    """Nodes 0 .. nodes-1, all introduced to each other at time 0."""

    def __init__(self, nodes: int, *, seed: int, loss: float = 0.0) -> None:
        self.seed = seed
        self.now_s = 0.0
        self.swims: list[Swim] = []
        self.down: dict[int, None] = {}
        """Nodes that are gone without a word; for good."""
        self.paused_until_s: dict[int, float] = {}
        self.timers_first = True
        """Whether a paused node wakes up to its deadlines or to the datagrams the kernel kept for it."""
        self.cut: dict[tuple[int, int], None] = {}
        self.history: list[tuple[float, int, MemberChanged]] = []
        """When, at which node, and what it now knows."""
        self.datagrams = 0
        self.events = 0
        self._network = Network(seed, Faults(loss=loss))
        self._order = count()
        self._queue: list[tuple[float, int, int, Arrival | None]] = []  # None: the node's timer
        self._timers: list[float | None] = []  # when the timer that counts of each node goes off
        self._at: dict[Address, int] = {}
        for number in range(nodes):
            self.start(number)
        everybody = [swim.myself for swim in self.swims]
        for number, swim in enumerate(self.swims):
            others = [member for member in everybody if member.node != swim.myself.node]
            self.carry_out(number, swim.heard_members([Told(one) for one in others], self.now_s))

    def start(self, number: int, *, address: Address | None = None) -> None:
        """Start a node that knows nobody yet, at an address of its own or at one that is free again."""
        node = random.Random(f"{self.seed} id {number}").randbytes(8)
        address = address or (f"10.0.0.{number}", 7950)
        member = Member(node, 0, MemberState.ALIVE, address, name=f"n{number}", host=address[0])
        rng = random.Random(f"{self.seed} rng {number}")
        assert number == len(self.swims)
        self.swims.append(Swim(member, timings=SwimTimings(), rng=rng, now_s=self.now_s))
        self._timers.append(None)
        self._at[address] = number

    def introduce(self, number: int, to: Iterable[int]) -> None:
        """What a link between `number` and each other one does: each hears the whole list of the other."""
        for other in to:
            if other != number:
                swim = self.swims[other]
                told = [Told(swim.myself), *swim.view.all_told(self.now_s)]
                self.carry_out(number, self.swims[number].heard_members(told, self.now_s))

    def carry_out(self, number: int, effects: list[Effect]) -> None:
        """Do what a node asks for after an event."""
        for effect in effects:
            match effect:
                case SendDatagram(address, message):
                    self._send(number, address, message)
                case MemberChanged():
                    self.history.append((self.now_s, number, effect))
                case _:
                    raise AssertionError(effect)
        self._arm(number)

    def run(self, seconds: float) -> None:
        """Let everything happen that is due within the next `seconds`."""
        end_s = self.now_s + seconds
        queue = self._queue
        while queue and queue[0][0] <= end_s:
            at_s, order, number, arrival = heapq.heappop(queue)
            self.now_s = at_s
            if number in self.down or (arrival is None and self._timers[number] != at_s):
                continue
            resumes_s = self.paused_until_s.get(number, 0.0)
            if resumes_s > at_s:
                later_s = resumes_s if self.timers_first == (arrival is None) else resumes_s + HAIR_S
                if arrival is None:
                    self._timers[number] = later_s
                heapq.heappush(queue, (later_s, order, number, arrival))
                continue
            self.events += 1
            if arrival is None:
                self._timers[number] = None
                self.carry_out(number, self.swims[number].timeout(at_s))
            else:
                self.carry_out(number, self.swims[number].receive(*arrival, at_s))
        self.now_s = end_s

    def state(self, observer: int, of: int) -> MemberState | None:
        """Return what one node takes another for."""
        held = self.swims[observer].view.get(self.swims[of].myself.node)
        return None if held is None else held.state

    def moments(self, of: int, state: MemberState) -> dict[int, float]:
        """When each observer first took node `of` for `state`."""
        moments: dict[int, float] = {}
        for at_s, observer, change in self.history:
            if change.member.node == self.swims[of].myself.node and change.member.state is state:
                moments.setdefault(observer, at_s)
        return moments

    def changes_to(self, state: MemberState) -> list[tuple[float, int, MemberChanged]]:
        """Return what of the history says that somebody is taken for `state`."""
        return [entry for entry in self.history if entry[2].member.state is state]

    def deaths(self) -> list[tuple[float, int, MemberChanged]]:
        """Return what of the history says that somebody is dead."""
        return self.changes_to(MemberState.DEAD)

    def _send(self, number: int, address: Address, message: Datagram) -> None:
        self.datagrams += 1
        other = self._at.get(address)
        if other is None or other in self.down or (number, other) in self.cut:
            return
        here = self.swims[number].myself
        for delay_s in self._network.delays("udp", here.name, self.swims[other].myself.name):
            arrival = (here.node, here.address, message)
            heapq.heappush(self._queue, (self.now_s + delay_s, next(self._order), other, arrival))

    def _arm(self, number: int) -> None:
        deadline_s = self.swims[number].next_deadline()
        if deadline_s is None:
            return
        due_s = max(deadline_s, self.now_s)
        armed_s = self._timers[number]
        if armed_s is None or due_s < armed_s:
            self._timers[number] = due_s
            heapq.heappush(self._queue, (due_s, next(self._order), number, None))
