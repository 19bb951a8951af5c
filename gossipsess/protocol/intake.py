# Intake: how records from elsewhere come to be held here: a peer's push, or what a node that is no more has left.
#
# In:    deltas.    Out: merged records, and the acknowledgement of a push.
# Rule:  stamps are heard before anything is taken in, so that a clock too far ahead changes nothing. A delta over a gap
#        is not applied; the acknowledgement names it, with what is held.
# Refused: what is unknown here and comes from a node that was apart for too long, as a logout of it may be forgotten.
# Not here: the merge itself (table.py, delta.py), when a node was apart for too long (fence.py).

from gossipsess.model.clock import HybridClock, Stamp
from gossipsess.model.delta import Applied, Delta
from gossipsess.model.identity import NodeId, Sid
from gossipsess.model.record import empty_record
from gossipsess.model.table import Table
from gossipsess.protocol.antientropy import AntiEntropy
from gossipsess.protocol.ends import Ends
from gossipsess.protocol.fence import Fence, created_ms
from gossipsess.protocol.notices import Notices
from gossipsess.protocol.peers import Peer, Peers
from gossipsess.protocol.reads import Reads
from gossipsess.protocol.usage import Usage
from gossipsess.wire.messages import Gap, Push, PushAck


class Intake:
    """What one node takes in."""

    def __init__(
        self,
        peers: Peers,
        table: Table,
        fence: Fence,
        usage: Usage,
        reads: Reads,
        anti_entropy: AntiEntropy,
        ends: Ends,
        notices: Notices,
        *,
        clock: HybridClock,
    ) -> None:
        self.fenced = 0
        """Sessions that came from a peer apart for too long and were ended: a logout of theirs may be forgotten."""
        self._peers = peers
        self._table = table
        self._fence = fence
        self._usage = usage
        self._reads = reads
        self._anti_entropy = anti_entropy
        self._ends = ends
        self._notices = notices
        self._clock = clock

    def pushed(self, peer: Peer, message: Push, now_s: float) -> None:
        """Merge a peer's deltas and acknowledge them.

        Raises:
            ClockAhead: a stamp lies too far in the future. Nothing of the push was taken in.
        """
        node = peer.member.node
        self._hear_stamps(message.deltas, now_s)
        time_ms = self._clock.time_ms(now_s)
        records = self._table.records
        gaps: list[Gap] = []
        over: list[Sid] = []
        for delta in message.deltas:
            sid = delta.sid
            before = records.get(sid)
            record, gap, absorbed, _, ended = self._merge(node, delta, time_ms, now_s)
            if gap:
                # Once everything was sent and still something differs, only the whole record can tell.
                claims = None if record.claims == delta.after else record.claims
                gaps.append(Gap(sid, claims, record.state_hash))
            elif sid not in records:
                over.append(sid)  # a clock far ahead refuses what others hold: that is no copy to count on
                if ended is not None:
                    self._reads.refused(node, ended)
            else:
                asked, news = self._reads.asked(node, sid), record is not before
                self._anti_entropy.received(node, record, now_s, news=news, asked=asked)
                if absorbed:
                    peer.outbound.lacks(sid, None)
            if records.get(sid) is not before:  # what was refused, or is not held yet, is no news
                if record.tombstone:
                    # Of two ends the later has come: whoever waits for the earlier one still does.
                    if before is None or not before.tombstone:
                        self._ends.died(sid)
                    self._ends.user_died(sid, now_s, remote=True)
                self._reads.merged(record)
                self._notices.merged(before, record)
            self._anti_entropy.merged(peer, delta, now_s)
        self._anti_entropy.look_whether_done(peer, now_s)
        # A tombstone that the peer lacks goes before the acknowledgement, so that its commit hears of it first.
        self._peers.flush(peer, now_s)
        self._peers.send(peer, PushAck(message.sequence, tuple(gaps), tuple(over)))

    def inherit(self, deltas: tuple[Delta, ...], since_ms: int, now_s: float) -> None:
        """Take over what nobody has outlived, whose lineage began at `since_ms`; there are no peers yet.

        Raises:
            ClockAhead, RecordTooLarge: no node that keeps to the rules has left that.
        """
        assert not self._peers, "inherited before anybody is met"
        self._hear_stamps(deltas, now_s)
        self._fence.inherit(since_ms)
        time_ms = self._clock.time_ms(now_s)
        for delta in deltas:
            if self._table.merge(delta, time_ms, now_s).record.tombstone:
                self._ends.user_died(delta.sid, now_s, remote=True)

    def _merge(self, node: NodeId, delta: Delta, time_ms: int, now_s: float) -> Applied:
        sid = delta.sid
        delta = self._usage.with_access(delta)
        if sid in self._table.records or not self._fence.refuses(node, delta, time_ms):
            return self._table.merge(delta, time_ms, now_s)
        if not self._anti_entropy.vouches(sid, created_ms(delta), time_ms):
            return Applied(empty_record(sid), gap=False)  # others must say whether it has ended; it is not taken in
        self.fenced += 1
        record = self._table.kill(sid, self._clock.tick(now_s, max(delta.after.values(), default=0)), now_s)
        self._peers.owe(empty_record(sid), tuple([peer.member for peer in self._peers]), None, now_s)
        return Applied(record, gap=False)

    def _hear_stamps(self, deltas: tuple[Delta, ...], now_s: float) -> None:
        highest: Stamp = 0
        for delta in deltas:
            for stamp in delta.after.values():
                if stamp > highest:
                    highest = stamp
            for entry in delta.entries:
                if entry[1] > highest:
                    highest = entry[1]
            if delta.tombstone > highest:
                highest = delta.tombstone
        self._clock.hear(highest, now_s)
