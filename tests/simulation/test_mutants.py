"""The checkers catch the bugs they are there for: each mutant's scenario fails with the mutant, and not without it.

Which seed found it and how small it became is in the files; `python -m tests.simulation.search_mutants` makes them.
"""

import os
import re
import subprocess
import sys

import pytest

from gossipsess.protocol import offers, surplus
from gossipsess.sim.__main__ import main
from gossipsess.sim.run import run
from gossipsess.sim.scenario import load
from tests.simulation.close_up import CLOSE_UP
from tests.simulation.mutants import SMALL_WORLD, planted
from tests.simulation.search_mutants import FOLDER, REPLAYED, caught, file_of
from tests.unit.surplus_world import LostCopy, play
from tests.unit.test_surplus_safety import SEEDS, there_and_back


@pytest.mark.parametrize("name", REPLAYED)
def test_a_planted_bug_is_caught(name: str) -> None:
    """A checker that nothing can fail proves nothing. A change of the machine can give a scenario another course:
    then the search finds a new one, or the checkers have lost their grip."""
    scenario = load(file_of(name))
    assert caught(name, scenario), f"search anew: python -m tests.simulation.search_mutants {name}"
    assert run(scenario).violation is None


@pytest.mark.parametrize("name", SMALL_WORLD)
def test_a_bug_that_only_views_which_differ_for_long_show_is_caught(name: str) -> None:
    """Few runs of whole nodes come there, and in production the one that does loses a login."""
    with planted(name), pytest.raises(LostCopy):  # noqa: PT012
        for pause_s in (0.5, 61.0):
            there_and_back(surplus, offers, pause_s)
        for seed in range(SEEDS):
            play(seed, surplus, offers)


@pytest.mark.parametrize("name", CLOSE_UP)
def test_a_bug_that_whole_runs_do_not_show_is_seen_close_up(name: str) -> None:
    """Each rule that can be broken unseen by all tests may as well not be there."""
    CLOSE_UP[name]()
    with planted(name), pytest.raises(AssertionError):
        CLOSE_UP[name]()


def test_who_fills_up_need_not_know_yet_of_a_write_and_must_of_a_read() -> None:
    """A write comes with what is gained, and an older copy may end before that; a read is told at once or never."""
    scenario = load(FOLDER / "an_old_copy_ends_while_its_node_fills_up.json")
    *begun, write, read = scenario.requests
    earlier = write._replace(at_s=read.at_s - 2.5)  # so that it does not tell of the read
    apart = scenario._replace(requests=(*begun, earlier, read))
    assert run(apart).violation is None
    with planted("new_holders_hear_of_no_access"):
        assert run(apart).rule == "{} dropped {}, which its peer {} knows to be in use"


def test_an_order_that_a_set_decides_is_seen() -> None:
    """Two hash seeds must give one run, and this is how it looks when they do not."""
    code = (
        "from gossipsess.sim.run import simulate\n"
        "from tests.simulation.mutants import planted\n"
        "with planted('a_set_decides'):\n"
        "    print(simulate(7).trace_hash)\n"
    )

    def trace_hash(hash_seed: str) -> str:
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", code]
        return subprocess.run(command, env=environment, capture_output=True, check=True, text=True).stdout

    assert trace_hash("1") != trace_hash("2")


def test_a_violation_prints_the_command_that_repeats_it(capsys: pytest.CaptureFixture[str]) -> None:
    """What a nightly run finds must be seen again by who reads its log, with one line of shell."""
    with planted("death_does_not_dominate"):
        assert main(["--seeds", "10", "--nodes", "4", "--loss", "0.2"]) == 1
        printed = capsys.readouterr().err
        command = re.search(r"replay: python -m gossipsess\.sim (--seed \d+ --nodes 4 --loss 0\.2) --trace", printed)
        assert command is not None
        assert main(command[1].split()) == 1
        assert "came back to life" in capsys.readouterr().out
