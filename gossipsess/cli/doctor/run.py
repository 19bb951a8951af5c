# Run: every check in its turn, on one Trio loop, then what follows from all of them.
#
# In:    the settings of the environment.    Out: an exit code; text or JSON.
# Order: what costs nothing first; then listening, looking up and visiting this machine's own ports, at the same time;
#        then whoever was told by any of these; then whom those know.
# Bound: addresses visited, at once and in all, and each wait. So it ends, however large the cluster is.

import os
import sys
import sysconfig
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from socket import AF_UNSPEC
from typing import Any, Final

import trio

from gossipsess.cli.doctor.address import check_address
from gossipsess.cli.doctor.finding import Finding, Verdict
from gossipsess.cli.doctor.hooks import check_hooks
from gossipsess.cli.doctor.local import ask_here, check_local, known_to
from gossipsess.cli.doctor.multicast import check_multicast
from gossipsess.cli.doctor.names import Answer, check_name, is_needed
from gossipsess.cli.doctor.outpost import Outpost, Visit
from gossipsess.cli.doctor.ports import TAKEN_MAX, check_ports, own_address, taken_ports
from gossipsess.cli.doctor.report import Report, print_report
from gossipsess.cli.doctor.settings import check_settings
from gossipsess.cli.doctor.visits import check_clocks, check_links, check_visit
from gossipsess.config import Config
from gossipsess.discovery import Discovery
from gossipsess.errors import ConfigError
from gossipsess.model.member import Address, Name
from gossipsess.runtime import localkey, resolver
from gossipsess.runtime.sockets import is_local
from gossipsess.wire.keyring import Keyring

VISITS_MAX: Final = 64
AT_ONCE: Final = 16
NAMED_PORTS_MAX: Final = 16
"""Tried at an address that a name told, from the first on, until a node of this cluster is met."""

Progress = Callable[[str], None]


def run(*, seconds: float, as_json: bool) -> int:
    """Examine, print, and return the exit code."""
    progress = _on_terminal if sys.stderr.isatty() else _nowhere
    report: Report | None = None
    try:
        report = trio.run(examine, seconds, progress, os.environ)
    except* KeyboardInterrupt:
        pass
    finally:
        progress("")
    return 130 if report is None else print_report(report, as_json=as_json)


async def examine(seconds: float, progress: Progress, environ: Mapping[str, str]) -> Report:
    """Look at everything; listen to multicast for so many seconds."""
    try:
        config = Config.from_env(environ)
        secret = config.secret or localkey.local_secret()[0]
        keyring = Keyring.from_secrets(config.cluster, secret, config.secret_fallbacks)
        advertised, found = check_address(config, environ)
    except ConfigError as error:
        return Report([Finding("settings", "fail", str(error), "", "settings")], refused=True)
    examination = Examination(config, keyring, seconds, progress, advertised)
    examination.found = [*check_settings(config, keyring, environ), *found]
    if is_local(config.bind_address):
        await examination.run()
    return Report(examination.found, cluster=config.cluster, key=keyring.primary.key_id.hex())


