"""Strangers at both ports: what they send is counted and dropped, and the node goes on."""

import os
import random
import socket
import struct
import time
import tracemalloc
from contextlib import ExitStack, suppress

import cbor2
import pytest

from gossipsess.model.member import Member, MemberState
from gossipsess.runtime import driver, links
from gossipsess.wire.codec import encode
from gossipsess.wire.crypto import (
    DATAGRAM_BYTES_MAX,
    GREETING_BYTES,
    RANDOM_BYTES,
    DatagramSealer,
    LinkHandshake,
)
from gossipsess.wire.messages import Gossip, PushAck
from tests.network.nodes import (
    WITHIN_S,
    all_linked,
    committed,
    driver_of,
    eventually,
    loaded,
    rejected,
    static,
)

MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def short_patience(monkeypatch):
    """The bound itself is a constant; what it bounds is tested."""
    monkeypatch.setattr(links, "GREETING_TIMEOUT_S", 0.4)


def connection(node) -> socket.socket:
    stranger = socket.create_connection(("127.0.0.1", node.sockets.port), timeout=WITHIN_S)
    stranger.settimeout(WITHIN_S)
    return stranger


def closed_after_s(stranger: socket.socket) -> float:
    """Return how long the node kept a connection, seconds."""
    started_s = time.monotonic()
    try:
        while stranger.recv(65536):
            pass
    except ConnectionError:
        pass
    return time.monotonic() - started_s


def send_all_it_takes(stranger: socket.socket, data: bytes) -> None:
    with suppress(ConnectionError):
        stranger.sendall(data)


def greeting_of_a_member(node) -> tuple[LinkHandshake, bytes]:
    """Return one side of a handshake made with the right secret, and its greeting."""
    handshake = LinkHandshake(node.keyring, os.urandom(8), os.urandom(RANDOM_BYTES), dialer=True)
    return handshake, handshake.greeting


def exactly(stranger: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += stranger.recv(size - len(data))
    return data


def member_link(node, stack: ExitStack):
    """Return a socket on which the handshake is done, and its sealer: a peer with the secret, gone wrong."""
    stranger = stack.enter_context(connection(node))
    handshake, greeting = greeting_of_a_member(node)
    stranger.sendall(greeting)
    keys = handshake.receive_untrusted(exactly(stranger, GREETING_BYTES))
    stranger.sendall(keys.sealer.seal(b""))
    eventually(lambda: driver_of(node)._links, "the link stands")
    return stranger, keys.sealer


def goes_on(node, start) -> None:
    """The node serves what it has, and a real peer can join."""
    session = committed(node, confirm=0, user="kim")
    friend = start(discovery=static(node))
    all_linked(node, friend)
    assert loaded(friend, session.cookie)["user"] == "kim"


def datagrams(rng: random.Random, node) -> dict[str, list[bytes]]:
    sealer = DatagramSealer(node.keyring.primary, b"stranger")
    sealed = sealer.seal(encode(Gossip(())))
    return {
        "random": [rng.randbytes(rng.randrange(0, DATAGRAM_BYTES_MAX)) for _ in range(200)],
        "truncated": [sealed[:size] for size in range(len(sealed))],
        "damaged": [sealed[:i] + bytes([sealed[i] ^ 1]) + sealed[i + 1 :] for i in range(len(sealed))],
        "too long": [rng.randbytes(60_000), sealed + bytes(DATAGRAM_BYTES_MAX)],
        "sealed garbage": [sealer.seal(rng.randbytes(100)) for _ in range(50)],
    }


def test_hostile_datagrams_are_counted_and_change_nothing(start):
    """A UDP port takes what anybody sends; one exception there would stop the replication of the process."""
    node = start()
    session = committed(node, confirm=0, user="kim")
    before = node.status()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for name, several in datagrams(random.Random(1), node).items():
            for number, data in enumerate(several):
                counted = sum(rejected(node).values())
                stranger.sendto(data, ("127.0.0.1", node.sockets.port))
                eventually(
                    lambda counted=counted: sum(rejected(node).values()) == counted + 1,
                    f"{name} datagram {number} is counted",
                )
    assert rejected(node)["DecodeError"] == 50, "what was sealed with the secret fails only at its meaning"
    assert node.status().members == before.members == ()
    assert node.status().sessions == before.sessions
    assert loaded(node, session.cookie)["user"] == "kim"
    goes_on(node, start)


def test_a_member_that_gossips_of_nobody_it_linked_with_is_not_believed(start):
    """Membership is entered by a link alone; else a datagram recorded long ago would be a way in."""
    node = start()
    invented = Member(b"invented", 0, MemberState.ALIVE, ("127.0.0.1", 9), "invented", "invented")
    datagram = DatagramSealer(node.keyring.primary, b"stranger").seal(encode(Gossip((invented,))))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(datagram, ("127.0.0.1", node.sockets.port))
        stranger.sendto(b"and one that is counted", ("127.0.0.1", node.sockets.port))
    eventually(lambda: rejected(node)["SealError"], "both datagrams have been read")
    assert node.status().members == ()


@pytest.mark.parametrize(
    "opening",
    [
        pytest.param(lambda node: b"", id="silent"),
        pytest.param(lambda node: b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n" * 20, id="http"),
        pytest.param(lambda node: os.urandom(4 * MIB), id="random"),
        pytest.param(lambda node: greeting_of_a_member(node)[1][:-1], id="half a greeting"),
        pytest.param(lambda node: greeting_of_a_member(node)[1], id="greeting alone"),
        pytest.param(lambda node: greeting_of_a_member(node)[1] + bytes(21), id="greeting, no proof"),
        pytest.param(lambda node: greeting_of_a_member(node)[1] + b"\xff" * 4 * MIB, id="greeting, endless frame"),
    ],
)
def test_a_stream_that_proves_nothing_is_closed_in_time(start, opening):
    """Whatever a stranger's connection says or leaves out, it is gone within the greeting's bound."""
    node = start()
    before = node.status()
    data = opening(node)
    tracemalloc.start()
    try:
        with connection(node) as stranger:
            send_all_it_takes(stranger, data)
            assert closed_after_s(stranger) < links.GREETING_TIMEOUT_S + 1.0
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * MIB, "nothing beyond the greeting is read before it is proved"
    eventually(lambda: rejected(node), "it is counted")
    assert not driver_of(node)._links
    eventually(lambda: not driver_of(node)._handshakes, "its place is free again")
    assert node.status().members == before.members == ()
    goes_on(node, start)


def test_a_connection_that_is_reset_at_once_does_no_harm(start):
    """Port scanners do this all day."""
    node = start()
    for _ in range(20):
        with connection(node) as stranger:
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    goes_on(node, start)


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda sealer: os.urandom(4096), id="random bytes"),
        pytest.param(lambda sealer: b"\xff\xff\xff\xff", id="over-long frame"),
        pytest.param(lambda sealer: sealer.seal(b"\xff" + os.urandom(49)), id="sealed garbage"),
        pytest.param(lambda sealer: sealer.seal(encode(PushAck(1)))[:-1] + b"\0", id="damaged frame"),
        pytest.param(lambda sealer: sealer.seal(encode(PushAck(1))) * 2, id="repeated frame"),
    ],
)
def test_a_peer_with_the_secret_that_goes_wrong_loses_its_link_and_nothing_else(start, wrong):
    """A member of another version, or with a broken disk, must not take its peers along."""
    node = start()
    with ExitStack() as stack:
        stranger, sealer = member_link(node, stack)
        counted = sum(rejected(node).values())
        send_all_it_takes(stranger, wrong(sealer))
        closed_after_s(stranger)
        eventually(lambda: sum(rejected(node).values()) > counted, "it is counted")
        eventually(lambda: not driver_of(node)._links, "the link is gone")
    assert set(rejected(node)) <= {"SealError", "DecodeError"}
    goes_on(node, start)


