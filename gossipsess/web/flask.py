# Flask: `flask.session`, held by the cluster.
#
# In:    Flask's session interface and its SESSION_* settings.   Out: a session that is Flask's and ours.
# Opening may block while other nodes are asked, saving blocks until another host confirms; both are bounded.
# A session that is not available cannot be refused where Flask opens it: an error raised there is answered with
# 500. So something empty is opened, and the request is refused at the first hook, before any view; or with
# `on_unavailable` "empty" when the application would change it. What hooks after the view raise no error handler of
# Flask's sees, so we stand before `Flask.handle_exception`, as extensions do.
# Not here: what Quart does alike (flask_like.py), and which cookies follow from a request (adapter.py).

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from flask import Flask, Request, Response, current_app, request, session
from flask.sessions import SessionMixin
from flask.typing import ResponseReturnValue
from werkzeug.wrappers import Response as BaseResponse

from gossipsess.config import Config, OnUnavailable
from gossipsess.errors import MemoryFull, SessionUnavailable
from gossipsess.protocol.events import Confirm
from gossipsess.protocol.outcomes import Revoked
from gossipsess.service import NodeService
from gossipsess.store import SessionStore
from gossipsess.waiting import blocking, steps_blocking
from gossipsess.web.adapter import UNLIMITED_S, NodeSessions, launch_early
from gossipsess.web.flask_like import FlaskLikeInterface, FlaskSession, FlaskWebSession, UnavailableSession, unavailable

_UNAVAILABLE: Final = "gossipsess.unavailable"  # key in the WSGI environ of a request that is to be refused


class GossipSessions:
    """Keep the sessions of a Flask application in the cluster: ``GossipSessions(app)``.

    Flask's settings of the cookie count: SESSION_COOKIE_NAME, _DOMAIN, _PATH, _SECURE, _HTTPONLY, _SAMESITE,
    _PARTITIONED, and for a session that is `permanent`, PERMANENT_SESSION_LIFETIME. The id cookie of a permanent
    session is set anew after a quarter of that time, by every response with SESSION_REFRESH_EACH_REQUEST (Flask's
    default), else by those that wrote. The version token's cookie is ``<name>-v``.

    A session that nobody uses ends after PERMANENT_SESSION_LIFETIME, permanent or not, as Flask's own does; the idle
    and absolute timeouts of `Config`, where they are set, end it sooner. A cookie of Flask's own, signed with
    SECRET_KEY or one of SECRET_KEY_FALLBACKS and valid still, begins a session with its data, once. For nothing else a
    SECRET_KEY is needed.

    Where it cannot be known in time whether the session exists, no view runs: the answer is 503 with Retry-After,
    and the cookie stays. With `on_unavailable` ``empty`` the view runs, its session is empty and
    `WebSession.unavailable`, and the answer is that 503 only where the view, or a hook before or after it, lets the
    error pass that a change raises (a handler for `SessionUnavailable` that the application registers afterwards may
    answer otherwise; assigning `permanent` is no change). Hooks after the view then run once more, with that answer.
    In the body of a streamed response and in `teardown_request` it is too late for another answer: the error reaches
    the server, and nothing is stored. The same 503 takes the place of a view's answer where that would begin a session
    for which there is no room (`MemoryFull`).

    A login changes the session's id (`WebSession.rotate` says when).

    The node starts when this is called, which returns once it has met the others, or nobody for two seconds; under
    gunicorn --preload it starts in each worker, after its fork. It does not start in a process that is known not to
    serve: a Python shell, a command of Flask's other than ``run``, the parent of the reloader, uWSGI's master.

    Arguments:
        config: the node's settings; None: those of the environment.
        node: a node to use instead of this process's own.
        on_unavailable: ``error`` or ``empty``; None: the node's setting.
        login_keys: the keys that hold the user; None: the node's setting. `Config.login_keys` says what follows.
        adopt: whether Flask's own cookies are adopted; None: the node's setting.

    Raises:
        ConfigError: a setting of the node is wrong, or no port is free; or `on_unavailable` or `login_keys` cannot be
            that.
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        config: Config | None = None,
        node: NodeService | None = None,
        on_unavailable: OnUnavailable | None = None,
        login_keys: tuple[str, ...] | None = None,
        adopt: bool | None = None,
    ) -> None:
        self._sessions = NodeSessions(
            FlaskWebSession,
            config,
            node,
            on_unavailable,
            absolute_timeout_s=UNLIMITED_S,
            login_keys=login_keys,
            adopt=adopt,
        )
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Put the sessions of one more application into the cluster.

        Raises:
            TypeError: it is none of Flask's.
        """
        if not isinstance(app, Flask):
            raise TypeError(f"{app!r} is no Flask application; Quart's have gossipsess.web.quart.GossipSessions.")
        app.session_interface = GossipSessionInterface(self._sessions)
        app.url_value_preprocessor(_refuse_if_unavailable)  # comes before every `before_request`
        app.register_error_handler(SessionUnavailable, _refuse_change)
        # Without naming the application: one that refers to itself is freed late.
        others = vars(app).get("handle_exception")
        app.handle_exception = partial(_refuse_late_change, others)  # type: ignore[method-assign]
        launch_early(self._sessions)

    def revoke(self, user: object, confirm: Confirm | None = None) -> Revoked:
        """End every session of a user on every node, whichever holds it. Blocks until confirmed, at most 250 ms.

        `user` is what a login key holds, ``user_id`` say, or `Session.user`. The session of the request that calls
        this ends too, if it is the user's: what the request changes in it afterwards is not stored.

        Raises:
            UnreplicableValue, SessionTooLarge: no session can have such a user.
        """
        return blocking(_store(self._sessions).revoke(str(user), confirm))


