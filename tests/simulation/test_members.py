"""Membership where the random swarm does not come: islands whose seeds are dead, and news that was lost for good."""

from collections import Counter

import pytest

from gossipsess.model.member import Address, MemberState, Told
from gossipsess.protocol.effects import Send, SendBeacon, SendDatagram, Settle
from gossipsess.protocol.events import Event, Write
from gossipsess.protocol.outcomes import Confirmed, Degraded
from gossipsess.sim.checkers import Checker
from gossipsess.sim.cluster import Cluster, Process
from gossipsess.sim.network import Faults
from gossipsess.sim.scenario import Scenario
from gossipsess.wire.codec import U32, U64, encode
from gossipsess.wire.messages import Beacon, Datagram, LinkMessage, Members, Ping, ProbeAck
from tests.simulation.mutants import planted
from tests.simulation.test_swim import World
from tests.unit.machines import registers

IDLE_BYTES_MAX = 520
SEAL_BYTES = 37
"""Version, key id, sender, counter and tag around each datagram."""
UDP_BYTES = 28
FRAME_BYTES = 4 + 1 + 16
"""Length, mark and tag around each message of a link."""
TCP_BYTES = 52


def cluster_of(nodes: int, seed: int, **settings) -> Cluster:
    hosts = tuple(f"host{slot}" for slot in range(nodes))
    cluster = Cluster(Scenario(seed, hosts, Faults(), (), (), **settings), trace=False)
    cluster.observer = Checker(cluster)
    return cluster


def both_ways(*pairs: tuple[int, int]) -> list[tuple[int, int]]:
    return [way for a, b in pairs for way in ((a, b), (b, a))]


def sees(cluster: Cluster, one: int, other: int) -> bool:
    here, there = cluster.in_slot(one), cluster.in_slot(other)
    assert here is not None
    assert there is not None
    return there.node in [member.node for member in here.replica.swim.view.live()]


