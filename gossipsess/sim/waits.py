# Waits: what requests are told, when, and whether it is so.
#
#   confirmed   held by that many others, as many as were asked for, and not dead here; what was confirmed is at all
#               its holders after the heal, if one survived of those who held it then or were handed it since
#   fresh       the dots that were asked for are there
#   sure        not told that nobody knows, where a read begins and ends in calm (calm.py)
#   absent      not said while a node that was asked holds the session: one of its holders, or who wrote what the
#               request names; unless it is over by the time of who asks
#   bounded     no wait outlasts its bound, and none ends twice
#
# In:    the waits that requests begin, and their outcomes.    Out: `Violation`.

from typing import Final, NamedTuple

from gossipsess.model.identity import NodeId, Sid
from gossipsess.model.member import Member
from gossipsess.protocol.effects import Settle
from gossipsess.protocol.events import Confirm, Dot, Waiter
from gossipsess.protocol.fetch import FETCH_TIMEOUT_S
from gossipsess.protocol.outcomes import Confirmed, Degraded, Found
from gossipsess.protocol.replica import Settings
from gossipsess.sim import places
from gossipsess.sim.calm import Calm
from gossipsess.sim.cluster import Cluster
from gossipsess.sim.ends import Ends, Surplus
from gossipsess.sim.history import Wrote, holds, must
from gossipsess.sim.process import Process
from gossipsess.sim.records import Records
from gossipsess.sim.times import linked_since_s

WAIT_SLACK_S: Final = 0.001
LINKED_FOR_S: Final = 1.0
"""A node whose link has been up this long when a request asks is one of those that are asked."""


class _Wait(NamedTuple):
    process: Process
    until_s: float
    wrote: Wrote | None
    sid: Sid
    dots: tuple[Dot, ...]
    confirm: Confirm = 0
    members: tuple[Member, ...] = ()
    """The other members that were live for the process when the wait began."""
    holders: tuple[NodeId, ...] = ()
    """Who held the session by its layout."""
    sure: bool = False
    """It began in calm, and asks for nothing that may be lost."""


class _Promise(NamedTuple):
    wrote: Wrote
    witnesses: tuple[Process, ...]
    """Who held it when it was confirmed, or has it from one who held it and dropped it."""


