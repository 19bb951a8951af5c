"""Nodes find each other by seeds and by multicast, and nobody else finds them."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator

import dns.asyncbackend
import dns.asyncresolver
import dns.message
import dns.rrset
import pytest
import trio

from gossipsess.errors import ConfigError
from gossipsess.model.member import Address, Name
from gossipsess.runtime.resolver import look_up
from gossipsess.runtime.sockets import bind
from tests.network.nodes import (
    alive,
    all_linked,
    committed,
    eventually,
    loaded,
    multicast_group,
    rejected,
    settings,
    static,
)
from tests.ports import free_range


def test_nodes_that_know_one_seed_come_to_know_each_other(start):
    """One address in the settings is enough for any number of nodes."""
    seed = start()
    others = [start(discovery=static(seed)) for _ in range(3)]
    all_linked(seed, *others)


def test_nodes_on_one_multicast_group_find_each_other(start):
    """The default needs no setting at all."""
    group = multicast_group()
    nodes = [start(discovery=group) for _ in range(3)]
    all_linked(*nodes)


def test_two_clusters_on_one_multicast_group_do_not_mix(start):
    """Staging and production of one office share a network, and sometimes a group."""
    group = multicast_group()
    shop = [start(discovery=group, cluster="shop") for _ in range(2)]
    blog = [start(discovery=group, cluster="blog") for _ in range(2)]
    all_linked(*shop)
    all_linked(*blog)
    for node in (*shop, *blog):
        eventually(lambda node=node: rejected(node)["StrangerError"], "the other's beacons are heard and refused")
        assert len(node.status().members) == 1
    session = committed(shop[0], confirm="all", user="kim")
    assert loaded(shop[1], session.cookie) is not None
    assert all(session.record.sid not in node.node.records for node in blog)


@pytest.mark.parametrize(
    "changes", [{"secret": "another-horse-battery"}, {"cluster": "another"}], ids=["secret", "cluster"]
)
def test_a_stranger_that_dials_is_counted_and_becomes_no_member(start, changes):
    """A wrong secret is a mistake of every second deployment; it must be visible, and harmless."""
    node = start()
    stranger = start(discovery=static(node), **changes)
    eventually(lambda: rejected(node) and rejected(stranger), "both sides count a refusal")
    assert not node.status().members
    assert not stranger.status().members
    assert node.status().running
    friend = start(discovery=static(node))
    all_linked(node, friend)


def test_a_former_secret_is_accepted_while_a_new_one_is_rolled_out(start):
    """Otherwise changing the secret would log everybody out, or take the whole cluster down at once."""
    old = start(secret_fallbacks=("tomorrows-horse-battery",))
    new = start(secret="tomorrows-horse-battery", secret_fallbacks=(old.config.secret,), discovery=static(old))
    all_linked(old, new)
    session = committed(old, confirm="all", user="kim")
    assert loaded(new, session.cookie)["user"] == "kim"


def test_several_nodes_of_one_machine_take_the_next_free_ports(start):
    """Four workers of one server share one setting."""
    first = start()
    port = first.sockets.port
    try:
        others = [start(port=port, port_range=4) for _ in range(2)]
    except ConfigError:
        pytest.skip("another process took the ports behind the first node's")
    ports = [node.sockets.port for node in (first, *others)]
    assert len(set(ports)) == 3
    assert all(port <= taken < port + 4 for taken in ports)


def test_no_free_port_is_a_config_error_that_names_the_setting(start):
    """The process says so at its start, and not by a cluster that never forms."""
    taken = start().sockets.port
    with pytest.raises(ConfigError, match="port_range"):
        start(port=taken, port_range=1)


def test_an_address_of_another_machine_is_a_config_error(start):
    """A copied setting, usually."""
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1"):
        start(bind="192.0.2.1")


def test_a_node_that_comes_back_at_a_seeds_address_is_found_again(start):
    """A restart in place: the seed's address is all that the others know of it."""
    seed = start()
    other = start(discovery=static(seed))
    all_linked(seed, other)
    port = seed.sockets.port
    seed.close()
    eventually(lambda: alive(other) == 0, "the seed is gone")
    again = start(port=port, port_range=1)
    all_linked(again, other)


def test_a_node_that_meets_nobody_is_ready_after_two_seconds(start):
    """The first node of a deployment must not wait for others for ever, nor claim to know all at once."""
    started_s = time.monotonic()
    node = start(discovery="static://127.0.0.1:9")
    assert not node.synced
    assert node.wait_ready(10)
    assert time.monotonic() - started_s > 1.9


def test_a_node_that_looks_for_nobody_is_ready_at_once(start):
    """Whoever runs one process only should not pay two seconds at every start."""
    node = start()
    assert node.wait_ready(1.0)
    assert node.config == settings()


async def test_a_socket_for_both_versions_of_ip_speaks_to_either_under_its_own_address():
    """Members are known by address: under ::ffff:127.0.0.1 a node of IPv4 would be another one."""
    sockets = bind("::", 0, 1, None)
    transport = sockets.transport()
    plain = [bind(address, 0, 1, None).transport() for address in ("127.0.0.1", "::1")]
    try:
        for address, other in zip(("127.0.0.1", "::1"), plain, strict=True):
            [receive] = other.receivers
            port = other._udp.getsockname()[1]
            transport.send_to(b"there", (address, port))
            data, (host, port) = await receive()
            assert (data, host) == (b"there", address)
            other.send_to(b"back", (address, sockets.port))
            data, (host, _) = await transport.receivers[0]()
            assert (data, host) == (b"back", address)
            dialed = await other.connect((address, sockets.port))
            accepted = await transport.accept()
            assert (accepted.host, dialed.host) == (address, address)
    finally:
        for one in (transport, *plain):
            one.close()


