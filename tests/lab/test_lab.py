# The lab itself: a fault that it does not make, or makes to others, would prove nothing of the product.

import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import trio

from ..e2e.harness import ScenarioError
from .dns import Dns
from .front import APP_PORT, Front
from .lab import needs_lab, open_lab
from .network import Network, inside, inside_command, open_network

pytestmark = needs_lab

GROUP = "239.255.79.50"
PORT = 7949
HEARD_S = 1.0
"""A packet on one machine takes microseconds, and a machine may be busy; for so long nobody hears what is dropped."""


class Host:
    """A namespace with a UDP socket that hears the multicast group."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address
        with inside(name):
            self._socket = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
            group = trio.socket.inet_aton(GROUP) + trio.socket.inet_aton(address)
            self._socket.setsockopt(trio.socket.IPPROTO_IP, trio.socket.IP_ADD_MEMBERSHIP, group)

    async def bind(self) -> None:
        await self._socket.bind(("0.0.0.0", PORT))

    async def send(self, to: str) -> None:
        await self._socket.sendto(self.address.encode(), (to, PORT))

    async def hears(self, other: "Host", to: str | None = None) -> bool:
        """Say whether what another one sends comes here."""
        await other.send(to or self.address)
        with trio.move_on_after(HEARD_S):
            while (await self._socket.recvfrom(100))[0] != other.address.encode():
                pass
            return True
        return False

    async def connects(self, other: "Host") -> bool:
        """Say whether a TCP connection comes about: refused is an answer too."""
        with inside(self.name):
            connection = trio.socket.socket()
        with connection, trio.move_on_after(HEARD_S):
            with contextlib.suppress(ConnectionRefusedError):
                await connection.connect((other.address, PORT))
            return True
        return False

    def close(self) -> None:
        self._socket.close()


@contextlib.asynccontextmanager
async def hosts(network: Network, count: int) -> AsyncIterator[list[Host]]:
    """Give so many pods' namespaces."""
    made = []
    for _ in range(count):
        address = network.free_address()
        made.append(Host(await network.attach("host", address), address))
        await made[-1].bind()
    yield made
    for one in made:
        one.close()


async def test_cuts_are_as_wide_as_they_say_and_heal() -> None:
    """One way must stay open in a one-way cut, and those who are not named must notice nothing."""
    async with open_network() as network, hosts(network, 3) as (a, b, c):
        assert await a.hears(b)
        assert await b.hears(a)
        await network.cut([a.address], [b.address])
        assert not await b.hears(a)
        assert await a.hears(b)
        assert await c.hears(a)
        assert not await a.connects(b), "an answer does not come back"
        await network.part([a.address, b.address], [c.address])
        assert not await a.hears(c)
        assert not await c.hears(b)
        await network.heal()
        assert await b.hears(a)
        assert await c.hears(b)
        assert await a.connects(b)


async def test_multicast_is_dropped_alone_and_so_is_each_protocol() -> None:
    """A cloud drops multicast and nothing else; a firewall may let TCP through and no UDP, or the other way."""
    async with open_network() as network, hosts(network, 2) as (a, b):
        assert await a.hears(b, GROUP)
        network.faults.multicast = False
        await network.apply()
        assert not await a.hears(b, GROUP)
        assert await a.hears(b)
        assert await a.connects(b)
        network.faults.blocked = {"udp"}
        await network.apply()
        assert not await a.hears(b)
        assert await a.connects(b)
        network.faults.blocked = {"tcp"}
        await network.apply()
        assert await a.hears(b)
        assert not await a.connects(b)


async def test_loss_takes_its_share() -> None:
    """Neither none nor all."""
    async with open_network() as network, hosts(network, 2) as (a, b):
        network.faults.loss = 0.5
        await network.apply()
        for _ in range(200):
            await b.send(a.address)
        came = 0
        with trio.move_on_after(HEARD_S):
            while True:
                await a._socket.recvfrom(100)
                came += 1
        assert 50 < came < 150


async def test_an_address_is_reached_at_once_when_it_is_another_pods() -> None:
    """Pods get addresses of pods that are gone, and nobody waits for a neighbour table there."""
    async with open_network() as network, hosts(network, 2) as (a, b):
        assert await a.hears(b)
        b.close()
        await network.detach(b.name)
        successor = Host(await network.attach("successor", b.address), b.address)
        await successor.bind()
        assert await successor.hears(a)
        assert await a.hears(successor)
        successor.close()


def _looked_up(namespace: str, name: str) -> set[str]:
    done = subprocess.run(inside_command(namespace, ["getent", "ahosts", name]), capture_output=True, text=True)
    return {line.split()[0] for line in done.stdout.splitlines()}


