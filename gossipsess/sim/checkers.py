# Checkers: what must hold, whatever the network does. Here the observer of a run, and what holds after the heal.
#
# After each event, for each record that it changed:  records.py; for one that is gone: ends.py.
# For each write:    its stamp is above everything in the state it replaces, and its dot is new (records.py).
# For each counter:  it shows what was added in sum, and not cleared by who had seen it (counters.py).
# For each cookie of a framework's own that is shown: it is one session, once (adoptions.py).
# For each outcome:  what requests are told is so, and in time (waits.py); of reads it is sure where nothing is wrong
#                    (calm.py).
# For each process:  what it owes is bounded, its timers rest, and it judges nobody it must not (bounds.py).
# After the heal:    the holders of each session hold the same (`difference`), all see each other and nobody else
#                    (`unsettled`), and every confirmed write and invalidation of which one witness survived is there
#                    (`check_end`).
# While all is well: few messages for a write, and none that say something when nobody writes (`quiet_from`).
#
# A checker sees records and history only, never what the protocol thinks of itself: the marks, sums, cover and
# deadlines are computed anew.

from collections.abc import Mapping
from functools import partial
from math import inf
from typing import Final

from gossipsess.model.identity import NodeId, Sid, short
from gossipsess.model.record import Record
from gossipsess.model.subkeys import COUNTER, Added
from gossipsess.protocol.effects import Settle
from gossipsess.protocol.events import (
    Accessed,
    Adopt,
    Changes,
    Event,
    Fetch,
    Invalidate,
    Received,
    ReceivedDatagram,
    Revoke,
    Rotate,
    Write,
)
from gossipsess.protocol.outcomes import Found, Gone
from gossipsess.protocol.writes import Written
from gossipsess.session import Session
from gossipsess.sim import marks, places
from gossipsess.sim.adoptions import Adoptions
from gossipsess.sim.bounds import Bounds
from gossipsess.sim.calm import Calm
from gossipsess.sim.cluster import Cluster
from gossipsess.sim.counters import Counters
from gossipsess.sim.ends import Ends
from gossipsess.sim.history import Wrote, contains, must
from gossipsess.sim.logins import Login, Logins
from gossipsess.sim.process import Process
from gossipsess.sim.records import Records
from gossipsess.sim.times import Times, linked_since_s, newest_in
from gossipsess.sim.waits import Waits
from gossipsess.wire.messages import Bye, Hello, LinkMessage, Pull, Push, SyncAsk, SyncList, SyncPage, SyncSums

LINK_SYNC_S: Final = 1.0
"""How long after a link came up its first sync may still run."""
SUMS_EVERY: Final = 500
"""Events between two recomputations of one process's leaf sums."""


