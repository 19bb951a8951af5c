# Face: the sessions API for async code, the same names on asyncio and on Trio.

from gossipsess.protocol.events import Confirm
from gossipsess.protocol.outcomes import Outcome, Revoked
from gossipsess.service import NodeService
from gossipsess.session import Session
from gossipsess.status import Status
from gossipsess.subscription import Subscription
from gossipsess.waiting import on_any_loop


class Sessions:
    """The sessions of one node. `store.SessionStore` says what each method does."""

    def __init__(self, service: NodeService) -> None:
        self._service = service
        self._store = service.store

    def create(self) -> Session:
        """Return a new, empty session. Nothing is stored until something is committed."""
        return self._store.create()

    async def load(self, cookie: str) -> Session | None:
        """Return the session that a cookie names; None where there is none.

        Raises:
            SessionUnavailable: a node that may hold it did not answer in time.
        """
        return await on_any_loop(self._store.load(cookie))

    async def commit(self, session: Session, confirm: Confirm | None = None) -> Outcome:
        """Store what was changed, and wait until `confirm` other hosts hold it.

        Raises:
            UnreplicableValue: a value was changed in place into something that cannot travel.
            SessionTooLarge: with what others wrote meanwhile it is over its bound.
            MemoryFull: it is a new session, and there is no room for it.
        """
        return await on_any_loop(self._store.commit(session, confirm))

    async def rotate(self, session: Session, confirm: Confirm | None = None) -> Outcome:
        """Give the session a new id with the same data, and end the old id."""
        return await on_any_loop(self._store.rotate(session, confirm))

    async def invalidate(self, session: Session, confirm: Confirm | None = None) -> Outcome:
        """End the session for good, on every node."""
        return await on_any_loop(self._store.invalidate(session, confirm))

    async def revoke(self, user: str, confirm: Confirm | None = None) -> Revoked:
        """End every session of a user, on every node, and wait until all live holders have done so.

        Raises:
            UnreplicableValue, SessionTooLarge: no session can have such a user.
        """
        return await on_any_loop(self._store.revoke(user, confirm))

    def subscribe(self) -> Subscription:
        """Return an async iterator over changes from now on, made here or elsewhere.

        An expiry is told once at each node, and at one of them with `remote` false: clean up there.
        """
        return self._service.subscribe()


class RunningFace:
    """A running node, as `open_node` gives it."""

    def __init__(self, service: NodeService) -> None:
        self._service = service
        self.sessions = Sessions(service)

    def status(self) -> Status:
        """Return what the node can say of itself now."""
        return self._service.status()
