"""The checkers catch the bugs they are there for: each mutant is found by some seed, and not without the mutant."""

import re

import pytest

from gossipsess.sim.__main__ import main
from gossipsess.sim.workload import simulate
from tests.simulation.mutants import MUTANTS, planted

SEEDS_MAX = 2000
FIRST_SEEN = {
    "scalar_since": (86, "containment"),
    "advance_on_gap": (0, "containment"),
    "death_does_not_dominate": (0, "came back to life"),
    "deleted_entries_are_dropped": (0, "does not hold it"),
    "stamps_follow_the_wall_clock": (0, "not stamped above"),
    "gaps_count_as_held": (5, "hold it"),
    "nothing_is_sent_again": (0, "again and again"),
    "tombstones_do_not_sync": (0, "no convergence"),
    "node_ids_are_reused": (101, ""),
    "newcomers_say_absent": (30, "asked nobody"),
}
"""A seed that catches the mutant, found by running them in turn, and a word of the violation. Where a change of the
machine gives the seeds another meaning, the search goes on from there."""


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_caught(name: str) -> None:
    """A checker that nothing can fail proves nothing."""
    first, word = FIRST_SEEN[name]
    with planted(name):
        violations = (simulate(seed).violation for seed in range(first, first + SEEDS_MAX))
        caught = next((violation for violation in violations if violation is not None and word in violation), None)
    assert caught is not None, f"{SEEDS_MAX} seeds from {first} on do not catch {name}"


def test_a_violation_prints_the_command_that_repeats_it(capsys: pytest.CaptureFixture[str]) -> None:
    """What a nightly run finds must be seen again by who reads its log, with one line of shell."""
    with planted("death_does_not_dominate"):
        assert main(["--seeds", "10", "--nodes", "4", "--loss", "0.2"]) == 1
        printed = capsys.readouterr().err
        command = re.search(r"replay: python -m gossipsess\.sim (--seed \d+ --nodes 4 --loss 0\.2) --trace", printed)
        assert command is not None
        assert main(command[1].split()) == 1
        assert "came back to life" in capsys.readouterr().out
