# Subscription: hearing of changes to sessions, made here or elsewhere, in whatever way the caller waits.

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, NamedTuple, Self

from gossipsess.protocol.effects import ChangeKind, Notify
from gossipsess.waiting import blocking, on_any_loop

CHANGES_MAX: Final = 10_000
"""Changes kept for a subscriber that does not read, about 2 MB; then the oldest go, and `missed` counts them."""


class Change(NamedTuple):
    """Something happened to a session."""

    kind: ChangeKind
    """``created``, ``changed``, ``invalidated`` or ``expired``."""
    sid: str
    """`Session.sid` of that session. Its id stays the user's secret."""
    remote: bool
    """Another node did it. Of an expiry, which all notice: another node is the one to clean up after it."""


class Subscription:
    """An iterator, for ``async for`` on asyncio or Trio and for plain ``for``, over changes from now on.

    For one reader. Close it, or use it in a ``with`` block, when no more is wanted.
    """

    def __init__(self, unsubscribe: Callable[["Subscription"], None]) -> None:
        self.missed = 0
        """Changes dropped because the reader was too slow."""
        self._unsubscribe = unsubscribe
        self._lock = threading.Lock()
        self._changes: deque[Change] = deque()
        self._awaited: Future[Change | None] | None = None
        self._closed = False

    def heard(self, notify: Notify) -> None:
        """Take one change; called by the node."""
        change = Change(notify.kind, notify.sid.hex(), notify.remote)
        with self._lock:
            if self._awaited is not None and not self._awaited.done():
                self._awaited.set_result(change)
                return
            if len(self._changes) >= CHANGES_MAX:
                self._changes.popleft()
                self.missed += 1
            self._changes.append(change)

    def close(self) -> None:
        """Hear no more; a reader that waits comes to the end."""
        self._unsubscribe(self)
        with self._lock:
            self._closed = True
            if self._awaited is not None and not self._awaited.done():
                self._awaited.set_result(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Change:
        change = blocking(self._next())
        self._awaited = None
        if change is None:
            raise StopIteration
        return change

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change:
        # Cancelled here, the reader leaves the Future behind; the next one takes it up, and no change is lost.
        change = await on_any_loop(self._next())
        self._awaited = None
        if change is None:
            raise StopAsyncIteration
        return change

    def _next(self) -> Future[Change | None] | Change | None:
        with self._lock:
            if self._awaited is not None:
                return self._awaited
            if self._changes:
                return self._changes.popleft()
            if self._closed:
                return None
            self._awaited = Future()
            self._awaited.set_running_or_notify_cancel()
            return self._awaited
