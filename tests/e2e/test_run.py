# Applications that know nothing of gossipsess, served by the real servers: their sessions are replicated all the same.
#
# They are the shops of docs/examples, as they are. Each is started as its users start it, behind `gossipsess run --` or
# under GOSSIPSESS_AUTO=1. A visitor logs in at one process and is asked for by every other; each tells its process id.
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

from ..ports import LOOPBACK, free_ports
from .harness import REQUEST_S, Process, gossip_environ, listening, wait_until

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
USER = "somebody-with-a-name"
RUN = [sys.executable, "-m", "gossipsess", "run", "--"]
PYTHON = [sys.executable, "-m"]


class Servers:
    """Processes of one cluster that serve one example, each at a port of its own, as a context manager."""

    def __init__(
        self,
        example: str | Path,
        command: Callable[[int], list[str]],
        count: int,
        folder: Path,
        environ: dict[str, str],
    ) -> None:
        self._example = EXAMPLES / example  # or a folder anywhere
        self._folder = folder
        *self.ports, gossip, group = free_ports(count + 2)
        self._commands = [command(port) for port in self.ports]
        self._environ = gossip_environ(f"run-{uuid.uuid4().hex}", gossip, f"multicast://239.255.79.50:{group}")
        self._environ |= {"GOSSIPSESS_PORT_RANGE": "16", **environ}
        self.processes: list[Process] = []
        self._stack = ExitStack()

    def __enter__(self) -> "Servers":
        for number, command in enumerate(self._commands):
            process = Process(f"server{number}", command, self._environ, self._folder, self._example)
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

    def log_in(self, port: int) -> httpx2.Cookies:
        """Log in there, and return what a browser then has."""
        with httpx2.Client(base_url=f"http://{LOOPBACK}:{port}", trust_env=False, timeout=REQUEST_S) as client:
            assert client.post("/login", data={"user": USER}).status_code == 303
            return client.cookies

    def ask(self, port: int, cookies: httpx2.Cookies) -> dict[str, Any]:
        """Ask who is logged in, over a connection of its own, so that any worker may take it."""
        with httpx2.Client(cookies=cookies, trust_env=False, timeout=REQUEST_S) as client:
            answer = client.get(f"http://{LOOPBACK}:{port}/", headers={"Accept": "application/json"})
            cookies.update(client.cookies)
            told: dict[str, Any] = answer.raise_for_status().json()
            return told


def play(servers: Servers, count: int, hook: str) -> list[dict[str, Any]]:
    """Log in at one of so many processes, and be known by all; return their nodes."""
    servers.wait_up(count)
    cookies = servers.log_in(servers.ports[0])
    assert cookies[COOKIE.get(hook, "session")], "its name is as ever"
    assert USER not in "".join(cookies.values())
    seen: set[int] = set()

    def all_have_answered() -> bool:
        for port in servers.ports:
            answer = servers.ask(port, cookies)
            assert answer["user"] == USER
            seen.add(answer["replica"])
        return len(seen) == count

    wait_until(all_have_answered, f"{count} processes answer")
    nodes = servers.nodes()
    assert {node["process"] for node in nodes} == seen, "each has a node, and nobody else has"
    return nodes


UVICORN = ["uvicorn", "app:app", "--host", LOOPBACK, "--port"]
GUNICORN = ["gunicorn", "app:app", "--no-control-socket", "-w", "2", "--bind"]
CELLS: dict[str, tuple[str, list[str], int]] = {
    "starlette, uvicorn": ("starlette", UVICORN, 2),
    "starlette, uvicorn --workers 2": ("starlette", [*UVICORN[:-1], "--workers", "2", "--port"], 1),
    "starlette, uvicorn --reload": ("starlette", [*UVICORN[:-1], "--reload", "--port"], 2),
    "fastapi, uvicorn": ("fastapi", UVICORN, 2),
    "flask, gunicorn -w 2": ("flask", GUNICORN, 1),
    "flask, gunicorn -w 2 --preload": ("flask", [*GUNICORN[:-1], "--preload", "--bind"], 1),
    "flask, flask run": ("flask", ["flask", "--app", "app", "run", "--port"], 2),
    "quart, hypercorn": ("quart", ["hypercorn", "app:app", "--bind"], 2),
    "litestar, uvicorn": ("litestar", UVICORN, 2),
    "django, gunicorn -w 2": ("django", GUNICORN, 1),
}
"""Which example, the module that serves it, and how many such servers; two processes in all."""
HOOKS = {"fastapi": "starlette"}
COOKIE = {"django": "sessionid"}


