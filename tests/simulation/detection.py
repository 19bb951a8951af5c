"""How soon a lost machine is known dead, and how seldom a live one is taken for dead: figures, in virtual time.

Here a machine is lost without a word: no connection ends, none is refused, and datagrams are all there is. What a
killed process costs, whose kernel still answers, is measured with real ones: `python -m tests.chaos.detection`.

lost      one of N is lost at a random moment: until the last of the others holds it dead, and how long after the first
alive     nobody is lost, datagrams are: live members declared dead, each once, however many nodes believe it
paused    one of N stands still for three seconds under full gossip: whom it declares dead when it goes on

Bounds end the script with status 1; figures marked as a target are only printed with it.

    python -m tests.simulation.detection                about ten minutes on one core
    python -m tests.simulation.detection --only lost    one of the three, --part 0.1: a tenth of the trials
"""

import argparse
import json
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from math import ceil, inf
from time import monotonic
from typing import Any, Final, NamedTuple

from gossipsess.model.identity import NodeId
from gossipsess.model.member import MemberState, Told
from tests.simulation.swim_world import World

SETTLED_S: Final = 3.0
"""From the start of a world to the first moment that something may happen; the first news are told by then."""
SETTLED_UNDER_LOSS_S: Final = 20.0
"""Under loss each node's trust in itself needs longer to find its usual level."""
WITHIN_S: Final = 1.0
"""How much later than that it happens at the latest: at any phase of the probes."""
GIVE_UP_S: Final = 60.0
STEP_S: Final = 0.25
RUN_S: Final = 600.0
"""One world in which nobody is lost."""
PAUSE_S: Final = 3.0

LOST_P99_S: Final = 4.5
"""Bound at 2 .. 10 nodes without loss."""
LOST_MANY_P99_S: Final = 6.0
"""Target at 20 and 50 nodes without loss."""
LOST_LOSSY_P99_S: Final = {3: 13.0, 10: 6.0}
"""Targets at 30 % loss: three nodes pay for the patience that saves them from false deaths."""
SPREAD_P99_S: Final = 0.25
"""Bound at 50 nodes, from the first who knows to the last."""
FALSE_DEATHS_MAX: Final = {0.05: 0.0, 0.1: 0.0, 0.2: 0.0, 0.3: 1.0}
"""Bounds in 10,000 node-seconds, by the share of datagrams lost; at 30 % a target: two nodes have nobody to confirm."""
SMALL: Final = range(2, 11)
"""The numbers of nodes that bounds are given for."""
ALIVE_NODE_S: Final = 100_000 / 3
"""Node-seconds for each number of nodes and each share of loss."""
KINDS: Final = ("lost", "paused", "alive")


# --- one trial --------------------------------------------------------------------------------------------


class Lost(NamedTuple):
    """When the loss of one node was known, in seconds after it; infinite where it was not."""

    first_s: float
    last_s: float


def lose(nodes: int, loss: float, seed: int) -> Lost:
    """Lose one of `nodes` without a word, at a random moment."""
    world = World(nodes, seed=seed, loss=loss)
    world.run(_moment_s(seed, SETTLED_UNDER_LOSS_S if loss else SETTLED_S))
    world.down[0] = None
    lost_s = world.now_s
    others = range(1, nodes)
    while any(world.state(other, 0) is not MemberState.DEAD for other in others):
        if world.now_s - lost_s > GIVE_UP_S:
            return Lost(inf, inf)
        world.run(STEP_S)
    node = world.swims[0].myself.node
    # A verdict may have fallen before, and be revoked: the last of each observer is the one that stands.
    known = {observer: at_s for at_s, observer, change in world.deaths() if change.member.node == node}
    return Lost(min(known.values()) - lost_s, max(known.values()) - lost_s)


class Alive(NamedTuple):
    """What became of a world in which nobody was lost."""

    node_s: float
    suspected: int
    """How often somebody was accused; without any the run shows nothing."""
    dead: int
    """How often somebody was declared dead."""


def live(nodes: int, loss: float, seconds: float, seed: int) -> Alive:
    """Let all of `nodes` live for `seconds`, and count what they think of each other."""
    world = World(nodes, seed=seed, loss=loss)
    while world.now_s < seconds:
        world.run(min(RUN_S / 20, seconds - world.now_s))
        # Two nodes that hold each other dead ask no more. A link would tell them; here it is made by hand, or the
        # rest of the run would count for nothing.
        for number in range(nodes):
            world.introduce(number, [other for other in range(nodes) if world.state(number, other) is MemberState.DEAD])
    return Alive(seconds * nodes, len(_accused(world, MemberState.SUSPECT)), len(_accused(world, MemberState.DEAD)))


