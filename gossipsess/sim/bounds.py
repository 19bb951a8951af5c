# Bounds: what must hold of a node beyond its records: what it owes to whom, when it works, whom it takes for dead.
#
#   backlog    a peer is owed nothing of a session never held here; what is on its way to it is bounded
#   timers     a deadline that is always due again would burn a processor for nothing
#   verdicts   who stood still judges nobody right after it; who said that it leaves is not taken for dead; nor is
#              anybody because a list says so, which may be older than a refutation
#
# In:    each event of each process, before its effects are carried out.    Out: `Violation`.
# Not here: records (records.py), waits (waits.py).

from collections import Counter
from typing import Final

from gossipsess.model.identity import NodeId, Sid
from gossipsess.model.member import MemberState
from gossipsess.model.record import Record, entry_bytes
from gossipsess.protocol import replication
from gossipsess.protocol.effects import MemberChanged, Send
from gossipsess.protocol.events import Event, LinkClosed, Received, ReceivedDatagram, Tick
from gossipsess.sim.history import must
from gossipsess.sim.process import Process
from gossipsess.sim.world import World
from gossipsess.wire.messages import Hello, Members, ProbeAck, Push, PushAck

SPIN_WINDOW_S: Final = 0.1
SPIN_TICKS: Final = 1000
"""Ticks in one window. A timer that is always due again would burn a processor for nothing."""
BACKLOG_EVERY: Final = 20
"""Events between two looks at what one process owes its peers."""
PAUSE_S: Final = 3.0
"""Who stood still this long must have noticed it by the first deadline it serves."""


class Bounds:
    """Watches one world's processes."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._events = 0
        self._ticks: Counter[tuple[NodeId, int]] = Counter()
        self._held: dict[tuple[NodeId, Sid], None] = {}  # sessions that a node ever held
        self._largest_bytes: dict[NodeId, int] = {}  # of the records that a node ever held
        self._unanswered: dict[tuple[NodeId, int], dict[int, int]] = {}  # of a link's pushes: sequence -> bytes
        self._said_bye: dict[tuple[NodeId, NodeId], None] = {}  # who heard it, and of whom

    def held(self, process: Process, record: Record) -> None:
        """Note a record that a process holds now."""
        self._held[process.node, record.sid] = None
        self._largest_bytes[process.node] = max(self._largest_bytes.get(process.node, 0), record.size)

    def said_bye(self, sender: Process, receiver: Process) -> None:
        """Note that a process hears that its peer leaves."""
        if sender.node in receiver.replica.linked:  # else it is not listened to
            self._said_bye[receiver.node, sender.node] = None

    def handled(self, process: Process, event: Event) -> None:
        """Look at a process that took an event.

        Raises:
            Violation: a bound is passed, or somebody judged who must not be.
        """
        for change in _changes(process):
            if change.member.state is MemberState.DEAD:
                left = (process.node, change.member.node) in self._said_bye
                must(not left, "{} takes {} for dead, which said that it leaves", process, change.member.node)
        match event:
            case Received(_, Hello() | Members()):
                for change in _changes(process):
                    was_live = change.before in (MemberState.ALIVE, MemberState.SUSPECT)
                    died = was_live and change.member.state is MemberState.DEAD
                    must(not died, "{} takes somebody for dead by hearsay", process)
            case Received(link, PushAck(sequence)):
                pushes = self._unanswered.get((process.node, link), {})
                self._unanswered[process.node, link] = {one: size for one, size in pushes.items() if one > sequence}
            case LinkClosed(link):
                self._unanswered.pop((process.node, link), None)
            case ReceivedDatagram(sender, _, ProbeAck()):
                for change in _changes(process):
                    if change.member.node == sender and change.before is MemberState.DEAD:
                        self._world.counts["graveyard answers"] += 1
            case _:
                pass
        self._check_sent(process)
        if isinstance(event, Tick):
            self._check_timers(process)
            self._check_verdicts(process)
        self._events += 1
        if self._events % BACKLOG_EVERY == 0:
            self._check_backlog(process)

    def _check_timers(self, process: Process) -> None:
        window = (process.node, int(self._world.now_s / SPIN_WINDOW_S))
        self._ticks[window] += 1
        must(self._ticks[window] <= SPIN_TICKS, "{} is due again and again, and does nothing", process)

    def _check_verdicts(self, process: Process) -> None:
        first_s = 2 * self._world.scenario.probe_interval_s
        if process.paused_for_s < PAUSE_S or self._world.now_s > process.woke_at_s + first_s:
            return
        self._world.counts["pauses guarded"] += 1
        for change in _changes(process):
            judged = change.member.state is MemberState.DEAD
            must(not judged, "{} stood still, and takes others for dead", process)

    def _check_sent(self, process: Process) -> None:
        for effect in process.replica.outbox:
            if isinstance(effect, Send) and isinstance(effect.message, Push):
                pushes = self._unanswered.setdefault((process.node, effect.link), {})
                before = sum(pushes.values())
                room = before < replication.IN_FLIGHT_BYTES_MAX or not effect.message.deltas
                must(room, "{} sends more, with {} bytes unanswered", process, before)
                pushes[effect.message.sequence] = sum(
                    replication.DELTA_OVERHEAD_BYTES + sum(entry_bytes(entry[0], entry[3]) for entry in delta.entries)
                    for delta in effect.message.deltas
                )

    def _check_backlog(self, process: Process) -> None:
        most = replication.IN_FLIGHT_BYTES_MAX
        for outbound in (peer.outbound for peer in process.replica.sessions.peers):
            owed = (*outbound.owed, *outbound.resting)
            most_owed = replication.DIRTY_MAX + replication.ASKED_MAX
            must(len(owed) <= most_owed, "{} remembers {} sessions owed", process, len(owed))
            for sid in owed:
                must((process.node, sid) in self._held, "{} owes {}, which it never held", process, sid)
            self._world.counts["collapsed"] += outbound.collapsed
            self._world.counts["hot sessions rested"] += bool(outbound.resting)
            in_flight = outbound.in_flight_bytes
            if in_flight >= most:
                self._world.counts["in flight enough"] += 1
                largest = self._largest_bytes.get(process.node, 0) + replication.DELTA_OVERHEAD_BYTES
                one_push = replication.PUSH_BYTES + largest
                must(in_flight < most + one_push, "{} has {} bytes on their way to a peer", process, in_flight)


def _changes(process: Process) -> list[MemberChanged]:
    return [effect for effect in process.replica.outbox if isinstance(effect, MemberChanged)]
