# Quart: `quart.session`, held by the cluster, for requests and websockets.
#
# In:    Quart's session interface and its SESSION_* settings.   Out: a session that is Flask's and ours.
# A session that is not available cannot be refused where Quart opens it: an error raised there is answered with 500.
# So something empty is opened, and the request is refused by the first of the `before_request` functions. (Not where
# Flask's is: there this framework asks for the request of a websocket, and fails.) With `on_unavailable` "empty" it
# is refused when the application would change it; what hooks after the view raise no error handler of Quart's sees,
# so we stand before `Quart.handle_exception`.
# A websocket's handler is cancelled when the client goes, and Quart then saves nothing; so we save in the teardown.
# Its cookies can be set by the accept only, so we are there too.
# From 0.23 on Quart hands its context to its methods, and takes for a reader whoever takes the session from it, itself
# included before each save. So we take the session from the scope, and note whether it was read before Quart does.
# Not here: what Flask does alike (flask_like.py), and which cookies follow from a request (adapter.py).

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from inspect import signature
from typing import Any, Final, cast

import quart.globals
from quart import Quart, Response, current_app, has_websocket_context, request, websocket
from quart.sessions import SessionInterface, SessionMixin
from quart.wrappers import BaseRequestWebsocket, Websocket
from werkzeug.datastructures import Headers
from werkzeug.sansio.response import Response as SansIOResponse

from gossipsess.config import Config, OnUnavailable
from gossipsess.errors import MemoryFull, SessionTooLarge, SessionUnavailable, UnreplicableValue
from gossipsess.protocol.events import Confirm
from gossipsess.protocol.outcomes import Revoked
from gossipsess.service import NodeService
from gossipsess.store import SessionStore
from gossipsess.waiting import in_thread, on_asyncio, steps_on_any_loop
from gossipsess.web.adapter import BEGINS_TOO_LATE, UNLIMITED_S, NodeSessions
from gossipsess.web.asgi import TRY_AGAIN_LATER
from gossipsess.web.flask_like import FlaskLikeInterface, FlaskSession, FlaskWebSession, UnavailableSession, unavailable

_SESSION: Final = "gossipsess.session"  # key in the scope of a request or websocket
_METHODS_TAKE_CONTEXT: Final = "ctx" in signature(Quart.handle_http_exception).parameters


class GossipSessions:
    """Keep the sessions of a Quart application in the cluster: ``GossipSessions(app)``.

    Quart's settings of the cookie count: SESSION_COOKIE_NAME, _DOMAIN, _PATH, _SECURE, _HTTPONLY, _SAMESITE,
    _PARTITIONED, and for a session that is `permanent`, PERMANENT_SESSION_LIFETIME. The id cookie of a permanent
    session is set anew after a quarter of that time, by every response with SESSION_REFRESH_EACH_REQUEST (Quart's
    default), else by those that wrote. The version token's cookie is ``<name>-v``.

    A session that nobody uses ends after PERMANENT_SESSION_LIFETIME, permanent or not, as Quart's own does; the idle
    and absolute timeouts of `Config`, where they are set, end it sooner. A cookie of Quart's own, signed with
    SECRET_KEY or one of SECRET_KEY_FALLBACKS and valid still, begins a session with its data, once. For nothing else a
    SECRET_KEY is needed.

    A websocket's session is read once, when it opens. What is written before the accept sets cookies there; what is
    written later is stored when the handler ends, also by the client's going, under the same id. A session that begins
    after the accept is not stored, for the client can never name it; the application's log says so.

    Where it cannot be known in time whether the session exists, no view runs: the answer is 503 with Retry-After,
    and the cookie stays. With `on_unavailable` ``empty`` the view runs, its session is empty and
    `WebSession.unavailable`, and the answer is that 503 only where the view, or a hook before or after it, lets the
    error pass that a change raises; an accepted websocket is then closed with code 1013. Hooks after the view run once
    more, with that answer. The same 503 takes the place of a view's answer where that would begin a session for which
    there is no room (`MemoryFull`).

    A login changes the session's id (`WebSession.rotate` says when).

    The node starts when serving starts, which completes once the node has met the others, or nobody for two seconds,
    and leaves when serving ends. Where Quart is not told of that (a test client), the first request starts it.

    Arguments:
        config: the node's settings; None: those of the environment.
        node: a node to use instead of this process's own.
        on_unavailable: ``error`` or ``empty``; None: the node's setting.
        login_keys: the keys that hold the user; None: the node's setting. `Config.login_keys` says what follows.
        adopt: whether Quart's own cookies are adopted; None: the node's setting.

    Raises:
        ConfigError: `on_unavailable` or `login_keys` cannot be that.
    """

    def __init__(
        self,
        app: Quart | None = None,
        *,
        config: Config | None = None,
        node: NodeService | None = None,
        on_unavailable: OnUnavailable | None = None,
        login_keys: tuple[str, ...] | None = None,
        adopt: bool | None = None,
    ) -> None:
        self._sessions = NodeSessions(
            QuartWebSession,
            config,
            node,
            on_unavailable,
            absolute_timeout_s=UNLIMITED_S,
            login_keys=login_keys,
            adopt=adopt,
        )
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Quart) -> None:
        """Put the sessions of one more application into the cluster.

        Raises:
            TypeError: it is none of Quart's, or it has them already.
        """
        if not isinstance(app, Quart):
            raise TypeError(f"{app!r} is no Quart application; Flask's have gossipsess.web.flask.GossipSessions.")
        if isinstance(app.session_interface, GossipSessionInterface):
            raise TypeError(
                f"{app!r} has its sessions in the cluster already: keep what GossipSessions(app) "
                "returned; or GOSSIPSESS_AUTO has put them there, and nothing is left to do."
            )
        app.session_interface = GossipSessionInterface(self._sessions)  # type: ignore[assignment]  # not the default
        app.websocket_class = cast("type[Websocket]", type("Websocket", (_SavesBeforeAccept, app.websocket_class), {}))
        app.before_serving_funcs.insert(0, self._start)
        app.after_serving_funcs.append(self._stop)
        app.before_request_funcs[None].insert(0, _refuse_if_unavailable)
        app.before_websocket_funcs[None].insert(0, _refuse_if_unavailable)
        app.after_request_funcs[None].insert(0, _note_access)  # comes after all others
        app.register_error_handler(SessionUnavailable, _refuse_change)
        app.handle_exception = partial(_refuse_late_change, app, app.handle_exception)  # type: ignore[method-assign]
        app.teardown_websocket(_save_if_cancelled)

    async def revoke(self, user: object, confirm: Confirm | None = None) -> Revoked:
        """End every session of a user on every node, whichever holds it.

        `user` is what a login key holds, ``user_id`` say, or `Session.user`. The session of the request that calls
        this ends too, if it is the user's: what the request changes in it afterwards is not stored.

        Raises:
            UnreplicableValue, SessionTooLarge: no session can have such a user.
        """
        return await on_asyncio((await _store(self._sessions)).revoke(str(user), confirm))

    async def _start(self) -> None:
        _ = await on_asyncio(in_thread(self._sessions.start))

    async def _stop(self) -> None:
        # Left to the end of the process, it might never come: some servers end by the signal they were sent.
        _ = await on_asyncio(in_thread(self._sessions.stop))


