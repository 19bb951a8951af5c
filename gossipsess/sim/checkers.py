# Checkers: what must hold, whatever the network does; and the history that it is judged by.
#
# After each event, for each record that it changed:
#   containment     who claims a write holds it, or what replaced it;
#   forward only    no key goes back, no tombstone ends, no record vanishes;
#   nothing invented  each entry is a write that a request made, with its value;
#   bookkeeping     the state hash is the sum over the entries; `covered` is true only if they are covered.
# For each write:    its dot is new, and its stamp above everything in the state it replaces.
# For each outcome:  confirmed means held by that many others; fresh means that the dots are there; absent is not
#                    said while a linked node has held the session for a second; no wait outlasts its bound.
# For each timer:    it rests.
# After the heal:    all processes hold the same (`difference`), and every confirmed write and invalidation of which
#                    one witness survived (`lost_promise`).
#
# A checker sees records and history only, never what the protocol thinks of itself: the marks, sums and cover are
# computed here anew. Not here: expiry, since runs are shorter than any session.

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from gossipsess.model.clock import Stamp
from gossipsess.model.digest import PARTITIONS, partition_of
from gossipsess.model.identity import NodeId, Sid, short
from gossipsess.model.record import HASH_MASK, RESERVED, Record, entry_mark
from gossipsess.protocol.effects import Settle
from gossipsess.protocol.events import Changes, Dot, Event, Fetch, Invalidate, Rotate, Tick, Waiter, Write
from gossipsess.protocol.fetch import FETCH_TIMEOUT_S
from gossipsess.protocol.outcomes import Confirmed, Degraded, Found, Gone
from gossipsess.protocol.replica import Settings
from gossipsess.protocol.sessions import Written
from gossipsess.sim.cluster import Cluster, Process

WAIT_SLACK_S: Final = 0.001
HELD_FOR_S: Final = 1.0
"""A node that has held a session this long, over a link that is up, is asked before anyone says absent."""
SPIN_WINDOW_S: Final = 0.1
SPIN_TICKS: Final = 1000
"""Ticks in one window. A timer that is always due again would burn a processor for nothing."""
SUMS_EVERY: Final = 500
"""Events between two recomputations of one process's partition sums."""


class Violation(Exception):
    """Something that must always hold does not."""


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
        self._ticks: Counter[tuple[NodeId, int]] = Counter()

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
                    self._killed(process, sid, None, answer)
                    old = process.seen[sid].entries
                    kept = {key: entry.value for key, entry in old.items() if entry.value is not None}
                    self._wrote(process, new_sid, kept, changes, event.waiter, answer)
            case Fetch(sid, dots, waiter):
                if isinstance(answer, Found):
                    self._found(process, sid, dots, answer)
                else:
                    until_s = self._cluster.now_s + FETCH_TIMEOUT_S
                    self._waits[waiter] = _Wait(process, until_s, None, sid, dots)
            case Tick():
                window = (process.node, int(self._cluster.now_s / SPIN_WINDOW_S))
                self._ticks[window] += 1
                _must(self._ticks[window] <= SPIN_TICKS, "{} is due again and again, and does nothing", process)
        self._look_at(process)
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
        _must(self._cluster.now_s <= wait.until_s + WAIT_SLACK_S, "{}: a request waited past its bound", process)
        outcome = effect.outcome
        if isinstance(outcome, Found):
            self._found(process, wait.sid, wait.dots, outcome)
            return
        assert wait.wrote is not None
        self._cluster.counts[type(outcome).__name__.lower()] += 1
        if isinstance(outcome, Confirmed | Degraded):
            self._confirmed(process, wait.wrote, outcome)

    # --- when it has healed -------------------------------------------------------------------------------

    def difference(self) -> str | None:
        """Say in what the processes are not yet as they should all become; None when they are."""
        live = self._cluster.live
        nodes = [process.node for process in live]
        for process in live:
            missing = [node for node in nodes if node != process.node and node not in process.replica.linked]
            if missing:
                return f"{process.label} has no link to {short(missing[0])}"
            if not process.replica.sessions.synced:
                return f"{process.label} is not synced"
            if process.replica.sessions.unacknowledged:
                return f"{process.label} owes {process.replica.sessions.unacknowledged} session states"
        for process in live[1:]:
            for sid in sorted({**live[0].records, **process.records}):
                mine, theirs = live[0].records.get(sid), process.records.get(sid)
                if mine is None or theirs is None or mine.state_hash != theirs.state_hash:
                    return f"session {short(sid)} is {mine} at {live[0].label} and {theirs} at {process.label}"
        return None

    def check_end(self) -> None:
        """Check what must hold once `difference` is None.

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
            _must(not wait.process.alive, "{} never settled a wait on {}", wait.process, wait.sid)
        for wrote, witnesses in self._promises:
            if any(witness.alive for witness in witnesses):
                for process in live:
                    kept = holds(process.records.get(wrote.sid), wrote)
                    _must(kept, "{} lacks a confirmed {}, though a holder survived", process, wrote)

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
        _must(len(records) >= len(seen), "{}: a record vanished", process)
        for sid, record in records.items():
            before = seen.get(sid)
            if record is not before:
                self._check(process, before, record)
                seen[sid] = record
                self._held_since.setdefault((process.node, sid), self._cluster.now_s)

    def _check(self, process: Process, before: Record | None, record: Record) -> None:
        sid, entries, claims = record.sid, record.entries, record.claims
        writes = self._writes.get(sid, {})
        if record.tombstone:
            known = any(wrote.values is None and wrote.stamp == record.tombstone for wrote in writes.values())
            _must(known, "{}: nobody invalidated {} at {}", process, sid, record.tombstone)
            mark = entry_mark(sid, RESERVED, record.tombstone, bytes(8))
            _must(record.state_hash == mark and not entries, "{}: {} is dead, but has a state", process, sid)
        else:
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
            _must(record.tombstone >= before.tombstone, "{}: {} came back to life", process, sid)
            for key, entry in before.entries.items() if not record.tombstone else ():
                after = entries.get(key)
                forward = after is not None and (after.stamp, after.origin) >= (entry.stamp, entry.origin)
                _must(forward, "{}: {} of {} went back", process, key, sid)

    def _check_sums(self, process: Process) -> None:
        sums = [0] * PARTITIONS
        for sid, record in process.records.items():
            sums[partition_of(sid)] += record.state_hash
        for partition, total in enumerate(sums):
            held = process.replica.sessions.table.sums[partition]
            _must(held == total & HASH_MASK, "{}: wrong sum of partition {}", process, partition)

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
    return link.opened_at_s if link is not None else float("inf")


def _must(holds_so: bool, message: str, *parts: object) -> None:
    if not holds_so:
        texts = [
            part.label if isinstance(part, Process) else short(part) if isinstance(part, bytes) else str(part)
            for part in parts
        ]
        raise Violation(message.format(*texts))
