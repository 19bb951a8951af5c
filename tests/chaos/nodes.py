# Nodes: a cluster of real processes that can be asked, killed, paused and started again.
#
# In:     how many, by which discovery, and whether every link goes through the lossy proxy.
# Out:    `Cluster`, a context manager; `Cluster.nodes[i].ask(do, ...)` calls a method of apps/node.py over there.
# Choice: a node that is started again takes its old address, as a pod's container does: static discovery finds it,
#         and the others meet a new node id behind an address that they know.
# Bound:  every question has a deadline. Only processes started here are ended, each with its own group.
# Not here: what is to be proved (keys.py, detection.py, idle.py, pause.py, history.py).

import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from ..e2e.harness import Discovery, Process, ScenarioError, discovery_setting, gossip_environ
from ..ports import free_ports
from .proxy import Proxy

ASK_S: Final = 30.0
LINK_S: Final = 30.0
POLL_S: Final = 0.02
_SCRIPT: Final = Path(__file__).parent / "apps" / "node.py"
_INSIDE: Final = "CHAOS_OWN_NETWORK"


class NoAnswerError(Exception):
    """The process was killed meanwhile, or did not answer in time: what was asked may have been done, or may yet be."""


class NotAskedError(Exception):
    """Nobody listens there; nothing was done."""