class QuartWebSession(FlaskWebSession):
    """A `WebSession` that applications get as a `FlaskSession`, which is what `quart.session` is.

    Attributes:
        was_accessed: the application had read or written it when the response was made; None: there is none yet.
    """

    was_accessed: bool | None = None


class GossipSessionInterface(FlaskLikeInterface, SessionInterface):  # type: ignore[misc]  # Flask's, made async
    """Quart's way to open and save a session."""

    async def open_session(  # type: ignore[override]
        self, app: Quart, request: BaseRequestWebsocket
    ) -> FlaskSession | UnavailableSession:
        """Return the session that the request's cookies name, or a new one."""
        opened = await self._opened(app, request)
        cast("dict[str, Any]", request.scope)[_SESSION] = opened
        return opened.for_application() if isinstance(opened, FlaskWebSession) else opened

    async def _opened(self, app: Quart, request: BaseRequestWebsocket) -> FlaskWebSession | UnavailableSession:
        store = await _store(self.sessions)
        try:
            return await steps_on_any_loop(self.opening(app, store, request, request.headers.getlist("Cookie")))
        except SessionUnavailable:
            stand_in = self.sessions.stand_in(store)
            if stand_in is None:
                return UnavailableSession()
            assert isinstance(stand_in, FlaskWebSession), "the store was made for this class"
            return stand_in

    async def save_session(  # type: ignore[override]
        self, app: Quart, session: SessionMixin, response: SansIOResponse | None
    ) -> None:
        """Store what the request changed, and set the cookies; None: there is no response, as of a websocket.

        Raises:
            UnreplicableValue: a value was changed in place into something that cannot travel. Nothing is stored.
            SessionTooLarge: values have grown over a bound in place. Nothing is stored.
        """
        assert isinstance(session, FlaskSession), "opened by this interface"
        if response is None or _is_accepted():
            await self.save_late(app, session.gossipsess)
            return
        try:
            await self.save(app, session.gossipsess, response)
        except MemoryFull:
            # To raise here would make it a 500.
            _become_unavailable(response)

    async def save(self, app: Quart, session: FlaskWebSession, response: SansIOResponse) -> None:
        """Do as `save_session`, and raise `MemoryFull` too."""
        if isinstance(session, QuartWebSession) and session.was_accessed is not None:
            session.accessed = session.was_accessed
        self.tell_caches(session, response)
        if session.unavailable or session.refused:
            return
        store = await _store(self.sessions)
        saving = self.saving(app, store, session)
        if saving is None:
            self.refresh(app, store, session, response)
        else:
            self.set_cookies(app, session, response, saving, await on_asyncio(saving.outcome))

    async def save_late(self, app: Quart, session: FlaskWebSession) -> None:
        """Store what was changed when no cookie can be set any more; nothing where the client has no id of it."""
        if session.unavailable or session.refused:
            return
        if session.is_new:
            if session.modified and not session.says_nothing:
                session.refused = True  # once is enough
                app.logger.warning(BEGINS_TOO_LATE)
            return
        saving = self.saving(app, await _store(self.sessions), session, may_rotate=False)
        if saving is not None:
            await on_asyncio(saving.outcome)