class Paused(NamedTuple):
    """What became of a world in which one node stood still for a while."""

    convicted: int
    """Deaths that the node believed in after its pause; everyone else was alive all the time."""
    held_dead: bool
    """The others took it for dead meanwhile."""
    together: bool
    """In the end all take each other for alive."""


def pause(nodes: int, seed: int) -> Paused:
    """Have one node stand still for `PAUSE_S`, and go on."""
    world = World(nodes, seed=seed)
    world.timers_first = seed % 2 == 0
    world.run(_moment_s(seed, SETTLED_S))
    # Somebody is accused at that moment, so that the node holds a suspicion, and open probes, when it stops.
    accused = world.swims[1].myself._replace(state=MemberState.SUSPECT)
    world.carry_out(0, world.swims[0].heard_members([Told(accused)], world.now_s))
    world.paused_until_s[0] = world.now_s + PAUSE_S
    world.run(PAUSE_S + 10)
    pairs = [(a, b) for a in range(nodes) for b in range(nodes) if a != b]
    return Paused(
        sum(observer == 0 for _, observer, _ in world.deaths()),
        any(observer != 0 for _, observer, _ in world.deaths()),
        all(world.state(a, b) is MemberState.ALIVE for a, b in pairs),
    )


def _moment_s(seed: int, settled_s: float) -> float:
    return settled_s + random.Random(f"{seed} moment").random() * WITHIN_S


def _accused(world: World, state: MemberState) -> set[tuple[NodeId, int]]:
    """Whom a verdict fell on, once for each incarnation."""
    return {(change.member.node, change.member.incarnation) for _, _, change in world.changes_to(state)}


# --- figures ----------------------------------------------------------------------------------------------


class Figure(NamedTuple):
    """One measured row."""

    kind: str
    nodes: int
    loss: float
    trials: int
    values: dict[str, float]
    broken: str = ""
    """Which bound is broken, in words."""
    missed: str = ""
    """Which target is missed."""


Map = Callable[[Callable[[int], Any], Iterable[int]], Iterable[Any]]
"""`map`, over one process or several."""


