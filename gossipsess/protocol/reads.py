# Reads: what a request gets that asks for a session: the copy held here, or what other nodes say.
#
# In:    requests, links and members that come and go, answers, records that came in.
# Out:   messages through the peers, and the ends of waits, appended to the outbox.
# Here:  whom to ask, whether a copy is new enough, what is answered to those who ask.
# Not here: the order of the questions, and what the answers come to (fetch.py).

import math
from typing import Final

from gossipsess.model.clock import HybridClock, Stamp, time_ms_of
from gossipsess.model.identity import NodeId, Sid
from gossipsess.model.record import Record
from gossipsess.model.table import Table
from gossipsess.protocol.antientropy import AntiEntropy
from gossipsess.protocol.effects import Effect
from gossipsess.protocol.events import Fetch
from gossipsess.protocol.fetch import Candidates, Fetches, Step, satisfies
from gossipsess.protocol.membership import ENDED_MAX
from gossipsess.protocol.outcomes import Found
from gossipsess.protocol.peers import Peer, Peers
from gossipsess.protocol.placement import Placement, partition_of
from gossipsess.wire.messages import Pull, PullAnswer

UNTOKENED_S: Final = 1.0
"""How long a copy that a holder has confirmed is served without asking again to a client that shows no token. Longer:
what others wrote is seen later, and a logout that did not get here."""
TOKENED_S: Final = 10.0
"""The same, where the copy contains all that the client's token names: that client has seen nothing newer."""


