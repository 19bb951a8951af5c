# Network: namespaces that hang on one bridge, and what can go wrong between them.
#
# In:     names and addresses.   Out: `open_network`; `Network.attach / detach / ask`, and its faults.
# Choice: the bridge lives in a namespace too, so nothing here touches an interface of this machine, and the kernel
#         takes everything down with the namespaces. Faults are one nftables table on the bridge: what stands in
#         `Faults` is written as rules, and the table is replaced as a whole, so no packet meets half a change.
# Why a MAC made from the address: a pod that gets the address of one that is gone would else be unreachable until its
#         peers' neighbour tables forget the old one; some container networks do the same.
# Bound:  every command has a deadline, and is not interrupted. Namespaces carry the id of the process that made them:
#         those of a run that was killed are removed by the next one, with the processes in them.
# Not here: what runs in a namespace (pod.py, dns.py, front.py).

import contextlib
import ctypes
import ipaddress
import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Final, Literal

import trio

from ..chaos.balancer import Answer, CutError, fetch_over
from ..e2e.harness import REQUEST_S, ScenarioError, nginx_path

Protocol = Literal["udp", "tcp"]

POD_NETWORKS: Final = ("10.77.1.0/24", "fd77:1::/64")
"""Faults are between these only: who looks on, the front and the name server are reached in any weather."""
SERVICE_NETWORKS: Final = ("10.77.0.0/24", "fd77:0::/64")
COMMAND_S: Final = 20.0
TOOLS: Final = ("ip", "nft", "dnsmasq")
_PREFIX: Final = "gossiplab"
_MADE: Final = Path("/run/netns")
_RESOLV: Final = Path("/etc/netns")
"""`ip netns exec NAME` shows a program the files of this folder's NAME in /etc."""
_BITS: Final = 16
"""Of the prefix that all addresses here share, in either version."""
_CLONE_NEWNET: Final = 0x40000000
_libc: Final = ctypes.CDLL(None, use_errno=True)


