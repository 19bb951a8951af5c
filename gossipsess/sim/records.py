# Records: what must hold of each record, at each process, after each event that changed it.
#
#   containment     who claims a write holds it, or what replaced it;
#   forward only    no key goes back, no tombstone ends early, no dead session comes back (but as a copy where a node is
#                   no holder, and that is not served: run.py reads there);
#   nothing invented  each entry is a write that a request made, with its value;
#   bookkeeping     the state hash is the sum over the entries; `covered` is true only if they are covered; and, now
#                    and then, each leaf's sum is that of its records, the settled one that of those at rest;
#   clocks          no stamp lies further ahead of a node's own time than it says it accepts;
#   revocation      who knows a user to be revoked holds no session with an earlier login, however often it was
#                   rotated since; and no session ends by a revocation that came before its login.
#
# In:    the writes that requests made, and the records as they change.    Out: `Violation`.
# Not here: when a record may go (ends.py), what requests are told (waits.py).

from collections.abc import ValuesView
from math import inf
from typing import Final, NamedTuple

from gossipsess.model import digest
from gossipsess.model import record as record_module
from gossipsess.model import table as table_module
from gossipsess.model.clock import AHEAD_MS_MAX, Stamp, time_ms_of
from gossipsess.model.digest import LEAVES, SUM_MASK, leaf_of
from gossipsess.model.identity import NodeId, Sid
from gossipsess.model.record import HASH_MASK, RESERVED, Claims, Record, entry_mark
from gossipsess.protocol import fence as fence_module
from gossipsess.protocol.events import Dot
from gossipsess.sim import places
from gossipsess.sim.cluster import Cluster
from gossipsess.sim.ends import Ends, Surplus
from gossipsess.sim.history import Wrote, holds, must
from gossipsess.sim.logins import Logins, content
from gossipsess.sim.process import Process
from gossipsess.sim.times import Times

AHEAD_SLACK_MS: Final = 10


class Looked(NamedTuple):
    """What a process's last event did to its records."""

    changed: tuple[Record, ...]
    dropped: tuple[Surplus, ...]
    """Records that are gone before their end, being held elsewhere."""


