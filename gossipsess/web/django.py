# Django: `request.session`, held by the cluster; SESSION_ENGINE = "gossipsess.web.django" is all that it takes.
#
# In:    Django's settings of sessions, and an id cookie.   Out: `SessionStore`, one of Django's session engines, and
#        `SessionMiddleware`, in place of Django's own where MIDDLEWARE names it.
# Django's `SessionBase` keeps a session's data in a mapping, `_session_cache`. Here that mapping is our own `Session`:
#        so only the keys that changed travel, a change inside a value is noticed, and a value that cannot travel is
#        refused where it is assigned; and all of Django's methods for reading and writing are Django's code.
# Why a middleware too: an engine cannot set a second cookie. Without one nothing says what the client has seen, so a
#        save then waits for all holders. And Django's middleware loads and saves a session for an async view in a
#        thread; ours awaits both, the load before the view runs, and answers 503 where a session cannot be had.
# Each operation that may wait is written once, as steps (waiting.py), which its method and that one's async twin run.
# Not here: which of a process's moments starts the node (adapter.py); the former engine's sessions (django_former.py).

import logging
import sys
import time
from collections.abc import Mapping
from types import FrameType
from typing import Any, Final

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.sessions.backends.base import CreateError, SessionBase, UpdateError
from django.contrib.sessions.exceptions import SessionInterrupted
from django.contrib.sessions.middleware import SessionMiddleware as DjangosMiddleware
from django.core import mail
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils.cache import patch_cache_control, patch_vary_headers
from django.utils.http import http_date

from gossipsess.config import Config, OnUnavailable
from gossipsess.errors import SessionTooLarge, SessionUnavailable, UnreplicableValue
from gossipsess.model.record import USER
from gossipsess.protocol.events import Changes, Confirm
from gossipsess.protocol.outcomes import Gone, Outcome, Revoked
from gossipsess.service import NodeService, lone_node
from gossipsess.session import LIMIT_S_MAX
from gossipsess.store import SessionStore as Store
from gossipsess.subkeys import SessionCounter, SessionSet
from gossipsess.waiting import Steps, blocking, in_thread, on_any_loop, steps_blocking, steps_on_any_loop
from gossipsess.web.adapter import NodeSessions, launch_early
from gossipsess.web.adoption import adopted_before, adoption
from gossipsess.web.cookie import session_of_untrusted, token_name
from gossipsess.web.django_former import FormerSession, former_session
from gossipsess.web.session import WebSession

log = logging.getLogger("gossipsess")

ENGINE: Final = "gossipsess.web.django"
"""What SESSION_ENGINE names."""


class DjangoSession(WebSession):
    """What a `SessionStore` keeps its data in.

    Attributes:
        begins_empty: it is stored by its first commit even if nothing is in it, as Django's `create` has it.
        new_id: this request has given it its id, which nobody else can know.
    """

    begins_empty = False
    new_id = False

    def changes(self) -> Changes:
        """Return what this request changed; of an empty session that is to be stored, that it is nobody's."""
        changes = super().changes()
        return changes or (((USER, None),) if self.begins_empty and self.is_new else ())

    @property
    def rotates(self) -> bool:
        """A save moves what is stored to a new id; not once more where Django's `login` has just done so."""
        return not self.new_id and super().rotates

    def refuse_if_stand_in(self, how: str) -> None:
        """Raise what a change of a stand-in raises.

        Raises:
            SessionUnavailable: this is one.
        """
        self._changing(how)


