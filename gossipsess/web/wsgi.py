# WSGI: the session middleware for any WSGI application.
#
# In:    environ, start_response.   Out: `environ["gossipsess.session"]`, a WebSession; cookies on the response.
# Rule:  what the request changed is stored, and confirmed by another host, before the first header leaves: when the
#        application has returned, if it has called start_response by then; with its first `write`; or, where it is a
#        generator, with the first piece that this yields. The body itself goes to the server untouched, so that a
#        server's ways with lists and files stay; only a generator that has not begun its response is wrapped.
# `revoke` ends a user's sessions from within a request: the middleware leaves its store in the environ.
# Not here: which cookies follow from a request (adapter.py), and how they are written (cookie.py).

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Final
from wsgiref.headers import Headers

from gossipsess.config import Config, OnUnavailable
from gossipsess.errors import MemoryFull, SessionUnavailable
from gossipsess.protocol.events import Confirm
from gossipsess.protocol.outcomes import Revoked
from gossipsess.service import NodeService
from gossipsess.store import SessionStore
from gossipsess.waiting import blocking
from gossipsess.web.adapter import UNAVAILABLE, NodeSessions, save
from gossipsess.web.cookie import CookieSettings, SameSite, session_in_untrusted
from gossipsess.web.launch import launch_early
from gossipsess.web.session import WebSession

Environ = dict[str, Any]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]
Write = Callable[[bytes], object]
StartResponse = Callable[..., Write]
"""``start_response(status, headers, exc_info=None)``, as PEP 3333 has it."""
WSGIApp = Callable[[Environ, StartResponse], Iterable[bytes]]

SESSION: Final = "gossipsess.session"
"""Key of the session in the environ."""
_STORE: Final = "gossipsess.store"
_UNAVAILABLE_BODY: Final = f"{UNAVAILABLE}\n".encode("ascii")
_UNAVAILABLE_HEADERS: Final = (
    ("Content-Type", "text/plain; charset=utf-8"),
    ("Content-Length", str(len(_UNAVAILABLE_BODY))),
    ("Cache-Control", "no-store"),
    ("Retry-After", "1"),
)


