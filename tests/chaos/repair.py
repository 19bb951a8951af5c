# Repair: one session of very many differs between two nodes and nobody was told. Found when, and for how many bytes?
#
# The difference is a write that one node makes without a word to the other, as if every message of it had been lost:
# a session that the other lacks, or one of which the other has an older state. Each of the two nodes makes both.
# Counted:  every byte of the IP packets that both nodes send, TCP's own included, from the write until six seconds
#           after the repair, by when a second one would have followed; less what they send while idle in the same time
#           (probes, with the digests that ride on them), less the value written.
# How:      a network namespace of their own, whose loopback interface carries nothing else.
# Needs:    root, for the namespace.
#
# From the repository's root: python -m tests.chaos.repair --sessions 100000

import argparse
import sys
import time
from typing import Final, NamedTuple

from ..e2e.harness import ScenarioError
from .nodes import Cluster, enter_own_network, sent_bytes

BYTES_MAX: Final = 3 * 1024
"""Beyond the value itself."""
FOUND_MAX_S: Final = 6.0
"""Three seconds until the write has settled, a second for two probes, and a busy machine."""
VALUE_BYTES: Final = 100
SETTLED_AFTER_S: Final = 12.0
AFTER_S: Final = 6.0
FILL_S: Final = 600.0


class Repair(NamedTuple):
    """What one repair took."""

    what: str
    took_s: float
    bytes_used: float
    """Beyond idle traffic and the value itself."""


def play(sessions: int, rounds: int, idle_s: float) -> tuple[float, list[Repair]]:
    """Let one of `sessions` sessions differ, four times a round.

    Returns the bytes a second that both send while idle, and each repair.

    Raises:
        ScenarioError: a difference was not repaired in time, or the nodes did not come up.
    """
    with Cluster(2) as cluster:
        cookies = cluster.nodes[0].ask("create", FILL_S, sessions=sessions, value_bytes=VALUE_BYTES, confirm=0)
        cluster.wait_acknowledged(FILL_S)
        time.sleep(SETTLED_AFTER_S)  # what follows the filling is no part of the idle traffic
        before = sent_bytes()
        time.sleep(idle_s)  # the length of the measurement
        idle_rate = (sent_bytes() - before) / idle_s
        done: list[Repair] = []
        for number in range(4 * rounds):
            holder, other = cluster.nodes if number % 2 else reversed(cluster.nodes)
            lacks = number % 4 < 2
            session_id = f"unsaid {number}" if lacks else cookies[number * 7919 % sessions].partition(".")[0]
            before, key = sent_bytes(), f"repair {number}"
            began_s = holder.ask("write_behind", session_id=session_id, key=key, value_bytes=VALUE_BYTES)
            arrived_s = other.ask("wait_held", session_id=session_id, key=key, within_s=FOUND_MAX_S)
            if arrived_s is None:
                raise ScenarioError(f"the difference was not repaired within {FOUND_MAX_S:g} s")
            time.sleep(AFTER_S)  # what follows the repair belongs to it
            used = sent_bytes() - before - (time.monotonic() - began_s) * idle_rate - VALUE_BYTES
            done.append(Repair("missing" if lacks else "older", arrived_s - began_s, used))
        cluster.wait_equal(1.0)
        return idle_rate, done


def main() -> int:
    """Play what was asked for; return 1 if a bound is broken, 2 where nothing can be measured."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.repair", description="one divergent session")
    parser.add_argument("--sessions", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=2, help="of four repairs: missing and older, at either node")
    parser.add_argument("--idle-seconds", type=float, default=30, help="how long idle traffic is measured before")
    parser.add_argument("--bound", type=float, default=BYTES_MAX, help="bytes beyond idle traffic and the value")
    options = parser.parse_args()
    try:
        enter_own_network("tests.chaos.repair")
    except ScenarioError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        idle_rate, done = play(options.sessions, options.rounds, options.idle_seconds)
    except ScenarioError as error:
        print(f"broken: {error}")
        return 1
    print(f"2 nodes, {options.sessions} sessions, idle: {idle_rate / 2:.0f} B/s sent by each")
    for one in done:
        print(
            f"{one.what}: repaired after {one.took_s:.2f} s, for {one.bytes_used:.0f} bytes beyond idle and the value"
        )
    worst = max(one.bytes_used for one in done)
    print(
        f"{len(done)} repairs: at most {max(one.took_s for one in done):.2f} s (bound {FOUND_MAX_S:g}), "
        f"at most {worst:.0f} bytes (bound {options.bound:.0f})"
    )
    return 0 if worst <= options.bound else 1


if __name__ == "__main__":
    sys.exit(main())
