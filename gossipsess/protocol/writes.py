# Writes: what a request gets that changes sessions: new records here, and the word of others that they hold them.
#
# In:    requests' events, acknowledgements.
# Out:   records in the table, what peers are owed, and the ends of waits, appended to the outbox.
# Rule:  a change is visible here at once, goes to the session's holders with the next flush, and is waited for as the
#        request asks. A tombstone goes to everybody: copies that were fetched for a read may be anywhere.
# Not here: who is to be sent a write (recipients.py), when a wait ends (confirmation.py), what ends with a session
# (ends.py).

import math
from typing import Final, NamedTuple

from gossipsess.model.adoption import is_mark_sid
from gossipsess.model.clock import HybridClock, Stamp
from gossipsess.model.delta import not_covered
from gossipsess.model.member import Member
from gossipsess.model.record import CREATED, Record, empty_record
from gossipsess.model.subkeys import rotated
from gossipsess.model.table import Table
from gossipsess.protocol.antientropy import AntiEntropy
from gossipsess.protocol.confirmation import Confirmations, Ticket
from gossipsess.protocol.effects import Effect
from gossipsess.protocol.ends import Ends
from gossipsess.protocol.events import Adopt, Confirm, Invalidate, Revoke, Rotate, Waiter, Write
from gossipsess.protocol.memory import MemoryLimit
from gossipsess.protocol.notices import Notices
from gossipsess.protocol.outcomes import Confirmed, Degraded, Gone
from gossipsess.protocol.peers import Peer, Peers
from gossipsess.protocol.placement import Placement, partition_of
from gossipsess.protocol.recipients import Recipients
from gossipsess.protocol.replication import FLUSH_DELAY_S
from gossipsess.wire.messages import PushAck

_NOBODY: Final = Confirmed(0, 0)


class Written(NamedTuple):
    """What a write left."""

    record: Record
    """The new record; a dead or empty one where the outcome is `Gone`."""
    outcome: Confirmed | Degraded | Gone | None
    """None: `Settle` will tell."""
    ended: int = 0
    """How many sessions of a revoked user were held here."""
    stamp: Stamp = 0
    """The stamp of a write or a rotation, which with this node's id names it; the record need not claim it."""


