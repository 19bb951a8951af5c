# Expiry: sessions that were read are kept alive elsewhere too, and those that nobody used are dropped.
#
# A read is no write: it would dirty every session and defeat every sum. Accesses are coarse, leave once a second
# in a batch, and stand outside the state hash; the greatest wins. A lost batch costs no more than the next access
# repairs.

from typing import Final

from gossipsess.model.identity import Sid
from gossipsess.model.table import Table
from gossipsess.wire.messages import Touch

EVERY_S: Final = 1.0
TOUCHES_PER_MESSAGE: Final = 1024


class Expiry:
    """The accesses that have not been told yet."""

    def __init__(self, now_s: float) -> None:
        self._untold: dict[Sid, int] = {}
        self._due_s = now_s + EVERY_S

    def accessed(self, sid: Sid, table: Table, time_ms: int) -> None:
        """A request used a session here."""
        record = table.records.get(sid)
        if record is None:
            return
        life = table.life(record)
        if time_ms - life.accessed_ms >= life.grain_ms and table.touch(sid, time_ms):
            self._untold[sid] = time_ms

    def next_deadline(self) -> float:
        """Return when `timeout` has work to do."""
        return self._due_s

    def timeout(self, now_s: float) -> list[Touch] | None:
        """Return the batches to tell everyone who holds sessions; None before it is time."""
        if now_s < self._due_s:
            return None
        self._due_s = now_s + EVERY_S
        accesses = tuple(self._untold.items())
        self._untold = {}
        return [
            Touch(accesses[first : first + TOUCHES_PER_MESSAGE])
            for first in range(0, len(accesses), TOUCHES_PER_MESSAGE)
        ]
