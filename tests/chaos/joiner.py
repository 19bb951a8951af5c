# Joiner: a replica that joins a full cluster fills up, and the others go on serving meanwhile.
#
# Some nodes are filled with sessions. Clients use them for a while; then one more process starts, which the balancer
# leaves out until its node calls itself synced. Measured: what clients waited before and during, and how long the
# newcomer took: until its port was open (an application serves after ten seconds in any case), and until synced.
# In the end a sample of the sessions is read from the newcomer, and all that clients wrote from everyone.
#
# With --kill-donor, the node that computes most for the newcomer is killed -9 midway: when a part has come of what the
# newcomer is to hold. It must fill up from the rest.
#
# Clean means: synced in time, no acknowledged write lost or hidden, no answer stale (with --kill-donor, none that does
# not say so itself), no error but what was cut, and every session of the sample there. No bound is set on times:
# compare the figures.
#
# From the repository's root: python -m tests.chaos.joiner --sessions 100000 --bytes 2000

import random
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

import trio

from ..e2e.harness import ScenarioError
from .balancer import CutError, fetch
from .fleet import Fleet, Place, open_fleet, own_hosts, run_script, script_parser, shopping, until
from .shoppers import AUDITORS, TRIES, milliseconds

BATCH: Final = 500
"""Sessions made by one request."""
BEFORE_S: Final = 5.0
FILL_S: Final = 60.0
"""For one batch to be taken by the others."""
AGAIN_S: Final = 0.2
"""Until a place that could not say whether there is a session is asked again."""
SYNC_S: Final = 240.0
KILL_AT: Final = 0.3
"""Midway. Less than half, for there to be time until it is synced."""
COPIES_MIN: Final = 2
"""Of each session, so that the newcomer is to hold as many parts of all, or more."""
MOST_OWED: Final = 5000
"""Session states on their way while filling, to any node; more would be told twice."""


async def play(
    nodes: int, sessions: int, value_bytes: int, *, kill_donor: bool = False, seed: int = 1, before_s: float = BEFORE_S
) -> dict[str, Any]:
    """Fill so many nodes, let one more join; return the figures.

    Raises:
        ScenarioError: the newcomer was not synced in time, or was before a donor could be killed.
    """
    rng = random.Random(seed)
    async with open_fleet(own_hosts(nodes + 1)) as fleet:
        *others, newcomer = fleet.places
        await fleet.start(*others)
        await fleet.wait_linked()
        sample = await fill(fleet, sessions, value_bytes)
        async with shopping(fleet, rng) as tally:
            await trio.sleep(before_s)
            before, began_s = len(tally.took_s), time.monotonic()
            killed_s = 0.0
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_join, fleet, newcomer)
                if kill_donor:
                    share_bytes = sessions * value_bytes * COPIES_MIN // (nodes + 1)
                    await _kill_donor(fleet, newcomer, others, round(KILL_AT * share_bytes))
                    killed_s = time.monotonic() - began_s
            synced_s, during = time.monotonic() - began_s, len(tally.took_s)
            fleet.balancer.put_in(newcomer.port)
            await trio.sleep(1.0)
        missing = await absent(newcomer, sample)
        held = (await fleet.status(newcomer))["sessions"]
        figures = tally.figures()
        return {
            "nodes": nodes,
            "sessions_filled": sessions,
            "bytes_each": value_bytes,
            **figures,
            "clean": figures["clean"] and not missing,
            "sampled": len(sample),
            "sample_absent": missing,
            "before": milliseconds(tally.took_s[:before]),
            "during": milliseconds(tally.took_s[before:during]),
            "open_s": round(fleet.starts_s[-1], 2),
            "synced_s": round(synced_s, 2),
            "donor_killed_s": round(killed_s, 2),
            "held_by_newcomer": held,
            "newcomer_mib": newcomer.rss_bytes() >> 20,
            "others_mib": [place.rss_bytes() >> 20 for place in others if place.running],
            "balancer": dict(fleet.balancer.counts),
        }


