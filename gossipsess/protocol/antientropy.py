# Anti-entropy: this node comes to hold what it is to hold, and its peers what they are to hold of what is here.
#
# In:    layouts, links that come up, members that are no more, digests in probes, the messages of syncs and offers.
# Out:   questions and answers, through the peers; `synced`: what is to be here is here.
# When:  a sync runs with each peer when a link comes up; with all when a member is no more, at once and once again;
#        with one whose settled digest differs, or that takes data again after it had collapsed. What a node is to hold
#        and may not hold yet it pulls from one peer after the other.
# Compared are the partitions that both are to hold, under layouts that are equal; anything else may differ.
# Not here: how a sync asks (sync.py), what is missing (gains.py), what others are to hold (surplus.py), when a
# difference is one (repair.py), what old sessions are refused (fence.py).

import random
from typing import Final

from gossipsess.model.clock import HybridClock
from gossipsess.model.delta import Delta
from gossipsess.model.identity import NodeId, Sid
from gossipsess.model.member import Member
from gossipsess.model.record import Record
from gossipsess.model.table import Table
from gossipsess.protocol import sync
from gossipsess.protocol.fence import Fence
from gossipsess.protocol.gains import Gains
from gossipsess.protocol.offers import answer
from gossipsess.protocol.peers import Peer, Peers
from gossipsess.protocol.placement import Layout, Placement, partition_of
from gossipsess.protocol.repair import Comparison
from gossipsess.protocol.surplus import Step as SurplusStep
from gossipsess.protocol.surplus import Surplus
from gossipsess.wire.messages import Have, Held, Pull, SyncAsk, SyncList, SyncPage, SyncSums

SYNC_AGAIN_S: Final = 3.0
"""After a member died or left, a second sync follows this much later: what it had told others may still have been on
their way to each other at the first."""
VOUCHED_MS: Final = 3_600_000
"""How long this node says what its side does not know of partitions that it held whole: until all have met again that
were kept apart for long."""
VOUCHED_MAX: Final = 64
"""Moments remembered until which it did; a member that comes and goes all the time makes no more of them."""
INCOMPARABLE: Final = 1 << 48
"""A digest that says nothing: its sender has gained partitions, and is still pulling them."""


