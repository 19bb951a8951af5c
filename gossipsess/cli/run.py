# Run: `gossipsess run [OPTIONS] [--] COMMAND...` becomes COMMAND, in whose Python processes sessions are replicated.
#
# In:    arguments and the environment.    Out: this process, become COMMAND; or an exit code and why.
# How:   options become GOSSIPSESS_* variables; a folder whose sitecustomize.py every Python imports when it starts goes
#        to the front of PYTHONPATH. So it holds in workers and reloaders too, however they are started.
# Choice: own reading of the options, since argparse would cost as much as half a start of Python; and whether a value
#        is right the application's node says. A name that may be none is refused here already.
# Not here: what happens in COMMAND (boot.py, auto/).

import os
import sys

from gossipsess.zero_code import AUTO, FOR, STRICT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn

BOOT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "auto", "boot")
"""Where sitecustomize.py is."""
SUMMARY = "run an unmodified application with replicated sessions"
NOT_FOUND, NOT_RUNNABLE = 127, 126
"""Exit codes, as a shell's."""
KNOWN = {AUTO, STRICT, *[f"GOSSIPSESS_{name}" for name in ("CLUSTER", "SECRET_FILE", "DISCOVERY", "HOST", "CONFIRM")]}
"""Names that are right. With others the settings are looked at here, which takes longer than all the rest."""

HELP = f"""\
usage: gossipsess run [OPTIONS] [--] COMMAND [ARGUMENTS...]

Runs a web application and replicates its sessions. No line of it changes, and none of its settings: Starlette, FastAPI,
Flask, Quart, Django and Litestar keep the names and flags of their cookies, and the lifetimes of their sessions.

examples:
  gossipsess run -- uvicorn shop:app --workers 2
  gossipsess run -- gunicorn shop:app -w 4
  gossipsess run -- flask --app shop run
  gossipsess run -- python manage.py runserver
  gossipsess run --cluster shop --secret-file /run/secrets/gossip -- uvicorn shop:app --host 0.0.0.0

Options stand before COMMAND, and are the settings of the README by their names, --port-range for GOSSIPSESS_PORT_RANGE;
variables that are set already stand where nothing is said here. Mostly wanted:
  --cluster NAME          nodes of one application have the same, other applications another
  --secret-file FILE      what the nodes share; without it nothing leaves this machine. (gossipsess keygen makes one)
  --discovery WHERE       auto, dns://NAME, static://IP:PORT,IP:PORT, multicast://GROUP:PORT, none
  --host NAME             machines count once when copies are counted
  --confirm K             how many other machines hold a write before its response leaves

and of this command:
  --auto NAMES            only these, comma-joined: starlette, flask, quart, django, litestar; also flask_session, which
                          is left alone unless named (default: GOSSIPSESS_AUTO, else all)
  --strict                what would be left alone with a warning ends the process instead (GOSSIPSESS_AUTO_STRICT=1)
  -h, --help              this

COMMAND is looked for beside gossipsess first, then on PATH. GOSSIPSESS_AUTO=off runs it untouched. Where the command
cannot be changed, set GOSSIPSESS_AUTO=1 in the environment instead. `gossipsess doctor` says what was done.

exit codes:
  {NOT_RUNNABLE}  COMMAND cannot be executed
  {NOT_FOUND}  COMMAND is not there
  2    wrong options
  else COMMAND's own
"""


def main(arguments: "Sequence[str]") -> int:
    """Become the command; return an exit code where that is not possible.

    Raises:
        SystemExit: the options are wrong (2), or only help was wanted (0).
    """
    variables, command = parsed(arguments)
    _check(variables)
    environ = environ_of(variables, os.environ)
    beside = os.path.join(os.path.dirname(sys.executable), command[0])
    program = beside if os.sep not in command[0] and os.access(beside, os.X_OK) else command[0]
    try:
        # By its path, where that is known: a Python finds its environment by the name that it is called.
        os.execvpe(program, [program, *command[1:]], environ)  # noqa: S606  # what was asked for, and no shell
    except (FileNotFoundError, NotADirectoryError):
        print(f"gossipsess run: {command[0]} is neither beside {sys.executable} nor on PATH", file=sys.stderr)
        return NOT_FOUND
    except OSError as error:
        print(f"gossipsess run: {program} cannot be executed: {error.strerror}", file=sys.stderr)
        return NOT_RUNNABLE


def parsed(arguments: "Sequence[str]") -> "tuple[dict[str, str], list[str]]":
    """Return the variables that the options stand for, and the command.

    Raises:
        SystemExit: as `main`.
    """
    variables: dict[str, str] = {}
    rest = list(arguments)
    while rest and rest[0].startswith("-"):
        option, equals, value = rest.pop(0).partition("=")
        if option == "--":
            break
        if option in ("-h", "--help"):
            print(HELP, end="")
            raise SystemExit(0)
        if option == "--strict":
            variables[STRICT] = "1"
            continue
        variable = _variable(option)
        if not equals:
            if not rest:
                _refuse(f"{option} takes a value")
            value = rest.pop(0)
        variables[variable] = value
    if not rest:
        _refuse("what is to be run? For example: gossipsess run -- uvicorn shop:app")
    return variables, rest


def environ_of(variables: "Mapping[str, str]", environ: "Mapping[str, str]") -> dict[str, str]:
    """Return the environment of a command: `environ` with these variables, and with what has hooks set in it."""
    child = {AUTO: "1", **environ, **variables}
    # For whom: this very process, which becomes the command, and Pythons like this one. sitecustomize.py reads it.
    child[FOR] = f"{os.getpid()}:{sys.version_info[0]}.{sys.version_info[1]}:{sys.prefix}"
    theirs = child.get("PYTHONPATH", "")
    others = [path for path in theirs.split(os.pathsep) if path != BOOT] if theirs else []
    child["PYTHONPATH"] = os.pathsep.join([BOOT, *others])  # an empty entry too: it is the current folder
    return child


def _variable(option: str) -> str:
    if not option.startswith("--"):
        _refuse(f"{option} is no option")
    variable = f"GOSSIPSESS_{option[2:].replace('-', '_').upper()}"
    if variable in ("GOSSIPSESS_SECRET", "GOSSIPSESS_SECRET_FALLBACKS"):
        _refuse(f"{option} would show the secret to everybody who lists processes: take {option}-file FILE")
    return variable


def _check(variables: "Mapping[str, str]") -> None:
    if variables.keys() <= KNOWN:
        return
    from gossipsess.config import Config
    from gossipsess.errors import ConfigError

    try:
        Config.from_env({**os.environ, **variables})
    except ConfigError as error:
        _refuse(str(error))


def _refuse(why: str) -> "NoReturn":
    print(f"gossipsess run: {why}\nTry: gossipsess run --help", file=sys.stderr)
    raise SystemExit(2)
