# The examples: a few lines make each of them replicated, and then it loses nothing (examples.py plays longer).

import pytest

from .examples import DIFF, EXAMPLES, SERVE, play
from .harness import nginx_path

LINES_MAX = 3
SECONDS = 2.0

with_nginx = pytest.mark.skipif(nginx_path() is None, reason="nginx is not installed: apt-get install nginx-light")


def test_no_example_is_forgotten() -> None:
    """One that nobody runs is wrong sooner or later. (`shop` is replicated as it is; the lab runs it.)"""
    assert {path.parent.name for path in EXAMPLES.glob("*/app.py")} == {*SERVE, "shop"}


@pytest.mark.parametrize("framework", SERVE)
def test_an_example_is_made_replicated_by_three_lines_at_most(framework: str) -> None:
    """So much the README says; blank lines and comments count too."""
    lines = (EXAMPLES / framework / DIFF).read_text().splitlines()
    added, removed = ([line for line in lines if line[0] == sign and line[:3] != 3 * sign] for sign in "+-")
    assert 0 < len(added) <= LINES_MAX, added
    assert len(removed) <= len(added), removed


@with_nginx
@pytest.mark.parametrize("framework", SERVE)
def test_visitors_of_an_example_lose_nothing_while_a_process_is_killed(framework: str) -> None:
    """What an application that was written for the framework alone gains by these lines."""
    told = play(framework, seconds=SECONDS)
    assert told.clean, [told.line(), *told.tally.notes]


@with_nginx
def test_visitors_are_reported_to_lose_everything_where_the_nodes_never_meet() -> None:
    """The runs above prove something only if a loss would be seen."""
    told = play("starlette", seconds=SECONDS, discovery="none")
    assert not told.clean
    assert told.tally.lost > 0
