"""Clusters of the real machine in virtual time: what holds under loss, reordering, crashes and restarts.

The checkers themselves are in `gossipsess.sim.checkers`; that they can fail is what test_mutants.py shows.
"""

import json
import os
import random
import subprocess
import sys

import pytest

from gossipsess.model import record
from gossipsess.model.member import Member, MemberState
from gossipsess.protocol.effects import CloseLink, Dial
from gossipsess.protocol.events import LinkClosed, LinkOpened, Received, ReceivedDatagram, Tick
from gossipsess.protocol.replica import Replica, Settings
from gossipsess.sim.__main__ import main
from gossipsess.sim.network import Faults, Network
from gossipsess.sim.run import simulate
from gossipsess.wire.messages import Gossip, Hello

SEEDS = 300
CROWDS = 60
LUCKY = ["day ahead", "gaps of everything", "refused clocks"]
"""Marks that so few seeds may miss; a long run reaches them."""


def replay(seed: int) -> str:
    return f"python -m gossipsess.sim --seed {seed} --trace"


def test_no_seed_breaks_an_invariant_and_the_seeds_reach_the_rare_paths() -> None:
    """Hundreds of schedules of faults find what no hand-written test thinks of, if they go where it is dark."""
    command = [sys.executable, "-m", "gossipsess.sim", "--seeds", str(SEEDS), "--jobs", "2", "--json"]
    campaign = subprocess.run(command, capture_output=True, check=False, text=True)
    assert campaign.returncode == 0, campaign.stderr
    summary = json.loads(campaign.stdout)
    assert summary["runs"] == SEEDS
    assert [mark for mark in summary["unreached"] if mark not in LUCKY] == []


def test_no_seed_of_a_crowd_breaks_an_invariant() -> None:
    """Four to twenty nodes, each session on some of them: most of what can go wrong there has to do with moving."""
    command = [sys.executable, "-m", "gossipsess.sim", "--seeds", str(CROWDS), "--crowd", "--jobs", "2", "--json"]
    campaign = subprocess.run(command, capture_output=True, check=False, text=True)
    assert campaign.returncode == 0, campaign.stderr
    summary = json.loads(campaign.stdout)
    assert summary["runs"] == CROWDS
    assert summary["counts"]["surplus dropped"] > CROWDS, "copies come and go"


def test_claims_may_be_dropped_at_any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Claims only shorten transfers: with room for two of them a record forgets all the time, and nothing breaks.

    A session that lives through a month of deployments drops them too; a run of ten seconds would never get there.
    """
    monkeypatch.setattr(record, "CLAIMS_MAX", 2)
    for seed in range(1000, 1040):
        result = simulate(seed, nodes=4)
        assert result.violation is None, f"with CLAIMS_MAX = 2: {result.violation}\n{replay(seed)} --nodes 4"


def test_a_seed_is_one_run_whatever_the_hash_seed() -> None:
    """A failure that cannot be replayed cannot be repaired: nothing may depend on the order of a set."""

    def trace_hash(hash_seed: str) -> str:
        answer = subprocess.run(
            [sys.executable, "-m", "gossipsess.sim", "--seed", "7", "--json"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            text=True,
        )
        return str(json.loads(answer.stdout)["trace_hash"])

    first = trace_hash("1")
    assert trace_hash("2") == first
    assert simulate(7).trace_hash == first
    assert simulate(8).trace_hash != first


def test_looking_at_a_run_does_not_change_it() -> None:
    """The trace of a failing seed must show the run that failed."""
    plain, traced = simulate(5), simulate(5, trace=True)
    assert traced.trace_hash == plain.trace_hash
    assert any("<-" in line and "push" in line for line in traced.trace)


def test_the_fate_of_a_message_depends_on_its_pair_and_number_only() -> None:
    """Otherwise leaving one request out, to make a failure smaller, would reshuffle every loss after it."""
    faults = Faults(loss=0.3, duplicate=0.3, delay_s=0.01)
    quiet, busy = Network(1, faults), Network(1, faults)
    fates = [quiet.delays("udp", "a", "b") for _ in range(50)]
    busy_fates = []
    for _ in range(50):
        busy.delays("udp", "b", "a")
        busy.delays("tcp", "a", "b")
        busy_fates.append(busy.delays("udp", "a", "b"))
    assert busy_fates == fates
    assert {len(delays) for delays in fates} == {0, 1, 2}


def test_the_address_of_a_seed_that_has_gone_is_dialed_again() -> None:
    """Its successor starts there, and may not know where this node is: both would stay alone for ever."""
    address = ("10.0.0.2", 7950)
    here = Member(b"here-nod", 0, MemberState.ALIVE, ("10.0.0.1", 7950), "here", "host1")
    seed = Member(b"seed-nod", 0, MemberState.ALIVE, address, "seed", "host2")
    replica = Replica(here, Settings(seeds=(address,)), clock_offset_ms=0, rng=random.Random(1), now_s=0.0)
    replica.handle(Tick(), 0.0)
    assert Dial(address) in replica.outbox
    replica.handle(LinkOpened(1, seed.node, dialed=address), 0.1)
    replica.handle(Received(1, Hello(seed, 0, ())), 0.1)
    replica.outbox.clear()

    left = seed._replace(state=MemberState.LEFT)
    replica.handle(ReceivedDatagram(seed.node, address, Gossip((left,))), 1.0)
    assert CloseLink(1) in replica.outbox
    replica.handle(LinkClosed(1), 1.0)
    replica.handle(Tick(), 2.0)
    assert Dial(address) in replica.outbox


def test_the_command_line_sums_up(capsys: pytest.CaptureFixture[str]) -> None:
    """The summary is what a nightly run keeps."""
    assert main(["--seeds", "3", "--start", "40", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["runs"], summary["violations"], summary["replay"]) == (3, 0, [])
    assert summary["seeds"] == [40, 42]
    for figures in (summary["run_s"], summary["settle_s"]):
        assert 0 <= figures["p50"] <= figures["p99"] <= figures["max"]