class GossipSessionInterface(FlaskLikeInterface):
    """Flask's way to open and save a session."""

    def open_session(self, app: Flask, request: Request) -> FlaskSession | UnavailableSession:
        """Return the session that the request's cookies name, or a new one. May block for at most 150 ms."""
        store = _store(self.sessions)
        try:
            opened = steps_blocking(self.opening(app, store, request, [request.environ.get("HTTP_COOKIE", "")]))
        except SessionUnavailable:
            stand_in = self.sessions.stand_in(store)
            if stand_in is None:
                request.environ[_UNAVAILABLE] = True
                return UnavailableSession()
            assert isinstance(stand_in, FlaskWebSession), "the store was made for this class"
            opened = stand_in
        return opened.for_application()

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Store what the request changed, and set the cookies. Blocks until confirmed, at most 250 ms by default.

        Raises:
            UnreplicableValue: a value was changed in place into something that cannot travel. Nothing is stored.
            SessionTooLarge: values have grown over a bound in place. Nothing is stored.
        """
        assert isinstance(session, FlaskSession), "opened by this interface"
        opened = session.gossipsess
        self.tell_caches(opened, response)
        if opened.unavailable or opened.refused:
            return
        store = _store(self.sessions)
        try:
            saving = self.saving(app, store, opened)
        except MemoryFull:
            # To raise here would make it a 500.
            _become(response, unavailable().get_response())
            return
        if saving is None:
            self.refresh(app, store, opened, response)
        else:
            self.set_cookies(app, opened, response, saving, blocking(saving.outcome))


def _store(sessions: NodeSessions) -> SessionStore:
    store = sessions.store
    return store if store is not None else sessions.start()


def _refuse_if_unavailable(endpoint: str | None, values: dict[str, Any] | None) -> None:
    if _UNAVAILABLE in request.environ:
        raise unavailable()


def _refuse_change(error: Exception) -> ResponseReturnValue:
    """Answer for a view that let it pass that a stand-in cannot be changed."""
    stand_in = _changed_stand_in(error)
    if stand_in is None:
        raise error  # of a session that the view loaded itself; the visitor's is there
    stand_in.refused = True
    # By way of the application's own page for 503, if it has one.
    return current_app.handle_http_exception(unavailable())


def _refuse_late_change(others: Callable[..., Response] | None, *raised: Any) -> Response:
    """Answer as for a view where Flask asks no error handler: for a hook after the view, or such a handler itself.

    `others`: what stood in the place of `Flask.handle_exception` before.
    """
    app: Any = current_app._get_current_object()  # type: ignore[attr-defined]
    handle_exception: Callable[..., Response] = others or partial(type(app).handle_exception, app)
    *context, error = raised  # before the error, Flask's development version hands on a context
    stand_in = _changed_stand_in(error)
    if stand_in is None:
        return handle_exception(*raised)
    stand_in.refused = True  # the hooks, the one that raised included, run once more with the new answer
    try:
        answer = app.handle_user_exception(*context, error)
    except Exception as failure:  # of a handler of the application's own
        return handle_exception(*context, failure)
    response: Response = app.finalize_request(*context, answer, from_error_handler=True)
    return response


def _changed_stand_in(error: Exception) -> FlaskWebSession | None:
    """Return the request's session if that is a stand-in, whose change raised this."""
    if isinstance(error, SessionUnavailable) and isinstance(session, FlaskSession):
        opened = session.gossipsess
        return opened if opened.unavailable else None
    return None


def _become(response: Response, other: BaseResponse) -> None:
    """Put another answer into the response that Flask is about to send; nothing of its own stays, cookies included."""
    close = getattr(response.response, "close", None)
    if close is not None:
        response.call_on_close(close)  # a file, or a generator
    response.direct_passthrough = False
    response.status, response.headers = other.status, other.headers
    response.set_data(other.get_data())
