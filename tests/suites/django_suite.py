"""Django's own tests of sessions, messages, logins and CSRF, with Django's database engine and with ours.

    python -m tests.suites.django_suite              # on a lone node
    python -m tests.suites.django_suite --nodes 3    # every operation on a random one of three nodes

The tests are those of the Django that is installed, out of its source distribution, unmodified. What comes out
otherwise than with Django's engine is printed with its reason, and the exit code is 1 where one has none.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Final, NamedTuple

from tests.suites.django_child import BACKEND, OURS
from tests.suites.sources import NotFetched, source_of

STOCK: Final = "django.contrib.sessions.backends.db"
EXCEPTIONS: Final = {
    "sessions_tests.tests.SessionMiddlewareTests.test_empty_session_saved": (
        "looks for the session's row in the table django_session, which ours does not need. What it is about, that an "
        "emptied session lives on under its key, tests/unit/test_django.py holds."
    ),
    "auth_tests.test_middleware.TestLoginRequiredMiddleware.test_protected_view_logged_in_performance": (
        "counts the database's queries in a request, one for the session and one for the user. Ours needs none for the "
        "session. (In Django 6.)"
    ),
}
"""Tests that ours does not pass, each with why."""
TIMEOUT_S: Final = 1800.0


class Way(NamedTuple):
    """One way to run the tests."""

    title: str
    engine: str
    middleware: bool
    nodes: int


def ways(nodes: int) -> tuple[Way, ...]:
    """Return Django's own way, and ours."""
    where = "on a lone node" if nodes == 1 else f"on {nodes} nodes"
    return (
        Way("Django's database engine", STOCK, False, 1),
        Way(f"SESSION_ENGINE ours, {where}", OURS, False, nodes),
        Way(f"with our middleware too, {where}", OURS, True, nodes),
    )


def run(way: Way, folder: Path, labels: list[str]) -> dict[str, str]:
    """Return the outcome of each test: ``passed``, ``skipped``, or the last line of what went wrong."""
    with tempfile.TemporaryDirectory() as into:
        file = Path(into) / "outcomes.json"
        command = [sys.executable, "-m", "tests.suites.django_child", str(folder), f"--engine={way.engine}"]
        command += [f"--nodes={way.nodes}", f"--into={file}", *(["--middleware"] if way.middleware else [])]
        command += [f"--label={label}" for label in labels]
        done = subprocess.run(
            command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        if not file.exists():
            raise RuntimeError(f"{way.title}: the tests did not run.\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
        outcomes: dict[str, str] = json.loads(file.read_text())
    return outcomes


def suite_of(test: str) -> str:
    """Return under which heading a test is counted."""
    return "a session engine" if test.startswith(BACKEND) else test.split(".")[0]


def differing(stock: dict[str, str], ours: dict[str, str]) -> dict[str, str]:
    """Return what ours does not pass although Django's engine does, or what was not run at all: test -> what came."""
    return {
        test: ours.get(test, "not run") for test, came in stock.items() if came == "passed" and ours.get(test) != came
    }


def report(results: list[tuple[Way, dict[str, str]]]) -> tuple[str, bool]:
    """Return what there is to say, and whether everything that differs has its reason."""
    stock = results[0][1]
    suites = dict.fromkeys(suite_of(test) for test in stock)
    lines = [" " * 24 + "".join(f"{title:>40}" for (title, *_), _ in results)]
    for suite in (*suites, "all"):
        cells = []
        for _, outcomes in results:
            counts = Counter(
                came if came in ("passed", "skipped") else "failed"
                for test, came in outcomes.items()
                if suite in ("all", suite_of(test))
            )
            others = "".join(f", {counts[kind]} {kind}" for kind in ("failed", "skipped") if counts[kind])
            cells.append(f"{counts['passed']} passed{others}")
        lines.append(f"{suite:<24}" + "".join(f"{cell:>40}" for cell in cells))
    well = True
    for way, outcomes in results[1:]:
        differs = differing(stock, outcomes)
        for test, came in differs.items():
            why = EXCEPTIONS.get(test)
            well = well and why is not None
            lines += ["", f"{way.title}: {test}", f"    {came}", f"    {why or 'NOT EXPLAINED'}"]
        for test in EXCEPTIONS:
            if outcomes.get(test) == "passed":
                well = False
                lines += ["", f"{way.title}: {test}", "    passes, and is listed as an exception"]
    return "\n".join(lines), well


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=1, help="real nodes, each operation on a random one (default 1)")
    parser.add_argument("--label", action="append", default=[], help="only these of Django's tests")
    asked = parser.parse_args()
    try:
        folder = source_of("django") / "tests"
    except NotFetched as missing:
        print(missing)
        return 2
    text, well = report([(way, run(way, folder, asked.label)) for way in ways(asked.nodes)])
    print(text)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
