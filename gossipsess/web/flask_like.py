# Flask-like: what the sessions of Flask and of Quart have in common.
#
# In:    a framework's session interface and its SESSION_* settings.   Out: the session; cookies on its response.
# Quart's sessions are Flask's (it imports them from there); only the waiting differs. So nothing here waits: an
# interface runs the steps of `opening`, takes what `saving` returns, waits in its own way, and hands it to
# `set_cookies`.
# Not here: which cookies follow from a request (adapter.py); refusals, which each framework hears of in its own way.

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, cast

from flask.sessions import SecureCookieSessionInterface, SessionInterface, SessionMixin
from werkzeug.exceptions import ServiceUnavailable
from werkzeug.http import dump_cookie
from werkzeug.sansio.response import Response

from gossipsess.errors import SessionTooLarge, UnreplicableValue
from gossipsess.model.record import ABSOLUTE, IDLE, Record
from gossipsess.protocol.events import Changes
from gossipsess.protocol.outcomes import Outcome
from gossipsess.session import LIMIT_S_MAX, Session
from gossipsess.store import SessionStore
from gossipsess.waiting import Steps
from gossipsess.web.adapter import LEAST_IDLE_S, UNAVAILABLE, NodeSessions, Saving, refreshes, save
from gossipsess.web.adoption import adoption, former_of_untrusted
from gossipsess.web.cookie import session_in_untrusted
from gossipsess.web.facade import NotingFacade
from gossipsess.web.session import WebSession
from gossipsess.wire.values import decode_value

_LIFETIMES: Final = {"_permanent", IDLE, ABSOLUTE}


class FlaskSession(NotingFacade, SessionMixin):
    """What `flask.session` is."""

    gossipsess: "FlaskWebSession"

    @property
    def permanent(self) -> bool:
        """Its cookie outlasts the browser."""
        return self.gossipsess.permanent

    @permanent.setter
    def permanent(self, value: bool) -> None:
        self.gossipsess.permanent = value

    @property
    def new(self) -> bool:  # type: ignore[override]  # Flask's is a plain attribute that it never sets
        """Nothing of it has been stored yet. Who asks has read the session: the answer differs by visitor."""
        self.accessed = True
        return self.gossipsess.is_new


class FlaskWebSession(WebSession):
    """A `WebSession` that applications get as a `FlaskSession`.

    Attributes:
        refused: it could not be saved, or a change of it was refused, and the answer says so.
    """

    refused = False
    _opened: Record | None = None  # as it was loaded; None: this request has stored nothing yet

    def for_application(self) -> FlaskSession:
        """Return the facade."""
        return FlaskSession(self)

    @property
    def opened_permanent(self) -> bool:
        """It was `permanent` when it was loaded."""
        entry = (self._opened or self.record).entries.get("_permanent")
        return entry is not None and entry.value is not None and bool(decode_value(entry.value))

    @property
    def permanent(self) -> bool:
        """Its cookie outlasts the browser. Kept in the session, but nothing that a stand-in would lose."""
        self.accessed = True
        return self._draft.get("_permanent") is not None and bool(self["_permanent"])  # get() costs an exception

    @permanent.setter
    def permanent(self, value: bool) -> None:
        if not self.unavailable:  # many applications assign it before every request
            self["_permanent"] = bool(value)

    @property
    def says_nothing(self) -> bool:
        """It is new and holds no more than how long it is to live, which many applications say before every request."""
        return self.is_new and {key for key, _ in self.changes()} <= _LIFETIMES

    @property
    def modified(self) -> bool:
        """This request has changed something, inside values included, stored or not."""
        return self._opened is not None or super().modified

    def committed(self, record: Record, token: str, changes: Changes) -> None:
        """Go on from the state that a commit of `changes` left."""
        self._opened = self._opened or self.record
        super().committed(record, token, changes)

    def ended(self, record: Record) -> None:
        """Become empty: the session is no more."""
        self._opened = self._opened or self.record
        super().ended(record)

    def _changing(self, how: str) -> None:
        if not self.refused:  # hooks that write after a 503 must not make a 500 of it
            super()._changing(how)


class UnavailableSession(dict[str, Any], SessionMixin):
    """What a request has that is refused; seen by hooks only, which may write to it, and never saved."""


