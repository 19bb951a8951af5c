# Host: a machine dies with all its workers at once, and nothing is lost.
#
# Two workers on each of several hosts (GOSSIPSESS_HOST). One round: both workers of one host are killed -9 at the same
# moment under load; some time later both are started again. A write whose two copies were with those two is gone: so
# this shows whether copies go to other hosts, and whether a confirmation comes from another host.
#
# A GET under way there is repeated at the next place; a write is cut off and may have been carried out (cut).
#
# Clean means: no acknowledged write lost, hidden or stale in any answer, and no error but what was cut.
#
# From the repository's root: python -m tests.chaos.host --nodes 6 --rounds 3

import argparse
import random
import sys
from typing import Any, Final

import trio

from ..e2e.harness import DISCOVERIES, Discovery
from .fleet import open_fleet, run_script, shopping

WORKERS: Final = 2
"""On each host."""
BEFORE_S: Final = 1.5
DOWN_S: Final = 1.0


async def play(rounds: int, nodes: int, *, seed: int = 1, discovery: Discovery = "static") -> dict[str, Any]:
    """Kill so many hosts, one after the other, each started again before the next one dies; return the figures.

    Raises:
        ScenarioError: a process did not come up.
    """
    rng = random.Random(seed)
    hosts = [f"host-{index // WORKERS}" for index in range(nodes)]
    async with open_fleet(hosts, discovery) as fleet:
        await fleet.start(*fleet.places)
        if discovery != "none":
            await fleet.wait_linked()
        async with shopping(fleet, rng) as tally:
            for number in range(rounds):
                host = sorted(set(hosts))[number % len(set(hosts))]
                victims = [place for place in fleet.places if place.host == host]
                await trio.sleep(BEFORE_S)
                fleet.kill(*victims)
                await trio.sleep(DOWN_S)
                await fleet.start(*victims)
            await trio.sleep(BEFORE_S)
        return {
            "nodes": nodes,
            "hosts": len(set(hosts)),
            "hosts_killed": rounds,
            **tally.figures(),
            "balancer": dict(fleet.balancer.counts),
            "start_max_s": round(max(fleet.starts_s), 2),
        }


def main() -> int:
    """Play it; return 1 if it was not clean."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos.host",
        description=f"kill -9 of all {WORKERS} workers of one host at once, under load. Prints one line of JSON; exit "
        "code 1 if an acknowledged write was lost or stale, or a request failed other than those under way there.",
        epilog="Where nodes never meet, everything must be lost: --discovery none shows that it would be seen.",
    )
    parser.add_argument("--rounds", type=int, default=3, help="hosts killed, each started again before the next")
    parser.add_argument("--nodes", type=int, default=6, help=f"workers in all, {WORKERS} a host")
    parser.add_argument("--seconds", type=float, default=300, help="all of it must be done by then")
    parser.add_argument("--seed", type=int, default=1, help="what clients ask")
    parser.add_argument("--discovery", choices=DISCOVERIES, default="static", help="none: the control")
    options = parser.parse_args()
    return run_script(
        "host",
        options.seconds,
        lambda: play(options.rounds, options.nodes, seed=options.seed, discovery=options.discovery),
    )


if __name__ == "__main__":
    sys.exit(main())
