# Rolling: every replica is restarted in its turn under load, and nobody notices.
#
# One round: the balancer takes a place out, SIGTERM, the process ends, another one starts at the same ports, and the
# balancer puts it in when its port opens. So a rollout replaces every process, and with it all memory, one by one.
#
# With --kill, once in each rollout another process is killed -9 while one is being restarted, and nobody has told the
# balancer: a GET under way there is repeated at the next place, a write is cut off and may have been carried out.
# Clients count those apart (cut). All that was acknowledged must be there all the same.
#
# Clean means: no acknowledged write lost or hidden, no answer stale, and no error. With --kill an answer may be stale
# if it says so itself, and nobody may be able to tell in time; and a write may be cut. (A write that waited in vain for
# another host is answered all the same, after 250 ms, and may be lost with its node by the rules: where p100_ms is
# smaller, there was none.)
#
# From the repository's root: python -m tests.chaos.rolling --rounds 12 --nodes 4

import random
import sys
from collections.abc import Sequence
from typing import Any, Final

import trio

from ..e2e.harness import Discovery
from .fleet import NEVER_MEET, Fleet, Place, open_fleet, own_hosts, run_script, script_parser, shopping

BETWEEN_S: Final = 0.5
"""From one place's return until the next one goes."""
KILL_WITHIN_S: Final = 2.0
"""Somewhere within another place's restart: while it hands over, while it is away, or while it fetches."""
DOWN_S: Final = 0.5
NODES_WITH_KILL_MIN: Final = 3
"""Of two, one dies while the other is away: all is lost, whatever the library does."""


async def play(
    rounds: int, nodes: int, *, kill: bool = False, seed: int = 1, discovery: Discovery = "static"
) -> dict[str, Any]:
    """Restart so many places, one after the other; return the figures.

    With discovery "none" the nodes never meet: that is the control, in which nearly everything is lost.

    Raises:
        ScenarioError: a process did not come up, or did not end.
    """
    rng = random.Random(seed)
    async with open_fleet(own_hosts(nodes), discovery) as fleet:
        await fleet.start(*fleet.places)
        if discovery != "none":
            await fleet.wait_linked()
        kills, strikes_in = 0, 0
        async with shopping(fleet, rng) as tally:
            for number in range(rounds):
                if number % nodes == 0:
                    strikes_in = number + rng.randrange(min(nodes, rounds - number))
                await trio.sleep(BETWEEN_S)
                place = fleet.places[number % nodes]
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(fleet.restart, place)
                    if kill and number == strikes_in:
                        victim = rng.choice([other for other in fleet.places if other is not place])
                        nursery.start_soon(_strike, fleet, victim, rng.uniform(0, KILL_WITHIN_S))
                        kills += 1
            await trio.sleep(BETWEEN_S)
        return {
            "nodes": nodes,
            "restarts": rounds,
            "kills": kills,
            **tally.figures(),
            "balancer": dict(fleet.balancer.counts),
            "start_max_s": round(max(fleet.starts_s), 2),
            "stop_max_s": round(max(fleet.stops_s, default=0.0), 2),
        }


async def _strike(fleet: Fleet, place: Place, after_s: float) -> None:
    await trio.sleep(after_s)
    fleet.kill(place)
    await trio.sleep(DOWN_S)
    await fleet.start(place)


def main(arguments: Sequence[str] | None = None) -> int:
    """Play it; return 1 if it was not clean."""
    parser = script_parser(
        "rolling",
        "Restart app processes one after the other under load, behind a balancer that takes each out before SIGTERM "
        "and puts it back in when it is ready. Prints one line of JSON; exit code 1 if an acknowledged write was lost "
        "or stale, or a request failed.",
        "--rounds 12 --kill",
        control=NEVER_MEET,
        rounds=(12, "restarts; every --nodes of them are one rollout"),
        nodes=(4, ""),
        seconds=600,
        seed="who is killed and when, and what clients ask",
        discovery=True,
    )
    parser.add_argument(
        "--kill",
        action="store_true",
        help=f"kill -9 another process once in each rollout; takes {NODES_WITH_KILL_MIN} --nodes or more",
    )
    options = parser.parse_args(arguments)
    if options.kill and options.nodes < NODES_WITH_KILL_MIN:
        parser.error(
            f"argument --nodes: with --kill {NODES_WITH_KILL_MIN} or more: one is killed while another is away"
        )
    return run_script(
        "rolling",
        options.seconds,
        lambda: play(options.rounds, options.nodes, kill=options.kill, seed=options.seed, discovery=options.discovery),
    )


if __name__ == "__main__":
    sys.exit(main())
