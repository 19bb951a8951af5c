# Fleet: replicas of one web application behind a balancer, under steady load, and what an operator does to them.
#
# In:     how many places, and on which hosts they say they are.
# Out:    `open_fleet`, `Fleet.start / restart / retire / kill`; `shopping` puts clients on it and judges what they saw;
#         `script_parser` and `run_script` are what the scripts have in common.
# Choice: a place keeps its ports, as a container that is restarted in its pod does. A planned stop is announced: the
#         balancer sends nothing more, what is under way ends, then SIGTERM. `kill -9` is announced to nobody.
#         A start takes as long as the application takes until it opens its port; nothing is waited for beyond.
# Bound:  a script ends in time or fails. Only processes started here are ended.
# Not here: what is to be proved (rolling.py, grow.py, host.py, joiner.py, in_place.py).

import argparse
import contextlib
import json
import math
import random
import re
import signal
import sys
import tempfile
import textwrap
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from gossipsess.model.record import VALUE_BYTES_MAX

from ..e2e.harness import DISCOVERIES, START_S, Discovery, Process, ScenarioError, discovery_setting, gossip_environ
from ..ports import LOOPBACK, free_ports
from .balancer import Balancer, CutError, fetch
from .shoppers import Tally, audit, open_shop

POLL_S: Final = 0.01
STOP_MAX_S: Final = 20.0
"""After SIGTERM: handing over takes at most 10 s, and the server ends its connections before."""
NEVER_MEET: Final = "Where nodes never meet, everything must be lost: --discovery none shows that it would be seen."
NODES_MIN: Final = 2
"""One alone loses everything with its process, and that proves nothing."""
_APPS: Final = Path(__file__).parent / "apps"


class Place:
    """Where one replica lives: ports and a host that stay, and the process that is there now."""

    def __init__(self, index: int, port: int, node_port: int, host: str) -> None:
        self.index = index
        self.port = port
        self.node_port = node_port
        self.host = host
        self.starts = 0
        self.process: Process | None = None

    @property
    def running(self) -> bool:
        """A process is here."""
        return self.process is not None and self.process.running

    def rss_bytes(self) -> int:
        """Return the memory that the process has in use."""
        return self._of_process("status", lambda text: int(text.partition("VmRSS:")[2].split()[0]) * 1024)

    def cpu_ticks(self) -> int:
        """Return the time for which the process has computed, in the kernel's ticks."""
        return self._of_process("stat", lambda text: sum(int(part) for part in text.rpartition(")")[2].split()[11:13]))

    def pulled_bytes(self) -> int:
        """Return how much has been moved to its node by now, as it last said before it was synced."""
        if self.process is None:
            return 0
        said = re.findall(r"^pulled (\d+) bytes$", self.process.log.read_text(errors="replace"), re.MULTILINE)
        return int(said[-1]) if said else 0

    def _of_process(self, file: str, read: Callable[[str], int]) -> int:
        if self.process is None or not self.process.running:
            raise ScenarioError(f"no process is at place {self.index}")
        return read(Path(f"/proc/{self.process.pid}/{file}").read_text())


