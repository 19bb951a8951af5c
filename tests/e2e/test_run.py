# Applications that know nothing of gossipsess, served by the real servers: their sessions are replicated all the same.
#
# Each is started as its users start it, behind `gossipsess run --` or under GOSSIPSESS_AUTO=1. A visitor logs in at one
# process and is asked for by every other; each tells its process id, so it is known who answered.
# Without zero code the same applications would pass the first part of this: their cookies carry the data. So the
# process that took the login is asked what node it has, and killed, and the cookie carries an id and no name.

import subprocess
import sys
import uuid
import venv
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

from .harness import LOOPBACK, REQUEST_S, Process, free_ports, gossip_environ, listening, wait_until

STOCK = Path(__file__).parent / "apps" / "stock"
ROOT = Path(__file__).parents[2]
USER = "somebody-with-a-name"
RUN = [sys.executable, "-m", "gossipsess", "run", "--"]
PYTHON = [sys.executable, "-m"]


def uvicorn(app: str, *more: str) -> Callable[[int], list[str]]:
    return lambda port: [*PYTHON, "uvicorn", app, "--host", LOOPBACK, "--port", str(port), *more]


def gunicorn(app: str, *more: str) -> Callable[[int], list[str]]:
    return lambda port: [*PYTHON, "gunicorn", app, "--bind", f"{LOOPBACK}:{port}", "--no-control-socket", *more]


def hypercorn(app: str, *more: str) -> Callable[[int], list[str]]:
    return lambda port: [*PYTHON, "hypercorn", app, "--bind", f"{LOOPBACK}:{port}", *more]


def flask(app: str, *more: str) -> Callable[[int], list[str]]:
    return lambda port: [*PYTHON, "flask", "--app", app, "run", "--port", str(port), *more]


class Servers:
    """Processes of one cluster that serve one application, each at a port of its own, as a context manager."""

    def __init__(self, command: Callable[[int], list[str]], folder: Path, count: int, environ: dict[str, str]) -> None:
        self._folder = folder
        *self.ports, gossip, group = free_ports(count + 2)
        self._commands = [command(port) for port in self.ports]
        self._environ = gossip_environ(f"run-{uuid.uuid4().hex}", gossip, f"multicast://239.255.79.50:{group}")
        self._environ |= {"GOSSIPSESS_PORT_RANGE": "16", **environ}
        self.processes: list[Process] = []
        self._stack = ExitStack()

    def __enter__(self) -> "Servers":
        for number, command in enumerate(self._commands):
            process = Process(f"server{number}", command, self._environ, self._folder, STOCK)
            self._stack.callback(process.kill)
            self.processes.append(process)
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is not None:
            for process in self.processes:
                print(process.log_tail())
        self._stack.close()

    def nodes(self) -> list[dict[str, Any]]:
        return [node for process in self.processes for node in process.nodes()]

    def wait_up(self, count: int) -> None:
        """Wait until so many nodes are linked to each other, and all ports are open."""

        def up() -> bool:
            nodes = self.nodes()
            links = [sum(member["linked"] for member in node["members"]) for node in nodes]
            return links == [count - 1] * count and all(map(listening, self.ports))

        wait_until(up, f"{count} nodes serve, and link to each other")

    def ask(self, method: str, path: str, port: int, cookies: httpx2.Cookies) -> dict[str, Any]:
        """Ask over a connection of its own, so that any worker may take it."""
        with httpx2.Client(cookies=cookies, trust_env=False, timeout=REQUEST_S) as client:
            answer = client.request(method, f"http://{LOOPBACK}:{port}{path}").raise_for_status()
            cookies.update(client.cookies)
            told: dict[str, Any] = answer.json()
            return told


