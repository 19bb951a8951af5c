# Detection: kill -9 of a process, and how long until every other process knows it to be dead.
#
# One trial: kill one of N nodes at a random moment, wait in all the others; then start it again in its place and
# wait until all are linked. A node that is alive and taken for dead is a failure, whatever the times.
# The machine lives on and says at once that nobody listens any more; a machine that is lost takes longer
# (the simulator measures that).
#
# From the repository's root: python -m tests.chaos.detection --trials 50 --nodes 2..8

import argparse
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from ..e2e.harness import ScenarioError
from .nodes import Cluster, percentile

P99_MAX_S: Final = 1.0
GIVE_UP_S: Final = 20.0
KILL_WITHIN_S: Final = 0.6
"""Somewhere within more than one probe interval."""


def play(nodes: int, trials: int, rng: random.Random) -> list[float]:
    """Kill `trials` times one of `nodes` nodes; return how long after it each other one knew, in seconds.

    Raises:
        ScenarioError: a death was not known in time, or a node that lives was taken for dead.
    """
    took_s: list[float] = []
    with Cluster(nodes) as cluster, ThreadPoolExecutor(nodes) as threads:
        for _ in range(trials):
            victim = rng.choice(cluster.nodes)
            others = [node for node in cluster.nodes if node is not victim]
            name = victim.ask("status")["node"]
            alive = {node.ask("status")["node"] for node in others}
            waits = [threads.submit(node.ask, "wait_dead", node=name, within_s=GIVE_UP_S) for node in others]
            time.sleep(rng.uniform(0.1, KILL_WITHIN_S))  # where in the probe interval the kill falls
            killed_s = victim.kill()
            for wait in waits:
                told = wait.result()
                if told["at_s"] is None:
                    raise ScenarioError(f"the death of {name} was not known within {GIVE_UP_S:g} s")
                wrong = {node: state for node, state in told["others"].items() if node in alive and state == "dead"}
                if wrong:
                    raise ScenarioError(f"alive and taken for dead: {wrong}")
                took_s.append(told["at_s"] - killed_s)
            cluster.start(victim)
            cluster.wait_linked()
    return took_s


def main() -> int:
    """Play the trials asked for; return 1 if a bound is broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.detection", description="kill -9, known everywhere")
    parser.add_argument("--trials", type=int, default=50, help="for each number of nodes")
    parser.add_argument("--nodes", default="2..8", help="one number, or FIRST..LAST")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    first, _, last = options.nodes.partition("..")
    rng, slowest_p99_s = random.Random(options.seed), 0.0
    for nodes in range(int(first), int(last or first) + 1):
        try:
            took_s = play(nodes, options.trials, rng)
        except ScenarioError as error:
            print(f"{nodes} nodes: broken: {error}")
            return 1
        p99_s = percentile(took_s, 99)
        slowest_p99_s = max(slowest_p99_s, p99_s)
        print(
            f"{nodes} nodes, {options.trials} kills, {len(took_s)} detections: p50 {percentile(took_s, 50):.3f} s, "
            f"p99 {p99_s:.3f} s, max {max(took_s):.3f} s (bound: p99 {P99_MAX_S:g} s)",
            flush=True,
        )
    return 0 if slowest_p99_s <= P99_MAX_S else 1


if __name__ == "__main__":
    sys.exit(main())
