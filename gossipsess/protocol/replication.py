# Replication: deltas to the peers that hold a session, and what they acknowledge.
#
# Each peer is owed something for each session that changed: the changes since a base it is believed to hold, or
# whatever the claims it named do not cover. What is owed coalesces until the next flush; a flush makes one Push
# of it; the Push is in flight until acknowledged, and owed again when it stays so.
#
# A peer that lacks a base says so in its acknowledgement (a gap), and is then owed what its claims do not cover.
# A write is confirmed by a peer when a Push that contains it is acknowledged without a gap for its session.
# Only the node that wrote sends; what was received is never sent on, or every change would echo.
#
# Nothing here needs messages to arrive once or in order: a doubled or late Push is merged again for nothing, and
# a lost one is sent again. The link's order only makes that rare.

from typing import Final

from gossipsess.model.delta import Delta, changes_since, not_covered
from gossipsess.model.identity import Sid
from gossipsess.model.record import Claims, Record, entry_bytes
from gossipsess.model.table import Table
from gossipsess.protocol.confirmation import Ticket
from gossipsess.wire.messages import Gap, Push, PushAck

FLUSH_DELAY_S: Final = 0.004
"""How long an unconfirmed change waits for company. Shorter: more sends; longer: more is lost with a crash."""
PUSH_BYTES: Final = 48 * 1024
"""A Push is closed at about this size, so that with its frame it stays within one 64 KiB read of the peer."""
IN_FLIGHT_BYTES_MAX: Final = 4 * 1024 * 1024
"""Unacknowledged bytes to one peer. What a slow peer does not take stays owed, and coalesces."""
RESEND_AFTER_S: Final = 1.0
RESEND_AFTER_MAX_S: Final = 30.0
DELTA_OVERHEAD_BYTES: Final = 96

Debt = Record | Claims
"""What a peer is believed to hold of a session: an earlier state of it, or its own claims."""


class _Flight:
    __slots__ = ("bytes", "debts", "sent_at_s", "tickets")

    def __init__(self, debts: dict[Sid, Debt], tickets: dict[Sid, list[Ticket]], size: int, now_s: float) -> None:
        self.debts = debts
        self.tickets = tickets
        self.bytes = size
        self.sent_at_s = now_s


