# python -m gossipsess.sim: many seeds, or one of them looked at closely.

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from time import perf_counter
from typing import NamedTuple

from gossipsess.sim.workload import NODES_MAX, NODES_MIN, Result, simulate

PROGRESS_EVERY = 100
CHUNK = 20
"""Seeds handed to a worker process at once."""


class Timed(NamedTuple):
    """A run and how long it took."""

    result: Result
    elapsed_s: float


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit status: 1 after a violation."""
    options = _parser().parse_args(arguments)
    if options.seed is not None:
        return _one(options)
    return _many(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m gossipsess.sim",
        description="Runs clusters of the real state machine in virtual time: messages are lost, doubled and "
        "reordered, links break, nodes crash and restart while requests write. Checks that no node claims what it "
        "does not hold, that confirmed writes survive, and that all nodes agree once the faults end.",
        epilog="A violation prints the command that repeats it, and the exit status is 1.",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--seeds", type=int, default=100, metavar="N", help="how many seeds to run (default: 100)")
    which.add_argument("--seed", type=int, metavar="S", help="run this one seed")
    parser.add_argument("--start", type=int, default=0, metavar="S", help="the first of --seeds (default: 0)")
    parser.add_argument(
        "--nodes",
        type=int,
        choices=range(NODES_MIN, NODES_MAX + 1),
        help="nodes in each cluster (default: drawn from the seed)",
    )
    parser.add_argument(
        "--loss",
        type=_share,
        default=0.3,
        metavar="SHARE",
        help="messages lost at worst, 0 to 0.9; each seed draws its own loss below that (default: 0.3)",
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="worker processes (default: 1)")
    parser.add_argument("--trace", action="store_true", help="with --seed: print what happens, line by line")
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    return parser


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 0.9:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 0.9")
    return share


def replay_command(seed: int, nodes: int | None, loss_max: float) -> str:
    """Return the command that repeats one run."""
    command = f"python -m gossipsess.sim --seed {seed}"
    if nodes is not None:
        command += f" --nodes {nodes}"
    if loss_max != 0.3:
        command += f" --loss {loss_max}"
    return command


def _timed(seed: int, *, nodes: int | None, loss_max: float) -> Timed:
    before_s = perf_counter()
    return Timed(simulate(seed, nodes=nodes, loss_max=loss_max), perf_counter() - before_s)


def _one(options: argparse.Namespace) -> int:
    result = simulate(options.seed, nodes=options.nodes, loss_max=options.loss, trace=options.trace)
    for line in result.trace:
        print(line)
    if options.json:
        print(json.dumps(result._replace(trace=[])._asdict()))
    else:
        print(f"seed {result.seed}: {result.violation or 'no violation'}")
        print(f"{result.events} events, agreed {result.settle_s:.2f} s after the heal, trace {result.trace_hash}")
        print(_counts_text(result.counts))
    return 1 if result.violation else 0


def _many(options: argparse.Namespace) -> int:
    before_s = perf_counter()
    runs: list[Timed] = []
    for run in _runs(options):
        runs.append(run)
        if run.result.violation:
            print(f"VIOLATION seed {run.result.seed} {run.result.violation}", file=sys.stderr)
            command = replay_command(run.result.seed, options.nodes, options.loss)
            print(f"  replay: {command} --trace", file=sys.stderr)
        if len(runs) % PROGRESS_EVERY == 0:
            print(f"{len(runs)} of {options.seeds} seeds", file=sys.stderr)
    _summarize(options, runs, perf_counter() - before_s)
    return 1 if any(run.result.violation for run in runs) else 0


def _runs(options: argparse.Namespace) -> Iterator[Timed]:
    seeds = range(options.start, options.start + options.seeds)
    run = partial(_timed, nodes=options.nodes, loss_max=options.loss)
    if options.jobs <= 1:
        yield from map(run, seeds)
    else:
        with ProcessPoolExecutor(options.jobs) as pool:
            yield from pool.map(run, seeds, chunksize=CHUNK)


def _summarize(options: argparse.Namespace, runs: list[Timed], elapsed_s: float) -> None:
    counts: Counter[str] = Counter()
    for run in runs:
        counts.update(run.result.counts)
    times_s = sorted(run.elapsed_s for run in runs) or [0.0]
    settles_s = sorted(run.result.settle_s for run in runs) or [0.0]
    summary = {
        "runs": len(runs),
        "violations": sum(run.result.violation is not None for run in runs),
        "events": sum(run.result.events for run in runs),
        "elapsed_s": round(elapsed_s, 3),
        "run_s": {"median": round(times_s[len(times_s) // 2], 4), "max": round(times_s[-1], 4)},
        "settle_s": {"median": settles_s[len(settles_s) // 2], "max": settles_s[-1]},
        "replay": [
            replay_command(run.result.seed, options.nodes, options.loss) for run in runs if run.result.violation
        ],
        "counts": dict(sorted(counts.items())),
    }
    if options.json:
        print(json.dumps(summary))
        return
    print(f"{summary['runs']} runs, {summary['events']} events, {summary['violations']} violations")
    print(f"{times_s[len(times_s) // 2]:.3f} s a run (median), {times_s[-1]:.3f} s at most, {elapsed_s:.1f} s in all")
    print(f"agreed {settles_s[len(settles_s) // 2]:.2f} virtual s after the heal (median), {settles_s[-1]:.2f} at most")
    print(_counts_text(counts))


def _counts_text(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(counts.items()))


if __name__ == "__main__":
    sys.exit(main())