class Fleet:
    """Places, of which some have a process; made by `open_fleet`.

    Attributes:
        starts_s: how long each start took until the port was open.
        stops_s: how long each planned stop took, from SIGTERM until the process was gone.
    """

    def __init__(self, places: list[Place], balancer: Balancer, discovery: str, folder: Path) -> None:
        self.places = places
        self.balancer = balancer
        self.starts_s: list[float] = []
        self.stops_s: list[float] = []
        self.killed = False
        self._cluster = f"fleet-{uuid.uuid4().hex}"
        self._discovery = discovery
        self._folder = folder
        self._processes: list[Process] = []

    @property
    def running(self) -> list[Place]:
        """Places with a process."""
        return [place for place in self.places if place.running]

    async def start(self, *places: Place, put_in: bool = True) -> None:
        """Start processes at the same time, and put each in once its port is open.

        Raises:
            ScenarioError: one ended, or did not open its port in time.
        """
        async with trio.open_nursery() as nursery:
            for place in places:
                nursery.start_soon(self._start_one, place, put_in)

    async def retire(self, place: Place) -> None:
        """Take a place out, let what is under way end, send SIGTERM and wait until the process is gone.

        Raises:
            ScenarioError: it did not end in time by itself.
        """
        assert place.process is not None
        self.balancer.take_out(place.port)
        await self.balancer.wait_idle(place.port)
        began_s = time.monotonic()
        if not await trio.to_thread.run_sync(place.process.stop, STOP_MAX_S):
            raise ScenarioError(f"{place.process.name} did not end within {STOP_MAX_S:g} s of SIGTERM")
        self.stops_s.append(time.monotonic() - began_s)

    async def restart(self, place: Place) -> None:
        """Retire the process at a place and start another one there."""
        await self.retire(place)
        await self.start(place)

    def kill(self, *places: Place) -> None:
        """``kill -9`` without a word to the balancer."""
        self.killed = True
        for place in places:
            assert place.process is not None
            place.process.kill()

    async def status(self, place: Place) -> dict[str, Any]:
        """Return what the node at a place says of itself.

        Raises:
            OSError, CutError: it gives no answer.
        """
        answer: dict[str, Any] = (await fetch(place.port, "GET", "/status")).json()
        return answer

    async def wait_linked(self) -> None:
        """Wait until every running node is linked to every other.

        Raises:
            ScenarioError: not in time.
        """

        async def linked() -> bool:
            told = [await self.status(place) for place in self.running]
            return all(one["linked"] == len(told) - 1 for one in told)

        await until(linked, "every node is linked to every other", START_S)

    def end_all(self) -> None:
        """Kill whatever was started and still runs."""
        for process in self._processes:
            process.kill()

    def print_logs(self) -> None:
        """Print the end of each process's log to standard error."""
        for process in self._processes:
            print(process.log_tail(), file=sys.stderr)

    async def _start_one(self, place: Place, put_in: bool) -> None:
        place.starts += 1
        command = [
            *(sys.executable, "-m", "uvicorn", "shop:app", "--app-dir", str(_APPS), "--no-access-log"),
            *("--host", LOOPBACK, "--port", str(place.port)),
        ]
        environ = gossip_environ(self._cluster, place.node_port, self._discovery) | {"GOSSIPSESS_HOST": place.host}
        began_s = time.monotonic()
        process = Process(f"place{place.index}-{place.starts}", command, environ, self._folder)
        place.process = process
        self._processes.append(process)

        async def serves() -> bool:
            if not process.running:
                raise ScenarioError(f"{process.name} ended before it served")
            try:
                await self.status(place)
            except (OSError, CutError):
                return False
            return True

        await until(serves, f"{process.name} opens its port", START_S)
        self.starts_s.append(time.monotonic() - began_s)
        if put_in:
            self.balancer.put_in(place.port)


def own_hosts(count: int) -> list[str]:
    """Return the hosts of so many places, each on one of its own."""
    return [f"host-{index}" for index in range(count)]


@contextlib.asynccontextmanager
async def open_fleet(hosts: Sequence[str], discovery: Discovery = "static") -> AsyncIterator[Fleet]:
    """Give a fleet with a place for each of `hosts`, and its balancer; nothing runs at first."""
    balancer_port, multicast_port, *ports = free_ports(2 + 2 * len(hosts))
    web_ports, node_ports = ports[: len(hosts)], ports[len(hosts) :]
    places = [Place(index, web_ports[index], node_ports[index], host) for index, host in enumerate(hosts)]
    setting = discovery_setting(discovery, node_ports, multicast_port)
    with tempfile.TemporaryDirectory(prefix="fleet-") as folder:
        fleet = Fleet(places, Balancer(balancer_port), setting, Path(folder))
        try:
            async with trio.open_nursery() as nursery:
                await fleet.balancer.serve(nursery)
                yield fleet
                nursery.cancel_scope.cancel()
        except BaseException:
            fleet.print_logs()
            raise
        finally:
            fleet.end_all()


@contextlib.asynccontextmanager
async def shopping(fleet: Fleet, rng: random.Random) -> AsyncIterator[Tally]:
    """Have clients use the fleet meanwhile; then look for all that they wrote on every node that runs."""
    async with open_shop(partial(fetch, fleet.balancer.port), rng) as tally:
        yield tally
    tally.hurt = fleet.killed
    await audit(tally, [partial(fetch, place.port) for place in fleet.running])


