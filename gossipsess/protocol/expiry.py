# Expiry: sessions that were read are kept alive elsewhere too, and those that nobody used are dropped.
#
# A read is no write: it would dirty every session and defeat every sum. Accesses are coarse, leave once a second
# in a batch, and stand outside the state hash; the greatest wins.
# They are kept for each peer until it acknowledges them, one batch on its way at a time: told once, an access would be
# lost with a link, and the session in use would end where it was not heard of. What gathers meanwhile coalesces, so
# that a peer which takes nothing is owed one number a session at most. When nobody reads, nothing is sent.

from collections.abc import Mapping
from itertools import islice
from typing import Final

from gossipsess.model.identity import Sid
from gossipsess.model.table import Table
from gossipsess.wire.messages import Touch, TouchAck

EVERY_S: Final = 1.0
TOUCHES_PER_MESSAGE: Final = 1024
AGAIN_AFTER_S: Final = 1.0
AGAIN_AFTER_MAX_S: Final = 30.0

EARLY_MAX: Final = 10_000
"""Accesses remembered of sessions that are not held here, oldest out first; one or two megabytes. Less: sessions that
come from somebody who had not heard of an access may end too soon."""


class Expiry:
    """The accesses of this second."""

    def __init__(self, now_s: float) -> None:
        self._untold: dict[Sid, int] = {}
        self._early: dict[Sid, int] = {}  # accesses to what was not held when they were told
        self._due_s = now_s + EVERY_S

    def accessed(self, sid: Sid, table: Table, time_ms: int) -> None:
        """A request used a session here."""
        record = table.records.get(sid)
        if record is None:
            return
        life = table.life(record)
        if time_ms - life.accessed_ms >= life.grain_ms and table.touch(sid, time_ms):
            self._untold[sid] = time_ms

    def told(self, sid: Sid, table: Table, time_ms: int) -> None:
        """A peer says that a session was used there. A holder that has just become one may not have it yet."""
        if sid in table.records:
            table.touch(sid, time_ms)
            return
        time_ms = max(time_ms, self._early.pop(sid, 0))
        if len(self._early) >= EARLY_MAX:
            del self._early[next(iter(self._early))]
        self._early[sid] = time_ms

    def told_early_ms(self, sid: Sid) -> int:
        """Return the last access that peers told of a session while it was not held here; 0 for none."""
        return self._early.get(sid, 0)

    def next_deadline(self) -> float:
        """Return when it is time to tell what has gathered."""
        return self._due_s

    def gathered(self, now_s: float) -> dict[Sid, int]:
        """Return the accesses to tell everyone who holds the sessions; the next second begins."""
        self._due_s = now_s + EVERY_S
        untold, self._untold = self._untold, {}
        return untold


class Accesses:
    """The accesses that one peer has not acknowledged. Bounded by the sessions held: one time for each."""

    def __init__(self) -> None:
        self._owed: dict[Sid, int] = {}
        self._under_way: dict[Sid, int] = {}
        self._sequence = 0
        self._sent_at_s = 0.0
        self._again_after_s = AGAIN_AFTER_S

    def owe(self, accesses: Mapping[Sid, int]) -> None:
        """Note accesses that are later than those noted before."""
        self._owed.update(accesses)

    def forget(self, sid: Sid) -> None:
        """Tell nothing of a session that is over."""
        self._owed.pop(sid, None)
        self._under_way.pop(sid, None)

    def batch(self, table: Table, now_s: float) -> Touch | None:
        """Return what to send now; None where nothing is owed, or the last batch is still on its way."""
        if self._under_way:
            if now_s < self._sent_at_s + self._again_after_s:
                return None
            self._owe_again()
            self._again_after_s = min(2 * self._again_after_s, AGAIN_AFTER_MAX_S)
        while self._owed and not self._under_way:
            for sid in list(islice(self._owed, TOUCHES_PER_MESSAGE)):
                time_ms = self._owed.pop(sid)
                record = table.records.get(sid)
                if record is not None and not record.tombstone:
                    self._under_way[sid] = time_ms
        if not self._under_way:
            return None
        self._sequence += 1
        self._sent_at_s = now_s
        return Touch(self._sequence, tuple(self._under_way.items()))

    def acknowledged(self, ack: TouchAck) -> None:
        """The peer has taken a batch."""
        if ack.sequence == self._sequence:  # else it was sent again meanwhile, and that one counts
            self._under_way = {}
            self._again_after_s = AGAIN_AFTER_S

    def link_down(self) -> None:
        """Owe again what was on its way."""
        self._owe_again()
        self._again_after_s = AGAIN_AFTER_S

    def _owe_again(self) -> None:
        self._owed = self._under_way | self._owed
        self._under_way = {}
