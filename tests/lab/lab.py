# Lab: a cluster as an application sees it: a network, its name server, fronts, and deployments of pods.
#
# In:     what a scenario wants.   Out: `open_lab`; `Lab.new_front`, `Lab.new_deployment`; `needs_lab` for tests.
# Rules:  a pod's record is told from its start on, ready or not, as a headless Service with publishNotReadyAddresses
#         does it, and no more from its end on; both after the name server's lag. The front gets a pod once its
#         application answers, and is told before SIGTERM, as with a preStop hook that waits. Of a kill nobody is told
#         before.
# Bound:  when the lab closes, every process that was started here is killed and every namespace removed.
# Not here: what is to be proved (form.py, pods.py, rolling.py, partition.py, strangers.py).

import contextlib
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

import pytest
import trio

from ..chaos.balancer import CutError
from ..chaos.fleet import until
from ..e2e.harness import START_S, ScenarioError
from .dns import Dns
from .front import Front
from .network import Network, lacking, open_network
from .pod import App, Pod

SERVICE: Final = "gossipsess"
IN_KUBERNETES: Final = {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}
"""What every container there has in its environment."""

needs_lab = pytest.mark.skipif(bool(lacking()), reason=f"needs a network lab: {lacking()}")


class Deployment:
    """Pods of one application that come and go under one name; made by `Lab.new_deployment`.

    Attributes:
        name: what its pods are named after.
        pods: those that live, or were not seen to end yet, the oldest first.
    """

    def __init__(
        self, lab: "Lab", name: str, service: str, front: Front | None, app: App, environ: Mapping[str, str]
    ) -> None:
        self.pods: list[Pod] = []
        self.front = front
        self._lab = lab
        self.name = name
        self._service = service
        self._app: App = app
        self._environ = environ
        self._count = 0

    async def start(self, count: int) -> list[Pod]:
        """Start so many pods at the same moment, and return once all of them serve."""
        pods: list[Pod] = []
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                pods.append(self._new_pod())
                nursery.start_soon(self._start, pods[-1])
        return pods

    async def create(self, address: str | None = None) -> Pod:
        """Start one pod, and return once it serves. It gets a fresh address, where none is given."""
        pod = self._new_pod(address)
        await self._start(pod)
        return pod

    async def delete(self, pod: Pod) -> None:
        """End a pod as a planned end goes, and return once it is gone."""
        self._lab.dns.remove(self._service, pod.address)
        if self.front is not None:
            await self.front.take_out(pod.address)
        await pod.stop()
        self.pods.remove(pod)

    async def kill(self, pod: Pod) -> None:
        """``kill -9``; the front and the name server get to know afterwards."""
        await pod.kill()
        self.pods.remove(pod)
        self._lab.dns.remove(self._service, pod.address)
        if self.front is not None:
            await self.front.take_out(pod.address)

    async def wait_linked(self, timeout_s: float = START_S) -> None:
        """Wait until every node of every pod is linked to every other, and synced.

        Raises:
            ScenarioError: not in time.
        """
        await wait_linked(self.pods, timeout_s)

    async def wait_equal(self, timeout_s: float) -> None:
        """Wait until the nodes agree on who holds what, and all holders hold the same; one node a pod.

        Raises:
            ScenarioError: not in time.
        """
        await wait_equal(self.pods, timeout_s)

    def _new_pod(self, address: str | None = None) -> Pod:
        self._count += 1
        pod = self._lab.new_pod(f"{self.name}-{self._count}", self._app, self._environ, address)
        self.pods.append(pod)
        return pod

    async def _start(self, pod: Pod) -> None:
        await pod.launch()
        self._lab.dns.add(self._service, pod.address)
        await pod.wait_ready()
        if self.front is not None:
            await self.front.put_in(pod.address)


