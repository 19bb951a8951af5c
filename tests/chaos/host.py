# Host: a machine dies with all its workers at once, and nothing is lost.
#
# Two workers on each of several hosts (GOSSIPSESS_HOST), and each host has taken in a few hundred sessions, each one
# confirmed. One round: both workers of one host are killed -9 at the same moment under load; some time later both are
# started again. A session whose copies were with those two is gone: so this shows whether copies go to other hosts, and
# whether a confirmation comes from another host.
#
# Where labels are ignored, one in C(nodes, 2) sessions has both its copies on that host, and the worker that took it in
# is no third one: of a few hundred, some are lost for certain. --ignore-hosts shows it: there each worker says that it
# is a host of its own.
#
# A GET under way there is repeated at the next place; a write is cut off and may have been carried out (cut).
#
# Clean means: no acknowledged write lost or hidden, no answer stale that does not say so itself, no error but what was
# cut or what nobody could tell in time, and every confirmed session there in the end, asked for at a worker that was
# killed last.
#
# From the repository's root: python -m tests.chaos.host --nodes 6 --rounds 3

import random
import sys
from collections.abc import Sequence
from typing import Any, Final

import trio

from ..e2e.harness import Discovery
from .fleet import Place, open_fleet, own_hosts, run_script, script_parser, shopping
from .joiner import absent, make

WORKERS: Final = 2
"""On each host."""
BEFORE_S: Final = 1.5
DOWN_S: Final = 1.0
SESSIONS: Final = 300
"""Taken in by each host that is to die, and confirmed."""
BATCH: Final = 50
"""Of these, made by one request."""
VALUE_BYTES: Final = 100
NODES_TO_LOSE_MIN: Final = 2 * WORKERS
"""With fewer there is one that holds everything and lives on, whatever the labels."""


async def play(
    rounds: int, nodes: int, *, ignore_hosts: bool = False, seed: int = 1, discovery: Discovery = "static"
) -> dict[str, Any]:
    """Kill so many hosts, one after the other, each started again before the next one dies; return the figures.

    `ignore_hosts`: no worker says where it runs. That is the control, in which sessions are lost.

    Raises:
        ScenarioError: a process did not come up.
    """
    rng = random.Random(seed)
    hosts = [f"host-{index // WORKERS}" for index in range(nodes)]
    names = list(dict.fromkeys(hosts))
    ids: list[str] = []
    async with open_fleet(own_hosts(nodes) if ignore_hosts else hosts, discovery) as fleet:
        await fleet.start(*fleet.places)
        if discovery != "none":
            await fleet.wait_linked()
        workers = {name: [fleet.places[index] for index, on in enumerate(hosts) if on == name] for name in names}
        # Before there are clients, so that these find nodes that have nothing else to do.
        for name in names[:rounds]:
            ids += await _fill(workers[name])
        async with shopping(fleet, rng) as tally:
            for number in range(rounds):
                victims = workers[names[number % len(names)]]
                await trio.sleep(BEFORE_S)
                fleet.kill(*victims)
                await trio.sleep(DOWN_S)
                await fleet.start(*victims)
            await trio.sleep(BEFORE_S)
        missing = await absent(victims[0], ids)
        figures = tally.figures()
        return {
            "nodes": nodes,
            "hosts": len(names),
            "hosts_killed": rounds,
            **figures,
            "clean": figures["clean"] and not missing,
            "confirmed": len(ids),
            "confirmed_absent": missing,
            "balancer": dict(fleet.balancer.counts),
            "start_max_s": round(max(fleet.starts_s), 2),
        }


async def _fill(places: Sequence[Place]) -> list[str]:
    """Make sessions at these places, at all at the same time, until so many are confirmed; return their ids."""
    ids: list[str] = []

    async def work(place: Place) -> None:
        while len(ids) < SESSIONS:
            ids.extend(await make(place, BATCH, VALUE_BYTES, confirm=1))

    async with trio.open_nursery() as nursery:
        for place in places:
            nursery.start_soon(work, place)
    return ids


def main(arguments: Sequence[str] | None = None) -> int:
    """Play it; return 1 if it was not clean."""
    parser = script_parser(
        "host",
        f"kill -9 of all {WORKERS} workers of one host at once, under load. Prints one line of JSON; exit code 1 if a "
        "confirmed session or an acknowledged write was lost or stale, or a request failed other than those under way "
        "there.",
        "--nodes 6 --rounds 3",
        control="Where workers do not say on which host they are, sessions must be lost, and where nodes never meet, "
        "everything: --ignore-hosts and --discovery none show that it would be seen.",
        rounds=(3, "hosts killed, each started again before the next"),
        nodes=(6, f"workers in all, {WORKERS} a host; more than one host"),
        nodes_min=WORKERS + 1,
        seconds=300,
        seed="what clients ask",
        discovery=True,
    )
    parser.add_argument(
        "--ignore-hosts",
        action="store_true",
        help=f"every worker says it is a host of its own: the control; takes {NODES_TO_LOSE_MIN} --nodes or more",
    )
    options = parser.parse_args(arguments)
    if options.ignore_hosts and options.nodes < NODES_TO_LOSE_MIN:
        parser.error(
            f"argument --nodes: with --ignore-hosts {NODES_TO_LOSE_MIN} or more: of fewer, one holds everything"
        )
    return run_script(
        "host",
        options.seconds,
        lambda: play(
            options.rounds,
            options.nodes,
            ignore_hosts=options.ignore_hosts,
            seed=options.seed,
            discovery=options.discovery,
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
