# Launch: when a process that builds an application starts its node, for frameworks that do not say when serving begins.
#
# In:    how this process came about: its program, its server, its reloader.
# Out:   the node started and waited for, started only, started in each worker after its fork, or left to the first
#        request.
# Rule:  a process that serves has its node before its first request; one that does not serve has none: a prefork
#        master, a reloader's parent, a shell, a command, a test run, a task queue. What is not known is taken to serve.
# Why so much about others: no server tells an application that it serves. Each mark looked for here is public, an
#        environment variable or a module's name, and where one is missing nothing worse follows than a node too many or
#        one that starts with the first request.
# Not here: ASGI, where the lifespan says it (asgi.py); which node it is (adapter.py, service.py).

import os
import sys
from types import FrameType
from typing import Final, Protocol

from gossipsess.errors import ConfigError
from gossipsess.runtime.greenlets import refusal
from gossipsess.service import leave_at_sigterm

_SERVING_COMMANDS: Final = ("runserver", "testserver")
"""How those of Django's commands begin that serve; the first stands for `runserver_plus` and its like too."""
_OTHER_PROGRAMS: Final = ("pytest", "py.test", "unittest", "celery", "rq", "dramatiq", "ipython")
_FLASKS_OPTIONS: Final = ("-A", "--app", "-e", "--env-file")
"""Those that take the next word, and stand before a command."""
_DJANGOS_PROGRAMS: Final = ("manage.py", "django-admin", "django")


class Launchable(Protocol):
    """What starts the node of an adapter: `adapter.NodeSessions`."""

    def launch(self) -> object:
        """Start the node unless it runs; do not wait until it has met the others."""

    def start(self) -> object:
        """Start the node unless it runs, and block until it can answer."""


def launch_early(sessions: Launchable) -> None:
    """Start the node where the application is built, rather than with the first request.

    A replica must hold the sessions before anybody asks it: the one who comes to it first may come because the others
    have died. So this blocks until the node has met the others, or nobody for two seconds. Where nobody handles
    SIGTERM, the node leaves before that signal ends the process (`service.leave_at_sigterm`).

    Raises:
        ConfigError: a setting is wrong, no port is free, or the process runs on greenlets.
    """
    if _in_gunicorns_master():
        _launch_in_workers(sessions)
    elif _only_builds():
        pass
    elif _is_reloaded():
        sessions.launch()  # a developer who has just saved a file does not want to wait, and nobody else is there
        leave_at_sigterm()
    else:
        sessions.start()
        leave_at_sigterm()


def _launch_in_workers(sessions: Launchable) -> None:
    if "gunicorn.workers.ggevent" in sys.modules:  # it patches only after the fork, when the node would run already
        raise ConfigError(refusal("gevent"))
    master = os.getpid()

    def launch_in_worker() -> None:
        if os.getppid() == master:  # a worker, and not what a worker forks
            sessions.launch()

    os.register_at_fork(after_in_child=launch_in_worker)


def _in_gunicorns_master() -> bool:
    # gunicorn loads the application in each worker, or with --preload once in the master. It says nowhere which;
    # but in a worker, its code is what called this. In the master a node's thread would die with each fork.
    if "gunicorn.arbiter" not in sys.modules:
        return False
    frame: FrameType | None = sys._getframe()
    while frame is not None and not str(frame.f_globals.get("__name__")).startswith("gunicorn.workers."):
        frame = frame.f_back
    return frame is None


def _is_reloaded() -> bool:
    """Say whether this is the child of a reloader: werkzeug's, or Django's."""
    return "true" in (os.environ.get("WERKZEUG_RUN_MAIN"), os.environ.get("RUN_MAIN"))


def _only_builds() -> bool:
    """Say whether this process is known to build the application without serving it.

    Then its first request, if one should come all the same, starts the node.
    """
    uwsgi = sys.modules.get("uwsgi")
    if uwsgi is not None:
        return not uwsgi.worker_id()  # 0 in the master
    if hasattr(sys, "ps1") or sys.flags.interactive:
        return True
    program = _program()
    if program in _OTHER_PROGRAMS or "PYTEST_XDIST_WORKER" in os.environ:
        return True
    if program in _DJANGOS_PROGRAMS:
        command = sys.argv[1] if len(sys.argv) > 1 else ""
        return not command.startswith(_SERVING_COMMANDS) or not ("--noreload" in sys.argv or _is_reloaded())
    if os.environ.get("FLASK_RUN_FROM_CLI") != "true":
        return False
    if _flasks_command() != "run":
        return True  # another of Flask's commands: a shell, a migration
    debug = os.environ.get("FLASK_DEBUG", "").lower() not in ("", "0", "false", "no")
    reloads = debug or "--debug" in sys.argv or "--reload" in sys.argv
    return reloads and "--no-reload" not in sys.argv and not _is_reloaded()


def _flasks_command() -> str:
    """Return which of its commands Flask's program was started with: the first word that belongs to no option."""
    words = iter(sys.argv[1:])
    for word in words:
        if word in _FLASKS_OPTIONS:
            next(words, "")
        elif not word.startswith("-"):
            return word
    return ""


def _program() -> str:
    """Return the name of the program that runs: a module's after ``python -m``, else a file's."""
    module = getattr(sys.modules.get("__main__"), "__spec__", None)
    if module is not None:
        return str(module.name).removesuffix(".__main__")
    return os.path.basename(sys.argv[0])
