# Sessions: one node's side of everything that is said about sessions.
#
# In:    what requests do, and the messages of peers whose link is up.
# Out:   effects, appended to the outbox that the replica shares with it.
# Here:  what requests change, and who is sent it; which peers there are, as the replica says; what is due.
# Not here: what a request reads (reads.py), what comes from elsewhere (intake.py), what ends with a session (ends.py),
# what watchers hear (notices.py), who else is to hold it (placement.py), who comes to (antientropy.py).

import math
import random
from typing import Final, NamedTuple

from gossipsess.model.adoption import is_mark_sid
from gossipsess.model.clock import HybridClock, Stamp
from gossipsess.model.delta import not_covered
from gossipsess.model.identity import NodeId, Sid
from gossipsess.model.member import Member, Told
from gossipsess.model.record import CREATED, Record, empty_record
from gossipsess.model.subkeys import rotated
from gossipsess.model.table import Table
from gossipsess.protocol.antientropy import INCOMPARABLE, AntiEntropy
from gossipsess.protocol.confirmation import Confirmations, Ticket
from gossipsess.protocol.effects import Effect, Warn
from gossipsess.protocol.ends import Ends
from gossipsess.protocol.events import (
    Accessed,
    Adopt,
    Confirm,
    Fetch,
    Inherit,
    Invalidate,
    Revoke,
    Rotate,
    Waiter,
    Watch,
    Write,
)
from gossipsess.protocol.fence import Fence
from gossipsess.protocol.intake import Intake
from gossipsess.protocol.memory import MemoryLimit
from gossipsess.protocol.notices import Notices
from gossipsess.protocol.outcomes import Confirmed, Degraded, Found, Gone
from gossipsess.protocol.peers import Peer, Peers
from gossipsess.protocol.placement import Layout, Placement, partition_of
from gossipsess.protocol.reads import Reads
from gossipsess.protocol.recipients import Recipients
from gossipsess.protocol.replication import FLUSH_DELAY_S
from gossipsess.protocol.usage import Usage
from gossipsess.wire.messages import (
    Have,
    Held,
    Pull,
    PullAnswer,
    Push,
    PushAck,
    SessionMessage,
    SyncAsk,
    SyncList,
    SyncPage,
    SyncSums,
    Touch,
    TouchAck,
)

RECHECKED_AT_ONCE: Final = 8
"""Leaves of the table whose hashes and sums are computed anew each second: all of them within nine minutes. At 100,000
sessions that is some 200 records, a few milliseconds."""

_NOBODY: Final = Confirmed(0, 0)


class Written(NamedTuple):
    """What a write left."""

    record: Record
    """The new record; a dead or empty one where the outcome is `Gone`."""
    outcome: Confirmed | Degraded | Gone | None
    """None: `Settle` will tell."""
    ended: int = 0
    """How many sessions of a revoked user were held here."""
    stamp: Stamp = 0
    """The stamp of a write or a rotation, which with this node's id names it; the record need not claim it."""


