"""Whatever comes in at a node's port, it is counted, dropped, and the node goes on."""

import os
import random

import pytest
import trio

from gossipsess.model.member import Member, MemberState, Told
from gossipsess.protocol.effects import CloseLink
from gossipsess.runtime import driver, links
from gossipsess.wire.codec import encode
from gossipsess.wire.crypto import GREETING_BYTES, RANDOM_BYTES, DatagramSealer, LinkHandshake
from gossipsess.wire.messages import Beacon, Hello, PingRequest, PullAnswer, PushAck
from tests.shell.fabric import BACKLOG, CAPACITY
from tests.shell.nodes import all_linked, eventually, goes_on, in_world, static

STRANGER = ("10.0.0.99", 7950)
NODE_ID = b"stranger"


async def read_to_end(connection) -> bytes:
    data = b""
    while True:
        await connection.readable()
        try:
            more = connection.receive(CAPACITY)
        except BlockingIOError:
            continue
        except OSError:
            return data
        if not more:
            return data
        data += more


async def send(connection, data: bytes) -> None:
    """Send as much of it as the node reads."""
    with trio.move_on_after(links.GREETING_TIMEOUT_S + 1):
        while data:
            await connection.writable()
            try:
                data = data[connection.send(data) :]
            except BlockingIOError:
                continue
            except OSError:
                return


async def closed_within(connection, within_s: float) -> None:
    with trio.fail_after(within_s):
        await read_to_end(connection)


def handshake_of(node) -> LinkHandshake:
    return LinkHandshake(node.service.keyring, NODE_ID, bytes(RANDOM_BYTES), dialer=True)


async def member_link(world, node):
    """Return a connection on which the handshake is done, and its sealer: a peer with the secret, gone wrong."""
    connection = await world.fabric.connect(node.address)
    handshake = handshake_of(node)
    connection.send(handshake.greeting)
    greeting = b""
    while len(greeting) < GREETING_BYTES:
        await connection.readable()
        greeting += connection.receive(GREETING_BYTES - len(greeting))
    keys = handshake.receive_untrusted(greeting)
    connection.send(keys.sealer.seal(b""))
    await eventually(lambda: node.driver._links, "the link stands")
    return connection, keys.sealer


OPENINGS = {
    "nothing": lambda node: b"",
    "http": lambda node: b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n" * 20,
    "random": lambda node: random.Random(1).randbytes(4 * CAPACITY),
    "half a greeting": lambda node: handshake_of(node).greeting[:-1],
    "a greeting": lambda node: handshake_of(node).greeting,
    "no proof": lambda node: handshake_of(node).greeting + bytes(21),
    "an endless frame": lambda node: handshake_of(node).greeting + b"\xff" * 4 * CAPACITY,
    "its own greeting": lambda node: (
        LinkHandshake(node.service.keyring, node.id, bytes(RANDOM_BYTES), dialer=True).greeting
    ),
}


@pytest.mark.parametrize("opening", OPENINGS)
@pytest.mark.parametrize("end", ["waits", "closes", "resets"])
@in_world
async def test_a_stream_that_proves_nothing_is_closed_in_time_and_counted(world, opening, end):
    """A port takes what anybody sends, and each connection must free its place again."""
    node = world.start()
    stranger = await world.fabric.connect(node.address)
    await send(stranger, OPENINGS[opening](node))
    if end == "waits":
        await closed_within(stranger, links.GREETING_TIMEOUT_S + 0.1)
    elif end == "closes":
        stranger.close()
    else:
        stranger.reset()
    await eventually(lambda: not node.driver._handshakes and node.driver.rejected, "its place is free again")
    assert not node.driver._links
    await goes_on(world, node)


@in_world
async def test_strangers_beyond_the_bound_are_turned_away_and_those_within_free_their_places(world):
    """Else any machine in reach could take all of a node's memory, or keep its peers out for good."""
    node = world.start()
    strangers = [await world.fabric.connect(node.address) for _ in range(driver.HANDSHAKES_MAX + 20)]
    await eventually(lambda: node.driver.rejected["busy"] == 20, "those over the bound are turned away")
    assert node.driver._handshakes == driver.HANDSHAKES_MAX
    assert sum(stranger.outward.unread for stranger in strangers) == 20
    friend = world.start(static(node))
    await all_linked(node, friend)


