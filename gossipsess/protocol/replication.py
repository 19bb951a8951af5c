# Replication: deltas to the peers that hold a session, and what they acknowledge.
#
# Each peer is owed something for each session that changed: what the claims it is believed to have, or has named,
# do not cover. What is owed coalesces until the next flush; a flush makes one Push of it; the Push is in flight
# until acknowledged, and owed again when it stays so.
#
# A peer that lacks a base says so in its acknowledgement (a gap), and is then owed what its claims do not cover.
# A write is confirmed by a peer when a Push that contains it is acknowledged without a gap for its session.
# Only the node that wrote sends; what was received is never sent on, or every change would echo.
#
# A slow peer must not cost more than a fast one. So a base is claims wherever those cover it, and keeps no former
# values alive; the bytes on the way are bounded; and a peer that is owed too much, or has acknowledged nothing for
# too long, has collapsed: all of that is given up, and a sync repairs it once the peer takes data again. To ask
# whether it does, a Push without deltas is sent now and then.
#
# Nothing here needs messages to arrive once or in order: a doubled or late Push is merged again for nothing, and
# a lost one is sent again. The link's order only makes that rare.
# Not here: which sessions rest because they are sent too often (pace.py), the repair (sync.py).

from collections import deque
from itertools import chain
from math import inf
from typing import Final

from gossipsess.model.delta import Delta, changes_since, not_covered
from gossipsess.model.identity import Sid
from gossipsess.model.record import Claims, Record, entry_bytes
from gossipsess.model.table import Table
from gossipsess.protocol.confirmation import Ticket
from gossipsess.protocol.pace import Pace
from gossipsess.wire.messages import Gap, Push, PushAck

