"""Many Swim machines in one virtual network: what holds over time, under loss, death, leaving and pauses."""

import pytest

from gossipsess.model.member import MemberState, Told
from tests.simulation.swim_world import World


@pytest.mark.parametrize("nodes", [2, 3, 5])
@pytest.mark.parametrize("seed", range(4))
def test_no_live_member_is_declared_dead_under_twenty_percent_loss(nodes, seed):
    """A false death moves sessions for nothing; with few members there are few to speak for the accused."""
    world = World(nodes, seed=seed, loss=0.2)
    world.run(600 / nodes)
    assert world.deaths() == [], f"World({nodes}, {seed=}, loss=0.2)"
    suspected = world.changes_to(MemberState.SUSPECT)
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
    world.carry_out(1, world.swims[1].heard_members([Told(accusation)], world.now_s))
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
        world.carry_out(0, world.swims[0].heard_members([Told(accusation)], world.now_s))
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
    assert world.changes_to(MemberState.SUSPECT) == []


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
