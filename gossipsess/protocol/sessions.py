# Sessions: one node's side of everything that is said about sessions.
#
# In:    what requests do, and the messages of peers whose link is up.
# Out:   effects, appended to the outbox that the replica shares with it.
# Here:  the way of each event and message to its part, in what order parts hear of peers, and what is due.
# Not here: what a request changes (writes.py) or reads (reads.py), what comes from elsewhere (intake.py), what ends
# with a session (ends.py), what watchers hear (notices.py), who is to hold it (placement.py), who comes to
# (antientropy.py).

import random
from typing import Final

from gossipsess.model.clock import HybridClock
from gossipsess.model.identity import NodeId, Sid
from gossipsess.model.member import Member, Told
from gossipsess.model.table import Table
from gossipsess.protocol.antientropy import INCOMPARABLE, AntiEntropy
from gossipsess.protocol.confirmation import Confirmations
from gossipsess.protocol.effects import Effect, Warn
from gossipsess.protocol.ends import Ends
from gossipsess.protocol.events import Accessed, Fetch, Inherit, Watch
from gossipsess.protocol.fence import Fence
from gossipsess.protocol.intake import Intake
from gossipsess.protocol.memory import MemoryLimit
from gossipsess.protocol.notices import Notices
from gossipsess.protocol.outcomes import Found
from gossipsess.protocol.peers import Peers
from gossipsess.protocol.placement import Layout, Placement, partition_of
from gossipsess.protocol.reads import Reads
from gossipsess.protocol.usage import Usage
from gossipsess.protocol.writes import Writes
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
        self.writes = Writes(
            myself,
            placement,
            self.peers,
            self.table,
            self._confirmations,
            self.anti_entropy,
            self._ends,
            self._notices,
            outbox,
            clock=clock,
            memory=self.memory,
        )

    # --- from the application -----------------------------------------------------------------------------

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
        self.writes.abandon()
        self.peers.clear()
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
                self.writes.acknowledged(peer, message, now_s)
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
        self.writes.timeout(now_s)
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

    def _others(self, sid: Sid) -> tuple[Member, ...]:
        return self._placement.others(partition_of(sid))

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
