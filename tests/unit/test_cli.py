"""The command line: that it is found, and says which version it is."""

import json
import subprocess
import sys
from importlib.metadata import version

import pytest

from gossipsess.cli.__main__ import main

INSTALLED = version("gossipsess")


def output_of(*command: str) -> str:
    return subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("arguments", [["--version"], ["version"]])
def test_the_version_is_told_in_the_two_ways_that_people_try(arguments):
    """It is the first question of every bug report."""
    assert output_of("gossipsess", *arguments) == f"gossipsess {INSTALLED}\n"


def test_the_version_is_there_for_programs_too():
    assert json.loads(output_of("gossipsess", "version", "--json")) == {"version": INSTALLED}


def test_an_error_of_the_demo_shows_how_the_demo_is_called(capsys):
    """What it is to be called with is not in the usage of all commands."""
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--nodes", "2", "--scenario", "holders"])
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert error.startswith("usage: gossipsess demo ")
    assert "3 nodes or more" in error


def test_the_demos_help_names_every_event_of_each_scenario(capsys):
    """A program that reads them has nothing else to go by."""
    with pytest.raises(SystemExit):
        main(["demo", "--help"])
    events = capsys.readouterr().out.partition("JSON events")[2]
    for event in ("grace", "visitors", "gains", "holds", "lives", "drained", "verdict", "view"):
        assert event in events


def test_without_a_command_it_says_what_there_is():
    done = subprocess.run([sys.executable, "-m", "gossipsess"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: gossipsess ")