async def test_names_are_told_as_they_are_after_the_lag(tmp_path: Path) -> None:
    """A name without an address is none (NXDOMAIN), and records come and go some time after the pods."""
    async with open_network() as network, trio.open_nursery() as nursery:
        dns = Dns(network, nursery, tmp_path)
        await dns.start()
        pod = await network.attach("pod", network.free_address(), dns.resolv_conf)
        look_up = partial(trio.to_thread.run_sync, _looked_up, pod, "shop")
        try:
            assert await look_up() == set()
            assert dns.log_tail().count("NXDOMAIN") >= 4, "with each suffix, and without one"
            await dns.set("shop", ["10.77.1.7"])
            assert await look_up() == {"10.77.1.7"}
            dns.lag_s = 1.0
            dns.add("shop", "10.77.1.8")
            dns.remove("shop", "10.77.1.7")
            await trio.sleep(0.3)
            assert await look_up() == {"10.77.1.7"}
            await trio.sleep(1.0)
            assert await look_up() == {"10.77.1.8"}
            assert dns.queries("shop") > 0
            dns.pause()
            with trio.move_on_after(0.5) as asking:
                await trio.to_thread.run_sync(_looked_up, pod, "shop", abandon_on_cancel=True)
            assert asking.cancelled_caught, "nobody answers meanwhile"
            dns.resume()
        finally:
            dns.close()
            nursery.cancel_scope.cancel()


async def test_the_front_repeats_reads_and_never_writes_and_says_who_was_cut(tmp_path: Path) -> None:
    """Clients must tell a write that may have been carried out from one that nobody got."""
    async with open_network() as network, trio.open_nursery() as nursery:
        dying, serving, absent = (network.free_address() for _ in range(3))
        served: list[bytes] = []

        async def die(stream: trio.SocketStream) -> None:
            await stream.receive_some()
            await stream.aclose()

        async def serve(stream: trio.SocketStream) -> None:
            served.append(await stream.receive_some())
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        await network.attach("pod", absent)
        for address, handler in ((dying, die), (serving, serve)):
            with inside(await network.attach("pod", address)):
                listening = trio.socket.socket()
            await listening.bind((address, APP_PORT))
            listening.listen()
            nursery.start_soon(trio.serve_listeners, handler, [trio.SocketListener(listening)])
        front = Front(network, tmp_path)
        await front.start()
        try:
            nobody = await front.ask("POST", "/write", {})
            assert (nobody.status, nobody.cut) == (502, False)
            await front.put_in(absent)
            refused = await front.ask("POST", "/write", {})
            assert (refused.status, refused.cut) == (502, False)
            await front.put_in(dying)
            await front.put_in(serving)
            reads = [await front.ask("GET", "/", {}) for _ in range(4)]
            writes = [await front.ask("POST", "/write", {}) for _ in range(4)]
            assert [answer.status for answer in reads] == [200] * 4
            assert {(answer.status, answer.cut) for answer in writes} == {(200, False), (502, True)}
            await front.take_out(dying)
            assert [(await front.ask("POST", "/write", {})).status for _ in range(4)] == [200] * 4
        finally:
            front.close()
            nursery.cancel_scope.cancel()


async def test_nothing_is_left_behind_and_what_a_killed_run_left_is_removed() -> None:
    """Namespaces outlive their makers; after a thousand runs a machine would be full of them."""
    program = (
        "import trio; from tests.lab.lab import open_lab\n"
        "async def main():\n async with open_lab(): print('open', flush=True); await trio.sleep_forever()\n"
        "trio.run(main)"
    )
    async with trio.open_nursery() as nursery:
        command = [sys.executable, "-c", program]
        start = partial(trio.run_process, stdout=subprocess.PIPE, check=False, cwd=Path(__file__).parents[2])
        killed = await nursery.start(start, command)
        assert (await killed.stdout.receive_some()).startswith(b"open")
        killed.kill()
    assert _left_by(killed.pid)
    async with open_lab():
        assert _left_by(os.getpid())
        assert not _left_by(killed.pid)
    assert not _left_by(os.getpid())


def _left_by(pid: int) -> list[Path]:
    return [path for folder in ("/run/netns", "/etc/netns") for path in Path(folder).glob(f"gossiplab-{pid}-*")]


async def test_a_pod_that_does_not_start_is_told_with_its_log(capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong setting in a scenario must not look like a cluster that did not form."""
    with pytest.raises(BaseExceptionGroup) as failed:
        async with open_lab() as lab:
            await lab.new_deployment(environ={"GOSSIPSESS_NO_SUCH": "1"}).start(1)
    assert failed.group_contains(ScenarioError, match="ended before it served", depth=None)
    assert "GOSSIPSESS_NO_SUCH is not a setting" in capsys.readouterr().err
