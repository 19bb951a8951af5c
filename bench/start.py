# Start: what the command line and zero code cost when a process starts, against a bare interpreter.
#
# In:    options (--help).   Out: a line for each, or with --json an object for each. Exit code 1: over a bound.
# Measured: wall-clock time of whole processes, one after the other, in turn: bare, run, live, child, bare, run, ...
#           so that whatever else the machine does falls on all of them alike; and their own processor time, of which
#           that takes less. Figures are medians; bounds are on the first.
#           `bare` is `python -c pass` of the same environment, its .pth files included; all others are told as what
#           they take beyond it.
# `live` asks a node that runs in this process, as a probe asks the one of its pod, in a folder of the bench's own.

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Final

from gossipsess.cli.run import environ_of
from gossipsess.config import Config
from gossipsess.service import RunningNode

BOUNDS_MS: Final = {"run": 15.0, "live": 30.0}
"""What each may take beyond a bare start."""
ROUNDS: Final = 30
WARM_UPS: Final = 2
"""Rounds that do not count: the first writes and reads the files that the others find in memory."""


def main() -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(description="What starting costs, in milliseconds beyond a bare interpreter.")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each is started (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object for each")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds takes 1 or more")

    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_RUNTIME_DIR"] = folder  # where the node is asked, and its key kept
        node = RunningNode(Config(cluster="bench-start", discovery="none", port=0))
        try:
            taken_ms = measure(options.rounds, folder)
        finally:
            node.close()
    within = True
    bare_ms, bare_cpu_ms = (median(times) for times in zip(*taken_ms["bare"], strict=True))
    for name, taken in taken_ms.items():
        bound_ms = BOUNDS_MS.get(name)
        wall_ms, cpu_ms = (median(times) for times in zip(*taken, strict=True))
        extra_ms, extra_cpu_ms = wall_ms - bare_ms, cpu_ms - bare_cpu_ms
        within = within and (bound_ms is None or extra_ms <= bound_ms)
        if options.json:
            row = {"what": name, "median_ms": wall_ms, "extra_ms": extra_ms, "bound_ms": bound_ms, "cpu_ms": cpu_ms}
            print(json.dumps(row))
        else:
            bound = "" if bound_ms is None else f"   (at most {bound_ms:g})"
            extra = f"   bare + {extra_ms:5.1f} ms, processor + {extra_cpu_ms:4.1f} ms{bound}"
            print(f"{name:<6}{wall_ms:7.1f} ms, processor {cpu_ms:5.1f} ms{'' if name == 'bare' else extra}")
    return 0 if within else 1


def measure(rounds: int, folder: str) -> dict[str, list[tuple[float, float]]]:
    """Start each so many times, in turn; return how long each took, and its processor time, milliseconds."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("GOSSIPSESS_")}
    plain.pop("PYTHONDONTWRITEBYTECODE", None)  # what is installed has its bytecode beside it
    plain["GOSSIPSESS_CLUSTER"] = "bench-start"
    script = Path(sys.executable).with_name("gossipsess")
    gossipsess = [str(script)] if script.exists() else [sys.executable, "-m", "gossipsess"]
    bare = [sys.executable, "-c", "pass"]
    what = {
        "bare": (bare, plain),
        "run": ([*gossipsess, "run", "--", "true"], plain),
        "live": ([*gossipsess, "live"], plain),
        "child": (bare, environ_of({}, plain)),
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in what}
    for number in range(WARM_UPS + rounds):
        for name, (command, environ) in what.items():
            began_s, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(command, env=environ, cwd=folder, stdout=subprocess.DEVNULL, check=True)
            took_s, after = time.perf_counter() - began_s, resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            if number >= WARM_UPS:
                taken[name].append((took_s * 1000, cpu_s * 1000))
    return taken


if __name__ == "__main__":
    sys.exit(main())