@dataclass
class Examination:
    """One run of the doctor's."""

    config: Config
    keyring: Keyring
    seconds: float
    progress: Progress
    advertised: str
    found: list[Finding] = field(default_factory=list)
    visits: list[Visit] = field(default_factory=list)
    here: dict[int, Visit] = field(default_factory=dict)
    """By port: who was met on this machine's own range."""
    answers: list[Answer] = field(default_factory=list)
    asked: tuple[list[dict[str, Any]], list[str], str] = ([], [], "")
    """What the nodes of this machine said of themselves, see `local.ask_here`."""

    def __post_init__(self) -> None:
        self.is_local = cache(is_local)

    async def run(self) -> None:
        """Look at everything."""
        parts = self.config.discovery_parts()
        taken = taken_ports(self.config)
        group = parts.multicast
        try:
            outpost = Outpost(self.config, self.keyring, group)
        except ConfigError as error:
            verdict: Verdict = "warn" if parts.can_do_without_multicast else "fail"
            self.found.append(Finding("multicast", verdict, str(error), "", "multicast-local"))
            group = None
            outpost = Outpost(self.config, self.keyring, None)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(outpost.serve)
                await self._gather(outpost, parts, group, [one.port for one in taken if one.tcp][:TAKEN_MAX])
                nursery.cancel_scope.cancel()
        finally:
            outpost.close()

        elsewhere = [visit for visit in self._met() if not self._is_mine(visit.address[0])]
        self.found += [
            *check_ports(self.config, taken, self.here),
            *check_local(self.config, *self.asked, alone=not self._met()),
            *check_hooks(self.config, self.asked[0], os.environ, sysconfig.get_path("purelib")),
        ]
        for answer in self.answers:
            needed = is_needed(self.config, parts, met_elsewhere=bool(elsewhere))
            self.found.append(check_name(answer, needed=needed, is_mine=self._is_mine))
        if group is not None:
            self.found += check_multicast(
                self.config, outpost.ears, group, self.seconds,
                met_elsewhere=bool(elsewhere), is_mine=self._is_mine,
            )  # fmt: skip
        everyone = [visit for visit in self.here.values() if visit.outcome == "met"] + self.visits
        for visit in everyone:
            self.found += check_visit(visit, self.config)
        self.found += [*check_clocks(everyone, self._is_mine), *check_links(everyone), self._company()]

    async def _gather(self, outpost: Outpost, parts: Discovery, group: Address | None, ports: list[int]) -> None:
        async with trio.open_nursery() as nursery:
            if group is not None:
                self.progress(f"listening to multicast for {self.seconds:g} s")
                nursery.start_soon(outpost.beacon, self.seconds)
            for name in parts.names:
                nursery.start_soon(self._look_up, outpost, name)
            nursery.start_soon(self._visit_here, outpost, ports)
            nursery.start_soon(self._ask_here)
        candidates = dict.fromkeys(parts.seeds, ("seed", 1))
        for answer in self.answers:
            told_by = f"{answer.name.scheme}://{answer.name.host}"
            for address in answer.addresses:
                candidates.setdefault(address, (told_by, min(answer.name.ports, NAMED_PORTS_MAX)))
        for address in outpost.ears.heard:
            candidates.setdefault(address, ("multicast", 1))
        for address in known_to(self.config, self.asked[0]):
            candidates.setdefault(address, ("known here", 1))
        self.visits = await self._visit(outpost, candidates)
        met = {visit.node for visit in (*self.here.values(), *self.visits)}
        known: dict[Address, tuple[str, int]] = {}
        for visit in (*self.here.values(), *self.visits):
            for told in visit.hello.members if visit.hello is not None else ():
                if told.member.is_live and told.member.node not in met:
                    known.setdefault(told.member.address, (f"known at {visit.address[0]}", 1))
        self.visits += await self._visit(outpost, known)

    def _met(self) -> list[Visit]:
        return [visit for visit in (*self.here.values(), *self.visits) if visit.outcome == "met"]

    async def _ask_here(self) -> None:
        self.asked = await trio.to_thread.run_sync(ask_here)

    async def _look_up(self, outpost: Outpost, name: Name) -> None:
        answer = Answer(name)
        began_s = trio.current_time()
        try:
            answer.addresses = await outpost.look_up(name)
        except OSError as error:
            answer.error = error
        answer.took_s = trio.current_time() - began_s
        if not answer.addresses and not isinstance(answer.error, TimeoutError):
            with suppress(OSError):
                answer.others = await resolver.look_up(name, AF_UNSPEC)
        self.answers.append(answer)

    async def _visit_here(self, outpost: Outpost, ports: list[int]) -> None:
        visits = await self._visit_all(outpost, {own_address(self.config, port): ("this machine", 1) for port in ports})
        self.here = {visit.address[1]: visit for visit in visits}

    async def _visit(self, outpost: Outpost, candidates: dict[Address, tuple[str, int]]) -> list[Visit]:
        """Visit those that were not yet, as many as there is room for."""
        been = {visit.address for visit in self.visits}
        wanted = {
            address: how
            for address, how in candidates.items()
            if address not in been and not (self._is_mine(address[0]) and self._is_in_range(address[1]))
        }
        room = max(0, VISITS_MAX - len(self.visits))
        if len(wanted) > room:
            text = f"{len(wanted) - room} further addresses are not visited: {VISITS_MAX} are enough to tell"
            self.found.append(Finding("node", "info", text))
        if wanted:
            self.progress(f"visiting {len(wanted)} address{'es' if len(wanted) > 1 else ''}")
        return await self._visit_all(outpost, dict(list(wanted.items())[:room]))

    async def _visit_all(self, outpost: Outpost, candidates: dict[Address, tuple[str, int]]) -> list[Visit]:
        visits: dict[Address, Visit] = {}
        limit = trio.CapacityLimiter(AT_ONCE)

        async def one(address: Address, told_by: str, ports: int) -> None:
            async with limit:
                visits[address] = await outpost.visit(address, told_by, ports)

        async with trio.open_nursery() as nursery:
            for address, how in candidates.items():
                nursery.start_soon(one, address, *how)
        return [visits[address] for address in candidates]

    def _is_in_range(self, port: int) -> bool:
        return self.config.port != 0 and 0 <= port - self.config.port < self.config.port_range

    def _is_mine(self, host: str) -> bool:
        return host == self.advertised or self.is_local(host)

    def _company(self) -> Finding:
        met = {visit.node: visit for visit in self._met()}
        here = [visit for visit in met.values() if self._is_mine(visit.address[0])]
        others = len(met) - len(here)
        text = f"{others} node{'' if others == 1 else 's'} of this cluster elsewhere, {len(here)} on this machine"
        if others or len(here) > 1:
            return Finding("cluster", "ok", text)
        if here:
            advice = "With one process only that is all. Else start another beside it, or cure what is named here."
            return Finding("cluster", "fail", f"{text}: it is alone", advice, "alone")
        advice = "Start the application, and run this beside it, with the same environment."
        return Finding("cluster", "fail", f"{text}: nobody is there", advice, "alone")


def _on_terminal(text: str) -> None:
    print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _nowhere(text: str) -> None:
    pass
