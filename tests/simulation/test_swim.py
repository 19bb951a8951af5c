"""Many Swim machines in one virtual network: what holds over time, under loss, death, leaving and pauses.

The world here is only large enough for membership. Whether a datagram is lost depends on the seed, the pair and
its number on that pair, so a change elsewhere does not reshuffle the losses.
"""

import heapq
import random
from collections.abc import Iterable
from itertools import count

import pytest

from gossipsess.model.identity import NodeId
from gossipsess.model.member import Address, Member, MemberState
from gossipsess.protocol.effects import Effect, MemberChanged, SendDatagram
from gossipsess.protocol.swim import Swim, SwimTimings
from gossipsess.wire.messages import Datagram

DELAY_S = 0.002


class World:
    """Nodes 0 .. nodes-1, all introduced to each other at time 0."""

    def __init__(self, nodes: int, *, seed: int, loss: float = 0.0) -> None:
        self.seed = seed
        self.loss = loss
        self.now_s = 0.0
        self.swims: list[Swim] = []
        self.down: dict[int, None] = {}
        self.paused_until_s: dict[int, float] = {}
        self.timers_first = True
        """Whether a paused node wakes up to its deadlines or to the datagrams the kernel kept for it."""
        self.cut: dict[tuple[int, int], None] = {}
        self.history: list[tuple[float, int, MemberChanged]] = []
        self.datagrams = 0
        self._order = count()
        self._queue: list[tuple[float, int, int, NodeId, Address, Datagram]] = []
        self._sent: dict[tuple[int, int], int] = {}
        for number in range(nodes):
            self.start(number)
        for number in range(nodes):
            self.introduce(number, range(nodes))

    def start(self, number: int, *, address: Address | None = None) -> None:
        node = random.Random(f"{self.seed} id {number}").randbytes(8)
        address = address or (f"10.0.0.{number}", 7950)
        member = Member(node, 0, MemberState.ALIVE, address, name=f"n{number}", host=address[0])
        rng = random.Random(f"{self.seed} rng {number}")
        assert number == len(self.swims)
        self.swims.append(Swim(member, timings=SwimTimings(), rng=rng, now_s=self.now_s))

    def introduce(self, number: int, to: Iterable[int]) -> None:
        """What a link between `number` and each other one does: each hears the whole list of the other."""
        for other in to:
            if other != number:
                swim = self.swims[other]
                told = [swim.myself, *swim.view.all()]
                self.carry_out(number, self.swims[number].heard_members(told, self.now_s))

    def carry_out(self, number: int, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case SendDatagram(address, message):
                    self._send(number, address, message)
                case MemberChanged():
                    self.history.append((self.now_s, number, effect))
                case _:
                    raise AssertionError(effect)

    def _send(self, number: int, address: Address, message: Datagram) -> None:
        self.datagrams += 1
        here = self.swims[number].myself
        for other, swim in enumerate(self.swims):
            if swim.myself.address == address and other not in self.down:
                pair = (number, other)
                self._sent[pair] = self._sent.get(pair, 0) + 1
                luck = random.Random(f"{self.seed} {pair} {self._sent[pair]}").random()
                if luck >= self.loss and pair not in self.cut:
                    at_s = self.now_s + DELAY_S * (1 + luck)
                    entry = (at_s, next(self._order), other, here.node, here.address, message)
                    heapq.heappush(self._queue, entry)

    def run(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while True:
            due: list[tuple[float, int]] = []
            for number, swim in enumerate(self.swims):
                deadline_s = swim.next_deadline()
                if number not in self.down and deadline_s is not None:
                    due.append((max(deadline_s, self.paused_until_s.get(number, 0.0), self.now_s), number))
            at_s, number = min(due, default=(end_s, -1))
            if self._queue and self._queue[0][0] <= at_s:
                at_s = self._queue[0][0]
                if at_s > end_s:
                    break
                self._deliver()
            elif at_s < end_s:
                self.now_s = at_s
                self.carry_out(number, self.swims[number].timeout(at_s))
            else:
                break
        self.now_s = end_s

    def _deliver(self) -> None:
        at_s, order, number, sender, address, message = heapq.heappop(self._queue)
        self.now_s = max(at_s, self.now_s)
        resumes_s = self.paused_until_s.get(number, 0.0)
        if resumes_s > self.now_s:
            at_s = resumes_s + 1e-6 if self.timers_first else resumes_s
            heapq.heappush(self._queue, (at_s, order, number, sender, address, message))
        elif number not in self.down:
            self.carry_out(number, self.swims[number].receive(sender, address, message, self.now_s))

    def state(self, observer: int, of: int) -> MemberState | None:
        held = self.swims[observer].view.get(self.swims[of].myself.node)
        return None if held is None else held.state

    def moments(self, of: int, state: MemberState) -> dict[int, float]:
        """When each observer first took node `of` for `state`."""
        moments: dict[int, float] = {}
        for at_s, observer, change in self.history:
            if change.member.node == self.swims[of].myself.node and change.member.state is state:
                moments.setdefault(observer, at_s)
        return moments

    def deaths(self) -> list[tuple[float, int, MemberChanged]]:
        return [entry for entry in self.history if entry[2].member.state is MemberState.DEAD]


@pytest.mark.parametrize("nodes", [2, 3, 5])
@pytest.mark.parametrize("seed", range(4))
def test_no_live_member_is_declared_dead_under_twenty_percent_loss(nodes, seed):
    """A false death moves sessions for nothing; with few members there are few to speak for the accused."""
    world = World(nodes, seed=seed, loss=0.2)
    world.run(600 / nodes)
    assert world.deaths() == [], f"World({nodes}, {seed=}, loss=0.2)"
    suspected = [entry for entry in world.history if entry[2].member.state is MemberState.SUSPECT]
    assert suspected, "without one false suspicion this test would show nothing"


@pytest.mark.parametrize(("nodes", "bound_s"), [(2, 4.0), (3, 4.5), (5, 4.5), (10, 6.0)])
@pytest.mark.parametrize("seed", range(3))
def test_the_death_of_a_member_is_noticed_by_all_within_the_bound(nodes, bound_s, seed):
    """Until then its sessions have one copy fewer, and writes wait for a confirmation that cannot come."""
    world = World(nodes, seed=seed)
    world.run(5)
    world.down[0] = None
    died_s = world.now_s
    world.run(bound_s)
    noticed = world.moments(0, MemberState.DEAD)
    assert sorted(noticed) == list(range(1, nodes))
    assert min(noticed.values()) - died_s > 1, "a death noticed at once was not measured, but guessed"
    assert len(world.deaths()) == nodes - 1, "and nobody else was taken for dead"


@pytest.mark.parametrize("seed", range(3))
def test_a_death_is_noticed_by_all_under_loss(seed):
    world = World(5, seed=seed, loss=0.2)
    world.run(5)
    world.down[0] = None
    world.run(15)
    assert [world.state(other, 0) for other in range(1, 5)] == [MemberState.DEAD] * 4
    assert len(world.deaths()) == 4


def test_a_false_accusation_is_refuted_everywhere():
    """One member with a broken path must not be able to talk the others into throwing a healthy one out."""
    world = World(5, seed=1)
    world.run(2)
    victim = world.swims[0]
    accusation = victim.myself._replace(state=MemberState.SUSPECT)
    world.carry_out(1, world.swims[1].heard_members([accusation], world.now_s))
    assert world.state(1, 0) is MemberState.SUSPECT
    world.run(1)
    assert victim.myself.incarnation == 1
    assert [world.state(other, 0) for other in range(1, 5)] == [MemberState.ALIVE] * 4
    world.run(20)
    assert world.deaths() == []


def test_a_member_wrongly_held_dead_comes_back_by_its_own_pings():
    """A verdict was wrong; the node finds out from the first answer to its own probe, and keeps its id."""
    world = World(3, seed=1)
    world.run(2)
    victim = world.swims[0].myself.node
    for other in (1, 2):
        world.carry_out(other, world.swims[other].certain_death(victim, world.now_s))
    world.run(2)
    assert [world.state(other, 0) for other in (1, 2)] == [MemberState.ALIVE] * 2
    assert world.swims[0].myself.incarnation == 1


@pytest.mark.parametrize("seed", range(5))
def test_a_leave_is_heard_as_left_and_never_as_dead(seed):
    """Who leaves has handed everything over: taking it for a crash would start a repair."""
    world = World(5, seed=seed, loss=0.2)
    world.run(2)
    world.carry_out(0, world.swims[0].leave(world.now_s))
    world.run(1)
    world.down[0] = None
    world.run(30)
    assert [world.state(other, 0) for other in range(1, 5)] == [MemberState.LEFT] * 4
    assert world.deaths() == []


@pytest.mark.parametrize("pause_s", [1.5, 3.0, 30.0])
@pytest.mark.parametrize("nodes", [2, 3, 5])
@pytest.mark.parametrize("timers_first", [True, False])
def test_a_node_that_was_paused_convicts_nobody(nodes, pause_s, timers_first):
    """On waking up it finds every answer missing; that is its own fault and not that of all the others."""
    for seed in range(4):
        world = World(nodes, seed=seed)
        world.timers_first = timers_first
        world.run(2)
        # Something is wrong with node 1 for a moment, so that the paused node holds a suspicion when it stops.
        accusation = world.swims[1].myself._replace(state=MemberState.SUSPECT)
        world.carry_out(0, world.swims[0].heard_members([accusation], world.now_s))
        world.paused_until_s[0] = world.now_s + pause_s
        world.run(pause_s + 10)
        assert [entry for entry in world.deaths() if entry[1] == 0] == [], f"{seed=}"
        states = [world.state(a, b) for a in range(nodes) for b in range(nodes) if a != b]
        assert states == [MemberState.ALIVE] * len(states), f"{seed=}: and all are together again"


def test_one_broken_path_throws_nobody_out():
    """The two ends of a broken path see each other through a third."""
    world = World(4, seed=3)
    world.cut = {(0, 1): None, (1, 0): None}
    world.run(60)
    assert world.deaths() == []
    assert [entry for entry in world.history if entry[2].member.state is MemberState.SUSPECT] == []


def test_the_two_sides_of_a_healed_partition_are_one_cluster_after_one_link():
    """Each side holds the other for dead and no longer pings it; one Hello must be enough for everyone."""
    world = World(4, seed=2)
    world.run(2)
    sides = [(a, b) for a in (0, 1) for b in (2, 3)]
    world.cut = {pair: None for a, b in sides for pair in ((a, b), (b, a))}
    world.run(60)
    assert world.state(0, 2) is MemberState.DEAD
    assert world.state(3, 1) is MemberState.DEAD
    world.cut = {}
    world.introduce(0, [2])
    world.introduce(2, [0])
    world.run(3)
    states = [world.state(a, b) for a in range(4) for b in range(4) if a != b]
    assert states == [MemberState.ALIVE] * 12


def test_a_restart_at_the_same_address_ends_the_old_node_at_once():
    """A restarted process has a new id and none of its sessions: the old id must not count as a copy."""
    world = World(3, seed=4)
    world.run(2)
    world.down[0] = None
    world.start(3, address=world.swims[0].myself.address)
    world.introduce(3, [1])
    world.introduce(1, [3])
    began_s = world.now_s
    world.run(1)
    assert sorted(world.moments(0, MemberState.DEAD)) == [1, 2, 3]
    assert max(world.moments(0, MemberState.DEAD).values()) - began_s < 0.5
    assert [world.state(other, 3) for other in (1, 2)] == [MemberState.ALIVE] * 2


def test_a_broken_link_makes_a_death_known_sooner():
    """The kernel closes the links of a killed process at once; waiting for the next round would waste it."""
    waits = []
    for linked in (False, True):
        world = World(10, seed=5)
        world.run(5)
        world.down[0] = None
        died_s = world.now_s
        for other in range(1, 10) if linked else ():
            effects = world.swims[other].suspect_link(world.swims[0].myself.node, world.now_s)
            world.carry_out(other, effects)
        world.run(10)
        waits.append(max(world.moments(0, MemberState.DEAD).values()) - died_s)
    assert waits[1] < waits[0]
    assert waits[1] < 3


def test_a_quiet_cluster_sends_four_datagrams_per_node_and_second():
    """Each node's ping, its answer, and the same as the other end; no gossip without news."""
    world = World(5, seed=6)
    world.run(10)
    before = world.datagrams
    world.run(100)
    assert (world.datagrams - before) / (100 * 5) == pytest.approx(4, rel=0.05)


def test_the_same_seed_gives_the_same_history():
    """A failure that cannot be repeated cannot be understood."""
    histories = []
    for _ in range(2):
        world = World(5, seed=7, loss=0.3)
        world.run(30)
        world.down[2] = None
        world.run(10)
        histories.append((world.datagrams, world.history))
    assert histories[0] == histories[1]
    assert histories[0][1]
