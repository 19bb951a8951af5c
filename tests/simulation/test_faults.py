"""The faults do what they say: one that does nothing would leave a rule untried, and nobody would notice."""

import pytest

from gossipsess.model.identity import SID_BYTES
from gossipsess.model.member import MemberState
from gossipsess.protocol.events import Invalidate
from gossipsess.sim.checkers import Checker
from gossipsess.sim.cluster import Cluster
from gossipsess.sim.mishaps import Mishaps
from gossipsess.sim.network import Faults
from gossipsess.sim.newer import newer_form
from gossipsess.sim.run import run
from gossipsess.sim.scenario import Mishap, Request, Scenario
from gossipsess.sim.workload import Waiter
from gossipsess.wire.codec import decode_untrusted, encode
from gossipsess.wire.messages import Bye, Message, Ping, Pull, PushAck

NEVER_S = 1e9


def started(*mishaps: Mishap, **fields) -> Cluster:
    """Return a cluster of three nodes that have met, in a good network, three seconds after its beginning."""
    fields.setdefault("hosts", ("a", "b", "c"))
    scenario = Scenario(seed=1, faults=Faults(), requests=(), mishaps=mishaps, hurt_s=NEVER_S, **fields)
    cluster = Cluster(scenario, trace=True)
    cluster.observer = Checker(cluster)
    Mishaps(cluster)
    for slot in range(len(scenario.hosts)):
        cluster.start(slot)
    cluster.run_until(3.0)
    return cluster


def logged_out(cluster: Cluster, slot: int, number: int) -> bytes:
    """Invalidate a session at a node; return its sid."""
    sid = bytes([number]) * SID_BYTES
    process = cluster.in_slot(slot)
    assert process is not None
    cluster.submit(process, Invalidate(sid, 0, Waiter()))
    return sid


def test_a_node_whose_address_a_stranger_took_is_found_dead_by_its_silence() -> None:
    """Nothing refuses there, so the swift proof of a death is missing; a stranger's greeting must not vouch for it."""
    cluster = started(Mishap(4.0, "foreign", (2,), NEVER_S), Mishap(4.0, "crash", (1,), NEVER_S))
    stranger, crashed = cluster.in_slot(2), cluster.in_slot(1)
    witness = cluster.in_slot(0)
    assert stranger is not None
    assert crashed is not None
    assert witness is not None
    cluster.run_until(4.5)
    states = {member.node: member.state for member in witness.replica.swim.view.all()}
    assert states[crashed.node] is MemberState.DEAD, "its machine refuses"
    assert states[stranger.node] is not MemberState.DEAD
    cluster.run_until(25.0)
    states = {member.node: member.state for member in witness.replica.swim.view.all()}
    assert states[stranger.node] is MemberState.DEAD


def test_a_slow_reader_takes_in_late_and_in_order_and_all_of_it_when_it_recovers() -> None:
    """It is what fills others' bytes in flight; one that lost or overtook messages would be another fault."""
    cluster = started(Mishap(3.5, "slow reader", (1,), 3.0, period_s=0.5))
    reader, other = cluster.in_slot(1), cluster.in_slot(2)
    assert reader is not None
    assert other is not None
    cluster.run_until(4.0)
    sids = []
    for number in range(4):
        sids.append(logged_out(cluster, 0, number))
        cluster.run_until(cluster.now_s + 0.1)
    assert all(sid in other.records for sid in sids)
    assert not any(sid in reader.records for sid in sids[1:])
    cluster.run_until(5.7)
    held = [sid in reader.records for sid in sids]
    assert held == sorted(held, reverse=True), "the first that was said is the first that is read"
    assert 0 < sum(held) < 4
    cluster.run_until(7.5)
    assert all(sid in reader.records for sid in sids)
    assert not reader.unread


def test_what_a_clog_holds_up_arrives_with_the_heal() -> None:
    """The heal ends all faults; what came long after it would be taken for something that was said then."""
    cluster = started(Mishap(4.0, "clog", (0, 1), 60.0))
    target = cluster.in_slot(1)
    assert target is not None
    cluster.run_until(4.1)
    sid = logged_out(cluster, 0, 7)
    cluster.run_until(4.5)
    assert sid not in target.records
    cluster.heal()
    cluster.run_until(4.6)
    assert sid in target.records


def test_dead_seeds_neither_answer_nor_keep_nodes_from_each_other() -> None:
    """One stale entry in a list of seeds is usual."""
    cluster = started(dead_seeds=3)
    assert all(len(process.replica.linked) == 2 for process in cluster.live)
    assert any("10.9.0." in line and "refused=True" in line for line in cluster.trace or ())
    assert any("10.9.0." in line and "refused=False" in line for line in cluster.trace or ())


def test_beacons_that_are_lost_are_not_heard() -> None:
    """With all of them lost nobody is met; with none, all are."""
    assert all(process.replica.linked for process in started(beacons=True).live)
    deaf = Scenario(1, ("a", "b"), Faults(beacon_loss=1.0), (), (), hurt_s=3.0, beacons=True)
    assert not run(deaf, hurt_only=True).counts["links"]


@pytest.mark.parametrize("message", [Bye(), Ping(1, b"12345678"), Pull(1, ()), PushAck(1, (), (bytes(16),) * 300)])
def test_the_form_of_a_newer_version_is_longer_and_says_the_same(message: Message) -> None:
    """The head of an array has three forms, by its count; a wrong one would shift every field."""
    data = newer_form(encode(message))
    assert len(data) > len(encode(message))
    assert decode_untrusted(data) == message


def test_old_and_newer_nodes_agree() -> None:
    """An update runs node by node, and both versions serve meanwhile."""
    requests = tuple(Request(number, 1.0 + 0.2 * number, number % 3, 0, "write", "all", "cart") for number in range(12))
    result = run(Scenario(3, ("a", "b", "c"), Faults(loss=0.1), requests, (), newer=(1,)))
    assert result.violation is None
    assert result.counts["confirmed"] >= 10
    assert result.counts["unknown kinds"] > 0
