# Ends: what ends with a session, whatever ended it.
#
# In:    tombstones that were just put on records, by a request or a peer; cluster time.
# Out:   the ends of waits, and what watchers hear, appended to the outbox.
# Three ways to end: a tombstone of its own; that of its user, from which each node derives those of the sessions it
#        holds, and sends them to nobody; and time, which leaves no tombstone, since every node finds so itself.
# Not here: what a tombstone does to a record (table.py), to whom it is sent (writes.py).

from gossipsess.model.clock import HybridClock
from gossipsess.model.identity import Sid
from gossipsess.model.table import Table
from gossipsess.protocol.antientropy import AntiEntropy
from gossipsess.protocol.confirmation import Confirmations
from gossipsess.protocol.effects import Effect
from gossipsess.protocol.notices import Notices
from gossipsess.protocol.peers import Peers
from gossipsess.protocol.reads import Reads


class Ends:
    """How sessions end on one node."""

    def __init__(
        self,
        peers: Peers,
        table: Table,
        confirmations: Confirmations,
        reads: Reads,
        anti_entropy: AntiEntropy,
        notices: Notices,
        outbox: list[Effect],
        *,
        clock: HybridClock,
    ) -> None:
        self._peers = peers
        self._table = table
        self._confirmations = confirmations
        self._reads = reads
        self._anti_entropy = anti_entropy
        self._notices = notices
        self._outbox = outbox
        self._clock = clock

    def died(self, sid: Sid) -> None:
        """A session is dead now: who waits for writes to it waits no longer."""
        self._outbox += self._confirmations.gone(sid)

    def user_died(self, user: Sid, now_s: float, *, remote: bool) -> int:
        """End a user's sessions, should the tombstone just put on this sid be a user's; return how many ended."""
        ended = self._table.end_sessions_of(user, now_s)
        for record in ended:
            self.died(record.sid)
            self._reads.merged(record)
            self._notices.tell("invalidated", record.sid, remote=remote)
        return len(ended)

    def drop_ended(self, now_s: float) -> None:
        """Drop what is over by time, and tombstones that have been kept for long enough."""
        for record in self._table.expired(self._clock.time_ms(now_s), now_s):
            self._peers.forget(record.sid)
            self._anti_entropy.forget(record.sid)
            self._notices.expired(record)
