"""What users of other session layers complain of: theirs lose, ours does not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .lost_updates import CASES, ONLY, OURS, Line, counts

ROOT = Path(__file__).parents[2]
COMPLAINTS = sorted({case[0] for case in CASES})


@pytest.fixture(scope="module")
def lines() -> list[Line]:
    """The table, made by a process of its own: Django is configured once in each, and not for other tests."""
    command = [sys.executable, "-m", "tests.compare.lost_updates", "--rounds", "1", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    print(done.stderr)  # what was left out, and why
    assert done.returncode in (0, 1), done.stderr  # 1: ours lost something, and the tests say what
    return [Line(**json.loads(line)) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("case", CASES)
def test_ours_keeps_what_requests_at_the_same_time_change(case, lines) -> None:
    """On a lone node, and where each of the requests is served by another node."""
    ours = [line for line in lines if line.case == case and line.sessions.startswith(OURS)]
    assert not any(map(counts, ours)), ours
    places = {line[1:3] for line in ours}
    wanted = {ONLY[case]} if case in ONLY else {"Starlette", "Flask"}
    assert places >= {(name, f"{OURS}, {where}") for name in wanted for where in ("lone node", "three nodes")}


@pytest.mark.parametrize("complaint", COMPLAINTS)
def test_a_stock_backend_loses_in_each_of_the_complaints(complaint, lines) -> None:
    """Else the requests do not overlap as the case says, and ours is shown to survive nothing."""
    stock = [line for line in lines if line.case[0] == complaint and not line.sessions.startswith(OURS)]
    if complaint == "4" and not any(line.framework == "Django" for line in stock):
        pytest.skip("it is Django's, and Django is not installed")
    assert any(line.lost for line in stock), stock
