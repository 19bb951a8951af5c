# Play: one cell of the host matrix with the real server, on loopback.
#
# In:    a cell (cells.py).    Out: what was seen of it, or a `Failure` that says what was not as it should be.
# Seen:  which processes have a node, asked at the nodes' own sockets; a login through one worker, read through all;
#        what a member of the same cluster hears when the server gets SIGTERM; what the server writes to its log.
# Choice: a cell that serves has a member beside it, run here, for the others' view of its end. One that reloads has
#         nobody beside it: the point is that its node is alone.
# Bound: every wait has a deadline, and every process is in a group of its own, which is killed at the end.

import http.client
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any, Final
from unittest import mock

from gossipsess.config import Config
from gossipsess.runtime.inquiry import STATUS, ask
from gossipsess.service import RunningNode
from tests.hosts.cells import Cell
from tests.ports import free_ports

START_S: Final = 40.0
"""Until every worker answers, on a machine that is busy with something else."""
END_S: Final = 20.0
_APPS: Final = Path(__file__).parent / "apps"
_ROOT: Final = Path(__file__).parents[2]
_UNCLEAN: Final = re.compile(r"Traceback|Warning|Exception ignored|multi-threaded|Fatal|gossipsess.*(ERROR|WARNING)")
_REFUSED: Final = "gevent has replaced this process's threads and sockets, and gossipsess cannot run among greenlets"


class Failure(AssertionError):
    """Something was not as it should be; the message says what."""


@dataclass
class Seen:
    """What was seen of one cell."""

    nodes: int = 0
    """Live nodes while it served, each in a process of its own that answers requests."""
    in_parent: int = 0
    """Of the process that was started, where others serve."""
    end: str = ""
    """What the others saw of its end; for one that reloads, whether the login was there afterwards."""
    took_s: float = 0.0
    unclean: list[str] = field(default_factory=list)
    """Lines of its log that should not be there."""


class Browser:
    """A client with a cookie jar, and a new connection for each request: so each may meet another worker."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._cookies: dict[str, str] = {}

    def at(self, port: int) -> "Browser":
        """Return it, turned to another port."""
        self._port = port
        return self

    def get(self, path: str) -> dict[str, Any]:
        """Return what the application says.

        Raises:
            OSError, http.client.HTTPException: nobody answers yet.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
        try:
            cookies = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
            connection.request("GET", path, headers={"Cookie": cookies, "Connection": "close"})
            response = connection.getresponse()
            body = response.read()
            if not body and response.headers["content-length"] is None:
                raise http.client.IncompleteRead(body)  # a reloader has ended the process amid its headers
            for line in response.headers.get_all("set-cookie") or ():
                self._cookies.update({name: morsel.value for name, morsel in SimpleCookie(line).items()})
            if response.status != 200:
                raise Failure(f"{path} is answered {response.status}: {body[:200]!r}")
            answer: dict[str, Any] = json.loads(body)
            return answer
        finally:
            connection.close()


