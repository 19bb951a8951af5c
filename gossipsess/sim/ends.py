# Ends: when a session may be gone from a process, and when it must not be.
#
#   dropped           no session is dropped before its time, nor while a linked node knows of a later access; but who is
#                     not one of its holders may drop it as long as enough others have it, and a holder that fills up
#                     need not know of an access that only a write tells, which it is still to pull
#   may_have_ended    whether it is right that a process holds nothing of a session any more
#
# In:    what processes hold, drop and are told of accesses.    Out: `Violation`, or the judgement.
# Deadlines are computed from the records and the requests, never asked of the machine.

from collections.abc import Iterable
from typing import Final, NamedTuple

from gossipsess.model import table as table_module
from gossipsess.model.clock import Stamp, time_ms_of
from gossipsess.model.identity import NodeId, Sid
from gossipsess.model.record import ABSOLUTE, IDLE, Record
from gossipsess.protocol import expiry
from gossipsess.sim import places
from gossipsess.sim.cluster import Cluster
from gossipsess.sim.history import Wrote, contains, holds, must
from gossipsess.sim.process import Process
from gossipsess.sim.times import Times, linked_since_s

TOLD_WITHIN_S: Final = 1.0
"""Beyond the time until a batch leaves: so much later an access is known to every node with a link, on which nothing is
lost or held up."""
EXPIRY_SLACK_S: Final = 0.05
APART_MS: Final = 15_000
"""By so much the clocks of two nodes may differ, and their views of when a session was last used."""
ANSWERED_S: Final = 10.0
"""A holder's word that it has a copy is good for so long, though it may have ended meanwhile."""


class Surplus(NamedTuple):
    """A record that a process dropped, being none of its holders."""

    record: Record
    kept_by: tuple[Process, ...]
    """The others that have it, or what replaced it."""


