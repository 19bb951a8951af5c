# Cells: the host matrix as data. One row for each way in which people start an application.
#
# Out:   CELLS; each says which command to run, how many processes of it serve, and what is expected of it.
# Not here: how a cell is played (play.py), and the table that docs/HOSTS.md shows of them (matrix.py).

import sys
from typing import Final, Literal, NamedTuple

App = Literal["asgi_shop", "wsgi_shop", "django_shop"]
Expected = Literal["serves", "reloads", "refused"]


class Cell(NamedTuple):
    """One way to start an application."""

    server: str
    worker: str
    start: str
    """How its workers come about, or which option says so."""
    app: App
    command: tuple[str, ...]
    """Run with this Python; {port} stands for where it is to listen."""
    workers: int = 1
    parent: bool = False
    """Others than the process that is started serve."""
    expected: Expected = "serves"
    environ: tuple[tuple[str, str], ...] = ()
    needs: tuple[str, ...] = ()
    """Modules beside the server's own, without which it is skipped."""

    @property
    def name(self) -> str:
        """What to call it, in words."""
        return " ".join(part for part in (self.server, self.worker, self.start) if part)

    @property
    def zero_code(self) -> "Cell":
        """The same with an application that knows nothing of gossipsess, by ``gossipsess run``."""
        command = ("-m", "gossipsess", "run", "--", sys.executable, *self.command)
        needs = (*self.needs, self.command[1].partition(".")[0])
        return self._replace(command=command, needs=needs, environ=(*self.environ, ("SHOP_PLAIN", "yes")))

    @property
    def argv(self) -> tuple[str, ...]:
        """The command."""
        return (sys.executable, *self.command)


# gunicorn's control socket is served by a thread of its master, so that CPython warns of each later fork by itself.
_GUNICORN: Final = ("-m", "gunicorn", "-b", "127.0.0.1:{port}", "--no-control-socket")


def _gunicorn(worker: str, app: App, *options: str, needs: tuple[str, ...] = ()) -> tuple[Cell, Cell]:
    command = (*_GUNICORN, "-w", "2", "-k", worker, *options)
    kind = " ".join(("-k", worker, *options))
    expected: Expected = "refused" if worker in ("gevent", "eventlet") else "serves"
    plain = Cell("gunicorn", kind, "fork", app, (*command, f"{app}:app"), 2, True, expected, needs=needs)
    return plain, plain._replace(start="fork, --preload", command=(*command, "--preload", f"{app}:app"))


_UVICORN: Final = ("-m", "uvicorn", "--port", "{port}", "asgi_shop:app")
_HYPERCORN: Final = ("-m", "hypercorn", "-b", "127.0.0.1:{port}")
_FLASK: Final = ("-m", "flask", "--app", "wsgi_shop", "run", "-p", "{port}")
_WAITRESS: Final = ("-m", "waitress", "--listen", "127.0.0.1:{port}", "wsgi_shop:app")

_DJANGO: Final = ("-m", "django", "runserver", "127.0.0.1:{port}", "--settings", "django_shop")
_DJANGO_WSGI: Final = (*_GUNICORN, "-w", "2", "-k", "gthread", "django.core.wsgi:get_wsgi_application()")
_DJANGO_ASGI: Final = ("-m", "uvicorn", "--port", "{port}", "--factory", "django.core.asgi:get_asgi_application")
_DJANGO_SETTINGS: Final = (("DJANGO_SETTINGS_MODULE", "django_shop"),)
_DJANGOS_OWN: Final = (("SHOP_MIDDLEWARE", "django.contrib.sessions.middleware.SessionMiddleware"),)


def _django_on_uvicorn(start: str, *options: str, workers: int = 1, expected: Expected = "serves") -> Cell:
    command, parent = (*_DJANGO_ASGI, *options), bool(options)
    plain = Cell("uvicorn", "Django", start, "django_shop", command, workers, parent, expected)
    return plain._replace(environ=_DJANGO_SETTINGS, needs=("django",))


