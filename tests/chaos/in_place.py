# In place: a process that is restarted where it was moves nothing between the others.
#
# Some nodes are filled with sessions. One round: one of them is restarted at its ports, in turns by kill -9 and by
# SIGTERM, and nothing else happens. Compared are the owner maps, that is the holders of all partitions by name and rank
# as each node sees them, before the first round and after each; and what the nodes that stayed have pulled meanwhile.
# The one that leaves may hand over what it holds, and gets it back.
#
# Clean means: every owner map is the first one, nobody who stayed has pulled a byte, and each session of a sample is
# there at the restarted node.
#
# From the repository's root: python -m tests.chaos.in_place --nodes 5 --rounds 4

import sys
from collections.abc import Sequence
from typing import Any, Final

import trio

from ..e2e.harness import START_S
from ..ports import free_ports
from .balancer import fetch
from .fleet import Fleet, Place, open_fleet, own_hosts, run_script, script_parser, until
from .joiner import absent, fill

VALUE_BYTES: Final = 500
AFTER_S: Final = 7.0
"""Beyond the grace after which others would pull what a member that is gone has held."""


async def play(rounds: int, nodes: int, sessions: int, *, elsewhere: bool = False) -> dict[str, Any]:
    """Restart so many nodes, one after the other; return the figures.

    `elsewhere`: with other ports, and so under another name. That is the control, in which sessions move.

    Raises:
        ScenarioError: a process did not come up, or did not end.
    """
    async with open_fleet(own_hosts(nodes)) as fleet:
        await fleet.start(*fleet.places)
        await fleet.wait_linked()
        sample = await fill(fleet, sessions, VALUE_BYTES)
        first = await _owners(fleet.places[0])
        moved = changed = pulled = missing = 0
        for number in range(rounds):
            place = fleet.places[number % nodes]
            stayed = [other for other in fleet.places if other is not place]
            before = [await _pulled(other) for other in stayed]
            if number % 2:
                await fleet.retire(place)
            else:
                fleet.kill(place)
            if elsewhere:
                [place.node_port] = free_ports(1)
            await fleet.start(place)
            await _wait_synced(fleet, place)
            await fleet.wait_linked()
            missing += await absent(place, sample)
            await trio.sleep(AFTER_S)
            maps = [await _owners(one) for one in fleet.places]
            changed += sum(one != first for one in maps)
            moved += sum(one != two for one, two in zip(maps[0], first, strict=True))
            pulled += sum([await _pulled(other) for other in stayed]) - sum(before)
        return {
            "clean": not (changed or pulled or missing),
            "nodes": nodes,
            "restarts": rounds,
            "sessions": sessions,
            "maps_changed": changed,
            "partitions_changed": moved,
            "pulled_by_those_who_stayed": pulled,
            "sample_absent": missing,
            "start_max_s": round(max(fleet.starts_s), 2),
        }


async def _owners(place: Place) -> list[list[str]]:
    owners: list[list[str]] = (await fetch(place.port, "GET", "/owners")).json()
    return owners


async def _pulled(place: Place) -> int:
    return int((await fetch(place.port, "GET", "/status")).json()["pulled_bytes"])


async def _wait_synced(fleet: Fleet, place: Place) -> None:
    async def synced() -> bool:
        return bool((await fleet.status(place))["synced"])

    await until(synced, "the restarted node is synced", START_S)


def main(arguments: Sequence[str] | None = None) -> int:
    """Play it; return 1 if it was not clean."""
    parser = script_parser(
        "in_place",
        "Restart app processes where they were, one after the other, by kill -9 and by SIGTERM in turns. Prints one "
        "line of JSON; exit code 1 if a node's map of holders is another one afterwards, if a node that stayed pulled "
        "anything, or if the restarted one lacks a session.",
        "--rounds 2 --nodes 4 --sessions 1000",
        control="Where processes come back under another name, sessions must move: --elsewhere shows that it is seen.",
        rounds=(4, "restarts"),
        nodes=(5, ""),
        sessions=5000,
        seconds=300,
    )
    parser.add_argument(
        "--elsewhere", action="store_true", help="with other ports: the control, in which sessions move"
    )
    options = parser.parse_args(arguments)
    return run_script(
        "in_place",
        options.seconds,
        lambda: play(options.rounds, options.nodes, options.sessions, elsewhere=options.elsewhere),
    )


if __name__ == "__main__":
    sys.exit(main())
