# Litestar: a session config in place of its ServerSideSessionConfig, with the same arguments.
#
#   GossipSessionConfig(...).middleware   where the stock one's stands, in `middleware=[...]`, or in `SessionAuth`
#   .lifespan                             starts the node when serving starts, and lets it leave
#   plugins=[GossipSessionConfig(...)]    both at once
#
# Litestar's own server-side sessions write everything with every response, so that of two requests one loses; they
# store data under whatever id a client sends; and what they set with each response no cache keeps. So this is no store
# for them (litestar_store.py is): Litestar's middleware is asked for its settings, and ours (asgi.py) serves.
# What Litestar promises beyond that is done here: `set_session`, `clear_session`, `get_session_id`, the test client's
# session data, and an exception that its handlers answer with 503.
# `request.session` is a dict. Litestar's encoder reads a dict past every method of ours, so that it is not known which
# answers depend on the session: all that come through the middleware say so to caches. Litestar's own `exclude` and
# `exclude_opt_key` leave routes out.
# Not here: what Litestar's own cookie sessions have left in browsers (litestar_former.py).

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, cast

from litestar.config.app import AppConfig
from litestar.connection import ASGIConnection
from litestar.enums import ScopeType
from litestar.exceptions import ImproperlyConfiguredException, ServiceUnavailableException, WebSocketException
from litestar.middleware.base import DefineMiddleware
from litestar.middleware.session.base import BaseSessionBackend, SessionMiddleware
from litestar.middleware.session.server_side import ServerSideSessionConfig
from litestar.plugins import InitPlugin
from litestar.types import ASGIApp, Empty, Message, Receive, Scope, ScopeSession, Send

from gossipsess.config import Config, OnUnavailable
from gossipsess.errors import SessionUnavailable
from gossipsess.model.identity import is_session_id
from gossipsess.protocol.events import Confirm
from gossipsess.protocol.outcomes import Revoked
from gossipsess.service import NodeService
from gossipsess.web import asgi
from gossipsess.web.adapter import UNAVAILABLE, UNLIMITED_S
from gossipsess.web.dict_facade import DictFacade, DictWebSession
from gossipsess.web.litestar_former import SECRET_BYTES, SealedCookies


class Unavailable(SessionUnavailable, ServiceUnavailableException, WebSocketException):
    """What Litestar answers with 503, by way of the application's handler for that if it has one.

    Raised by a change of a stand-in, and by a `GossipStore`. A websocket is closed with code 1013.
    """

    def __init__(self, why: str) -> None:
        super().__init__(why, detail=UNAVAILABLE, headers={"Retry-After": "1"})
        self.code = asgi.TRY_AGAIN_LATER


class LitestarSession(DictFacade):
    """What `request.session` is."""


class LitestarWebSession(DictWebSession):
    """A `WebSession` that Litestar's applications get as a `LitestarSession`, and whose refusals Litestar answers."""

    facade_class = LitestarSession

    def _changing(self, how: str) -> None:
        try:
            super()._changing(how)
        except SessionUnavailable as error:
            raise Unavailable(str(error)) from None


class GossipSessionBackend(BaseSessionBackend["GossipSessionConfig"]):
    """What Litestar's test client sets and reads session data by."""

    def get_session_id(self, connection: ASGIConnection[Any, Any, Any, Any]) -> str | None:
        """Return the id that the client sends, if it has the form of one; whether it is known is not asked."""
        value = connection.cookies.get(self.config.key, "")
        return value if is_session_id(value) else None

    async def load_from_connection(self, connection: ASGIConnection[Any, Any, Any, Any]) -> dict[str, Any]:
        """Return the data of the session that the client names; empty where there is none, or it is not available."""
        values: dict[str, Any] = {}

        async def read(scope: Scope, receive: Receive, send: Send) -> None:
            values.update(cast("dict[str, Any]", scope["session"]))

        await self._run(read, connection)
        return values

    async def store_in_message(
        self, scope_session: ScopeSession, message: Message, connection: ASGIConnection[Any, Any, Any, Any]
    ) -> None:
        """Make this the data of the session that the client names, and add the cookies to the message."""

        async def assign(scope: Scope, receive: Receive, send: Send) -> None:
            scope["session"] = scope_session
            await send(message)

        for sent in await self._run(assign, connection):
            if sent["type"] == "http.response.start" and message["type"] == "http.response.start":
                message["headers"][:] = list(sent["headers"])  # type: ignore[index]  # a list, as Litestar makes it

    async def _run(self, app: ASGIApp, connection: ASGIConnection[Any, Any, Any, Any]) -> list[Message]:
        sent: list[Message] = []

        async def keep(message: Message) -> None:
            sent.append(message)

        # The test client's connection has cookies, and no header with them.
        line = "; ".join(f"{name}={value}" for name, value in connection.cookies.items())
        scope = cast(Scope, {**connection.scope, "headers": [(b"cookie", line.encode("latin-1"))]})
        await self.config.around(app)(scope, connection.receive, keep)
        return sent


