# Pod: one replica of an application, in a network namespace of its own, with its own address.
#
# In:     which application, its environment, an address.   Out: `Pod.launch / wait_ready / run / stop / kill / ask`.
# Choice: a folder of its own for temporary files, as each container has: there lie the sockets by which `gossipsess
#         ready` and `drain` find the nodes of this pod and no other's. A pod's address goes with it, and may be another
#         pod's a moment later.
# Not here: what the environment is, records and the front (lab.py).

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import trio

from ..chaos.balancer import Answer, CutError
from ..chaos.fleet import until
from ..e2e.harness import START_S, Process, ScenarioError
from .front import APP_PORT
from .network import Network, inside_command

App = Literal["starlette", "flask"]

_APPS: Final = Path(__file__).parent.parent / "chaos" / "apps"


def _command(app: App, bind: str) -> list[str]:
    if app == "starlette":
        host = ("--host", bind, "--port", str(APP_PORT))
        return ["uvicorn", "shop:app", "--app-dir", str(_APPS), "--no-access-log", *host]
    address = f"[{bind}]:{APP_PORT}" if ":" in bind else f"{bind}:{APP_PORT}"
    workers = ("--workers", str(WORKERS), "--worker-class", "gthread", "--threads", "8")
    return ["gunicorn", "shop_flask:app", "--chdir", str(_APPS), "--bind", address, "--no-control-socket", *workers]


WORKERS: Final = 2
"""Processes with a node of its own in a pod of gunicorn's."""


class Pod:
    """One pod; nothing runs at first.

    Attributes:
        address: its own, as long as it lives.
        nodes: how many nodes live in it.
        started_s: how long the start took until the application answered.
    """

    def __init__(
        self, name: str, network: Network, address: str, resolv_conf: str, app: App, environ: Mapping[str, str],
        folder: Path,
    ) -> None:  # fmt: skip
        self.name = name
        self.address = address
        self.nodes = WORKERS if app == "flask" else 1
        self.started_s = 0.0
        self._network = network
        self._resolv_conf = resolv_conf
        self._app: App = app
        self._environ = dict(environ)
        self._folder = folder
        self._namespace = ""
        self._process: Process | None = None

    @property
    def running(self) -> bool:
        """Its process has not ended."""
        return self._process is not None and self._process.running

    async def launch(self) -> None:
        """Give it its address and start its process; returns at once."""
        await self.attach()
        bind = "::" if self._network.version == 6 else "0.0.0.0"
        command = inside_command(self._namespace, [sys.executable, "-m", *_command(self._app, bind)])
        self._process = Process(self.name, command, self._environ, self._folder)

    async def attach(self) -> None:
        """Give it its address, and no process."""
        own = ("GOSSIPSESS_", "KUBERNETES_", "POD_", "XDG_")
        environ = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        temporary = self._folder / f"tmp-{self.name}"
        temporary.mkdir(mode=0o700)
        self._environ = environ | {"PYTHONUNBUFFERED": "1", "TMPDIR": str(temporary)} | self._environ
        self._namespace = await self._network.attach(self.name, self.address, self._resolv_conf)

    async def run(self, command: Sequence[str], within_s: float = START_S) -> tuple[int, str]:
        """Run a command in this pod, as ``kubectl exec``, a probe or a hook does.

        Returns its exit code and what it printed, its errors where that was nothing.

        Raises:
            ScenarioError: it did not end in time.
        """
        if command[0] == "gossipsess":
            command = [sys.executable, "-m", *command]
        with trio.move_on_after(within_s):
            inside = inside_command(self._namespace, list(command))
            done = await trio.run_process(
                inside, env=self._environ, capture_stdout=True, capture_stderr=True, check=False
            )
            return done.returncode, (done.stdout or done.stderr).decode(errors="replace").strip()
        raise ScenarioError(f"{self.name}: {' '.join(command)} did not end within {within_s:g} s")

    async def wait_ready(self, probe: Sequence[str] | None) -> None:
        """Wait until the application answers, and then the readiness probe succeeds, if there is one.

        Raises:
            ScenarioError: its process ended, or it did not in time.
        """
        began_s = time.monotonic()

        async def answers() -> bool:
            if not self.running:
                raise ScenarioError(f"{self.name} ended before it served")
            try:
                await self.status()
            except (OSError, CutError):
                return False
            return probe is None or (await self.run(probe))[0] == 0

        await until(answers, f"{self.name} serves", START_S)
        self.started_s = time.monotonic() - began_s

    async def stop(self, grace_s: float) -> None:
        """SIGTERM, wait until the process is gone, and give up the address.

        Raises:
            ScenarioError: it did not end by itself within `grace_s`.
        """
        assert self._process is not None
        ended = await trio.to_thread.run_sync(self._process.stop, grace_s)
        await self._network.detach(self._namespace)
        if not ended:
            raise ScenarioError(f"{self.name} did not end within {grace_s:g} s of SIGTERM")

    async def kill(self) -> None:
        """``kill -9`` of all that runs in it; the address goes too, as with a pod that is deleted without grace."""
        assert self._process is not None
        self._process.kill()
        await self._network.detach(self._namespace)

    async def ask(self, method: str, path: str, cookies: Mapping[str, str]) -> Answer:
        """Make one request of this pod itself; see `Network.ask` for what it raises."""
        return await self._network.ask(self.address, APP_PORT, method, path, cookies)

    async def status(self) -> dict[str, Any]:
        """Return what a node of this pod says of itself.

        Raises:
            OSError, CutError: it gives no answer.
        """
        answer = await self.ask("GET", "/status", {})
        if answer.status != 200:
            raise CutError(f"{self.name}: {answer.status}")
        told: dict[str, Any] = answer.json()
        return told

    def says(self, text: str) -> int:
        """Return how many lines of its log have this text."""
        assert self._process is not None
        return sum(text in line for line in self._process.log.read_text(errors="replace").splitlines())

    def close(self) -> None:
        """Kill what still runs; the namespace goes with the network."""
        if self._process is not None:
            self._process.kill()

    def log_tail(self) -> str:
        """Return the end of its log."""
        return self._process.log_tail() if self._process is not None else ""
