"""How nodes that start at the same time become one cluster where a name service is all they have, in virtual time.

In each start 2 to 20 nodes come up within three seconds. What each lookup gives is drawn: see `Script`. Whatever it is,
all must be linked with all in the end (else the split is lasting), and each must be ready by itself before that.

empty    no record, or no such name, for up to 30 s
lagging  each node's record comes up to 30 s after its start, and every resolver keeps an answer for up to 30 s
stale    addresses where nobody is any more, some of which say nothing, some refuse
partial  each answer has some of the addresses only
reused   addresses that nodes of another cluster have taken over
mixed    all of it

    python -m tests.simulation.formation                1,000 starts; about ten minutes on one core
    python -m tests.simulation.formation --starts 60    fewer

Prints one line of JSON for each kind and one for all; exit code 1 after a lasting split, or where a node was not ready.
"""

import argparse
import json
import random
import sys
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Any, Final, NamedTuple

from gossipsess.model.member import Address
from gossipsess.protocol.replica import ALONE_S, SEARCH_S
from gossipsess.sim.cluster import Cluster
from gossipsess.sim.network import Faults
from gossipsess.sim.process import Process
from gossipsess.sim.scenario import Scenario
from tests.simulation.detection import percentile

KINDS: Final = ("empty", "lagging", "stale", "partial", "reused", "mixed")
WITHIN_S: Final = 3.0
"""All nodes start within this."""
LATE_S: Final = 30.0
"""How late a record may come, and how long an answer may be kept."""
GIVE_UP_S: Final = 180.0
"""Apart for so long after the last start: lasting."""
READY_S: Final = SEARCH_S + ALONE_S
"""A node is ready so long after its start at the latest, whoever has answered."""
STEP_S: Final = 0.05


class Start(NamedTuple):
    """What became of one start."""

    nodes: int
    formed_s: float
    """From the last start until all were linked with all; infinite where they were not."""
    ready_s: float
    """The longest that a node took from its start until it was ready."""


class Script:
    """A name service that is wrong in the ways of its kind."""

    def __init__(self, kind: str, cluster: Cluster, rng: random.Random) -> None:
        def has(name: str) -> bool:
            return kind in (name, "mixed")

        self._cluster = cluster
        self._rng = rng
        self._empty_until_s = rng.uniform(0, LATE_S) if has("empty") else 0.0
        self._lag_s = rng.choice((5.0, LATE_S)) if has("lagging") else 0.0
        self._kept_s = rng.choice((0.0, 5.0, LATE_S)) if has("lagging") else 0.0
        self._share = rng.uniform(0.2, 0.9) if has("partial") else 1.0
        self._dead = [(f"10.8.0.{number}", 7950) for number in range(rng.randint(1, 8) if has("stale") else 0)]
        self._others = [(f"10.7.0.{number}", 7950) for number in range(rng.randint(1, 8) if has("reused") else 0)]
        for number, address in enumerate(self._dead):
            if number % 2:
                cluster.silent[address] = None
        cluster.foreign.update(dict.fromkeys(self._others))
        self._appears_s: dict[Address, float] = {}
        self._kept: dict[Process, tuple[float, tuple[Address, ...]]] = {}

    def started(self, process: Process) -> None:
        self._appears_s[process.address] = self._cluster.now_s + self._rng.uniform(0, self._lag_s)

    def __call__(self, process: Process) -> tuple[float, tuple[Address, ...]]:
        """Return how long a lookup takes, and its answer."""
        delay_s = self._rng.choice((0.001, 0.005, 0.1, 2.0))
        now_s = self._cluster.now_s
        until_s, kept = self._kept.get(process, (-inf, ()))
        if now_s < until_s:
            return delay_s, kept
        answer: tuple[Address, ...] = ()
        if now_s >= self._empty_until_s:
            known = [address for address, at_s in self._appears_s.items() if at_s <= now_s]
            every = [*known, *self._dead, *self._others]
            answer = tuple(one for one in every if self._rng.random() < self._share)
        self._kept[process] = now_s + self._kept_s, answer
        return delay_s, answer