class GossipSessionMiddleware(SessionMiddleware[GossipSessionBackend]):
    """Litestar's session middleware, which knows whom to leave out, around ours, which does the rest."""

    def __init__(self, app: ASGIApp, backend: GossipSessionBackend) -> None:
        super().__init__(app, backend)
        self._served = backend.config.around(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        await self._served(scope, receive, send)


@dataclass(eq=False)
class GossipSessionConfig(ServerSideSessionConfig, InitPlugin):
    """Keep the sessions of a Litestar application in the cluster.

    ``middleware=[GossipSessionConfig().middleware]``, and ``lifespan=[config.lifespan]`` so that the node starts with
    the server and not with the first request; ``plugins=[GossipSessionConfig()]`` is both. The arguments are those of
    Litestar's ServerSideSessionConfig: key, max_age, path, domain, secure, samesite, scopes, exclude, exclude_opt_key.
    A session that nobody uses for `max_age` seconds ends, as in Litestar with `renew_on_access`; the idle and absolute
    timeouts of `Config`, where they are set, end it sooner. Not used are `session_id_bytes` (an id has 165 bits),
    `renew_on_access`, `store`, and `httponly`: the cookies always are.

    `request.session` is a dict whose values travel as they are, a tuple as a tuple; what cannot travel is refused where
    it is assigned. A login changes the session's id (`WebSession.rotate` says when). A session from which every key was
    deleted ends, as by `clear_session`.

    Where it cannot be known in time whether the session exists, no handler runs: the answer is 503 with Retry-After (a
    websocket: close code 1013), and the cookie stays. With `on_unavailable` ``empty`` it runs, its session is empty and
    `WebSession.unavailable`, and whatever would change it raises `Unavailable`, which Litestar answers so. The same
    503 takes the place of an answer that would begin a session for which there is no room (`MemoryFull`).

    Arguments beside Litestar's:
        config: the node's settings; None: those of the environment.
        node: a node to use instead of this process's own.
        on_unavailable: ``error`` or ``empty``; None: the node's setting.
        login_keys: the keys that hold the user; None: the node's setting. `Config.login_keys` says what follows.
        secret: of the CookieBackendConfig that this one takes the place of, with the same `key`, `max_age`, `path` and
            `domain`: the cookies that it has sealed are adopted (`adopt`). None: there was none.
        adopt: whether such a cookie, valid still, begins a session with its data, once; None: the node's setting.

    Raises:
        ImproperlyConfiguredException: `key`, `max_age`, `secret` or `session_id_bytes` cannot be that.
    """

    _backend_class = GossipSessionBackend  # type: ignore[assignment]  # Litestar's own is one of several, too

    config: Config | None = field(default=None, kw_only=True)
    node: NodeService | None = field(default=None, kw_only=True)
    on_unavailable: OnUnavailable | None = field(default=None, kw_only=True)
    login_keys: tuple[str, ...] | None = field(default=None, kw_only=True)
    secret: bytes | None = field(default=None, kw_only=True, repr=False)
    adopt: bool | None = field(default=None, kw_only=True)

    __hash__ = object.__hash__  # Litestar keeps plugins in a set

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.session_id_bytes, int):
            raise ImproperlyConfiguredException("session_id_bytes is a number; name a secret: secret=...")
        if self.secret is not None and not (isinstance(self.secret, bytes) and len(self.secret) in SECRET_BYTES):
            raise ImproperlyConfiguredException("secret must be 16, 24 or 32 bytes, as that of CookieBackendConfig")

    @property
    def middleware(self) -> DefineMiddleware:
        """What goes into an application's or a router's list of middleware."""
        return DefineMiddleware(GossipSessionMiddleware, backend=GossipSessionBackend(self))

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add the middleware, before all others, and the lifespan; called for ``plugins=[config]``."""
        app_config.middleware.insert(0, self.middleware)
        app_config.lifespan.append(self.lifespan)
        return app_config

    @asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[None]:
        """Run the node; entered once it has met the others, or nobody for two seconds."""
        await self.serving.start()
        try:
            yield
        finally:
            await self.serving.stop()

    @cached_property
    def serving(self) -> asgi.SessionMiddleware:
        """The one middleware, and so the one store, for all routes.

        Raises:
            ConfigError: the cookie settings cannot work, or `on_unavailable`, `login_keys` or `adopt` cannot be that.
        """
        sealed = None if self.secret is None else SealedCookies(self.secret, self.key, self.max_age)
        return asgi.SessionMiddleware(
            _nothing,
            config=self.config,
            node=self.node,
            on_unavailable=self.on_unavailable,
            cookie_name=self.key,
            max_age_s=self.max_age,
            path=self.path,
            domain=self.domain,
            same_site=self.samesite,
            secure=self.secure,
            session_class=LitestarWebSession,
            login_keys=self.login_keys,
            idle_timeout_s=self.max_age,
            absolute_timeout_s=UNLIMITED_S,
            rolls=True,
            former=None if sealed is None else sealed.session_untrusted,
            further=None if sealed is None else sealed.pieces_untrusted,
            adopt=self.adopt,
        )

    def around(self, app: ASGIApp) -> ASGIApp:
        """Return an application that gives `app` its session."""
        return cast(ASGIApp, self.serving.around(cast(asgi.ASGIApp, _settling(app))))


class HasScope(Protocol):
    """A Litestar `Request` or `WebSocket`."""

    @property
    def scope(self) -> Any:
        """The ASGI scope of the connection."""


async def revoke(connection: HasScope, user: object, confirm: Confirm | None = None) -> Revoked:
    """End every session of a user on every node; see `asgi.revoke`.

    Raises:
        RuntimeError: the request did not come through the middleware.
        UnreplicableValue, SessionTooLarge: no session can have such a user.
    """
    return await asgi.revoke(connection.scope, user, confirm)


def _settling(app: ASGIApp) -> ASGIApp:
    """Return `app`, with what it has put in the place of its session taken over into the session."""

    async def settled(scope: Scope, receive: Receive, send: Send) -> None:
        session = scope["session"]
        assert isinstance(session, LitestarSession), "the middleware has just opened it"
        ASGIConnection[Any, Any, Any, Any](scope)._connection_state.session_id = session.gossipsess.id

        failed: Exception | None = None

        async def send_settled(message: Message) -> None:
            nonlocal failed
            try:
                if message["type"] in ("http.response.start", "websocket.accept"):
                    _take_over(session, scope)
                    session.gossipsess.accessed = True  # the encoder may have read it
                await send(message)
            except Exception as error:
                failed = error
                raise

        try:
            await app(scope, receive, send_settled)
        except Exception:
            if failed is not None:
                raise failed from None  # Litestar makes another of what is raised where a response starts
            raise
        finally:
            if scope["type"] == ScopeType.WEBSOCKET:
                _take_over(session, scope)

    return settled


def _take_over(session: LitestarSession, scope: Scope) -> None:
    assigned = scope["session"]
    if assigned is session:
        return
    if session.gossipsess.unavailable:
        session.clear()  # raises: an empty stand-in would lose a logout without a word
    if assigned is Empty or assigned is None:
        if not session.gossipsess.is_empty:
            session.clear()
        return
    if not isinstance(assigned, dict):  # a dataclass, say; Litestar keeps its JSON
        assigned = BaseSessionBackend.deserialize_data(BaseSessionBackend.serialize_data(assigned, scope))
    for key in [key for key in session if key not in assigned]:
        del session[key]
    session.update(assigned)


async def _nothing(scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
    raise AssertionError("served by `around` only")