@in_world
async def test_a_paused_peer_finds_one_connection_of_each_node_however_long_it_slept(world):
    """Its kernel accepts meanwhile; a crowd of stale connections would take the places of the live ones."""
    here, there = await world.cluster(2)
    del world.fabric.listening[there.address]
    stopped = there.transport.__class__(world.fabric, there.address)  # a kernel without a process
    for connection in there.transport.connections:
        connection.reset()
    await trio.sleep(driver.DIAL_TIMEOUT_S - 0.1)
    assert stopped.backlog.statistics().current_buffer_used == 1
    await trio.sleep(5 * driver.DIAL_TIMEOUT_S)
    waiting = []
    while stopped.backlog.statistics().current_buffer_used:
        waiting.append(await stopped.backlog.receive())
    assert sum(not one.inward.ended for one in waiting) <= 1, "those given up were closed"
    assert here.failure is None


SEALED = {
    "random bytes": lambda sealer: random.Random(1).randbytes(4096),
    "an over-long frame": lambda sealer: b"\xff\xff\xff\xff",
    "sealed garbage": lambda sealer: sealer.seal(random.Random(1).randbytes(50)),
    "a damaged frame": lambda sealer: sealer.seal(encode(PushAck(1)))[:-1] + b"\0",
    "a repeated frame": lambda sealer: sealer.seal(encode(PushAck(1))) * 2,
}


@pytest.mark.parametrize("wrong", SEALED)
@in_world
async def test_a_peer_with_the_secret_that_goes_wrong_loses_its_link_and_nothing_else(world, wrong):
    """A member of another version, or with broken memory, must not take its peers along."""
    node = world.start()
    stranger, sealer = await member_link(world, node)
    await send(stranger, SEALED[wrong](sealer))
    await closed_within(stranger, 0.1)
    assert set(node.driver.rejected) <= {"SealError", "DecodeError"}
    assert node.driver.rejected.total() == 1
    assert not node.driver._links
    await goes_on(world, node)


@pytest.mark.parametrize("raised", [RecursionError, MemoryError, AssertionError, ValueError])
@in_world
async def test_a_decoder_that_fails_in_a_way_nobody_thought_of_costs_a_link_and_not_the_node(
    world, raised, monkeypatch
):
    """One message, sent on by every member, would end replication everywhere."""
    here, there = await world.cluster(2)

    def fails(body):
        monkeypatch.undo()
        raise raised("planted by a test")

    monkeypatch.setattr(links, "decode_untrusted", fails)
    await here.committed(1, user="kim")
    await all_linked(here, there)
    assert (here.driver.rejected + there.driver.rejected)[raised.__name__] == 1
    await goes_on(world, here, there)


@in_world
async def test_a_datagram_on_which_the_decoder_fails_unforeseen_is_dropped(world, monkeypatch):
    """Who holds the secret needs a single packet for it."""
    here, there = await world.cluster(2)

    def fails(body):
        monkeypatch.undo()
        raise RecursionError("planted by a test")

    monkeypatch.setattr(driver, "decode_untrusted", fails)
    await trio.sleep(2)
    assert (here.driver.rejected + there.driver.rejected)["RecursionError"] == 1
    await goes_on(world, here, there)


@pytest.mark.parametrize("host", ["fe80::1%" + "a" * 70, "::1"])
@in_world
async def test_an_address_that_no_socket_takes_is_a_datagram_unsent(world, host):
    """Members name addresses for others to ping; each of these is an IP address to Python, and some no socket takes."""
    node = world.start()
    sealer = DatagramSealer(node.service.keyring.primary, NODE_ID)
    stranger, link = await member_link(world, node)
    me = Member(NODE_ID, 0, MemberState.ALIVE, STRANGER, "stranger", "stranger")
    bad = Member(b"bad-host", 0, MemberState.ALIVE, (host, 7950), "bad", "bad")
    hello = Hello(me, int(trio.current_time() * 1000) << 16, (Told(bad),))
    await send(stranger, link.seal(encode(hello)))
    await eventually(lambda: STRANGER[0] in node.states(), "it is a member")
    asked = PingRequest(1, b"bad-host", (host, 7950), ())
    node.transport.arrived(sealer.seal(encode(asked)), STRANGER)
    await eventually(lambda: node.driver.rejected["unsent"], "it could not be sent")
    await trio.sleep(5)
    await goes_on(world, node)