class FlaskLikeInterface(SessionInterface):
    """A session interface less the waiting; `app` is an application of Flask's or Quart's."""

    def __init__(self, sessions: NodeSessions) -> None:
        self.sessions = sessions

    def regenerate(self, session: FlaskSession) -> None:
        """Give the session a new id when it is saved; what applications of Flask-Session call at a login."""
        session.gossipsess.rotate()

    def is_null_session(self, obj: object) -> bool:
        """Say whether this session is not to be saved."""
        return isinstance(obj, UnavailableSession)

    def opening(self, app: Any, store: SessionStore, request: Any, lines: list[str]) -> Steps[FlaskWebSession]:
        """Return the steps to the session that the Cookie headers of a request name, or else to a new one.

        Raises, while it runs:
            SessionUnavailable: whether there is such a session cannot be known now.
        """
        name = self.get_cookie_name(app)
        # Not `request.cookies`: to parse all of them costs more than all the rest here.
        cookie = session_in_untrusted(";".join(lines).encode("latin-1", "replace"), name)
        session: Session | None = None
        if cookie is not None:
            session = yield store.load_named(*cookie)
        elif self.sessions.adopts and (ids := request.cookies.getlist(name)):
            # Quart's cookies are Flask's, to the last bit.
            serializer = SecureCookieSessionInterface().get_signing_serializer(app)
            former = former_of_untrusted(ids, serializer, int(app.permanent_session_lifetime.total_seconds()))
            if former is not None:
                session = yield from adoption(store, former, self._idle_s(app))
        if session is None:
            session = store.create()
        assert isinstance(session, FlaskWebSession), "the store was made for this class"
        return session

    def tell_caches(self, session: FlaskWebSession, response: Response) -> None:
        """Say in the response that it depends on the session, if it does."""
        if session.accessed:
            _vary_by_cookie(response)
            if session.unavailable:  # an answer made without knowing the visitor is good for this once only
                response.headers["Cache-Control"] = "no-store"

    def saving(
        self, app: Any, store: SessionStore, session: FlaskWebSession, *, may_rotate: bool = True
    ) -> Saving | None:
        """Store what the request changed; None where that is nothing, or `says_nothing`. See `adapter.save`.

        A refused session is marked so: the framework saves once more with the page that tells of the error, and to
        raise again would hide that page.
        """
        if session.assigned or not session.is_new:
            session.limit(idle_s=self._idle_s(app))
        if session.needs_no_save:
            return None  # before the cookie's lifetime is looked up
        try:
            if session.says_nothing:
                return None  # stored, it would be one for each robot and each health check
            return save(store, session, self.get_cookie_name(app), self._max_age_s(app, session), may_rotate=may_rotate)
        except (UnreplicableValue, SessionTooLarge):
            session.refused = True
            raise

    def set_cookies(
        self, app: Any, session: FlaskWebSession, response: Response, saving: Saving, outcome: Outcome
    ) -> None:
        """Set the cookies that follow from a write."""
        cookies = dict(saving.cookies_after(outcome))
        if cookies and not saving.ended and session.permanent != session.opened_permanent:
            cookies[self.get_cookie_name(app)] = session.id  # with another expiry date
        self._set_cookies(app, session, response, cookies)

    def refresh(self, app: Any, store: SessionStore, session: FlaskWebSession, response: Response) -> None:
        """Set the id cookie of a permanent session anew, where nothing was written and it may be near its end."""
        if app.config["SESSION_REFRESH_EACH_REQUEST"] and refreshes(store, session, self._max_age_s(app, session)):
            self._set_cookies(app, session, response, {self.get_cookie_name(app): session.id})

    def _idle_s(self, app: Any) -> float:
        # Each of several applications over one store has a lifetime of its own.
        lifetime_s: float = max(LEAST_IDLE_S, app.permanent_session_lifetime.total_seconds())
        set_to = self.sessions.config.idle_timeout_s
        return min(lifetime_s, LIMIT_S_MAX if set_to is None else set_to)

    def _max_age_s(self, app: Any, session: FlaskWebSession) -> float | None:
        used = session.accessed
        expires = self._expires(app, session)
        session.accessed = used
        return (expires - datetime.now(UTC)).total_seconds() if expires is not None else None

    def _expires(self, app: Any, session: FlaskWebSession) -> datetime | None:
        return self.get_expiration_time(app, cast(Any, session))  # which only asks whether it is `permanent`

    def _set_cookies(self, app: Any, session: FlaskWebSession, response: Response, cookies: dict[str, str]) -> None:
        if not cookies:
            return
        expires = self._expires(app, session)
        until = None if expires is None else expires.replace(microsecond=0)
        settings = (
            self.get_cookie_httponly(app),
            self.get_cookie_domain(app),
            self.get_cookie_path(app),
            self.get_cookie_secure(app),
            self.get_cookie_samesite(app),
            bool(app.config.get("SESSION_COOKIE_PARTITIONED")),  # Flask knows the setting from 3.1 on
        )
        for name, value in cookies.items():
            attributes = _attributes(until if value else None, not value, *settings)
            response.headers.add("Set-Cookie", f"{name}={value}{attributes}")
        _vary_by_cookie(response)
        if "Cache-Control" not in response.headers:
            response.headers.add("Cache-Control", "private")


def _vary_by_cookie(response: Response) -> None:
    if "Vary" in response.headers:
        response.vary.add("Cookie")
    else:
        response.headers.add("Vary", "Cookie")


@lru_cache(maxsize=64)  # of one application mostly one; of permanent sessions one for each second
def _attributes(
    expires: datetime | None,
    removed: bool,
    httponly: bool,
    domain: str | None,
    path: str,
    secure: bool,
    samesite: str | None,
    partitioned: bool,
) -> str:
    """Return what Werkzeug writes after a cookie's value."""
    more: dict[str, Any] = {"partitioned": True} if partitioned else {}
    cookie = dump_cookie(
        "n",
        expires=0 if removed else expires,
        max_age=0 if removed else None,
        httponly=httponly,
        domain=domain,
        path=path,
        secure=secure,
        samesite=samesite,
        **more,
    )
    return cookie.removeprefix("n=")


def unavailable() -> ServiceUnavailable:
    """Return the answer where a session is not available."""
    return ServiceUnavailable(UNAVAILABLE, retry_after=1)