def command_of(server: list[str]) -> Callable[[int], list[str]]:
    def command(port: int) -> list[str]:
        return [*PYTHON, *server, f"{LOOPBACK}:{port}" if server[-1] == "--bind" else str(port)]

    return command


@pytest.mark.parametrize("cell", CELLS)
def test_an_unmodified_application_is_replicated_behind_gossipsess_run(cell: str, tmp_path: Path) -> None:
    """No line of the application and none of its command changes; workers and reloaders are fresh interpreters."""
    example, server, count = CELLS[cell]
    pytest.importorskip(example)
    hook = HOOKS.get(example, example)
    command = command_of(server)
    with Servers(example, lambda port: [*RUN, *command(port)], count, tmp_path, {}) as running:
        for node in play(running, 2, hook):
            assert any(note.startswith(f"{hook} ") for note in node["auto"]), node["auto"]
            assert not any(note.startswith("left alone") for note in node["auto"]), node["auto"]


def test_djangos_own_server_is_replicated_in_the_reloaders_child_only(tmp_path: Path) -> None:
    """`manage.py runserver` is what its developers run; the parent only watches files."""
    pytest.importorskip("django")
    manage = tmp_path / "manage.py"
    manage.write_text(
        f"import sys\nsys.path.insert(0, {str(EXAMPLES / 'django')!r})\nimport app\n"
        "from django.core.management import execute_from_command_line\nexecute_from_command_line(sys.argv)\n"
    )

    def command(port: int) -> list[str]:
        return [*RUN, sys.executable, str(manage), "runserver", f"{LOOPBACK}:{port}"]

    with Servers("django", command, 2, tmp_path, {}) as running:
        nodes = play(running, 2, "django")
        assert not {node["process"] for node in nodes} & {process.pid for process in running.processes}


def test_who_logged_in_stays_logged_in_when_that_process_is_killed(tmp_path: Path) -> None:
    """It is what all of this is for."""
    command = command_of(UVICORN)
    with Servers("starlette", lambda port: [*RUN, *command(port)], 2, tmp_path, {}) as running:
        running.wait_up(2)
        cookies = running.log_in(running.ports[0])
        running.processes[0].kill()
        assert running.ask(running.ports[1], cookies)["user"] == USER


def in_cookies(folder: Path) -> Path:
    """Return where Litestar's shop is with the sessions in its cookies, as many of its applications have them."""
    stock = (EXAMPLES / "litestar" / "app.py").read_text()
    text = stock.replace("server_side import ServerSideSessionConfig", "client_side import CookieBackendConfig")
    text = text.replace("ServerSideSessionConfig()", "CookieBackendConfig(b'a secret of thirty-two bytes, no')")
    assert "ServerSide" not in text
    shop = folder / "shop"
    shop.mkdir()
    (shop / "app.py").write_text(text)
    return shop


@pytest.mark.parametrize(
    "cell",
    ["starlette, uvicorn", "flask, flask run", "quart, hypercorn", "litestar, uvicorn", "django, gunicorn -w 2"],
)
def test_who_was_logged_in_before_zero_code_stays_logged_in(cell: str, tmp_path: Path) -> None:
    """Switched on in the middle of a day it must log nobody out: what the framework's own cookie says is taken over."""
    name, server, _ = CELLS[cell]
    pytest.importorskip(name)
    command = command_of(server)
    example = in_cookies(tmp_path) if name == "litestar" else name
    with Servers(example, command, 1, tmp_path, {}) as before:
        wait_until(lambda: listening(before.ports[0]), "the stock application serves")
        cookies = before.log_in(before.ports[0])
        assert before.ask(before.ports[0], cookies)["user"] == USER
        assert before.nodes() == []
    former = dict(cookies)
    with Servers(example, lambda port: [*RUN, *command(port)], 1, tmp_path, {}) as running:
        running.wait_up(2 if "-w" in server else 1)
        assert running.ask(running.ports[0], cookies)["user"] == USER
        assert dict(cookies) != former, "it has an id of ours now"
        assert running.ask(running.ports[0], cookies)["user"] == USER


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

    example, server, count = CELLS["starlette, uvicorn --workers 2"]
    command = command_of(server)
    with Servers(
        example, lambda port: [str(installed), *command(port)[1:]], count, tmp_path, {"GOSSIPSESS_AUTO": "1"}
    ) as running:
        for node in play(running, 2, example):
            assert node["auto"][0] == "GOSSIPSESS_AUTO=1"