def test_what_only_a_newer_version_says_is_counted_and_costs_no_link(start):
    """While a cluster is updated node by node, the old ones hear of things they do not know."""
    node = start()
    unknown, longer = cbor2.dumps([99, "new"]), cbor2.dumps([*cbor2.loads(encode(PushAck(1))), "new"])
    with ExitStack() as stack:
        stranger, sealer = member_link(node, stack)
        stranger.sendall(sealer.seal(unknown) + sealer.seal(longer) + sealer.seal(unknown))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as talker:
            datagram = DatagramSealer(node.keyring.primary, b"stranger").seal(unknown)
            talker.sendto(datagram, ("127.0.0.1", node.sockets.port))
        eventually(lambda: rejected(node) == {driver.UNKNOWN_KIND: 3}, "each is counted, and nothing else is")
        assert driver_of(node)._links
        goes_on(node, start)


def test_a_peer_of_no_common_version_is_refused_and_logged_once(start, caplog):
    """It dials again and again; whoever updates two versions at once must read why, and only once."""
    node = start()
    for counted in (1, 2):
        with connection(node) as stranger:
            greeting = bytearray(greeting_of_a_member(node)[1])
            greeting[4] = greeting[5] = 200
            stranger.sendall(greeting)
            closed_after_s(stranger)
        eventually(lambda counted=counted: rejected(node)["VersionError"] == counted, "it is counted")
    said = [text for text in caplog.messages if "no version in common" in text]
    assert len(said) == 1, said
    goes_on(node, start)


def test_messages_without_a_hello_are_ignored(start):
    """Who has not said which member it is has no record whose claims could be weighed."""
    node = start()
    session = committed(node, confirm=0, user="kim")
    with ExitStack() as stack:
        stranger, sealer = member_link(node, stack)
        stranger.sendall(sealer.seal(encode(PushAck(1))) + sealer.seal(encode(Gossip(()))))
        stranger.sendall(b"\xff\xff\xff\xff")
        closed_after_s(stranger)
    assert loaded(node, session.cookie)["user"] == "kim"
    goes_on(node, start)


def test_silent_connections_are_bounded_and_free_the_way_when_they_end(start, monkeypatch):
    """They cost a stranger nothing; while they last, further ones are closed unread and members go on."""
    monkeypatch.setattr(links, "GREETING_TIMEOUT_S", 2.0)
    node = start()
    with ExitStack() as stack:
        for _ in range(driver.HANDSHAKES_MAX):
            stack.enter_context(connection(node))
        # One more with each look: on a slow machine the first ones may have timed out before the last has come.
        eventually(
            lambda: rejected(node)["busy"] or not stack.enter_context(connection(node)),
            "those over the bound are turned away",
        )
        assert driver_of(node)._handshakes <= driver.HANDSHAKES_MAX
        friend = start(discovery=static(node))
    all_linked(node, friend)