def test_addresses_are_told_as_sockets_write_them(start):
    """An IPv6 address can be written in many ways. In another one a node would dial itself, and find no peer by it."""
    long = "0:0:0:0:0:0:0:1"
    first = start(bind=long)
    second = start(bind="::1", advertise=long, discovery=f"static://[{long}]:{first.status().address[1]}")
    all_linked(first, second)
    for node in (first, second):
        assert node.status().address[0] == node.status().members[0].address[0] == "::1"


async def test_a_name_is_looked_up_as_the_machine_does_it():
    """The hosts file is part of that: a stack in containers often has nothing else."""
    name = Name("dns", "localhost", 7950, 16)
    assert ("127.0.0.1", 7950) in await look_up(name, socket.AF_INET)
    assert all(":" in address for address, _ in await look_up_or_nothing(name, socket.AF_INET6))


@pytest.mark.parametrize("host", ["no-such-name.invalid", "a" * 64 + ".invalid"], ids=["unknown", "label too long"])
async def test_a_name_that_is_not_known_is_an_error_of_the_moment(host):
    """It is asked for again a little later, and must not end the node."""
    with pytest.raises(OSError):  # noqa: PT011  # its text is the system's
        await look_up(Name("dns", host, 7950, 16), socket.AF_INET)


SERVICE = Name("srv", "_gossip._tcp.shop.example", 0, 1)


@pytest.fixture
def records(monkeypatch) -> Iterator[list[str]]:
    """SRV records, which a name server on loopback gives to everybody who asks by dnspython's default."""
    records: list[str] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers, resolver.port = ["127.0.0.1"], server.getsockname()[1]
        monkeypatch.setattr(dns.asyncresolver, "default_resolver", resolver)
        monkeypatch.setattr(dns.asyncbackend, "_default_backend", None)

        def serve() -> None:
            while data := (received := server.recvfrom(4096))[0]:
                query = dns.message.from_wire(data)
                response = dns.message.make_response(query)
                response.answer.append(dns.rrset.from_text(query.question[0].name, 0, "IN", "SRV", *records))
                server.sendto(response.to_wire(), received[1])

        serving = threading.Thread(target=serve, daemon=True)
        serving.start()
        yield records
        server.sendto(b"", server.getsockname())
        serving.join()


async def test_records_with_ports_name_all_whose_target_is_there(records):
    """Of a StatefulSet's pods one is always just gone, and the cache does not know it yet."""
    records[:] = ["0 0 7951 localhost.", "0 0 7950 gone.invalid.", "0 0 0 localhost.", "0 0 7950 ."]
    assert await look_up(SERVICE, socket.AF_INET) == (("127.0.0.1", 7951),)
    records[:] = ["0 0 7950 gone.invalid."]
    with pytest.raises(OSError):  # noqa: PT011  # its text is the system's
        await look_up(SERVICE, socket.AF_INET)


@pytest.mark.parametrize("first", ["application", "node"])
def test_a_node_and_an_asyncio_application_ask_by_one_package_and_do_not_meet(records, first):
    """Dnspython takes whose loop it meets first for the whole process's; then one of the two could not ask any more."""
    records[:] = ["0 0 7951 localhost."]

    async def application() -> str:
        return (await dns.asyncresolver.resolve("_http._tcp.app.example", "SRV"))[0].to_text()

    def asks() -> None:
        assert asyncio.run(application()) == "0 0 7951 localhost."

    if first == "application":
        asks()
    assert trio.run(look_up, SERVICE, socket.AF_INET) == (("127.0.0.1", 7951),)
    if first == "node":
        asks()


async def look_up_or_nothing(name: Name, family: socket.AddressFamily) -> tuple[Address, ...]:
    try:
        return await look_up(name, family)
    except OSError:
        return ()


def test_nodes_find_each_other_by_a_name_at_any_port_of_its_range(start):
    """Workers of one machine take the next free port; a record tells the address alone."""
    first = free_range(8)
    nodes = [start(discovery=f"dns://localhost:{first}", port=first, port_range=8) for _ in range(3)]
    all_linked(*nodes)
    assert len({node.status().address[1] for node in nodes}) == 3


def test_strangers_behind_one_name_never_mix_and_each_log_says_so_once(start, caplog):
    """Two apps of one host network, or a secret that was rolled out to half of the pods."""
    first = free_range(8)
    settings_of = {"discovery": f"dns://localhost:{first}", "port": first, "port_range": 8}
    shop = [start(**settings_of) for _ in range(2)]
    blog = [start(**settings_of, cluster="blog") for _ in range(2)]
    all_linked(*shop)
    all_linked(*blog)
    for node in (*shop, *blog):
        eventually(lambda node=node: rejected(node)["StrangerError"], "each has met a stranger")
        assert len(node.status().members) == 1
    said = [record.message for record in caplog.records if "never mix" in record.message]
    assert len(said) == 4
    assert all("a node at 127.0.0.1 has another secret or is of another cluster" in text for text in said)
    assert all("GOSSIPSESS_CLUSTER and GOSSIPSESS_SECRET" in text for text in said)


def test_who_serves_beside_a_stranger_at_a_named_address_is_found(start):
    """Two clusters of one host network: the other has the first port, and a record tells of no other."""
    first = free_range(8)
    start(port=first, port_range=8, cluster="blog")
    here = start(port=first, port_range=8)
    there = start(bind="127.0.0.2", discovery=f"dns://localhost:{first}", port_range=8)
    all_linked(here, there)
