# End-to-end harness: app processes, a real nginx, and clients with a cookie jar.
#
# In:     an application, how the nodes find each other, how nginx balances.
# Out:    `Site`, one shop of two apps or more behind one nginx; each process can be started, killed and looked into.
# Choice: every site gets ports, a folder and a cluster of its own and is thrown away afterwards, so no round
#         depends on what an earlier one left. What an app is asked about itself goes to its node's socket,
#         so that a stock application can be asked too.
# Bound:  every wait has a deadline. Processes are ended by the process group that was started here, and reaped.
# Not here: what is to be proved (kill.py, pairs.py, confirmed.py, examples.py).

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, NamedTuple, Self

import httpx2

from gossipsess.runtime import inquiry

from ..ports import LOOPBACK, free_ports

Framework = Literal["starlette", "flask"]
Balance = Literal["round_robin", "ip_hash"]
Discovery = Literal["static", "multicast", "none"]

FRAMEWORKS: Final[tuple[Framework, ...]] = ("starlette", "flask")
BALANCES: Final[tuple[Balance, ...]] = ("round_robin", "ip_hash")
DISCOVERIES: Final[tuple[Discovery, ...]] = ("static", "multicast", "none")

START_S: Final = 20.0
"""How long a process may take until it serves; generous, since a build machine may be busy."""
STOP_S: Final = 10.0
REQUEST_S: Final = 10.0
LOG_TAIL_LINES: Final = 40
_APPS: Final = Path(__file__).parent / "apps"


CUT: Final = "X-Cut"
"""Header of nginx's answer to a request that was lost with the app that had taken it, and may have been carried out."""


class ScenarioError(AssertionError):
    """Something that should have happened did not; the message says what."""


class App(NamedTuple):
    """A web application, and how it is served."""

    folder: Path
    """The working directory of its processes."""
    serve: Callable[[int], list[str]]
    """The command line that serves it at a port of 127.0.0.1, in one process of the application's own."""


def uvicorn_at(port: int, app: str = "app:app") -> list[str]:
    """Return how uvicorn serves an ASGI application."""
    address = ["--host", LOOPBACK, "--port", str(port)]
    return [sys.executable, "-m", "uvicorn", app, "--no-access-log", *address]


def gunicorn_at(port: int, app: str = "app:app") -> list[str]:
    """Return how gunicorn serves a WSGI application, in one worker with threads."""
    workers = ["--workers", "1", "--worker-class", "gthread", "--threads", "8"]
    return [sys.executable, "-m", "gunicorn", app, "--bind", f"{LOOPBACK}:{port}", "--no-control-socket", *workers]


APPS: Final[Mapping[Framework, App]] = {
    "starlette": App(_APPS, lambda port: uvicorn_at(port, "starlette_app:app")),
    "flask": App(_APPS, lambda port: gunicorn_at(port, "flask_app:app")),
}
"""The shops of these tests themselves."""