CELLS: Final[tuple[Cell, ...]] = (
    Cell("uvicorn", "", "one process", "asgi_shop", _UVICORN),
    Cell("uvicorn", "", "spawn, --workers", "asgi_shop", (*_UVICORN, "--workers", "2"), 2, True),
    Cell("uvicorn", "", "spawn, --reload", "asgi_shop", (*_UVICORN, "--reload"), 1, True, "reloads"),
    Cell("hypercorn", "-k asyncio", "one process", "asgi_shop", (*_HYPERCORN, "-w", "0", "asgi_shop:app")),
    Cell("hypercorn", "-k asyncio", "spawn, -w", "asgi_shop", (*_HYPERCORN, "-w", "2", "asgi_shop:app"), 2, True),
    Cell("hypercorn", "-k trio", "one process", "asgi_shop", (*_HYPERCORN, "-k", "trio", "-w", "0", "asgi_shop:app")),
    Cell(
        "hypercorn",
        "-k trio",
        "spawn, -w",
        "asgi_shop",
        (*_HYPERCORN, "-k", "trio", "-w", "2", "asgi_shop:app"),
        2,
        True,
    ),
    Cell("hypercorn", "-k asyncio, WSGI", "spawn, -w", "wsgi_shop", (*_HYPERCORN, "-w", "2", "wsgi_shop:app"), 2, True),
    Cell(
        "hypercorn",
        "-k asyncio",
        "spawn, --reload",
        "asgi_shop",
        (*_HYPERCORN, "-w", "1", "--reload", "asgi_shop:app"),
        1,
        True,
        "reloads",
    ),
    _django_on_uvicorn("one process"),
    _django_on_uvicorn("spawn, --workers", "--workers", "2", workers=2),
    _django_on_uvicorn("spawn, --reload", "--reload", expected="reloads"),
    *_gunicorn("sync", "wsgi_shop"),
    *_gunicorn("gthread", "wsgi_shop", "--threads", "4"),
    *_gunicorn("uvicorn_worker.UvicornWorker", "asgi_shop", needs=("uvicorn_worker",)),
    *_gunicorn("asgi", "asgi_shop"),
    *_gunicorn("gevent", "wsgi_shop", needs=("gevent",)),
    Cell(
        "gunicorn",
        "-k gthread",
        "fork, --reload",
        "wsgi_shop",
        (*_GUNICORN, "-k", "gthread", "--reload", "wsgi_shop:app"),
        1,
        True,
        "reloads",
    ),
    Cell("waitress", "", "one process", "wsgi_shop", _WAITRESS),
    Cell("flask run", "", "one process", "wsgi_shop", _FLASK),
    Cell("flask run", "", "reloader, --debug", "wsgi_shop", (*_FLASK, "--debug"), 1, True, "reloads"),
    Cell("runserver", "", "one process, --noreload", "django_shop", (*_DJANGO, "--noreload")),
    Cell("runserver", "", "reloader", "django_shop", _DJANGO, 1, True, "reloads"),
    Cell(
        "runserver",
        "SESSION_ENGINE alone",
        "one process, --noreload",
        "django_shop",
        (*_DJANGO, "--noreload"),
        environ=_DJANGOS_OWN,
    ),
    Cell("runserver", "SESSION_ENGINE alone", "reloader", "django_shop", _DJANGO, 1, True, "reloads", _DJANGOS_OWN),
    Cell(
        "gunicorn",
        "-k gthread, Django",
        "fork",
        "django_shop",
        _DJANGO_WSGI,
        2,
        True,
        environ=_DJANGO_SETTINGS,
        needs=("django",),
    ),
    Cell(
        "gunicorn",
        "-k gthread, Django",
        "fork, --preload",
        "django_shop",
        (*_DJANGO_WSGI, "--preload"),
        2,
        True,
        environ=_DJANGO_SETTINGS,
        needs=("django",),
    ),
    Cell(
        "gunicorn",
        "-k gthread, Django, SESSION_ENGINE alone",
        "fork, --preload",
        "django_shop",
        (*_DJANGO_WSGI, "--preload"),
        2,
        True,
        environ=(*_DJANGO_SETTINGS, *_DJANGOS_OWN),
        needs=("django",),
    ),
)
