# Litestar store: a key-value store of Litestar's, `stores={"sessions": GossipStore()}`, held by the cluster.
#
# In:    keys that the application or Litestar chose.   Out: bytes, the same on every node.
# Each key is a record of its own, as a session is. Its id follows from the key and the cluster's secret, so that every
# node finds it, and that no cookie that a client makes up can name it.
# Rule:  of two writes of one key the later stays, as a whole. Nothing is merged inside a value: that is what sessions
#        are for (litestar.py), and Litestar's own on this store keep Litestar's ways.
# Nothing is ended for good here, as a session is: a key may be set again after it was deleted. So `delete` empties the
# record, which then ends by time; and `delete_all`, since no node knows all keys, notes when it was called.

from copy import copy
from datetime import timedelta
from types import TracebackType
from typing import Final, NamedTuple, Self

from litestar.stores.base import NamespacedStore

from gossipsess.config import Config
from gossipsess.errors import SessionUnavailable
from gossipsess.model.record import ABSOLUTE
from gossipsess.model.table import register
from gossipsess.service import NodeService
from gossipsess.session import LIMIT_S_MAX, Session
from gossipsess.store import SessionStore
from gossipsess.waiting import in_thread, on_any_loop
from gossipsess.web.adapter import NodeSessions
from gossipsess.web.litestar import Unavailable
from gossipsess.web.session import WebSession

VALUE: Final = "value"
SET_AT: Final = "set_at"
"""Cluster time, seconds: of a value when it was set, of a namespace when it was emptied."""
EMPTY_S: Final = 60.0
"""How long the record of a deleted key is kept."""


class GossipStore(NamespacedStore):
    """A store for Litestar whose content every process of the application has.

    A write returns once all live nodes that are to hold it do, or after `Config.confirm_timeout_s`, so that a read
    elsewhere finds it. A value is bytes, as many as one value of a session may have, 256 KiB. `with_namespace` gives a
    store within this one, which this one's `delete_all` empties too.

    For sessions `litestar.GossipSessionConfig` does more: Litestar's own server-side sessions write everything with
    every response, take any id that a client sends, and know no login, whatever store they stand on.

    The node starts with the application (Litestar enters the stores that it is given) or with the first use.

    Arguments:
        namespace: whose keys these are; stores of the same namespace, in any process, have the same content.
        config: the node's settings; None: those of the environment.
        node: a node to use instead of this process's own.

    Every method raises `litestar.Unavailable`, which is answered with 503, where a node that may hold the key did not
    answer in time, or where there is no room for another one.
    """

    __slots__ = ("_path", "_sessions")

    def __init__(
        self, namespace: str = "litestar", *, config: Config | None = None, node: NodeService | None = None
    ) -> None:
        self.namespace = namespace
        self._path: tuple[str, ...] = (namespace,)
        self._sessions = NodeSessions(WebSession, config, node, None)

    def with_namespace(self, namespace: str) -> Self:
        """Return the store of a namespace within this one."""
        child = copy(self)
        child.namespace = namespace
        child._path = (*self._path, namespace)
        return child

    async def set(self, key: str, value: str | bytes, expires_in: int | timedelta | None = None) -> None:
        """Set a value, in place of any before; with `expires_in`, seconds, it ends by itself.

        Raises:
            SessionTooLarge: it is larger than that.
        """
        store = await self._store()
        entry = await self._entry(store, key)
        session = entry.session
        session[VALUE] = value.encode() if isinstance(value, str) else value
        session[SET_AT] = max(entry.now, entry.emptied_at + 0.001)
        session.limit(idle_s=LIMIT_S_MAX, ends_at=entry.now + _seconds(expires_in) if expires_in else LIMIT_S_MAX)
        await _commit(store, session)

    async def get(self, key: str, renew_for: int | timedelta | None = None) -> bytes | None:
        """Return a value, None where there is none; with `renew_for` one that would end by itself does so later."""
        store = await self._store()
        entry = await self._entry(store, key)
        if not entry.is_set:
            return None
        if renew_for and _ends_at(entry.session) is not None:
            entry.session.limit(ends_at=entry.now + _seconds(renew_for))
            await _commit(store, entry.session)
        value: bytes = entry.session[VALUE]
        return value

    async def delete(self, key: str) -> None:
        """Delete a value; nothing happens where there is none."""
        store = await self._store()
        entry = await self._entry(store, key)
        if entry.is_set:
            entry.session.clear()
            entry.session.limit(ends_at=entry.now + EMPTY_S)
            await _commit(store, entry.session)

    async def delete_all(self) -> None:
        """Delete every value of this namespace and of those within it; what is set afterwards stays."""
        store = await self._store()
        entry = await self._opened(store, "namespace", self._path)
        entry[SET_AT] = store.time()
        entry.limit(idle_s=LIMIT_S_MAX, ends_at=LIMIT_S_MAX)
        await _commit(store, entry)

    async def exists(self, key: str) -> bool:
        """Say whether there is a value."""
        return (await self._entry(await self._store(), key)).is_set

    async def expires_in(self, key: str) -> int | None:
        """Return in how many seconds a value ends by itself; None where it does not, or there is none."""
        entry = await self._entry(await self._store(), key)
        ends_at = _ends_at(entry.session) if entry.is_set else None
        return None if ends_at is None else int(ends_at - entry.now)

    async def __aenter__(self) -> None:
        await self._store()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        _ = await on_any_loop(in_thread(self._sessions.stop))

    # --- inside -------------------------------------------------------------------------------------------

    async def _store(self) -> SessionStore:
        store = self._sessions.store
        return store if store is not None else await on_any_loop(in_thread(self._sessions.start))

    async def _entry(self, store: SessionStore, key: str) -> "_Entry":
        session = await self._opened(store, "key", (*self._path, key))
        emptied_at = 0.0
        for depth in range(len(self._path)):
            namespace = await self._opened(store, "namespace", self._path[: depth + 1])
            emptied_at = max(emptied_at, namespace.get(SET_AT, 0.0))
        return _Entry(session, store.time(), emptied_at)

    async def _opened(self, store: SessionStore, kind: str, path: tuple[str, ...]) -> Session:
        fresh = store.create(f"litestar {kind} {path!r}".encode())
        try:
            held = await on_any_loop(store.load_derived(fresh.id))
        except SessionUnavailable as error:
            raise Unavailable(str(error)) from error
        return fresh if held is None else held


class _Entry(NamedTuple):
    """What is known of one key."""

    session: Session
    now: float
    """Cluster time, seconds."""
    emptied_at: float
    """When its namespace was last emptied, cluster time, seconds."""

    @property
    def is_set(self) -> bool:
        return VALUE in self.session and self.session[SET_AT] > self.emptied_at


async def _commit(store: SessionStore, session: Session) -> None:
    try:
        await on_any_loop(store.commit(session, "all"))
    except SessionUnavailable as error:  # there is no room
        raise Unavailable(str(error)) from error


def _ends_at(session: Session) -> float | None:
    ends_at = register(session.record, ABSOLUTE) / 1000
    return None if ends_at >= LIMIT_S_MAX else ends_at


def _seconds(time: int | timedelta) -> float:
    return time.total_seconds() if isinstance(time, timedelta) else float(time)
