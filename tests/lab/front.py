# Front: a real nginx that sends each request to the next pod in turn, or each client to one.
#
# In:     `put_in` and `take_out` of pods' addresses, as readiness decides.   Out: `Front.ask`, which makes a request.
# Rules:  nginx's own. A pod that refuses the connection got nothing, so the next one is asked, whatever the request.
#         One that took the request and gave no answer may have carried it out: a GET goes to the next one, anything
#         else is answered 502, here with the header X-Cut (see balancer.py, whose clients read it).
# Choice: a new configuration and SIGHUP for each change, as an ingress controller does it: the old worker ends what is
#         under way and goes. So whoever was taken out has nothing under way any more once the old worker is gone.
#         max_fails=0: what readiness says counts, and a pod is not left out for ten seconds since it was refused once.
# Not here: when a pod is ready (deployment.py).

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import trio

from ..chaos.balancer import Answer
from ..e2e.harness import Process, ScenarioError, nginx_path
from .network import Network, inside_command

PORT: Final = 80
APP_PORT: Final = 8000
POLL_S: Final = 0.02
RELOAD_S: Final = 20.0


class Front:
    """One nginx, with an address on the network.

    `sticky`: requests from one address go to one pod while it lives, as with the manifests' overlay client-ip.
    """

    def __init__(self, network: Network, folder: Path, name: str = "front", *, sticky: bool = False) -> None:
        self.address = network.free_address(service=True)
        self._network = network
        self._name = name
        self._folder = folder / name
        self._config = self._folder / "nginx.conf"
        self._balance = "hash $remote_addr consistent;" if sticky else ""
        self._in: list[str] = []
        self._changing = trio.Lock()
        self._process: Process | None = None

    async def start(self) -> None:
        """Start it; every request is answered 502 until somebody is put in."""
        self._folder.mkdir()
        self._write()
        namespace = await self._network.attach(self._name, self.address)
        path = nginx_path()
        assert path is not None, "the network was opened, so it is installed"
        command = [path, "-p", str(self._folder), "-e", "stderr", "-c", str(self._config)]
        process = Process(self._name, inside_command(namespace, command), dict(os.environ), self._folder)
        self._process = process
        await trio.to_thread.run_sync(process.wait_for, lambda: bool(_children(process.pid)), "listening")

    async def put_in(self, address: str) -> None:
        """Send requests there too; returns once that is so."""
        async with self._changing:
            if address not in self._in:
                self._in.append(address)
                await self._reload()

    async def take_out(self, address: str) -> None:
        """Send no more requests there; returns once none is under way."""
        async with self._changing:
            if address in self._in:
                self._in.remove(address)
                await self._reload()

    async def ask(self, method: str, path: str, cookies: Mapping[str, str]) -> Answer:
        """Make one request; see `Network.ask` for what it raises."""
        return await self._network.ask(self.address, PORT, method, path, cookies)

    def close(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()

    def log_tail(self) -> str:
        """Return the end of its log."""
        return self._process.log_tail() if self._process is not None else ""

    async def _reload(self) -> None:
        self._write()
        assert self._process is not None
        before = _children(self._process.pid)
        os.kill(self._process.pid, signal.SIGHUP)
        with trio.move_on_after(RELOAD_S):
            while set(before) & set(_children(self._process.pid)):  # noqa: ASYNC110  # another process sets no event
                await trio.sleep(POLL_S)
            return
        raise ScenarioError(f"{self._name}: a worker is not gone {RELOAD_S:g} s after it got a new configuration")

    def _write(self) -> None:
        def at(address: str, port: int) -> str:
            return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"

        servers = [f"server {at(address, APP_PORT)} max_fails=0;" for address in self._in]
        self._config.write_text(f"""
            {"user root;" if os.geteuid() == 0 else ""}
            worker_processes 1;
            daemon off;
            pid nginx.pid;
            events {{ worker_connections 256; }}
            http {{
                access_log off;
                client_body_temp_path body;
                proxy_temp_path proxy;
                fastcgi_temp_path fastcgi;
                uwsgi_temp_path uwsgi;
                scgi_temp_path scgi;
                # A time to connect of the last that was asked: it took the request.
                map $upstream_connect_time $cut {{ default ""; "~[0-9]$" 1; }}
                upstream shop {{ {self._balance} {" ".join(servers) or "server 127.0.0.1:1 down;"} }}
                server {{
                    listen {at(self.address, PORT)};
                    location / {{
                        proxy_pass http://shop;
                        proxy_set_header Host $host;
                        proxy_connect_timeout 2s;
                        error_page 502 504 @nobody;
                    }}
                    location @nobody {{
                        add_header X-Cut $cut always;
                        return 502;
                    }}
                }}
            }}
        """)


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]
