# Checkers: what must hold, whatever the network does; and the history that it is judged by.
#
# After each event, for each record that it changed:
#   containment     who claims a write holds it, or what replaced it;
#   forward only    no key goes back, no tombstone ends early, no dead session comes back;
#   nothing invented  each entry is a write that a request made, with its value;
#   bookkeeping     the state hash is the sum over the entries; `covered` is true only if they are covered; and, now
#                    and then, each leaf's sum is that of its records, the settled one that of those at rest;
#   clocks          no stamp lies further ahead of a node's own time than it says it accepts;
#   expiry          no session is dropped before its time, nor while a linked node knows of a later access;
#   revocation      who knows a user to be revoked holds no session with an earlier login, however often it was
#                   rotated since; and no session ends by a revocation that came before its login.
# For each write:    its dot is new, and its stamp above everything in the state it replaces.
# For each outcome:  confirmed means held by that many others, and not dead here; fresh means that the dots are there;
#                    absent is not said while a node that was asked holds the session; no wait outlasts its bound.
# For each process:  what it owes is bounded, its timers rest, and it judges nobody it must not (bounds.py).
# After the heal:    all processes hold the same (`difference`), see each other and nobody else (`unsettled`), and
#                    every confirmed write and invalidation of which one witness survived is there (`check_end`).
# While all is well: few messages for a write, and none that say something when nobody writes (`quiet_from`).
#
# A checker sees records and history only, never what the protocol thinks of itself: the marks, sums, cover and
# deadlines are computed here anew.

from collections.abc import Iterator, Mapping
from functools import partial
from math import inf
from typing import Final, NamedTuple

from gossipsess.model import digest
from gossipsess.model import record as record_module
from gossipsess.model import table as table_module
from gossipsess.model.clock import AHEAD_MS_MAX, Stamp, time_ms_of
from gossipsess.model.digest import LEAVES, SUM_MASK, leaf_of
from gossipsess.model.identity import NodeId, Sid, short
from gossipsess.model.record import ABSOLUTE, HASH_MASK, IDLE, RESERVED, Claims, Record, entry_mark
from gossipsess.protocol import expiry
from gossipsess.protocol import fence as fence_module
from gossipsess.protocol.effects import Settle
from gossipsess.protocol.events import (
    Accessed,
    Changes,
    Dot,
    Event,
    Fetch,
    Invalidate,
    Received,
    ReceivedDatagram,
    Revoke,
    Rotate,
    Waiter,
    Write,
)
from gossipsess.protocol.fetch import FETCH_TIMEOUT_S
from gossipsess.protocol.outcomes import Confirmed, Degraded, Found, Gone
from gossipsess.protocol.replica import Settings
from gossipsess.protocol.sessions import Written
from gossipsess.sim import marks
from gossipsess.sim.bounds import Bounds
from gossipsess.sim.cluster import Cluster
from gossipsess.sim.history import Wrote, holds, must
from gossipsess.sim.logins import Login, Logins, content
from gossipsess.sim.process import Process
from gossipsess.wire.messages import Bye, Hello, LinkMessage, Pull, Push, SyncAsk, SyncList, SyncPage, SyncSums

WAIT_SLACK_S: Final = 0.001
LINKED_FOR_S: Final = 1.0
"""A node whose link has been up this long when a request asks is one of those that are asked."""
SUMS_EVERY: Final = 500
"""Events between two recomputations of one process's leaf sums."""
TOLD_WITHIN_S: Final = 1.0
"""Beyond the time until a batch leaves: so much later an access is known to every node with a link, on which nothing is
lost or held up."""
EXPIRY_SLACK_S: Final = 0.05
AHEAD_SLACK_MS: Final = 10


class _Wait(NamedTuple):
    process: Process
    until_s: float
    wrote: Wrote | None
    sid: Sid
    dots: tuple[Dot, ...]


class _Promise(NamedTuple):
    wrote: Wrote
    witnesses: tuple[Process, ...]
    """Who held it when it was confirmed."""


