# Peers: the live members as the data sees them: what each is owed, and when that is sent.
#
# In:    what changed, and for whom.    Out: messages, appended to the outbox that the replica shares with it.
# One deadline for all: a flush makes one Push a peer of everything it is owed.
# Not here: what a Push is made of (replication.py), who is owed what (writes.py), what a sync asks (antientropy.py).

import math
from collections.abc import Iterator

from gossipsess.model import digest as digests
from gossipsess.model.identity import NodeId, Sid
from gossipsess.model.member import Member
from gossipsess.model.record import Record
from gossipsess.model.table import Table
from gossipsess.protocol import sync
from gossipsess.protocol.confirmation import Ticket
from gossipsess.protocol.effects import Effect, Send
from gossipsess.protocol.expiry import Accesses
from gossipsess.protocol.repair import Comparison
from gossipsess.protocol.replication import Outbound
from gossipsess.wire.messages import Gap, LinkMessage, SyncList


class Peer:
    """A live member as the data sees it. `link` is None while there is none."""

    __slots__ = (
        "accesses",
        "back",
        "compared_from_s",
        "comparison",
        "fills",
        "held",
        "link",
        "member",
        "outbound",
        "sync",
    )

    def __init__(self, member: Member, comparison: Comparison, *, back: bool) -> None:
        self.member = member
        self.back = back
        """It was taken for dead; until the layout has changed for its return."""
        self.link: int | None = None
        self.outbound = Outbound()
        self.accesses = Accesses()
        self.sync = sync.Sync()
        self.held: SyncList | None = None
        """The next question of the sync, while the peer is still owed much."""
        self.comparison = comparison
        self.fills = True
        """It may not hold yet all that it is to hold: its last digest said so, or there was none."""
        self.compared_from_s = -math.inf

    def moves(self, now_s: float) -> None:
        """Note that a sync of either side runs: what it moves has settled on both sides only later.

        Half as long again as that takes, since the last of it may still be on its way.
        """
        self.compared_from_s = now_s + 1.5 * digests.SETTLE_S


class Peers:
    """Every live member but this node."""

    def __init__(self, table: Table, outbox: list[Effect]) -> None:
        self.flush_at_s: float | None = None
        """When what peers are owed is sent; None while they are owed nothing."""
        self._table = table
        self._outbox = outbox
        self._of: dict[NodeId, Peer] = {}

    def __getitem__(self, node: NodeId) -> Peer:
        return self._of[node]

    def __iter__(self) -> Iterator[Peer]:
        return iter(self._of.values())

    def __contains__(self, node: object) -> bool:
        return node in self._of

    def __len__(self) -> int:
        return len(self._of)

    def get(self, node: NodeId) -> Peer | None:
        """Return a peer; None where the node is no live member."""
        return self._of.get(node)

    def add(self, peer: Peer) -> None:
        """A member is live."""
        self._of[peer.member.node] = peer

    def remove(self, node: NodeId) -> Peer | None:
        """A member is no more: what it was owed is void."""
        return self._of.pop(node, None)

    def clear(self) -> None:
        """Owe nobody anything any more."""
        self._of.clear()
        self.flush_at_s = None

    # --- what is owed -------------------------------------------------------------------------------------

    def owe(self, before: Record, members: tuple[Member, ...], ticket: Ticket | None, due_s: float) -> None:
        """Owe these members what a local write changed; `before` is the state before it."""
        for member in members:
            self._flush_at(self._of[member.node].outbound.wrote(before, ticket, due_s))

    def forget(self, sid: Sid) -> None:
        """Owe nothing of a session that is over."""
        for peer in self._of.values():
            peer.outbound.forget(sid)
            peer.accesses.forget(sid)

    @property
    def unacknowledged(self) -> int:
        """How many session states are not known to be held by a peer that should hold them."""
        return sum(peer.outbound.unacknowledged for peer in self._of.values())

    # --- what is sent -------------------------------------------------------------------------------------

    def send(self, peer: Peer, message: LinkMessage) -> None:
        """Send a message, where there is a link."""
        if peer.link is not None:
            self._outbox.append(Send(peer.link, message))

    def flush_all(self, now_s: float) -> None:
        """Send every peer one Push of what it is owed; what does not fit goes with the next."""
        self.flush_at_s = None
        for peer in self._of.values():
            self.flush(peer, now_s)

    def flush(self, peer: Peer, now_s: float) -> None:
        """Send one peer one Push of what it is owed, and the question of a sync that waited for that."""
        if peer.link is None:
            return
        push = peer.outbound.flush(self._table, now_s)
        if push is not None:
            self._outbox.append(Send(peer.link, push))
        if peer.held is not None and len(peer.outbound.owed) <= sync.SESSIONS_PER_PAGE:
            question, peer.held = peer.held, None
            self.send(peer, question)
        self.flush_when_due(peer, now_s)

    def flush_all_of(self, peer: Peer, gaps: tuple[Gap, ...], now_s: float) -> bool:
        """Send one peer what it is owed, in as many Pushes as it takes until these sessions are among it.

        Returns False where the way to it is full before.
        """
        self.flush(peer, now_s)
        while peer.link is not None and peer.outbound.can_flush and peer.outbound.owes(gaps):
            self.flush(peer, now_s)
        return not peer.outbound.owes(gaps)

    def flush_when_due(self, peer: Peer, now_s: float) -> None:
        """See to it that the peer is sent what it is owed."""
        due_s = peer.outbound.next_flush_s(now_s)
        if due_s is not None:
            self._flush_at(due_s)

    def tell_accesses(self, peer: Peer, now_s: float) -> None:
        """Send the next batch of accesses that the peer has not acknowledged."""
        if peer.link is not None:
            touch = peer.accesses.batch(self._table, now_s)
            if touch is not None:
                self.send(peer, touch)

    # --- time ---------------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """Return when `timeout` has work to do."""
        deadlines = [self.flush_at_s]
        for peer in self._of.values():
            if peer.link is not None:
                deadlines.append(peer.outbound.next_resend_s())
        return min((due_s for due_s in deadlines if due_s is not None), default=None)

    def _flush_at(self, due_s: float) -> None:
        if due_s < (math.inf if self.flush_at_s is None else self.flush_at_s):
            self.flush_at_s = due_s
