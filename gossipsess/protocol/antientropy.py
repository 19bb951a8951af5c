# Anti-entropy: this node comes to hold what its peers hold, whatever was lost on the way.
#
# In:    links that come up, members that are no more, digests in probes, the messages of syncs.
# Out:   questions and answers, through the peers; `synced`: everything is here.
# When:  a sync runs with each peer when a link comes up; with all when a member is no more, at once and once again;
#        with one whose settled digest differs, or that takes data again after it had collapsed.
# Not here: how a sync asks (sync.py), when a difference is one (repair.py), what old sessions are refused (fence.py).

import random
from typing import Final

from gossipsess.model.clock import HybridClock
from gossipsess.model.delta import Delta
from gossipsess.model.identity import NodeId
from gossipsess.model.member import Member
from gossipsess.model.table import Table
from gossipsess.protocol import sync
from gossipsess.protocol.fence import Fence
from gossipsess.protocol.peers import Peer, Peers
from gossipsess.protocol.repair import Comparison
from gossipsess.wire.messages import Pull, SyncAsk, SyncList, SyncPage, SyncSums

SYNC_AGAIN_S: Final = 3.0
"""After a member died or left, a second sync follows this much later: what it had told others may still have been on
their way to each other at the first."""


class AntiEntropy:
    """The syncs of one node, and what they have come to."""

    def __init__(
        self, myself: NodeId, peers: Peers, table: Table, fence: Fence, *, clock: HybridClock, rng: random.Random
    ) -> None:
        self.synced = False
        """Everything that live members held when this node met them is held here."""
        self.repairs = 0
        """Repairs begun because digests differed."""
        self.repaired = 0
        """How often one of them found something to pull or to give."""
        self._myself = myself
        self._peers = peers
        self._table = table
        self._fence = fence
        self._clock = clock
        self._rng = rng
        self._sync_all_at_s: float | None = None
        self._patient = True
        """While it starts: a member that has everything may still turn up."""

    # --- peers come and go --------------------------------------------------------------------------------

    def new_peer(self, member: Member) -> Peer:
        """Return a peer for a member that is live now."""
        return Peer(member, self._comparison(member.node))

    def link_up(self, peer: Peer, now_s: float) -> None:
        """A link is in use: look at all that the peer holds."""
        peer.sync.stop()
        peer.comparison = self._comparison(peer.member.node)
        self._step(peer, peer.sync.start(self._table, now_s, both_ways=peer.outbound.unrepaired), now_s)

    def peer_lost(self, now_s: float) -> None:
        """A member died or left: what only some had heard from it must come to all."""
        # Also after a leave: what it had pulled from a member that is no more, it may have shown to some only.
        self._sync_all(now_s)
        self._sync_all_at_s = now_s + SYNC_AGAIN_S
        if not self.synced:
            self._look_whether_synced()

    def resync(self, peer: Peer, now_s: float) -> None:
        """Repair what was given up when a peer collapsed: it takes data again."""
        self._step(peer, peer.sync.start(self._table, now_s, both_ways=True), now_s)

    def waited_long_enough(self) -> None:
        """Nobody was met who has everything, for as long as one waits: what can be had now is everything there is."""
        self._patient = False
        self._look_whether_synced()

    # --- digests ------------------------------------------------------------------------------------------

    def compares(self, peer: Peer, now_s: float) -> bool:
        """Say whether the peer's digest is to be compared with this node's now."""
        return peer.link is not None and self.synced and not peer.sync.running and now_s >= peer.compared_from_s

    def compared(self, peer: Peer, *, equal: bool, now_s: float) -> None:
        """Repair a difference of digests that stands."""
        if peer.comparison.repair_due(equal, now_s):
            self.repairs += 1
            self._step(peer, peer.sync.start(self._table, now_s, both_ways=True), now_s)

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
        self.look_whether_done(peer, now_s)  # where all is equal the sync has ended

    def page(self, peer: Peer, message: SyncPage, now_s: float) -> None:
        """Pull what a page shows missing here."""
        self._step(peer, peer.sync.page(message, self._table, now_s), now_s)
        self.look_whether_done(peer, now_s)

    def merged(self, peer: Peer, delta: Delta, now_s: float) -> None:
        """A peer's state of a session was merged."""
        if peer.sync.running:
            self._step(peer, peer.sync.merged(delta, self._table, now_s), now_s)

    def look_whether_done(self, peer: Peer, now_s: float) -> None:
        """Note where a sync has ended that all the peer holds has been looked at."""
        if peer.sync.completed:
            self._fence.synced(peer.member.node, self._clock.time_ms(now_s))

    # --- time ---------------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """Return when `timeout` has work to do."""
        deadlines = [self._sync_all_at_s]
        for peer in self._peers:
            if peer.link is not None:
                deadlines.append(peer.sync.next_deadline())
        return min((due_s for due_s in deadlines if due_s is not None), default=None)

    def timeout(self, now_s: float) -> None:
        """Begin the second sync with all where it is due."""
        if self._sync_all_at_s is not None and self._sync_all_at_s <= now_s:
            self._sync_all_at_s = None
            self._sync_all(now_s)

    def ask_again(self, peer: Peer, now_s: float) -> None:
        """Ask a peer again for what did not come in time."""
        self._step(peer, peer.sync.timeout(self._table, now_s), now_s)

    # --- inside -------------------------------------------------------------------------------------------

    def _sync_all(self, now_s: float) -> None:
        for peer in self._peers:
            if peer.link is not None:
                self._step(peer, peer.sync.start(self._table, now_s), now_s)

    def _step(self, peer: Peer, step: sync.Step, now_s: float) -> None:
        if peer.sync.running:
            peer.moves(now_s)
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
            return
        if step.message is not None:
            self._peers.send(peer, step.message)
            return
        if outbound.unrepaired and not outbound.collapsed and not peer.sync.running:
            outbound.repaired()
        if peer.sync.completed and not self.synced:
            self._look_whether_synced()

    def _look_whether_synced(self) -> None:
        if self._patient:
            self.synced = self.synced or (
                any(peer.sync.peer_synced for peer in self._peers) and all(peer.sync.completed for peer in self._peers)
            )
        elif all(peer.sync.completed for peer in self._peers if peer.link is not None):
            self.synced = True  # who is live and cannot be linked is asked by each fetch all the same

    def _comparison(self, node: NodeId) -> Comparison:
        return Comparison(first=self._myself < node, rng=self._rng)
