"""How nodes start, meet, serve and end, with the real driver over a network in memory."""

import math
from concurrent.futures import Future
from functools import partial

import pytest
import trio

from gossipsess import Confirmed, Degraded, SessionUnavailable
from gossipsess.protocol.effects import Settle, Warn
from gossipsess.runtime import driver, links
from gossipsess.waiting import on_trio
from tests.shell.nodes import MULTICAST, ShellNode, all_linked, eventually, goes_on, in_world, static


async def outcome_of(node, session, confirm=None):
    return await on_trio(node.store.commit(session, confirm))


@pytest.mark.parametrize("count", [2, 3, 4, 5])
@in_world
async def test_nodes_that_know_one_address_all_meet_and_confirm_each_others_writes(world, count):
    """The whole of production's path but for the kernel: greeting, Hello, sync, push, acknowledgement."""
    nodes = await world.cluster(count, all_to_all_below=6)
    for node in nodes:
        session = node.store.create()
        session["user"] = "kim"
        assert await outcome_of(node, session, "all") == Confirmed(count - 1, count - 1)
        for other in nodes:
            assert (await other.loaded(session.cookie))["user"] == "kim"


@pytest.mark.parametrize("count", [4, 5, 6])
@in_world
async def test_from_four_nodes_on_a_session_is_on_two_of_them_and_read_on_all(world, count):
    """What each write costs must not grow with the cluster, and no client may notice where its session lies."""
    nodes = await world.cluster(count)
    placed: set[str] = set()
    for number in range(4 * count):
        writer, reader = nodes[number % count], nodes[number // count]
        session = await writer.committed("all", number=number)
        holders = writer.service.holders_of(session.cookie)
        assert len(holders) == 2
        placed.update(holders)
        having = {node.service.status().name for node in nodes if session.record.sid in node.service.node.records}
        assert having == {*holders, writer.service.status().name}
        assert (await reader.loaded(session.cookie))["number"] == number
    assert len(placed) == count, "all of them share the work"


@in_world
async def test_hosts_and_zones_that_are_set_are_told_to_all_and_decide_where_sessions_are(world):
    """Settings that get lost on their way to placement are missed when the machine or zone with both copies fails."""
    cluster = {"all_to_all_below": 3, "count_by": "host"}
    first = world.start(host="pod-1", zone="eu-1a", **cluster)
    nodes = [first]
    for host, zone in (("pod-1", "eu-1a"), ("pod-2", "eu-1b"), ("pod-2", "eu-1b")):
        nodes.append(world.start(static(first), host=host, zone=zone, **cluster))
    await all_linked(*nodes)
    assert {node.service.status().mode for node in nodes} == {"all-to-all"}, "four nodes, but two hosts only"
    nodes.append(world.start(static(first), host="pod-3", zone="eu-1b", **cluster))
    await all_linked(*nodes)
    assert {node.service.status().mode for node in nodes} == {"primary-secondary"}

    places = {node.service.status().name: (node.service.config.host, node.service.config.zone) for node in nodes}
    for node in nodes:
        status = node.service.status()
        told = {member.name: (member.host, member.zone) for member in status.members}
        assert told | {status.name: (status.host, status.zone)} == places
    for number in range(40):
        session = await nodes[number % 5].committed(number=number)
        [holders] = {node.service.holders_of(session.cookie) for node in nodes}
        assert sorted(places[name][1] for name in holders) == ["eu-1a", "eu-1b"]


@in_world
async def test_a_drain_under_load_ends_in_time_and_with_everything_handed_over(world):
    """A rolling update restarts every node, and each that waits in vain for its bound has it take minutes longer."""
    goes, *stay = await world.cluster(5)
    sessions = [await goes.committed(number=number) for number in range(40)]
    stop = trio.Event()

    async def write(session, node) -> None:
        """Write one session as fast as its requests go, at one node."""
        mine = await node.loaded(session.cookie)
        while not stop.is_set():
            mine["count"] = mine.get("count", 0) + 1
            await outcome_of(node, mine)
            await trio.sleep(0.01)

    async with trio.open_nursery() as nursery:
        for number, session in enumerate(sessions):
            nursery.start_soon(write, session, stay[number % 4])
        await trio.sleep(0.5)
        started_s = trio.current_time()
        await goes.leave()
        took_s = trio.current_time() - started_s
        for session in sessions:
            holders = stay[0].service.holders_of(session.cookie)
            having = [node for node in stay if session.record.sid in node.service.node.records]
            assert set(holders) <= {node.service.status().name for node in having}
        stop.set()
    assert took_s < driver.DRAIN_S / 5


@in_world
async def test_nodes_meet_by_beacons_alone(world):
    """The default of a developer's machine."""
    nodes = [world.start(MULTICAST) for _ in range(3)]
    await all_linked(*nodes)


@in_world
async def test_nodes_meet_by_a_name_that_is_known_only_later(world):
    """Pods are there before their records are; a name without an answer ends no node."""
    nodes = [world.start("dns://shop") for _ in range(3)]
    await trio.sleep(3)
    assert [node.linked() for node in nodes] == [0, 0, 0]
    world.fabric.names["shop"] = tuple((f"10.0.0.{number}", 7950) for number in (1, 2, 3, 99))
    await all_linked(*nodes)


@in_world
async def test_a_lookup_that_fails_in_no_foreseen_way_does_not_end_the_node(world):
    """A pod at its limit of threads gets none for the resolver. Those who are linked are of use all the same."""
    world.fabric.names["shop"] = RuntimeError("can't start new thread")
    node = world.start("dns://shop")
    await eventually(lambda: node.driver.rejected["RuntimeError"] > 1, "it is asked for again")
    world.fabric.names["shop"] = (node.address,)
    await goes_on(world, node)


@in_world
async def test_a_node_that_is_named_twice_knows_itself(world, caplog):
    """A pod may have an address of each version of IP. A lone one has no firewall to look for."""
    other = ("10.0.0.50", 7950)
    node = world.start("dns://shop")
    world.fabric.listening[other] = node.transport
    world.fabric.names["shop"] = (node.address, other)
    await trio.sleep(100)
    assert node.driver.rejected["SelfReached"] >= 1
    assert not [record.message for record in caplog.records if "linked to nobody" in record.message]
    assert {address for address in world.fabric.dials if address[0] == other[0]} == {other}, "its ports are known"
    assert world.fabric.dials.count(other) < 15, "later and later"
    await goes_on(world, node)


@in_world
async def test_what_came_in_while_the_process_stood_still_counts_before_its_deadlines(world):
    """A collection of garbage takes a tenth of a second, and what others have answered meanwhile is no timeout."""
    here, _ = await world.cluster(2)
    clock = trio.lowlevel.current_clock()
    outcomes = []

    async def commit() -> None:
        session = here.store.create()
        session["number"] = len(outcomes)
        outcomes.append(await on_trio(here.store.commit(session, 1)))

    for number in range(20):
        async with trio.open_nursery() as nursery:
            for connection in here.transport.connections:
                connection.inward.cut = True
            nursery.start_soon(commit)
            for _ in range(50):
                await trio.lowlevel.checkpoint()
            assert len(outcomes) == number, "the confirmation is on its way, and has not been read"
            for connection in here.transport.connections:
                connection.inward.cut = False
                connection.inward.touch()
            clock.jump(2 * here.service.config.confirm_timeout_s)
    assert [outcome for outcome in outcomes if not isinstance(outcome, Confirmed)] == []


@in_world
async def test_each_pair_keeps_one_link_however_often_both_dial(world):
    """All start at the same moment, and each knows all: every pair dials twice."""
    names = ",".join(f"10.0.0.{number}:7950" for number in range(1, 6))
    nodes = [world.start(f"static://{names}") for _ in range(5)]
    await all_linked(*nodes)
    await trio.sleep(links.CLOSE_S + 1)
    assert [node.open_connections() for node in nodes] == [4] * 5


@in_world
async def test_a_link_may_carry_one_byte_at_a_time(world):
    """Nothing may hang on how a kernel cuts a stream."""
    world.fabric.most = lambda: 1
    await goes_on(world, *await world.cluster(2))


@in_world
async def test_what_a_leaving_node_wrote_last_is_with_the_others(world):
    """The four milliseconds of a flush must not cost the last write before a restart."""
    goes, *stay = await world.cluster(3)
    session = await goes.committed(0, user="kim")
    await goes.leave()
    assert goes.failure is None
    for node in stay:
        assert (await node.loaded(session.cookie))["user"] == "kim"
        assert node.states()[goes.address[0]] == "left"


@in_world
async def test_a_leave_while_dials_are_under_way_ends_in_time_and_leaves_nothing_open(world):
    """A pod is stopped while it looks for its peers; Kubernetes would kill what does not end."""
    silent = [(f"10.0.0.{number}", 7950) for number in range(2, 30)]
    world.fabric.silent = dict.fromkeys(silent)
    node = world.start("static://" + ",".join(f"{host}:{port}" for host, port in silent))
    await eventually(lambda: len(node.driver._dialing) == len(silent), "all are dialed")
    started_s = trio.current_time()
    await node.leave()
    assert trio.current_time() - started_s <= 2 * driver.LEAVE_S
    assert node.failure is None


@pytest.mark.parametrize("when_s", [0.0, 0.001, 0.5])
@in_world
async def test_a_node_that_is_told_to_leave_as_it_starts_does(world, when_s):
    """A start that was a mistake."""
    await world.cluster(2)
    node = world.start(static(*world.nodes))
    await trio.sleep(when_s)
    await node.leave()
    assert node.failure is None


@in_world
async def test_a_killed_node_is_known_dead_as_soon_as_its_port_refuses(world):
    """Until then commits wait for it."""
    goes, *stay = await world.cluster(3)
    goes.kill()
    for node in stay:
        await eventually(lambda node=node: node.states()[goes.address[0]] == "dead", "it is dead", within_s=0.2)


@in_world
async def test_a_machine_that_vanishes_is_dead_in_seconds_and_writes_go_on_meanwhile(world):
    """Nobody closes its links: all that is seen of it is silence."""
    goes, here, there = await world.cluster(3)
    world.fabric.silent[goes.address] = None
    for connection in goes.transport.connections:
        connection.cut()
    session = here.store.create()
    session["user"] = "kim"
    assert await outcome_of(here, session, 1) == Confirmed(1, 1)
    session["user"] = "lee"
    assert await outcome_of(here, session, "all") == Degraded(1, 1)
    await eventually(lambda: "dead" in (here.states() | there.states()).values(), "it is dead", within_s=20)
    session["user"] = "max"
    assert await outcome_of(here, session, "all") == Confirmed(1, 1)


@in_world
async def test_a_link_that_breaks_is_dialed_again_and_loses_no_write(world):
    """Routers forget connections; the process behind is well."""
    here, there = await world.cluster(2)
    for connection in here.transport.connections:
        connection.reset()
    session = await here.committed(0, user="kim")
    await all_linked(here, there)
    await eventually(lambda: session.record.sid in there.service.node.records, "it has come")


@in_world
async def test_a_timer_far_in_the_future_keeps_nobody_from_sleeping_or_waking(world):
    """No deadline at all is infinity to the pump."""
    node = world.start()
    await trio.sleep(1)
    node.service.node.take()
    node.driver._due_s = node.driver._asleep_until_s = math.inf
    future: Future = Future()
    with node.service.node.locked() as replica:
        replica.outbox.append(Settle(future.set_result, Confirmed(0, 0)))
    node.driver._tell(())
    assert future.done()
    await trio.sleep(500)
    await goes_on(world, node)


@in_world
async def test_a_waiter_that_raises_costs_its_own_request_and_no_other(world, caplog):
    """Waits end in the node's thread: a failure there would end replication for the whole process."""
    here, there = await world.cluster(2)

    def fails(outcome):
        raise RuntimeError("planted by a test")

    future: Future = Future()
    with here.service.node.locked() as replica:
        replica.outbox += [Settle(fails, Confirmed(0, 0)), Settle(future.set_result, Confirmed(1, 1))]
    here.driver._tell(())
    assert future.result(0) == Confirmed(1, 1)
    assert "planted by a test" in caplog.text
    await goes_on(world, here, there)


@in_world
async def test_a_waiter_that_raises_at_the_end_leaves_no_other_waiting(world):
    """The same among the waits that a crash ends."""
    node = world.start()
    await trio.sleep(0.001)

    def fails(outcome):
        raise RuntimeError("planted by a test")

    future: Future = Future()
    with node.service.node.locked() as replica:
        replica.outbox += [Settle(fails, Confirmed(0, 0)), Settle(future.set_result, Confirmed(1, 1))]
    node.kill()
    await node.over.wait()
    assert future.result(0) == Confirmed(1, 1)


def breaks(node, kind: str) -> None:
    """Let a node raise whenever it is to carry out an effect, or to send a message, of that kind."""
    perform = node.driver._perform

    def broken(effect):
        if kind in (type(effect).__name__, type(getattr(effect, "message", None)).__name__):
            raise RuntimeError("planted by a test")
        perform(effect)

    node.driver._perform = broken


@pytest.mark.parametrize("kind", ["Push", "PushAck", "Ping", "Dial", "Hello", "MemberChanged", "Pull", "SyncAsk"])
@in_world
async def test_whatever_fails_in_the_machine_every_wait_ends_and_the_node_closes_its_links(world, kind):
    """Which task met the failure is chance; a link left open would tell the others that all is well."""
    here, there = await world.cluster(2)
    before = await here.committed("all", user="kim")
    breaks(here, kind)
    results = []

    async def write():
        for _ in range(3):
            session = here.store.create()
            session["cart"] = ["book"]
            results.append(await outcome_of(here, session, 1))

    async def miss():
        try:
            results.append(await here.loaded("0" * 32))
        except SessionUnavailable:
            results.append("unavailable")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        nursery.start_soon(miss)
        nursery.start_soon(partial(there.committed, 1, user="lee"))
        await trio.sleep(0.3)
        for connection in there.transport.connections:
            connection.reset()
        world.start(static(here))
    with trio.fail_after(60):
        await here.over.wait()
    assert str(here.failure) == "planted by a test"
    assert len(results) == 4
    assert not here.open_connections()
    assert (await here.loaded(before.cookie))["user"] == "kim"
    await eventually(lambda: there.states()[here.address[0]] == "dead", "the other knows", within_s=1)


@in_world
async def test_effects_taken_before_a_failure_are_settled_after_it(world):
    """Taken from the node and not carried out, they would leave their requests waiting for ever."""
    node = world.start()
    await trio.sleep(0.1)
    breaks(node, "Warn")
    futures = [Future() for _ in range(3)]
    with node.service.node.locked() as replica:
        replica.outbox += [Settle(futures[0].set_result, Confirmed(1, 1)), Warn("this one fails")]
        replica.outbox += [Settle(future.set_result, Degraded(0, 0)) for future in futures[1:]]
    node.driver._tell(())
    with trio.fail_after(0.001):  # and not with the next deadline
        await node.over.wait()
    assert [future.result(0) for future in futures] == [Confirmed(1, 1), Degraded(0, 0), Degraded(0, 0)]


@in_world
async def test_a_driver_that_never_ran_ends_every_wait_too(world):
    """Out of descriptors no Trio loop comes up; the process must serve nevertheless."""
    node = ShellNode(world.fabric, 1)
    node.driver.end()
    node.driver.end()
    assert not world.fabric.listening
    session = await node.committed(1, user="kim")
    assert (await node.loaded(session.cookie))["user"] == "kim"