def nginx_path() -> str | None:
    """Return where nginx is, None where it is not installed."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = START_S) -> float:
    """Poll until `condition()` holds; return how long that took, seconds.

    Raises:
        ScenarioError: it did not hold within `timeout_s`.
    """
    began_s = time.monotonic()
    while not condition():
        if time.monotonic() - began_s > timeout_s:
            raise ScenarioError(f"{what}: not within {timeout_s:g} s")
        time.sleep(0.01)
    return time.monotonic() - began_s


def gossip_environ(cluster: str, port: int, discovery: str) -> dict[str, str]:
    """Return the environment of a process with a node: this process's own, with fresh ``GOSSIPSESS_*``.

    One port and no more: a node that quietly took the next one could not be found by static discovery.
    """
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GOSSIPSESS_")}
    return environ | {
        "GOSSIPSESS_CLUSTER": cluster,
        "GOSSIPSESS_BIND": LOOPBACK,
        "GOSSIPSESS_PORT": str(port),
        "GOSSIPSESS_PORT_RANGE": "1",
        "GOSSIPSESS_DISCOVERY": discovery,
        "PYTHONUNBUFFERED": "1",
    }


def discovery_setting(discovery: Discovery, node_ports: list[int], multicast_port: int) -> str:
    """Return the value of the setting `discovery` by which these nodes find each other, or do not."""
    match discovery:
        case "static":
            return "static://" + ",".join(f"{LOOPBACK}:{port}" for port in node_ports)
        case "multicast":
            return f"multicast://239.255.79.50:{multicast_port}"
        case "none":
            return "none"


class Process:
    """One program, with all the processes that it forks, in a process group of its own; its output is a log."""

    def __init__(
        self, name: str, command: list[str], environ: dict[str, str], folder: Path, work_in: Path | None = None
    ) -> None:
        self.name = name
        self._killed = False
        self.log = folder / f"{name}.log"
        with self.log.open("wb") as output:
            self._popen = subprocess.Popen(
                command,
                env=environ,
                cwd=work_in or folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The id of the program that was started."""
        return self._popen.pid

    @property
    def running(self) -> bool:
        """The program that was started has not ended."""
        return self._popen.poll() is None

    def wait_for(self, sign: Callable[[], bool], what: str) -> None:
        """Wait until the process gives a sign of being ready.

        Raises:
            ScenarioError: it ended, or gave none in time.
        """

        def ready_or_dead() -> bool:
            return not self.running or sign()

        wait_until(ready_or_dead, f"{self.name}: {what}")
        if not self.running:
            raise ScenarioError(f"{self.name} ended with code {self._popen.returncode} before: {what}")

    def says(self, text: str) -> bool:
        """Return whether `text` stands in the log."""
        return text in self.log.read_text(errors="replace")

    def nodes(self) -> list[dict[str, Any]]:
        """Return what each node in its processes says of itself; a node that does not answer is left out."""
        own = [name for name in inquiry.names() if _group_of(name.partition("-")[0]) == self.pid]
        return [reply.answer for reply in inquiry.ask(inquiry.STATUS, own) if reply.answer is not None]

    def kill(self) -> None:
        """``kill -9`` the whole group at once: a supervisor gets no time to start a worker again."""
        if self._killed:
            return  # by now the group's id may be somebody else's
        self._killed = True
        with contextlib.suppress(ProcessLookupError):  # ended by itself
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait(STOP_S)

    def stop(self, timeout_s: float = STOP_S) -> bool:
        """Ask it to end, then see to it; return whether it ended in time by itself."""
        if self.running:
            self._popen.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(timeout_s)
        ended = not self.running
        self.kill()
        return ended

    def log_tail(self) -> str:
        """Return the last lines of the log, under a heading."""
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return "\n".join([f"--- {self.name} ---", *lines])


