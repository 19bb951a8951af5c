# Django engine: one of Django's session engines, whose sessions the cluster holds.
#
# In:    Django's settings of sessions, a key, and the version token where a middleware hands one on.
# Out:   `SessionStore`, which SESSION_ENGINE finds in django.py.
# Django's `SessionBase` keeps a session's data in a mapping, `_session_cache`. Here that mapping is our own `Session`:
#        so only the keys that changed travel, a change inside a value is noticed, and a value that cannot travel is
#        refused where it is assigned; and all of Django's methods for reading and writing are Django's code.
# Each operation that may wait is written once, as steps (waiting.py), which its method and that one's async twin run.
# Not here: the store that is asked (django_sessions.py), cookies (django_middleware.py), and the former engine's
#        sessions (django_former.py).

from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.contrib.sessions.backends.base import CreateError, SessionBase, UpdateError

from gossipsess.errors import SessionTooLarge, SessionUnavailable, UnreplicableValue
from gossipsess.protocol.events import Changes, Confirm
from gossipsess.protocol.outcomes import Gone, Outcome
from gossipsess.session import LIMIT_S_MAX
from gossipsess.subkeys import SessionCounter, SessionSet
from gossipsess.waiting import Steps, steps_blocking, steps_on_any_loop
from gossipsess.web.adoption import adopted_before, adoption
from gossipsess.web.cookie import session_of_untrusted
from gossipsess.web.django_former import FormerSession, former_session
from gossipsess.web.django_sessions import DjangoSession, ready, sessions, store
from gossipsess.web.session import WebSession


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
        age_s: float = self.get_expiry_age(expiry=expiry)
        # Where it is over already it is so by as much: another node's clock may be some milliseconds behind this one's.
        idle_s, ends_at = max(0, age_s), max(0, store().time() + age_s)
        if settings.SESSION_SAVE_EVERY_REQUEST and not isinstance(expiry, str) and age_s > 0:
            ends_at = LIMIT_S_MAX  # each use prolongs it, and is noted without a write
        config = sessions().config
        if config.idle_timeout_s is not None:
            idle_s = min(idle_s, config.idle_timeout_s)
        if config.absolute_timeout_s is not None:
            ends_at = min(ends_at, created_at + config.absolute_timeout_s)
        return min(idle_s, LIMIT_S_MAX), min(ends_at, LIMIT_S_MAX)