async def fill(fleet: Fleet, sessions: int, value_bytes: int) -> list[str]:
    """Make sessions on every running node, each told to all that are to hold it; return the id of one in each batch."""
    ids: list[str] = []
    batches = iter([min(BATCH, sessions - made) for made in range(0, sessions, BATCH)])

    async def work(place: Place) -> None:
        for batch in batches:
            ids.extend((await make(place, batch, value_bytes))[:1])
            await _wait_owing(fleet, place, MOST_OWED)

    running = fleet.running
    async with trio.open_nursery() as nursery:
        for place in running:
            nursery.start_soon(work, place)
    for place in running:
        await _wait_owing(fleet, place, 0)
    return ids


async def make(place: Place, sessions: int, value_bytes: int, *, confirm: int = 0) -> list[str]:
    """Make sessions at a place, one by one; return the ids of those that so many other hosts have confirmed."""
    query = f"sessions={sessions}&bytes={value_bytes}&confirm={confirm}"
    ids: list[str] = (await fetch(place.port, "POST", f"/fill?{query}")).json()["ids"]
    return ids


async def _wait_owing(fleet: Fleet, place: Place, most: int) -> None:
    async def owes_little() -> bool:
        return bool((await fleet.status(place))["unconfirmed"] <= most)

    await until(owes_little, f"place {place.index} owes at most {most} session states", FILL_S)


async def _join(fleet: Fleet, newcomer: Place) -> None:
    await fleet.start(newcomer, put_in=False)

    async def synced() -> bool:
        return bool((await fleet.status(newcomer))["synced"])

    await until(synced, "the newcomer is synced", SYNC_S)


async def _kill_donor(fleet: Fleet, newcomer: Place, others: list[Place], midway_bytes: int) -> None:
    """Kill the one of the others that has computed most since now, once so much has come to the newcomer."""
    at_first = [place.cpu_ticks() for place in others]

    async def midway() -> bool:
        return newcomer.running and newcomer.pulled_bytes() >= midway_bytes

    await until(midway, "the newcomer fills up", SYNC_S)
    used = [place.cpu_ticks() - before for place, before in zip(others, at_first, strict=True)]
    try:
        late = (await fleet.status(newcomer))["synced"]
    except (OSError, CutError):
        late = False  # its port is not open, as it should be while it fills up
    if late:
        raise ScenarioError("the newcomer was synced before it could lose its donor: give it more --sessions")
    fleet.kill(others[used.index(max(used))])


async def absent(place: Place, ids: list[str]) -> int:
    """Return how many of these sessions a place does not know."""
    missing = 0
    ahead = iter(ids)

    async def look() -> None:
        nonlocal missing
        for session_id in ahead:
            known = await _knows(place, session_id)  # in a line of its own: others add while this one waits
            missing += not known

    async with trio.open_nursery() as nursery:
        for _ in range(AUDITORS):
            nursery.start_soon(look)
    return missing


async def _knows(place: Place, session_id: str) -> bool:
    for _ in range(TRIES):
        answer = await fetch(place.port, "GET", "/", {"session": session_id})
        if answer.status == 200:
            return "data" in answer.json()["seen"]
        await trio.sleep(AGAIN_S)  # it could not find out in time, and says so: that is no loss
    return False


def main(arguments: Sequence[str] | None = None) -> int:
    """Play it; return 1 if it was not clean."""
    parser = script_parser(
        "joiner",
        "One more app process joins others that hold many sessions, under load. Prints one line of JSON: what clients "
        "waited before and during, and how long the newcomer took; exit code 1 if anything was lost.",
        "--sessions 10000 --kill-donor",
        nodes=(4, "that are there before"),
        sessions=100_000,
        value_bytes=2000,
        seconds=600,
        seed="what clients ask",
    )
    parser.add_argument("--kill-donor", action="store_true", help="kill -9 of who gives the newcomer most, midway")
    options = parser.parse_args(arguments)
    return run_script(
        "joiner",
        options.seconds,
        lambda: play(options.nodes, options.sessions, options.bytes, kill_donor=options.kill_donor, seed=options.seed),
    )


if __name__ == "__main__":
    sys.exit(main())
