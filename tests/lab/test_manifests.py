# What the manifests say, done to real processes in the lab, as far as a kernel without Kubernetes can.
#
# As in a cluster: the command is the image's, the variables are the Deployment's, the secret is a file at its path, the
# root is read-only, user and group are the Deployment's, and the probes' and the hook's own commands are run beside it.
# Not so: TMPDIR names the pod's folder for temporary files, since this repository may lie below /tmp; and the processes
# may read every file, since the Python of a developer's machine need not be open to all, as an image's is.

import json
import os
import secrets
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from ..chaos.fleet import until
from ..deploy.manifests import ROOT, SHOP, Resources, container, environ, image_command, pod, printed
from ..e2e.harness import START_S, Process
from .lab import IN_KUBERNETES, Lab, needs_lab, open_lab
from .network import inside_command

pytestmark = needs_lab

PORT: Final = 8000
TEMPORARY: Final = "/run/tmp"

# The mount namespace is the one that `ip netns exec` has made for this process alone.
_CONTAINER: Final = """
set -e
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p "$(dirname "$GOSSIPSESS_SECRET_FILE")" "$TMPDIR"
chmod 1777 "$TMPDIR"
printf %s "$SECRET" > "$GOSSIPSESS_SECRET_FILE"
unset SECRET
mount -o remount,bind,ro /
exec "$@"
"""

_REQUEST: Final = """
import http.client, json, sys
address, port, method, path, body, cookies = sys.argv[1:]
connection = http.client.HTTPConnection(address, int(port), timeout=10)
connection.request(method, path, body, {"Cookie": cookies})
answer = connection.getresponse()
print(json.dumps([answer.status, answer.headers.get_all("Set-Cookie") or [], answer.read().decode()]))
"""


class Container:
    """One pod's container."""

    def __init__(self, name: str, address: str, rendered: Resources, folder: Path) -> None:
        self.name = name
        self.address = address
        self._container: dict[str, Any] = container(rendered)
        self._context = pod(rendered)["securityContext"]
        self._folder = folder
        fields = {"status.podIP": address, "metadata.name": name, "spec.nodeName": f"machine-of-{name}"}
        self._environ = {
            **environ(rendered, fields),
            **IN_KUBERNETES,
            "TMPDIR": TEMPORARY,
            # What an image has installed, and its working directory.
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": f"{SHOP}:{ROOT}",
        }
        self._process: Process | None = None

    async def start(self, lab: Lab, secret: str, workers: int = 1) -> None:
        """Start the image's command, with so many processes; returns at once."""
        self._environ["WEB_CONCURRENCY"] = str(workers)
        namespace = await lab.network.attach(self.name, self.address, lab.dns.resolv_conf)
        command = inside_command(namespace, ["sh", "-c", _CONTAINER, "sh", *self._as_user(image_command())])
        self._process = Process(self.name, command, {**self._environ, "SECRET": secret}, self._folder)

    async def probe(self, name: str) -> bool:
        """Say whether a probe succeeds."""
        return (await self.exec(self._container[name]["exec"]["command"])).returncode == 0

    async def hook(self) -> subprocess.CompletedProcess[str]:
        """Run what comes before SIGTERM, and return how it ended."""
        return await self.exec(self._container["lifecycle"]["preStop"]["exec"]["command"])

    async def exec(self, own: list[str]) -> subprocess.CompletedProcess[str]:
        """Run a command beside the application, as the kubelet does, and return how it ended."""
        assert self._process is not None
        assert self._process.running, self._process.log_tail()
        command = ["nsenter", "--target", str(self._process.pid), "--mount", "--net", "--", *self._as_user(own)]
        run = partial(
            subprocess.run, command, env=self._environ, capture_output=True, text=True, check=False, timeout=60
        )
        return await trio.to_thread.run_sync(run)

    async def sees(self, nodes: int) -> bool:
        """Say whether so many nodes are alive and linked, this one's own counted."""
        members = (await self.exec(["gossipsess", "members", "--json"])).stdout.splitlines()
        return sum(one["state"] == "alive" and one["linked"] for one in map(json.loads, members)) == nodes

    async def stop(self, within_s: float) -> bool:
        """SIGTERM; return whether it ended in time."""
        assert self._process is not None
        return await trio.to_thread.run_sync(self._process.stop, within_s)

    def log_tail(self) -> str:
        return self._process.log_tail() if self._process is not None else ""

    def _as_user(self, command: list[str]) -> list[str]:
        user, group = self._context["runAsUser"], self._context["runAsGroup"]
        reads = ("--inh-caps", "-all,+dac_read_search", "--ambient-caps", "-all,+dac_read_search")
        return [
            *("setpriv", "--reuid", str(user), "--regid", str(group), "--clear-groups", "--no-new-privs"),
            *("--bounding-set", "-all,+dac_read_search", *reads, "--", *command),
        ]