class ChaosNode:
    """One place in the cluster, and the process that lives there now.

    Attributes:
        starts: how often a process was started here; with the index it names one of them.
    """

    def __init__(self, index: int, environ: dict[str, str], folder: Path) -> None:
        self.index = index
        self.starts = 0
        self.paused = False
        self._environ = environ
        self._folder = folder
        self._pid = 0
        self._process: Process | None = None

    @property
    def running(self) -> bool:
        """There is a process; it may be paused."""
        return self._process is not None and self._process.running

    def start(self) -> str:
        """Start the process and return once it answers, which may be before it has met the others; its node's id."""
        self.starts += 1
        name = f"node{self.index}-{self.starts}"
        self._socket = self._folder / f"{name}.sock"
        process = self._process = Process(
            name, [sys.executable, str(_SCRIPT), str(self._socket)], self._environ, self._folder
        )
        process.wait_for(self._listening, "answering")
        status = self.ask("status")
        self._pid = status["pid"]
        return str(status["node"])

    def ask(self, do: str, timeout_s: float = ASK_S, **arguments: object) -> Any:
        """Call a method of the process's `App`.

        Raises:
            NotAskedError: no process is here.
            NoAnswerError: it gave no answer.
            ScenarioError: it failed; the message is its traceback.
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            try:
                connection.connect(str(self._socket))
            except OSError as error:
                raise NotAskedError(f"node {self.index}: {error}") from error
            try:
                connection.sendall(json.dumps({"do": do, **arguments}).encode() + b"\n")
                with connection.makefile("rb") as lines:
                    line = lines.readline()
            except OSError as error:
                raise NoAnswerError(f"node {self.index}: {error}") from error
        if not line.endswith(b"\n"):
            raise NoAnswerError(f"node {self.index} ended")
        said = json.loads(line)
        if "failure" in said:
            raise ScenarioError(f"node {self.index}: {said['failure']}")
        return said["answer"]

    def kill(self) -> float:
        """``kill -9``; return when, on the monotonic clock."""
        assert self._process is not None
        self.paused = False
        killed_s = time.monotonic()
        self._process.kill()
        return killed_s

    def end(self) -> None:
        """Kill what lives here, if anything does."""
        if self._process is not None:
            self._process.kill()

    def pause(self) -> None:
        """SIGSTOP."""
        os.kill(self._pid, signal.SIGSTOP)
        self.paused = True

    def resume(self) -> None:
        """SIGCONT."""
        if self.paused:
            os.kill(self._pid, signal.SIGCONT)
            self.paused = False

    def rss_bytes(self) -> int:
        """Return the memory that the process has in use."""
        for line in Path(f"/proc/{self._pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise ScenarioError(f"node {self.index} has no memory: it ended")

    def log_tail(self) -> str:
        """Return the end of the log of the process that is or was here."""
        return self._process.log_tail() if self._process is not None else ""

    def _listening(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            return probe.connect_ex(str(self._socket)) == 0


class Cluster:
    """`count` nodes, started and linked at entry, killed at exit.

    With `proxied`, every node has an address of its own and is reached by the others through `proxy` only;
    each then counts as a host of its own.
    """

    def __init__(
        self,
        count: int,
        *,
        discovery: Discovery = "static",
        proxied: bool = False,
    ) -> None:
        self._count = count
        self._discovery: Discovery = discovery
        self._proxied = proxied
        self.nodes: list[ChaosNode] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
            stack.push(self._report_failure)
            if self._proxied:
                self.proxy = Proxy(self._count, free_ports(1)[0])
                stack.callback(self.proxy.close)
            self._make_nodes(folder)
            for node in self.nodes:
                stack.callback(node.end)
            with ThreadPoolExecutor(self._count) as threads:
                list(threads.map(self.start, self.nodes))
            if self._discovery != "none":
                self.wait_linked()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def start(self, node: ChaosNode) -> None:
        """Start a process at this place."""
        name = node.start()
        if self._proxied:
            self.proxy.name(name, node.index)

    def wait_linked(self, timeout_s: float = LINK_S) -> float:
        """Wait until every running node is linked to every other, and synced; return how long that took, seconds.

        Raises:
            ScenarioError: not in time.
        """

        def linked() -> bool:
            told = self.ask_all("status")
            return all(len(one["linked"]) == len(told) - 1 and one["synced"] for one in told)

        return _wait_until(linked, "every node is linked to every other", timeout_s)

    def wait_equal(self, timeout_s: float) -> float:
        """Wait until the running nodes agree on who holds what, and all holders hold the same; return how long that
        took, seconds.

        Raises:
            ScenarioError: not in time.
        """

        def equal() -> bool:
            told = self.ask_all("digests")
            of_partition: dict[str, set[str]] = {}
            for one in told:
                for partition, digest in one["of"].items():
                    of_partition.setdefault(partition, set()).add(digest)
            return len({one["layout"] for one in told}) == 1 and all(len(one) == 1 for one in of_partition.values())

        return _wait_until(equal, "all who hold a session hold the same", timeout_s)

    def wait_acknowledged(self, timeout_s: float) -> float:
        """Wait until no running node owes anything to another; return how long that took, seconds.

        Raises:
            ScenarioError: not in time.
        """

        def acknowledged() -> bool:
            return not any(one["unconfirmed"] for one in self.ask_all("status"))

        return _wait_until(acknowledged, "everything is acknowledged", timeout_s)

    def ask_all(self, do: str, timeout_s: float = ASK_S, **arguments: object) -> list[Any]:
        """Ask every running node the same at the same time; their answers, in the nodes' order."""
        return ask_each([node for node in self.nodes if node.running], do, timeout_s, **arguments)

    def _make_nodes(self, folder: Path) -> None:
        cluster = f"chaos-{uuid.uuid4().hex}"
        multicast_port, *ports = free_ports(self._count + 1)
        seeds = discovery_setting(self._discovery, ports, multicast_port)
        if self._proxied and self._discovery == "static":
            seeds = "static://" + ",".join(f"{ip}:{port}" for ip, port in self.proxy.fronts)
        for index in range(self._count):
            environ = gossip_environ(cluster, ports[index], seeds) | {"GOSSIPSESS_NODE_NAME": str(index)}
            if self._proxied:
                environ |= {
                    "GOSSIPSESS_BIND": self.proxy.backs[index][0],
                    "GOSSIPSESS_PORT": str(self.proxy.backs[index][1]),
                    "GOSSIPSESS_ADVERTISE": self.proxy.fronts[index][0],
                }
            self.nodes.append(ChaosNode(index, environ, folder))

    def _report_failure(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            for node in self.nodes:
                print(node.log_tail(), file=sys.stderr)


def ask_each(nodes: Iterable[ChaosNode], do: str, timeout_s: float = ASK_S, **arguments: object) -> list[Any]:
    """Ask these nodes the same at the same time; their answers, in the nodes' order."""
    nodes = list(nodes)
    with ThreadPoolExecutor(len(nodes)) as threads:
        return list(threads.map(lambda node: node.ask(do, timeout_s, **arguments), nodes))


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value that `percent` of the values do not exceed.

    Raises:
        ScenarioError: there are none.
    """
    if not values:
        raise ScenarioError("nothing was measured")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def can_have_own_network() -> bool:
    """Say whether this user may make a network namespace, and the tools are here."""
    return os.geteuid() == 0 and shutil.which("unshare") is not None and shutil.which("ip") is not None


def enter_own_network(module: str) -> None:
    """Run this program again, ``python -m module``, where nobody else uses the loopback interface.

    Returns in that second run only. The namespace goes with its last process.

    Raises:
        ScenarioError: not root, or no ``unshare`` or ``ip``: then nothing could be measured alone.
    """
    if _INSIDE not in os.environ:
        if not can_have_own_network():
            raise ScenarioError("bytes are counted in a network namespace of their own: needs root, unshare and ip")
        os.environ[_INSIDE] = "1"
        os.execvp("unshare", ["unshare", "--net", sys.executable, "-m", module, *sys.argv[1:]])
    os.system("ip link set lo up && ip route add 224.0.0.0/4 dev lo")


def sent_bytes() -> int:
    """Return the bytes sent over the loopback interface of this network namespace, with IP headers and all above.

    Every packet counts with 14 bytes of Ethernet header there, which are taken off.
    """
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, text = line.partition(":")
        if name.strip() == "lo":
            counts = [int(number) for number in text.split()]
            return counts[8] - 14 * counts[9]
    raise ScenarioError("this machine has no loopback interface")


def _wait_until(condition: Any, what: str, timeout_s: float) -> float:
    began_s = time.monotonic()
    while not condition():
        if time.monotonic() - began_s > timeout_s:
            raise ScenarioError(f"{what}: not within {timeout_s:g} s")
        time.sleep(POLL_S)
    return time.monotonic() - began_s
