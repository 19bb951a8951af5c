"""A plugin of pytest that has Flask's tests run with our sessions in place of Flask's.

As for an application that calls ``GossipSessions(app)`` where it is made. Those whose class brings an interface of its
own keep it: what they test is that it is used.
"""

from contextlib import ExitStack
from functools import wraps
from typing import Any

import swap
from flask import Flask

from gossipsess.web.flask import GossipSessions

_running = ExitStack()


def pytest_configure() -> None:
    node = swap.nodes(_running)
    stock, init = Flask.session_interface, Flask.__init__

    @wraps(init)
    def init_with_ours(self: Flask, *arguments: Any, **named: Any) -> None:
        init(self, *arguments, **named)
        if self.session_interface is stock:
            GossipSessions(self, node=node)

    Flask.__init__ = init_with_ours  # type: ignore[method-assign]


def pytest_unconfigure() -> None:
    _running.close()