class Visitor:
    """A browser somewhere on the network: cookies, and requests of whichever pod."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._cookies: dict[str, str] = {}

    async def ask(self, one: Container, method: str, path: str, body: str = "") -> str:
        """Make a request, follow where it leads, and return the page."""
        cookies = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        request = [sys.executable, "-c", _REQUEST, one.address, str(PORT), method, path, body, cookies]
        run = partial(subprocess.run, inside_command(self._namespace, request), capture_output=True, check=True)
        status, set_cookies, page = json.loads((await trio.to_thread.run_sync(run)).stdout)
        for cookie in set_cookies:
            name, _, value = cookie.partition(";")[0].partition("=")
            self._cookies[name] = value
        if status == 303:
            return await self.ask(one, "GET", "/")
        assert status == 200, page
        return str(page)


async def test_the_example_runs_by_the_manifests_and_a_pod_that_ends_takes_no_login_with_it(tmp_path: Path) -> None:
    """Every line of the Deployment that a process meets: a wrong one would be found by the first user."""
    rendered = printed()
    async with open_lab() as lab:
        lab.network.faults.multicast = False
        await lab.network.apply()
        pods = [Container(f"shop-{n}", lab.network.free_address(), rendered, tmp_path) for n in range(3)]
        visitor = Visitor(await lab.network.attach("visitor", lab.network.free_address()))
        secret = secrets.token_urlsafe(32)
        try:
            for one, workers in zip(pods, (1, 1, 2), strict=True):
                await one.start(lab, secret, workers)
                lab.dns.add("shop-gossip", one.address)
            first, second, third = pods
            for one in pods:
                await until(partial(one.probe, "readinessProbe"), f"{one.name} is ready", START_S)
                assert await one.probe("livenessProbe")
            await until(partial(first.sees, 4), "the first sees all four nodes", START_S)
            assert "Logged in as kim" in await visitor.ask(first, "POST", "/login", "user=kim")
            assert "book" in await visitor.ask(second, "POST", "/cart", "item=book")
            assert "Answered by shop-2" in await visitor.ask(third, "GET", "/")

            async with trio.open_nursery() as nursery:
                drained: list[subprocess.CompletedProcess[str]] = []

                async def drain() -> None:
                    drained.append(await first.hook())

                began_s = trio.current_time()
                nursery.start_soon(drain)
                await trio.sleep(1)
                assert not await first.probe("readinessProbe")
                assert await first.probe("livenessProbe")
                assert "pen" in await visitor.ask(first, "POST", "/cart", "item=pen"), "still serves who comes late"
            assert drained[0].returncode == 0, drained[0]
            used_s = trio.current_time() - began_s
            assert await first.stop(pod(rendered)["terminationGracePeriodSeconds"] - used_s)
            assert "Logged in as kim. In the cart: book, pen." in await visitor.ask(second, "GET", "/")
        except BaseException:
            for one in pods:
                print(one.log_tail(), file=sys.stderr)
            raise
        finally:
            for one in pods:
                await one.stop(0)
