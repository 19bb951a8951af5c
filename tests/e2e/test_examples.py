# The examples: a few lines make each of them replicated, and then it loses nothing (examples.py plays longer).

import os
import runpy

import httpx2
import pytest

from .examples import BY_DIFF_ONLY, DIFF, EXAMPLES, SERVE, play, show_elsewhere
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
    assert len(removed) <= LINES_MAX, removed


@with_nginx
@pytest.mark.parametrize("framework", SERVE)
def test_visitors_of_an_example_lose_nothing_while_a_process_is_killed(framework: str) -> None:
    """What an application that was written for the framework alone gains by these lines."""
    told = play(framework, seconds=SECONDS)
    assert told.clean, [told.line(), *told.tally.notes]


@with_nginx
@pytest.mark.parametrize("framework", [framework for framework in SERVE if framework not in BY_DIFF_ONLY])
def test_an_example_is_replicated_unchanged_by_gossipsess_run(framework: str) -> None:
    """No line has to change, where the framework brings sessions that can be stood in for; and nobody is logged out."""
    told = show_elsewhere(framework, "run")
    assert told.tally.clean, told.tally.notes
    assert told.undead == 0, told.tally.notes


def test_the_example_without_a_framework_works_as_it_stands() -> None:
    """All others do so above. This one has another's sessions, which are not replaced unless the lines change."""
    app = runpy.run_path(str(EXAMPLES / "wsgi" / "app.py"))["app"]
    with httpx2.Client(transport=httpx2.WSGITransport(app), base_url="http://shop") as browser:
        browser.post("/login", data={"user": "kim"})
        browser.post("/cart", data={"item": "book"})
        shown = browser.get("/", headers={"Accept": "application/json"}).json()
        assert shown == {"user": "kim", "cart": ["book"], "replica": os.getpid()}
        browser.post("/logout")
        assert browser.get("/", headers={"Accept": "application/json"}).json()["user"] is None


@with_nginx
def test_visitors_are_reported_to_lose_everything_where_the_nodes_never_meet() -> None:
    """The runs above prove something only if a loss would be seen."""
    told = play("starlette", seconds=SECONDS, discovery="none")
    assert not told.clean
    assert told.tally.lost > 0
