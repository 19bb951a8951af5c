# ASGI: the session middleware for any ASGI application, on asyncio and on Trio.
#
# In:    lifespan, http and websocket scopes.   Out: `scope["session"]`, a WebSession; cookies on what the app sends.
# The session is loaded before the application runs, so that using it never waits; what the request changed is
# stored, and confirmed by another host, before the first header leaves. So a login that a browser has seen
# succeed is held elsewhere too.
# `revoke` ends a user's sessions from within a request: the middleware leaves its store in the scope.
# Not here: which cookies follow from a request (adapter.py), and how they are written (cookie.py).

import logging
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from concurrent.futures import Future
from copy import copy
from typing import Any, Final, cast

from gossipsess.config import Config, OnUnavailable
from gossipsess.errors import MemoryFull, SessionUnavailable
from gossipsess.model.clock import time_ms_of
from gossipsess.protocol.events import Confirm
from gossipsess.protocol.outcomes import Revoked
from gossipsess.service import NodeService, leave_at_sigterm
from gossipsess.session import Session
from gossipsess.store import SessionStore
from gossipsess.waiting import in_thread, on_any_loop, steps_on_any_loop
from gossipsess.web.adapter import BEGINS_TOO_LATE, UNAVAILABLE, NodeSessions, Saving, refreshes, save
from gossipsess.web.adoption import Former, adoption
from gossipsess.web.cookie import CookieSettings, SameSite
from gossipsess.web.session import WebSession

log = logging.getLogger("gossipsess")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

TRY_AGAIN_LATER: Final = 1013
"""Close code of a websocket whose session is not available (RFC 6455's registry)."""
_STORE: Final = "gossipsess.store"  # key in the scope of a request
_UNAVAILABLE_BODY: Final = f"{UNAVAILABLE}\n".encode("ascii")


