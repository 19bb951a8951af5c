"""A plugin of pytest that has Starlette's tests run with our sessions in place of Starlette's."""

from contextlib import ExitStack
from functools import partial
from typing import Any

import swap
from starlette.middleware import sessions

from gossipsess.waiting import blocking
from gossipsess.web.starlette import SessionMiddleware, StarletteWebSession

_running = ExitStack()


def pytest_configure() -> None:
    node = swap.nodes(_running)
    store = node.new_store(StarletteWebSession)

    def stored(values: dict[str, Any]) -> Any:
        """Return what a request has whose session holds these values."""
        session = store.create()
        session.update(values)
        blocking(store.commit(session))
        return blocking(store.load(session.cookie)).for_application()

    # Before the tests import them from there.
    sessions.SessionMiddleware = partial(SessionMiddleware, node=node)  # type: ignore[assignment, misc]
    sessions.Session = stored  # type: ignore[assignment, misc]


def pytest_unconfigure() -> None:
    _running.close()