class Records:
    """The records of one cluster, and the writes that they are judged by."""

    def __init__(self, cluster: Cluster, logins: Logins, times: Times, ends: Ends) -> None:
        self._cluster = cluster
        self._logins = logins
        self._times = times
        self._ends = ends
        self._writes: dict[Sid, dict[Dot, Wrote]] = {}
        self._origin_last: dict[NodeId, Stamp] = {}
        self._held_since: dict[tuple[NodeId, Sid], float] = {}
        self._changed_s: dict[tuple[NodeId, Sid], float] = {}  # by the process's own clock
        self._buried: dict[Sid, None] = {}  # invalidations that reached everybody after the heal
        self._dead_at: dict[tuple[str, Sid], None] = {}  # tombstones that a process has held
        self._apart_s: dict[NodeId, float] = {}  # how long a process had heard nothing of a peer before its Hello

    # --- what happened ------------------------------------------------------------------------------------

    def wrote(self, process: Process, wrote: Wrote) -> None:
        """Note a write or invalidation that a process accepted.

        Raises:
            Violation: its stamp is not above the process's last one.
        """
        last = self._origin_last.get(wrote.origin, 0)
        must(wrote.stamp > last, "{}: {} is not stamped above its last write", process, wrote)
        self._origin_last[wrote.origin] = wrote.stamp
        self._writes.setdefault(wrote.sid, {})[(wrote.origin, wrote.stamp)] = wrote

    def adopted(self, process: Process, wrote: Wrote) -> None:
        """Note what a process has made of a cookie; others may have, too.

        Raises:
            Violation: it is another thing than they have made.
        """
        first = self._writes.setdefault(wrote.sid, {}).setdefault((wrote.origin, wrote.stamp), wrote)
        must(first == wrote, "{}: one cookie becomes {}, and before another thing", process, wrote)

    def was_apart(self, process: Process, apart_s: float) -> None:
        """Note for how long a process had heard nothing of a peer that it meets again."""
        self._apart_s[process.node] = max(apart_s, self._apart_s.get(process.node, 0.0))

    def buried(self, sid: Sid) -> None:
        """Note that an invalidation has reached everybody: nobody may hold the session alive again."""
        self._buried[sid] = None

    def write_of(self, sid: Sid, dot: Dot) -> Wrote:
        """Return the write that a dot names."""
        return self._writes[sid][dot]

    def writes_of(self, sid: Sid) -> ValuesView[Wrote]:
        """Return all writes and invalidations of a session."""
        return self._writes[sid].values()

    def stamps_by(self, process: Process, sid: Sid) -> list[Stamp]:
        """Return the stamps of what a process itself wrote to a session."""
        return [stamp for origin, stamp in self._writes.get(sid, {}) if origin == process.node]

    def held_since_s(self, process: Process, sid: Sid) -> float:
        """Return since when a process has held something of a session; infinity while it does not."""
        return self._held_since.get((process.node, sid), inf)

    def look_at(self, process: Process, *, elsewhere: bool) -> Looked:
        """Check each record that a process's last event changed or dropped. `elsewhere`: a peer's message came.

        Raises:
            Violation: something that must hold does not.
        """
        seen, records = process.seen, process.records
        changed = [(seen.get(sid), record) for sid, record in records.items() if record is not seen.get(sid)]
        for before, record in changed:
            sid = record.sid
            self._check(process, before, record)
            self._check_revoked(process, record)
            if elsewhere and before is not None and before.entries:
                self._cluster.counts["revoked elsewhere"] += self._logins.ended(sid, record.tombstone)
            seen[sid] = record
            self._ends.held(process, record)
            if before is None or before.state_hash != record.state_hash:
                self._changed_s[process.node, sid] = process.clock(self._cluster.now_s)
            self._held_since.setdefault((process.node, sid), self._cluster.now_s)
        dropped: list[Surplus] = []
        if len(seen) > len(records):
            for sid in [sid for sid in seen if sid not in records]:
                surplus = self._ends.dropped(process, seen.pop(sid))
                if surplus is not None:
                    dropped.append(surplus)
                    self._dead_at.pop((process.label, sid), None)  # it no longer knows
                del self._held_since[process.node, sid]
                del self._changed_s[process.node, sid]
        return Looked(tuple([record for _, record in changed]), tuple(dropped))

    # --- what must hold -----------------------------------------------------------------------------------

    def check_claims(self, process: Process, record: Record, checked: Claims | None = None) -> None:
        """Check that a record holds every write that it claims, but for what `checked` claims.

        Raises:
            Violation: it does not.
        """
        claims, checked = record.claims, checked or {}
        for wrote in self._writes.get(record.sid, {}).values() if not record.tombstone else ():
            origin, stamp = wrote.origin, wrote.stamp
            if checked.get(origin, 0) < stamp <= claims.get(origin, 0) and wrote.values is not None:
                must(holds(record, wrote), "containment: {} claims {}, and does not hold it", process, wrote)

    def check_sums(self, process: Process) -> None:
        """Compute a process's leaf sums and its account of memory anew.

        Raises:
            Violation: they are not what it has kept.
        """
        sums, settled = [0] * LEAVES, 0
        kept = process.replica.sessions.table.sums
        now_s = process.clock(self._cluster.now_s)
        for sid, record in process.records.items():
            sums[leaf_of(sid)] += record.state_hash
            if self._changed_s[process.node, sid] + digest.SETTLE_S <= now_s:
                settled += record.state_hash
        for leaf, total in enumerate(sums):
            must(kept[leaf] == total & SUM_MASK, "{}: wrong sum of leaf {}", process, leaf)
        must(kept.settled(now_s) == settled & SUM_MASK, "{}: wrong sum of what has settled", process)
        cost = sum(table_module.held_bytes(record) for record in process.records.values())
        must(process.replica.sessions.table.bytes == cost, "{}: wrong account of memory", process)

    def _check(self, process: Process, before: Record | None, record: Record) -> None:
        sid, entries, claims = record.sid, record.entries, record.claims
        writes = self._writes.get(sid, {})
        ahead_ms = time_ms_of(record.newest) - self._times.own_ms(process)
        must(ahead_ms <= AHEAD_MS_MAX + AHEAD_SLACK_MS, "{} took in {} of the future", process, sid)
        must(len(claims) <= record_module.CLAIMS_MAX, "{}: too many claims in {}", process, sid)
        self._times.heard(process, record.newest)
        if record.tombstone:
            self._check_dead(process, before, record)
        else:
            dead = (process.label, sid) in self._dead_at
            buried = sid in self._buried and places.is_holder(process, sid)
            must(not dead and not buried, "{}: {} came back to life", process, sid)
            total = 0
            for key, entry in entries.items():
                wrote = writes.get((entry.origin, entry.stamp))
                values = (wrote.values if wrote is not None else None) or {}
                known = key in values and content(key, entry.value) == content(key, values[key])
                must(known, "{}: nobody wrote {} of {} at {}", process, key, sid, entry.stamp)
                total += entry_mark(sid, key, entry.stamp, entry.origin)
                covered = claims.get(entry.origin, 0) >= entry.stamp
                must(covered or not record.covered, "{}: {} says covered, but {} is not", process, sid, key)
            must(record.state_hash == total & HASH_MASK, "{}: the hash of {} is not its state's", process, sid)
            # What was claimed before was held then, and is still, since no key goes back.
            self.check_claims(process, record, before.claims if before is not None else None)
        if before is not None:
            self._check_forward(process, before, record)

    def _check_dead(self, process: Process, before: Record | None, record: Record) -> None:
        sid = record.sid
        self._dead_at[process.label, sid] = None
        writes = self._writes.get(sid, {}).values()
        known = any(wrote.values is None and wrote.stamp == record.tombstone for wrote in writes)
        known = known or self._logins.ended(sid, record.tombstone)
        known = known or (before is None and self._fenced(process, record))
        must(known, "{}: nobody invalidated {} at {}", process, sid, record.tombstone)
        mark = entry_mark(sid, RESERVED, record.tombstone, bytes(8))
        alone = record.state_hash == mark and not record.entries
        must(alone, "{}: {} is dead, but has a state", process, sid)

    def _check_forward(self, process: Process, before: Record, record: Record) -> None:
        sid = record.sid
        if any(origin not in record.claims for origin in before.claims) and not record.tombstone:
            self._cluster.counts["claims forgotten"] += 1
        must(record.tombstone >= before.tombstone, "{}: {} came back to life", process, sid)
        for key, entry in before.entries.items() if not record.tombstone else ():
            after = record.entries.get(key)
            forward = after is not None and (after.stamp, after.origin) >= (entry.stamp, entry.origin)
            must(forward, "{}: {} of {} went back", process, key, sid)

    def _check_revoked(self, process: Process, record: Record) -> None:
        if record.tombstone:
            for other in process.records.values():
                login = self._logins.of(other)
                alive = login is not None and login.user == record.sid and login.stamp <= record.tombstone
                must(not alive, "{}: {} lives, though its user was revoked after the login", process, other.sid)
            return
        login = self._logins.of(record)
        if login is not None and login.user in process.records:
            alive = login.stamp <= process.records[login.user].tombstone
            must(not alive, "{}: {} lives, though its user was revoked after the login", process, record.sid)

    def _fenced(self, process: Process, record: Record) -> bool:
        """Say whether a process may have ended an old session of a peer from which it was apart for long."""
        slack_ms = 2 * (self._cluster.scenario.skew_ms + AHEAD_SLACK_MS)
        shortest_ms = fence_module.FENCE_MS - slack_ms
        writes = self._writes.get(record.sid, {})
        begun = [*(wrote.stamp for wrote in writes.values()), *self._logins.begun(record.sid)]
        begun_ms = min(map(time_ms_of, begun), default=inf)
        apart_s = self._apart_s.get(process.node, 0.0)
        if apart_s * 1000 < shortest_ms or self._times.own_ms(process) - begun_ms < shortest_ms:
            return False
        writes[process.node, record.tombstone] = Wrote(record.sid, process.node, record.tombstone, None)
        self._cluster.counts["fenced"] += 1
        return True
