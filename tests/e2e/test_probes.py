# What Kubernetes does to a pod, with real servers: probes as commands, a preStop hook, SIGTERM, kill -9.
#
# A pod here is a server with its workers, and a runtime folder and a host of its own. What its kubelet would run are
# processes of their own, in the pod's environment.

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ..ports import LOOPBACK, free_ports
from .harness import REQUEST_S, START_S, Process, discovery_setting, gossip_environ, wait_until

APPS = Path(__file__).parent / "apps"
USERS = 20
WORKERS = 2
GRACE_S = 20.0
"""Half of what Kubernetes gives by default, with the time for handing over in it."""
SLOW_S = 1.5

UVICORN = [
    "uvicorn",
    "starlette_app:app",
    "--app-dir",
    str(APPS),
    "--no-access-log",
    "--host",
    LOOPBACK,
    "--port",
    "{}",
]
GUNICORN = ["gunicorn", "flask_app:app", "--chdir", str(APPS), "--bind", f"{LOOPBACK}:{{}}", "--no-control-socket"]
HYPERCORN = ["hypercorn", f"{APPS}/starlette_app:app", "--bind", f"{LOOPBACK}:{{}}"]
SERVERS = {
    "uvicorn": UVICORN,
    "gunicorn gthread": [*GUNICORN, "--workers", str(WORKERS), "--worker-class", "gthread", "--threads", "4"],
    "hypercorn asyncio": HYPERCORN,
    "hypercorn trio": [*HYPERCORN, "--worker-class", "trio"],
}


class Pod:
    """A server, and what a kubelet asks of it."""

    def __init__(self, name: str, server: str, environ: dict[str, str], folder: Path) -> None:
        self.name = name
        self.port = free_ports(1)[0]
        self.nodes = WORKERS if server.startswith("gunicorn") else 1
        own = folder / name
        own.mkdir()
        self._environ = environ | {"GOSSIPSESS_HOST": name, "XDG_RUNTIME_DIR": str(own)}
        command = [sys.executable, "-m", *[part.format(self.port) for part in SERVERS[server]]]
        self.process = Process(name, command, self._environ, own)
        self.client = httpx2.Client(base_url=f"http://{LOOPBACK}:{self.port}", trust_env=False, timeout=REQUEST_S)

    def runs(self, *command: str) -> tuple[int, str]:
        """Run a command of gossipsess in the pod; return its exit code and all that it said."""
        done = self._run(*command)
        return done.returncode, done.stdout + done.stderr

    def tells(self, *command: str) -> list[dict[str, Any]]:
        """Return what a command prints with --json."""
        return [json.loads(line) for line in self._run(*command, "--json").stdout.splitlines()]

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "gossipsess", *command],
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def up(self) -> bool:
        """Say whether all its nodes are ready and its port is open; as a readiness probe does not, which needs one."""
        try:
            self.client.get("/")
        except httpx2.TransportError:
            return False
        return sum(one["ready"] for one in self.tells("status")) == self.nodes

    def asks(self, method: str, path: str, cookies: dict[str, str]) -> httpx2.Response:
        """Send a request with these cookies, which take up what the answer sets."""
        header = {"cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
        answer = self.client.request(method, path, headers=header)
        cookies |= dict(answer.cookies)
        self.client.cookies.clear()
        return answer


@pytest.fixture(params=SERVERS)
def pods(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[Pod]]:
    """Three pods of one application that have found each other."""
    module = SERVERS[request.param][0]
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed: pip install {module}")
    node_port, multicast_port = free_ports(2)
    environ = gossip_environ(f"e2e-{uuid.uuid4().hex}", node_port, discovery_setting("multicast", [], multicast_port))
    environ |= {
        "GOSSIPSESS_PORT_RANGE": "100",
        "GOSSIPSESS_SECRET": uuid.uuid4().hex,
        "GOSSIPSESS_ALL_TO_ALL_BELOW": "2",  # so that there is something to hand over
    }
    with contextlib.ExitStack() as stack:
        pods = []
        for name in ("pod-a", "pod-b", "pod-c"):
            pods.append(Pod(name, request.param, environ, tmp_path))
            stack.callback(pods[-1].process.kill)
            stack.callback(pods[-1].client.close)
        for pod in pods:
            pod.process.wait_for(pod.up, "serving, and ready")
            others = sum(one.nodes for one in pods) - 1
            wait_until(
                lambda pod=pod, others=others: all(
                    sum(member["linked"] for member in one["members"]) == others for one in pod.tells("status")
                ),
                "all nodes are linked",
                START_S,
            )
        yield pods


def carts(pod: Pod, browsers: list[dict[str, str]]) -> list[Any]:
    return [pod.asks("GET", "/", cookies).json()["cart"] for cookies in browsers]


def test_a_pod_is_taken_out_by_its_hook_and_another_by_sigterm_and_nobody_is_logged_out(pods: list[Pod]) -> None:
    """All that a rolling update does to a pod, and the worst that a kubelet does in it."""
    first, second, last = pods
    browsers: list[dict[str, str]] = [{} for _ in range(USERS)]
    for number, cookies in enumerate(browsers):
        assert first.asks("POST", f"/login?user={number}", cookies).status_code == 200
        assert first.asks("POST", "/cart/add?item=book", cookies).status_code == 200

    # The hook. The balancer goes on sending requests, and then the pod is killed without a word.
    began_s = time.monotonic()
    code, text = first.runs("drain", "--timeout", "10")
    assert code == 0, text
    assert time.monotonic() - began_s < 8.0, "it is done, and did not only wait as long as it may"
    assert first.runs("ready")[0] == 1
    assert first.runs("live")[0] == 0
    assert [pod.runs("ready")[0] for pod in (second, last)] == [0, 0]
    assert carts(first, browsers) == [["book"]] * USERS
    for cookies in browsers[:5]:
        assert first.asks("POST", "/cart/add?item=pen", cookies).status_code == 200
    first.process.kill()
    code, text = first.runs("live")
    assert code == 1, "its sockets are there still, and nobody listens"
    assert "no node of this user runs here" in text
    expected = [["book", "pen"]] * 5 + [["book"]] * (USERS - 5)
    assert carts(second, browsers) == expected

    # SIGTERM without a hook, while a request is under way.
    leaving = [member["node"] for member in last.tells("members") if member["host"] == second.name]
    assert len(leaving) == second.nodes
    slow: list[httpx2.Response] = []
    under_way = threading.Thread(
        target=lambda: slow.append(second.asks("POST", f"/cart/add?item=ink&after_s={SLOW_S}", browsers[0]))
    )
    under_way.start()
    time.sleep(SLOW_S / 3)
    began_s = time.monotonic()
    os.kill(second.process.pid, signal.SIGTERM)
    seen: list[dict[str, Any]] = []
    while second.process.running:
        assert time.monotonic() - began_s < GRACE_S, "it ends within the grace period"
        seen += second.tells("status")
    under_way.join()
    assert slow[0].status_code == 200
    assert all(one["ready"] is not one["leaving"] for one in seen), "who leaves is not ready"
    assert second.runs("ready")[0] == 1
    states = {member["node"]: member["state"] for member in last.tells("members")}
    assert [states[node] for node in leaving] == ["left"] * second.nodes, "each said goodbye, and was not missed"
    expected[0] = ["book", "pen", "ink"]
    assert carts(last, browsers) == expected
