# Notices: what is told to those who watch this node's sessions.
#
# In:    what happens to sessions, by requests here, by what peers say, or by time.
# Out:   `Notify`, appended to the outbox, while somebody watches.
# Rule:  each change of a session is told once on each node that holds it; of a copy that was fetched for a read only
#        its end. Marks and users are records too, and nobody hears of them.
# Not here: who listens (subscription.py).

from gossipsess.model.adoption import is_mark_sid
from gossipsess.model.identity import NodeId, Sid
from gossipsess.model.record import Record
from gossipsess.model.revocation import is_user_sid
from gossipsess.protocol.effects import ChangeKind, Effect, Notify
from gossipsess.protocol.placement import Placement, partition_of


class Notices:
    """What one node's watchers hear."""

    def __init__(self, myself: NodeId, placement: Placement, outbox: list[Effect]) -> None:
        self.wanted = False
        """Somebody watches."""
        self._myself = myself
        self._placement = placement
        self._outbox = outbox

    def tell(self, kind: ChangeKind, sid: Sid, *, remote: bool) -> None:
        """Tell of a change. `remote`: another node made it, or announces it."""
        if self.wanted and not is_mark_sid(sid):
            self._outbox.append(Notify(kind, sid, remote))

    def merged(self, before: Record | None, record: Record) -> None:
        """Tell what a peer's delta has made of a record; `before` is None where none was held."""
        if not self.wanted or is_user_sid(record.sid):
            return
        if not self._holds(record.sid) and not (record.tombstone and before is not None):
            return  # a copy, fetched for a read: its holders tell of what happens to it
        if before is None and not record.tombstone:
            self.tell("created", record.sid, remote=True)
        elif before is None or before.state_hash != record.state_hash:  # else only claims have advanced
            self.tell("invalidated" if record.tombstone else "changed", record.sid, remote=True)

    def expired(self, record: Record) -> None:
        """Tell that a session has ended by time: each holder finds so itself, and one of them announces it."""
        if self.wanted and not record.tombstone and self._holds(record.sid):
            announcer = self._placement.layout.announcer(partition_of(record.sid))
            self.tell("expired", record.sid, remote=announcer.node != self._myself)

    def _holds(self, sid: Sid) -> bool:
        return self._placement.layout.holds(self._myself, partition_of(sid))