class Ends:
    """The ends of one cluster's sessions."""

    def __init__(self, cluster: Cluster, times: Times) -> None:
        self._cluster = cluster
        self._times = times
        self._newest: dict[tuple[NodeId, Sid], Stamp] = {}  # the last write of a session that a process knew of
        self._given: dict[tuple[NodeId, Sid], Record] = {}  # what a process held of one that it left to the holders
        self._ended: dict[tuple[NodeId, Sid], Record] = {}  # what a process held last of a session that ended there
        self._accesses: dict[Sid, dict[NodeId, float]] = {}
        self._accessed_ms: dict[tuple[NodeId, Sid], int] = {}  # the same, by the process's clock at the least

    def accessed(self, process: Process, sid: Sid) -> None:
        """Note that a request has used a session at a process that holds it."""
        now_s = self._cluster.now_s
        self._accesses.setdefault(sid, {})[process.node] = now_s
        self._accessed_ms[process.node, sid] = int(process.clock(now_s) * 1000) + process.offset_ms

    def held(self, process: Process, record: Record) -> None:
        """Note a record that a process holds now."""
        self._newest[process.node, record.sid] = record.newest
        self._ended.pop((process.node, record.sid), None)
        self._given.pop((process.node, record.sid), None)

    def held_until_dropped(self, process: Process, wrote: Wrote) -> bool:
        """Say whether a process held a write until the session ended there, or was left to its holders."""
        return self.held_until_its_end(process, wrote) or holds(self._given.get((process.node, wrote.sid)), wrote)

    def held_until_its_end(self, process: Process, wrote: Wrote) -> bool:
        """Say whether a process held a write until the session ended there."""
        return holds(self._ended.get((process.node, wrote.sid)), wrote)

    def dropped(self, process: Process, record: Record) -> Surplus | None:
        """Check that what a process holds no more has come to its end, or is held elsewhere; then say by whom.

        Raises:
            Violation: it was dropped too early.
        """
        holder, over = places.is_holder(process, record.sid), self._is_over(process, record)
        self._accessed_ms.pop((process.node, record.sid), None)
        if not holder and not over:
            self._given[process.node, record.sid] = record
            return self._handed_over(process, record)
        self._ended[process.node, record.sid] = record
        self._cluster.counts["tombstones ended" if record.tombstone else "expired"] += 1
        what = "the tombstone of " if record.tombstone else ""
        must(over, "{} dropped {}{} before its time", process, what, record.sid)
        if holder and not record.tombstone:  # others are not told of accesses
            self._check_unused(process, record)
        return None

    def may_be_over(self, process: Process, record: Record) -> bool:
        """Say whether a session is over, or another node's clock may say so."""
        return self._is_over(process, record, within_ms=APART_MS)

    def is_over_for(self, process: Process, other: Process, sid: Sid) -> bool:
        """Say whether what another process holds is over by a process's time, which has heard from it of all uses."""
        record, time_ms = other.records[sid], self._times.cluster_ms(process)
        used_until_ms = self._accessed_ms.get((other.node, sid), 0) + table_module.register(record, IDLE)
        in_use = time_ms < min(used_until_ms, table_module.register(record, ABSOLUTE))
        return self._is_over(process, record) and (record.tombstone > 0 or not in_use)

    def _is_over(self, process: Process, record: Record, *, within_ms: int = 0) -> bool:
        # A clock that has caught up was moved by a difference of two rounded times.
        time_ms = self._times.cluster_ms(process) + (1 if process.stopped_s else 0) + within_ms
        if record.tombstone:
            return time_ms_of(record.tombstone) + table_module.TOMBSTONE_MS <= time_ms
        absolute_ms, idle_ms = (table_module.register(record, key) for key in (ABSOLUTE, IDLE))
        return min(absolute_ms, time_ms_of(record.newest) + idle_ms) <= time_ms

    def _handed_over(self, process: Process, record: Record) -> Surplus:
        # Two nodes that die within seconds of each other can take both copies with them: no rule prevents that.
        kept_by, ended = self._others_with(process, record)
        others = sum(one is not process for one in self._cluster.live)
        enough = len(kept_by) + ended >= min(1 + self._cluster.scenario.secondaries, others)
        must(enough, "{} dropped {}, and only {} others hold it", process, record.sid, len(kept_by))
        self._cluster.counts["surplus dropped"] += 1
        return Surplus(record, tuple(kept_by))

    def left(self, process: Process) -> None:
        """Check that what a process held that leaves in good order is held elsewhere, where there is anybody linked.

        Raises:
            Violation: it goes with the only copy.
        """
        linked = process.replica.linked
        if not any(one.node in linked for one in self._cluster.live):
            return  # it goes as the last one, or cut off: nothing can be handed over
        for record in process.records.values():
            kept_by, ended = self._others_with(process, record)
            only = not kept_by and not ended and not self._is_over(process, record)
            must(not only, "{} leaves with the only copy of {}", process, record.sid)
        self._cluster.counts["handed over"] += 1

    def _others_with(self, process: Process, record: Record) -> tuple[list[Process], int]:
        """Return who else has a record, and how many had it until its session ended there.

        A holder that answered and ended since counts.
        """
        ran = [one for one in self._cluster.processes if self._cluster.now_s - one.ended_at_s < ANSWERED_S]
        kept_by = [one for one in ran if one is not process and contains(one.records.get(record.sid), record)]
        return kept_by, sum(contains(self._ended.get((one.node, record.sid)), record) for one in ran)

    def _check_unused(self, process: Process, record: Record) -> None:
        sid = record.sid
        absolute_ms, idle_ms = (table_module.register(record, key) for key in (ABSOLUTE, IDLE))
        if absolute_ms <= self._times.cluster_ms(process):
            return
        scenario = self._cluster.scenario
        if scenario.faults.lossy_links:
            return  # what a lost message said, nobody says again before the next access
        # Clocks that differ, and those that run at another pace for as long as the run lasts.
        stopped_s = max(one.stopped_s for one in self._cluster.processes)
        apart_s = stopped_s + 2 * scenario.skew_ms / 1000 + 2 * scenario.drift * self._cluster.now_s + EXPIRY_SLACK_S
        from_s = self._cluster.now_s - idle_ms / 1000 + apart_s
        # What came to others after a copy was left there comes with what the new holder gains, once it is pulled.
        fills_up = places.fills_up(process, sid)
        for other in self._cluster.live:
            access_s = self._accesses.get(sid, {}).get(other.node, 0.0)
            tellable_s = max(access_s + expiry.EVERY_S, linked_since_s(process, other), self._cluster.clear_since_s)
            told = tellable_s + TOLD_WITHIN_S < self._cluster.now_s
            held = other.records.get(sid, record)
            to_come = fills_up and held.newest > record.newest and self._is_told_by_write(other, held)
            if other is not process and told and not held.tombstone and not to_come:
                in_use = from_s < access_s
                must(not in_use, "{} dropped {}, which its peer {} knows to be in use", process, sid, other)

    def _is_told_by_write(self, process: Process, record: Record) -> bool:
        """Say whether a process's last access is told by a write alone: a later one, or one within the grain before."""
        grain_ms = table_module.touch_grain_ms(table_module.register(record, IDLE))
        return self._accessed_ms.get((process.node, record.sid), 0) < time_ms_of(record.newest) + grain_ms

    def may_have_ended(self, process: Process, wrote: Wrote, writes: Iterable[Wrote]) -> bool:
        """Say whether a process may hold nothing of a session any more. `writes`: all of that session."""
        if wrote.sid in process.records:
            return False
        time_ms = self._times.cluster_ms(process)
        ended = self._ended.get((process.node, wrote.sid))
        if ended is not None and ended.tombstone:
            return True  # it was dead, and its tombstone has had its time
        if wrote.values is None:
            return time_ms_of(wrote.stamp) + table_module.TOMBSTONE_MS <= time_ms
        # Of a later write those may know nothing who stood still, or were apart, while all who knew of it have died.
        known = [self._newest.get((one.node, wrote.sid), 0) for one in self._cluster.live]
        last_ms = max(time_ms_of(stamp) for stamp in known)
        begun = [one.values for one in writes if one.values is not None and ABSOLUTE in one.values]
        absolute_ms, idle_ms = (
            max(int.from_bytes(values[key] or b"", "big") for values in begun) for key in (ABSOLUTE, IDLE)
        )
        return min(absolute_ms, last_ms + idle_ms) <= time_ms
