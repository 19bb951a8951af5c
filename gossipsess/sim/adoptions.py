# Adoptions: what must hold of cookies that become sessions (model/adoption.py).
#
#   one session   whatever nodes a cookie is shown to, and when: its sid and its first entries are the same
#   once          no node that knows that a cookie was adopted makes a session of it again. When all is well, a cookie
#                 whose session lives is that session at every node, and one whose session has ended, by whatever, is
#                 nothing at any: also when its tombstone has had its time, as long as somebody has the mark
#
# Not promised, and not checked: that is so, too, where all who had the mark and the tombstone have died.
# In:    `Adopt` events, and what cookies come to.    Out: `Violation`.
# Confirmed adoptions are waits as any, and what was adopted is a write as any (waits.py, records.py).

from typing import Final

from gossipsess.model.adoption import is_mark_sid
from gossipsess.model.clock import time_ms_of
from gossipsess.model.identity import NodeId, Sid
from gossipsess.model.record import ABSOLUTE, Record
from gossipsess.protocol.events import Adopt
from gossipsess.protocol.outcomes import Gone
from gossipsess.protocol.writes import Written
from gossipsess.session import Session
from gossipsess.sim import places
from gossipsess.sim.cluster import Cluster
from gossipsess.sim.cookies import VALID_S
from gossipsess.sim.ends import Ends
from gossipsess.sim.history import Wrote, must
from gossipsess.sim.process import Process
from gossipsess.sim.records import Records
from gossipsess.sim.waits import Waits

ASKED_S: Final = 1.0
"""Who is about to adopt has asked for the mark at most so long ago: three waits, of a slow process too."""


class Adoptions:
    """The adoptions of one cluster's run."""

    def __init__(self, cluster: Cluster, records: Records, ends: Ends, waits: Waits) -> None:
        self._cluster = cluster
        self._records = records
        self._ends = ends
        self._waits = waits
        self._sids: dict[tuple[NodeId, bool], Sid] = {}  # by a cookie's origin: its session, and its mark

    def adopted(self, process: Process, event: Adopt, answer: Written) -> None:
        """Note that a process has taken in a session, or a mark.

        Raises:
            Violation: it is another one than before, or has ended.
        """
        delta = event.delta
        ((origin, stamp),) = delta.after.items()
        is_mark = is_mark_sid(delta.sid)
        sid = self._sids.setdefault((origin, is_mark), delta.sid)
        must(sid == delta.sid, "{}: one cookie becomes {} and {}", process, sid, delta.sid)
        before = process.seen.get(delta.sid)
        if isinstance(answer.outcome, Gone) or (before is not None and before.entries):
            return
        values = {entry[0]: entry[3] for entry in delta.entries}
        if is_mark:
            ends_ms = int.from_bytes(values[ABSOLUTE] or b"", "big")
            must(ends_ms >= time_ms_of(stamp) + 1000 * VALID_S, "{}: a mark ends before its cookie: {}", process, sid)
        else:
            since_s = self._mark_since_s(process, origin)
            known = since_s < self._cluster.now_s - ASKED_S
            must(not known, "{} adopts a cookie again, of which it has the mark since {} s", process, since_s)
            self._cluster.counts["adopted"] += 1
        wrote = Wrote(delta.sid, origin, stamp, values)
        self._records.adopted(process, wrote)
        if answer.outcome is None:
            self._waits.for_write(process, wrote, event.waiter, event.confirm)

    def must_be(self, sid: Sid) -> bool | None:
        """Say what a cookie has to be when all is well: its session, or nothing; None where either is right."""
        live = self._cluster.live
        held = self._held(sid, live)
        if held is not None and held.entries:
            over = any(self._ends.may_be_over(process, held) for process in live)
            return None if over else True
        marks = [
            mark for (origin, is_mark), mark in self._sids.items() if is_mark and self._sids.get((origin, False)) == sid
        ]
        marked = [self._held(mark, live) for mark in marks]
        return False if any(mark is not None and mark.entries for mark in marked) else None

    def check_shown(self, process: Process, sid: Sid, expected: bool | None, session: Session | None) -> None:
        """Check what a cookie has come to at a process, when all is well. `expected`: what `must_be` said.

        Raises:
            Violation: it is not what it has to be.
        """
        if session is None:
            self._cluster.counts["spent cookies"] += 1
        must(session is not None or expected is not True, "{} knows no session of a cookie: {}", process, sid)
        must(session is None or expected is not False, "{} adopts a cookie whose session has ended: {}", process, sid)
        same = session is None or session.record.sid == sid
        must(same, "{} makes another session of a cookie than {}", process, sid)

    def _mark_since_s(self, process: Process, origin: NodeId) -> float:
        mark = self._sids.get((origin, True), b"")
        return self._records.held_since_s(process, mark)

    def _held(self, sid: Sid, live: list[Process]) -> Record | None:
        return places.running_holders(live[0], sid, live)[0].records.get(sid)