def percentile(values: Iterable[float], percent: float) -> float:
    """Return the smallest of the values that `percent` of them do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, ceil(len(ordered) * percent / 100) - 1)]


def lost_figure(over: Map, nodes: int, loss: float, trials: int, start: int) -> Figure:
    """Measure how soon a loss is known."""
    lost: list[Lost] = list(over(partial(lose, nodes, loss), range(start, start + trials)))
    # Where nobody knew, nothing spread either.
    spread_p99_s = percentile([one.last_s - one.first_s if one.last_s < inf else inf for one in lost], 99)
    p99_s = percentile([one.last_s for one in lost], 99)
    values = {
        "first_p50_s": percentile([one.first_s for one in lost], 50),
        "all_p50_s": percentile([one.last_s for one in lost], 50),
        "all_p99_s": p99_s,
        "all_max_s": max(one.last_s for one in lost),
        "spread_p99_s": spread_p99_s,
    }
    broken, missed = [], []
    if not loss and nodes in SMALL and p99_s > LOST_P99_S:
        broken.append(f"all p99 <= {LOST_P99_S} s")
    if not loss and nodes == 50 and spread_p99_s > SPREAD_P99_S:
        broken.append(f"spread p99 <= {SPREAD_P99_S} s")
    target_s = LOST_LOSSY_P99_S.get(nodes, inf) if loss else LOST_MANY_P99_S
    if p99_s > target_s:
        missed.append(f"all p99 <= {target_s} s")
    return Figure("lost", nodes, loss, trials, values, ", ".join(broken), ", ".join(missed))


def alive_figure(over: Map, nodes: int, loss: float, node_s: float, start: int) -> Figure:
    """Count false deaths in about so many node-seconds."""
    worlds = ceil(node_s / nodes / RUN_S)
    seconds = node_s / nodes / worlds
    runs: list[Alive] = list(over(partial(live, nodes, loss, seconds), range(start, start + worlds)))
    total_s, dead = sum(run.node_s for run in runs), sum(run.dead for run in runs)
    values = {
        "node_s": total_s,
        "false_deaths": dead,
        "suspicions": sum(run.suspected for run in runs),
        "deaths_per_10000_node_s": dead / total_s * 10_000,
    }
    most = FALSE_DEATHS_MAX[loss]
    beyond = f"false deaths <= {most:g} in 10,000 node-s" if values["deaths_per_10000_node_s"] > most else ""
    broken, missed = (beyond, "") if most == 0 else ("", beyond)
    return Figure("alive", nodes, loss, worlds, values, broken, missed)


def paused_figure(over: Map, nodes: int, trials: int, start: int) -> Figure:
    """Count whom a node convicts that stood still."""
    runs: list[Paused] = list(over(partial(pause, nodes), range(start, start + trials)))
    values = {
        "convicted": sum(run.convicted for run in runs),
        "held_dead": sum(run.held_dead for run in runs),
        "apart": sum(not run.together for run in runs),
    }
    broken = [f"{name} = 0" for name in ("convicted", "apart") if values[name]]
    return Figure("paused", nodes, 0.0, trials, values, ", ".join(broken))


def figures(over: Map, kinds: Iterable[str] = KINDS, *, part: float = 1.0, start: int = 0) -> Iterator[Figure]:
    """Measure these kinds; `part` scales the number of trials, 0 < part."""

    def trials(full: int) -> int:
        return max(2, round(full * part))

    if "lost" in kinds:
        for nodes in SMALL:
            yield lost_figure(over, nodes, 0.0, trials(1000), start)
        for nodes, full in ((20, 500), (50, 200)):
            yield lost_figure(over, nodes, 0.0, trials(full), start)
        for nodes in LOST_LOSSY_P99_S:
            yield lost_figure(over, nodes, 0.3, trials(500), start)
    if "paused" in kinds:
        for nodes in SMALL:
            yield paused_figure(over, nodes, trials(100), start)
    if "alive" in kinds:
        for loss in FALSE_DEATHS_MAX:
            for nodes in SMALL:
                # At three of these losses nobody may die: for each number of nodes 100,000 node-seconds in all.
                yield alive_figure(over, nodes, loss, ALIVE_NODE_S * part, start)


# --- command line -----------------------------------------------------------------------------------------


def text(figure: Figure) -> str:
    """Return one row for people."""
    head = f"{figure.kind:6}  N={figure.nodes:<2}  loss {figure.loss:4.0%}  {figure.trials:4} trials  "
    shown = ", ".join(f"{name} {value:.7g}" for name, value in rounded(figure.values).items())
    tail = f"  BROKEN: {figure.broken}" if figure.broken else ""
    return head + shown + tail + (f"  target missed: {figure.missed}" if figure.missed else "")


def rounded(values: dict[str, float]) -> dict[str, float]:
    """Return the values without the digits that nobody reads."""
    return {name: round(value, 3) for name, value in values.items()}


def main() -> int:
    """Measure, print row by row; return 1 if a bound is broken."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation.detection",
        description="Measures the failure detector in virtual time: how soon a lost machine is known dead, how seldom "
        "a live one is taken for dead, and that a node that stood still convicts nobody.",
        epilog="Exit status 1: a bound is broken. Targets are printed, and break nothing.",
    )
    parser.add_argument("--only", choices=KINDS, help="measure one kind (default: all)")
    parser.add_argument("--part", type=float, default=1.0, metavar="X", help="share of the trials (default: 1)")
    parser.add_argument("--start", type=int, default=0, metavar="S", help="the first seed (default: 0)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="worker processes (default: 1)")
    parser.add_argument("--json", action="store_true", help="print one JSON object a row, and one at the end")
    options = parser.parse_args()
    if options.part <= 0 or options.jobs < 1:
        parser.error("--part wants a number above 0, --jobs one from 1 up")
    begun_s = monotonic()
    with ProcessPoolExecutor(options.jobs) as pool:
        over: Map = map if options.jobs == 1 else partial(pool.map, chunksize=4)
        broken = rows = 0
        for figure in figures(over, [options.only] if options.only else KINDS, part=options.part, start=options.start):
            rows += 1
            broken += bool(figure.broken)
            print(
                json.dumps(figure._replace(values=rounded(figure.values))._asdict()) if options.json else text(figure)
            )
            sys.stdout.flush()
    summary = {"rows": rows, "broken": broken, "elapsed_s": round(monotonic() - begun_s, 1)}
    print(json.dumps(summary) if options.json else f"{rows} rows, {broken} broken, {summary['elapsed_s']} s")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
