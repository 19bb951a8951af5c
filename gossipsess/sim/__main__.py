# Command line: `gossipsess simulate`, also `python -m gossipsess.sim`. Many seeds, one of them looked at closely, a
# saved scenario again, or a failing seed made small.

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Final, NamedTuple

from gossipsess.sim.marks import MARKS, unreached
from gossipsess.sim.progress import Progress
from gossipsess.sim.run import Result, run, simulate
from gossipsess.sim.scenario import Scenario, load, save
from gossipsess.sim.shrink import Shrinker, size_text
from gossipsess.sim.swarm import LOSS_MAX, NODES_MAX, NODES_MIN, draw

CHUNK: Final = 5
"""Seeds handed to a worker process at once."""
TRACE_LINES: Final = 30
"""What is shown of a shrunk scenario's trace."""


DESCRIPTION: Final = """\
Runs clusters of the real state machine in virtual time: messages are lost, doubled and reordered, networks split,
nodes crash, stand still, leave and restart while requests write. Checks that no node claims what it does not hold,
that confirmed writes survive, that logged out stays logged out, and that all nodes agree once the faults end.
"""
EXAMPLES: Final = """\
examples:
  gossipsess simulate --seeds 300 --jobs 2                   a campaign: seeds 0 to 299
  gossipsess simulate --seeds 10000 --start 50000 --json     a long one, elsewhere, its summary for a program
  gossipsess simulate --seeds 60 --crowd                     clusters of 4 to 20 nodes
  gossipsess simulate --seed 4711 --trace                    one run, line by line
  gossipsess simulate --seed 4711 --shrink --out small.json  a failing one, made as small as it gets
  gossipsess simulate --replay small.json --trace            that again

A seed draws a cluster, its faults and its requests; the same seed is the same run. A violation prints the command
that repeats it. A campaign ends with its seeds, its violations, how long a run took and how long the nodes took to
agree once the faults had ended, and names the paths that no run took: it has shown nothing about those.

exit codes:
  0  nothing was violated
  1  something was
  2  wrong arguments, or a file that cannot be used
"""


class Timed(NamedTuple):
    """A run and how long it took."""

    result: Result
    elapsed_s: float


def main(arguments: Sequence[str] | None = None, *, prog: str = "python -m gossipsess.sim") -> int:
    """Run the command line; return its exit status: 1 after a violation, 2 where a file cannot be used."""
    parser = _parser(prog)
    options = parser.parse_args(arguments)
    if options.shrink and options.seed is None and options.replay is None:
        parser.error("--shrink wants a --seed or a --replay")
    if options.seed is None and options.replay is None:
        return _many(options)
    if options.replay is None:
        scenario = draw(options.seed, nodes=options.nodes, loss_max=options.loss, crowd=options.crowd)
    else:
        try:
            scenario = load(options.replay)
        except (OSError, ValueError) as wrong:
            print(f"{options.replay}: {wrong}", file=sys.stderr)
            return 2
    return _shrink(options, scenario) if options.shrink else _one(options, scenario)


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--seeds", type=int, default=100, metavar="N", help="how many seeds to run (default: 100)")
    which.add_argument("--seed", type=int, metavar="S", help="run this one seed")
    which.add_argument("--replay", type=Path, metavar="FILE", help="run a saved scenario")
    parser.add_argument("--start", type=int, default=0, metavar="S", help="the first of --seeds (default: 0)")
    parser.add_argument(
        "--nodes",
        type=int,
        choices=range(NODES_MIN, NODES_MAX + 1),
        help="nodes in each cluster (default: drawn from the seed)",
    )
    parser.add_argument(
        "--crowd", action="store_true", help="draw 4 to 20 nodes for each cluster, on hosts in zones (default: 2 to 7)"
    )
    parser.add_argument(
        "--loss",
        type=_share,
        default=LOSS_MAX,
        metavar="SHARE",
        help=f"messages lost at worst, 0 to 0.9; each seed draws its own loss below that (default: {LOSS_MAX})",
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="worker processes (default: 1)")
    parser.add_argument("--trace", action="store_true", help="for one run: print what happens, line by line")
    parser.add_argument("--shrink", action="store_true", help="for one run that fails: make it as small as possible")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the scenario of one run is saved")
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    return parser


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 0.9:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 0.9")
    return share


def replay_command(seed: int, nodes: int | None, loss_max: float, *, crowd: bool) -> str:
    """Return the command that repeats one run."""
    command = f"python -m gossipsess.sim --seed {seed}"
    if nodes is not None:
        command += f" --nodes {nodes}"
    if crowd:
        command += " --crowd"
    if loss_max != LOSS_MAX:
        command += f" --loss {loss_max}"
    return command


# --- one run ----------------------------------------------------------------------------------------------


def _one(options: argparse.Namespace, scenario: Scenario) -> int:
    result = run(scenario, trace=options.trace)
    for line in result.trace:
        print(line)
    if options.out is not None:
        save(options.out, scenario, violation=result.violation or "none")
    if options.json:
        print(json.dumps(result._replace(trace=[])._asdict()))
    else:
        print(f"seed {result.seed}: {result.violation or 'no violation'}")
        print(f"{result.events} events, agreed {result.settle_s:.2f} s after the heal, trace {result.trace_hash}")
        print(_counts_text(result.counts))
    return 1 if result.violation else 0


