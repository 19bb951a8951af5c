# Starlette and FastAPI: a drop-in for starlette.middleware.sessions.SessionMiddleware.
#
# The arguments and the looks of the cookie are Starlette's own; only the import line changes. Applications use
# `request.session` as the dict that Starlette says it is: they hand it to json.dumps or ask isinstance(..., dict).
# So the session is one, filled when it is loaded.
# Not here: all the rest (asgi.py). Starlette itself is not imported.

from typing import Any, Protocol

from gossipsess.config import Config, OnUnavailable
from gossipsess.model.record import Record
from gossipsess.protocol.events import Confirm
from gossipsess.protocol.outcomes import Revoked
from gossipsess.service import NodeService
from gossipsess.web import asgi
from gossipsess.web.cookie import SameSite
from gossipsess.web.session import WebSession


class StarletteSession(WebSession, dict[str, Any]):  # type: ignore[misc]  # `|` gives a dict, as both say
    """A `WebSession` that is a dict too."""

    def __init__(self, session_id: str, record: Record, **rest: Any) -> None:
        super().__init__(session_id, record, **rest)
        dict.update(self, self._decoded())

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        dict.__setitem__(self, key, self[key])

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        dict.pop(self, key, None)  # one that cannot be read is not in there

    def ended(self, record: Record) -> None:
        """Become empty: the session is no more."""
        super().ended(record)
        dict.clear(self)

    def mark_accessed(self) -> None:
        """Called by `request.session`."""
        self.accessed = True


class SessionMiddleware(asgi.SessionMiddleware):
    """Give every request `request.session`, held by the cluster.

    Arguments:
        secret_key: accepted so that existing lines keep working, and not used: the cookie carries an id and no
            data, so there is nothing to sign. (What nodes share is `Config.secret`.)
        session_cookie: name of the id cookie; the version token's is ``<session_cookie>-v``.
        max_age: seconds that a browser keeps the cookies, and that a session lives after it was last written; None:
            until the browser closes. The idle and absolute timeouts of `Config` end a session all the same.
        path, same_site, https_only, domain, partitioned: as Starlette's.
        config: the node's settings; None: those of the environment.
        node: a node to use instead of this process's own.
        on_unavailable: ``error`` or ``empty``, where the session cannot be had in time; None: the node's setting.
            `asgi.SessionMiddleware` says what follows.

    Raises:
        ConfigError: the cookie settings cannot work, or `on_unavailable` is none of those.
    """

    def __init__(
        self,
        app: asgi.ASGIApp,
        secret_key: object = None,
        session_cookie: str = "session",
        max_age: int | None = 14 * 24 * 60 * 60,
        path: str = "/",
        same_site: SameSite = "lax",
        https_only: bool = False,
        domain: str | None = None,
        partitioned: bool = False,
        *,
        config: Config | None = None,
        node: NodeService | None = None,
        on_unavailable: OnUnavailable | None = None,
    ) -> None:
        super().__init__(
            app,
            config=config,
            node=node,
            on_unavailable=on_unavailable,
            cookie_name=session_cookie,
            max_age_s=max_age,
            path=path,
            domain=domain,
            same_site=same_site,
            secure=https_only,
            partitioned=partitioned,
            session_class=StarletteSession,
        )


class HasScope(Protocol):
    """A Starlette `Request` or `WebSocket`."""

    @property
    def scope(self) -> asgi.Scope:
        """The ASGI scope of the connection."""


async def revoke(request: HasScope, user: object, confirm: Confirm | None = None) -> Revoked:
    """End every session of a user on every node; see `asgi.revoke`.

    Raises:
        RuntimeError: the request did not come through the middleware.
        UnreplicableValue, SessionTooLarge: no session can have such a user.
    """
    return await asgi.revoke(request.scope, user, confirm)
