# Dns: a real dnsmasq as the cluster's name server, and what is wrong with what it says.
#
# In:     which addresses a name has, as it changes.   Out: `Dns.add / remove / set`; `resolv_conf` for the pods.
# Choice: records stand in a hosts file that dnsmasq reads anew on SIGHUP, with no moment in between. A name without a
#         record does not exist (NXDOMAIN). A lag is the time from a change to its being told, as it comes about between
#         a pod's start or end and the records of its Service; so stale and partial answers are made.
# Not here: who asks, and why a name should have an address (deployment.py).

import os
import signal
from pathlib import Path
from typing import Final

import trio

from ..chaos.fleet import POLL_S, in_time
from ..e2e.harness import Process
from .network import Network, inside_command

ZONE: Final = "default.svc.cluster.local"
START_S: Final = 10.0


class Dns:
    """One name server, with an address on the network.

    Attributes:
        lag_s: how long a change takes until it is told, from now on.
    """

    def __init__(self, network: Network, nursery: trio.Nursery, folder: Path) -> None:
        self.address = network.free_address(service=True)
        self.lag_s = 0.0
        self._network = network
        self._nursery = nursery
        self._folder = folder
        self._hosts = folder / "records"
        self._records: dict[str, list[str]] = {}
        self._changing = trio.Lock()
        self._paused = False
        self._process: Process | None = None

    @property
    def resolv_conf(self) -> str:
        """What a pod's /etc/resolv.conf says: as in Kubernetes, a short name is one of the own namespace first."""
        search = " ".join(ZONE.split(".", count)[-1] for count in range(3))
        return f"nameserver {self.address}\nsearch {search}\noptions ndots:5\n"

    async def start(self, ttl_s: int = 5) -> None:
        """Start it; it knows no name yet. `ttl_s` is what each record says."""
        self._write()
        namespace = await self._network.attach("dns", self.address)
        command = [
            *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--pid-file="),
            *("--log-facility=-", "--log-queries", "--no-hosts", f"--addn-hosts={self._hosts}"),
            *(f"--listen-address={self.address}", "--bind-interfaces", "--no-resolv"),
            # All names are known here or nowhere: without this an unknown one would be refused, not denied.
            *("--local=//", "--local=/#/", f"--local-ttl={ttl_s}"),
        ]
        self._process = Process("dns", inside_command(namespace, command), dict(os.environ), self._folder)
        await trio.to_thread.run_sync(self._process.wait_for, lambda: self._reads() > 0, "serving names")

    def addresses(self, name: str) -> list[str]:
        """Return what is told for a name now."""
        return list(self._records.get(name, ()))

    def add(self, name: str, address: str) -> None:
        """Tell one more address for a name, after the lag."""
        self._nursery.start_soon(self._change, name, address, True)

    def remove(self, name: str, address: str) -> None:
        """Tell an address no more for a name, after the lag."""
        self._nursery.start_soon(self._change, name, address, False)

    async def set(self, name: str, addresses: list[str]) -> None:
        """Tell just these, and return once that is so; none: the name does not exist."""
        async with self._changing:
            await self._tell(name, addresses)

    def queries(self, name: str) -> int:
        """Return how often a name's addresses were asked for by now."""
        return sum("query[" in line and f" {name}.{ZONE} " in line for line in self._log().splitlines())

    def pause(self) -> None:
        """Answer nothing; what is asked meanwhile is answered late, on `resume`."""
        assert self._process is not None
        self._paused = True
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Answer again."""
        assert self._process is not None
        self._paused = False
        os.kill(self._process.pid, signal.SIGCONT)

    def close(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()

    def log_tail(self) -> str:
        """Return the end of its log."""
        return self._process.log_tail() if self._process is not None else ""

    async def _change(self, name: str, address: str, present: bool) -> None:
        await trio.sleep(self.lag_s)
        async with self._changing:
            told = [one for one in self.addresses(name) if one != address]
            await self._tell(name, [*told, address] if present else told)

    async def _tell(self, name: str, addresses: list[str]) -> None:
        assert self._process is not None
        self._records[name] = list(addresses)
        reads = self._reads()
        self._write()
        os.kill(self._process.pid, signal.SIGHUP)
        with in_time("new records are told", START_S):
            while self._reads() == reads and not self._paused:  # noqa: ASYNC110  # another process sets no event
                await trio.sleep(POLL_S)

    def _write(self) -> None:
        new = self._hosts.with_suffix(".new")
        lines = [f"{one} {name}.{ZONE}\n" for name, told in self._records.items() for one in told]
        new.write_text("".join(lines))
        new.replace(self._hosts)

    def _reads(self) -> int:
        """Return how often it has read the records."""
        return self._log().count(f"read {self._hosts} ")

    def _log(self) -> str:
        assert self._process is not None
        return self._process.log.read_text(errors="replace")