class Reads:
    """What requests of one node, and of its peers, read."""

    def __init__(
        self,
        myself: NodeId,
        placement: Placement,
        peers: Peers,
        table: Table,
        anti_entropy: AntiEntropy,
        outbox: list[Effect],
        *,
        clock: HybridClock,
    ) -> None:
        self._myself = myself
        self._placement = placement
        self._peers = peers
        self._table = table
        self._anti_entropy = anti_entropy
        self._outbox = outbox
        self._clock = clock
        self._fetches = Fetches()
        self._ended: dict[NodeId, bool] = {}  # members that died (or left: False), oldest first
        self._died_ms = -1  # when a live member died last, cluster time

    # --- from the application -----------------------------------------------------------------------------

    def fetch(self, event: Fetch, now_s: float, *, since_ms: int) -> Found | None:
        """Ask the other holders for a session, or for writes to it that are missing here.

        `since_ms`: when the lineage of the data here began, cluster time.

        Returns what is known at once; None where `Settle` will tell.
        """
        records = self._table.records
        tokened = bool(event.dots)
        # What this node wrote to a copy that it has dropped: a holder that lacks it is behind.
        wrote = self._table.wrote_before_drop(event.sid, self._clock.time_ms(now_s))
        if wrote:
            event = event._replace(dots=(*event.dots, (self._myself, wrote)))
        contained = satisfies(records.get(event.sid), event.dots)
        holders = tuple([member.node for member in self._placement.others(partition_of(event.sid))])
        if contained and (not holders or self.is_current(event.sid, tokened=tokened, now_s=now_s)):
            # After the driver's end nobody can be asked whether it has changed, or ended.
            return Found.STALE if self._anti_entropy.is_cut_off else Found.FRESH
        doubted = any(self._is_doubted(origin, stamp, since_ms) for origin, stamp in event.dots)
        begun = self._fetches.start(
            event.sid,
            event.dots,
            event.waiter,
            self._candidates(event, holders),
            records,
            now_s,
            doubtful=doubted or not (holders or self._anti_entropy.synced),
            validate=contained,
        )
        if isinstance(begun, Found):
            return begun
        self._take(begun, now_s)
        return None

    def is_current(self, sid: Sid, *, tokened: bool, now_s: float) -> bool:
        """Say whether the copy held here may be served without asking a holder; on any thread.

        A holder's may, once it is synced. One that was fetched may for a while after a holder has confirmed it: a
        second, or `TOKENED_S` where it contains all that the client's token names.
        """
        if self._anti_entropy.is_synced(partition_of(sid)):
            return True
        confirmed_s = self._anti_entropy.surplus.validated_s(sid)
        return confirmed_s is not None and now_s < confirmed_s + (TOKENED_S if tokened else UNTOKENED_S)

    # --- peers come and go --------------------------------------------------------------------------------

    def member_live(self, node: NodeId) -> bool:
        """A member is live; return whether it was dead before."""
        return self._ended.pop(node, False)

    def member_ended(self, node: NodeId, *, died: bool) -> None:
        """A member died, and writes of its own may have died with it; or it left."""
        if len(self._ended) >= ENDED_MAX:
            del self._ended[next(iter(self._ended))]
        self._ended[node] = died

    def holder_lost(self, node: NodeId, now_s: float, *, died: bool) -> None:
        """A member is no more: nobody waits for it."""
        if died:
            self._died_ms = self._clock.time_ms(now_s)
        self._take(self._fetches.holder_lost(node, self._table.records, now_s, died=died), now_s)

    def linked(self, node: NodeId, now_s: float) -> None:
        """A link to a live member is in use."""
        self._take(self._fetches.linked(node, self._table.records, now_s), now_s)

    def unlinked(self, node: NodeId, now_s: float) -> None:
        """The link to a member is lost."""
        self._take(self._fetches.unlinked(node, self._table.records, now_s), now_s)

    # --- what peers say -----------------------------------------------------------------------------------

    def pulled(self, peer: Peer, message: Pull, now_s: float) -> None:
        """Send what a peer wants; its request's verdict goes after the records."""
        held, owed = False, True
        for gap in message.wanted:
            record = self._table.records.get(gap.sid)
            if record is not None:
                held = True
                if record.state_hash != gap.state_hash:
                    peer.outbound.lacks(gap.sid, gap.claims)
                    owed = owed and gap.sid in peer.outbound.owed
        if not message.request:
            self._peers.flush(peer, now_s)
        elif owed and self._peers.flush_all_of(peer, message.wanted, now_s):
            # Else an answer would come before its record: the way is full, or the peer has collapsed by this question.
            synced = all(self._anti_entropy.is_synced(partition_of(gap.sid)) for gap in message.wanted)
            self._peers.send(peer, PullAnswer(message.request, held, synced))

    def answered(self, node: NodeId, message: PullAnswer, now_s: float) -> None:
        """Take one holder's verdict on a session that a request waits for."""
        self._take(self._fetches.answered(node, message, self._table.records, now_s), now_s)

    def asked(self, node: NodeId, sid: Sid) -> bool:
        """Say whether a peer was asked for a session, and has not answered yet."""
        return self._fetches.asked(node, sid)

    def refused(self, node: NodeId, record: Record) -> None:
        """What a peer sent of a session is over by this node's time, and was not taken in."""
        self._fetches.refused(node, record)

    def merged(self, record: Record) -> None:
        """A state of a session came in, or it has ended: end the waits that it satisfies."""
        self._outbox += self._fetches.merged(record)

    # --- time ---------------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """Return when `timeout` has work to do."""
        return self._fetches.next_deadline()

    def timeout(self, now_s: float) -> None:
        """End every wait that is due, and ask the next where the last one is slow."""
        self._take(self._fetches.timeout(self._table.records, now_s), now_s)

    def end_all(self, now_s: float) -> None:
        """End every wait."""
        self._take(self._fetches.timeout(self._table.records, math.inf), now_s)

    # --- inside -------------------------------------------------------------------------------------------

    def _is_doubted(self, origin: NodeId, stamp: Stamp, since_ms: int) -> bool:
        """Say whether a write may be with nobody who can be asked, and exist all the same.

        So where its writer died, or is only out of reach: it may have told nobody who is left. And where a member died
        since, whoever the writer is: those that hold the session may all be on the other side of a partition, or have
        died together. And where it wrote while the data here existed, and nobody has heard of it: then there is
        another cluster, which was not met yet. One that wrote before was of a cluster that is no more.
        """
        if origin == self._myself or origin in self._peers:
            return time_ms_of(stamp) <= self._died_ms
        died = self._ended.get(origin)
        return time_ms_of(stamp) >= since_ms if died is None else died

    def _candidates(self, event: Fetch, holders: tuple[NodeId, ...]) -> Candidates:
        peers = [peer.member.node for peer in self._peers]
        record = self._table.get(event.sid)
        missing = [origin for origin, stamp in event.dots if not record.contains(origin, stamp)]
        origins = [origin for origin in missing if origin in self._peers and origin not in holders]
        others = tuple([node for node in peers if node not in holders and node not in origins])
        return Candidates(holders, tuple(dict.fromkeys(origins)), others, complete=self._anti_entropy.synced)

    def _take(self, step: Step, now_s: float) -> None:
        for sid in step.validated:
            self._anti_entropy.validated(sid, now_s)
        for node, pull in step.asks:
            self._peers.send(self._peers[node], pull)
        self._outbox += step.settled
