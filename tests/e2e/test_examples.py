# The examples: a few lines make each of them replicated, and then it loses nothing (examples.py plays longer).

import os
import runpy

import httpx2
import pytest

from .examples import ADOPTED, DIFF, EXAMPLES, SERVE, By, play, show_elsewhere
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
@pytest.mark.parametrize(("framework", "by"), [*((framework, "diff") for framework in SERVE), ("django", "run")])
def test_visitors_of_an_example_lose_nothing_while_a_process_is_killed(framework: str, by: By) -> None:
    """What an application that was written for the framework alone gains by these lines; or by none."""
    told = play(framework, by, seconds=SECONDS)
    assert told.clean, [told.line(), *told.tally.notes]


@with_nginx
@pytest.mark.parametrize("framework", sorted(ADOPTED))
def test_who_was_logged_in_before_the_lines_changed_stays_so_and_logs_out_for_good(framework: str) -> None:
    """A change that logs everybody out waits for a quiet hour; and the former cookie must not be a way back in."""
    told = show_elsewhere(framework, "diff")
    assert told.tally.clean, told.tally.notes
    assert told.undead == 0, told.tally.notes


def test_the_example_without_a_framework_works_as_it_stands() -> None:
    """The others are run so by test_run.py. This one has another's sessions, which only the lines replace."""
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