class SessionMiddleware:
    """Give every request ``environ["gossipsess.session"]``, a `WebSession`.

    A request that writes nothing stores nothing and sets no cookie; the first write stores the session and sets
    the id cookie, and deleting every key ends it. A login changes the id (`WebSession.rotate` says when). Changes
    count that are made before the response's headers leave: until the application has returned, or calls `write`; in a
    generator that has not called ``start_response`` before, until its first ``yield``.

    Where it cannot be known in time whether the session exists, the application does not run: the answer is 503 with
    Retry-After, and the cookie stays. With `on_unavailable` ``empty`` it runs, its session is empty and
    `WebSession.unavailable`, and the answer is that 503 only where it lets the error pass that a change raises, before
    its headers have left; later the error reaches the server, and nothing is stored. The same 503 takes the place of
    the application's answer where that would begin a session for which there is no room (`MemoryFull`).

    The node starts when this is called, which returns once it has met the others, or nobody for two seconds; under
    gunicorn --preload it starts in each worker, after its fork. It does not start in a process that is known not to
    serve.

    Arguments:
        config: the node's settings; None: those of the environment.
        node: a node to use instead of this process's own.
        on_unavailable: ``error`` or ``empty``; None: the node's setting.
        login_keys: the keys that hold the user; None: the node's setting. `Config.login_keys` says what follows.
        The others: see `CookieSettings`. The default cookie needs HTTPS (or a browser on localhost); elsewhere give
        another `cookie_name` and ``secure=False``.

    Raises:
        ConfigError: a setting of the node is wrong, or no port is free; the cookie settings cannot work; or
            `on_unavailable` or `login_keys` cannot be that.
    """

    def __init__(
        self,
        app: WSGIApp,
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
        login_keys: tuple[str, ...] | None = None,
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
        self._sessions = NodeSessions(WebSession, config, node, on_unavailable, login_keys=login_keys)
        launch_early(self._sessions)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request. May block while other nodes are asked, or confirm; both are bounded."""
        store = self._sessions.store or self._sessions.start()
        session = self._open(store, environ)
        if session is None:
            _start_unavailable(start_response)
            return (_UNAVAILABLE_BODY,)
        environ[SESSION], environ[_STORE] = session, store
        response = _Response(store, session, self._cookie, start_response)
        try:
            body = self.app(environ, response.start_response)
            if not response.is_prepared:
                return _Begun(body, response)  # a generator: nothing of it has run yet
            return response.begin(body)
        except SessionUnavailable as error:
            return response.refuse(error)

    def _open(self, store: SessionStore, environ: Environ) -> WebSession | None:
        """Return the session of a request, or its stand-in; None where the request is to be refused."""
        line = environ.get("HTTP_COOKIE", "").encode("latin-1", "replace")
        cookie = session_in_untrusted(line, self._cookie.name)
        try:
            session = None if cookie is None else blocking(store.load_named(*cookie))
        except SessionUnavailable:
            return self._sessions.stand_in(store)
        if session is None:
            session = store.create()
        assert isinstance(session, WebSession), "the store was made for this class"
        return session


def revoke(environ: Environ, user: object, confirm: Confirm | None = None) -> Revoked:
    """End every session of a user on every node, whichever holds it. Blocks until confirmed, at most 250 ms.

    `user` is what a login key holds, ``user_id`` say, or `Session.user`. The session of the request that calls this
    ends too, if it is the user's: what the request changes in it afterwards is not stored.

    Raises:
        RuntimeError: the request did not come through the middleware.
        UnreplicableValue, SessionTooLarge: no session can have such a user.
    """
    store = environ.get(_STORE)
    if not isinstance(store, SessionStore):
        raise RuntimeError("no sessions to revoke: this request did not come through gossipsess's SessionMiddleware.")
    return blocking(store.revoke(str(user), confirm))


class _Response:
    """One response, held back until the session is stored."""

    def __init__(
        self, store: SessionStore, session: WebSession, cookie: CookieSettings, start_response: StartResponse
    ) -> None:
        self._store = store
        self._session = session
        self._cookie = cookie
        self._start_response = start_response
        self._prepared: tuple[str, list[tuple[str, str]]] | None = None
        self._write: Write | None = None  # the server's, once the headers are its own
        self._cookies: list[tuple[str, str]] = []
        self._refused = False

    @property
    def is_prepared(self) -> bool:
        """The application has called start_response."""
        return self._prepared is not None

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None) -> Write:
        """Take what the application answers; with `exc_info` in place of what it has answered before."""
        if self._prepared is not None and exc_info is None:
            raise AssertionError("start_response was called before; to replace the answer it takes exc_info")
        self._prepared = (status, list(headers))
        if self._write is not None and not self._refused:
            # The server knows whether it is too late, and raises then.
            self._start_response(status, self._told(headers), exc_info)
        return self.write

    def write(self, data: bytes) -> None:
        """Send a piece of the body, as PEP 3333 has it for old applications."""
        try:
            write = self._begun()
        except MemoryFull as error:
            write = self._refuse(error)
            write(_UNAVAILABLE_BODY)
        if not self._refused:
            write(data)

    def begin(self, body: Iterable[bytes]) -> Iterable[bytes]:
        """Store the session, and let the headers go; return the body, or what takes its place."""
        try:
            self._begun()
        except BaseException as error:
            _close(body)
            if isinstance(error, MemoryFull):
                return self.refuse(error)
            raise
        if self._refused:
            _close(body)
            return ()
        return body

    def refuse(self, error: SessionUnavailable) -> Iterable[bytes]:
        """Answer 503, where what was raised asks for it and it is not too late.

        Raises:
            SessionUnavailable: `error` itself.
        """
        self._refuse(error)
        return (_UNAVAILABLE_BODY,)

    def _begun(self) -> Write:
        if self._write is None:
            assert self._prepared is not None, "an application calls start_response before it sends anything"
            status, headers = self._prepared
            if self._session.accessed:
                self._save()
            self._write = self._start_response(status, self._told(headers))
        return self._write

    def _refuse(self, error: SessionUnavailable) -> Write:
        of_ours = self._session.unavailable or isinstance(error, MemoryFull)
        if self._write is not None or not of_ours:
            raise error
        self._refused = True
        self._write = _start_unavailable(self._start_response)
        return self._write

    def _save(self) -> None:
        if self._session.unavailable or self._session.needs_no_save:
            return
        saving = save(self._store, self._session, self._cookie.name, self._cookie.max_age_s)
        if saving is not None:
            cookies = saving.cookies_after(blocking(saving.outcome))
            self._cookies = [("Set-Cookie", self._cookie.header(*cookie)) for cookie in cookies]

    def _told(self, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return the application's headers with what follows from the session."""
        told = Headers([*headers, *self._cookies])
        if self._session.accessed and not _names_cookie(told.get_all("Vary")):
            told.add_header("Vary", "Cookie")
        if self._session.unavailable and self._session.accessed:
            told["Cache-Control"] = "no-store"  # made without knowing the visitor: good for this once only
        elif self._cookies and "Cache-Control" not in told:
            told["Cache-Control"] = "private"
        return told.items()


class _Begun:
    """The body of a generator, whose response begins with its first piece."""

    def __init__(self, body: Iterable[bytes], response: _Response) -> None:
        self._body = body
        self._pieces = iter(body)
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        try:
            first = next(self._pieces, b"")
            pieces = self._response.begin(self._pieces)
        except SessionUnavailable as error:
            yield from self._response.refuse(error)
            return
        if pieces is self._pieces:
            yield first
        yield from pieces

    def close(self) -> None:
        """Called by the server at the end."""
        _close(self._body)


def _names_cookie(lines: list[str]) -> bool:
    return any(name.strip().lower() in ("*", "cookie") for line in lines for name in line.split(","))


def _close(body: Iterable[bytes]) -> None:
    close = getattr(body, "close", None)
    if close is not None:
        close()


def _start_unavailable(start_response: StartResponse) -> Write:
    return start_response("503 Service Unavailable", list(_UNAVAILABLE_HEADERS))
