# Checkers: what must hold, whatever the network does; and the history that it is judged by.
#
# After each event, for each record that it changed:
#   containment     who claims a write holds it, or what replaced it;
#   forward only    no key goes back, no tombstone ends early, no dead session comes back;
#   nothing invented  each entry is a write that a request made, with its value;
#   bookkeeping     the state hash is the sum over the entries; `covered` is true only if they are covered;
#   clocks          no stamp lies further ahead of a node's own time than it says it accepts;
#   expiry          no session is dropped before its time, nor while a linked node knows of a later access;
#   bounds          nobody is owed more sessions than there are, nor sent more than is allowed before he answers.
# For each write:    its dot is new, and its stamp above everything in the state it replaces.
# For each outcome:  confirmed means held by that many others; fresh means that the dots are there; absent is not
#                    said while a linked node has held the session for a second; no wait outlasts its bound.
# For each timer:    it rests, and a process that stood still judges nobody right after it.
# After the heal:    all processes hold the same (`difference`), see each other and nobody else (`unsettled`), and
#                    every confirmed write and invalidation of which one witness survived is there (`check_end`).
# While all is well: few messages for a write, and none that say something when nobody writes (`quiet_from`).
#
# A checker sees records and history only, never what the protocol thinks of itself: the marks, sums, cover and
# deadlines are computed here anew.

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from math import inf
from typing import Final, NamedTuple

from gossipsess.model import record as record_module
from gossipsess.model import table as table_module
from gossipsess.model.clock import AHEAD_MS_MAX, Stamp, time_ms_of
from gossipsess.model.digest import PARTITIONS, partition_of
from gossipsess.model.identity import NodeId, Sid, short
from gossipsess.model.member import MemberState
from gossipsess.model.record import ABSOLUTE, HASH_MASK, IDLE, RESERVED, Record, entry_bytes, entry_mark
from gossipsess.protocol import expiry, replication
from gossipsess.protocol.effects import MemberChanged, Send, Settle
from gossipsess.protocol.events import (
    Accessed,
    Changes,
    Dot,
    Event,
    Fetch,
    Invalidate,
    LinkClosed,
    Received,
    Rotate,
    Tick,
    Waiter,
    Write,
)
from gossipsess.protocol.fetch import FETCH_TIMEOUT_S
from gossipsess.protocol.outcomes import Confirmed, Degraded, Found, Gone
from gossipsess.protocol.replica import Settings
from gossipsess.protocol.sessions import Written
from gossipsess.sim import marks
from gossipsess.sim.cluster import Cluster, Process
from gossipsess.wire.messages import Hello, LinkMessage, Pull, Push, PushAck, SyncPage

WAIT_SLACK_S: Final = 0.001
HELD_FOR_S: Final = 1.0
"""A node that has held a session this long, over a link that is up, is asked before anyone says absent."""
SPIN_WINDOW_S: Final = 0.1
SPIN_TICKS: Final = 1000
"""Ticks in one window. A timer that is always due again would burn a processor for nothing."""
SUMS_EVERY: Final = 500
"""Events between two recomputations of one process's partition sums."""
TOLD_WITHIN_S: Final = 1.0
"""Beyond the time until a batch leaves: so much later an access is known to every node with a link, on which nothing is
lost or held up."""
EXPIRY_SLACK_S: Final = 0.05
PAUSE_S: Final = 3.0
"""Who stood still this long must have noticed it by the first deadline it serves."""
AHEAD_SLACK_MS: Final = 10


class Violation(Exception):
    """Something that must always hold does not. `rule` is its message without names and numbers."""

    def __init__(self, text: str, rule: str) -> None:
        super().__init__(text)
        self.rule = rule


class Wrote(NamedTuple):
    """One write or invalidation that a process accepted."""

    sid: Sid
    origin: NodeId
    stamp: Stamp
    values: dict[str, bytes | None] | None
    """What was written; None for an invalidation."""

    def __str__(self) -> str:
        what = "invalidation" if self.values is None else f"write of {', '.join(map(repr, self.values))}"
        return f"{what} {short(self.origin)}@{self.stamp} in session {short(self.sid)}"


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