class SessionStore(SessionBase):  # type: ignore[misc]  # Django has no types
    """One session, as Django sees it; see Django's `SessionBase` for what is not told here.

    `save` stores what was changed and no more, so that requests at the same moment keep each other's changes to other
    keys. It returns once the others hold it: all that are live, or with `SessionMiddleware` as many as `Config.confirm`
    says. `cycle_key` moves the session to a new id, and `flush` and `delete` end it for good, at once. Ids are made
    here only: what a client sent is never taken for a new session's.

    A session ends by time as Django says: SESSION_COOKIE_AGE, or what `set_expiry` was given, after it was last saved;
    with SESSION_SAVE_EVERY_REQUEST after it was last used, without a write for each request. The idle and absolute
    timeouts of `Config`, where they are set, end it sooner.

    Any method may raise `SessionUnavailable` where it cannot be known in time whether the session exists, and `save`
    and `create` do where there is no room for a new one (`MemoryFull`).

    Attributes:
        token: the version token that came with the request; None where no answer can carry one.
    """

    token: str | None = None
    _flagged = False
    _seen: Changes = ()  # what had changed when `modified` was set to False
    _session_key: str | None
    _session_cache: DjangoSession

    # --- what Django's code calls -------------------------------------------------------------------------

    @property
    def modified(self) -> bool:
        """Something was assigned, deleted, or changed inside a value. Setting it to False lets that pass unsaved."""
        return self._flagged or self._changes() != self._seen

    @modified.setter
    def modified(self, value: bool) -> None:
        self._seen = () if value else self._changes() or ()
        self._flagged = value

    def load(self) -> DjangoSession:
        """Return what the session holds; where there is none, an empty one without a key."""
        store()  # what follows asks its settings
        try:
            session: WebSession | None = steps_blocking(self._held(self.session_key, self.token))
            former = self._former(session)
            if former is not None:
                values = former.values()
                session = steps_blocking(self._adopting(former, values))
                if values:
                    former.delete()
            return self._opened(session)
        except SessionUnavailable as unavailable:
            return self._stand_in(unavailable)

    async def aload(self) -> DjangoSession:
        """See `load`."""
        await ready()
        try:
            session: WebSession | None = await steps_on_any_loop(self._held(self.session_key, self.token))
            former = self._former(session)
            if former is not None:
                values = await former.avalues()
                session = await steps_on_any_loop(self._adopting(former, values))
                if values:
                    await former.adelete()
            return self._opened(session)
        except SessionUnavailable as unavailable:
            return self._stand_in(unavailable)

    def exists(self, session_key: str | None) -> bool:
        """Say whether there is a session under this key."""
        return steps_blocking(self._held(session_key)) is not None

    async def aexists(self, session_key: str | None) -> bool:
        """See `exists`."""
        await ready()
        return await steps_on_any_loop(self._held(session_key)) is not None

    def create(self) -> None:
        """Store the data under a new key, even if there is none."""
        steps_blocking(self._creating())

    async def acreate(self) -> None:
        """See `create`."""
        await ready()
        await steps_on_any_loop(self._creating())

    def save(self, must_create: bool = False) -> None:
        """Store what was changed.

        `must_create`, or where there is no session yet: under a new key.

        Raises:
            CreateError: with `must_create`, there is one under this key.
            UpdateError: the session was ended, or given another key, by another request.
            UnreplicableValue: a value was changed in place into something that cannot travel. Nothing is stored.
            SessionTooLarge: values have grown over a bound in place. Nothing is stored.
            MemoryFull: there is no room for a new session.
        """
        key = self.session_key
        self._get_session(no_load=must_create)
        if key is not None and self.session_key is None:
            raise UpdateError
        steps_blocking(self.saving(must_create))

    async def asave(self, must_create: bool = False) -> None:
        """See `save`."""
        key = self.session_key
        await self._aget_session(no_load=must_create)
        if key is not None and self.session_key is None:
            raise UpdateError
        await steps_on_any_loop(self.saving(must_create))

    def delete(self, session_key: str | None = None) -> None:
        """End the session under this key, or this one, for good."""
        steps_blocking(self._deleting(session_key))

    async def adelete(self, session_key: str | None = None) -> None:
        """See `delete`."""
        await ready()
        await steps_on_any_loop(self._deleting(session_key))

    def clear(self) -> None:
        """Remove every key."""
        self._get_session().clear()
        self.modified = True

    def is_empty(self) -> bool:
        """Say whether there is no session under a key, and nothing to store under one."""
        session = self._cached
        return not self._session_key and (session is None or session.is_empty)

    def counter_of(self, name: str) -> SessionCounter:
        """Return a counter to which requests add at the same moment; see `Session.counter_of`."""
        return self._get_session().counter_of(name)

    def set_of(self, name: str) -> SessionSet:
        """Return a set whose members requests add and discard at the same moment; see `Session.set_of`."""
        return self._get_session().set_of(name)

    def flush(self) -> None:
        """End the session for good; what is written afterwards begins another."""
        self._get_session()
        steps_blocking(self._flushing())

    async def aflush(self) -> None:
        """See `flush`."""
        await self._aget_session()
        await steps_on_any_loop(self._flushing())

    def cycle_key(self) -> None:
        """Move the session to a new key; the old one ends. What was changed until now is stored with it."""
        self._get_session()
        steps_blocking(self._cycling())

    async def acycle_key(self) -> None:
        """See `cycle_key`."""
        await self._aget_session()
        await steps_on_any_loop(self._cycling())

    @classmethod
    def clear_expired(cls) -> None:
        """Do nothing: sessions go by themselves when they end."""

    @classmethod
    async def aclear_expired(cls) -> None:
        """See `clear_expired`."""

    def _get_session(self, no_load: bool = False) -> DjangoSession:
        self.accessed = True
        if self._cached is None:
            self._session_cache = self._begun() if no_load or self.session_key is None else self.load()
        return self._session_cache

    async def _aget_session(self, no_load: bool = False) -> DjangoSession:
        await ready()
        self.accessed = True
        if self._cached is None:
            self._session_cache = self._begun() if no_load or self.session_key is None else await self.aload()
        return self._session_cache

    _session = property(_get_session)

    # --- for the middleware -------------------------------------------------------------------------------

    def open(self) -> None:
        """Load the session now, if the client named one. The application has accessed nothing by this."""
        if self.session_key is not None:
            self._session_cache = self.load()

    async def aopen(self) -> None:
        """See `open`; what is asked of the session afterwards waits for nothing."""
        await ready()
        if self.session_key is not None:
            self._session_cache = await self.aload()

    def saving(self, must_create: bool = False, *, may_rotate: bool = False) -> Steps[None]:
        """Return the steps of `save`. With `may_rotate` a login that has not cycled the key does so now."""
        session = self._session_cache
        if session.unavailable:
            return  # nothing can have changed
        if must_create and (yield from self._held(self.session_key)) is not None:
            raise CreateError
        if must_create or self.session_key is None:
            yield from self._creating()
            return
        self._limit(session)
        rotates = may_rotate and session.rotates
        if not rotates and not session.modified:  # with SESSION_SAVE_EVERY_REQUEST
            if session.record.tombstone or store().load(session.id) is None:
                raise UpdateError
            return
        confirm = self._confirm
        outcome: Outcome = yield (store().rotate if rotates else store().commit)(session, confirm)
        if isinstance(outcome, Gone):
            raise UpdateError
        self._stored(session)

    @property
    def new_token(self) -> str:
        """The version token to set; "" where the client has it, or there is none."""
        session = self._cached
        return session.token if session is not None and session.token != self.token else ""

    @property
    def adopted(self) -> bool:
        """The client named it by an id of the former engine's, and does not have the new one yet."""
        return self._cached is not None and self._session_cache.adopted

    @property
    def unavailable(self) -> bool:
        """What is here is an empty stand-in: whether the session exists cannot be known now."""
        return self._cached is not None and self._session_cache.unavailable

    # --- inside -------------------------------------------------------------------------------------------

    @property
    def _cached(self) -> DjangoSession | None:
        return self.__dict__.get("_session_cache")

    @property
    def _confirm(self) -> Confirm | None:
        # Where no token tells the next replica what the client has seen, all of them must have it.
        return "all" if self.token is None else None

    def _changes(self) -> Changes | None:
        """Return what was changed; None where a change inside a value cannot travel, of which `save` will tell."""
        try:
            return self._cached.changes() if self._cached is not None else ()
        except (UnreplicableValue, SessionTooLarge):
            return None

    def _former(self, session: WebSession | None) -> FormerSession | None:
        return former_session(self.session_key) if session is None and sessions().adopts else None

    def _adopting(self, former: FormerSession, values: Mapping[str, Any]) -> Steps[WebSession | None]:
        """Return the steps to what a former session has become, or becomes now; `values` is what its engine has."""
        if not values:
            # Another request may have just taken it over. Asked in this order, the one or the other has it.
            session = yield from adopted_before(store(), former.name, self._begun(former.name))
            if session is not None:
                assert isinstance(session, WebSession), "the store was made for this class"
                session.adopted = True
            return session
        idle_s, ends_at = self._limits(values.get("_session_expiry"), store().time())
        found = former.as_found(values, store().time(), max(0, self.get_session_cookie_age()))
        return (yield from adoption(store(), found, idle_s, ends_at))

    def _held(self, key: str | None, token: str | None = None) -> Steps[DjangoSession | None]:
        cookie = session_of_untrusted([key or ""], [token or ""])
        session: DjangoSession | None = None if cookie is None else (yield store().load_named(*cookie))
        return session

    def _opened(self, session: WebSession | None) -> DjangoSession:
        if session is None:
            self._session_key = None
            return self._begun()
        assert isinstance(session, DjangoSession), "the store was made for this class"
        if session.adopted:
            self._session_key = session.id
            self.modified = True  # so that the cookie is set
        return session

    def _stand_in(self, unavailable: SessionUnavailable) -> DjangoSession:
        session = sessions().stand_in(store())
        if session is None:
            raise unavailable
        assert isinstance(session, DjangoSession), "the store was made for this class"
        return session

    def _begun(self, name: bytes | None = None) -> DjangoSession:
        session = store().create(name)
        assert isinstance(session, DjangoSession), "the store was made for this class"
        return session

    def _creating(self) -> Steps[None]:
        before = self._cached
        if before is not None and before.is_new and not before.record.tombstone:
            session = before
        else:
            session = self._begun()
            if before is not None:
                session.update(before)
                session.user = before.user
        session.refuse_if_stand_in("session.create()")
        session.begins_empty = session.new_id = True
        self._session_cache = session
        self._limit(session)
        yield store().commit(session, self._confirm)
        self._stored(session)
        self.modified = True

    def _cycling(self) -> Steps[None]:
        session = self._session_cache
        session.refuse_if_stand_in("session.cycle_key()")
        if session.is_new:
            yield from self._creating()
            return
        self._limit(session)
        outcome: Outcome = yield store().rotate(session, self._confirm)
        if isinstance(outcome, Gone):  # another request has ended it: nothing of it comes back
            self._session_cache = self._begun()
            yield from self._creating()
            return
        session.new_id = True
        self._stored(session)
        self.modified = True

    def _flushing(self) -> Steps[None]:
        session = self._session_cache
        session.refuse_if_stand_in("session.flush()")
        if not session.is_new:
            yield store().invalidate(session)
        self._session_cache = self._begun()
        self._session_key = None
        self.modified = True

    def _deleting(self, key: str | None) -> Steps[None]:
        key = self.session_key if key is None else key
        session = self._cached
        if session is None or session.id != key:
            session = yield from self._held(key)
        if session is not None and not session.is_new:
            yield store().invalidate(session)

    def _stored(self, session: DjangoSession) -> None:
        self._session_key = session.id
        self._seen = ()

    def _limit(self, session: DjangoSession) -> None:
        """Note when the session ends, if it is saved now."""
        idle_s, ends_at = self._limits(session.get("_session_expiry"), session.created_at)
        session.limit(idle_s=idle_s, ends_at=ends_at)

    def _limits(self, expiry: Any, created_at: float) -> tuple[float, float]:
        """Return after how many seconds without use a session ends, and when in any case, if it is saved now."""
        # By the cluster's clock and not by this thread's: tests stop the latter.
        idle_s: float = max(0, self.get_expiry_age(expiry=expiry))
        ends_at = store().time() + idle_s
        if settings.SESSION_SAVE_EVERY_REQUEST and not isinstance(expiry, str):
            ends_at = LIMIT_S_MAX  # each use prolongs it, and is noted without a write
        config = sessions().config
        if config.idle_timeout_s is not None:
            idle_s = min(idle_s, config.idle_timeout_s)
        if config.absolute_timeout_s is not None:
            ends_at = min(ends_at, created_at + config.absolute_timeout_s)
        return min(idle_s, LIMIT_S_MAX), min(ends_at, LIMIT_S_MAX)


