# Node: the state machine behind one lock, for any thread.
#
# `submit(event)` is the only way in, `take()` the only way out; the driver is the only one who takes. The driver
# sleeps until `next_deadline`, and is woken at most once for everything that has gathered since it last took.
# Reading a record needs no lock: records are immutable, and `records` maps sids to whole ones.

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import overload

from gossipsess.model.identity import NodeId, Sid
from gossipsess.model.record import Record
from gossipsess.protocol.effects import Effect
from gossipsess.protocol.events import Abandon, Adopt, Event, Fetch, Invalidate, Revoke, Rotate, Write
from gossipsess.protocol.outcomes import Found
from gossipsess.protocol.replica import Replica
from gossipsess.protocol.writes import Written


class Node:
    """Thread-safe face of one `Replica`."""

    def __init__(self, replica: Replica, now: Callable[[], float] = time.monotonic) -> None:
        self.replica = replica
        self.records: dict[Sid, Record] = replica.sessions.table.records
        self._clock = replica.sessions.clock
        self.now = now
        self._lock = threading.Lock()
        self._wake: Callable[[], None] | None = None
        self._woken = False
        self._due_s = math.inf  # how long the driver sleeps
        self._made_s = now()

    @property
    def node_id(self) -> NodeId:
        """This node's id."""
        return self.replica.node

    @property
    def up_s(self) -> float:
        """For how long this node has been there, seconds."""
        return self.now() - self._made_s

    def time_ms(self) -> int:
        """Return cluster time, Unix milliseconds."""
        return self._clock.time_ms(self.now())

    @overload
    def submit(self, event: Write | Invalidate | Rotate | Revoke | Adopt) -> Written: ...
    @overload
    def submit(self, event: Fetch) -> Found | None: ...
    @overload
    def submit(self, event: Event) -> Written | Found | None: ...
    def submit(self, event: Event) -> Written | Found | None:
        """Take one event, on any thread; return what is known at once."""
        replica = self.replica
        with self._lock:
            answer = replica.handle(event, self.now())
            wake = None if self._woken else self._wake
            if wake is not None and self._wants_driver(event, answer):
                self._woken = True
            else:
                wake = None
        if wake is not None:
            wake()
        return answer

    def _wants_driver(self, event: Event, answer: Written | Found | None) -> bool:
        flush_at_s = self.replica.sessions.flush_at_s
        if self.replica.outbox or (flush_at_s is not None and flush_at_s < self._due_s):
            return True
        # Where no holder has a link, or all have collapsed, nothing is sent, but the deadline of the wait is new.
        return answer.outcome is None if isinstance(answer, Written) else isinstance(event, Fetch) and answer is None

    @contextmanager
    def locked(self) -> Iterator[Replica]:
        """Give the state machine for reading while nothing changes."""
        with self._lock:
            yield self.replica

    @property
    def is_driven(self) -> bool:
        """A driver carries out this node's effects."""
        return self._wake is not None

    def driven_by(self, wake: Callable[[], None] | None) -> None:
        """Name the driver's alarm, callable from any thread; None when nobody drives this node any more."""
        with self._lock:
            self._wake = wake
            self._woken = False

    def orphaned(self) -> None:
        """Go on alone, after a fork: the driver's thread is in the parent, and so may be whoever holds the lock."""
        self._lock = threading.Lock()
        self._wake = None
        self.replica.handle(Abandon(), self.now())
        self.replica.outbox.clear()  # the waits in it are the parent's

    @property
    def has_effects(self) -> bool:
        """Effects wait for the driver."""
        return bool(self.replica.outbox) or self.replica.sessions.flush_at_s is not None

    def take(self) -> tuple[list[Effect], float]:
        """Return the effects gathered, in order, and the time at which a `Tick` is due. For the driver only."""
        with self._lock:
            effects = self.replica.outbox[:]
            self.replica.outbox.clear()
            self._woken = False
            if not effects:  # else it will ask again
                self._due_s = self.replica.next_deadline()
            return effects, self._due_s