def holds(record: Record | None, wrote: Wrote) -> bool:
    """Say whether a record has a write or what replaced it, looking at entries only."""
    if record is None:
        return False
    if wrote.values is None:
        return record.tombstone >= wrote.stamp
    if record.tombstone:
        return True
    place = (wrote.stamp, wrote.origin)
    entries = record.entries
    return all(key in entries and (entries[key].stamp, entries[key].origin) >= place for key in wrote.values)


class Checker:
    """Watches one cluster, and raises `Violation` at the first thing that is wrong."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._writes: dict[Sid, dict[Dot, Wrote]] = {}
        self._origin_last: dict[NodeId, Stamp] = {}
        self._held_since: dict[tuple[NodeId, Sid], float] = {}
        self._waits: dict[Waiter, _Wait] = {}
        self._promises: list[_Promise] = []
        self._accesses: dict[Sid, dict[NodeId, float]] = {}
        self._buried: dict[Sid, None] = {}  # invalidations that reached everybody after the heal
        self._dead_at: dict[tuple[str, Sid], None] = {}  # tombstones that a process has held
        self._heard_of: dict[NodeId, Stamp] = {}  # the newest stamp that a process has taken in
        slow_s = [mishap.period_s for mishap in cluster.scenario.mishaps if mishap.kind == "slow"]
        self._wait_slack_s = WAIT_SLACK_S + max(slow_s, default=0.0)
        self._ticks: Counter[tuple[NodeId, int]] = Counter()
        self._unanswered: dict[tuple[NodeId, int], dict[int, int]] = {}  # of a link's pushes: sequence -> bytes
        self._quiet = False
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
            case Invalidate(sid) if isinstance(answer, Written):
                self._killed(process, sid, event.waiter, answer)
            case Rotate(sid, new_sid, changes) if isinstance(answer, Written):
                if not isinstance(answer.outcome, Gone):
                    old = process.seen[sid].entries
                    kept = {key: entry.value for key, entry in old.items() if entry.value is not None}
                    steps = [
                        partial(self._wrote, process, new_sid, kept, changes, event.waiter, answer),
                        partial(self._killed, process, sid, None, answer),
                    ]
                    born_first = process.records[sid].newest > process.records[new_sid].newest
                    for step in steps if born_first else reversed(steps):
                        step()
            case Fetch(sid, dots, waiter):
                if isinstance(answer, Found):
                    self._found(process, sid, dots, answer)
                else:
                    until_s = self._cluster.now_s + FETCH_TIMEOUT_S
                    self._waits[waiter] = _Wait(process, until_s, None, sid, dots)
            case Accessed(sid) if sid in process.records:
                self._accesses.setdefault(sid, {})[process.node] = self._cluster.now_s
            case Tick():
                self._check_verdicts(process)
                window = (process.node, int(self._cluster.now_s / SPIN_WINDOW_S))
                self._ticks[window] += 1
                _must(self._ticks[window] <= SPIN_TICKS, "{} is due again and again, and does nothing", process)
                self._check_owed(process)
            case Received(link, PushAck(sequence)):
                pushes = self._unanswered.get((process.node, link), {})
                self._unanswered[process.node, link] = {one: size for one, size in pushes.items() if one > sequence}
            case LinkClosed(link):
                self._unanswered.pop((process.node, link), None)
        self._look_at(process)
        self._check_sent(process)
        if self._cluster.events % SUMS_EVERY == 0:
            self._check_sums(process)

    def settled(self, process: Process, effect: Settle) -> None:
        """Check the outcome of a wait.

        Raises:
            Violation: it says more than is so, comes too late, or twice.
        """
        wait = self._waits.pop(effect.waiter, None)
        _must(wait is not None, "{} settles a wait that is not open", process)
        assert wait is not None
        until_s = max(wait.until_s, process.woke_at_s) + self._wait_slack_s
        _must(self._cluster.now_s <= until_s, "{}: a request waited past its bound", process)
        outcome = effect.outcome
        if isinstance(outcome, Found):
            self._found(process, wait.sid, wait.dots, outcome)
            return
        assert wait.wrote is not None
        self._cluster.counts[type(outcome).__name__.lower()] += 1
        if isinstance(outcome, Confirmed | Degraded):
            self._confirmed(process, wait.wrote, outcome)

    def delivered(self, sender: Process, receiver: Process, message: LinkMessage) -> None:
        """Count what arrives.

        Raises:
            Violation: somebody has something to say of sessions when nothing happens to them.
        """
        for mark in marks.of_message(receiver, message):
            self._cluster.counts[mark] += 1
        match message:
            case Hello():
                self._heard(receiver, message.clock)
                return
            case Push():
                self.pushes += 1
            case SyncPage() if message.sessions:
                pass
            case Pull():
                pass
            case _:
                return
        _must(not self._quiet, "{} sends {} when nobody writes", sender, type(message).__name__)

    def quiet_from(self, now: bool) -> None:
        """From here on, or no more, nodes have nothing to say of sessions."""
        self._quiet = now

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
                first = live[0].records[sid]
                same = record.entries == first.entries and record.tombstone == first.tombstone
                _must(same, "{} and {} hash unequal states of {} alike", process, live[0], sid)
        for wait in self._waits.values():
            # One that has begun a moment ago may still run: nodes may agree while requests come.
            due = wait.until_s + self._wait_slack_s < self._cluster.now_s
            _must(not (wait.process.alive and due), "{} never settled a wait on {}", wait.process, wait.sid)
        for wrote, witnesses in self._promises:
            if any(witness.alive for witness in witnesses):
                for process in live:
                    kept = holds(process.records.get(wrote.sid), wrote) or self._may_have_ended(process, wrote)
                    _must(kept, "{} lacks a confirmed {}, though a holder survived", process, wrote)
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
    ) -> None:
        values = dict(kept)
        values.update(changes)
        before = process.seen.get(sid)
        stamp = answer.record.entries[next(iter(values))].stamp
        wrote = Wrote(sid, process.node, stamp, values)
        self._new_dot(process, wrote)
        if before is not None:
            for key, entry in before.entries.items():
                _must(entry.stamp < stamp, "{}: {} is not stamped above {}, which it has read", process, wrote, key)
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
        _must(wrote.stamp > last, "{}: {} is not stamped above its last write", process, wrote)
        self._origin_last[wrote.origin] = wrote.stamp
        self._writes.setdefault(wrote.sid, {})[(wrote.origin, wrote.stamp)] = wrote

    def _wait(self, process: Process, wrote: Wrote, waiter: Waiter, answer: Written) -> None:
        if answer.outcome is None:
            until_s = self._cluster.now_s + Settings().confirm_timeout_s
            self._waits[waiter] = _Wait(process, until_s, wrote, wrote.sid, ())

    def _look_at(self, process: Process) -> None:
        seen, records = process.seen, process.records
        for sid, record in records.items():
            before = seen.get(sid)
            if record is not before:
                self._check(process, before, record)
                seen[sid] = record
                self._held_since.setdefault((process.node, sid), self._cluster.now_s)
        if len(seen) > len(records):
            for sid in [sid for sid in seen if sid not in records]:
                self._check_dropped(process, seen.pop(sid))
                del self._held_since[process.node, sid]

    def _check(self, process: Process, before: Record | None, record: Record) -> None:
        sid, entries, claims = record.sid, record.entries, record.claims
        writes = self._writes.get(sid, {})
        ahead_ms = time_ms_of(record.newest) - self._own_ms(process)
        _must(ahead_ms <= AHEAD_MS_MAX + AHEAD_SLACK_MS, "{} took in {} of the future", process, sid)
        _must(len(claims) <= record_module.CLAIMS_MAX, "{}: too many claims in {}", process, sid)
        self._heard(process, record.newest)
        if record.tombstone:
            self._dead_at[process.label, sid] = None
            known = any(wrote.values is None and wrote.stamp == record.tombstone for wrote in writes.values())
            _must(known, "{}: nobody invalidated {} at {}", process, sid, record.tombstone)
            mark = entry_mark(sid, RESERVED, record.tombstone, bytes(8))
            _must(record.state_hash == mark and not entries, "{}: {} is dead, but has a state", process, sid)
        else:
            buried = sid in self._buried or (process.label, sid) in self._dead_at
            _must(not buried, "{}: {} came back to life", process, sid)
            total = 0
            for key, entry in entries.items():
                wrote = writes.get((entry.origin, entry.stamp))
                known = wrote is not None and wrote.values is not None and (key, entry.value) in wrote.values.items()
                _must(known, "{}: nobody wrote {} of {} at {}", process, key, sid, entry.stamp)
                total += entry_mark(sid, key, entry.stamp, entry.origin)
                covered = claims.get(entry.origin, 0) >= entry.stamp
                _must(covered or not record.covered, "{}: {} says covered, but {} is not", process, sid, key)
            _must(record.state_hash == total & HASH_MASK, "{}: the hash of {} is not its state's", process, sid)
            for wrote in writes.values():
                if wrote.stamp <= claims.get(wrote.origin, 0) and wrote.values is not None:
                    _must(holds(record, wrote), "containment: {} claims {}, and does not hold it", process, wrote)
        if before is not None:
            if any(origin not in claims for origin in before.claims) and not record.tombstone:
                self._cluster.counts["claims forgotten"] += 1
            _must(record.tombstone >= before.tombstone, "{}: {} came back to life", process, sid)
            for key, entry in before.entries.items() if not record.tombstone else ():
                after = entries.get(key)
                forward = after is not None and (after.stamp, after.origin) >= (entry.stamp, entry.origin)
                _must(forward, "{}: {} of {} went back", process, key, sid)

    def _check_dropped(self, process: Process, record: Record) -> None:
        sid, time_ms = record.sid, self._cluster_ms(process)
        if record.tombstone:
            ends_ms = time_ms_of(record.tombstone) + table_module.TOMBSTONE_MS
            _must(ends_ms <= time_ms, "{} dropped the tombstone of {} before its time", process, sid)
            self._cluster.counts["tombstones ended"] += 1
            return
        self._cluster.counts["expired"] += 1
        absolute_ms, idle_ms = (table_module.register(record, key) for key in (ABSOLUTE, IDLE))
        if absolute_ms <= time_ms:
            return
        idle_ends_ms = time_ms_of(record.newest) + idle_ms
        _must(idle_ends_ms <= time_ms, "{} dropped {} before its time", process, sid)
        scenario = self._cluster.scenario
        if scenario.faults.lossy_links:
            return  # what a lost message said, nobody says again before the next access
        # Clocks that differ, and those that run at another pace for as long as the run lasts.
        apart_s = 2 * scenario.skew_ms / 1000 + 2 * scenario.drift * self._cluster.now_s + EXPIRY_SLACK_S
        from_s = self._cluster.now_s - idle_ms / 1000 + apart_s
        for other in self._cluster.live:
            access_s = self._accesses.get(sid, {}).get(other.node, 0.0)
            tellable_s = max(access_s + expiry.EVERY_S, _linked_since_s(process, other), self._cluster.clear_since_s)
            told = tellable_s + TOLD_WITHIN_S < self._cluster.now_s
            if other is not process and told and not other.records.get(sid, record).tombstone:
                in_use = from_s < access_s
                _must(not in_use, "{} dropped {}, which its peer {} knows to be in use", process, sid, other)

    def _check_verdicts(self, process: Process) -> None:
        first_s = 2 * self._cluster.scenario.probe_interval_s
        if process.paused_for_s < PAUSE_S or self._cluster.now_s > process.woke_at_s + first_s:
            return
        self._cluster.counts["pauses guarded"] += 1
        for effect in process.replica.outbox:
            judged = isinstance(effect, MemberChanged) and effect.member.state is MemberState.DEAD
            _must(not judged, "{} stood still, and takes others for dead", process)

    def _check_owed(self, process: Process) -> None:
        for outbound in process.replica.sessions.outbounds:
            owed = len(outbound.owed) + len(outbound.resting)
            _must(owed <= min(replication.DIRTY_MAX, len(self._writes)), "{} remembers {} owed", process, owed)
            self._cluster.counts["collapsed"] += outbound.collapsed
            self._cluster.counts["hot sessions rested"] += bool(outbound.resting)

    def _check_sent(self, process: Process) -> None:
        for effect in process.replica.outbox:
            if isinstance(effect, Send) and isinstance(effect.message, Push):
                pushes = self._unanswered.setdefault((process.node, effect.link), {})
                before = sum(pushes.values())
                room = before < replication.IN_FLIGHT_BYTES_MAX or not effect.message.deltas
                _must(room, "{} sends more, with {} bytes unanswered", process, before)
                pushes[effect.message.sequence] = sum(
                    replication.DELTA_OVERHEAD_BYTES + sum(entry_bytes(entry[0], entry[3]) for entry in delta.entries)
                    for delta in effect.message.deltas
                )

    def _own_ms(self, process: Process) -> int:
        return int(process.clock(self._cluster.now_s) * 1000) + process.offset_ms

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
        last_ms = max(time_ms_of(one.stamp) for one in writes)
        absolutes = [one.values[ABSOLUTE] for one in writes if one.values is not None and ABSOLUTE in one.values]
        absolute_ms = max(int.from_bytes(value or b"", "big") for value in absolutes)
        return min(absolute_ms, last_ms + self._cluster.scenario.idle_ms) <= time_ms

    def _check_sums(self, process: Process) -> None:
        sums = [0] * PARTITIONS
        for sid, record in process.records.items():
            sums[partition_of(sid)] += record.state_hash
        for partition, total in enumerate(sums):
            held = process.replica.sessions.table.sums[partition]
            _must(held == total & HASH_MASK, "{}: wrong sum of partition {}", process, partition)
        cost = sum(table_module.held_bytes(record) for record in process.records.values())
        _must(process.replica.sessions.table.bytes == cost, "{}: wrong account of memory", process)

    def _confirmed(self, process: Process, wrote: Wrote, outcome: Confirmed | Degraded) -> None:
        holders = [one for one in self._holders(wrote) if one is not process]
        nodes, hosts = len(holders), len({one.host for one in holders if one.host != process.host})
        enough = nodes >= outcome.nodes and hosts >= outcome.hosts
        _must(enough, "{} says {} of {}, but {} nodes hold it", process, outcome, wrote, nodes)
        if isinstance(outcome, Confirmed) and outcome.nodes:
            self._promises.append(_Promise(wrote, (process, *holders)))

    def _holders(self, wrote: Wrote) -> Iterator[Process]:
        return (one for one in self._cluster.processes if holds(one.records.get(wrote.sid), wrote))

    def _found(self, process: Process, sid: Sid, dots: tuple[Dot, ...], found: Found) -> None:
        self._cluster.counts[f"found {found.value}"] += 1
        record = process.records.get(sid)
        if found is Found.FRESH:
            for dot in dots:
                wrote = self._writes[sid][dot]
                _must(holds(record, wrote), "{} calls {} fresh without {}", process, sid, wrote)
        elif found is Found.STALE:
            _must(record is not None, "{} calls {} stale, and does not hold it", process, sid)
        elif found is Found.ABSENT:
            known = bool(process.replica.linked) or process.replica.sessions.synced
            _must(known, "{} calls {} absent, having asked nobody", process, sid)
            for other in self._cluster.live:
                since_s = max(
                    self._held_since.get((other.node, sid), self._cluster.now_s), _linked_since_s(process, other)
                )
                told = self._cluster.now_s - since_s < HELD_FOR_S
                _must(told, "{} calls {} absent, but its peer {} holds it", process, sid, other)


def _linked_since_s(process: Process, other: Process) -> float:
    number = process.replica.linked.get(other.node)
    link = process.links.get(number) if number is not None else None
    return link.opened_at_s if link is not None and not link.broken else inf


def _must(holds_so: bool, message: str, *parts: object) -> None:
    if not holds_so:
        texts = [
            part.label if isinstance(part, Process) else short(part) if isinstance(part, bytes) else f"{part}"
            for part in parts
        ]
        raise Violation(message.format(*texts), message)