class _SavesBeforeAccept(Websocket):
    """A websocket whose accept carries the cookies of what was written before it."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.accepted = False
        self._accepting = asyncio.Lock()  # a handler's tasks that send and receive each accept first

    async def accept(self, headers: Any = None, subprotocol: str | None = None) -> None:
        """Accept, unless that is done; raise what saving the session raises."""
        async with self._accepting:
            if self.accepted:
                return
            cookies = await _cookies_of_accept()
            await super().accept(Headers([*Headers(headers or ()), *cookies]), subprotocol)
            self.accepted = True


async def _cookies_of_accept() -> list[tuple[str, str]]:
    if not has_websocket_context():
        return []  # accepted by a task that has nothing of its request
    interface, opened = current_app.session_interface, _opened()
    if not (isinstance(interface, GossipSessionInterface) and isinstance(opened, FlaskWebSession)):
        return []
    response = Response()  # carries the cookies from there to here
    await interface.save(_app(), opened, response)
    return [("Set-Cookie", line) for line in response.headers.getlist("Set-Cookie")]


def _app() -> Quart:
    return cast(Quart, cast(Any, current_app)._get_current_object())


def _opened() -> object:
    """Return the session of the current request or websocket, as we have opened it; None: not by us."""
    return cast("dict[str, Any]", (websocket if has_websocket_context() else request).scope).get(_SESSION)


async def _store(sessions: NodeSessions) -> SessionStore:
    store = sessions.store
    return store if store is not None else await on_asyncio(in_thread(sessions.start))


def _is_accepted() -> bool:
    return has_websocket_context() and bool(getattr(websocket, "accepted", False))


async def _refuse_if_unavailable() -> None:
    if isinstance(_opened(), UnavailableSession):
        raise unavailable()


async def _note_access(response: Any) -> Any:
    opened = _opened()
    if isinstance(opened, QuartWebSession):
        opened.was_accessed = opened.accessed
    return response


async def _save_if_cancelled(error: BaseException | None) -> None:
    """Save what a websocket's handler left; nothing where it came to its end and all is saved."""
    interface, opened = current_app.session_interface, _opened()
    if not (isinstance(interface, GossipSessionInterface) and isinstance(opened, FlaskWebSession)):
        return
    app = _app()
    try:
        await interface.save_late(app, opened)
    except (UnreplicableValue, SessionTooLarge):
        app.logger.exception("what a websocket changed in its session is not stored")


async def _refuse_change(error: Exception) -> Any:
    """Answer for a view that let it pass that a stand-in cannot be changed, or that there is no room."""
    stand_in = _changed_stand_in(error)
    if stand_in is not None:
        stand_in.refused = True
    elif not (isinstance(error, MemoryFull) and has_websocket_context()):
        raise error  # of a session that the view loaded itself; the visitor's is there
    if _is_accepted():
        await websocket.close(TRY_AGAIN_LATER)
        return None
    # By way of the application's own page for 503, if it has one.
    context = [cast(Any, quart.globals).app_ctx._get_current_object()] if _METHODS_TAKE_CONTEXT else []
    return await cast(Any, current_app).handle_http_exception(*context, unavailable())


async def _refuse_late_change(app: Any, handle_exception: Callable[..., Awaitable[Any]], *raised: Any) -> Any:
    """Answer as for a view where Quart asks no error handler: for a hook after the view, or such a handler itself."""
    *context, error = raised
    stand_in = _changed_stand_in(error)
    if stand_in is None:
        return await handle_exception(*raised)
    stand_in.refused = True  # the hooks, the one that raised included, run once more with the new answer
    try:
        answer = await app.handle_user_exception(*context, error)
    except Exception as failure:  # of a handler of the application's own
        return await handle_exception(*context, failure)
    return await app.finalize_request(*context, answer, from_error_handler=True)


def _changed_stand_in(error: Exception) -> FlaskWebSession | None:
    """Return the session of the request or websocket if that is a stand-in, whose change raised this."""
    opened = _opened()
    if isinstance(error, SessionUnavailable) and isinstance(opened, FlaskWebSession) and opened.unavailable:
        return opened
    return None


def _become_unavailable(response: Any) -> None:
    """Put the 503 into the response that Quart is about to send; nothing of its own stays, cookies included."""
    other = unavailable().get_response()
    response.status, response.headers = other.status, other.headers
    response.set_data(other.get_data())
