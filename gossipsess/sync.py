# The sessions API for plain threads. The node runs in a thread of its own.

from collections.abc import Iterator
from contextlib import contextmanager

from gossipsess.config import Config
from gossipsess.protocol.events import Confirm
from gossipsess.protocol.outcomes import Outcome, Revoked
from gossipsess.service import READY_S, RunningNode
from gossipsess.session import Session
from gossipsess.status import Status
from gossipsess.subscription import Subscription
from gossipsess.waiting import blocking

__all__ = ["open_node"]


class Sessions:
    """The sessions of one node; the calling thread waits. `store.SessionStore` says what each method does."""

    def __init__(self, running: RunningNode) -> None:
        self._running = running
        self._store = running.store

    def create(self) -> Session:
        """Return a new, empty session. Nothing is stored until something is committed."""
        return self._store.create()

    def load(self, cookie: str) -> Session | None:
        """Return the session that a cookie names; None where there is none.

        Raises:
            SessionUnavailable: a node that may hold it did not answer in time.
        """
        return blocking(self._store.load(cookie))

    def commit(self, session: Session, confirm: Confirm | None = None) -> Outcome:
        """Store what was changed, and wait until `confirm` other hosts hold it.

        Raises:
            UnreplicableValue: a value was changed in place into something that cannot travel.
            SessionTooLarge: with what others wrote meanwhile it is over its bound.
            MemoryFull: it is a new session, and there is no room for it.
        """
        return blocking(self._store.commit(session, confirm))

    def rotate(self, session: Session, confirm: Confirm | None = None) -> Outcome:
        """Give the session a new id with the same data, and end the old id."""
        return blocking(self._store.rotate(session, confirm))

    def invalidate(self, session: Session, confirm: Confirm | None = None) -> Outcome:
        """End the session for good, on every node."""
        return blocking(self._store.invalidate(session, confirm))

    def revoke(self, user: str, confirm: Confirm | None = None) -> Revoked:
        """End every session of a user, on every node, and wait until all live holders have done so.

        Raises:
            UnreplicableValue, SessionTooLarge: no session can have such a user.
        """
        return blocking(self._store.revoke(user, confirm))

    def subscribe(self) -> Subscription:
        """Return an iterator over changes from now on, made here or elsewhere.

        An expiry is told once at each node, and at one of them with `remote` false: clean up there.
        """
        return self._running.subscribe()


class RunningFace:
    """A running node, as `open_node` gives it."""

    def __init__(self, running: RunningNode) -> None:
        self._running = running
        self.sessions = Sessions(running)

    def status(self) -> Status:
        """Return what the node can say of itself now."""
        return self._running.status()


@contextmanager
def open_node(config: Config | None = None) -> Iterator[RunningFace]:
    """Run a node for the length of a ``with`` block, entered once it is synced, or alone for two seconds.

    None: the settings of the environment.

    Raises:
        ConfigError: a setting is wrong, or no port is free.
    """
    running = RunningNode(config or Config.from_env())
    try:
        running.wait_ready(READY_S)
        yield RunningFace(running)
    finally:
        running.close()