class Writes:
    """What requests of one node change."""

    def __init__(
        self,
        myself: Member,
        placement: Placement,
        peers: Peers,
        table: Table,
        confirmations: Confirmations,
        anti_entropy: AntiEntropy,
        ends: Ends,
        notices: Notices,
        outbox: list[Effect],
        *,
        clock: HybridClock,
        memory: MemoryLimit,
    ) -> None:
        self._myself = myself.node
        self._placement = placement
        self._peers = peers
        self._table = table
        self._recipients = Recipients(myself, placement, peers)
        self._confirmations = confirmations
        self._anti_entropy = anti_entropy
        self._ends = ends
        self._notices = notices
        self._outbox = outbox
        self._clock = clock
        self._memory = memory
        self._abandoned = False

    # --- from the application -----------------------------------------------------------------------------

    def write(self, event: Write, now_s: float, *, moves: bool = False) -> Written:
        """Change one session; its new record is visible at once. `moves`: it takes the place of another.

        Raises:
            SessionTooLarge: the session would be over its bound. Nothing has changed.
            MemoryFull: the session is new, and there is no room for it. Nothing has changed.
        """
        begins = event.changes[0][0] == CREATED
        if begins and not moves and event.sid not in self._table.records:
            self._admit(now_s)
        before = self._table.get(event.sid)
        if event.base is not None and not begins and not (before.entries or before.tombstone):
            before = self._held_again(event.base, now_s)
        if before.tombstone or bool(before.entries) == begins:
            # Invalidated or expired since the request read it; or an id that is to be used again, which no id ever is.
            return Written(before, Gone())
        stamp = self._clock.tick(now_s, before.newest)
        record = self._table.write(event.sid, event.changes, stamp, self._myself, now_s)
        self._anti_entropy.wrote(event.sid, now_s, created=begins)
        outcome = self._replicate(before, event.confirm, event.waiter, now_s)
        if self._notices.wanted:  # a call less for each request
            self._notices.tell("changed" if before.entries else "created", event.sid, remote=False)
        return Written(record, outcome, 0, stamp)

    def invalidate(self, event: Invalidate, now_s: float) -> Written:
        """Put a tombstone on a session, known here or not."""
        before = self._table.get(event.sid)
        record = self._table.kill(event.sid, self._clock.tick(now_s, before.newest), now_s)
        if not before.tombstone:
            self._ends.died(event.sid)
        outcome = self._end(before, event.confirm, event.waiter, now_s)
        if not before.tombstone:
            self._notices.tell("invalidated", event.sid, remote=False)
        return Written(record, outcome)

    def rotate(self, event: Rotate, now_s: float) -> Written:
        """Move a session's data to a new sid. Both records leave in the same flush."""
        before = self._table.get(event.sid)
        if not before.entries:
            return Written(before, Gone())
        kept = rotated(before.entries, event.changes)
        born = Write(event.new_sid, tuple(kept.items()), event.confirm, event.waiter)
        died_at = self._clock.tick(now_s, before.newest)
        written = self.write(born, now_s, moves=True)  # before the old one ends: if it is refused, nothing happened
        if isinstance(written.outcome, Gone):
            return written
        self._table.kill(event.sid, died_at, now_s)
        self._ends.died(event.sid)
        self._end(before, 0, event.waiter, now_s)  # only the new record is waited for
        self._notices.tell("invalidated", event.sid, remote=False)
        return written

    def revoke(self, event: Revoke, now_s: float) -> Written:
        """End a user's sessions: a tombstone of the user, from which each node derives those of the sessions it holds.

        Its stamp is above everything this node has heard, and so above every login of which it knows.
        """
        before = self._table.get(event.sid)
        record = self._table.kill(event.sid, self._clock.tick(now_s, before.newest), now_s)
        ended = self._ends.user_died(event.sid, now_s, remote=False)
        return Written(record, self._end(before, event.confirm, event.waiter, now_s), ended)

    def adopt(self, event: Adopt, now_s: float) -> Written:
        """Take in what a client has kept until now, as if a node had sent it that wrote it then.

        `Gone`: it has ended, or would have by now, by time or since its user was revoked.

        Raises:
            MemoryFull: there is no room for it. Nothing has changed.
        """
        before = self._table.get(event.delta.sid)
        if before.entries:
            return Written(before, Confirmed(0, 0))  # whoever took it in here waits for the others
        if not before.tombstone and not is_mark_sid(before.sid):  # a mark follows its session, which was let in
            self._admit(now_s)
        record = self._table.merge(event.delta, self._clock.time_ms(now_s), now_s).record
        if not record.entries:
            return Written(record, Gone())
        self._anti_entropy.wrote(record.sid, now_s, created=True)
        outcome = self._replicate(before, event.confirm, event.waiter, now_s)
        self._notices.tell("created", record.sid, remote=False)
        return Written(record, outcome)

    # --- what comes of it ---------------------------------------------------------------------------------

    def acknowledged(self, peer: Peer, message: PushAck, now_s: float) -> None:
        """Confirm what a peer holds, and owe it what it lacks."""
        had_collapsed = peer.outbound.collapsed
        for sid, tickets in peer.outbound.acknowledged(message).items():
            holders = self._placement.others(partition_of(sid))
            for ticket in tickets:
                self._outbox += self._confirmations.held_by(ticket, peer.member, holders)
        if had_collapsed:
            self._anti_entropy.resync(peer, now_s)
        self._peers.flush(peer, now_s)

    def timeout(self, now_s: float) -> None:
        """Send what is waited for for long to more members, and end the waits that are due."""
        for ticket in self._confirmations.hedges(now_s):
            more = self._recipients.hedge(ticket, self._confirmations.other_hosts)
            self._owe(empty_record(ticket.sid), more, ticket, now_s)
        self._outbox += self._confirmations.timeout(now_s)

    def abandon(self) -> None:
        """End every wait: no message comes or goes any more, and what was owed is owed to nobody."""
        self._abandoned = bool(self._peers) or self._abandoned
        self._outbox += self._confirmations.timeout(math.inf)

    # --- inside -------------------------------------------------------------------------------------------

    def _held_again(self, read: Record, now_s: float) -> Record:
        """Hold the copy again that a request has read, where it was dropped since, because others hold the session.

        Returns what is held then.

        Else a request that lasts for longer than copies are kept, as a WebSocket does, would lose what it writes. The
        holders have whatever came meanwhile, its end too: written to here, it becomes what they hold. Who holds all
        that there is and not this one lacks it because it has ended.
        """
        if read.entries and not self._anti_entropy.is_synced(partition_of(read.sid)):
            self._table.merge(not_covered(read, {}), self._clock.time_ms(now_s), now_s)
        return self._table.get(read.sid)

    def _admit(self, now_s: float) -> None:
        if self._memory.is_met(self._table.bytes):
            self._ends.drop_ended(now_s)  # else done once a second, and never again once the driver has ended
            self._outbox += self._memory.looked_at(self._table.bytes)
            self._memory.admit(self._table.bytes)

    def _replicate(self, before: Record, confirm: Confirm, waiter: Waiter, now_s: float) -> Confirmed | Degraded | None:
        if not self._peers:
            return self._told_nobody(confirm)
        members = self._recipients.of_write(before.sid, confirm, self._confirmations.other_hosts)
        hedge = len(members) < len(self._peers) and confirm != 0
        return self._send(before, members, confirm, waiter, now_s, hedge=hedge)

    def _end(self, before: Record, confirm: Confirm, waiter: Waiter, now_s: float) -> Confirmed | Degraded | None:
        """Send a tombstone to everybody: copies that were fetched for a read may be anywhere."""
        return self._send(before, tuple([peer.member for peer in self._peers]), confirm, waiter, now_s, hedge=False)

    def _send(
        self,
        before: Record,
        members: tuple[Member, ...],
        confirm: Confirm,
        waiter: Waiter,
        now_s: float,
        *,
        hedge: bool,
    ) -> Confirmed | Degraded | None:
        if not members:
            return self._told_nobody(confirm)
        if confirm == 0:
            self._peers.owe(before, members, None, now_s + FLUSH_DELAY_S)
            return Confirmed(0, 0)
        ticket = self._confirmations.open(before.sid, waiter, confirm, now_s, hedge=hedge)
        self._owe(before, members, ticket, now_s)
        return None

    def _told_nobody(self, confirm: Confirm) -> Confirmed | Degraded:
        return Degraded(0, 0) if self._abandoned and confirm != 0 else _NOBODY

    def _owe(self, before: Record, members: tuple[Member, ...], ticket: Ticket, now_s: float) -> None:
        ticket.tried.update({member.node: member.host for member in members})
        self._peers.owe(before, members, ticket, now_s)