class SessionMiddleware(DjangosMiddleware):  # type: ignore[misc]  # Django has no types
    """Django's session middleware, for sessions of the cluster; its name stands in MIDDLEWARE in place of Django's.

    It sets a second cookie, ``<SESSION_COOKIE_NAME>-v``, by which the next replica knows what the client has seen; so
    a response waits for as many others as `Config.confirm` says, and no longer for all. The session is loaded before
    the view runs, and under ASGI loaded and saved without a thread. A login that does not call Django's `login` changes
    the key too (`Config.login_keys`).

    Where it cannot be known in time whether the session exists, no view runs: the answer is 503 with Retry-After, and
    the cookie stays. With `Config.on_unavailable` ``empty`` the view runs, its session is empty and
    `SessionStore.unavailable`, and the answer is that 503 only where the view lets the error pass that a change raises.
    It is the same where there is no room for a new session. The cookie of a session that is no more stays until the
    next one is set: a slow answer would else remove the one that a login has just set.

    The node starts with the application object, which is made once it has met the others, or nobody for two seconds;
    not for a command that serves nothing. With another SESSION_ENGINE it does what Django's does.

    Raises:
        ConfigError: a setting of the node is wrong, or no port is free.
    """

    def __init__(self, get_response: Any) -> None:
        super().__init__(get_response)
        self._is_ours = issubclass(self.SessionStore, SessionStore)
        if not self._is_ours:
            log.warning(
                "SESSION_ENGINE is %r, and its sessions are served as Django does. Write SESSION_ENGINE = %r.",
                settings.SESSION_ENGINE,
                ENGINE,
            )
        elif not _is_tested():
            launch_early(sessions())

    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        """Serve one request under ASGI."""
        if not self._is_ours:
            return await super().__acall__(request)
        self._name(request)
        try:
            await request.session.aopen()
        except SessionUnavailable:
            return _unavailable()
        response = await self.get_response(request)
        if not isinstance(request.session, SessionStore):
            return await sync_to_async(super().process_response)(request, response)
        return await steps_on_any_loop(self._finishing(request, response))

    def process_request(self, request: HttpRequest) -> HttpResponseBase | None:
        """Give the request its session; return an answer where that cannot be had."""
        if not self._is_ours:
            super().process_request(request)
            return None
        self._name(request)
        try:
            request.session.open()
        except SessionUnavailable:
            return _unavailable()
        return None

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        """Save the session, and set its cookies.

        Raises:
            SessionInterrupted: another request has ended it meanwhile, and this one has changed it.
        """
        if not isinstance(request.session, SessionStore):  # another engine's, put there by the application
            return super().process_response(request, response)
        return steps_blocking(self._finishing(request, response))

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponseBase | None:
        """Answer for a view that let it pass that a stand-in cannot be changed, or that there is no room."""
        return _unavailable() if isinstance(exception, SessionUnavailable) else None

    def _name(self, request: HttpRequest) -> None:
        request.session = self.SessionStore(request.COOKIES.get(settings.SESSION_COOKIE_NAME))
        request.session.token = request.COOKIES.get(token_name(settings.SESSION_COOKIE_NAME), "")

    def _finishing(self, request: HttpRequest, response: HttpResponseBase) -> Steps[HttpResponseBase]:
        session = request.session
        accessed, modified = session.accessed, session.modified
        if accessed:
            patch_vary_headers(response, ("Cookie",))
        if session.unavailable:
            if accessed:  # an answer made without knowing the visitor is good for this once only
                response["Cache-Control"] = "no-store"
            return response
        if session.is_empty():
            if modified and settings.SESSION_COOKIE_NAME in request.COOKIES:
                _delete_cookies(response)
            return response
        if not (modified or settings.SESSION_SAVE_EVERY_REQUEST):
            return response
        if response.status_code >= 500:
            if session.adopted:
                _set_cookies(response, session)
            return response
        try:
            yield from session.saving(may_rotate=True)
        except SessionUnavailable:  # no room for it
            return _unavailable()
        except UpdateError:
            if not modified:
                return response  # the answer to whoever ended it has removed the cookies
            raise SessionInterrupted(
                "The request's session was deleted before the request completed. The user may have logged out in a "
                "concurrent request, for example."
            ) from None
        _set_cookies(response, session)
        return response