def _shrink(options: argparse.Namespace, scenario: Scenario) -> int:
    result = run(scenario)
    if result.rule is None:
        print(f"seed {scenario.seed}: no violation, nothing to shrink")
        return 0
    if run(scenario).trace_hash != result.trace_hash:
        print(f"seed {scenario.seed}: two runs of it differ; that is the bug to find first", file=sys.stderr)
        return 1
    print(f"{result.violation}\n  with {size_text(scenario)}", file=sys.stderr)

    def tell(runs: int, best: Scenario) -> None:
        if sys.stderr.isatty():
            print(f"\r{runs} runs: {size_text(best)}\033[K", end="", file=sys.stderr, flush=True)

    shrinker = Shrinker(scenario, result.rule, tell)
    small = shrinker.shrink()
    file = options.out or Path(f"scenario-{scenario.seed}.json")
    shown = run(small, trace=True)
    save(file, small, violation=shown.violation or "none")
    if sys.stderr.isatty():
        print(file=sys.stderr)
    if options.json:
        summary = {"file": str(file), "violation": shown.violation, "runs": shrinker.runs, "size": size_text(small)}
        print(json.dumps(summary))
        return 1
    print(f"after {shrinker.runs} runs: {size_text(small)}, saved as {file}")
    telling = [line for line in shown.trace if " sync ask " not in line and ": [] to " not in line]
    print("\n".join(telling[-TRACE_LINES:]))
    print(shown.violation)
    return 1


# --- many runs --------------------------------------------------------------------------------------------


def _timed(seed: int, *, nodes: int | None, loss_max: float, crowd: bool) -> Timed:
    before_s = perf_counter()
    return Timed(simulate(seed, nodes=nodes, loss_max=loss_max, crowd=crowd), perf_counter() - before_s)


def _many(options: argparse.Namespace) -> int:
    before_s = perf_counter()
    progress = Progress(options.seeds)
    runs: list[Timed] = []
    violations = 0
    for timed in _runs(options):
        runs.append(timed)
        if timed.result.violation:
            violations += 1
            progress.line(f"VIOLATION seed {timed.result.seed} {timed.result.violation}")
            command = replay_command(timed.result.seed, options.nodes, options.loss, crowd=options.crowd)
            progress.line(f"  replay: {command} --trace")
        progress.at(len(runs), violations)
    _summarize(options, runs, perf_counter() - before_s)
    return 1 if violations else 0


def _runs(options: argparse.Namespace) -> Iterator[Timed]:
    seeds = range(options.start, options.start + options.seeds)
    timed = partial(_timed, nodes=options.nodes, loss_max=options.loss, crowd=options.crowd)
    if options.jobs <= 1:
        yield from map(timed, seeds)
    else:
        with ProcessPoolExecutor(options.jobs) as pool:
            yield from pool.map(timed, seeds, chunksize=CHUNK)


def _summarize(options: argparse.Namespace, runs: list[Timed], elapsed_s: float) -> None:
    counts: Counter[str] = Counter()
    for timed in runs:
        counts.update(timed.result.counts)
    times_s = sorted(timed.elapsed_s for timed in runs) or [0.0]
    settles_s = sorted(timed.result.settle_s for timed in runs) or [0.0]
    summary = {
        "seeds": [options.start, options.start + options.seeds - 1],
        "nodes": options.nodes,
        "loss": options.loss,
        "runs": len(runs),
        "violations": sum(timed.result.violation is not None for timed in runs),
        "events": sum(timed.result.events for timed in runs),
        "elapsed_s": round(elapsed_s, 3),
        "run_s": _percentiles(times_s),
        "settle_s": _percentiles(settles_s),
        "replay": [
            replay_command(timed.result.seed, options.nodes, options.loss, crowd=options.crowd)
            for timed in runs
            if timed.result.violation
        ],
        "unreached": unreached(counts),
        "counts": dict(sorted(counts.items())),
    }
    if options.json:
        print(json.dumps(summary))
        return
    print(_counts_text(counts))
    for mark in unreached(counts):
        print(f"never reached: {mark} ({MARKS[mark]})")
    print(f"seeds {options.start} to {options.start + options.seeds - 1}: {summary['violations']} violations")
    rate = len(runs) / elapsed_s if elapsed_s else 0.0
    print(f"{elapsed_s:.1f} s in all, {rate:.1f} seeds a second, {summary['events']} events")
    print(f"a run took {_percentiles_text(times_s)} s")
    print(f"the nodes agreed {_percentiles_text(settles_s)} virtual s after the faults had ended")


def _percentiles(ordered: list[float]) -> dict[str, float]:
    last = len(ordered) - 1
    places = {"p50": (last + 1) // 2, "p99": (99 * last + 99) // 100, "max": last}
    return {name: round(ordered[place], 4) for name, place in places.items()}


def _percentiles_text(ordered: list[float]) -> str:
    return ", ".join(f"{name} {number:.2f}" for name, number in _percentiles(ordered).items())


def _counts_text(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(counts.items()))


if __name__ == "__main__":
    sys.exit(main())
