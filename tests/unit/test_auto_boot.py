"""What happens when a Python starts under zero code: real processes, since it is over before a test could look."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gossipsess.boot import started
from gossipsess.cli.run import BOOT, environ_of
from gossipsess.zero_code import TOOLS, asked

from .auto_support import numbers

ROOT = Path(BOOT).parents[2]
PYTHON = getattr(sys, "_base_executable", sys.executable)
"""Not the environment's, in which gossipsess.pth may be installed and start everything a second time."""
NOTES = "import gossipsess.zero_code, json; print(json.dumps(gossipsess.zero_code.notes))"


def environment(*paths, **variables):
    """Return what a process under `gossipsess run` has, with nothing of this one's own; None: without that variable."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("GOSSIPSESS_")}
    child = environ_of({}, plain | {"PYTHONPATH": os.pathsep.join([*map(str, paths), str(ROOT)])})
    child["GOSSIPSESS_AUTO_FOR"] = child["GOSSIPSESS_AUTO_FOR"].replace(sys.prefix, sys.base_prefix)
    child |= {f"GOSSIPSESS_{name}": value for name, value in variables.items() if value is not None}
    for name in [name for name, value in variables.items() if value is None]:
        del child[f"GOSSIPSESS_{name}"]
    return child


def python(*arguments, environ):
    return subprocess.run([PYTHON, *arguments], env=environ, capture_output=True, text=True, timeout=60)


def output_of(*arguments, environ):
    done = python(*arguments, environ=environ)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("python", ""),
        ("python -c code pip", ""),
        ("python -m pip install x", "pip"),
        ("python -mpip install x", "pip"),
        ("python -Im pip", "pip"),
        ("python -X dev -W error -bb -m pytest tests", "pytest"),
        ("python -Xdev -Werror -u /venv/bin/pytest", "pytest"),
        ("python --check-hash-based-pycs always /venv/bin/pip3.11 list", "pip"),
        ("python -c import-m", ""),
        ("/venv/bin/python3.11 /venv/bin/uvicorn shop:app -m pip", "uvicorn"),
        ("python manage.py test", "manage.py"),
        ("", ""),
    ],
)
def test_what_a_python_was_started_for_is_read_from_its_command_line(words, name):
    """Which programs are left alone depends on it; the interpreter's own options take values, too."""
    assert started(words.split())[0] == name


@pytest.mark.parametrize(
    "words", ["manage.py test", "-m pytest", "-m pip list", "/bin/celery -A x worker", "gossipsess live"]
)
def test_tools_are_told_from_what_serves(words):
    """A test run or a task queue must not join the cluster."""
    assert TOOLS.intersection(started(["python", *words.split()]))


@pytest.mark.parametrize(
    "words", ["manage.py runserver", "-m uvicorn a:b", "-m flask run", "/bin/gunicorn a:b", "shop.py"]
)
def test_what_serves_is_no_tool(words):
    """What is left alone by mistake keeps sessions of its own, and nobody sees why."""
    assert not TOOLS.intersection(started(["python", *words.split()]))


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (None, ()),
        ("", ()),
        ("0", ()),
        ("Off", ()),
        ("1", ("all",)),
        ("on, Flask_Session", ("all", "flask_session")),
        ("flask,,quart ", ("flask", "quart")),
    ],
)
def test_the_variable_names_frameworks_or_all_or_none(value, names):
    """One switch in an image's environment, and the words that people try."""
    assert asked({} if value is None else {"GOSSIPSESS_AUTO": value}) == names


@pytest.mark.parametrize(
    ("version", "expected"), [("3.1.3", (3, 1, 3)), ("2.0rc1", (2, 0)), ("1.10.0.post1", (1, 10, 0)), ("4.dev0", (4,))]
)
def test_versions_are_compared_as_numbers(version, expected):
    """1.10 is after 1.9."""
    assert numbers(version) == expected


def test_a_process_that_uses_no_framework_imports_hardly_more_than_a_bare_one():
    """Every Python of an application pays for it: health checks and scripts, too."""
    names = "import sys; print(*sys.modules)"
    bare = set(
        output_of("-c", names, environ=environment(AUTO=None, AUTO_FOR=None) | {"PYTHONPATH": str(ROOT)}).split()
    )
    more = set(output_of("-c", names, environ=environment()).split()) - bare
    assert "gossipsess.auto" in more
    assert {name for name in more if not name.startswith("gossipsess")} == {"sitecustomize"}


def test_processes_that_are_spawned_have_the_hooks_too(tmp_path):
    """uvicorn's workers and reloader are fresh interpreters, to which only the environment comes."""
    script = tmp_path / "spawns.py"
    script.write_text(
        "import multiprocessing\n"
        "def tell():\n    import gossipsess.zero_code; print(gossipsess.zero_code.notes)\n"
        "if __name__ == '__main__':\n"
        "    process = multiprocessing.get_context('spawn').Process(target=tell)\n"
        "    process.start(); process.join()\n"
    )
    assert output_of(str(script), environ=environment()) == "['GOSSIPSESS_AUTO=1']"