def sessions() -> NodeSessions:
    """Return the sessions of this process's node; under Django's test runner, of one without network."""
    global _of_tests
    if _configured is not None:
        return _configured
    if not _is_tested():
        return _of_process
    if _of_tests is None:
        _of_tests = NodeSessions(DjangoSession, None, lone_node(Config.from_env()), None)
    return _of_tests


def configure(
    config: Config | None = None, node: NodeService | None = None, on_unavailable: OnUnavailable | None = None
) -> None:
    """Say what the sessions of this process stand on, before the first of them is used; for tests, mostly.

    Args:
        config: the node's settings; None: those of the environment.
        node: a node to use instead of this process's own.
        on_unavailable: ``error`` or ``empty``; None: the node's setting.

    Raises:
        ConfigError: `on_unavailable` is none of those.
    """
    global _configured
    _configured = NodeSessions(DjangoSession, config, node, on_unavailable)


def store() -> Store:
    """Return the store of this process; start its node if need be, and block until it can answer."""
    return sessions().store or sessions().start()


async def ready() -> None:
    """Start this process's node if need be; the event loop goes on meanwhile."""
    if sessions().store is None:
        _ = await on_any_loop(in_thread(sessions().start))


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


_of_process: Final = NodeSessions(DjangoSession, None, None, None)
_of_tests: NodeSessions | None = None
_configured: NodeSessions | None = None