@in_world
async def test_a_flood_of_datagrams_leaves_the_other_tasks_their_turn(world):
    """Requests wait for confirmations behind the same loop."""
    here, there = await world.cluster(2)
    garbage = os.urandom(100)

    async def flood():
        while True:
            for _ in range(500):
                here.transport.arrived(garbage, STRANGER)
            await trio.sleep(0.001)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flood)
        for _ in range(20):
            await here.committed(1, user="kim")
            await there.committed(1, user="lee")
        nursery.cancel_scope.cancel()
    assert here.driver.rejected.total() > 100
    assert here.transport.dropped > 0
    await goes_on(world, here, there)


@in_world
async def test_beacons_from_everywhere_are_dialed_within_bounds(world):
    """Whoever has the secret may name any machine as a place where a node is to be found."""
    node = world.start("multicast://239.255.79.50:7949")
    for number in range(500):
        sealer = DatagramSealer(node.service.keyring.primary, (2**64 - 1 - number).to_bytes(8, "big"))
        address = (f"10.1.{number // 250}.{number % 250}", 7950)
        world.fabric.silent[address] = None
        node.transport.arrived(sealer.seal(encode(Beacon(7950, False))), address)
        await trio.sleep(0.001)
    assert 0 < len(node.driver._dialing) <= BACKLOG
    await goes_on(world, node)


@pytest.mark.parametrize("error", [ConnectionResetError(), OSError("no network"), TimeoutError()])
@in_world
async def test_sockets_that_fail_for_a_while_are_waited_out(world, error):
    """Out of descriptors, a network interface that goes: neither may end the node, nor keep a core busy."""
    here, there = await world.cluster(2)
    here.transport.failures += [error] * 5
    await eventually(lambda: not here.transport.failures, "each was met")
    await goes_on(world, here, there)


@in_world
async def test_a_peer_that_asks_and_does_not_read_loses_its_link(world):
    """What is queued for it would grow for ever."""
    node = world.start()
    await member_link(world, node)
    number, link = next(iter(node.driver._links.items()))
    answer = PullAnswer(1, True, True)
    for _ in range(3 * links.QUEUE_MESSAGES_MAX):
        for _ in range(10):
            link.send(answer)
        link.flush()
        assert len(link._queue) <= links.QUEUE_MESSAGES_MAX
    await eventually(lambda: number not in node.driver._links, "its link is closed")
    await goes_on(world, node)


@in_world
async def test_a_link_that_is_to_be_closed_does_not_wait_for_ever_for_its_peer_to_read(world):
    """A refused node that trickles would keep its place."""
    node = world.start()
    await member_link(world, node)
    number, link = next(iter(node.driver._links.items()))
    while not link._unsent:
        link.send(PullAnswer(1, True, True))
        link.flush()
    node.driver._perform(CloseLink(number))
    link.flush()
    await trio.sleep(links.CLOSE_S - 0.1)
    assert number in node.driver._links
    await eventually(lambda: number not in node.driver._links, "it is closed", within_s=0.2)
    await goes_on(world, node)


@in_world
async def test_what_waited_for_a_slow_reader_leaves_as_soon_as_it_reads(world):
    """Not with the next message: on a quiet node that may be half a second off."""
    node = world.start()
    stranger, _ = await member_link(world, node)
    link = next(iter(node.driver._links.values()))
    while not link._unsent:
        link.send(PullAnswer(1, True, True))
        link.flush()
    link.send(PullAnswer(2, True, True))
    link.flush()
    assert link._queue
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_to_end, stranger)
        await eventually(lambda: link.is_idle, "all has left", within_s=0.02)
        nursery.cancel_scope.cancel()


@in_world
async def test_what_is_queued_for_a_slow_reader_arrives_whole_and_in_order(world):
    """Bytes that the kernel did not take at once wait for a task; none may be lost or overtaken."""
    here, there = await world.cluster(2)
    for connection in there.transport.connections:
        connection.reads_nothing = True
    sessions = [await here.committed(0, cart=number.to_bytes(2, "big") * 20_000) for number in range(20)]
    await trio.sleep(0.2)
    assert any(link._unsent for link in here.driver._links.values())
    for connection in there.transport.connections:
        connection.reads_nothing = False
        connection.inward.touch()
    await eventually(lambda: all(s.record.sid in there.service.node.records for s in sessions), "all have come")
    assert not here.driver.rejected
    assert not there.driver.rejected