class Checker:
    """Watches one cluster, and raises `Violation` at the first thing that is wrong."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._writes: dict[Sid, dict[Dot, Wrote]] = {}
        self._origin_last: dict[NodeId, Stamp] = {}
        self._held_since: dict[tuple[NodeId, Sid], float] = {}
        self._newest: dict[tuple[NodeId, Sid], Stamp] = {}  # the last write of a session that a process knew of
        self._changed_s: dict[tuple[NodeId, Sid], float] = {}  # by the process's own clock
        self._ended: dict[tuple[NodeId, Sid], Record] = {}  # what a process held last of a session that ended there
        self._waits: dict[Waiter, _Wait] = {}
        self._promises: list[_Promise] = []
        self._accesses: dict[Sid, dict[NodeId, float]] = {}
        self._buried: dict[Sid, None] = {}  # invalidations that reached everybody after the heal
        self._logins = Logins()
        self._dead_at: dict[tuple[str, Sid], None] = {}  # tombstones that a process has held
        self._heard_of: dict[NodeId, Stamp] = {}  # the newest stamp that a process has taken in
        slow_s = [mishap.period_s for mishap in cluster.scenario.mishaps if mishap.kind == "slow"]
        self._wait_slack_s = WAIT_SLACK_S + max(slow_s, default=0.0)
        self._met_at_s: dict[tuple[NodeId, NodeId], float] = {}  # when a message last came from one to the other
        self._apart_s: dict[tuple[NodeId, NodeId], float] = {}  # how long none had come before a Hello, at most
        self._bounds = Bounds(cluster)
        self._repairs: dict[NodeId, tuple[int, int]] = {}  # begun, and found something to do
        self._quiet_from_s = inf
        self.pushes = 0
        """Messages with session data that arrived."""

    # --- while it runs ------------------------------------------------------------------------------------

    def handled(self, process: Process, event: Event, answer: Written | Found | None) -> None:
        """Note what a request did, then check every record that the event changed.

        Raises:
            Violation: something that must hold does not.
        """
        match event:
            case Write(sid, changes) if isinstance(answer, Written):
                if not isinstance(answer.outcome, Gone):
                    self._wrote(process, sid, {}, changes, event.waiter, answer)
            case Revoke(sid) if isinstance(answer, Written):
                held = [self._logins.of(one) for one in process.seen.values()]
                ended = sum(1 for login in held if login is not None and login.user == sid)
                must(
                    answer.ended == ended, "{} ends {} sessions of a user, and not all it holds", process, answer.ended
                )
                self._cluster.counts["revoked"] += ended
                self._logins.revoked(sid, answer.record.tombstone)
                self._killed(process, sid, event.waiter, answer)
            case Invalidate(sid) if isinstance(answer, Written):
                self._killed(process, sid, event.waiter, answer)
            case Rotate(sid, new_sid, changes) if isinstance(answer, Written):
                if not isinstance(answer.outcome, Gone):
                    old = process.seen[sid].entries
                    kept = {key: entry.value for key, entry in old.items() if entry.value is not None}
                    login = self._logins.of(process.seen[sid])
                    steps = [
                        partial(self._wrote, process, new_sid, kept, changes, event.waiter, answer, login),
                        partial(self._killed, process, sid, None, answer),
                    ]
                    born_first = process.records[sid].newest > process.records[new_sid].newest
                    for step in steps if born_first else reversed(steps):
                        step()
            case Fetch(sid, dots, waiter):
                if isinstance(answer, Found):
                    self._found(process, sid, dots, answer, self._cluster.now_s)
                else:
                    until_s = self._cluster.now_s + FETCH_TIMEOUT_S
                    self._waits[waiter] = _Wait(process, until_s, None, sid, dots)
            case Accessed(sid) if sid in process.records:
                self._accesses.setdefault(sid, {})[process.node] = self._cluster.now_s
        if not isinstance(event, ReceivedDatagram):  # these are about members; were they not, the next event shows it
            self._look_at(process, elsewhere=isinstance(event, Received))
        self._bounds.handled(process, event)
        self._count_repairs(process)
        if self._cluster.events % SUMS_EVERY == 0:
            self._check_sums(process)

    def settled(self, process: Process, effect: Settle) -> None:
        """Check the outcome of a wait.

        Raises:
            Violation: it says more than is so, comes too late, or twice.
        """
        wait = self._waits.pop(effect.waiter, None)
        must(wait is not None, "{} settles a wait that is not open", process)
        assert wait is not None
        until_s = max(wait.until_s + process.stopped_s, process.woke_at_s) + self._wait_slack_s
        must(self._cluster.now_s <= until_s, "{}: a request waited past its bound", process)
        outcome = effect.outcome
        if isinstance(outcome, Found):
            self._found(process, wait.sid, wait.dots, outcome, wait.until_s - FETCH_TIMEOUT_S)
            return
        assert wait.wrote is not None
        self._cluster.counts[type(outcome).__name__.lower()] += 1
        record = process.records.get(wait.wrote.sid)
        dead = wait.wrote.values is not None and record is not None and record.tombstone
        must(not (dead and isinstance(outcome, Confirmed)), "{} confirms {}, which is dead there", process, wait.wrote)
        # One that stood still tells of what was so before: the session may have ended by time meanwhile.
        late = self._cluster.now_s > wait.until_s + self._wait_slack_s
        if isinstance(outcome, Confirmed | Degraded) and not late:
            self._confirmed(process, wait.wrote, outcome)

    def delivered(self, sender: Process, receiver: Process, message: LinkMessage) -> None:
        """Count what arrives.

        Raises:
            Violation: somebody has something to say of sessions when nothing happens to them.
        """
        for mark in marks.of_message(receiver, message):
            self._cluster.counts[mark] += 1
        pair = (sender.node, receiver.node)
        if isinstance(message, Hello):
            apart_s = self._cluster.now_s - self._met_at_s.get(pair, 0.0)
            self._apart_s[pair] = max(apart_s, self._apart_s.get(pair, 0.0))  # a second link may come at once
        self._met_at_s[pair] = self._cluster.now_s
        match message:
            case Hello():
                self._heard(receiver, message.clock)
                return
            case Bye():
                self._bounds.said_bye(sender, receiver)
                return
            case Push():
                self.pushes += 1
            case SyncAsk() | SyncSums() if _linked_since_s(receiver, sender) >= self._quiet_from_s:
                return  # a link came up
            case Pull() | SyncAsk() | SyncSums() | SyncList() | SyncPage():
                pass
            case _:
                return
        quiet = self._cluster.now_s >= self._quiet_from_s
        must(not quiet, "{} sends {} when nobody writes", sender, type(message).__name__)

    def quiet_from(self, now: bool) -> None:
        """From here on, or no more, nodes have nothing to say of sessions."""
        self._quiet_from_s = self._cluster.now_s if now else inf

    # --- when it has healed -------------------------------------------------------------------------------

    def difference(self) -> str | None:
        """Say in what the processes do not yet hold the same; None when they do."""
        live = self._cluster.live
        nodes = [process.node for process in live]
        for process in live:
            missing = [node for node in nodes if node != process.node and node not in process.replica.linked]
            if missing:
                return f"{process.label} has no link to {short(missing[0])}"
        for process in live[1:]:
            for sid in sorted({**live[0].records, **process.records}):
                mine, theirs = live[0].records.get(sid), process.records.get(sid)
                if mine is None or theirs is None or mine.state_hash != theirs.state_hash:
                    return f"session {short(sid)} is {mine} at {live[0].label} and {theirs} at {process.label}"
        return None

    def unsettled(self) -> str | None:
        """Say who still takes somebody for there who is not, or waits for something; None when nobody does."""
        nodes = sorted(process.node for process in self._cluster.live)
        for process in self._cluster.live:
            seen = sorted([process.node, *(member.node for member in process.replica.swim.view.live())])
            if seen != nodes:
                return f"{process.label} sees {[short(node) for node in seen]}, and there are {len(nodes)} nodes"
            if not process.replica.sessions.synced:
                return f"{process.label} is not synced"
            if process.replica.sessions.unacknowledged:
                return f"{process.label} owes {process.replica.sessions.unacknowledged} session states"
        return None

    def check_end(self) -> None:
        """Check what must hold once there is no difference.

        Raises:
            Violation: equal hashes over unequal states, wrong sums, a lost write, a wait without an end.
        """
        live = self._cluster.live
        for process in live:
            self._check_sums(process)
            for sid, record in process.records.items():
                self._check_claims(process, record, {})
                first = live[0].records[sid]
                same = record.entries == first.entries and record.tombstone == first.tombstone
                must(same, "{} and {} hash unequal states of {} alike", process, live[0], sid)
        for wait in self._waits.values():
            # One that has begun a moment ago may still run: nodes may agree while requests come.
            due = wait.until_s + wait.process.stopped_s + self._wait_slack_s < self._cluster.now_s
            must(not (wait.process.alive and due), "{} never settled a wait on {}", wait.process, wait.sid)
        for wrote, witnesses in self._promises:
            if any(witness.alive for witness in witnesses):
                for process in live:
                    kept = holds(process.records.get(wrote.sid), wrote) or self._may_have_ended(process, wrote)
                    must(kept, "{} lacks a confirmed {}, though a holder survived", process, wrote)
                if wrote.values is None:
                    self._buried[wrote.sid] = None

    # --- inside -------------------------------------------------------------------------------------------

    def _wrote(
        self,
        process: Process,
        sid: Sid,
        kept: Mapping[str, bytes | None],
        changes: Changes,
        waiter: Waiter,
        answer: Written,
        login: Login | None = None,
    ) -> None:
        values = dict(kept)
        values.update(changes)
        before = process.seen.get(sid)
        stamp = answer.record.entries[next(iter(values))].stamp
        wrote = Wrote(sid, process.node, stamp, values)
        self._logins.wrote(sid, (process.node, stamp), changes, login)
        self._new_dot(process, wrote)
        if before is not None:
            for key, entry in before.entries.items():
                must(entry.stamp < stamp, "{}: {} is not stamped above {}, which it has read", process, wrote, key)
        self._wait(process, wrote, waiter, answer)

    def _killed(self, process: Process, sid: Sid, waiter: Waiter | None, answer: Written) -> None:
        before = process.seen.get(sid)
        wrote = Wrote(sid, process.node, process.records[sid].tombstone, None)
        if before is not None and before.tombstone == wrote.stamp:
            return  # the older invalidation had the higher stamp
        self._new_dot(process, wrote)
        if waiter is not None:
            self._wait(process, wrote, waiter, answer)

    def _new_dot(self, process: Process, wrote: Wrote) -> None:
        last = self._origin_last.get(wrote.origin, 0)
        must(wrote.stamp > last, "{}: {} is not stamped above its last write", process, wrote)
        self._origin_last[wrote.origin] = wrote.stamp
        self._writes.setdefault(wrote.sid, {})[(wrote.origin, wrote.stamp)] = wrote

    def _wait(self, process: Process, wrote: Wrote, waiter: Waiter, answer: Written) -> None:
        if answer.outcome is None:
            until_s = self._cluster.now_s + Settings().confirm_timeout_s
            self._waits[waiter] = _Wait(process, until_s, wrote, wrote.sid, ())

    def _look_at(self, process: Process, *, elsewhere: bool) -> None:
        seen, records = process.seen, process.records
        for sid, record in records.items():
            before = seen.get(sid)
            if record is not before:
                self._check(process, before, record)
                self._check_revoked(process, record)
                if elsewhere and before is not None and before.entries:
                    self._cluster.counts["revoked elsewhere"] += self._logins.ended(sid, record.tombstone)
                seen[sid] = record
                self._newest[process.node, sid] = record.newest
                self._ended.pop((process.node, sid), None)
                if before is None or before.state_hash != record.state_hash:
                    self._changed_s[process.node, sid] = process.clock(self._cluster.now_s)
                self._held_since.setdefault((process.node, sid), self._cluster.now_s)
                self._bounds.held(process, record)
        if len(seen) > len(records):
            for sid in [sid for sid in seen if sid not in records]:
                self._ended[process.node, sid] = seen.pop(sid)
                self._check_dropped(process, self._ended[process.node, sid])
                del self._held_since[process.node, sid]
                del self._changed_s[process.node, sid]

    def _check(self, process: Process, before: Record | None, record: Record) -> None:
        sid, entries, claims = record.sid, record.entries, record.claims
        writes = self._writes.get(sid, {})
        ahead_ms = time_ms_of(record.newest) - self._own_ms(process)
        must(ahead_ms <= AHEAD_MS_MAX + AHEAD_SLACK_MS, "{} took in {} of the future", process, sid)
        must(len(claims) <= record_module.CLAIMS_MAX, "{}: too many claims in {}", process, sid)
        self._heard(process, record.newest)
        if record.tombstone:
            self._dead_at[process.label, sid] = None
            known = any(wrote.values is None and wrote.stamp == record.tombstone for wrote in writes.values())
            known = known or self._logins.ended(sid, record.tombstone)
            known = known or (before is None and self._fenced(process, record))
            must(known, "{}: nobody invalidated {} at {}", process, sid, record.tombstone)
            mark = entry_mark(sid, RESERVED, record.tombstone, bytes(8))
            must(record.state_hash == mark and not entries, "{}: {} is dead, but has a state", process, sid)
        else:
            buried = sid in self._buried or (process.label, sid) in self._dead_at
            must(not buried, "{}: {} came back to life", process, sid)
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
            self._check_claims(process, record, before.claims if before is not None else {})
        if before is not None:
            if any(origin not in claims for origin in before.claims) and not record.tombstone:
                self._cluster.counts["claims forgotten"] += 1
            must(record.tombstone >= before.tombstone, "{}: {} came back to life", process, sid)
            for key, entry in before.entries.items() if not record.tombstone else ():
                after = entries.get(key)
                forward = after is not None and (after.stamp, after.origin) >= (entry.stamp, entry.origin)
                must(forward, "{}: {} of {} went back", process, key, sid)

    def _check_claims(self, process: Process, record: Record, checked: Claims) -> None:
        claims = record.claims
        for wrote in self._writes.get(record.sid, {}).values() if not record.tombstone else ():
            origin, stamp = wrote.origin, wrote.stamp
            if checked.get(origin, 0) < stamp <= claims.get(origin, 0) and wrote.values is not None:
                must(holds(record, wrote), "containment: {} claims {}, and does not hold it", process, wrote)

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
        apart_s = max((gap_s for (_, node), gap_s in self._apart_s.items() if node == process.node), default=0.0)
        if apart_s * 1000 < shortest_ms or self._own_ms(process) - begun_ms < shortest_ms:
            return False
        writes[process.node, record.tombstone] = Wrote(record.sid, process.node, record.tombstone, None)
        self._cluster.counts["fenced"] += 1
        return True

    def _count_repairs(self, process: Process) -> None:
        sessions = process.replica.sessions.anti_entropy
        begun, found = self._repairs.get(process.node, (0, 0))
        if (sessions.repairs, sessions.repaired) != (begun, found):
            self._cluster.counts["digest mismatches"] += sessions.repairs - begun
            self._cluster.counts["repaired by digest"] += sessions.repaired - found
            self._repairs[process.node] = (sessions.repairs, sessions.repaired)

    def _check_dropped(self, process: Process, record: Record) -> None:
        # A clock that has caught up was moved by a difference of two rounded times.
        sid, time_ms = record.sid, self._cluster_ms(process) + (1 if process.stopped_s else 0)
        if record.tombstone:
            ends_ms = time_ms_of(record.tombstone) + table_module.TOMBSTONE_MS
            must(ends_ms <= time_ms, "{} dropped the tombstone of {} before its time", process, sid)
            self._cluster.counts["tombstones ended"] += 1
            return
        self._cluster.counts["expired"] += 1
        absolute_ms, idle_ms = (table_module.register(record, key) for key in (ABSOLUTE, IDLE))
        if absolute_ms <= time_ms:
            return
        idle_ends_ms = time_ms_of(record.newest) + idle_ms
        must(idle_ends_ms <= time_ms, "{} dropped {} before its time", process, sid)
        scenario = self._cluster.scenario
        if scenario.faults.lossy_links:
            return  # what a lost message said, nobody says again before the next access
        # Clocks that differ, and those that run at another pace for as long as the run lasts.
        stopped_s = max(one.stopped_s for one in self._cluster.processes)
        apart_s = stopped_s + 2 * scenario.skew_ms / 1000 + 2 * scenario.drift * self._cluster.now_s + EXPIRY_SLACK_S
        from_s = self._cluster.now_s - idle_ms / 1000 + apart_s
        for other in self._cluster.live:
            access_s = self._accesses.get(sid, {}).get(other.node, 0.0)
            tellable_s = max(access_s + expiry.EVERY_S, _linked_since_s(process, other), self._cluster.clear_since_s)
            told = tellable_s + TOLD_WITHIN_S < self._cluster.now_s
            if other is not process and told and not other.records.get(sid, record).tombstone:
                in_use = from_s < access_s
                must(not in_use, "{} dropped {}, which its peer {} knows to be in use", process, sid, other)

    def _own_ms(self, process: Process) -> int:
        # One whose clock stood still may go on from there, or have caught up with its wall clock.
        running_s = process.clock(self._cluster.now_s) + process.stopped_s
        return int(running_s * 1000) + process.offset_ms

    def _cluster_ms(self, process: Process) -> int:
        return max(self._own_ms(process), time_ms_of(self._heard_of.get(process.node, 0)))

    def _heard(self, process: Process, stamp: Stamp) -> None:
        if time_ms_of(stamp) <= self._own_ms(process) + AHEAD_MS_MAX:
            self._heard_of[process.node] = max(self._heard_of.get(process.node, 0), stamp)

    def _may_have_ended(self, process: Process, wrote: Wrote) -> bool:
        """Say whether a process may hold nothing of a session any more."""
        if wrote.sid in process.records:
            return False
        time_ms = self._cluster_ms(process)
        if wrote.values is None:
            return time_ms_of(wrote.stamp) + table_module.TOMBSTONE_MS <= time_ms
        writes = [one for one in self._writes[wrote.sid].values() if one.values is not None]
        # Of a later write those may know nothing who stood still, or were apart, while all who knew of it have died.
        known = [self._newest.get((one.node, wrote.sid), 0) for one in self._cluster.live]
        last_ms = max(time_ms_of(stamp) for stamp in known)
        absolutes = [one.values[ABSOLUTE] for one in writes if one.values is not None and ABSOLUTE in one.values]
        absolute_ms = max(int.from_bytes(value or b"", "big") for value in absolutes)
        return min(absolute_ms, last_ms + self._cluster.scenario.idle_ms) <= time_ms

    def _check_sums(self, process: Process) -> None:
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

    def _confirmed(self, process: Process, wrote: Wrote, outcome: Confirmed | Degraded) -> None:
        holders = [one for one in self._holders(wrote) if one is not process]
        # Between an acknowledgement and its arrival a session may have come to its end, and been dropped.
        ran = self._cluster.processes
        counted = [*holders, *(one for one in ran if holds(self._ended.get((one.node, wrote.sid)), wrote))]
        nodes, hosts = len(counted), len({one.host for one in counted if one.host != process.host})
        enough = nodes >= outcome.nodes and hosts >= outcome.hosts
        must(enough, "{} says {} of {}, but {} nodes hold it", process, outcome, wrote, nodes)
        if isinstance(outcome, Confirmed) and outcome.nodes:
            self._promises.append(_Promise(wrote, (process, *holders)))

    def _holders(self, wrote: Wrote) -> Iterator[Process]:
        return (one for one in self._cluster.processes if holds(one.records.get(wrote.sid), wrote))

    def _found(self, process: Process, sid: Sid, dots: tuple[Dot, ...], found: Found, asked_s: float) -> None:
        self._cluster.counts[f"found {found.value}"] += 1
        record = process.records.get(sid)
        if found is Found.FRESH:
            for dot in dots:
                wrote = self._writes[sid][dot]
                must(holds(record, wrote), "{} calls {} fresh without {}", process, sid, wrote)
        elif found is Found.STALE:
            must(record is not None, "{} calls {} stale, and does not hold it", process, sid)
        elif found is Found.ABSENT:
            known = bool(process.replica.linked) or process.replica.sessions.synced
            must(known, "{} calls {} absent, having asked nobody", process, sid)
            for other in self._cluster.live:
                held = self._held_since.get((other.node, sid), inf) < asked_s
                asked = asked_s - _linked_since_s(process, other) >= LINKED_FOR_S
                must(not (held and asked), "{} calls {} absent, but its peer {} holds it", process, sid, other)


def _linked_since_s(process: Process, other: Process) -> float:
    number = process.replica.linked.get(other.node)
    link = process.links.get(number) if number is not None else None
    return link.opened_at_s if link is not None and not link.broken else inf