FLUSH_DELAY_S: Final = 0.004
"""How long an unconfirmed change waits for company. Shorter: more sends; longer: more is lost with a crash."""
PUSH_BYTES: Final = 48 * 1024
"""A Push is closed at about this size, so that with its frame it stays within one 64 KiB read of the peer."""
IN_FLIGHT_BYTES_MAX: Final = 4 * 1024 * 1024
"""Unacknowledged bytes to one peer, those included that are owed again while the link still carries them. What a slow
peer does not take stays owed, and coalesces."""
DIRTY_MAX: Final = 50_000
"""Sessions owed to one peer, some 20 MB of bases. Beyond, to compare sums is cheaper than to remember."""
ASKED_MAX: Final = 1024
"""Beyond that: sessions that the peer asked for, or that a sync has shown it lacks. A page of a sync must fit, or it
would be given up and asked for again, for ever."""
LAG_MAX_S: Final = 30.0
"""How long a peer may be owed something and acknowledge nothing, with a link or without."""
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
        self.resting: dict[Sid, Debt] = {}
        """Owed too, of sessions that are hot; they are in one of the two."""
        self.waiting: dict[Sid, list[Ticket]] = {}  # tickets of what is owed
        self.collapsed = False
        """What changes is not noted any more."""
        self.unrepaired = False
        """It has collapsed, and no sync has repaired it since."""
        self._flights: dict[int, _Flight] = {}
        self._given_up: deque[tuple[int, int]] = deque()  # (sequence, bytes) owed again, but still under way
        self._in_flight_bytes = 0  # of both
        self._sequence = 0
        self._resend_after_s = RESEND_AFTER_S
        self._sent_at_s = 0.0
        self._asks = False  # whether the peer takes data again
        self._behind_since_s: float | None = None  # owed something, and silent
        self._pace = Pace()

    def wrote(self, before: Record, ticket: Ticket | None, due_s: float) -> float:
        """Owe what a local write changed; `before` is the state before it.

        Returns when to flush: at `due_s`, later where the session rests, never (inf) where the peer has collapsed.
        """
        if self.collapsed:
            return inf
        sid = before.sid
        if sid in self.resting:
            if ticket is None:
                return max(due_s, self._pace.beat_s)
            self.owed[sid] = self.resting.pop(sid)
        elif sid not in self.owed:
            debt = before.claims if before.covered else before
            if ticket is None and self._pace.rests(sid, due_s):
                self.resting[sid] = debt
                due_s = self._pace.beat_s
            else:
                self.owed[sid] = debt
            self._look_whether_too_much()
            if self.collapsed:
                return inf
        if ticket is not None:
            waiting = self.waiting.setdefault(sid, [])
            if waiting and waiting[0].settled:  # timed out, or confirmed by others, while this peer takes nothing
                waiting[:] = [one for one in waiting if not one.settled]
            waiting.append(ticket)
        return due_s

    def forget(self, sid: Sid) -> None:
        """Owe nothing of a session that expired: the peer's copy does so by itself."""
        self.owed.pop(sid, None)
        self.resting.pop(sid, None)
        self.waiting.pop(sid, None)

    def owes(self, gaps: tuple[Gap, ...]) -> bool:
        """Say whether any of these sessions is still to be sent."""
        return any(gap.sid in self.owed for gap in gaps)

    def lacks(self, sid: Sid, claims: Claims | None) -> None:
        """Owe what those claims do not cover; everything where the peer named none. Also to one that has collapsed:
        a peer that asks may take the answer."""
        self.resting.pop(sid, None)
        self.owed[sid] = claims or {}
        self._look_whether_too_much(ASKED_MAX)

    def flush(self, table: Table, now_s: float) -> Push | None:
        """Return the next Push; None where nothing is owed, or too much is in flight."""
        asks, self._asks = self._asks, False
        if self.resting and self._pace.beat_s <= now_s:
            self.owed.update(self.resting)
            self.resting = {}
        if not self.owed or not self._has_room:
            return self._next_push((), now_s) if asks and (self.owed or self.collapsed) else None
        deltas: list[Delta] = []
        debts: dict[Sid, Debt] = {}
        size = 0
        # What somebody waits for goes before all else that is owed.
        first = [sid for sid in self.waiting if sid in self.owed] if len(self.waiting) < len(self.owed) else ()
        for sid in chain(first, self.owed):
            if sid in debts:
                continue
            debts[sid] = debt = self.owed[sid]
            record = table.records.get(sid)
            if record is None:
                continue  # it expired meanwhile: the peer's copy does so by itself
            delta = cut(record, debt)
            accessed_ms = table.accessed_since_ms(record)
            if accessed_ms:
                delta = delta._replace(accessed_ms=accessed_ms)
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
        push = self._next_push(tuple(deltas), now_s)
        self._flights[push.sequence] = _Flight(debts, tickets, size, now_s)
        self._in_flight_bytes += size
        self._pace.sent(debts, now_s)
        return push

    def acknowledged(self, ack: PushAck) -> dict[Sid, list[Ticket]]:
        """Take a peer's acknowledgement; return the tickets of what it now holds. It takes data, so what changes from
        here on is noted again."""
        self.collapsed = False
        self._behind_since_s = None
        while self._given_up and self._given_up[0][0] <= ack.sequence:  # none is behind this one on the link
            self._in_flight_bytes -= self._given_up.popleft()[1]
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

    def timeout(self, now_s: float, *, linked: bool) -> None:
        """Owe again what has been in flight for too long; give everything up where the peer has been silent for too
        long. To be called every second at least."""
        if not (self.owed or self.resting or self._flights):
            self._behind_since_s = None
        elif self._behind_since_s is None:
            self._behind_since_s = now_s
        elif now_s - self._behind_since_s >= LAG_MAX_S:
            self._collapse()
        due_s = self.next_resend_s()
        if linked and due_s is not None and due_s <= now_s:
            self._give_up(
                [one for one, flight in self._flights.items() if flight.sent_at_s + self._resend_after_s <= now_s]
            )
            self._asks = True
            self._resend_after_s = min(2 * self._resend_after_s, RESEND_AFTER_MAX_S)

    def link_up(self) -> None:
        """Owe again all that was in flight; a peer that had collapsed has another chance."""
        self.link_down()
        self.collapsed = False
        self._behind_since_s = None

    def link_down(self) -> None:
        """Owe again all that was in flight."""
        self._give_up(list(self._flights))
        self._given_up.clear()
        self._in_flight_bytes = 0
        self._asks = False
        self._resend_after_s = RESEND_AFTER_S

    def repaired(self) -> None:
        """A sync has brought the peer what it lacked, or has it owed."""
        self.unrepaired = False

    def next_resend_s(self) -> float | None:
        """Return when the oldest flight is due again, or when to ask whether the peer takes data."""
        first = next(iter(self._flights.values()), None)
        if first is not None:
            return first.sent_at_s + self._resend_after_s
        if self.collapsed or (self.owed and not self._has_room):
            return self._sent_at_s + self._resend_after_s
        return None

    def next_flush_s(self, now_s: float) -> float | None:
        """Return when `flush` has something to send, as far as that is known."""
        if self.can_flush:
            return now_s
        return max(now_s, self._pace.beat_s) if self.resting and self._has_room else None

    @property
    def can_flush(self) -> bool:
        """There is something to send now, and room for it."""
        return self._asks or (bool(self.owed) and self._has_room)

    @property
    def in_flight_bytes(self) -> int:
        """How much is on its way to this peer, in bytes, counted anew."""
        return sum(flight.bytes for flight in self._flights.values()) + sum(size for _, size in self._given_up)

    @property
    def unacknowledged(self) -> int:
        """How many sessions this peer is not known to hold as this node does; at least 1 where that is not known of
        any, since it has collapsed."""
        owed = len(self.owed) + len(self.resting) + self.unrepaired
        return owed + sum(len(flight.debts) for flight in self._flights.values())

    @property
    def _has_room(self) -> bool:
        return self._in_flight_bytes < IN_FLIGHT_BYTES_MAX

    def _next_push(self, deltas: tuple[Delta, ...], now_s: float) -> Push:
        self._sequence += 1
        self._sent_at_s = now_s
        return Push(self._sequence, deltas)

    def _look_whether_too_much(self, beyond: int = 0) -> None:
        if len(self.owed) + len(self.resting) > DIRTY_MAX + beyond:
            self._collapse()

    def _collapse(self) -> None:
        """Give everything up. What is under way still takes its room on the link."""
        self.collapsed = self.unrepaired = True
        self._given_up.extend([(sequence, flight.bytes) for sequence, flight in self._flights.items()])
        self._flights = {}
        self.owed, self.resting, self.waiting = {}, {}, {}

    def _give_up(self, sequences: list[int]) -> None:
        """Owe again what is in these flights, oldest first."""
        self._given_up.extend([(sequence, self._flights[sequence].bytes) for sequence in sequences])
        for sequence in reversed(sequences):  # newest first: the oldest base is the one the peer may still have
            flight = self._flights.pop(sequence)
            for sid, debt in flight.debts.items():
                self.resting.pop(sid, None)
                self.owed[sid] = debt
                self._wait_again(sid, flight.tickets.get(sid))
        self._look_whether_too_much(ASKED_MAX)

    def _wait_again(self, sid: Sid, tickets: list[Ticket] | None) -> None:
        unsettled = [ticket for ticket in tickets or () if not ticket.settled]
        if unsettled:
            self.waiting.setdefault(sid, []).extend(unsettled)


def cut(record: Record, debt: Debt) -> Delta:
    """Return the delta that pays a debt."""
    return changes_since(record, debt) if isinstance(debt, Record) else not_covered(record, debt)