class SessionMiddleware:
    """Give every request and websocket ``scope["session"]``, a `WebSession`.

    A request that writes nothing stores nothing and sets no cookie; the first write stores the session and sets
    the id cookie, and deleting every key ends it. A login changes the id (`WebSession.rotate` says when). Changes
    count that are made before the response starts.

    A websocket's session is read once, when it opens. What is written before the accept sets cookies there; what
    is written later is stored when the application returns, under the same id, provided that the client has it.

    Where it cannot be known in time whether the session exists, the application does not run: the answer is 503 with
    Retry-After (a websocket: close code 1013), and the cookie stays. With `on_unavailable` ``empty`` it runs, its
    session is empty and `WebSession.unavailable`, and the answer is that 503 only where it lets the error pass that a
    change raises. A websocket is closed so even after its accept. But where a response has begun, in a streamed body or
    a background task, it is too late: the error reaches the server, and nothing is stored. The same 503 takes the
    place of the application's where that would begin a session for which there is no room (`MemoryFull`); what is
    raised where the application sends its response ends it.

    The node starts with the lifespan, whose startup completes once the node has met the others, or nobody for two
    seconds, and leaves with the lifespan's shutdown; without a lifespan it starts with the first request.

    Arguments:
        config: the node's settings; None: those of the environment.
        node: a node to use instead of this process's own.
        on_unavailable: ``error`` or ``empty``; None: the node's setting.
        login_keys: the keys that hold the user; None: the node's setting. `Config.login_keys` says what follows.
        idle_timeout_s, absolute_timeout_s: when sessions end by time, seconds; the node's settings, where they are set,
            end them sooner. None: as set there, or else 1800 and 43200.
        rolls: `max_age_s` counts from the last use and not from the last write: after a quarter of it every response
            that used the session sets the id cookie.
        former: returns from the headers of a request the session that the layer which this one takes the place of has
            left in the client's cookies, if it is authentic; it goes on here. None: there was none.
        further: returns from them the names of the cookies in which that layer left sessions beside the one under the
            id cookie's name. They are removed by each answer that sets or removes a cookie of ours: after a logout
            they would begin a session anew. None: it left none.
        adopt: False: they do not. None: the node's setting.
        The others: see `CookieSettings`. The default cookie needs HTTPS (or a browser on localhost); elsewhere
        give another `cookie_name` and ``secure=False``. A session that nobody wrote to for `max_age_s` is over
        even if its cookie still comes, unless it `rolls`.

    Raises:
        ConfigError: the cookie settings cannot work, or `on_unavailable` or `login_keys` cannot be that.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        config: Config | None = None,
        node: NodeService | None = None,
        on_unavailable: OnUnavailable | None = None,
        cookie_name: str = "__Host-gsid",
        max_age_s: int | None = None,
        path: str = "/",
        domain: str | None = None,
        same_site: SameSite = "lax",
        secure: bool = True,
        partitioned: bool = False,
        session_class: type[WebSession] = WebSession,
        login_keys: tuple[str, ...] | None = None,
        idle_timeout_s: float | None = None,
        absolute_timeout_s: float | None = None,
        rolls: bool = False,
        former: Callable[[Iterable[tuple[bytes, bytes]]], Former | None] | None = None,
        further: Callable[[Iterable[tuple[bytes, bytes]]], Iterable[str]] | None = None,
        adopt: bool | None = None,
    ) -> None:
        self.app = app
        self._cookie = CookieSettings(
            name=cookie_name,
            max_age_s=max_age_s,
            path=path,
            domain=domain,
            same_site=same_site,
            secure=secure,
            partitioned=partitioned,
        )
        self._sessions = NodeSessions(
            session_class,
            config,
            node,
            on_unavailable,
            idle_timeout_s=idle_timeout_s,
            absolute_timeout_s=absolute_timeout_s,
            login_keys=login_keys,
            adopt=adopt,
        )
        self._rolls = rolls and max_age_s is not None and max_age_s > 0  # a lifetime of none is over at once
        self._outlives_s = None if self._rolls else max_age_s  # how long after its last write a session may come
        self._former, self._further = former, further

    def around(self, app: ASGIApp) -> "SessionMiddleware":
        """Return a middleware around another application, with the same store; for frameworks that have one a route."""
        other = copy(self)
        other.app = app
        return other

    async def start(self) -> None:
        """Start the node, and wait until it can answer; for frameworks whose lifespan does not come by here."""
        _ = await on_any_loop(in_thread(self._sessions.start))

    async def stop(self) -> None:
        """Let the node leave the cluster. Left to the end of the process, it might never come to that."""
        _ = await on_any_loop(in_thread(self._sessions.stop))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self._serve_other(scope, receive, send)
            return
        store = self._sessions.store or await self._started()
        session = self._held(store, scope)
        if session is None:
            session = await self._open(store, scope)
        if session is None:
            await _answer_unavailable(send)
            return
        scope["session"], scope[_STORE] = session.for_application(), store
        refused = answered = False

        # Async, and no function that returns what `send` does: asgiref asks for that, and a response that the
        # application has made and then never sends, its task being cancelled, say, stores nothing.
        async def send_with_session(message: Message) -> None:
            nonlocal refused, answered
            if refused:
                return  # the error page of a layer that caught what was raised here
            if message["type"] == "http.response.start" and session.accessed:
                headers: Headers = list(message.get("headers", ()))
                _vary_by_cookie(headers)
                try:
                    saving = self._save(store, session, scope, headers)
                except MemoryFull:
                    refused = True
                    await _answer_unavailable(send)
                    raise
                if saving is not None:
                    await self._saved(saving, scope, headers)
                message = {**message, "headers": headers}
            answered = True
            await send(message)

        try:
            await self.app(scope, receive, send_with_session)
        except Exception as error:
            if refused:
                return  # it is the refusal, or what layers have made of it; the node has warned of the limit
            if answered or not _is_change_refused(session, error):
                raise
            await _answer_unavailable(send)

    async def _serve_other(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "websocket":
                await self._websocket(scope, receive, send)
            case "lifespan":
                await self._lifespan(scope, receive, send)
            case _:
                await self.app(scope, receive, send)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = in_thread(self._sessions.start)
        leave_at_sigterm()  # for Hypercorn's workers, which may be sent one while they shut down
        answered = False

        async def wait_until_started() -> SessionStore:
            try:
                return await on_any_loop(started)
            except Exception as error:
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                raise

        async def send_when_started(message: Message) -> None:
            nonlocal answered
            if message["type"].startswith("lifespan.startup."):
                if answered:
                    return  # we have told the server of a failure, and the application tells it once more
                answered = True
                if message["type"] == "lifespan.startup.complete":
                    await wait_until_started()
            elif message["type"].startswith("lifespan.shutdown."):
                # Left to the end of the process, it might never come: uvicorn ends by the signal it was sent.
                _ = await on_any_loop(in_thread(self._sessions.stop))
            await send(message)

        try:
            await self.app(scope, receive, send_when_started)
        finally:
            # An application without a lifespan raises or returns; only then does the server open its port.
            if not answered:
                await wait_until_started()

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        store = self._sessions.store or await self._started()
        session = await self._open(store, scope)
        if session is None:
            await receive()  # the connect, which is to be answered
            await send({"type": "websocket.close", "code": TRY_AGAIN_LATER})
            return
        scope["session"], scope[_STORE] = session.for_application(), store
        refused = over = accepted = False

        async def receive_until_over() -> Message:
            nonlocal over
            message = await receive()
            over = over or message["type"] == "websocket.disconnect"
            return message

        async def send_with_session(message: Message) -> None:
            nonlocal refused, over, accepted
            if refused:
                return  # the close of a layer that caught what was raised here
            if message["type"] == "websocket.accept" and session.accessed:
                headers: Headers = list(message.get("headers", ()))
                try:
                    saving = self._save(store, session, scope, headers)
                    if saving is not None:
                        await self._saved(saving, scope, headers)
                except MemoryFull:
                    refused = True
                    await send({"type": "websocket.close", "code": TRY_AGAIN_LATER})
                    raise
                message = {**message, "headers": headers}
            # Only these leave it open; any other refuses or closes it, and a close after that is a fault.
            over = over or message["type"] not in ("websocket.accept", "websocket.send")
            accepted = accepted or message["type"] == "websocket.accept"
            await send(message)

        try:
            await self.app(scope, receive_until_over, send_with_session)
        except Exception as error:
            if refused:
                return
            if over or not _is_change_refused(session, error):
                raise
            await send({"type": "websocket.close", "code": TRY_AGAIN_LATER})
        finally:
            # Many applications end by the exception that the client's disconnect raises.
            if session.is_new:
                if accepted and session.assigned:
                    log.warning(BEGINS_TOO_LATE)
            else:
                saving = self._save(store, session, scope, [], may_rotate=False)
                if saving is not None:
                    await self._saved(saving, scope, [])

    async def _started(self) -> SessionStore:
        return await on_any_loop(in_thread(self._sessions.start))

    def _held(self, store: SessionStore, scope: Scope) -> WebSession | None:
        """Return the session of a request where it is at hand, as most are; else `_open` says what it is."""
        cookie = self._cookie.session_untrusted(scope["headers"])
        if cookie is None:
            return None
        session: WebSession | None = store.held(*cookie)  # type: ignore[assignment]  # the store was made for it
        if session is None or (self._outlives_s is not None and _age_s(session) > self._outlives_s):
            return None
        return session

    async def _open(self, store: SessionStore, scope: Scope) -> WebSession | None:
        """Return the session of a request, or its stand-in; None where the request is to be refused."""
        session: Session | None = None
        cookie = self._cookie.session_untrusted(scope["headers"])
        try:
            if cookie is not None:
                found = store.load_named(*cookie)
                session = await on_any_loop(found) if isinstance(found, Future) else found
            elif self._former is not None and self._sessions.adopts:
                former = self._former(scope["headers"])
                if former is not None:
                    session = await steps_on_any_loop(adoption(store, former))
        except SessionUnavailable:
            return self._sessions.stand_in(store)
        if session is None or (self._outlives_s is not None and _age_s(session) > self._outlives_s):
            session = store.create()
        return cast(WebSession, session)

    def _save(
        self, store: SessionStore, session: WebSession, scope: Scope, headers: Headers, *, may_rotate: bool = True
    ) -> Saving | None:
        """Store what the request changed; None where there is nothing to wait for. Else `_saved` is to follow."""
        if session.needs_no_save and not (session.unavailable or self._rolls):
            return None  # most requests
        if session.unavailable:
            # Nothing can have changed. But an answer made without knowing the visitor is good for this once only.
            headers[:] = [header for header in headers if header[0].lower() != b"cache-control"]
            headers.append((b"cache-control", b"no-store"))
            return None
        saving = save(store, session, self._cookie.name, self._cookie.max_age_s, may_rotate=may_rotate)
        if saving is not None and not isinstance(saving.outcome, Future):
            self._set_cookies(saving.cookies_after(saving.outcome), scope, headers)
            return None
        if saving is None and self._rolls and may_rotate and refreshes(store, session, self._cookie.max_age_s):
            self._set_cookies(((self._cookie.name, session.id),), scope, headers)
        return saving

    async def _saved(self, saving: Saving, scope: Scope, headers: Headers) -> None:
        """Wait until what was stored is confirmed, and set the cookies that follow."""
        assert isinstance(saving.outcome, Future), "else `_save` has set them"
        self._set_cookies(saving.cookies_after(await on_any_loop(saving.outcome)), scope, headers)

    def _set_cookies(self, cookies: tuple[tuple[str, str], ...], scope: Scope, headers: Headers) -> None:
        if self._further is not None and cookies:
            cookies = (*cookies, *[(name, "") for name in self._further(scope["headers"])])
        for name, value in cookies:
            headers.append((b"set-cookie", self._cookie.header(name, value).encode("ascii")))
        if cookies and not _has(headers, b"cache-control"):
            headers.append((b"cache-control", b"private"))


async def revoke(scope: Scope, user: object, confirm: Confirm | None = None) -> Revoked:
    """End every session of a user on every node, whichever holds it; for the handler of a request or websocket.

    `user` is what a login key holds, ``user_id`` say, or `Session.user`. The session of the request that calls this
    ends too, if it is the user's: what the request changes in it afterwards is not stored.

    Raises:
        RuntimeError: the request did not come through the middleware.
        UnreplicableValue, SessionTooLarge: no session can have such a user.
    """
    store = scope.get(_STORE)
    if not isinstance(store, SessionStore):
        raise RuntimeError("no sessions to revoke: this request did not come through gossipsess's SessionMiddleware.")
    return await on_any_loop(store.revoke(str(user), confirm))


def _age_s(session: Session) -> float:
    return time.time() - time_ms_of(session.record.newest) / 1000


def _is_change_refused(session: WebSession, error: Exception) -> bool:
    return session.unavailable and isinstance(error, SessionUnavailable)


def _has(headers: Headers, name: bytes) -> bool:
    size = len(name)
    for header, _ in headers:
        if len(header) == size and header.lower() == name:
            return True
    return False


def _vary_by_cookie(headers: Headers) -> None:
    """Tell caches that the answer depends on the cookie."""
    for position, (header, line) in enumerate(headers):
        if len(header) != 4 or header.lower() != b"vary":
            continue
        names = {name.strip().lower() for name in line.split(b",")}
        if names & {b"*", b"cookie"}:
            return
        headers[position] = (header, line + b", Cookie")
        return
    headers.append((b"vary", b"Cookie"))


async def _answer_unavailable(send: Send) -> None:
    headers: Headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(_UNAVAILABLE_BODY)).encode("ascii")),
        (b"cache-control", b"no-store"),
        (b"retry-after", b"1"),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": _UNAVAILABLE_BODY})