class Waits:
    """The waits of one cluster's requests, and what was promised to them."""

    def __init__(self, cluster: Cluster, records: Records, ends: Ends, gained: places.Gained, calm: Calm) -> None:
        self._cluster = cluster
        self._calm = calm
        self._gained = gained
        self._records = records
        self._ends = ends
        self._waits: dict[Waiter, _Wait] = {}
        self._promises: list[_Promise] = []
        slow_s = [mishap.period_s for mishap in cluster.scenario.mishaps if mishap.kind == "slow"]
        self._slack_s = WAIT_SLACK_S + max(slow_s, default=0.0)

    def for_write(self, process: Process, wrote: Wrote, waiter: Waiter, confirm: Confirm) -> None:
        """Note that a request waits for a write to be confirmed."""
        until_s = self._cluster.now_s + Settings().confirm_timeout_s
        members, holders = tuple(process.replica.swim.view.live()), places.holders(process, wrote.sid)
        self._waits[waiter] = _Wait(process, until_s, wrote, wrote.sid, (), confirm, members, holders)

    def for_session(self, process: Process, sid: Sid, dots: tuple[Dot, ...], waiter: Waiter) -> None:
        """Note that a request waits for a session to be found."""
        until_s = self._cluster.now_s + FETCH_TIMEOUT_S
        self._waits[waiter] = _Wait(process, until_s, None, sid, dots, sure=self._must_be_sure(process, sid, dots))

    def settled(self, process: Process, effect: Settle) -> None:
        """Check the outcome of a wait.

        Raises:
            Violation: it says more than is so, comes too late, or twice.
        """
        wait = self._waits.pop(effect.waiter, None)
        must(wait is not None, "{} settles a wait that is not open", process)
        assert wait is not None
        until_s = max(wait.until_s + process.stopped_s, process.woke_at_s) + self._slack_s
        must(self._cluster.now_s <= until_s, "{}: a request waited past its bound", process)
        outcome = effect.outcome
        if isinstance(outcome, Found):
            self._found(process, wait.sid, wait.dots, outcome, wait.until_s - FETCH_TIMEOUT_S)
            sure = outcome is not Found.UNKNOWN or not (wait.sure and self._calm.is_now())
            must(sure, "{} cannot tell whether there is {}, though all is well", process, wait.sid)
            return
        assert wait.wrote is not None
        self._cluster.counts[type(outcome).__name__.lower()] += 1
        record = process.records.get(wait.wrote.sid)
        dead = wait.wrote.values is not None and record is not None and record.tombstone
        must(not (dead and isinstance(outcome, Confirmed)), "{} confirms {}, which is dead there", process, wait.wrote)
        # One that stood still tells of what was so before: the session may have ended by time meanwhile.
        late = self._cluster.now_s > wait.until_s + self._slack_s
        if isinstance(outcome, Confirmed | Degraded) and not late:
            self._confirmed(process, wait.wrote, outcome)
            if isinstance(outcome, Confirmed):
                self._check_enough(process, wait, wait.wrote, outcome)

    def handed_over(self, process: Process, surplus: Surplus) -> None:
        """Note that a process has dropped what others hold: they are the witnesses now."""
        for place, (wrote, witnesses) in enumerate(self._promises):
            if wrote.sid == surplus.record.sid and process in witnesses and holds(surplus.record, wrote):
                stay = [one for one in witnesses if one is not process]
                self._promises[place] = _Promise(wrote, tuple(dict.fromkeys((*stay, *surplus.kept_by))))

    def found_at_once(self, process: Process, sid: Sid, dots: tuple[Dot, ...], found: Found) -> None:
        """Check what a request that asks for a session was told at once.

        Raises:
            Violation: it is not so.
        """
        self._found(process, sid, dots, found, self._cluster.now_s)
        sure = found is not Found.UNKNOWN or not self._must_be_sure(process, sid, dots)
        must(sure, "{} cannot tell whether there is {}, though all is well", process, sid)

    def _found(self, process: Process, sid: Sid, dots: tuple[Dot, ...], found: Found, asked_s: float) -> None:
        self._cluster.counts[f"found {found.value}"] += 1
        record = process.records.get(sid)
        if found is Found.FRESH:
            for dot in dots:
                wrote = self._records.write_of(sid, dot)
                must(holds(record, wrote), "{} calls {} fresh without {}", process, sid, wrote)
        elif found is Found.STALE:
            must(record is not None, "{} calls {} stale, and does not hold it", process, sid)
        elif found is Found.ABSENT:
            known = bool(process.replica.linked) or process.replica.sessions.synced
            must(known, "{} calls {} absent, having asked nobody", process, sid)
            asked_nodes = (*places.holders(process, sid), *(origin for origin, _ in dots))
            for other in self._cluster.live:
                if other.node not in asked_nodes or sid not in other.records:
                    continue
                held = self._records.held_since_s(other, sid) < asked_s
                asked = asked_s - linked_since_s(process, other) >= LINKED_FOR_S
                # Which may not have noticed yet that it is over by the time where it was asked for.
                held = held and not self._ends.is_over_for(process, other, sid)
                must(not (held and asked), "{} calls {} absent, but its peer {} holds it", process, sid, other)
            self._check_filled_up(process, sid, asked_s)
            self._cluster.counts["held elsewhere yet"] += any(sid in other.records for other in self._cluster.live)

    def check_end(self) -> None:
        """Check what must hold once there is no difference.

        Raises:
            Violation: a wait without an end, or a confirmed write that is lost.
        """
        for wait in self._waits.values():
            # One that has begun a moment ago may still run: nodes may agree while requests come.
            due = wait.until_s + wait.process.stopped_s + self._slack_s < self._cluster.now_s
            must(not (wait.process.alive and due), "{} never settled a wait on {}", wait.process, wait.sid)
        for wrote, witnesses in self._promises:
            if any(witness.alive for witness in witnesses):
                writes = self._records.writes_of(wrote.sid)
                for process in self._cluster.live:
                    if not places.is_holder(process, wrote.sid):
                        continue
                    kept = holds(process.records.get(wrote.sid), wrote)
                    kept = kept or self._ends.may_have_ended(process, wrote, writes)
                    must(kept, "{} lacks a confirmed {}, though a holder survived", process, wrote)
                if wrote.values is None:
                    self._records.buried(wrote.sid)

    def _must_be_sure(self, process: Process, sid: Sid, dots: tuple[Dot, ...]) -> bool:
        return self._calm.must_be_sure(process, sid, dots, self._records.stamps_by(process, sid))

    def _check_filled_up(self, process: Process, sid: Sid, asked_s: float) -> None:
        """Check that nobody was believed who had only begun to pull what it gained.

        Who lacks what a peer has held since before it was a holder itself has not seen yet what that peer holds. Its
        "not held" proves nothing, and that peer must have been asked.
        """
        holders = places.running_holders(process, sid, self._cluster.live)
        for other in self._cluster.live:
            since_s = self._records.held_since_s(other, sid)
            asked = asked_s - linked_since_s(process, other) >= LINKED_FOR_S
            if not asked or since_s >= asked_s or sid not in other.records:
                continue
            if self._ends.may_be_over(other, other.records[sid]):
                continue
            for holder in holders:
                known = asked_s - linked_since_s(holder, other) >= LINKED_FOR_S
                lacks = sid not in holder.records and since_s < self._gained.since_s(holder, sid) < asked_s
                unsure = known and lacks and holder is not process
                must(not unsure, "{} calls {} absent, as {} does, which fills up", process, sid, holder)

    def _confirmed(self, process: Process, wrote: Wrote, outcome: Confirmed | Degraded) -> None:
        ran = self._cluster.processes
        holders = [one for one in ran if holds(one.records.get(wrote.sid), wrote) and one is not process]
        # Between an acknowledgement and its arrival a session may have come to its end, or a copy may have gone since
        # the holders have it, and been dropped.
        counted = [*holders, *(one for one in ran if one not in holders and self._ends.held_until_dropped(one, wrote))]
        nodes, hosts = len(counted), len({one.host for one in counted if one.host != process.host})
        enough = nodes >= outcome.nodes and hosts >= outcome.hosts
        must(enough, "{} says {} of {}, but {} nodes hold it", process, outcome, wrote, nodes)
        if isinstance(outcome, Confirmed) and outcome.nodes:
            self._promises.append(_Promise(wrote, (process, *holders)))

    def _check_enough(self, process: Process, wait: _Wait, wrote: Wrote, outcome: Confirmed) -> None:
        # Who came or went while it waited counts or does not: both are right. Who leaves takes its copy with it.
        stay = [member for member in process.replica.swim.view.live() if member in wait.members and not member.leaving]
        stayed = {member.node: member.host for member in stay}
        if wait.confirm == "all":
            holders = [node for node in places.holders(process, wrote.sid) if node in wait.holders]
            for one in self._cluster.processes:
                held = holds(one.records.get(wrote.sid), wrote) or self._ends.held_until_its_end(one, wrote)
                must(held or one.node not in holders, "{} confirms {} by all, and {} lacks it", process, wrote, one)
            return
        present = [member for member in process.replica.swim.view.live() if not member.leaving]
        others = {member.host: None for member in present if member.host != process.host}
        if others and outcome.hosts >= min(wait.confirm, len(others)):
            return  # as it is now, with who came meanwhile
        hosts = {host: None for host in stayed.values() if host != process.host}
        least, told = (len(hosts), outcome.hosts) if hosts else (len(stayed), outcome.nodes)
        must(told >= min(wait.confirm, least), "{} confirms {} by too few: {}", process, wrote, outcome)