def start(seed: int, kind: str) -> Start:
    """Start some nodes at nearly the same time, with that kind of name service."""
    rng = random.Random(f"formation {seed}")
    nodes = rng.randint(2, 20)
    loss = rng.choice((0.0, 0.0, 0.02))
    scenario = Scenario(seed, tuple(f"host-{n}" for n in range(nodes)), Faults(loss=loss), (), (), named=True)
    cluster = Cluster(scenario, trace=False)
    cluster.observer = Nobody()
    script = cluster.name_service = Script(kind, cluster, rng)
    starts_s = sorted(rng.uniform(0, WITHIN_S) for _ in range(nodes))
    for slot, at_s in enumerate(starts_s):
        cluster.run_until(at_s)
        script.started(cluster.start(slot))
    ready_s = dict.fromkeys(range(nodes), inf)
    while cluster.now_s < starts_s[-1] + GIVE_UP_S:
        for process in cluster.live:
            if process.replica.sessions.synced:
                ready_s[process.slot] = min(ready_s[process.slot], cluster.now_s - starts_s[process.slot])
        if inf not in ready_s.values() and all(len(one.replica.linked) == nodes - 1 for one in cluster.live):
            return Start(nodes, cluster.now_s - starts_s[-1], max(ready_s.values()))
        cluster.run_until(cluster.now_s + STEP_S)
    return Start(nodes, inf, max(ready_s.values()))


class Nobody:
    """Who watches nothing: what is looked at is read off the processes."""

    def handled(self, *_: object) -> None: ...

    def settled(self, *_: object) -> None: ...

    def delivered(self, *_: object) -> None: ...

    def handed_over(self, *_: object) -> None: ...


def figures(kind: str, starts: list[Start]) -> dict[str, Any]:
    """Return what is reported of some starts."""
    formed_s = sorted(one.formed_s for one in starts)
    return {
        "script": "formation",
        "kind": kind,
        "starts": len(starts),
        "lasting_splits": formed_s.count(inf),
        "formed_p50_s": round(percentile(formed_s, 50), 2),
        "formed_p99_s": round(percentile(formed_s, 99), 2),
        "formed_max_s": round(formed_s[-1], 2),
        "ready_max_s": round(max(one.ready_s for one in starts), 2),
    }


def is_sound(figures: dict[str, Any]) -> bool:
    """Say whether nobody stayed apart, and all were ready in time."""
    return not figures["lasting_splits"] and figures["ready_max_s"] <= READY_S + 2 * STEP_S


def play(starts: int, first: int = 1, done: Callable[[int], None] = lambda _: None) -> list[dict[str, Any]]:
    """Make so many starts, of each kind in turn; return the figures of each kind, and of all at the end."""
    of_kind: dict[str, list[Start]] = {kind: [] for kind in KINDS}
    for number in range(starts):
        kind = KINDS[number % len(KINDS)]
        of_kind[kind].append(start(first + number, kind))
        done(number + 1)
    every = [one for some in of_kind.values() for one in some]
    return [*[figures(kind, some) for kind, some in of_kind.items() if some], figures("all", every)]


def main(arguments: list[str] | None = None) -> int:
    """Print the figures; return 1 where nodes stayed apart, or one was not ready."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation.formation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--starts", type=int, default=1000, help="how many; 1 or more (default: %(default)s)")
    parser.add_argument("--first", type=int, default=1, help="the seed of the first (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.starts < 1:
        parser.error("argument --starts: 1 or more")
    began_s = monotonic()

    def done(number: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{number} of {options.starts}, {monotonic() - began_s:.0f} s", end="", file=sys.stderr)

    every = play(options.starts, options.first, done)
    for line in every:
        print(json.dumps(line))
    return 0 if all(is_sound(line) for line in every) else 1


if __name__ == "__main__":
    sys.exit(main())