# --- islands ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("nodes", "apart_s"), [(2, 30), (2, 900), (4, 60), (6, 300)])
def test_two_islands_find_each_other_when_the_network_is_whole_again(nodes, apart_s):
    """Each side holds the other for dead and pings it no more; no seed is left, and nothing is heard on multicast."""
    world = World(nodes, seed=apart_s)
    world.run(2)
    ways = both_ways(*((a, b) for a in range(nodes // 2) for b in range(nodes // 2, nodes)))
    world.cut = dict.fromkeys(ways)
    world.run(apart_s)
    assert {world.state(a, b) for a, b in ways} == {MemberState.DEAD}
    world.cut = {}
    world.run(40 if apart_s > 600 else 8)
    states = [world.state(a, b) for a in range(nodes) for b in range(nodes) if a != b]
    assert states == [MemberState.ALIVE] * len(states)


def test_without_asking_the_dead_islands_stay():
    """What the test above would look like if it could not fail."""
    with planted("the_dead_rest"):
        world = World(4, seed=60)
        world.run(2)
        ways = both_ways((0, 2), (0, 3), (1, 2), (1, 3))
        world.cut = dict.fromkeys(ways)
        world.run(60)
        world.cut = {}
        world.run(120)
        assert {world.state(a, b) for a, b in ways} == {MemberState.DEAD}


def test_one_side_that_was_convicted_is_asked_by_the_other():
    """Datagrams went one way only for a while: one is dead to the other, which it still takes for alive or dead."""
    world = World(2, seed=5)
    world.run(2)
    world.cut = {(1, 0): None}
    world.run(60)
    assert world.state(0, 1) is MemberState.DEAD
    world.cut = {}
    world.run(8)
    assert [world.state(0, 1), world.state(1, 0)] == [MemberState.ALIVE] * 2


# --- views --------------------------------------------------------------------------------------------------


def missed_arrival(seed: int) -> Cluster:
    """A newcomer of which the third node never hears: the gossip is lost, and nothing comes directly."""
    cluster = cluster_of(3, seed)
    cluster.shut("all", both_ways((1, 2)))
    cluster.start(0)
    cluster.start(1)
    cluster.run_until(4)
    cluster.shut("udp", [(0, 1)])
    cluster.start(2)
    cluster.run_until(5)
    cluster.open("udp", [(0, 1)])
    assert sees(cluster, 2, 1)
    return cluster


@pytest.mark.parametrize("seed", range(3))
def test_a_member_that_was_missed_is_known_soon_after_all(seed):
    """An update is gossiped a few times and then no more; who missed it would go on by another view."""
    cluster = missed_arrival(seed)
    cluster.run_until(8)
    assert sees(cluster, 1, 2)


def test_without_comparing_views_a_missed_member_stays_unknown():
    """What the test above would look like if it could not fail."""
    with planted("views_are_not_compared"):
        cluster = missed_arrival(0)
        cluster.run_until(120)
        assert not sees(cluster, 1, 2)


# --- confirmations ------------------------------------------------------------------------------------------


def convicted_by_a_deaf_node() -> int:
    """Count whom a third node convicts that hears nothing for six seconds, and whose datagrams arrive all the same."""
    convicted = 0
    for seed in range(5):
        world = World(3, seed=seed)
        world.run(2)
        world.cut = {(0, 2): None, (1, 2): None}
        world.run(6)
        convicted += len([entry for entry in world.deaths() if entry[1] == 2])
    return convicted


def test_of_three_members_none_is_thrown_out_on_one_members_word():
    """Who hears nobody is likely the one that is cut off: it waits for a second opinion, which a helper's Nack is."""
    assert convicted_by_a_deaf_node() == 0
    with planted("nobody_need_confirm"):
        assert convicted_by_a_deaf_node() >= 5


# --- a member without a link ----------------------------------------------------------------------------------


def test_a_member_that_has_no_link_is_counted_and_waited_for_no_longer_than_any_other():
    """Datagrams come through, and connections do not: it is live, and what a confirmation says must be true of it."""
    cluster = cluster_of(3, seed=1)
    for slot in range(3):
        cluster.start(slot)
    cluster.run_until(4)
    cluster.shut("tcp", both_ways((1, 2)))
    cluster.break_links(both_ways((1, 2)))
    cluster.run_until(30)
    assert sees(cluster, 1, 2)
    assert sees(cluster, 2, 1)
    writer, cut_off = cluster.in_slot(1), cluster.in_slot(2)
    assert writer is not None
    assert cut_off is not None
    outcomes: dict[bytes, list[object]] = {b"one-------------": [], b"all-------------": []}
    for sid, confirm in zip(outcomes, (1, "all"), strict=True):
        cluster.submit(writer, Write(sid, tuple(registers(30_000).items()), confirm, outcomes[sid].append))
    cluster.run_until(30.3)
    assert list(outcomes.values()) == [[Confirmed(1, 1)], [Degraded(1, 1)]]
    cluster.run_until(90)
    assert sorted(cut_off.records) == sorted(outcomes), "and it hears of both by way of the third"


# --- what it costs ------------------------------------------------------------------------------------------


def datagram_bytes(message: Datagram) -> int:
    """Return what a datagram is on the wire; a probe's two hashes as long as they get."""
    if isinstance(message, Ping | ProbeAck):
        message = message._replace(view=U32, digest=U64)
    return len(encode(message)) + SEAL_BYTES + UDP_BYTES


def list_bytes(message: Members) -> int:
    """Return what a member list is on the wire: a segment, and one to acknowledge it."""
    return len(encode(message)) + FRAME_BYTES + 2 * TCP_BYTES


class Meter:
    """Watches a cluster, and adds up what its membership says."""

    def __init__(self) -> None:
        self.bytes: Counter[str] = Counter()

    def handled(self, process: Process, event: Event, answer: object) -> None:
        for effect in process.replica.outbox:
            match effect:
                case SendDatagram(_, message) | SendBeacon(message):
                    self.bytes[type(message).__name__] += datagram_bytes(message)
                case Send(_, Members() as message):
                    self.bytes["Members"] += list_bytes(message)

    def settled(self, process: Process, effect: Settle) -> None:
        pass

    def delivered(self, sender: Process, receiver: Process, message: LinkMessage) -> None:
        pass


@pytest.mark.parametrize("nodes", [2, 5])
def test_an_idle_node_sends_little(nodes):
    """Sessions rest most of the time; a library that chatters would be turned off on the first metered network."""
    cluster = cluster_of(nodes, seed=nodes, beacons=True)
    meter = cluster.observer = Meter()
    for slot in range(nodes):
        cluster.start(slot)
    cluster.run_until(30)
    assert all(len(process.replica.linked) == nodes - 1 for process in cluster.live)
    meter.bytes.clear()
    cluster.run_until(150)
    per_second = {kind: round(sent / nodes / 120) for kind, sent in meter.bytes.items()}
    assert sorted(per_second) == ["Beacon", "Members", "Ping", "ProbeAck"]
    assert sum(per_second.values()) <= IDLE_BYTES_MAX, per_second


class MeteredWorld(World):
    """Adds up what all its machines send."""

    bytes = 0

    def _send(self, number: int, address: Address, message: Datagram) -> None:
        self.bytes += datagram_bytes(message)
        super()._send(number, address, message)


def test_an_idle_node_of_fifty_sends_little():
    """Probes are as many in a cluster of any size; lists grow with it, and each node sends two of them a minute:
    the one it begins an exchange with, and the one it answers with."""
    world = MeteredWorld(50, seed=50)
    world.run(10)
    told = (Told(world.swims[0].myself), *world.swims[0].view.told(world.now_s))
    assert len(told) == 50
    world.bytes = 0
    world.run(30)
    probes, lists = world.bytes / 50 / 30, 2 * list_bytes(Members(told, reply=True)) / 60
    beacons = datagram_bytes(Beacon(7950, reply=False)) / 10
    assert probes + lists + beacons <= IDLE_BYTES_MAX, (probes, lists, beacons)
