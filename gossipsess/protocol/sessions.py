# Sessions: one node's side of everything that is said about sessions.
#
# In:    what requests do, and the messages of peers whose link is up.
# Out:   effects, appended to the outbox that the replica shares with it.
# The parts it drives (replication, confirmation, fetch, sync, repair, expiry) know nothing of each other. Which peers
# there are it is told by the replica; which of them hold a session it asks of placement.

import math
import random
from typing import Final, NamedTuple

from gossipsess.model import digest as digests
from gossipsess.model.clock import HybridClock, Stamp
from gossipsess.model.delta import Applied, Delta
from gossipsess.model.identity import NodeId, Sid
from gossipsess.model.member import Member, Told
from gossipsess.model.record import CREATED, Record, empty_record
from gossipsess.model.revocation import is_user_sid, rotated_value
from gossipsess.model.table import Table
from gossipsess.protocol import fetch as fetching
from gossipsess.protocol import sync
from gossipsess.protocol.confirmation import Confirmations, Ticket
from gossipsess.protocol.effects import ChangeKind, Effect, Notify, Send, Warn
from gossipsess.protocol.events import (
    Accessed,
    Confirm,
    Fetch,
    Invalidate,
    Revoke,
    Rotate,
    Waiter,
    Watch,
    Write,
)
from gossipsess.protocol.expiry import Accesses, Expiry
from gossipsess.protocol.fence import Fence
from gossipsess.protocol.fetch import Candidates, Fetches, satisfies
from gossipsess.protocol.memory import MemoryLimit
from gossipsess.protocol.outcomes import Confirmed, Degraded, Found, Gone
from gossipsess.protocol.placement import Placement, partition_of
from gossipsess.protocol.repair import Comparison
from gossipsess.protocol.replication import FLUSH_DELAY_S, Outbound
from gossipsess.wire.messages import (
    Gap,
    LinkMessage,
    Pull,
    PullAnswer,
    Push,
    PushAck,
    SyncAsk,
    SyncList,
    SyncPage,
    SyncSums,
    Touch,
    TouchAck,
)

DEAD_MAX: Final = 1024
"""Dead members remembered. They are doubted for as long as a version token of theirs may come."""
SYNC_AGAIN_S: Final = 3.0
"""After a member died or left, a second sync follows this much later: what it had told others may still have been on
their way to each other at the first."""
RECHECKED_AT_ONCE: Final = 8
"""Leaves of the table whose hashes and sums are computed anew each second: all of them within nine minutes. At 100,000
sessions that is some 200 records, a few milliseconds."""


class Written(NamedTuple):
    """What a write left."""

    record: Record
    """The new record; a dead or empty one where the outcome is `Gone`."""
    outcome: Confirmed | Degraded | Gone | None
    """None: `Settle` will tell."""
    ended: int = 0
    """How many sessions of a revoked user were held here."""


