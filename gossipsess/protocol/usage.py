# Usage: who is told when sessions were last used.
#
# In:    requests that used a session, what peers tell, layouts.    Out: accesses owed to peers, and their messages.
# Rule:  each second a session's holders are told; who becomes a holder is told what those before it knew, since no sync
#        brings it.
# Not here: how coarse accesses are, and that they are told until acknowledged (expiry.py).

from collections.abc import Callable, Iterable, Mapping

from gossipsess.model.clock import HybridClock
from gossipsess.model.delta import Delta
from gossipsess.model.identity import NodeId, Sid
from gossipsess.model.table import Table
from gossipsess.protocol.expiry import Expiry
from gossipsess.protocol.peers import Peer, Peers
from gossipsess.protocol.placement import EVERYWHERE, Layout, Placement, partition_of
from gossipsess.wire.messages import Touch, TouchAck


class Usage:
    """What one node knows and tells of accesses."""

    def __init__(self, placement: Placement, peers: Peers, table: Table, *, clock: HybridClock, now_s: float) -> None:
        self._placement = placement
        self._peers = peers
        self._table = table
        self._clock = clock
        self._expiry = Expiry(now_s)

    def accessed(self, sid: Sid, now_s: float) -> None:
        """A request here used a session."""
        self._expiry.accessed(sid, self._table, self._clock.time_ms(now_s))

    def touched(self, peer: Peer, message: Touch, now_s: float) -> None:
        """Take over when sessions were last used elsewhere."""
        latest_ms = self._clock.time_ms(now_s)
        for sid, time_ms in message.accesses:
            self._expiry.told(sid, self._table, min(time_ms, latest_ms))
        self._peers.send(peer, TouchAck(message.sequence))

    def acknowledged(self, peer: Peer, message: TouchAck, now_s: float) -> None:
        """Tell a peer of the next accesses, if more have gathered than one message holds."""
        peer.accesses.acknowledged(message)
        self._peers.tell_accesses(peer, now_s)

    def with_access(self, delta: Delta) -> Delta:
        """Return a delta with the last access that was told of its session, where that was not held until now."""
        told_ms = self._expiry.told_early_ms(delta.sid) if delta.sid not in self._table.records else 0
        return delta._replace(accessed_ms=told_ms) if told_ms > delta.accessed_ms else delta

    def next_deadline(self) -> float:
        """Return when it is time to tell what has gathered."""
        return self._expiry.next_deadline()

    def tell(self, now_s: float) -> None:
        """Tell the other holders when sessions were last used."""
        layout = self._placement.layout
        self._owe(self._expiry.gathered(now_s), lambda one: [member.node for member in layout.holders(one)])
        for peer in self._peers:
            self._peers.tell_accesses(peer, now_s)

    def tell_new_holders(self, before: Layout) -> None:
        """Owe to each holder of a partition that was none before the accesses to its sessions: no sync brings them.

        To one that has just come they come with the records where every member holds everything, and so knows them all;
        but one that is back may hold these as they were.
        """
        layout = self._placement.layout
        gainers: dict[int, list[NodeId]] = {}
        for peer in self._peers:
            node = peer.member.node
            if before.is_eligible(node) or peer.back or not layout.all_to_all:
                gained = layout.partitions_of(node) & ~before.partitions_of(node)
                for partition in range(EVERYWHERE) if gained else ():
                    if gained >> partition & 1:
                        gainers.setdefault(partition, []).append(node)
            peer.back = False
        if gainers:
            self._owe(self._table.accesses, lambda partition: gainers.get(partition, ()))

    def _owe(self, accesses: Mapping[Sid, int], hearers: Callable[[int], Iterable[NodeId]]) -> None:
        """Owe accesses to the peers among those that are to hear of them, by partition."""
        owed: dict[NodeId, dict[Sid, int]] = {peer.member.node: {} for peer in self._peers}
        for sid, time_ms in accesses.items():
            for node in hearers(partition_of(sid)):
                if node in owed:
                    owed[node][sid] = time_ms
        for peer in self._peers:
            peer.accesses.owe(owed[peer.member.node])