class Site:
    """App processes of one cluster behind one nginx, as a context manager.

    nginx and no app runs at first. The client keeps cookies, and sends them to nginx and to the apps' own
    ports, as a browser does: cookies belong to a host, not to a port.

    Attributes:
        url: nginx's address.
        app_urls: the apps' own addresses.
    """

    def __init__(
        self,
        app: App,
        discovery: Discovery = "static",
        balance: Balance = "round_robin",
        *,
        replicas: int = 2,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._app = app
        nginx_port, multicast_port, *ports = free_ports(2 + 2 * replicas)
        self._app_ports, self._node_ports = ports[:replicas], ports[replicas:]
        self._discovery = discovery_setting(discovery, self._node_ports, multicast_port)
        self._balance = balance
        self._environ = environ or {}
        self._nginx_port = nginx_port
        self._cluster = f"e2e-{uuid.uuid4().hex}"
        self.url = f"http://{LOOPBACK}:{nginx_port}"
        self.app_urls = [f"http://{LOOPBACK}:{port}" for port in self._app_ports]
        self._stack = contextlib.ExitStack()
        self._started: list[Process] = []
        self._serving: dict[int, Process] = {}

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="gossipsess-e2e-"))
            self._folder = Path(folder)
            stack.push(self._report_failure)  # runs once all processes have ended, before the logs go
            self._stack = stack
            self._start_nginx()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def start_app(self, index: int) -> Process:
        """Start one app and return once it is up, which takes no request: its node is ready, and its port open."""
        app = self._launch(index)
        self._wait_up(index, app)
        return app

    def start_all(self) -> list[Process]:
        """Start all apps at the same time and return them once they are up."""
        apps = [self._launch(index) for index in range(len(self.app_urls))]
        for index, app in enumerate(apps):
            self._wait_up(index, app)
        return apps

    def wait_joined(self, index: int) -> float:
        """Wait until app `index` counts the nodes of all others as linked; return how long that took, seconds.

        An app that is up has synced already, unless it met nobody for two seconds; then this is what waits for the
        nodes to meet.
        """
        others = len(self._serving) - 1

        def joined() -> bool:
            nodes = self._serving[index].nodes()
            return bool(nodes) and all(sum(peer["linked"] for peer in node["members"]) == others for node in nodes)

        return wait_until(joined, f"app{index + 1} links to the other apps' nodes")

    def client(self) -> httpx2.Client:
        """Return a new browser without cookies, which opens nginx."""
        return httpx2.Client(base_url=self.url, trust_env=False, timeout=REQUEST_S)

    def sticky_index(self) -> int:
        """Return the app to which nginx's ip_hash sends 127.0.0.1 while both are up.

        nginx hashes the first three bytes of an IPv4 address (ngx_http_upstream_ip_hash_module.c).
        """
        hashed = 89
        for byte in (127, 0, 0):
            hashed = (hashed * 113 + byte) % 6271
        return hashed % 2

    def print_logs(self) -> None:
        """Print the end of each process's log to standard error."""
        for process in self._started:
            print(process.log_tail(), file=sys.stderr)

    def _launch(self, index: int) -> Process:
        environ = gossip_environ(self._cluster, self._node_ports[index], self._discovery) | self._environ
        command = self._app.serve(self._app_ports[index])
        app = self._start(f"app{index + 1}-{len(self._started)}", command, environ, self._app.folder)
        self._serving[index] = app
        return app

    def _wait_up(self, index: int, app: Process) -> None:
        # An ASGI app has no open port before its node is synced. gunicorn's master listens before its worker has even
        # made the app, which takes until the node is synced.
        def up() -> bool:
            nodes = app.nodes()
            return bool(nodes) and all(node["ready"] for node in nodes) and listening(self._app_ports[index])

        app.wait_for(up, "serving")

    def _start(self, name: str, command: list[str], environ: dict[str, str], work_in: Path | None = None) -> Process:
        process = Process(name, command, environ, self._folder, work_in)
        self._stack.callback(process.stop)
        self._started.append(process)
        return process

    def _start_nginx(self) -> None:
        path = nginx_path()
        if path is None:
            raise ScenarioError("nginx is not installed")
        config = self._folder / "nginx.conf"
        config.write_text(_nginx_config(self._nginx_port, self._app_ports, self._balance))
        command = [path, "-p", str(self._folder), "-e", "stderr", "-c", str(config)]
        nginx = self._start("nginx", command, dict(os.environ))
        nginx.wait_for(lambda: listening(self._nginx_port), "listening")

    def _report_failure(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.print_logs()


def _group_of(process: str) -> int | None:
    try:
        return os.getpgid(int(process))
    except (ProcessLookupError, ValueError):
        return None


def listening(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        return probe.connect_ex((LOOPBACK, port)) == 0


def _nginx_config(port: int, app_ports: list[int], balance: Balance) -> str:
    # max_fails=0: an app that was refused once, since it was not up yet, would otherwise be left out for ten
    # seconds, and nginx answer 502 for as long after the other one is killed. That is nginx's memory of dead
    # upstreams; here the apps' memory of sessions is tested.
    servers = "\n".join(f"server {LOOPBACK}:{app_port} max_fails=0;" for app_port in app_ports)
    return f"""
        {"user root;" if os.geteuid() == 0 else ""}
        worker_processes 1;
        daemon off;
        pid nginx.pid;
        events {{ worker_connections 256; }}
        http {{
            access_log access.log;
            client_body_temp_path body;
            proxy_temp_path proxy;
            fastcgi_temp_path fastcgi;
            uwsgi_temp_path uwsgi;
            scgi_temp_path scgi;
            # A time to connect of the last that was asked: it took the request.
            map $upstream_connect_time $cut {{ default ""; "~[0-9]$" 1; }}
            upstream shop {{
                {"ip_hash;" if balance == "ip_hash" else ""}
                {servers}
            }}
            server {{
                listen {LOOPBACK}:{port};
                location / {{
                    proxy_pass http://shop;
                    proxy_set_header Host $host;
                    add_header X-Upstreams $upstream_addr always;
                    error_page 502 504 @nobody;
                }}
                location @nobody {{
                    add_header {CUT} $cut always;
                    return 502;
                }}
            }}
        }}
        """