class _Peer:
    """A live member as the data sees it. `link` is None while there is none."""

    __slots__ = ("accesses", "compared_from_s", "comparison", "held", "link", "member", "outbound", "sync")

    def __init__(self, member: Member, comparison: Comparison) -> None:
        self.member = member
        self.link: int | None = None
        self.outbound = Outbound()
        self.accesses = Accesses()
        self.sync = sync.Sync()
        self.held: SyncList | None = None
        """The next question of the sync, while the peer is still owed much."""
        self.comparison = comparison
        self.compared_from_s = -math.inf

    def moves(self, now_s: float) -> None:
        """Note that a sync of either side runs: what it moves has settled on both sides only later.

        Half as long again as that takes, since the last of it may still be on its way.
        """
        self.compared_from_s = now_s + 1.5 * digests.SETTLE_S


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
        self.synced = False
        """Everything that live members held when this node met them is held here."""
        self.repairs = 0
        """Repairs begun because digests differed."""
        self.repaired = 0
        """How often one of them found something to pull or to give."""
        self.put_right = 0
        """Hashes and sums that were found wrong when computed anew. A bug, or the machine's memory."""
        self.flush_at_s: float | None = None
        """When what peers are owed is sent; None while they are owed nothing."""
        self.fenced = 0
        """Sessions that came from a peer apart for too long and were ended: a logout of theirs may be forgotten."""
        self._myself = myself.node
        self._placement = placement
        self._outbox = outbox
        self._rng = rng
        self._peers: dict[NodeId, _Peer] = {}
        self._confirmations = Confirmations(myself.host, confirm_timeout_s)
        self._fetches = Fetches()
        self._expiry = Expiry(now_s)
        self._fence = Fence(clock.time_ms(now_s))
        self._sync_all_at_s: float | None = None
        self._abandoned = False
        self._patient = True
        """While it starts: a member that has everything may still turn up."""
        self._dead: dict[NodeId, None] = {}  # members that died, oldest first
        self._watched = False

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
        before = self.table.get(event.sid)
        begins = event.changes[0][0] == CREATED
        if before.tombstone or bool(before.entries) == begins:
            # Invalidated or expired since the request read it; or an id that is to be used again, which no id ever is.
            return Written(before, Gone())
        stamp = self.clock.tick(now_s, before.newest)
        record = self.table.write(event.sid, event.changes, stamp, self._myself, now_s)
        outcome = self._replicate(before, event.confirm, event.waiter, now_s)
        if self._watched:
            self._notify("changed" if before.entries else "created", event.sid, remote=False)
        return Written(record, outcome)

    def invalidate(self, event: Invalidate, now_s: float) -> Written:
        """Put a tombstone on a session, known here or not."""
        before = self.table.get(event.sid)
        record = self.table.kill(event.sid, self.clock.tick(now_s, before.newest), now_s)
        if not before.tombstone:
            self._died(event.sid)
        outcome = self._replicate(before, event.confirm, event.waiter, now_s)
        if self._watched and not before.tombstone:
            self._notify("invalidated", event.sid, remote=False)
        return Written(record, outcome)

    def rotate(self, event: Rotate, now_s: float) -> Written:
        """Move a session's data to a new sid. Both records leave in the same flush."""
        before = self.table.get(event.sid)
        if not before.entries:
            return Written(before, Gone())
        # The register of the creation comes first: it is what makes a write a beginning.
        kept: dict[str, bytes | None] = {CREATED: None}
        for key, entry in before.entries.items():
            if entry.value is not None:
                kept[key] = rotated_value(key, entry)
        kept.update(event.changes)
        born = Write(event.new_sid, tuple(kept.items()), event.confirm, event.waiter)
        died_at = self.clock.tick(now_s, before.newest)
        written = self._write(born, now_s)  # before the old one ends: if it is refused, nothing happened
        if isinstance(written.outcome, Gone):
            return written
        self.table.kill(event.sid, died_at, now_s)
        self._died(event.sid)
        self._replicate(before, 0, event.waiter, now_s)  # only the new record is waited for
        if self._watched:
            self._notify("invalidated", event.sid, remote=False)
        return written

    def revoke(self, event: Revoke, now_s: float) -> Written:
        """End a user's sessions: a tombstone of the user, from which each node derives those of the sessions it holds.

        Its stamp is above everything this node has heard, and so above every login of which it knows.
        """
        before = self.table.get(event.sid)
        record = self.table.kill(event.sid, self.clock.tick(now_s, before.newest), now_s)
        ended = self._end_sessions_of(event.sid, now_s, remote=False)
        return Written(record, self._replicate(before, event.confirm, event.waiter, now_s), ended)

    def fetch(self, event: Fetch, now_s: float) -> Found | None:
        """Ask the other holders for a session, or for writes to it that are missing here.

        Returns what is known at once; None where `Settle` will tell.
        """
        self._drop_ended(now_s)  # what is over by this node's time may be in use elsewhere
        if satisfies(self.table.records.get(event.sid), event.dots):
            return Found.FRESH
        others = tuple([member.node for member in self._others(event.sid)])
        # A writer that died, or is only out of reach, may have told nobody who is left.
        doubtful = any(origin in self._dead for origin, _ in event.dots) or not (others or self.synced)
        candidates = Candidates(others, complete=self.synced)
        records = self.table.records
        begun = self._fetches.start(event.sid, event.dots, event.waiter, candidates, records, now_s, doubtful=doubtful)
        if isinstance(begun, Found):
            return begun
        self._fetch_step(begun)
        return None

    def accessed(self, event: Accessed, now_s: float) -> None:
        """Note that a request used a session."""
        self._expiry.accessed(event.sid, self.table, self.clock.time_ms(now_s))

    def watch(self, event: Watch, now_s: float) -> None:
        """Start or stop telling of changes."""
        self._watched = event.on

    # --- peers come and go --------------------------------------------------------------------------------

    def member_live(self, member: Member) -> None:
        """A member is live; its link may not be up yet."""
        was_dead = member.node in self._dead
        self._dead.pop(member.node, None)
        peer = self._peers.get(member.node)
        if peer is None:
            peer = self._peers[member.node] = _Peer(member, self._comparison(member.node))
            if was_dead:
                # It may hold sessions as they were. Accesses since are no part of the state, so no sync brings them.
                peer.accesses.owe(self.table.accesses)
        else:
            peer.member = member

    def member_gone(self, node: NodeId, *, died: bool, now_s: float) -> None:
        """A member died or left: what is owed to it is void, and what only some heard from it is repaired."""
        if died:
            self._note_dead(node)
        peer = self._peers.pop(node, None)
        if peer is None:
            return  # known by hearsay only
        self._fence.link_down(node, self.clock.time_ms(now_s))
        others = tuple(member for member in self._placement.holders(0) if member.node != self._myself)
        self._outbox += self._confirmations.holders_changed(others)
        self._fetch_step(self._fetches.holder_lost(node, self.table.records, now_s, died=died))
        # Also after a leave: what it had pulled from a member that is no more, it may have shown to some only.
        self._sync_all(now_s)
        self._sync_all_at_s = now_s + SYNC_AGAIN_S
        if not self.synced:
            self._look_whether_synced()

    def link_up(self, node: NodeId, link: int, since_ms: int, now_s: float) -> None:
        """A link to a live member, the lineage of whose data began at `since_ms`, is in use."""
        peer = self._peers[node]
        if peer.link == link:
            return  # its Hello came twice
        peer.link = link
        if self._fence.link_up(node, since_ms, self.clock.time_ms(now_s)):
            peer.sync.completed = False  # one from before they parted says nothing
        peer.outbound.link_up()
        peer.accesses.link_down()
        self._fetch_step(self._fetches.linked(node, self.table.records, now_s))
        peer.sync.stop()
        peer.held = None
        peer.comparison = self._comparison(node)
        self._step(peer, peer.sync.start(self.table, now_s, both_ways=peer.outbound.unrepaired), now_s)
        self._flush_when_due(peer, now_s)
        self._tell(peer, now_s)

    def link_down(self, node: NodeId, now_s: float) -> None:
        """The link to a member is lost."""
        self._fence.link_down(node, self.clock.time_ms(now_s))
        peer = self._peers.get(node)
        if peer is not None:
            peer.link = None
            peer.outbound.link_down()
            peer.accesses.link_down()
            peer.sync.stop()
        self._fetch_step(self._fetches.unlinked(node, self.table.records, now_s))

    def abandon(self, now_s: float) -> None:
        """End every wait, and owe nobody anything: no message comes or goes any more."""
        self.synced = self.synced and not self._peers  # what they hold can be asked of nobody any more
        self._abandoned = bool(self._peers) or self._abandoned
        self._peers.clear()
        self.flush_at_s = None
        self._outbox += self._confirmations.timeout(math.inf)
        self._fetch_step(self._fetches.timeout(self.table.records, math.inf))

    def waited_long_enough(self) -> None:
        """Nobody was met who has everything, for as long as one waits: what can be had now is everything there is."""
        self._patient = False
        self._look_whether_synced()

    # --- what peers say -----------------------------------------------------------------------------------

    def push(self, node: NodeId, message: Push, now_s: float) -> None:
        """Merge a peer's deltas and acknowledge them.

        Raises:
            ClockAhead: a stamp lies too far in the future. Nothing of the push was taken in.
        """
        peer = self._peers[node]
        self._hear_stamps(message, now_s)
        time_ms = self.clock.time_ms(now_s)
        records = self.table.records
        gaps: list[Gap] = []
        over: list[Sid] = []
        for delta in message.deltas:
            sid = delta.sid
            before = records.get(sid)
            record, gap, absorbed, _ = self._merge(node, delta, time_ms, now_s)
            if gap:
                # Once everything was sent and still something differs, only the whole record can tell.
                claims = None if record.claims == delta.after else record.claims
                gaps.append(Gap(sid, claims, record.state_hash))
            elif sid not in records:
                over.append(sid)  # a clock far ahead refuses what others hold: that is no copy to count on
            elif absorbed:
                peer.outbound.lacks(sid, None)
            if records.get(sid) is not before:  # what was refused, or is not held yet, is no news
                if record.tombstone:
                    # Of two ends the later has come: whoever waits for the earlier one still does.
                    if before is None or not before.tombstone:
                        self._died(sid)
                    self._end_sessions_of(sid, now_s, remote=True)
                self._outbox += self._fetches.merged(record)
                if self._watched:
                    self._notify_merged(before, record)
            if peer.sync.running:
                self._step(peer, peer.sync.merged(delta, self.table, now_s), now_s)
        self._look_whether_one(node, peer, now_s)
        # A tombstone that the peer lacks goes before the acknowledgement, so that its commit hears of it first.
        self._flush(peer, now_s)
        self._send(peer, PushAck(message.sequence, tuple(gaps), tuple(over)))

    def push_ack(self, node: NodeId, message: PushAck, now_s: float) -> None:
        """Confirm what a peer holds, and owe it what it lacks."""
        peer = self._peers[node]
        had_collapsed = peer.outbound.collapsed
        for sid, tickets in peer.outbound.acknowledged(message).items():
            others = self._others(sid)
            for ticket in tickets:
                self._outbox += self._confirmations.held_by(ticket, peer.member, others)
        if had_collapsed:
            self._resync(peer, now_s)
        self._flush(peer, now_s)

    def pull(self, node: NodeId, message: Pull, now_s: float) -> None:
        """Send what a peer wants; its request's verdict goes after the records."""
        peer = self._peers[node]
        held = False
        for gap in message.wanted:
            record = self.table.records.get(gap.sid)
            if record is not None:
                held = True
                if record.state_hash != gap.state_hash:
                    peer.outbound.lacks(gap.sid, gap.claims)
        self._flush(peer, now_s)
        if message.request:
            while peer.link is not None and peer.outbound.can_flush and peer.outbound.owes(message.wanted):
                self._flush(peer, now_s)
            self._send(peer, PullAnswer(message.request, held, self.synced))

    def pull_answer(self, node: NodeId, message: PullAnswer, now_s: float) -> None:
        """Take one holder's verdict on a session that a request waits for."""
        self._fetch_step(self._fetches.answered(node, message, self.table.records, now_s))

    def sync_ask(self, node: NodeId, message: SyncAsk, now_s: float) -> None:
        """Show a peer where its sessions and this node's differ."""
        self._drop_ended(now_s)
        peer = self._peers[node]
        peer.moves(now_s)
        self._send(peer, sync.answer(message, self.table, self.synced))

    def sync_list(self, node: NodeId, message: SyncList, now_s: float) -> None:
        """Show a peer what it may lack."""
        peer = self._peers[node]
        peer.moves(now_s)
        self._send(peer, sync.listing(message, self.table, self.synced))

    def sync_sums(self, node: NodeId, message: SyncSums, now_s: float) -> None:
        """Ask for what differs."""
        peer = self._peers[node]
        self._step(peer, peer.sync.sums(message, self.table, now_s), now_s)
        self._look_whether_one(node, peer, now_s)  # where all is equal the sync has ended

    def sync_page(self, node: NodeId, message: SyncPage, now_s: float) -> None:
        """Pull what a page shows missing here; of what is over nothing is offered."""
        self._drop_ended(now_s)
        peer = self._peers[node]
        self._step(peer, peer.sync.page(message, self.table, now_s), now_s)
        self._look_whether_one(node, peer, now_s)

    def heard_digest(self, node: NodeId, digest: int, now_s: float) -> None:
        """Compare a peer's settled digest with this node's, and repair a difference that stands."""
        peer = self._peers.get(node)
        if peer is None or peer.link is None or not self.synced or peer.sync.running or now_s < peer.compared_from_s:
            return
        if peer.comparison.repair_due(digest == self.digest(now_s), now_s):
            self.repairs += 1
            self._step(peer, peer.sync.start(self.table, now_s, both_ways=True), now_s)

    def touch(self, node: NodeId, message: Touch, now_s: float) -> None:
        """Take over when sessions were last used elsewhere."""
        latest_ms = self.clock.time_ms(now_s)
        for sid, time_ms in message.accesses:
            self.table.touch(sid, min(time_ms, latest_ms))
        self._send(self._peers[node], TouchAck(message.sequence))

    def touch_ack(self, node: NodeId, message: TouchAck, now_s: float) -> None:
        """Tell a peer of the next accesses, if more have gathered than one message holds."""
        peer = self._peers[node]
        peer.accesses.acknowledged(message)
        self._tell(peer, now_s)

    # --- time ---------------------------------------------------------------------------------------------

    def next_deadline(self) -> float:
        """Return when `timeout` has work to do at the latest."""
        deadlines = [
            self._expiry.next_deadline(),
            self.flush_at_s,
            self._confirmations.next_deadline(),
            self._fetches.next_deadline(),
            self._sync_all_at_s,
        ]
        for peer in self._peers.values():
            if peer.link is not None:
                deadlines.append(peer.outbound.next_resend_s())
                deadlines.append(peer.sync.next_deadline())
        return min(due_s for due_s in deadlines if due_s is not None)

    def timeout(self, now_s: float) -> None:
        """Do whatever is due."""
        if self._sync_all_at_s is not None and self._sync_all_at_s <= now_s:
            self._sync_all_at_s = None
            self._sync_all(now_s)
        for peer in self._peers.values():
            peer.outbound.timeout(now_s, linked=peer.link is not None)
            if peer.link is not None:
                self._flush_when_due(peer, now_s)
                self._step(peer, peer.sync.timeout(self.table, now_s), now_s)
        if self.flush_at_s is not None and self.flush_at_s <= now_s:
            self.flush(now_s)
        self._outbox += self._confirmations.timeout(now_s)
        if self._expiry.next_deadline() <= now_s:
            self.tell_accesses(now_s)
            self._drop_ended(now_s)
            self._recheck(now_s)
            self._outbox += self.memory.looked_at(self.table.bytes)
        # Last: what has just ended is not held any more, and a wait for it must not end with "stale".
        self._fetch_step(self._fetches.timeout(self.table.records, now_s))

    def flush(self, now_s: float) -> None:
        """Send every peer one Push of what it is owed; what does not fit goes with the next."""
        self.flush_at_s = None
        for peer in self._peers.values():
            self._flush(peer, now_s)

    def tell_accesses(self, now_s: float) -> None:
        """Tell every peer when sessions were last used."""
        accesses = self._expiry.gathered(now_s)
        for peer in self._peers.values():
            peer.accesses.owe(accesses)
            self._tell(peer, now_s)

    def digest(self, now_s: float) -> int:
        """Return the sum, 48 bits, over all sessions that have settled; what has ended by now is dropped before."""
        self._drop_ended(now_s)
        return self.table.sums.settled(now_s)

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
    def unacknowledged(self) -> int:
        """How many session states are not known to be held by a peer that should hold them."""
        return sum(outbound.unacknowledged for outbound in self.outbounds)

    @property
    def outbounds(self) -> tuple[Outbound, ...]:
        """What each live peer is owed, and what is on its way to it."""
        return tuple([peer.outbound for peer in self._peers.values()])

    # --- inside -------------------------------------------------------------------------------------------

    def _others(self, sid: Sid) -> tuple[Member, ...]:
        holders = self._placement.holders(partition_of(sid))
        return tuple([member for member in holders if member.node != self._myself])

    def _admit(self, now_s: float) -> None:
        if self.memory.is_met(self.table.bytes):
            self._drop_ended(now_s)  # else done once a second, and never again once the driver has ended
            self._outbox += self.memory.looked_at(self.table.bytes)
            self.memory.admit(self.table.bytes)

    def _replicate(self, before: Record, confirm: Confirm, waiter: Waiter, now_s: float) -> Confirmed | Degraded | None:
        others = self._others(before.sid)
        if not others:
            return Degraded(0, 0) if self._abandoned and confirm != 0 else Confirmed(0, 0)
        waits = confirm != 0
        ticket = self._confirmations.open(before.sid, waiter, confirm, now_s) if waits else None
        self._owe(before, others, ticket, now_s if waits else now_s + FLUSH_DELAY_S)
        return None if waits else Confirmed(0, 0)

    def _owe(self, before: Record, others: tuple[Member, ...], ticket: Ticket | None, due_s: float) -> None:
        for member in others:
            self._flush_at(self._peers[member.node].outbound.wrote(before, ticket, due_s))

    def _merge(self, node: NodeId, delta: Delta, time_ms: int, now_s: float) -> Applied:
        sid = delta.sid
        if sid in self.table.records or not self._fence.refuses(node, delta, time_ms):
            return self.table.merge(delta, time_ms, now_s)
        self.fenced += 1
        record = self.table.kill(sid, self.clock.tick(now_s, max(delta.after.values(), default=0)), now_s)
        self._owe(empty_record(sid), self._others(sid), None, now_s)
        return Applied(record, gap=False)

    def _hear_stamps(self, message: Push, now_s: float) -> None:
        highest: Stamp = 0
        for delta in message.deltas:
            for stamp in delta.after.values():
                if stamp > highest:
                    highest = stamp
            for entry in delta.entries:
                if entry[1] > highest:
                    highest = entry[1]
            if delta.tombstone > highest:
                highest = delta.tombstone
        self.clock.hear(highest, now_s)

    def _end_sessions_of(self, user: Sid, now_s: float, *, remote: bool) -> int:
        """Do what the tombstone just put on this sid asks for, should it be a user's; return how many sessions ended.

        Nobody is sent their tombstones: who holds such a session derives the same.
        """
        ended = self.table.end_sessions_of(user, now_s)
        for record in ended:
            self._died(record.sid)
            self._outbox += self._fetches.merged(record)
            if self._watched:
                self._notify("invalidated", record.sid, remote=remote)
        return len(ended)

    def _died(self, sid: Sid) -> None:
        self._outbox += self._confirmations.gone(sid)

    def _flush(self, peer: _Peer, now_s: float) -> None:
        if peer.link is None:
            return
        push = peer.outbound.flush(self.table, now_s)
        if push is not None:
            self._outbox.append(Send(peer.link, push))
        if peer.held is not None and len(peer.outbound.owed) <= sync.SESSIONS_PER_PAGE:
            question, peer.held = peer.held, None
            self._send(peer, question)
        self._flush_when_due(peer, now_s)

    def _flush_when_due(self, peer: _Peer, now_s: float) -> None:
        due_s = peer.outbound.next_flush_s(now_s)
        if due_s is not None:
            self._flush_at(due_s)

    def _flush_at(self, due_s: float) -> None:
        if due_s < (math.inf if self.flush_at_s is None else self.flush_at_s):
            self.flush_at_s = due_s

    def _resync(self, peer: _Peer, now_s: float) -> None:
        """Repair what was given up when a peer collapsed: it takes data again."""
        self._step(peer, peer.sync.start(self.table, now_s, both_ways=True), now_s)

    def _sync_all(self, now_s: float) -> None:
        for peer in self._peers.values():
            if peer.link is not None:
                self._step(peer, peer.sync.start(self.table, now_s), now_s)

    def _look_whether_synced(self) -> None:
        peers = self._peers.values()
        if self._patient:
            self.synced = self.synced or (
                any(peer.sync.peer_synced for peer in peers) and all(peer.sync.completed for peer in peers)
            )
        elif all(peer.sync.completed for peer in peers if peer.link is not None):
            self.synced = True  # who is live and cannot be linked is asked by each fetch all the same

    def _look_whether_one(self, node: NodeId, peer: _Peer, now_s: float) -> None:
        if peer.sync.completed:
            self._fence.synced(node, self.clock.time_ms(now_s))

    def _comparison(self, node: NodeId) -> Comparison:
        return Comparison(first=self._myself < node, rng=self._rng)

    def _drop_ended(self, now_s: float) -> None:
        for record in self.table.expired(self.clock.time_ms(now_s), now_s):
            for peer in self._peers.values():
                peer.outbound.forget(record.sid)
                peer.accesses.forget(record.sid)
            if self._watched and not record.tombstone:
                announcer = self._placement.announcer(partition_of(record.sid))
                self._notify("expired", record.sid, remote=announcer.node != self._myself)

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

    def _note_dead(self, node: NodeId) -> None:
        if len(self._dead) >= DEAD_MAX:
            del self._dead[next(iter(self._dead))]
        self._dead[node] = None

    def _step(self, peer: _Peer, step: sync.Step, now_s: float) -> None:
        if peer.sync.running:
            peer.moves(now_s)
        for sid, claims in step.owed:
            peer.outbound.lacks(sid, claims)
        if step.owed:
            self._flush_when_due(peer, now_s)
        if peer.sync.both_ways and (step.owed or isinstance(step.message, Pull)):
            self.repaired += 1
        if step.message is not None:
            peer.held = None
        outbound = peer.outbound
        if isinstance(step.message, SyncList) and len(outbound.owed) > sync.SESSIONS_PER_PAGE:
            peer.held = step.message  # what the peer is owed goes first, or writes would wait behind all of a repair
            return
        if step.message is not None:
            self._send(peer, step.message)
            return
        if outbound.unrepaired and not outbound.collapsed and not peer.sync.running:
            outbound.repaired()
        if peer.sync.completed and not self.synced:
            self._look_whether_synced()

    def _fetch_step(self, step: fetching.Step) -> None:
        for node, pull in step.asks:
            self._send(self._peers[node], pull)
        self._outbox += step.settled

    def _send(self, peer: _Peer, message: LinkMessage) -> None:
        if peer.link is not None:
            self._outbox.append(Send(peer.link, message))

    def _tell(self, peer: _Peer, now_s: float) -> None:
        if peer.link is not None:
            touch = peer.accesses.batch(self.table, now_s)
            if touch is not None:
                self._send(peer, touch)

    def _notify(self, kind: ChangeKind, sid: Sid, *, remote: bool) -> None:
        self._outbox.append(Notify(kind, sid, remote))

    def _notify_merged(self, before: Record | None, record: Record) -> None:
        if is_user_sid(record.sid):
            return
        if before is None and not record.tombstone:
            self._notify("created", record.sid, remote=True)
        elif before is None or before.state_hash != record.state_hash:  # else only claims have advanced
            self._notify("invalidated" if record.tombstone else "changed", record.sid, remote=True)