def _is_tested() -> bool:
    # What `setup_test_environment` leaves behind, of Django's test runner and of pytest-django. Each of the two may be
    # there elsewhere: an EMAIL_BACKEND for development makes the one, a careless setting the other.
    return hasattr(mail, "outbox") and "testserver" in settings.ALLOWED_HOSTS


def _name_of(user: Any) -> str:
    meta = getattr(user, "_meta", None)  # as Django's `login` puts it into the session
    return str(user) if meta is None else str(meta.pk.value_to_string(user))


def _set_cookies(response: HttpResponseBase, session: SessionStore) -> None:
    max_age: int | None = None
    expires: str | None = None
    if not session.get_expire_at_browser_close():
        max_age = session.get_expiry_age()
        expires = http_date(time.time() + max_age)
    name = settings.SESSION_COOKIE_NAME
    for cookie, value in ((name, session.session_key), (token_name(name), session.new_token)):
        if value:
            response.set_cookie(
                cookie,
                value,
                max_age=max_age,
                expires=expires,
                domain=settings.SESSION_COOKIE_DOMAIN,
                path=settings.SESSION_COOKIE_PATH,
                secure=settings.SESSION_COOKIE_SECURE or None,
                httponly=settings.SESSION_COOKIE_HTTPONLY or cookie != name,
                samesite=settings.SESSION_COOKIE_SAMESITE,
            )
    patch_vary_headers(response, ("Cookie",))
    if not response.has_header("Cache-Control"):
        patch_cache_control(response, private=True)


def _delete_cookies(response: HttpResponseBase) -> None:
    name = settings.SESSION_COOKIE_NAME
    for cookie in (name, token_name(name)):
        response.delete_cookie(
            cookie,
            path=settings.SESSION_COOKIE_PATH,
            domain=settings.SESSION_COOKIE_DOMAIN,
            samesite=settings.SESSION_COOKIE_SAMESITE,
        )
    patch_vary_headers(response, ("Cookie",))


def _unavailable() -> HttpResponse:
    headers = {"Retry-After": "1", "Cache-Control": "no-store"}
    return HttpResponse(
        "The session is not available right now. Please try again.\n",
        status=503,
        content_type="text/plain; charset=utf-8",
        headers=headers,
    )


def _is_middlewares_import() -> bool:
    """Say whether it is Django's own middleware that imports this module now: an application is being built."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_globals.get("__name__") != DjangosMiddleware.__module__:
        frame = frame.f_back
    return frame is not None


if _is_middlewares_import() and not _is_tested():
    launch_early(sessions())  # where SESSION_ENGINE is all there is of ours, nobody else does it
