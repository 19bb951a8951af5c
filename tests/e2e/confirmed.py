# What was confirmed is held elsewhere: kill -9 of a writer under load loses none of it.
#
# One trial: this process runs node B; a process of its own, apps/writer.py, runs node A and writes at a steady
# pace with confirm=1. A is killed at a random moment. Every write that A had noted as confirmed must be in B.
# "Confirmed" here means held by another node at least: a lone node confirms at once, to nobody.
#
# From the repository's root: python -m tests.e2e.confirmed --trials 20 --rate 1000

import argparse
import random
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Final, NamedTuple

from gossipsess import sync
from gossipsess.config import Config
from gossipsess.errors import SessionUnavailable

from ..ports import LOOPBACK, free_ports
from .harness import DISCOVERIES, Discovery, Process, discovery_setting, gossip_environ

LOAD_S: Final = (0.5, 1.0)
"""Shortest and longest time from the first write to the kill."""
CONFIRMED_SHARE_MIN: Final = 0.99
RATE_SHARE_MIN: Final = 0.9
"""Below this share of the rate asked for, the trial was not the one asked for."""


class Trial(NamedTuple):
    """What became of the writes of one trial."""

    writes: int
    """Writes that had returned when A was killed."""
    confirmed: int
    """Of these, the ones that another node was said to hold."""
    missing: int
    """Of these, the ones whose outcome was Confirmed and that are not in B."""
    rate: float
    """Writes a second, from the first to the last."""


def play_trial(rate: float, discovery: Discovery = "static") -> Trial:
    """Let A write at `rate` writes a second, kill it, and look for its writes in B.

    With discovery "none" the nodes never meet, and whatever A says is not in B: that is the control.

    Raises:
        ScenarioError: A did not come up, did not find B, or ended by itself.
    """
    multicast_port, port_a, port_b = free_ports(3)
    cluster = f"e2e-{uuid.uuid4().hex}"
    found_by = discovery_setting(discovery, [port_a, port_b], multicast_port)
    config = Config(cluster=cluster, bind=LOOPBACK, port=port_b, port_range=1, discovery=found_by)
    with tempfile.TemporaryDirectory(prefix="gossipsess-e2e-") as name:
        folder = Path(name)
        notes = folder / "notes"
        notes.touch()
        script = Path(__file__).parent / "apps" / "writer.py"
        command = [sys.executable, str(script), str(notes), str(rate), "0" if discovery == "none" else "1"]
        writer = Process("writer", command, gossip_environ(cluster, port_a, found_by), folder)
        try:
            with sync.open_node(config) as node_b:
                writer.wait_for(lambda: notes.stat().st_size > 0, "writing")
                time.sleep(random.uniform(*LOAD_S))  # how long the load lasts; nothing is waited for
                assert writer.running, "the writer ended by itself"
                writer.kill()
                return _judge(notes.read_text(), node_b)
        except BaseException:
            print(writer.log_tail(), file=sys.stderr)
            raise
        finally:
            writer.kill()


def _judge(notes: str, node_b: sync.RunningFace) -> Trial:
    lines = [line.split() for line in notes.splitlines(keepends=True) if line.endswith("\n")]  # the last may be torn
    held: dict[str, set[str]] = {}
    elsewhere = missing = 0
    for _, outcome, nodes, session_id, key in lines:
        elsewhere += outcome == "Confirmed" and int(nodes) >= 1
        if outcome == "Confirmed":
            if session_id not in held:
                held[session_id] = _keys_in(node_b, session_id)
            missing += key not in held[session_id]
    took_s = float(lines[-1][0]) - float(lines[0][0])
    return Trial(len(lines), elsewhere, missing, len(lines) / took_s)


def _keys_in(node: sync.RunningFace, session_id: str) -> set[str]:
    try:
        return set(node.sessions.load(session_id) or ())
    except SessionUnavailable:
        return set()


def main() -> int:
    """Play the trials asked for; return 1 if a bound is broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.confirmed", description="kill -9 of a writer under load")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--rate", type=float, default=1000)
    parser.add_argument("--discovery", choices=DISCOVERIES, default="static")
    options = parser.parse_args()
    trials = []
    for number in range(1, options.trials + 1):
        trial = play_trial(options.rate, options.discovery)
        trials.append(trial)
        print(
            f"trial {number}/{options.trials}: {trial.writes} writes at {trial.rate:.0f}/s, "
            f"{trial.confirmed} confirmed elsewhere, {trial.missing} missing"
        )
    writes, confirmed = sum(trial.writes for trial in trials), sum(trial.confirmed for trial in trials)
    missing, slowest = sum(trial.missing for trial in trials), min(trial.rate for trial in trials)
    print(
        f"{options.discovery}: {options.trials} trials, {writes} writes, slowest trial {slowest:.0f}/s, "
        f"{confirmed / writes:.2%} confirmed elsewhere, {missing} confirmed and missing"
    )
    kept = not missing and confirmed >= CONFIRMED_SHARE_MIN * writes and slowest >= RATE_SHARE_MIN * options.rate
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
