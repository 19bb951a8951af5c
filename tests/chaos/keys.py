# Writes at the same moment: nothing of them is lost, and all nodes agree.
#
# Race:  two processes write one session at an agreed moment, each a key of its own and one key that both write.
#        Both own keys must be on both, always; of the common key both must hold the same value, and whichever node
#        sees that the other's was overwritten unread counts it.
# Hot:   every process writes one session as fast as it can, without a pause. Once quiet, all must be equal, and
#        each node's own keys must have the last value that it wrote.
#
# A race is one only where neither saw the other's key; how many were is counted, and too few is a failure too.
#
# From the repository's root: python -m tests.chaos.keys --rounds 1000 --hot 5

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple

from ..e2e.harness import Discovery, ScenarioError
from .nodes import Cluster

EVERY_S: Final = 0.01
"""Between two races; long enough for a slow machine to be done with one."""
LEAD_S: Final = 0.3
QUIET_S: Final = 10.0
"""How long the nodes may take until they are equal."""
RACES_SHARE_MIN: Final = 0.5
"""With fewer writes that truly met, the rounds were not the ones asked for."""
HOT_KEYS: Final = 10


class Races(NamedTuple):
    """How the races ended."""

    rounds: int
    met: int
    """Rounds in which neither side saw the other's key before it wrote."""
    lost: int
    """Own keys that are not on both nodes with the value written."""
    disagreed: int
    """Rounds in which the common key is not the same on both, or is neither's."""
    counted: tuple[int, ...]
    """Concurrent overwrites that each node has counted; a race is seen by one of them or by both."""

    @property
    def kept(self) -> bool:
        """Nothing was lost, the nodes agree, it was a race, and no race went uncounted."""
        counted = sum(self.counted) >= self.met and max(self.counted) <= self.rounds
        return not self.lost and not self.disagreed and self.met >= RACES_SHARE_MIN * self.rounds and counted


def play_races(rounds: int, discovery: Discovery = "static") -> Races:
    """Let two nodes write `rounds` sessions, each at an agreed moment.

    With discovery "none" the nodes never meet, and every round must count as lost: that is the control.

    Raises:
        ScenarioError: the nodes did not come up, or were not equal in time.
    """
    with Cluster(2, discovery=discovery) as cluster, ThreadPoolExecutor(2) as threads:
        nodes = cluster.nodes
        cookies = nodes[0].ask("create", sessions=rounds, value_bytes=16, confirm=1)
        names, at_s = ("a", "b"), time.monotonic() + LEAD_S
        patience_s = LEAD_S + rounds * 1.0
        running = [
            threads.submit(
                nodes[i].ask, "race", patience_s, cookies=cookies, own=names[i], other=names[1 - i], at_s=at_s,
                every_s=EVERY_S,
            )
            for i in (0, 1)
        ]  # fmt: skip
        blind = [set(one.result()) for one in running]
        if discovery != "none":
            cluster.wait_acknowledged(QUIET_S)
            cluster.wait_equal(QUIET_S)
        ids = [cookie.partition(".")[0] for cookie in cookies]
        counted = tuple(status["overwrites"] for status in cluster.ask_all("status"))
        held = [dict(enumerate(one)) for one in cluster.ask_all("shown", ids=ids)]
    lost = disagreed = 0
    for number in range(rounds):
        sides: list[dict[str, Any]] = [one[number] or {} for one in held]
        lost += sum(side.get(name) != number for side in sides for name in names)
        winners = {side.get("same") for side in sides}
        disagreed += len(winners) != 1 or not winners <= {f"{name} {number}" for name in names}
    return Races(rounds, len(blind[0] & blind[1]), lost, disagreed, counted)


def play_hot(updates: int, nodes: int = 2) -> tuple[float, float]:
    """Let `nodes` nodes write one session, `updates` times in all; return writes a second, and seconds to equality.

    Raises:
        ScenarioError: they were not equal in time, or a node's last writes are not there.
    """
    with Cluster(nodes) as cluster, ThreadPoolExecutor(nodes) as threads:
        (cookie,) = cluster.nodes[0].ask("create", sessions=1, value_bytes=16, confirm=1)
        cluster.wait_equal(QUIET_S)
        each = updates // nodes
        began_s = time.monotonic() + LEAD_S
        writing = [
            threads.submit(node.ask, "hammer", 120.0, cookie=cookie, own=f"n{node.index}", updates=each, at_s=began_s)
            for node in cluster.nodes
        ]
        for one in writing:
            one.result()
        wrote_s = time.monotonic() - began_s
        equal_s = cluster.wait_equal(QUIET_S)
        (values,) = cluster.nodes[0].ask("shown", ids=[cookie.partition(".")[0]])
        for node in cluster.nodes:
            for number in range(max(0, each - HOT_KEYS), each):
                key = f"n{node.index} {number % HOT_KEYS}"
                if values.get(key) != number:
                    raise ScenarioError(f"{key!r} is {values.get(key)}, and the last that was written is {number}")
        return each * nodes / wrote_s, equal_s


def main() -> int:
    """Play what was asked for; return 1 if a bound is broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.keys", description="writes at the same moment")
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--hot", type=int, default=5, help="how often one session is written 5,000 times unpaced")
    parser.add_argument("--updates", type=int, default=5000)
    parser.add_argument("--nodes", type=int, default=3, help="that write the hot session")
    parser.add_argument("--discovery", choices=("static", "none"), default="static", help="none: the control")
    options = parser.parse_args()
    try:
        races = play_races(options.rounds, options.discovery)
        print(
            f"{races.rounds} races, {races.met} of them met: {races.lost} own keys lost, "
            f"{races.disagreed} common keys disagreed, overwrites counted {races.counted}"
        )
        for number in range(1, options.hot + 1):
            rate, equal_s = play_hot(options.updates, options.nodes)
            print(
                f"hot session {number}/{options.hot}: {options.updates} writes by {options.nodes} nodes at "
                f"{rate:.0f}/s, equal {equal_s:.2f} s after the last"
            )
    except ScenarioError as error:
        print(f"broken: {error}")
        return 1
    return 0 if races.kept else 1


if __name__ == "__main__":
    sys.exit(main())
