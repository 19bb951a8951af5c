# Django's lifespan: an ASGI server says to the application when serving begins and ends, and Django does not listen.
#
# In:    a lifespan scope, to Django's ASGI application.   Out: the node started, and leaving in order.
# Why:   uvicorn ends by the signal that it was sent, and its process comes no further. A node that is not told before
#        ends as by a crash: the others take it for dead, and a developer is logged out by each `--reload`.
# Why Django's class and not a wrapper that a project would put around its application: that would be a change of it.
# Not here: a node under WSGI, or of an application that is built and not served (launch.py).

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, Final

from gossipsess.errors import ConfigError
from gossipsess.waiting import in_thread, on_any_loop
from gossipsess.web.adapter import NodeSessions

_HANDLERS: Final = "django.core.handlers.asgi"
_is_answered = False


def answer_lifespan(sessions: Callable[[], NodeSessions]) -> None:
    """Have Django's ASGI application, where this process has loaded it, answer its server's lifespan."""
    global _is_answered
    handlers = sys.modules.get(_HANDLERS)
    if handlers is None or _is_answered:
        return
    _is_answered = True
    serve = handlers.ASGIHandler.__call__

    @wraps(serve)
    async def serve_or_live(self: Any, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _live(sessions(), receive, send)
        else:
            await serve(self, scope, receive, send)

    handlers.ASGIHandler.__call__ = serve_or_live


async def _live(sessions: NodeSessions, receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            try:
                _ = await on_any_loop(in_thread(sessions.start))
            except ConfigError as error:
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                return
            await send({"type": "lifespan.startup.complete"})
        else:
            _ = await on_any_loop(in_thread(sessions.stop))
            await send({"type": "lifespan.shutdown.complete"})
            return
