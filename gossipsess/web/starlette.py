# Starlette and FastAPI: a drop-in for starlette.middleware.sessions.SessionMiddleware.
#
# The arguments and the looks of the cookie are Starlette's own; only the import line changes. `request.session` is a
# dict, as Starlette says (dict_facade.py). Starlette's own cookies, which hold the data, become sessions.
# Not here: all the rest (asgi.py). Starlette itself is not imported.

import logging
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Final, Protocol

from gossipsess.config import Config, OnUnavailable
from gossipsess.protocol.events import Confirm
from gossipsess.protocol.outcomes import Revoked
from gossipsess.service import NodeService
from gossipsess.web import asgi
from gossipsess.web.adapter import LEAST_IDLE_S, UNLIMITED_S
from gossipsess.web.adoption import Base64Json, Former, former_of_untrusted
from gossipsess.web.cookie import SameSite, cookie_values_untrusted
from gossipsess.web.dict_facade import DictFacade, DictWebSession
from gossipsess.web.facade import NotingFacade

log = logging.getLogger("gossipsess")

FOREVER_IDLE_S: Final = 31 * 24 * 3600
"""Where the cookie lasts as long as the browser is open: what nobody used for a month is not kept for ever."""


class StarletteSession(DictFacade, NotingFacade):  # type: ignore[misc]  # as above
    """What `request.session` is."""

    def mark_accessed(self) -> None:
        """Called by `request.session`."""
        self.accessed = True

    def mark_modified(self) -> None:
        """Starlette's own note a change by this; ours is noticed anyway."""
        self.accessed = True


class StarletteWebSession(DictWebSession):
    """A `WebSession` that Starlette's applications get as a `StarletteSession`."""

    facade_class = StarletteSession


class SessionMiddleware(asgi.SessionMiddleware):
    """Give every request `request.session`, held by the cluster.

    Arguments:
        secret_key: Starlette's own cookies that it has signed are adopted (`adopt`). Ours carry an id and no data, so
            there is nothing to sign. (What nodes share is `Config.secret`.)
        session_cookie: name of the id cookie; the version token's is ``<session_cookie>-v``.
        max_age: seconds that a browser keeps the cookies, and that a session lives after it was last written (with a
            Starlette before 1.0, as its own sessions: last used); None: until the browser closes, and here for 31 days
            without use. The idle and absolute timeouts of `Config`, where they are set, end a session sooner.
        path, same_site, https_only, domain, partitioned: as Starlette's.
        config: the node's settings; None: those of the environment.
        node: a node to use instead of this process's own.
        on_unavailable: ``error`` or ``empty``, where the session cannot be had in time; None: the node's setting.
            `asgi.SessionMiddleware` says what follows.
        login_keys: the keys that hold the user; None: the node's setting. `Config.login_keys` says what follows.
        adopt: whether a cookie of Starlette's own, valid still, begins a session with its data, once; None: the node's
            setting.

    Raises:
        ConfigError: the cookie settings cannot work, or `on_unavailable` or `login_keys` cannot be that.
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
        login_keys: tuple[str, ...] | None = None,
        adopt: bool | None = None,
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
            session_class=StarletteWebSession,
            login_keys=login_keys,
            idle_timeout_s=FOREVER_IDLE_S if max_age is None else max(LEAST_IDLE_S, max_age),
            absolute_timeout_s=UNLIMITED_S,
            rolls=_rolls(),
            former=None if adopt is False else _former(secret_key, session_cookie, max_age),
            adopt=adopt,
        )


class HasScope(Protocol):
    """A Starlette `Request` or `WebSocket`."""

    @property
    def scope(self) -> asgi.Scope:
        """The ASGI scope of the connection."""


def _former(
    secret_key: object, name: str, max_age_s: int | None
) -> Callable[[Iterable[tuple[bytes, bytes]]], Former | None] | None:
    if not secret_key:
        return None
    if find_spec("itsdangerous") is None:
        log.warning(
            "SessionMiddleware has a secret_key, and itsdangerous is not installed: the cookies that Starlette's own "
            "sessions have left are not read, and whoever sends one is logged out. Install itsdangerous; where there "
            "are none, leave secret_key out."
        )
        return None
    serializer = Base64Json(secret_key)
    return lambda headers: former_of_untrusted(cookie_values_untrusted(headers, name), serializer, max_age_s)


def _rolls() -> bool:
    """Say whether Starlette's own sessions are prolonged by every response: before 1.0 they are."""
    try:
        return int(version("starlette").partition(".")[0]) < 1
    except PackageNotFoundError:
        return False


async def revoke(request: HasScope, user: object, confirm: Confirm | None = None) -> Revoked:
    """End every session of a user on every node; see `asgi.revoke`.

    Raises:
        RuntimeError: the request did not come through the middleware.
        UnreplicableValue, SessionTooLarge: no session can have such a user.
    """
    return await asgi.revoke(request.scope, user, confirm)