class Lab:
    """See the head of this module; made by `open_lab`."""

    def __init__(self, network: Network, dns: Dns, folder: Path) -> None:
        self.network = network
        self.dns = dns
        self._folder = folder
        self._secret = secrets.token_urlsafe(24)
        self._parts: list[Front | Pod] = []

    async def new_front(self, name: str = "front") -> Front:
        """Start a front with nobody behind it."""
        front = Front(self.network, self._folder, name)
        self._parts.append(front)
        await front.start()
        return front

    def new_deployment(
        self,
        name: str = "shop",
        *,
        front: Front | None = None,
        service: str = SERVICE,
        app: App = "starlette",
        environ: Mapping[str, str] | None = None,
    ) -> Deployment:
        """Return a deployment without pods, of a cluster with its name; `environ` adds to what its pods are told."""
        told = {"GOSSIPSESS_CLUSTER": name, "GOSSIPSESS_SECRET": self._secret, **IN_KUBERNETES, **(environ or {})}
        return Deployment(self, name, service, front, app, told)

    def new_pod(self, name: str, app: App, environ: Mapping[str, str], address: str | None = None) -> Pod:
        """Return a pod that is not started yet."""
        address = address or self.network.free_address()
        pod = Pod(name, self.network, address, self.dns.resolv_conf, app, environ, self._folder)
        self._parts.append(pod)
        return pod

    def close(self) -> None:
        """Kill what was started here."""
        for part in self._parts:
            part.close()
        self.dns.close()

    def print_logs(self) -> None:
        """Print the end of each process's log to standard error."""
        for part in [*self._parts, self.dns]:
            print(part.log_tail(), file=sys.stderr)


@contextlib.asynccontextmanager
async def open_lab(version: Literal[4, 6] = 4) -> AsyncIterator[Lab]:
    """Give a lab with a name server that knows no name, and nothing else.

    Raises:
        ScenarioError: not root, or a tool is not installed.
    """
    with tempfile.TemporaryDirectory(prefix="lab-") as folder:
        async with open_network(version) as network, trio.open_nursery() as nursery:
            lab = Lab(network, Dns(network, nursery, Path(folder)), Path(folder))
            try:
                await lab.dns.start()
                yield lab
            except BaseException as error:
                if not isinstance(error, GeneratorExit):
                    lab.print_logs()
                raise
            finally:
                lab.close()
            nursery.cancel_scope.cancel()


async def wait_linked(pods: Sequence[Pod], timeout_s: float) -> None:
    """Wait until every node of these pods is linked to as many as all others are, and synced.

    Raises:
        ScenarioError: not in time; the message says who saw how many.
    """
    told: dict[str, dict[str, tuple[int, bool]]] = {pod.name: {} for pod in pods}  # of each node in each pod
    nodes = sum(pod.nodes for pod in pods)

    async def linked() -> bool:
        for pod in pods:
            with contextlib.suppress(OSError, CutError):
                one = await pod.status()
                told[pod.name][one["node"]] = (one["linked"], one["synced"])
        return all(
            len(told[pod.name]) == pod.nodes and set(told[pod.name].values()) == {(nodes - 1, True)} for pod in pods
        )

    try:
        await until(linked, f"each of {nodes} nodes is linked to all others", timeout_s)
    except ScenarioError as error:
        raise ScenarioError(f"{error}; (linked, synced): {told}") from error


async def wait_equal(pods: Iterable[Pod], timeout_s: float) -> None:
    """Wait until these pods, of one node each, agree on who holds what, and all holders hold the same.

    Raises:
        ScenarioError: not in time.
    """
    pods = list(pods)

    async def equal() -> bool:
        told = [(await pod.ask("GET", "/digests", {})).json() for pod in pods]
        of_partition: dict[str, set[str]] = {}
        for one in told:
            for partition, digest in one["of"].items():
                of_partition.setdefault(partition, set()).add(digest)
        return len({one["layout"] for one in told}) == 1 and all(len(one) == 1 for one in of_partition.values())

    await until(equal, "all who hold a session hold the same", timeout_s)
