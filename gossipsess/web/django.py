# Django: what a project names in its settings and imports; SESSION_ENGINE = "gossipsess.web.django" is all it takes.
#
#   SessionStore        where SESSION_ENGINE looks for it (django_engine.py)
#   SessionMiddleware   in place of Django's own, where MIDDLEWARE names it (django_middleware.py)
#   revoke, arevoke     end every session of a user
#   configure           what the sessions stand on, for tests (django_sessions.py)
#
# A project that names the engine alone has nothing of ours that is made with its application. So when Django's own
# middleware imports this module, to find the engine, that is the moment at which the node starts.

import sys
from types import FrameType
from typing import Any

from django.contrib.sessions.middleware import SessionMiddleware as DjangosMiddleware

from gossipsess.protocol.events import Confirm
from gossipsess.protocol.outcomes import Revoked
from gossipsess.waiting import blocking, on_any_loop
from gossipsess.web.django_engine import SessionStore
from gossipsess.web.django_middleware import SessionMiddleware
from gossipsess.web.django_sessions import configure, launch_with_application, ready, store

__all__ = ["SessionMiddleware", "SessionStore", "arevoke", "configure", "revoke"]


def revoke(user: Any, confirm: Confirm | None = None) -> Revoked:
    """End every session of a user on every node, whichever holds it. Blocks until confirmed, at most 250 ms.

    `user` is a user of Django's, or what the session holds under a login key. The session of the request that calls
    this ends too, if it is the user's.

    Raises:
        UnreplicableValue, SessionTooLarge: no session can have such a user.
    """
    return blocking(store().revoke(_name_of(user), confirm))


async def arevoke(user: Any, confirm: Confirm | None = None) -> Revoked:
    """See `revoke`."""
    await ready()
    return await on_any_loop(store().revoke(_name_of(user), confirm))


def _name_of(user: Any) -> str:
    meta = getattr(user, "_meta", None)  # as Django's `login` puts it into the session
    return str(user) if meta is None else str(meta.pk.value_to_string(user))


def _is_middlewares_import() -> bool:
    """Say whether it is Django's own middleware that imports this module now: an application is being built."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_globals.get("__name__") != DjangosMiddleware.__module__:
        frame = frame.f_back
    return frame is not None


if _is_middlewares_import():
    launch_with_application()