class Server:
    """The processes of one cell, in a folder of their own."""

    def __init__(self, cell: Cell, folder: Path, environ: dict[str, str]) -> None:
        self.cell = cell
        self.folder = folder
        (self.port,) = free_ports(1)
        shutil.copy(_APPS / f"{cell.app}.py", folder)
        self.log = folder / "log"
        with self.log.open("wb") as output:
            self._popen = subprocess.Popen(
                [part.replace("{port}", str(self.port)) for part in cell.argv],
                cwd=folder,
                env=environ | dict(cell.environ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The id of the process that was started."""
        return self._popen.pid

    def poll(self) -> int | None:
        """Return its exit code; None while it runs."""
        return self._popen.poll()

    def terminate(self, *, group: bool = False) -> None:
        """Send SIGTERM to the process that was started, as containers do, or to all of its group, as systemd does."""
        (os.killpg if group else os.kill)(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End whatever is left of it."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()

    def edit(self) -> None:
        """Change a line of the application, as a developer does."""
        path = self.folder / f"{self.cell.app}.py"
        text = path.read_text()
        version = int(text.partition("VERSION = ")[2].partition("\n")[0])
        path.write_text(text.replace(f"VERSION = {version}", f"VERSION = {version + 1}"))


def missing(cell: Cell) -> str | None:
    """Return what is not installed here that a cell takes; None where nothing is missing."""
    modules = (cell.command[1].partition(".")[0], *cell.needs)
    return next((name for name in modules if importlib.util.find_spec(name) is None), None)


def play(cell: Cell, *, group: bool = False) -> Seen:
    """Play one cell. `group`: it is ended by a signal to all of its processes at once.

    Raises:
        Failure: something was not as it should be.
    """
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="host-") as name:
        folder = Path(name)
        folder.chmod(0o700)
        match cell.expected:
            case "serves":
                seen = _serves(cell, folder, group=group)
            case "reloads":
                seen = _reloads(cell, folder)
            case "refused":
                seen = _refused(cell, folder)
    seen.took_s = time.monotonic() - began_s
    if seen.unclean:
        raise Failure("it writes: " + " | ".join(seen.unclean[:5]))
    return seen


def logins_kept(cell: Cell, logins: int) -> int:
    """Log in so often, end the server with all its workers, start it again; return how many are still logged in.

    Raises:
        Failure: it did not come up or end.
    """
    browsers: list[Browser] = []
    settings = {
        "CLUSTER": f"hosts-{uuid.uuid4().hex[:8]}",
        "DISCOVERY": f"multicast://239.255.79.50:{free_ports(1)[0]}",
        "CONFIRM": "1",
    }
    with tempfile.TemporaryDirectory(prefix="host-") as name, _folder_of(Path(name)):
        for again in (False, True):
            with _running(cell, Path(name), **settings) as server:
                _wait(lambda server=server: _answers(Browser(server.port), server), "it answers", server)  # type: ignore[misc]
                _wait(lambda: len(_nodes()) == cell.workers, f"{cell.workers} nodes", server)
                _wait(lambda: _all_met(cell.workers), "all have met", server)
                if again:
                    return sum(browser.at(server.port).get("/")["user"] == "kim" for browser in browsers)
                browsers = [Browser(server.port) for _ in range(logins)]
                for browser in browsers:
                    browser.get("/login")
                server.terminate()
                _wait(lambda server=server: server.poll() is not None, "it ends", server, END_S)  # type: ignore[misc]
    raise AssertionError("not reached")


def _serves(cell: Cell, folder: Path, *, group: bool) -> Seen:
    secret, cluster = uuid.uuid4().hex, f"hosts-{uuid.uuid4().hex[:8]}"
    with _folder_of(folder), _member(cluster, secret) as beside:
        found = f"static://127.0.0.1:{beside.status().address[1]}"
        with _running(cell, folder, CLUSTER=cluster, SECRET=secret, DISCOVERY=found) as server:
            browser = Browser(server.port)
            _wait(
                lambda: len(_nodes(but=os.getpid())) == cell.workers, f"{cell.workers} nodes before a request", server
            )
            _wait(lambda: _answers(browser, server), "it answers", server)
            processes = _read_through_all(browser, cell.workers)
            nodes = _nodes(but=os.getpid())
            if sorted(nodes) != sorted(processes):
                raise Failure(f"nodes run in {sorted(nodes)}, and {sorted(processes)} answer")
            seen = Seen(nodes=len(nodes), in_parent=nodes.count(server.pid) if cell.parent else 0)
            if seen.in_parent:
                raise Failure("the parent has a node")
            states = _states(beside)
            if list(states.values()) != ["alive"] * cell.workers:
                raise Failure(f"the members see {states}")
            server.terminate(group=group)
            dead: set[str] = set()

            def ended() -> bool:
                dead.update(name for name, state in _states(beside).items() if state == "dead")
                return server.poll() is not None

            _wait(ended, "it ends", server, END_S)
            _wait(lambda: set(_states(beside).values()) <= {"left", "dead"}, "nobody is seen alive", server, END_S)
            ended()
            if dead or set(_states(beside).values()) != {"left"}:
                raise Failure(f"{len(dead)} of {cell.workers} are taken for dead: {_states(beside)}")
            seen.end = "left"
            seen.unclean = _unclean(server)
            return seen


def _reloads(cell: Cell, folder: Path) -> Seen:
    group = f"multicast://239.255.79.50:{free_ports(1)[0]}"
    with _folder_of(folder), _running(cell, folder, CLUSTER=f"hosts-{uuid.uuid4().hex[:8]}", DISCOVERY=group) as server:
        browser = Browser(server.port)
        _wait(lambda: bool(_nodes()), "a node before a request", server)
        _wait(lambda: _answers(browser, server), "it answers", server)
        browser.get("/login")
        for version in (2, 3):
            time.sleep(1.2)  # reloaders look once a second, and compare times of whole seconds at worst
            server.edit()
            _wait(lambda version=version: _answers(browser, server, version), f"version {version} answers", server)  # type: ignore[misc]
            answer = browser.get("/")
            if answer["user"] != "kim":
                raise Failure(f"after reload {version - 1} the developer is logged out")
            nodes = _nodes()
            if nodes != [answer["process"]]:
                raise Failure(f"nodes run in {nodes}, and {answer['process']} answers")
        server.terminate()
        _wait(lambda: server.poll() is not None, "it ends", server, END_S)
        _wait(lambda: not _nodes(), "no node is left", server, END_S)
        return Seen(nodes=len(nodes), in_parent=nodes.count(server.pid), end="login kept", unclean=_unclean(server))


def _refused(cell: Cell, folder: Path) -> Seen:
    with _folder_of(folder), _running(cell, folder, CLUSTER="hosts", DISCOVERY="none") as server:
        _wait(lambda: server.poll() is not None, "it ends", server)
        if _REFUSED not in server.log.read_text():
            raise Failure(f"it does not say why: {server.log.read_text()[-2000:]}")
        return Seen(end="refused")


@contextmanager
def _folder_of(folder: Path) -> Iterator[None]:
    """This user's folder, for the sockets at which nodes are asked, and nobody else's nodes in it."""
    with mock.patch.dict(os.environ, {"XDG_RUNTIME_DIR": str(folder)}):
        yield


@contextmanager
def _member(cluster: str, secret: str) -> Iterator[RunningNode]:
    config = Config(cluster=cluster, secret=secret, bind="127.0.0.1", port=0, discovery="none", host="beside")
    node = RunningNode(config)
    try:
        yield node
    finally:
        node.close()


@contextmanager
def _running(cell: Cell, folder: Path, **settings: str) -> Iterator[Server]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("GOSSIPSESS_", "PYTEST_"))}
    environ |= {f"GOSSIPSESS_{name}": value for name, value in settings.items()}
    environ |= {
        "GOSSIPSESS_BIND": "127.0.0.1",
        "GOSSIPSESS_PORT": "0",
        "PYTHONPATH": str(_ROOT),
        "PYTHONWARNINGS": "always::DeprecationWarning",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",  # two edits within a second would find the first one's
    }
    server = Server(cell, folder, environ)
    try:
        yield server
    finally:
        server.kill()


def _answers(browser: Browser, server: Server, version: int = 1) -> bool:
    if server.poll() is not None:
        raise Failure(f"it ended by itself: {server.log.read_text()[-2000:]}")
    try:
        return bool(browser.get("/")["version"] == version)
    except (OSError, http.client.HTTPException):
        return False


def _read_through_all(browser: Browser, workers: int) -> set[int]:
    """Log in through one worker, read through each, and return their process ids."""
    browser.get("/login")
    processes: set[int] = set()
    until_s = time.monotonic() + START_S
    while len(processes) < workers:
        answer = browser.get("/")
        if answer["user"] != "kim":
            raise Failure(f"process {answer['process']} does not know the login")
        processes.add(answer["process"])
        if time.monotonic() > until_s:
            raise Failure(f"only {sorted(processes)} answer")
    return processes


def _nodes(but: int = 0) -> list[int]:
    """Return the ids of the processes that have a node, once for each."""
    replies = [reply for reply in ask(STATUS) if reply.answer is not None]
    return [int(reply.process) for reply in replies if int(reply.process) != but]


def _all_met(count: int) -> bool:
    """Say whether each of so many nodes is linked to all the others, and has what they have."""
    answers = [reply.answer for reply in ask(STATUS) if reply.answer is not None]
    linked = [sum(member["linked"] for member in answer["members"]) for answer in answers if answer["synced"]]
    return linked == [count - 1] * count


def _states(beside: RunningNode) -> dict[str, str]:
    return {member.node: member.state for member in beside.status().members}


def _unclean(server: Server) -> list[str]:
    return [line for line in server.log.read_text(errors="replace").splitlines() if _UNCLEAN.search(line)]


def _wait(condition: Callable[[], bool], what: str, server: Server, within_s: float = START_S) -> None:
    until_s = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > until_s:
            raise Failure(f"not within {within_s:.0f} s: {what}. {server.log.read_text(errors='replace')[-1500:]}")
        time.sleep(0.02)