class Checker:
    """Watches one cluster, and raises `Violation` at the first thing that is wrong."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._logins = Logins()
        self._times = Times(cluster)
        self._ends = Ends(cluster, self._times)
        self._records = Records(cluster, self._logins, self._times, self._ends)
        self._gained = places.Gained()
        self._calm = Calm(cluster, self._times)
        self._waits = Waits(cluster, self._records, self._ends, self._gained, self._calm)
        self._counters = Counters(cluster)
        self._adoptions = Adoptions(cluster, self._records, self._ends, self._waits)
        self._bounds = Bounds(cluster)
        self._met_at_s: dict[tuple[NodeId, NodeId], float] = {}  # when a message last came from one to the other
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
            case Received(link, Push(deltas=deltas)) if link in process.replica.linked.values():
                self._times.heard(process, newest_in(deltas))
            case Write(sid, changes) if isinstance(answer, Written):
                if not isinstance(answer.outcome, Gone):
                    self._wrote(process, sid, {}, changes, event, answer)
            case Adopt() if isinstance(answer, Written):
                self._adoptions.adopted(process, event, answer)
            case Revoke(sid) if isinstance(answer, Written):
                held = [self._logins.of(one) for one in process.seen.values()]
                ended = sum(1 for login in held if login is not None and login.user == sid)
                must(
                    answer.ended == ended, "{} ends {} sessions of a user, and not all it holds", process, answer.ended
                )
                self._cluster.counts["revoked"] += ended
                self._logins.revoked(sid, answer.record.tombstone)
                self._killed(process, sid, answer, event)
            case Invalidate(sid) if isinstance(answer, Written):
                self._killed(process, sid, answer, event)
            case Rotate(sid, new_sid, changes) if isinstance(answer, Written):
                if not isinstance(answer.outcome, Gone):
                    old = process.seen[sid]
                    kept: dict[str, bytes | None] = {
                        key: entry.value
                        for key, entry in old.entries.items()
                        if entry.value is not None and not key.startswith(COUNTER)
                    }
                    kept.update(self._counters.moved(process, old, process.records[new_sid]))
                    login = self._logins.of(old)
                    steps = [
                        partial(self._wrote, process, new_sid, kept, changes, event, answer, login),
                        partial(self._killed, process, sid, answer),
                    ]
                    born_first = process.records[sid].newest > process.records[new_sid].newest
                    for step in steps if born_first else reversed(steps):
                        step()
            case Fetch(sid, dots, waiter):
                if isinstance(answer, Found):
                    self._waits.found_at_once(process, sid, dots, answer)
                else:
                    self._waits.for_session(process, sid, dots, waiter)
            case Accessed(sid) if sid in process.records:
                self._ends.accessed(process, sid)
        if not isinstance(event, ReceivedDatagram):  # these are about members; were they not, the next event shows it
            looked = self._records.look_at(process, elsewhere=isinstance(event, Received))
            for record in looked.changed:
                self._bounds.held(process, record)
                self._counters.check(process, record)
            for surplus in looked.dropped:
                self._waits.handed_over(process, surplus)
        self._gained.look_at(process, self._cluster.now_s)
        self._calm.handled(process, event)
        self._bounds.handled(process, event)
        self._count_repairs(process)
        if self._cluster.events % SUMS_EVERY == 0:
            self._records.check_sums(process)

    def settled(self, process: Process, effect: Settle) -> None:
        """Check the outcome of a wait.

        Raises:
            Violation: it says more than is so, comes too late, or twice.
        """
        self._waits.settled(process, effect)

    def delivered(self, sender: Process, receiver: Process, message: LinkMessage) -> None:
        """Count what arrives.

        Raises:
            Violation: somebody has something to say of sessions when nothing happens to them.
        """
        for mark in marks.of_message(receiver, message):
            self._cluster.counts[mark] += 1
        pair = (sender.node, receiver.node)
        if isinstance(message, Hello):
            self._records.was_apart(receiver, self._cluster.now_s - self._met_at_s.get(pair, 0.0))
        self._met_at_s[pair] = self._cluster.now_s
        match message:
            case Hello():
                self._times.heard(receiver, message.clock)
                return
            case Bye():
                self._bounds.said_bye(sender, receiver)
                return
            case Push():
                self.pushes += 1
                sids = [delta.sid for delta in message.deltas]
                if sids and not any(places.is_holder(sender, s) and places.is_holder(receiver, s) for s in sids):
                    return  # copies elsewhere are asked about until they have gone; old ones are made equal before
            case SyncAsk() | SyncSums() if linked_since_s(receiver, sender) >= self._quiet_from_s - LINK_SYNC_S:
                return  # a link came up, now or just before
            case Pull() | SyncAsk() | SyncSums() | SyncList() | SyncPage():
                pass
            case _:
                return
        quiet = self._cluster.now_s >= self._quiet_from_s
        must(not quiet, "{} sends {} when nobody writes", sender, type(message).__name__)

    def handed_over(self, process: Process) -> None:
        """Check what a process that leaves in good order has left to others.

        Raises:
            Violation: it takes the only copy of something with it.
        """
        self._ends.left(process)

    def quiet_from(self, now: bool) -> None:
        """From here on, or no more, nodes have nothing to say of sessions."""
        self._quiet_from_s = self._cluster.now_s if now else inf

    # --- when it has healed -------------------------------------------------------------------------------

    def difference(self) -> str | None:
        """Say in what the processes do not yet hold what they have to; None when they do.

        The holders of a session hold the same. Others may have a copy too, and it has nothing that the holders lack.
        """
        live = self._cluster.live
        nodes = [process.node for process in live]
        for process in live:
            missing = [node for node in nodes if node != process.node and node not in process.replica.linked]
            if missing:
                return f"{process.label} has no link to {short(missing[0])}"
        differences = map(self._difference_of, sorted({sid: None for process in live for sid in process.records}))
        return next((difference for difference in differences if difference is not None), None)

    def _difference_of(self, sid: Sid) -> str | None:
        live = self._cluster.live
        views = [places.running_holders(process, sid, live) for process in live]
        holders = views[0]
        for process, view in zip(live, views, strict=True):
            if not view or view != holders:
                labels = [[one.label for one in each] for each in (holders, view)]
                return (
                    f"session {short(sid)} belongs to {labels[0]} by {live[0].label}, to {labels[1]} by {process.label}"
                )
        first, held = holders[0], holders[0].records.get(sid)
        for process in live:
            record = process.records.get(sid)
            same = record is held or (record is not None and held is not None and record.state_hash == held.state_hash)
            if record is None or held is None:
                # Each drops the tombstone at its end by its own clock, and may be given it once more until all have.
                same = same or any(
                    one is not None and one.tombstone > 0 and self._ends.may_be_over(where, one)
                    for where, one in ((process, record), (first, held))
                )
            if not same and (process in holders or (record is not None and not contains(held, record))):
                return f"session {short(sid)} is {held} at {first.label} and {record} at {process.label}"
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
            if process.replica.sessions.anti_entropy.gains.unsynced:
                return f"{process.label} has not seen yet what all hold of what it gained"
            if process.replica.placement.next_deadline() is not None:
                return f"at {process.label} names of the dead still count, and its layout will change"
            if process.replica.sessions.unacknowledged:
                return f"{process.label} owes {process.replica.sessions.unacknowledged} session states"
        return None

    def check_end(self) -> None:
        """Check what must hold once there is no difference.

        Raises:
            Violation: equal hashes over unequal states, wrong sums, a lost write, a wait without an end.
        """
        hashed: dict[tuple[Sid, int], Record] = {}
        for process in self._cluster.live:
            self._records.check_sums(process)
            for sid, record in process.records.items():
                self._records.check_claims(process, record)
                first = hashed.setdefault((sid, record.state_hash), record)
                same = record.entries == first.entries and record.tombstone == first.tombstone
                must(same, "{} and another hash unequal states of {} alike", process, sid)
        self._waits.check_end()

    def check_read(self, process: Process, sid: Sid, found: Found | None, record: Record | None) -> None:
        """Check what a read was told when all is well, at one of a session's holders or elsewhere.

        `record`: what was there at that moment.

        Raises:
            Violation: a dead session is served, or not what the holders have.
        """
        held = places.running_holders(process, sid, self._cluster.live)[0].records.get(sid)
        served = record if found in (Found.FRESH, Found.STALE) else None
        if held is None:
            return  # it has ended meanwhile, there first
        if held.tombstone:
            must(served is None or served.tombstone > 0, "{} serves {}, which is dead", process, sid)
            return
        same = served is not None and served.state_hash == held.state_hash
        same = same or self._ends.may_be_over(process, held)
        must(same, "{} reads {} as {}, and has not what its holders have", process, sid, found)

    def may_doubt(self, process: Process, sid: Sid) -> bool:
        """Say whether a process may not know of a session for good, as it wrote it before it knew of a death."""
        return self._calm.is_doubted(process, (), self._records.stamps_by(process, sid))

    def cookie_must_be(self, sid: Sid) -> bool | None:
        """Say what a cookie has to be when all is well: its session, or nothing; None where either is right."""
        return self._adoptions.must_be(sid)

    def check_shown(self, process: Process, sid: Sid, expected: bool | None, session: Session | None) -> None:
        """Check what a cookie has come to, when all is well.

        Raises:
            Violation: it is not what it has to be.
        """
        self._adoptions.check_shown(process, sid, expected, session)

    # --- inside -------------------------------------------------------------------------------------------

    def _wrote(
        self,
        process: Process,
        sid: Sid,
        kept: Mapping[str, bytes | None],
        changes: Changes,
        event: Write | Rotate,
        answer: Written,
        login: Login | None = None,
    ) -> None:
        before = process.seen.get(sid)
        read = (event.base if isinstance(event, Write) else None) or before  # of what was rotated nobody has read yet
        changed = {key: value for key, value in changes if not isinstance(value, Added)}
        counted = self._counters.wrote(process, answer.record, changes, read.entries if read is not None else {})
        values = {**kept, **changed, **counted}
        stamp = answer.record.entries[next(iter(values))].stamp
        wrote = Wrote(sid, process.node, stamp, values)
        self._logins.wrote(sid, (process.node, stamp), changed, login)
        self._records.wrote(process, wrote)
        if before is not None:
            for key, entry in before.entries.items():
                must(entry.stamp < stamp, "{}: {} is not stamped above {}, which it has read", process, wrote, key)
        if answer.outcome is None:
            self._waits.for_write(process, wrote, event.waiter, event.confirm)

    def _killed(self, process: Process, sid: Sid, answer: Written, event: Invalidate | Revoke | None = None) -> None:
        before = process.seen.get(sid)
        wrote = Wrote(sid, process.node, process.records[sid].tombstone, None)
        if before is not None and before.tombstone == wrote.stamp:
            return  # the older invalidation had the higher stamp
        self._records.wrote(process, wrote)
        if event is not None and answer.outcome is None:
            self._waits.for_write(process, wrote, event.waiter, event.confirm)

    def _count_repairs(self, process: Process) -> None:
        sessions = process.replica.sessions.anti_entropy
        begun, found = self._repairs.get(process.node, (0, 0))
        if (sessions.repairs, sessions.repaired) != (begun, found):
            self._cluster.counts["digest mismatches"] += sessions.repairs - begun
            self._cluster.counts["repaired by digest"] += sessions.repaired - found
            self._repairs[process.node] = (sessions.repairs, sessions.repaired)
