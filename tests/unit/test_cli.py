"""The command line: that it is found, and says which version it is."""

import json
import subprocess
import sys
from importlib.metadata import version

import pytest

INSTALLED = version("gossipsess")


def output_of(*command: str) -> str:
    return subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("arguments", [["--version"], ["version"]])
def test_the_version_is_told_in_the_two_ways_that_people_try(arguments):
    """It is the first question of every bug report."""
    assert output_of("gossipsess", *arguments) == f"gossipsess {INSTALLED}\n"


def test_the_version_is_there_for_programs_too():
    assert json.loads(output_of("gossipsess", "version", "--json")) == {"version": INSTALLED}


def test_without_a_command_it_says_what_there_is():
    done = subprocess.run([sys.executable, "-m", "gossipsess"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: gossipsess ")