class Outbound:
    """What one peer is owed, and what is on its way to it."""

    def __init__(self) -> None:
        self.owed: dict[Sid, Debt] = {}
        self.waiting: dict[Sid, list[Ticket]] = {}  # tickets of what is owed
        self._flights: dict[int, _Flight] = {}
        self._in_flight_bytes = 0
        self._sequence = 0
        self._resend_after_s = RESEND_AFTER_S

    def wrote(self, before: Record, ticket: Ticket | None) -> None:
        """Owe what a local write changed; `before` is the state before it."""
        sid = before.sid
        if sid not in self.owed:
            self.owed[sid] = before
        if ticket is not None:
            waiting = self.waiting.setdefault(sid, [])
            if waiting and waiting[0].settled:  # timed out, or confirmed by others, while this peer takes nothing
                waiting[:] = [one for one in waiting if not one.settled]
            waiting.append(ticket)

    def forget(self, sid: Sid) -> None:
        """Owe nothing of a session that expired: the peer's copy does so by itself."""
        self.owed.pop(sid, None)
        self.waiting.pop(sid, None)

    def owes(self, gaps: tuple[Gap, ...]) -> bool:
        """Say whether any of these sessions is still to be sent."""
        return any(gap.sid in self.owed for gap in gaps)

    def lacks(self, sid: Sid, claims: Claims | None) -> None:
        """Owe what those claims do not cover; everything where the peer named none."""
        self.owed[sid] = claims or {}

    def flush(self, table: Table, now_s: float) -> Push | None:
        """Return the next Push, or None where nothing is owed or too much is in flight."""
        if not self.owed or self._in_flight_bytes >= IN_FLIGHT_BYTES_MAX:
            return None
        deltas: list[Delta] = []
        debts: dict[Sid, Debt] = {}
        size = 0
        for sid, debt in self.owed.items():
            debts[sid] = debt
            record = table.records.get(sid)
            if record is None:
                continue  # it expired meanwhile: the peer's copy does so by itself
            delta = cut(record, debt)
            if not isinstance(debt, Record):  # the peer asked, and may not know when it was last used
                delta = delta._replace(accessed_ms=table.life(record).accessed_ms)
            deltas.append(delta)
            size += DELTA_OVERHEAD_BYTES
            for entry in delta.entries:
                size += entry_bytes(entry[0], entry[3])
            if size >= PUSH_BYTES:
                break
        if len(debts) == len(self.owed):
            self.owed = {}
        else:
            for sid in debts:
                del self.owed[sid]
        tickets = {sid: self.waiting.pop(sid) for sid in debts if sid in self.waiting} if self.waiting else {}
        if not deltas:
            return None
        self._sequence += 1
        self._flights[self._sequence] = _Flight(debts, tickets, size, now_s)
        self._in_flight_bytes += size
        return Push(self._sequence, tuple(deltas))

    def acknowledged(self, ack: PushAck) -> dict[Sid, list[Ticket]]:
        """Take a peer's acknowledgement; return the tickets of what it now holds."""
        flight = self._flights.pop(ack.sequence, None)
        if flight is None:
            return {}  # it was sent again meanwhile, and that one counts
        self._in_flight_bytes -= flight.bytes
        self._resend_after_s = RESEND_AFTER_S
        for gap in ack.gaps:
            if gap.sid in flight.debts:
                self.lacks(gap.sid, gap.claims)
                self._wait_again(gap.sid, flight.tickets.pop(gap.sid, None))
        for sid in ack.over:
            flight.tickets.pop(sid, None)  # not held there, and not to be sent again: the wait ends at its deadline
        return flight.tickets

    def resend(self, now_s: float) -> None:
        """Owe again what has been in flight for too long."""
        late = [
            sequence for sequence, flight in self._flights.items() if flight.sent_at_s + self._resend_after_s <= now_s
        ]
        if late:
            self._owe_again(late)
            self._resend_after_s = min(2 * self._resend_after_s, RESEND_AFTER_MAX_S)

    def link_lost(self) -> None:
        """Owe again all that was in flight."""
        self._owe_again(list(self._flights))

    def next_resend_s(self) -> float | None:
        """Return when the oldest flight is due again."""
        first = next(iter(self._flights.values()), None)
        return first.sent_at_s + self._resend_after_s if first is not None else None

    def tickets_of(self, sid: Sid) -> list[Ticket]:
        """Return the tickets of a session, whether its write is owed or in flight."""
        tickets = list(self.waiting.get(sid, ()))
        for flight in self._flights.values():
            tickets += flight.tickets.get(sid, ())
        return tickets

    @property
    def can_flush(self) -> bool:
        """Something is owed and there is room for it."""
        return bool(self.owed) and self._in_flight_bytes < IN_FLIGHT_BYTES_MAX

    @property
    def in_flight_bytes(self) -> int:
        """How much is on its way to this peer, in bytes, counted anew."""
        return sum(flight.bytes for flight in self._flights.values())

    @property
    def unacknowledged(self) -> int:
        """How many sessions this peer is not known to hold as this node does."""
        return len(self.owed) + sum(len(flight.debts) for flight in self._flights.values())

    def _owe_again(self, sequences: list[int]) -> None:
        for sequence in reversed(sequences):  # newest first: the oldest base is the one the peer may still have
            flight = self._flights.pop(sequence)
            self._in_flight_bytes -= flight.bytes
            for sid, debt in flight.debts.items():
                self.owed[sid] = debt
                self._wait_again(sid, flight.tickets.get(sid))

    def _wait_again(self, sid: Sid, tickets: list[Ticket] | None) -> None:
        unsettled = [ticket for ticket in tickets or () if not ticket.settled]
        if unsettled:
            self.waiting.setdefault(sid, []).extend(unsettled)


def cut(record: Record, debt: Debt) -> Delta:
    """Return the delta that pays a debt."""
    return changes_since(record, debt) if isinstance(debt, Record) else not_covered(record, debt)