def test_without_the_variable_nothing_is_imported():
    """The files that start it are in every installation, and must be inert."""
    names = "import sys; print([name for name in sys.modules if name.startswith('gossipsess')])"
    for line in (ROOT / "gossipsess" / "auto" / "boot" / "gossipsess.pth").read_text().splitlines():
        code = f"exec({line!r})\n{names}"
        assert output_of("-c", code, environ=environment(AUTO=None) | {"PYTHONPATH": str(ROOT)}) == "[]"
        on = environment(AUTO="1") | {"PYTHONPATH": str(ROOT)}
        assert "gossipsess.auto" in output_of("-c", code, environ=on)


def test_the_file_for_newer_pythons_names_the_same_function():
    """From Python 3.15 on a .start file takes the place of the .pth file of that name; nothing else would tell."""
    from pkgutil import resolve_name

    from gossipsess.boot import boot

    (line,) = (ROOT / "gossipsess" / "auto" / "boot" / "gossipsess.start").read_text().split()
    assert resolve_name(line) is boot


def test_a_tool_is_left_alone_unless_it_is_named(tmp_path):
    """A task queue imports the application, and serves nobody."""
    (tmp_path / "celery.py").write_text(NOTES)
    assert output_of("-m", "celery", environ=environment(tmp_path)) == "[]"
    named = json.loads(output_of("-m", "celery", environ=environment(tmp_path, AUTO="celery")))
    assert named == ["GOSSIPSESS_AUTO=celery"]


def test_another_python_is_left_alone_and_told_only_if_it_is_the_command_itself():
    """PYTHONPATH goes to every Python that an application starts, of whatever version and environment."""
    other = "3.99:/elsewhere"
    done = python("-c", NOTES, environ=environment(AUTO_FOR=f"1:{other}"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")
    launch = f"import os, sys; os.environ['GOSSIPSESS_AUTO_FOR'] = f'{{os.getpid()}}:{other}'; "
    launch += f"os.execv(sys.executable, [sys.executable, '-c', {NOTES!r}])"
    done = python("-c", launch, environ=environment())
    assert (done.returncode, done.stdout) == (0, "[]\n")
    assert f"and gossipsess runs on {other}\n" in done.stderr
    assert done.stderr.count("\n") == 1
    done = python("-c", launch, environ=environment(AUTO_STRICT="1"))
    assert (done.returncode, done.stdout) == (1, "")


def test_a_sitecustomize_of_somebody_else_gets_its_turn(tmp_path):
    """Distributions and tracers have one, and only the first on the path is imported by Python."""
    (tmp_path / "sitecustomize.py").write_text("here = 'another'\n")
    code = "import sitecustomize, sys; print(sitecustomize.here, sitecustomize.__file__); " + NOTES
    told = output_of("-c", code, environ=environment(tmp_path)).splitlines()
    assert told == [f"another {tmp_path}/sitecustomize.py", '["GOSSIPSESS_AUTO=1"]']


def test_a_sitecustomize_of_somebody_else_fails_as_it_does_without_ours(tmp_path):
    """Swallowed here, its failure would be a riddle."""
    (tmp_path / "sitecustomize.py").write_text("import no_such_module\n")
    with_ours = python("-c", NOTES, environ=environment(tmp_path))
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    without = python("-c", NOTES, environ=environment(AUTO=None) | {"PYTHONPATH": paths})
    assert with_ours.stdout == '["GOSSIPSESS_AUTO=1"]\n'
    assert "no_such_module" in without.stderr.splitlines()[-1]
    assert with_ours.stderr.splitlines()[-1] == without.stderr.splitlines()[-1]


@pytest.mark.parametrize("broken", ["raise ImportError('no gossipsess here')", "raise RuntimeError('it is broken')"])
def test_what_fails_is_one_sentence_and_the_program_runs(tmp_path, broken):
    """Sessions of its own are better than no application; who wants it otherwise can say so."""
    package = tmp_path / "gossipsess"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "boot.py").write_text(broken)
    done = python("-c", "print('runs')", environ=environment(tmp_path))
    assert (done.returncode, done.stdout) == (0, "runs\n")
    assert done.stderr.startswith("gossipsess: sessions are not replicated in process ")
    assert done.stderr.count("\n") == 1
    strict = python("-c", "print('runs')", environ=environment(tmp_path, AUTO_STRICT="1"))
    assert (strict.returncode, strict.stdout, strict.stderr.count("\n")) == (1, "", 1)


def test_a_name_that_is_no_frameworks_is_told():
    """With a slip of the pen everything would run, unreplicated."""
    done = python("-c", "print('runs')", environ=environment(AUTO="flsk"))
    assert (done.returncode, done.stdout) == (0, "runs\n")
    assert "GOSSIPSESS_AUTO: 'flsk' is none of 1, off, starlette, flask" in done.stderr
    assert python("-c", "", environ=environment(AUTO="flsk", AUTO_STRICT="1")).returncode == 1