@contextlib.contextmanager
def in_time(what: str, timeout_s: float) -> Iterator[None]:
    """Let the block take so long; then ScenarioError."""
    try:
        with trio.fail_after(timeout_s):
            yield
    except trio.TooSlowError as error:
        raise ScenarioError(f"{what}: not within {timeout_s:g} s") from error


async def until(holds: Callable[[], Awaitable[bool]], what: str, timeout_s: float) -> None:
    """Ask again and again until it holds.

    Raises:
        ScenarioError: it did not within `timeout_s`.
    """
    with in_time(what, timeout_s):
        while not await holds():  # noqa: ASYNC110  # what is asked is another process, which sets no event here
            await trio.sleep(POLL_S)


def script_parser(
    name: str,
    description: str,
    example: str,
    *,
    control: str = "",
    rounds: tuple[int, str] | None = None,
    nodes: tuple[int, str] | None = None,
    nodes_min: int = NODES_MIN,
    package: str = "tests.chaos",
    sessions: int | None = None,
    value_bytes: int | None = None,
    seconds: float,
    seed: str | None = None,
    discovery: bool = False,
) -> argparse.ArgumentParser:
    """Return a parser of the arguments that scripts share; it refuses those with which a run would prove nothing.

    Args:
        example: arguments that one may want.
        control: how the script shows that it can fail.
        package: where the script is.
        rounds, nodes: the default, and what they are; `nodes_min`: the fewest that prove anything.
        sessions, value_bytes, seconds: the default. A script has no argument for what is None or False.
        seed: what hangs on it.
    """
    command = f"python -m {package}.{name}"
    parser = argparse.ArgumentParser(
        prog=command,
        description=textwrap.fill(description, 100),
        epilog="\n\n".join([*([textwrap.fill(control, 100)] if control else []), f"example:\n  {command} {example}"]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    def add(option: str, default: float | str, what: str, **how: Any) -> None:
        parser.add_argument(option, default=default, help=f"{what} (default: %(default)s)".lstrip(), **how)

    if rounds is not None:
        add("--rounds", *rounds, type=whole(1))
    if nodes is not None:
        add("--nodes", *nodes, type=whole(nodes_min))
    if sessions is not None:
        add("--sessions", sessions, "that they are filled with", type=whole(1))
    if value_bytes is not None:
        add("--bytes", value_bytes, "of each session's value", type=whole(1, VALUE_BYTES_MAX))
    add("--seconds", seconds, "all of it must be done by then", type=_duration)
    if seed is not None:
        add("--seed", 1, seed, type=int)
    if discovery:
        add("--discovery", "static", "none: the control", choices=DISCOVERIES)
    return parser


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return what argparse is to read a whole number with that is not less than one bound, nor more than the other."""
    allowed = f"{least} or more" if most is None else f"{least} to {most}"

    def read(text: str) -> int:
        with contextlib.suppress(ValueError):
            number = int(text)
            if least <= number and (most is None or number <= most):
                return number
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; take a whole number, {allowed}")

    return read


def _duration(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not allowed; take a number of seconds above 0")


def run_script(name: str, seconds: float, play: Callable[[], Awaitable[dict[str, Any]]]) -> int:
    """Play, print one line of JSON, and return 0 if its figure `clean` says so, else 1.

    What is not done within `seconds` is broken.
    """

    async def bounded() -> dict[str, Any]:
        with in_time(name, seconds):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_break_on_sigterm)
                played = await play()
                nursery.cancel_scope.cancel()
        return played

    began_s = time.monotonic()
    result: dict[str, Any] = {"clean": False}
    try:
        result = trio.run(bounded)
    except* ScenarioError as errors:
        result["broken"] = [str(error) for error in _leaves(errors)]
    print(json.dumps({"script": name} | result | {"seconds": round(time.monotonic() - began_s, 1)}))
    return 0 if result["clean"] else 1


async def _break_on_sigterm() -> None:
    """End as for any other reason: else what was started here would live on."""
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async for _ in signals:
            raise ScenarioError("SIGTERM")


def _leaves(errors: BaseExceptionGroup[Any]) -> list[BaseException]:
    return [
        leaf for one in errors.exceptions for leaf in (_leaves(one) if isinstance(one, BaseExceptionGroup) else [one])
    ]
