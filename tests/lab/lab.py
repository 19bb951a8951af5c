# Lab: a cluster as an application sees it: a network, its name server, fronts, and deployments of pods.
#
# In:     what a scenario wants.   Out: `open_lab`; `Lab.new_front`, `Lab.new_deployment`; `needs_lab` for tests.
# Rules:  what a pod is told, how it is probed and how it is ended stands in the manifests that `gossipsess k8s render`
#         prints, and is done here as Kubernetes does it. A pod's record is told from its start on, ready or not, and no
#         more from its end on; both after the name server's lag. The front gets a pod once it is ready, and hears of a
#         planned end a moment after it has begun; without the preStop hook, before. Of a kill nobody is told before.
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
from ..deploy import manifests
from ..e2e.harness import START_S, ScenarioError
from .dns import Dns
from .front import APP_PORT, Front
from .network import Network, lacking, open_network
from .pod import App, Pod

IN_KUBERNETES: Final = {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}
"""What every container there has in its environment."""
MACHINES: Final = 3
"""Pods are spread over so many, and so are the copies of a session. All have one network."""
FRONT_LAG_S: Final = 1.0
"""From the beginning of a planned end until the front has heard of it."""

needs_lab = pytest.mark.skipif(bool(lacking()), reason=f"needs a network lab: {lacking()}")


class Deployment:
    """Pods of one application that come and go under one name; made by `Lab.new_deployment`.

    Attributes:
        name: what its pods are named after.
        service: the name that its records stand under.
        pods: those that live, or were not seen to end yet, the oldest first.
        undrained: what preStop hooks said that did not succeed.
    """

    def __init__(
        self,
        lab: "Lab",
        name: str,
        *,
        service: str,
        has_records: bool,
        front: Front | None,
        app: App,
        environ: Mapping[str, str],
        drain_s: float | None,
    ) -> None:
        self.name = name
        self.service = service
        self.pods: list[Pod] = []
        self.undrained: list[str] = []
        self._lab = lab
        self._front = front
        self._app: App = app
        self._environ = environ
        self._has_records = has_records
        self._count = 0
        self._rendered = manifests.printed("--name", name, "--port", str(APP_PORT))
        container = manifests.container(self._rendered)
        self._probe: list[str] = container["readinessProbe"]["exec"]["command"]
        self._pre_stop: list[str] = container["lifecycle"]["preStop"]["exec"]["command"]
        if drain_s is not None:
            self._pre_stop = [*self._pre_stop, "--wait", str(drain_s)] if drain_s else []
        self._grace_s: float = manifests.pod(self._rendered)["terminationGracePeriodSeconds"]

    async def start(self, count: int, *, probed: bool = True) -> list[Pod]:
        """Start so many pods at the same moment, and return once all of them serve.

        `probed`: and the readiness probe says so, without which the front sends nothing.
        """
        pods: list[Pod] = []
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                pods.append(self._new_pod())
                nursery.start_soon(self._start, pods[-1], probed)
        return pods

    async def create(self, address: str | None = None) -> Pod:
        """Start one pod, and return once it serves. It gets a fresh address, where none is given."""
        pod = self._new_pod(address)
        await self._start(pod)
        return pod

    async def delete(self, pod: Pod) -> None:
        """End a pod as a planned end goes, and return once it is gone."""
        self._untell(pod)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._take_out, pod, FRONT_LAG_S if self._pre_stop else 0.0)
            if self._pre_stop:
                nursery.start_soon(self._drain, pod)
        await pod.stop(self._grace_s)
        self.pods.remove(pod)

    async def kill(self, pod: Pod) -> None:
        """``kill -9``; the front and the name server get to know afterwards."""
        await pod.kill()
        self.pods.remove(pod)
        self._untell(pod)
        await self._take_out(pod, 0.0)

    async def wait_linked(self, timeout_s: float = START_S) -> None:
        """Wait until every node of every pod is linked to every other, and synced.

        Raises:
            ScenarioError: not in time.
        """
        await wait_linked(self.pods, timeout_s)

    def _new_pod(self, address: str | None = None) -> Pod:
        self._count += 1
        name, address = f"{self.name}-{self._count}", address or self._lab.network.free_address()
        machine = f"machine-{self._count % MACHINES}"
        fields = {"metadata.name": name, "status.podIP": address, "spec.nodeName": machine}
        environ = manifests.environ(self._rendered, fields) | IN_KUBERNETES | self._environ
        pod = self._lab.new_pod(name, self._app, environ, address)
        self.pods.append(pod)
        return pod

    async def _start(self, pod: Pod, probed: bool = True) -> None:
        await pod.launch()
        if self._has_records:
            self._lab.dns.add(self.service, pod.address)
        await pod.wait_ready(self._probe if probed else None)
        if self._front is not None:
            await self._front.put_in(pod.address)

    def _untell(self, pod: Pod) -> None:
        if self._has_records:
            self._lab.dns.remove(self.service, pod.address)

    async def _take_out(self, pod: Pod, lag_s: float) -> None:
        await trio.sleep(lag_s)
        if self._front is not None:
            await self._front.take_out(pod.address)

    async def _drain(self, pod: Pod) -> None:
        code, said = await pod.run(self._pre_stop)
        if code:
            self.undrained.append(f"{pod.name}: {said}")


class Lab:
    """See the head of this module; made by `open_lab`."""

    def __init__(self, network: Network, dns: Dns, folder: Path) -> None:
        self.network = network
        self.dns = dns
        self._folder = folder
        self._parts: list[Front | Pod] = []

    async def new_front(self, name: str = "front", *, sticky: bool = False) -> Front:
        """Start a front with nobody behind it; see `Front` for what it may be."""
        front = Front(self.network, self._folder, name, sticky=sticky)
        self._parts.append(front)
        await front.start()
        return front

    def new_deployment(
        self,
        name: str = "shop",
        *,
        front: Front | None = None,
        service: str | None = None,
        has_records: bool = True,
        app: App = "starlette",
        secret: str = "shared",
        environ: Mapping[str, str] | None = None,
        drain_s: float | None = None,
    ) -> Deployment:
        """Return a deployment without pods.

        Args:
            name: what the manifests are rendered for.
            service: the name that its pods look each other up by; None: that of the manifests.
            has_records: its pods get records under that name.
            secret: those with the same one here have the same secret.
            environ: beyond what the manifests say.
            drain_s: how long the preStop hook takes at least; 0: there is none; None: what the manifests say.
        """
        file = self._folder / f"secret-{secret}"
        if not file.exists():
            file.write_text(secrets.token_urlsafe(24) + "\n")
            file.chmod(0o600)
        service = service or f"{name}-gossip"
        told = {"GOSSIPSESS_SERVICE": service, "GOSSIPSESS_SECRET_FILE": str(file), **(environ or {})}
        return Deployment(
            self,
            name,
            service=service,
            has_records=has_records,
            front=front,
            app=app,
            environ=told,
            drain_s=drain_s,
        )

    def new_pod(self, name: str, app: App, environ: Mapping[str, str], address: str) -> Pod:
        """Return a pod that is not started yet."""
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
