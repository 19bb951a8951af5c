# Grow: from one replica to six and back to one under load, and nothing is lost on the way.
#
# One round: places are started one after the other until all run, then retired one after the other, those that were
# there first going first: what the last one shows in the end has come to it by every way there is, and none of the
# processes that took the writes at first is left.
#
# Clean means: no acknowledged write lost, hidden or stale in any answer, and no error.
#
# From the repository's root: python -m tests.chaos.grow --nodes 6 --rounds 2

import random
import sys
from collections.abc import Sequence
from typing import Any, Final

import trio

from ..e2e.harness import Discovery
from .fleet import NEVER_MEET, open_fleet, own_hosts, run_script, script_parser, shopping

BETWEEN_S: Final = 0.5
"""From one change until the next."""


async def play(rounds: int, nodes: int, *, seed: int = 1, discovery: Discovery = "static") -> dict[str, Any]:
    """Grow from one to `nodes` and shrink back to one, so many times; return the figures.

    Raises:
        ScenarioError: a process did not come up, or did not end.
    """
    rng = random.Random(seed)
    async with open_fleet(own_hosts(nodes), discovery) as fleet:
        await fleet.start(fleet.places[0])
        async with shopping(fleet, rng) as tally:
            for _ in range(rounds):
                [first] = fleet.running
                others = [place for place in fleet.places if place is not first]
                for place in others:
                    await trio.sleep(BETWEEN_S)
                    await fleet.start(place)
                for place in [first, *others[:-1]]:
                    await trio.sleep(BETWEEN_S)
                    await fleet.retire(place)
            await trio.sleep(BETWEEN_S)
        return {
            "nodes": nodes,
            "rounds": rounds,
            **tally.figures(),
            "balancer": dict(fleet.balancer.counts),
            "start_max_s": round(max(fleet.starts_s), 2),
            "stop_max_s": round(max(fleet.stops_s, default=0.0), 2),
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Play it; return 1 if it was not clean."""
    parser = script_parser(
        "grow",
        "Grow from one app process to --nodes and shrink back to one under load, the oldest leaving first. Prints one "
        "line of JSON; exit code 1 if an acknowledged write was lost or stale, or a request failed.",
        "--nodes 6 --rounds 2",
        control=NEVER_MEET,
        rounds=(1, "up and down again"),
        nodes=(6, "at most"),
        seconds=300,
        seed="what clients ask",
        discovery=True,
    )
    options = parser.parse_args(arguments)
    return run_script(
        "grow",
        options.seconds,
        lambda: play(options.rounds, options.nodes, seed=options.seed, discovery=options.discovery),
    )


if __name__ == "__main__":
    sys.exit(main())