def play(servers: Servers, count: int) -> list[dict[str, Any]]:
    """Log in at one of so many processes, and be known by all; return their nodes."""
    servers.wait_up(count)
    cookies = httpx2.Cookies()
    logged_in = servers.ask("POST", f"/login?user={USER}", servers.ports[0], cookies)
    assert cookies["session"]
    assert USER not in "".join(cookies.values())
    seen: set[int] = set()

    def all_have_answered() -> bool:
        for port in servers.ports:
            answer = servers.ask("GET", "/", port, cookies)
            assert answer["user"] == USER, f"{answer}, after {logged_in}"
            seen.add(answer["process"])
        return len(seen) == count

    wait_until(all_have_answered, f"{count} processes answer")
    nodes = servers.nodes()
    assert {node["process"] for node in nodes} == seen, "each has a node, and nobody else has"
    return nodes


CELLS = {
    "two uvicorns": (uvicorn("starlette_shop:app"), 2, 2, "starlette"),
    "uvicorn --workers 2": (uvicorn("starlette_shop:app", "--workers", "2"), 1, 2, "starlette"),
    "uvicorn --reload": (uvicorn("starlette_shop:app", "--reload"), 2, 2, "starlette"),
    "gunicorn -w 2": (gunicorn("flask_shop:app", "-w", "2"), 1, 2, "flask"),
    "gunicorn -w 2 --preload": (gunicorn("flask_shop:app", "-w", "2", "--preload"), 1, 2, "flask"),
    "two of flask run": (flask("flask_shop"), 2, 2, "flask"),
    "hypercorn with Quart": (hypercorn("quart_shop:app"), 2, 2, "quart"),
    "uvicorn with Litestar": (uvicorn("litestar_shop:app"), 2, 2, "litestar"),
}
"""Command, how many servers, how many processes serve in all, and which hook does it."""


@pytest.mark.parametrize("cell", CELLS)
def test_an_unmodified_application_is_replicated_behind_gossipsess_run(cell: str, tmp_path: Path) -> None:
    """No line of the application and none of its command changes; workers and reloaders are fresh interpreters."""
    command, servers, processes, hook = CELLS[cell]
    pytest.importorskip(hook)
    with Servers(lambda port: [*RUN, *command(port)], tmp_path, servers, {}) as running:
        for node in play(running, processes):
            assert any(note.startswith(f"{hook} ") for note in node["auto"]), node["auto"]
            assert not any(note.startswith("left alone") for note in node["auto"]), node["auto"]


def test_who_logged_in_stays_logged_in_when_that_process_is_killed(tmp_path: Path) -> None:
    """It is what all of this is for."""
    command = CELLS["two uvicorns"][0]
    with Servers(lambda port: [*RUN, *command(port)], tmp_path, 2, {}) as running:
        running.wait_up(2)
        cookies = httpx2.Cookies()
        running.ask("POST", f"/login?user={USER}", running.ports[0], cookies)
        running.processes[0].kill()
        assert running.ask("GET", "/", running.ports[1], cookies)["user"] == USER


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has gossipsess from a wheel, and all else from this one's environment."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    built = subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", folder, ROOT], capture_output=True, text=True)
    if built.returncode and "No matching distribution found for hatchling" in built.stderr:
        pytest.skip("the package index cannot be reached, where what builds the wheel comes from")
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    subprocess.run([*pip, "--python", python, "install", "--no-deps", wheel], check=True)
    packages = next((folder / "venv" / "lib").glob("python*")) / "site-packages"
    others = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "others.pth").write_text("\n".join(others) + "\n")
    assert (packages / "gossipsess.start").exists(), "for Python 3.15 and later"
    return python


def test_one_variable_is_enough_where_gossipsess_is_installed(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For images whose command cannot change."""
    monkeypatch.delenv("PYTHONPATH", raising=False)  # what is tested is what the wheel has
    told = [installed, "-c", "import gossipsess.zero_code as z; print(z.__file__, z.notes)"]
    out = subprocess.run(told, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert out.startswith(str(installed.parents[1])), out
    assert out.endswith(" []\n"), "without the variable it is inert"

    def command(port: int) -> list[str]:
        return [str(installed), *CELLS["uvicorn --workers 2"][0](port)[1:]]

    with Servers(command, tmp_path, 1, {"GOSSIPSESS_AUTO": "1"}) as running:
        for node in play(running, 2):
            assert node["auto"][0] == "GOSSIPSESS_AUTO=1"
