"""`gossipsess run`: what it makes of its options and of the environment, before it becomes the command."""

import os
import stat
import subprocess
import sys

import pytest

from gossipsess.cli.__main__ import main
from gossipsess.cli.run import BOOT, environ_of, parsed
from gossipsess.config import Config


@pytest.mark.parametrize(
    ("arguments", "variables", "command"),
    [
        (["--", "uvicorn", "shop:app"], {}, ["uvicorn", "shop:app"]),
        (["uvicorn", "--workers", "2", "--", "x"], {}, ["uvicorn", "--workers", "2", "--", "x"]),
        (["--cluster", "shop", "--", "a"], {"GOSSIPSESS_CLUSTER": "shop"}, ["a"]),
        (["--port-range=4", "a", "--port-range=5"], {"GOSSIPSESS_PORT_RANGE": "4"}, ["a", "--port-range=5"]),
        (["--secret-file", "/s", "a"], {"GOSSIPSESS_SECRET_FILE": "/s"}, ["a"]),
        (["--strict", "--auto=flask", "a"], {"GOSSIPSESS_AUTO_STRICT": "1", "GOSSIPSESS_AUTO": "flask"}, ["a"]),
        (["--discovery", "--", "--", "a"], {"GOSSIPSESS_DISCOVERY": "--"}, ["a"]),
    ],
)  # fmt: skip
def test_options_before_the_command_become_variables_and_the_rest_is_the_commands(arguments, variables, command):
    """What is the command's own must reach it as it was written."""
    assert parsed(arguments) == (variables, command)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "what is to be run"),
        (["--cluster", "shop"], "what is to be run"),
        (["--cluster"], "--cluster takes a value"),
        (["-c", "shop", "a"], "-c is no option"),
        (["--secret", "correct-horse-battery", "a"], "--secret-file FILE"),
        (["--Secret", "correct-horse-battery", "a"], "-file FILE"),
        (["--secret_fallbacks=correct-horse-battery", "a"], "-file FILE"),
        (["--prot", "8000", "a"], "Did you mean GOSSIPSESS_PORT"),
        (["--port", "x", "a"], "GOSSIPSESS_PORT='x' must be"),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(arguments, told, capsys):
    """A setting that is silently none would start an application that is not what was asked for."""
    with pytest.raises(SystemExit) as ended:
        main(["run", *arguments])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert told in error
    assert "correct-horse-battery" not in error


def test_every_option_that_the_help_names_is_a_setting(capsys, monkeypatch):
    """Who copies a line of the help must not be told that there is no such thing."""
    with pytest.raises(SystemExit) as ended:
        main(["run", "--help"])
    assert ended.value.code == 0
    words = capsys.readouterr().out.split("Mostly wanted:")[1].split("and of this command:")[0].split()
    options = [word for word in words if word.startswith("--")]
    assert len(options) == 5
    names = {f"GOSSIPSESS_{option[2:].replace('-', '_').upper()}" for option in options}
    values = {"GOSSIPSESS_CLUSTER": "a", "GOSSIPSESS_SECRET_FILE": __file__, "GOSSIPSESS_DISCOVERY": "none",
              "GOSSIPSESS_HOST": "h", "GOSSIPSESS_CONFIRM": "1"}  # fmt: skip
    assert names == values.keys()
    Config.from_env(values)


def test_the_commands_environment_starts_hooks_and_keeps_all_the_rest():
    """An application's own PYTHONPATH, and variables that are set already, stand."""
    environ = {"PYTHONPATH": f"/a{os.pathsep}/b", "GOSSIPSESS_CLUSTER": "theirs", "HOME": "/h"}
    child = environ_of({"GOSSIPSESS_HOST": "h"}, environ)
    assert child["PYTHONPATH"] == os.pathsep.join([BOOT, "/a", "/b"])
    assert child["GOSSIPSESS_AUTO"] == "1"
    assert (child["GOSSIPSESS_CLUSTER"], child["GOSSIPSESS_HOST"], child["HOME"]) == ("theirs", "h", "/h")
    assert environ == {"PYTHONPATH": f"/a{os.pathsep}/b", "GOSSIPSESS_CLUSTER": "theirs", "HOME": "/h"}
    assert environ_of({}, child)["PYTHONPATH"] == child["PYTHONPATH"], "one run in another adds nothing"
    assert environ_of({}, {"GOSSIPSESS_AUTO": "off"})["GOSSIPSESS_AUTO"] == "off", "an operator's switch stands"


def test_the_current_folder_stays_on_the_path_where_it_was(tmp_path):
    """`export PYTHONPATH=$PYTHONPATH:/app` begins with an empty entry, and some applications import by that alone."""
    show = tmp_path / "scripts" / "show.py"
    show.parent.mkdir()
    show.write_text("import sys; print(sys.path)")
    command = [sys.executable, show]
    for path in (f"{os.pathsep}/a", "/a", os.pathsep, ""):
        environ = {"PYTHONPATH": path, "GOSSIPSESS_AUTO": "off"}
        bare, run = [
            subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True).stdout
            for env in (environ, environ_of({}, environ))
        ]
        assert run == bare


def test_the_variables_of_zero_code_are_not_taken_for_a_nodes_settings():
    """Each node reads the whole environment and refuses what it does not know."""
    Config.from_env(environ_of({"GOSSIPSESS_AUTO_STRICT": "1"}, {}))


def test_a_command_that_is_not_there_is_told_as_a_shell_tells_it(capfd):
    """127 and 126 are what supervisors look for."""
    assert main(["run", "no-such-command-anywhere"]) == 127
    assert "no-such-command-anywhere is neither beside" in capfd.readouterr().err
    assert main(["run", __file__]) == 126
    assert "cannot be executed" in capfd.readouterr().err


def test_the_commands_exit_code_output_and_process_are_its_own():
    """A supervisor that starts this must see, and signal, the command itself."""
    code = "import os, sys; print(os.getpid()); sys.exit(7)"
    command = [sys.executable, "-m", "gossipsess", "run", "--", sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        out = running.communicate(timeout=60)[0]
    assert (running.returncode, out) == (7, f"{running.pid}\n")


def test_a_command_beside_this_python_comes_before_one_of_that_name_on_the_path(tmp_path):
    """Without an activated environment PATH has another Python, in which nothing could be replicated."""
    other = tmp_path / "python"
    other.write_text("#!/bin/sh\necho another\n")
    other.chmod(other.stat().st_mode | stat.S_IXUSR)
    command = [sys.executable, "-m", "gossipsess", "run", "python", "-c", "import sys; print(sys.prefix)"]
    environ = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    assert done.stdout == f"{sys.prefix}\n"


def test_a_run_imports_hardly_more_than_a_bare_python(tmp_path):
    """It stands before every start of an application: argparse alone would take half a start of Python."""
    code = f"""
import os, sys
before = set(sys.modules)
os.execvpe = lambda *_: print(sorted(set(sys.modules) - before))
from gossipsess.cli.__main__ import main
main(["run", "--cluster", "shop", "--", {sys.executable!r}])
"""
    path = [*sys.path[1:], str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:] = {path!r}\n{code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    imported = eval(done.stdout)
    own = {"gossipsess", "gossipsess.cli", "gossipsess.cli.__main__", "gossipsess.cli.run", "gossipsess.zero_code"}
    assert set(imported) == own
