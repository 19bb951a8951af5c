# Pause: SIGSTOP of one peer under full write load must not hurt the others, and it catches up when it goes on.
#
# Three nodes. Two of them write a fixed set of sessions, as fast as they can, with confirm=1: first with all well,
# then with the third one stopped. The set being fixed, memory that grows is memory that waits for the stopped peer.
# Then SIGCONT at the end of the load, and all must become equal.
#
# From the repository's root: python -m tests.chaos.pause --seconds 60

import argparse
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Final, NamedTuple

from ..e2e.harness import ScenarioError
from .nodes import ChaosNode, Cluster, ask_each, percentile

RSS_GROWTH_MAX: Final = 64 * 1024 * 1024
"""A node may hold 4 MiB unacknowledged for a peer, sealed copies of it, and of every session owed the state that
the peer is believed to have."""
LATENCY_RATIO_MAX: Final = 2.0
LATENCY_FLOOR_S: Final = 0.02
"""A p99 below this is good whatever it was before: on a busy machine the ratio of two small numbers is chance."""
CATCH_UP_MAX_S: Final = 15.0
WRITERS: Final = 4
SESSIONS: Final = 2000
VALUE_BYTES: Final = 500


class Paused(NamedTuple):
    """What the pause cost. Times in seconds."""

    writes_per_s: tuple[float, float]
    """Before, and during the pause; of both writing nodes together."""
    p99_s: tuple[float, float]
    rss_growth: int
    """Of the node that grew most, at its highest, bytes."""
    catch_up_s: float

    @property
    def kept(self) -> bool:
        """Every bound holds."""
        before_s, during_s = self.p99_s
        return (
            self.rss_growth <= RSS_GROWTH_MAX
            and during_s <= max(LATENCY_RATIO_MAX * before_s, LATENCY_FLOOR_S)
            and self.catch_up_s <= CATCH_UP_MAX_S
        )


class _Highest:
    """The most memory that nodes have had above what they had at first, looked at until stopped."""

    def __init__(self, nodes: list[ChaosNode]) -> None:
        self.growth = 0
        self._nodes = nodes
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> "_Highest":
        self._first = [node.rss_bytes() for node in self._nodes]
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stopped.wait(0.1):
            for node, first in zip(self._nodes, self._first, strict=True):
                self.growth = max(self.growth, node.rss_bytes() - first)


def play(pause_s: float, before_s: float = 10.0) -> Paused:
    """Load two nodes for `before_s` seconds, then for `pause_s` more with the third one stopped.

    Raises:
        ScenarioError: the nodes did not come up, or did not become equal at all.
    """
    with Cluster(3) as cluster:
        first, second, third = cluster.nodes
        writing = [first, second]
        cookies = first.ask("create", sessions=SESSIONS, value_bytes=VALUE_BYTES, confirm=0)
        cluster.wait_equal(CATCH_UP_MAX_S)
        load = {"cookies": cookies, "writers": WRITERS, "value_bytes": VALUE_BYTES}
        ask_each(writing, "load", before_s + 30, seconds=before_s / 2, **load)  # warm: memory grows at first
        before = [*chain(*ask_each(writing, "load", before_s + 30, seconds=before_s, **load))]
        with _Highest(writing) as highest, ThreadPoolExecutor(1) as threads:
            loading = threads.submit(ask_each, writing, "load", pause_s + 30, seconds=pause_s, **load)
            third.pause()
            during = [*chain(*loading.result())]
            third.resume()
        resumed_s = time.monotonic()
        cluster.wait_equal(4 * CATCH_UP_MAX_S)
        return Paused(
            (len(before) / before_s, len(during) / pause_s),
            (percentile(before, 99), percentile(during, 99)),
            highest.growth,
            time.monotonic() - resumed_s,
        )


def main() -> int:
    """Play it; return 1 if a bound is broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.pause", description="SIGSTOP of a peer under load")
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    try:
        paused = play(options.seconds)
    except ScenarioError as error:
        print(f"broken: {error}")
        return 1
    print(
        f"paused {options.seconds:g} s: {paused.writes_per_s[0]:.0f} writes/s before, {paused.writes_per_s[1]:.0f} "
        f"during; p99 {paused.p99_s[0] * 1e3:.1f} ms before, {paused.p99_s[1] * 1e3:.1f} ms during "
        f"(bound {LATENCY_RATIO_MAX:g}x); memory grew by {paused.rss_growth / 2**20:.1f} MiB at most "
        f"(bound {RSS_GROWTH_MAX / 2**20:.0f}); equal {paused.catch_up_s:.2f} s after SIGCONT "
        f"(bound {CATCH_UP_MAX_S:g})"
    )
    return 0 if paused.kept else 1


if __name__ == "__main__":
    sys.exit(main())