class AntiEntropy:
    """The syncs and offers of one node, and what they have come to."""

    def __init__(
        self,
        myself: Member,
        placement: Placement,
        peers: Peers,
        table: Table,
        fence: Fence,
        *,
        clock: HybridClock,
        rng: random.Random,
        now_s: float,
    ) -> None:
        self.repairs = 0
        """Repairs begun because digests differed."""
        self.repaired = 0
        """How often one of them found something to pull or to give."""
        self.pulled_bytes = 0
        """Keys and values that syncs have pulled: what was gained, and what was repaired."""
        self.handed_over_bytes = 0
        """Sizes of the sessions that holders were given since they lacked all or some of them; again if given again."""
        self.gains = Gains(myself.node, placement.layout, now_s)
        self.surplus = Surplus(myself.node, now_s)
        self._myself = myself.node
        self._placement = placement
        self._peers = peers
        self._table = table
        self._fence = fence
        self._clock = clock
        self._rng = rng
        self._sync_all_at_s: float | None = None
        self.is_cut_off = False
        """There were others, and no message comes or goes any more."""
        self._vouched: list[tuple[int, int]] = []  # (when, scope): partitions that were held whole here until then
        self._heard_end_from: dict[Sid, NodeId] = {}  # tombstones of sessions that others hold, and who told of them

    @property
    def synced(self) -> bool:
        """Everything that live members held when this node met them, and that it is to hold, is held here."""
        return self.gains.started and not self.is_cut_off

    def is_synced(self, partition: int) -> bool:
        """Say whether everything that there is of a partition is held here, so that what is not here does not exist.

        Never so of what others hold. From any thread.
        """
        gains = self.gains  # each read asks; `held` first, since what is gained becomes unsynced before it is held
        is_held = gains.started and not self.is_cut_off and gains.held >> partition & 1
        return bool(is_held and not (gains.unsynced and gains.unsynced >> partition & 1))

    def vouches(self, sid: Sid, created_ms: int, time_ms: int) -> bool:
        """Say whether a session created then that is not held here is over for all those in touch with this node.

        So where this node is to hold it, and where it was until those came that tell of it.
        """
        partition = partition_of(sid)
        return self.is_synced(partition) or bool(self._vouched_for(time_ms, created_ms) >> partition & 1)

    # --- peers come and go --------------------------------------------------------------------------------

    def new_peer(self, member: Member, now_s: float, *, again: bool) -> Peer:
        """Return a peer for a member that is live now. `again`: it was dead here."""
        if again:
            self._speak_for(self.gains.held, now_s)  # it has to show all of it, from now on
        self.gains.peer_live(member.node, again=again)
        return Peer(member, self._comparison(member.node), back=again)

    def link_up(self, peer: Peer, now_s: float) -> None:
        """A link is in use: look at all that the peer holds of what is to be held here."""
        node = peer.member.node
        peer.sync.stop()
        peer.held = None
        peer.comparison = self._comparison(node)
        self.gains.link_up(node)
        self.surplus.link_up(node)
        scope = self.gains.held
        if self._fence.is_fenced(node):  # who holds these now may not know what has ended here
            scope |= self._vouched_for(self._clock.time_ms(now_s))
        scope &= ~self.gains.unshown(node)  # what it has not shown at all is asked for in its turn
        if scope:
            self._step(peer, peer.sync.start(self._table, now_s, scope), now_s)
        if peer.outbound.unrepaired:
            self.resync(peer, now_s)
        self._go_on(now_s)

    def link_down(self, peer: Peer, now_s: float) -> None:
        """The link is lost."""
        peer.sync.stop()
        self.gains.link_down(peer.member.node)
        self.surplus.link_down(peer.member.node, now_s)

    def peer_lost(self, node: NodeId, now_s: float) -> None:
        """A member died or left: what only some had heard from it must come to all."""
        self.gains.peer_gone(node)
        self.surplus.link_down(node, now_s)
        for sid in [sid for sid, teller in self._heard_end_from.items() if teller == node]:
            del self._heard_end_from[sid]
            self.surplus.received(sid, now_s)
        # Also after a leave: what it had pulled from a member that is no more, it may have shown to some only.
        self._sync_all(now_s)
        self._sync_all_at_s = now_s + SYNC_AGAIN_S
        self._go_on(now_s)

    def layout_changed(self, before: Layout, now_s: float) -> None:
        """Sessions are placed otherwise than `before`."""
        after = self._placement.layout
        # Who died may come back in place, and who leaves hands over by itself.
        grace = any(member.is_eligible and not after.is_eligible(member.node) for member in before.live)
        self._speak_for(self.gains.held & ~after.partitions_of(self._myself), now_s)
        self.gains.layout_changed(after, now_s, grace=grace)
        leaving = any(member.node == self._myself and member.leaving for member in after.live)  # alone or with all
        filling = [peer.member.node for peer in self._peers if peer.fills] if leaving else ()
        for peer in self._peers:
            # Its digest will say so, with the next probe; this node may leave before.
            peer.fills |= bool(after.partitions_of(peer.member.node) & ~before.partitions_of(peer.member.node))
        self.surplus.layout_changed(before, after, self._table, now_s, at_once=leaving, filling=filling)
        self._go_on(now_s)

    def resync(self, peer: Peer, now_s: float) -> None:
        """Repair what was given up when a peer collapsed: it takes data again."""
        node = peer.member.node
        self._step(peer, peer.sync.start(self._table, now_s, self._shared(node), both_ways=True), now_s)
        self.surplus.offer_to(node, self._placement.layout, self._table, now_s)

    def waited_long_enough(self, now_s: float) -> None:
        """Nobody was met who has everything, for as long as one waits: what can be had now is everything there is."""
        self.gains.waited_long_enough()
        self._go_on(now_s)

    def cut_off(self) -> None:
        """No message comes or goes any more; what others hold can be asked of nobody."""
        self.is_cut_off = bool(self._peers) or self.is_cut_off

    # --- copies of what others hold -----------------------------------------------------------------------

    def received(self, node: NodeId, record: Record, now_s: float, *, news: bool, asked: bool) -> None:
        """A peer's push was merged; `news`: it has changed this record. `asked`: a request here had asked that peer."""
        layout, partition = self._placement.layout, partition_of(record.sid)
        if layout.holds(self._myself, partition):
            return
        from_holder = layout.holds(node, partition)
        if news and record.tombstone:
            self._heard_end_from[record.sid] = node  # it tells the holders by itself, unless it dies
        elif news and not (from_holder and (asked or self.surplus.asks(node, record.sid))):
            # Not what a holder sends before its answer to an offer: offered again, and answered again, without an end.
            self.surplus.received(record.sid, now_s)
        if from_holder:
            self.surplus.validated(record.sid, now_s, used=asked)  # what is here is at least what it holds

    def wrote(self, sid: Sid, now_s: float, *, created: bool) -> None:
        """A request here wrote a session."""
        if not self.is_synced(partition_of(sid)):  # a holder that is synced needs nobody's word
            (self.surplus.validated if created else self.surplus.used)(sid, now_s)

    def used(self, sid: Sid, now_s: float) -> None:
        """A request here used a session."""
        if not self._placement.layout.holds(self._myself, partition_of(sid)):
            self.surplus.used(sid, now_s)

    def validated(self, sid: Sid, now_s: float) -> None:
        """A holder has just confirmed the copy held here."""
        if not self._placement.layout.holds(self._myself, partition_of(sid)):
            self.surplus.validated(sid, now_s)

    def forget(self, sid: Sid) -> None:
        """A session is over."""
        self._heard_end_from.pop(sid, None)
        self.surplus.forget(sid)

    def have(self, peer: Peer, message: Have, now_s: float) -> None:
        """Say what is held here of the sessions that a peer offers."""
        holder = self._placement.layout.holds(self._myself, message.partition)
        held, owed = answer(message, self._table, holder=holder)
        for sid, claims in owed:
            peer.outbound.lacks(sid, claims)
        # What is newer here goes before the answer, however much it is: then its sessions are equal, and asked no more.
        self._peers.flush_all_of(peer, message.records, now_s)
        self._peers.send(peer, held)

    def held(self, peer: Peer, message: Held, now_s: float) -> None:
        """Give a holder what it lacks; drop here what all holders hold."""
        layout = self._placement.layout
        self._surplus_step(self.surplus.held(peer.member.node, message, layout, self._table, now_s), now_s)

    # --- digests ------------------------------------------------------------------------------------------

    def digest(self, node: NodeId | None, now_s: float) -> int:
        """Return what a node is shown in probes: the sum of 48 bits over all settled sessions that both are to hold."""
        layout = self._placement.layout
        if node is None or self.gains.unsynced & self._shared(node):
            return INCOMPARABLE
        both_hold_all = layout.all_to_all and layout.is_eligible(node) and layout.is_eligible(self._myself)
        shared = b"" if both_hold_all else layout.shared_leaves(self._myself, node)
        return self._table.sums.settled(now_s, shared)

    def compares(self, peer: Peer, now_s: float) -> bool:
        """Say whether the peer's digest is to be compared with this node's now."""
        return peer.link is not None and self.synced and not peer.sync.running and now_s >= peer.compared_from_s

    def compared(self, peer: Peer, *, equal: bool, now_s: float) -> None:
        """Repair a difference of digests that stands."""
        if peer.comparison.repair_due(equal, now_s):
            self.repairs += 1
            shared = self._shared(peer.member.node)
            self._step(peer, peer.sync.start(self._table, now_s, shared, both_ways=True), now_s)

    # --- what peers say -----------------------------------------------------------------------------------

    def show_sums(self, peer: Peer, message: SyncAsk, now_s: float) -> None:
        """Show a peer where its sessions and this node's differ."""
        peer.moves(now_s)
        self._peers.send(peer, sync.answer(message, self._table, self.synced))

    def show_page(self, peer: Peer, message: SyncList, now_s: float) -> None:
        """Show a peer what it may lack."""
        peer.moves(now_s)
        self._peers.send(peer, sync.listing(message, self._table, self.synced))

    def sums(self, peer: Peer, message: SyncSums, now_s: float) -> None:
        """Ask for what differs."""
        self._step(peer, peer.sync.sums(message, self._table, now_s), now_s)
        self.gains.advanced(peer.member.node, peer.sync.share, now_s)
        self.look_whether_done(peer, now_s)  # where all is equal the sync has ended

    def page(self, peer: Peer, message: SyncPage, now_s: float) -> None:
        """Pull what a page shows missing here."""
        self._step(peer, peer.sync.page(message, self._table, now_s), now_s)
        self.gains.advanced(peer.member.node, peer.sync.share, now_s)
        self.look_whether_done(peer, now_s)

    def merged(self, peer: Peer, delta: Delta, now_s: float) -> None:
        """A peer's state of a session was merged."""
        if peer.sync.running:
            before = peer.sync.pulled_bytes
            self._step(peer, peer.sync.merged(delta, self._table, now_s), now_s)
            if peer.sync.pulled_bytes > before:
                self.pulled_bytes += peer.sync.pulled_bytes - before
                self.gains.advanced(peer.member.node, peer.sync.share, now_s)

    def look_whether_done(self, peer: Peer, now_s: float) -> None:
        """Note where syncs have ended that all the peer holds has been looked at."""
        if peer.sync.completed and not self.gains.unshown(peer.member.node):
            self._fence.synced(peer.member.node, self._clock.time_ms(now_s))

    # --- time ---------------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """Return when `timeout` has work to do."""
        deadlines = [self._sync_all_at_s, self.gains.next_deadline(), self.surplus.next_deadline()]
        for peer in self._peers:
            if peer.link is not None:
                deadlines.append(peer.sync.next_deadline())
        return min((due_s for due_s in deadlines if due_s is not None), default=None)

    def timeout(self, now_s: float) -> None:
        """Do what is due, beyond asking peers again."""
        if self._sync_all_at_s is not None and self._sync_all_at_s <= now_s:
            self._sync_all_at_s = None
            self._sync_all(now_s)
        self._go_on(now_s)

    def ask_again(self, peer: Peer, now_s: float) -> None:
        """Ask a peer again for what did not come in time."""
        self._step(peer, peer.sync.timeout(self._table, now_s), now_s)

    # --- inside -------------------------------------------------------------------------------------------

    def _shared(self, node: NodeId) -> int:
        """Return what both this node and another are to hold."""
        return self.gains.held & self._placement.layout.partitions_of(node)

    def _sync_all(self, now_s: float) -> None:
        for peer in self._peers:
            if peer.link is not None:
                shared = self._shared(peer.member.node) & ~self.gains.unshown(peer.member.node)
                self._step(peer, peer.sync.start(self._table, now_s, shared), now_s)

    def _go_on(self, now_s: float) -> None:
        """Ask for what is missing next, and offer what others may lack."""
        for peer in self._peers:
            if peer.sync.rests:  # it is this node that makes a pause
                self.gains.advanced(peer.member.node, peer.sync.share, now_s)
        linked = [peer.member.node for peer in self._peers if peer.link is not None]
        while (pull := self.gains.next_pull(linked, now_s)) is not None:
            peer = self._peers[pull[0]]
            self._step(peer, peer.sync.start(self._table, now_s, pull[1]), now_s)
        self._surplus_step(self.surplus.timeout(now_s, self._placement.layout, self._table), now_s)

    def _speak_for(self, scope: int, now_s: float) -> None:
        """Remember what of a scope was held whole until now."""
        whole = scope & ~self.gains.unsynced if self.synced else 0
        if whole:
            self._vouched = [*self._vouched[1 - VOUCHED_MAX :], (self._clock.time_ms(now_s), whole)]

    def _vouched_for(self, time_ms: int, created_ms: int = 0) -> int:
        """Return for which partitions this node speaks though it has lost them, of sessions created then."""
        self._vouched = [
            (lost_ms, scope) for lost_ms, scope in self._vouched if lost_ms + VOUCHED_MS > time_ms and scope
        ]
        vouched = 0
        for lost_ms, scope in self._vouched:
            vouched |= scope if created_ms < lost_ms else 0
        return vouched

    def _surplus_step(self, step: SurplusStep, now_s: float) -> None:
        for node, sid, claims in step.owed:
            peer = self._peers.get(node)
            if peer is not None:
                peer.outbound.lacks(sid, claims)
                self.handed_over_bytes += self._table.get(sid).size
                self._peers.flush_when_due(peer, now_s)
        for sid in step.dropped:
            without = ~(1 << partition_of(sid))
            self._vouched = [(lost_ms, scope & without) for lost_ms, scope in self._vouched]
            self._peers.forget(sid)
            self._heard_end_from.pop(sid, None)
        for node, have in step.asks:
            self._peers.send(self._peers[node], have)

    def _step(self, peer: Peer, step: sync.Step, now_s: float) -> None:
        if peer.sync.running:
            peer.moves(now_s)
        if step.shown:
            self.gains.shown(peer.member.node, step.shown, started=peer.sync.peer_synced)
        for sid, claims in step.owed:
            peer.outbound.lacks(sid, claims)
        if step.owed:
            self._peers.flush_when_due(peer, now_s)
        if peer.sync.both_ways and (step.owed or isinstance(step.message, Pull)):
            self.repaired += 1
        if step.message is not None:
            peer.held = None
        outbound = peer.outbound
        if isinstance(step.message, SyncList) and len(outbound.owed) > sync.SESSIONS_PER_PAGE:
            peer.held = step.message  # what the peer is owed goes first, or writes would wait behind all of a repair
        elif step.message is not None:
            self._peers.send(peer, step.message)
        if step.message is None and outbound.unrepaired and not outbound.collapsed and not peer.sync.running:
            outbound.repaired()
        if step.shown:
            self._go_on(now_s)

    def _comparison(self, node: NodeId) -> Comparison:
        return Comparison(first=self._myself < node, rng=self._rng)
