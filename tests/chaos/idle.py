# Idle: what nodes send while nobody does anything.
#
# Counted:  every byte of the IP packets that the nodes send: probes, beacons, links with TCP's own acknowledgements.
# How:      all nodes in a network namespace of their own, whose loopback interface carries nothing else. Beacons go
#           to a multicast group there; the first ten seconds, in which they are fast, are not counted.
# Needs:    root, for the namespace.
#
# From the repository's root: python -m tests.chaos.idle --nodes 2,5 --sessions 0,100000 --seconds 60

import argparse
import sys
import time
from typing import Final

from ..e2e.harness import ScenarioError
from .nodes import Cluster, enter_own_network, sent_bytes

BYTES_PER_S_MAX: Final = 520.0
"""Sent by one node, beacons included, whatever the number of nodes and of sessions."""
BEACONS_SLOW_AFTER_S: Final = 12.0
VALUE_BYTES: Final = 100
FILL_S: Final = 600.0


def measure(nodes: int, sessions: int, seconds: float) -> float:
    """Return the bytes a second that one of `nodes` idle nodes sends, each holding `sessions` sessions.

    Raises:
        ScenarioError: the nodes did not find each other, or not all that was created came to all.
    """
    with Cluster(nodes, discovery="multicast") as cluster:
        linked_s = time.monotonic()
        if sessions:
            cluster.nodes[0].ask("create", FILL_S, sessions=sessions, value_bytes=VALUE_BYTES, confirm=0)
            cluster.wait_acknowledged(FILL_S)
            held = {one["sessions"] for one in cluster.ask_all("status")}
            if held != {sessions}:
                raise ScenarioError(f"{sessions} sessions were created, and nodes hold {held}")
        time.sleep(max(3.0, linked_s + BEACONS_SLOW_AFTER_S - time.monotonic()))
        before, began_s = sent_bytes(), time.monotonic()
        time.sleep(seconds)  # the length of the measurement; nothing is waited for
        return (sent_bytes() - before) / (time.monotonic() - began_s) / nodes


def main() -> int:
    """Measure what was asked for; return 1 if the bound is broken, 2 where nothing can be measured."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.idle", description="bytes that idle nodes send")
    parser.add_argument("--nodes", default="2,5", help="numbers, joined by commas")
    parser.add_argument("--sessions", default="0,100000", help="held by each node; numbers, joined by commas")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--bound", type=float, default=BYTES_PER_S_MAX, help="bytes a second for one node")
    options = parser.parse_args()
    highest = 0.0
    try:
        enter_own_network("tests.chaos.idle")
        for sessions in [int(text) for text in options.sessions.split(",")]:
            for nodes in [int(text) for text in options.nodes.split(",")]:
                rate = measure(nodes, sessions, options.seconds)
                highest = max(highest, rate)
                print(
                    f"{nodes} nodes, {sessions} sessions: {rate:.0f} B/s sent by each (bound {options.bound:.0f})",
                    flush=True,
                )
    except ScenarioError as error:
        print(error, file=sys.stderr)
        return 2
    return 0 if highest <= options.bound else 1


if __name__ == "__main__":
    sys.exit(main())
