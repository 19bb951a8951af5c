"""Every way in which people start an application, with the real server; and what a process does that serves nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hosts.cells import CELLS, Cell
from tests.hosts.matrix import table
from tests.hosts.play import logins_kept, missing, play

APPS = Path(__file__).parent / "apps"
DOCS = Path(__file__).parents[2] / "docs" / "HOSTS.md"


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_each_serving_process_has_its_node_and_no_other_process_has_one(cell: Cell) -> None:
    """A node in a master is dead in every worker; a worker without one loses every login that it takes."""
    lacking = missing(cell)
    if lacking:
        pytest.skip(f"{lacking} is not installed")
    play(cell)


def test_a_signal_to_all_processes_at_once_is_an_orderly_end_too() -> None:
    """systemd sends it so. Hypercorn's workers do not handle it: they leave it to their parent to end them."""
    (cell,) = [cell for cell in CELLS if cell.name == "hypercorn -k asyncio spawn, -w"]
    play(cell, group=True)


@pytest.mark.parametrize("name", ["uvicorn spawn, --reload", "gunicorn -k sync fork, --preload", "runserver reloader"])
def test_it_is_the_same_for_an_application_that_knows_nothing_of_it(name: str) -> None:
    """`gossipsess run` brings the adapter in by other means; when the node starts does not depend on that."""
    (cell,) = [cell.zero_code for cell in CELLS if cell.name == name]
    lacking = missing(cell)
    if lacking:
        pytest.skip(f"{lacking} is not installed")
    play(cell)


def test_a_restart_of_all_workers_logs_nobody_out() -> None:
    """A deployment on one machine: all end at the same signal, and with five none of them holds every session."""
    command = ("-m", "gunicorn", "-b", "127.0.0.1:{port}", "-w", "5", "-k", "gthread", "wsgi_shop:app")
    assert logins_kept(Cell("gunicorn", "-k gthread", "", "wsgi_shop", command, 5, True), 12) == 12


_LOOKS = "import sys, threading; print('node', 'gossipsess' in [one.name for one in threading.enumerate()])"
_BUILDS = "from django.core.wsgi import get_wsgi_application; get_wsgi_application()"


@pytest.mark.parametrize(
    ("command", "typed"),
    [
        (("-m", "django", "shell", "--settings", "django_shop", "-c", f"{_BUILDS}; {_LOOKS}"), ""),
        (("-m", "flask", "--app", "wsgi_shop", "shell"), _LOOKS),
        (("-c", f"import gossipsess; {_LOOKS}; print('trio' in sys.modules)"), ""),
    ],
    ids=["django shell", "flask shell", "import gossipsess"],
)
def test_a_process_that_serves_nothing_has_no_node(command: tuple[str, ...], typed: str) -> None:
    """A prompt that is left open would hold sessions, and take their last copies with it."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *command],
        input=typed,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=APPS,
        env={name: text for name, text in os.environ.items() if not name.startswith("PYTEST_")},
    )
    assert "node False" in done.stdout, done
    assert "True" not in done.stdout, "nor Trio"


def test_the_guide_shows_these_cells_and_no_others() -> None:
    """A table that is kept by hand tells of what once was."""
    assert table() in DOCS.read_text(), "put in what `python -m tests.hosts.matrix` prints"


@pytest.mark.parametrize(
    ("library", "patch"),
    [
        ("gevent", "import gevent.monkey; gevent.monkey.patch_all()"),
        ("eventlet", "import eventlet; eventlet.monkey_patch()"),
    ],
)
def test_the_real_greenlets_are_refused_before_trio_finds_them(library: str, patch: str) -> None:
    """What Trio says of them helps nobody: an attribute that is missing, or nothing at all."""
    pytest.importorskip("packaging")
    if not missing_free(library):
        pytest.skip(f"{library} is not installed")
    script = f"""
{patch}
import sys
from gossipsess.config import Config
from gossipsess.service import process_node
try:
    process_node(Config(discovery="none", port=0))
except Exception as error:
    print(type(error).__name__, str(error).partition(" has replaced")[0], "trio" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "EVENTLET_NO_GREENDNS": "yes"},  # else it cannot be imported beside dnspython and Trio
    )
    assert done.stdout.split() == ["ConfigError", library, "False"]


def missing_free(library: str) -> bool:
    """Say whether a library is installed, without importing it here: both change what they meet."""
    import importlib.util

    return importlib.util.find_spec(library) is not None