class SessionProtocol:
    """The session half of a node."""

    def __init__(
        self,
        myself: Member,
        placement: Placement,
        outbox: list[Effect],
        *,
        clock: HybridClock,
        confirm_timeout_s: float,
        memory_limit_bytes: int,
        rng: random.Random,
        now_s: float,
    ) -> None:
        self.table = Table()
        self.clock = clock
        self.memory = MemoryLimit(memory_limit_bytes)
        self.peers = Peers(self.table, outbox)
        self.put_right = 0
        """Hashes and sums that were found wrong when computed anew. A bug, or the machine's memory."""
        self._myself = myself.node
        self._placement = placement
        self._outbox = outbox
        self._recipients = Recipients(myself, placement, self.peers)
        self._confirmations = Confirmations(myself.host, confirm_timeout_s)
        self._usage = Usage(placement, self.peers, self.table, clock=clock, now_s=now_s)
        self._fence = Fence(clock.time_ms(now_s))
        self.anti_entropy = AntiEntropy(
            myself, placement, self.peers, self.table, self._fence, clock=clock, rng=rng, now_s=now_s
        )
        self._reads = Reads(self._myself, placement, self.peers, self.table, self.anti_entropy, outbox, clock=clock)
        self._notices = Notices(self._myself, placement, outbox)
        self._ends = Ends(
            self.peers,
            self.table,
            self._confirmations,
            self._reads,
            self.anti_entropy,
            self._notices,
            outbox,
            clock=clock,
        )
        self._intake = Intake(
            self.peers,
            self.table,
            self._fence,
            self._usage,
            self._reads,
            self.anti_entropy,
            self._ends,
            self._notices,
            clock=clock,
        )
        self._abandoned = False

    # --- from the application -----------------------------------------------------------------------------

    def write(self, event: Write, now_s: float) -> Written:
        """Change one session; its new record is visible at once.

        Raises:
            SessionTooLarge: the session would be over its bound. Nothing has changed.
            MemoryFull: the session is new, and there is no room for it. Nothing has changed.
        """
        if event.changes[0][0] == CREATED and event.sid not in self.table.records:
            self._admit(now_s)
        return self._write(event, now_s)

    def _write(self, event: Write, now_s: float) -> Written:
        begins = event.changes[0][0] == CREATED
        before = self.table.get(event.sid)
        if event.base is not None and not begins and not (before.entries or before.tombstone):
            before = self._held_again(event.base, now_s)
        if before.tombstone or bool(before.entries) == begins:
            # Invalidated or expired since the request read it; or an id that is to be used again, which no id ever is.
            return Written(before, Gone())
        stamp = self.clock.tick(now_s, before.newest)
        record = self.table.write(event.sid, event.changes, stamp, self._myself, now_s)
        self.anti_entropy.wrote(event.sid, now_s, created=begins)
        outcome = self._replicate(before, event.confirm, event.waiter, now_s)
        if self._notices.wanted:  # a call less for each request
            self._notices.tell("changed" if before.entries else "created", event.sid, remote=False)
        return Written(record, outcome, stamp=stamp)

    def invalidate(self, event: Invalidate, now_s: float) -> Written:
        """Put a tombstone on a session, known here or not."""
        before = self.table.get(event.sid)
        record = self.table.kill(event.sid, self.clock.tick(now_s, before.newest), now_s)
        if not before.tombstone:
            self._ends.died(event.sid)
        outcome = self._end(before, event.confirm, event.waiter, now_s)
        if not before.tombstone:
            self._notices.tell("invalidated", event.sid, remote=False)
        return Written(record, outcome)

    def rotate(self, event: Rotate, now_s: float) -> Written:
        """Move a session's data to a new sid. Both records leave in the same flush."""
        before = self.table.get(event.sid)
        if not before.entries:
            return Written(before, Gone())
        kept = rotated(before.entries, event.changes)
        born = Write(event.new_sid, tuple(kept.items()), event.confirm, event.waiter)
        died_at = self.clock.tick(now_s, before.newest)
        written = self._write(born, now_s)  # before the old one ends: if it is refused, nothing happened
        if isinstance(written.outcome, Gone):
            return written
        self.table.kill(event.sid, died_at, now_s)
        self._ends.died(event.sid)
        self._end(before, 0, event.waiter, now_s)  # only the new record is waited for
        self._notices.tell("invalidated", event.sid, remote=False)
        return written

    def revoke(self, event: Revoke, now_s: float) -> Written:
        """End a user's sessions: a tombstone of the user, from which each node derives those of the sessions it holds.

        Its stamp is above everything this node has heard, and so above every login of which it knows.
        """
        before = self.table.get(event.sid)
        record = self.table.kill(event.sid, self.clock.tick(now_s, before.newest), now_s)
        ended = self._ends.user_died(event.sid, now_s, remote=False)
        return Written(record, self._end(before, event.confirm, event.waiter, now_s), ended)

    def adopt(self, event: Adopt, now_s: float) -> Written:
        """Take in what a client has kept until now, as if a node had sent it that wrote it then.

        `Gone`: it has ended, or would have by now, by time or since its user was revoked.

        Raises:
            MemoryFull: there is no room for it. Nothing has changed.
        """
        before = self.table.get(event.delta.sid)
        if before.entries:
            return Written(before, Confirmed(0, 0))  # whoever took it in here waits for the others
        if not before.tombstone and not is_mark_sid(before.sid):  # a mark follows its session, which was let in
            self._admit(now_s)
        record = self.table.merge(event.delta, self.clock.time_ms(now_s), now_s).record
        if not record.entries:
            return Written(record, Gone())
        self.anti_entropy.wrote(record.sid, now_s, created=True)
        outcome = self._replicate(before, event.confirm, event.waiter, now_s)
        self._notices.tell("created", record.sid, remote=False)
        return Written(record, outcome)

    def fetch(self, event: Fetch, now_s: float) -> Found | None:
        """Ask the other holders for a session, or for writes to it that are missing here.

        Returns what is known at once; None where `Settle` will tell.
        """
        self._ends.drop_ended(now_s)  # what is over by this node's time may be in use elsewhere
        return self._reads.fetch(event, now_s, since_ms=self.since_ms(now_s))

    def is_current(self, sid: Sid, *, tokened: bool, now_s: float) -> bool:
        """Say whether the copy held here may be served without asking a holder; on any thread."""
        return self._reads.is_current(sid, tokened=tokened, now_s=now_s)

    def accessed(self, event: Accessed, now_s: float) -> None:
        """Note that a request used a session."""
        self._usage.accessed(event.sid, now_s)
        if event.sid in self.table.records:
            self.anti_entropy.used(event.sid, now_s)

    def watch(self, event: Watch, now_s: float) -> None:
        """Start or stop telling of changes."""
        self._notices.wanted = event.on

    def inherit(self, event: Inherit, now_s: float) -> None:
        """Take over what nobody has outlived, by the merge by which everything comes; there are no peers yet.

        Raises:
            ClockAhead, RecordTooLarge: no node that keeps to the rules has left that.
        """
        self._intake.inherit(event.deltas, event.since_ms, now_s)
        if event.alone:
            self.waited_long_enough(now_s)

    # --- peers come and go --------------------------------------------------------------------------------

    def member_live(self, member: Member, now_s: float) -> None:
        """A member is live; its link may not be up yet."""
        was_dead = self._reads.member_live(member.node)
        peer = self.peers.get(member.node)
        if peer is None:
            self.peers.add(self.anti_entropy.new_peer(member, now_s, again=was_dead))
        else:
            peer.member = member

    def member_gone(self, node: NodeId, *, died: bool, now_s: float) -> None:
        """A member died or left: what is owed to it is void, and what only some heard from it is repaired."""
        self._reads.member_ended(node, died=died)
        peer = self.peers.remove(node)
        if peer is None:
            return  # known by hearsay only
        self._fence.link_down(node, self.clock.time_ms(now_s))
        self._reads.holder_lost(node, now_s, died=died)
        self.anti_entropy.peer_lost(node, now_s)

    def layout_changed(self, before: Layout, now_s: float) -> None:
        """Sessions are placed otherwise than `before`; every live member but this node is a peer."""
        layout = self._placement.layout
        # Those on whom sessions are placed: where all leave, all of them.
        others = tuple([one for one in layout.live if one.node != self._myself and layout.is_eligible(one.node)])
        self._outbox += self._confirmations.view_changed(others, self._others)
        self._usage.tell_new_holders(before)
        self.anti_entropy.layout_changed(before, now_s)

    def link_up(self, node: NodeId, link: int, since_ms: int, now_s: float) -> None:
        """A link to a live member, the lineage of whose data began at `since_ms`, is in use."""
        peer = self.peers[node]
        if peer.link == link:
            return  # its Hello came twice
        peer.link = link
        if self._fence.link_up(node, since_ms, self.clock.time_ms(now_s)):
            peer.sync.completed = False  # one from before they parted says nothing
        peer.outbound.link_up()
        peer.accesses.link_down()
        self._reads.linked(node, now_s)
        self.anti_entropy.link_up(peer, now_s)
        self.peers.flush_when_due(peer, now_s)
        self.peers.tell_accesses(peer, now_s)

    def link_down(self, node: NodeId, now_s: float) -> None:
        """The link to a member is lost."""
        self._fence.link_down(node, self.clock.time_ms(now_s))
        peer = self.peers.get(node)
        if peer is not None:
            peer.link = None
            peer.outbound.link_down()
            peer.accesses.link_down()
            self.anti_entropy.link_down(peer, now_s)
        self._reads.unlinked(node, now_s)

    def abandon(self, now_s: float) -> None:
        """End every wait, and owe nobody anything: no message comes or goes any more."""
        self.anti_entropy.cut_off()
        self._abandoned = bool(self.peers) or self._abandoned
        self.peers.clear()
        self._outbox += self._confirmations.timeout(math.inf)
        self._reads.end_all(now_s)

    def waited_long_enough(self, now_s: float) -> None:
        """Nobody was met who has everything, for as long as one waits: what can be had now is everything there is."""
        self.anti_entropy.waited_long_enough(now_s)

    # --- what peers say -----------------------------------------------------------------------------------

    def received(self, node: NodeId, message: SessionMessage, now_s: float) -> None:
        """Take a message that came over the link in use with a peer.

        Raises:
            ClockAhead, WireError: the peer does not keep to the rules. What a `Push` holds was not taken in.
        """
        peer = self.peers[node]
        match message:
            case Push():
                self._intake.pushed(peer, message, now_s)
            case PushAck():
                self._acknowledged(peer, message, now_s)
            case Pull():
                self._reads.pulled(peer, message, now_s)
            case PullAnswer():
                self._reads.answered(node, message, now_s)
            case SyncAsk():
                self._ends.drop_ended(now_s)
                self.anti_entropy.show_sums(peer, message, now_s)
            case SyncSums():
                self.anti_entropy.sums(peer, message, now_s)
            case SyncList():
                self.anti_entropy.show_page(peer, message, now_s)
            case SyncPage():
                self._ends.drop_ended(now_s)  # of what is over nothing is offered
                self.anti_entropy.page(peer, message, now_s)
            case Have():
                self._ends.drop_ended(now_s)
                self.anti_entropy.have(peer, message, now_s)
            case Held():
                self.anti_entropy.held(peer, message, now_s)
            case Touch():
                self._usage.touched(peer, message, now_s)
            case TouchAck():
                self._usage.acknowledged(peer, message, now_s)

    def heard_digest(self, node: NodeId, digest: int, now_s: float) -> None:
        """Compare a peer's settled digest with this node's, and repair a difference that stands."""
        peer = self.peers.get(node)
        if peer is not None:
            peer.fills = digest == INCOMPARABLE
        if digest != INCOMPARABLE and peer is not None and self.anti_entropy.compares(peer, now_s):
            mine = self.digest(node, now_s)
            if mine != INCOMPARABLE:
                self.anti_entropy.compared(peer, equal=digest == mine, now_s=now_s)

    # --- time ---------------------------------------------------------------------------------------------

    def next_deadline(self) -> float:
        """Return when `timeout` has work to do at the latest."""
        deadlines = (
            self._usage.next_deadline(),
            self.peers.next_deadline(),
            self._confirmations.next_deadline(),
            self._reads.next_deadline(),
            self.anti_entropy.next_deadline(),
        )
        return min(due_s for due_s in deadlines if due_s is not None)

    def timeout(self, now_s: float) -> None:
        """Do whatever is due."""
        self.anti_entropy.timeout(now_s)
        for peer in self.peers:
            peer.outbound.timeout(now_s, linked=peer.link is not None)
            if peer.link is not None:
                self.peers.flush_when_due(peer, now_s)
                self.anti_entropy.ask_again(peer, now_s)
        if self.flush_at_s is not None and self.flush_at_s <= now_s:
            self.peers.flush_all(now_s)
        for ticket in self._confirmations.hedges(now_s):
            more = self._recipients.hedge(ticket, self._confirmations.other_hosts)
            self._owe(empty_record(ticket.sid), more, ticket, now_s)
        self._outbox += self._confirmations.timeout(now_s)
        if self._usage.next_deadline() <= now_s:
            self.tell_accesses(now_s)
            self._ends.drop_ended(now_s)
            self._recheck(now_s)
            self._outbox += self.memory.looked_at(self.table.bytes)
        # Last: what has just ended is not held any more, and a wait for it must not end with "stale".
        self._reads.timeout(now_s)

    def flush(self, now_s: float) -> None:
        """Send every peer one Push of what it is owed; what does not fit goes with the next."""
        self.peers.flush_all(now_s)

    def tell_accesses(self, now_s: float) -> None:
        """Tell the other holders when sessions were last used."""
        self._usage.tell(now_s)

    def digest(self, node: NodeId | None, now_s: float) -> int:
        """Return what a node is shown in probes of the sessions that both hold; what has ended is dropped before."""
        self._ends.drop_ended(now_s)
        return self.anti_entropy.digest(node, now_s)

    # --- for Hello and status -----------------------------------------------------------------------------

    def since_ms(self, now_s: float) -> int:
        """Return when the lineage of the data held here began, cluster time."""
        return self._fence.since_ms(self.clock.time_ms(now_s))

    def apart_s(self, node: NodeId, now_s: float) -> int:
        """Return how long ago the sessions here and those of a node were last in touch, rounded up; for lists."""
        return -(-self._fence.apart_ms(node, self.clock.time_ms(now_s)) // 1000)

    def heard_apart(self, teller: NodeId, members: tuple[Told, ...], now_s: float) -> None:
        """Take in how long a peer was apart from others, and from this node, as its list says."""
        time_ms = self.clock.time_ms(now_s)
        self._fence.met(
            (teller if member.node == self._myself else member.node, time_ms - apart_s * 1000)
            for member, _, apart_s in members
            if member.node == self._myself or not self._fence.is_fenced(teller)
        )

    @property
    def synced(self) -> bool:
        """Everything that live members held when this node met them is held here."""
        return self.anti_entropy.synced

    @property
    def fenced(self) -> int:
        """Sessions that came from a peer apart for too long and were ended: a logout of theirs may be forgotten."""
        return self._intake.fenced

    @property
    def securing(self) -> int:
        """How many partitions have sessions here that their holders are not known to hold."""
        return self.anti_entropy.surplus.securing

    @property
    def flush_at_s(self) -> float | None:
        """When what peers are owed is sent; None while they are owed nothing."""
        return self.peers.flush_at_s

    @property
    def unacknowledged(self) -> int:
        """How many session states are not known to be held by a peer that should hold them."""
        return self.peers.unacknowledged

    # --- inside -------------------------------------------------------------------------------------------

    def _acknowledged(self, peer: Peer, message: PushAck, now_s: float) -> None:
        """Confirm what a peer holds, and owe it what it lacks."""
        had_collapsed = peer.outbound.collapsed
        for sid, tickets in peer.outbound.acknowledged(message).items():
            holders = self._others(sid)
            for ticket in tickets:
                self._outbox += self._confirmations.held_by(ticket, peer.member, holders)
        if had_collapsed:
            self.anti_entropy.resync(peer, now_s)
        self.peers.flush(peer, now_s)

    def _others(self, sid: Sid) -> tuple[Member, ...]:
        return self._placement.others(partition_of(sid))

    def _held_again(self, read: Record, now_s: float) -> Record:
        """Hold the copy again that a request has read, where it was dropped since, because others hold the session.

        Returns what is held then.

        Else a request that lasts for longer than copies are kept, as a WebSocket does, would lose what it writes. The
        holders have whatever came meanwhile, its end too: written to here, it becomes what they hold. Who holds all
        that there is and not this one lacks it because it has ended.
        """
        if read.entries and not self.anti_entropy.is_synced(partition_of(read.sid)):
            self.table.merge(not_covered(read, {}), self.clock.time_ms(now_s), now_s)
        return self.table.get(read.sid)

    def _admit(self, now_s: float) -> None:
        if self.memory.is_met(self.table.bytes):
            self._ends.drop_ended(now_s)  # else done once a second, and never again once the driver has ended
            self._outbox += self.memory.looked_at(self.table.bytes)
            self.memory.admit(self.table.bytes)

    def _replicate(self, before: Record, confirm: Confirm, waiter: Waiter, now_s: float) -> Confirmed | Degraded | None:
        if not self.peers:
            return self._told_nobody(confirm)
        members = self._recipients.of_write(before.sid, confirm, self._confirmations.other_hosts)
        hedge = len(members) < len(self.peers) and confirm != 0
        return self._send(before, members, confirm, waiter, now_s, hedge=hedge)

    def _end(self, before: Record, confirm: Confirm, waiter: Waiter, now_s: float) -> Confirmed | Degraded | None:
        """Send a tombstone to everybody: copies that were fetched for a read may be anywhere."""
        return self._send(before, tuple([peer.member for peer in self.peers]), confirm, waiter, now_s, hedge=False)

    def _send(
        self,
        before: Record,
        members: tuple[Member, ...],
        confirm: Confirm,
        waiter: Waiter,
        now_s: float,
        *,
        hedge: bool,
    ) -> Confirmed | Degraded | None:
        if not members:
            return self._told_nobody(confirm)
        if confirm == 0:
            self.peers.owe(before, members, None, now_s + FLUSH_DELAY_S)
            return Confirmed(0, 0)
        ticket = self._confirmations.open(before.sid, waiter, confirm, now_s, hedge=hedge)
        self._owe(before, members, ticket, now_s)
        return None

    def _told_nobody(self, confirm: Confirm) -> Confirmed | Degraded:
        return Degraded(0, 0) if self._abandoned and confirm != 0 else _NOBODY

    def _owe(self, before: Record, members: tuple[Member, ...], ticket: Ticket, now_s: float) -> None:
        ticket.tried.update({member.node: member.host for member in members})
        self.peers.owe(before, members, ticket, now_s)

    def _recheck(self, now_s: float) -> None:
        wrong = self.table.recheck(RECHECKED_AT_ONCE, now_s)
        if wrong and not self.put_right:
            self._outbox.append(
                Warn(
                    "a state hash or a sum of them was wrong, and was put right. That is a bug, or this machine's "
                    "memory fails; it is not warned of again."
                )
            )
        self.put_right += wrong