def lacking() -> str:
    """Return what keeps this user from opening a lab, in words; empty where nothing does."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None] + ([] if nginx_path() else ["nginx"])
    if os.geteuid() != 0:
        return "network namespaces are made by root only"
    return f"not installed: {', '.join(missing)}" if missing else ""


@dataclass
class Faults:
    """What is wrong between pods; everything else passes."""

    multicast: bool = True
    """UDP to a group reaches other pods."""
    loss: float = 0.0
    """This share of all packets between pods is dropped."""
    blocked: set[Protocol] = field(default_factory=set)
    cuts: set[tuple[str, str]] = field(default_factory=set)
    """(from, to): nothing passes this way."""

    def as_nft(self) -> str:
        """Return a script for nft that makes these the only rules."""
        rules = [] if self.multicast else ["meta pkttype multicast meta l4proto udp counter drop"]
        for family, network in zip(("ip", "ip6"), POD_NETWORKS, strict=True):
            between = f"{family} saddr {network} {family} daddr {network}"
            rules += [f"{between} meta l4proto {protocol} counter drop" for protocol in sorted(self.blocked)]
            if self.loss:
                rules.append(f"{between} numgen random mod 1000 < {round(self.loss * 1000)} counter drop")
        for sender, receiver in sorted(self.cuts):
            family = "ip6" if ":" in sender else "ip"
            rules.append(f"{family} saddr {sender} {family} daddr {receiver} counter drop")
        chain = "\n".join(["type filter hook forward priority 0; policy accept;", *rules])
        return (
            f"table bridge lab\ndelete table bridge lab\ntable bridge lab {{\nchain between_pods {{\n{chain}\n}}\n}}\n"
        )


class Network:
    """A bridge and the namespaces on it; made by `open_network`.

    Attributes:
        version: 4 or 6; all addresses are of it.
        gateway: the bridge's own address, from which `ask` comes.
    """

    def __init__(self, version: Literal[4, 6]) -> None:
        self.version = version
        self.faults = Faults()
        self._pods = ipaddress.ip_network(POD_NETWORKS[version == 6])
        self._services = ipaddress.ip_network(SERVICE_NETWORKS[version == 6])
        self._taken: set[str] = set()
        self._count = 0
        self._ports: dict[str, str] = {}  # by namespace
        self._own = f"{_PREFIX}-{os.getpid()}-{os.urandom(3).hex()}"
        self._bridge = self._name("bridge")
        self.gateway = self.free_address(service=True)

    def free_address(self, *, service: bool = False) -> str:
        """Return an address that nothing here has had yet."""
        hosts = (self._services if service else self._pods).hosts()
        address = next(str(one) for one in hosts if str(one) not in self._taken and int(one) & 0xFF)
        self._taken.add(address)
        return address

    async def attach(self, role: str, address: str, resolv_conf: str = "") -> str:
        """Make a namespace with a link to the bridge, and that address on it; return its name.

        `resolv_conf` is what programs there read as /etc/resolv.conf.
        """
        name = self._name(role)
        port = self._ports[name] = f"port{self._count}"
        folder = _RESOLV / name
        folder.mkdir(parents=True)
        (folder / "resolv.conf").write_text(resolv_conf)
        mac = ":".join(f"{byte:02x}" for byte in (0x02, *blake2b(address.encode(), digest_size=5).digest()))
        await run("ip", "netns", "add", name)
        await self._ip(
            self._bridge,
            f"link add {port} type veth peer name eth0 netns {name}",
            f"link set {port} master bridge",
            f"link set {port} up",
        )
        await self._ip(
            name,
            "link set lo up",
            f"link set eth0 address {mac}",
            "link set eth0 up",
            self._address_add(address, "eth0"),
            f"route add default via {self.gateway}",
        )
        return name

    async def detach(self, name: str) -> None:
        """Remove a namespace: its address is gone at once, and whatever still runs there is killed."""
        await _end_all(name)
        # The kernel takes a namespace down when it finds time. Until then its link would be there, and the bridge send
        # what is for the next one with this address to the one that is gone.
        await self._ip(self._bridge, f"link delete {self._ports.pop(name)}")
        await _remove(name)

    async def ask(self, address: str, port: int, method: str, path: str, cookies: Mapping[str, str]) -> Answer:
        """Make one HTTP request of somebody on the bridge, on a connection of its own.

        Raises:
            OSError: nobody listens there, or nobody has the address.
            CutError: there was no answer.
        """
        with inside(self._bridge):
            connection = trio.socket.socket(trio.socket.AF_INET if self.version == 4 else trio.socket.AF_INET6)
        async with trio.SocketStream(connection) as stream:
            with trio.move_on_after(REQUEST_S) as waiting:
                await connection.connect((address, port))
            if waiting.cancelled_caught:
                raise CutError(f"{address} took no connection within {REQUEST_S:g} s")
            return await fetch_over(stream, method, path, cookies)

    async def cut(self, senders: Iterable[str], receivers: Iterable[str]) -> None:
        """Let nothing pass from any of the first to any of the second any more; the other way is untouched."""
        receivers = list(receivers)
        self.faults.cuts |= {(sender, receiver) for sender in senders for receiver in receivers}
        await self.apply()

    async def part(self, some: Iterable[str], others: Iterable[str]) -> None:
        """Let nothing pass between the two groups, either way."""
        some, others = list(some), list(others)
        await self.cut(some, others)
        await self.cut(others, some)

    async def heal(self) -> None:
        """Join what was cut."""
        self.faults.cuts.clear()
        await self.apply()

    async def apply(self) -> None:
        """Make what stands in `faults` true."""
        await run("ip", "netns", "exec", self._bridge, "nft", "-f", "-", stdin=self.faults.as_nft())

    async def open(self) -> None:
        """Make the bridge."""
        await run("ip", "netns", "add", self._bridge)
        await self._ip(
            self._bridge,
            "link set lo up",
            "link add bridge type bridge mcast_snooping 0",
            "link set bridge up",
            self._address_add(self.gateway, "bridge"),
        )
        await self.apply()

    async def close(self) -> None:
        """Remove every namespace that was made here."""
        for name in _namespaces():
            if name.startswith(self._own):
                await _remove(name)

    def _name(self, role: str) -> str:
        self._count += 1
        return f"{self._own}-{self._count}-{role}"

    def _address_add(self, address: str, device: str) -> str:
        # nodad: an address that is still being looked for cannot be bound, and nobody else has it here.
        nodad = " nodad" if self.version == 6 else ""
        return f"address add {address}/{_BITS} dev {device}{nodad}"

    async def _ip(self, namespace: str, *lines: str) -> None:
        await run("ip", "-n", namespace, "-batch", "-", stdin="\n".join(lines))


@contextlib.asynccontextmanager
async def open_network(version: Literal[4, 6] = 4) -> AsyncIterator[Network]:
    """Give a bridge with nothing on it.

    Raises:
        ScenarioError: not root, or a tool is not installed.
    """
    if lacks := lacking():
        raise ScenarioError(f"no network lab here: {lacks}")
    await _remove_stale()
    network = Network(version)
    try:
        await network.open()
        yield network
    finally:
        await network.close()


async def run(*command: str, stdin: str = "") -> str:
    """Run a short command, to its end whatever is cancelled meanwhile; return what it printed.

    Raises:
        ScenarioError: it failed, or took too long; the message has what it said.
    """
    with trio.move_on_after(COMMAND_S, shield=True):
        done = await trio.run_process(
            list(command), stdin=stdin.encode(), capture_stdout=True, capture_stderr=True, check=False
        )
        if done.returncode:
            raise ScenarioError(f"{' '.join(command)}: {done.stderr.decode(errors='replace').strip()}\n{stdin}")
        return done.stdout.decode(errors="replace")
    raise ScenarioError(f"{' '.join(command)}: not done within {COMMAND_S:g} s")


def inside_command(namespace: str, command: list[str]) -> list[str]:
    """Return the command that runs another one in a namespace; both are one process, so signals meet the right one."""
    return ["ip", "netns", "exec", namespace, *command]


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Have this thread make its sockets over there. The block must not await: other tasks would be moved with it."""
    with open("/proc/thread-self/ns/net") as here, (_MADE / namespace).open() as there:
        _setns(there.fileno())
        try:
            yield
        finally:
            _setns(here.fileno())


def _setns(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def _namespaces() -> list[str]:
    return sorted(path.name for path in _MADE.glob(f"{_PREFIX}-*"))


async def _remove(name: str) -> None:
    with contextlib.suppress(ScenarioError):  # another run came first
        await _end_all(name)
        await run("ip", "netns", "delete", name)
    shutil.rmtree(_RESOLV / name, ignore_errors=True)


async def _end_all(name: str) -> None:
    """Kill what runs in a namespace, and return once it is gone: then its peers have been told by its kernel."""
    with trio.move_on_after(COMMAND_S, shield=True):
        while pids := (await run("ip", "netns", "pids", name)).split():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)


async def _remove_stale() -> None:
    for name in _namespaces():
        if not _runs(int(name.split("-")[1])):
            await _remove(name)


def _runs(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
