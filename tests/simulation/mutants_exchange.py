"""Bugs planted in what nodes say of sessions: pushes, confirmations, syncs, fetches, accesses. See mutants.py."""

from collections.abc import Callable
from typing import Any

import pytest

from gossipsess.model.digest import short_hash
from gossipsess.model.identity import NodeId, Sid
from gossipsess.model.record import Record
from gossipsess.model.table import Table
from gossipsess.protocol import fetch, reads, sync
from gossipsess.protocol.confirmation import Confirmations, Ticket
from gossipsess.protocol.expiry import Accesses, Expiry
from gossipsess.protocol.fence import Fence
from gossipsess.protocol.fetch import Fetches
from gossipsess.protocol.intake import Intake
from gossipsess.protocol.outcomes import Found
from gossipsess.protocol.peers import Peer
from gossipsess.protocol.repair import Comparison
from gossipsess.protocol.replication import Outbound
from gossipsess.wire.messages import PullAnswer, Push, PushAck
from tests.unit.machines import tickets_of

Plant = Callable[[pytest.MonkeyPatch], None]


def gaps_count_as_held(patch: pytest.MonkeyPatch) -> None:
    """A push is taken for held by who acknowledged it, gaps or not."""
    real = Outbound.acknowledged

    def acknowledged(self: Outbound, ack: PushAck) -> dict[Sid, list[Ticket]]:
        return real(self, ack._replace(gaps=()))

    patch.setattr(Outbound, "acknowledged", acknowledged)


def refusals_count_as_held(patch: pytest.MonkeyPatch) -> None:
    """A push is taken for held by who refused it, since by its clock the session is over."""
    real = Outbound.acknowledged

    def acknowledged(self: Outbound, ack: PushAck) -> dict[Sid, list[Ticket]]:
        return real(self, ack._replace(over=()))

    patch.setattr(Outbound, "acknowledged", acknowledged)


def nothing_is_sent_again(patch: pytest.MonkeyPatch) -> None:
    """A push that is never acknowledged stays in flight for ever."""
    patch.setattr(Outbound, "next_resend_s", lambda self: None)


def tombstones_do_not_sync(patch: pytest.MonkeyPatch) -> None:
    """A sync asks for no session that is dead here, so of two invalidations each side keeps its own."""
    real = sync.Sync.page

    def page(self: sync.Sync, page: Any, table: Any, now_s: float) -> Any:
        mine = {sid: table.get(sid) for sid, _ in page.sessions}
        seen = tuple(
            (sid, short_hash(mine[sid].state_hash) if mine[sid].tombstone else state_hash)
            for sid, state_hash in page.sessions
        )
        return real(self, page._replace(sessions=seen), table, now_s)

    patch.setattr(sync.Sync, "page", page)


def newcomers_say_absent(patch: pytest.MonkeyPatch) -> None:
    """A node that has not met everybody takes every session for one that does not exist."""
    patch.setattr(fetch, "_without", lambda doubtful: Found.ABSENT)


def no_fence(patch: pytest.MonkeyPatch) -> None:
    """What comes from a node that was long apart is taken in, though its logout may be forgotten."""
    patch.setattr(Fence, "refuses", lambda self, node, delta, time_ms: False)


def what_was_received_is_pushed_on(patch: pytest.MonkeyPatch) -> None:
    """Every change is sent on by everybody who hears it."""
    real = Intake.pushed

    def pushed(self: Intake, peer: Peer, message: Push, now_s: float) -> None:
        before = {delta.sid: self._table.get(delta.sid) for delta in message.deltas}
        real(self, peer, message, now_s)
        for sid, old in before.items():
            if self._table.get(sid).state_hash != old.state_hash:
                for other in self._peers:
                    if other is not peer:
                        other.outbound.wrote(old, None, now_s)
        self._peers.flush_all(now_s)

    patch.setattr(Intake, "pushed", pushed)


def accesses_are_not_told(patch: pytest.MonkeyPatch) -> None:
    """A read keeps a session alive only where it came."""
    real = Expiry.gathered

    def gathered(self: Expiry, now_s: float) -> dict[Sid, int]:
        real(self, now_s)
        return {}

    patch.setattr(Expiry, "gathered", gathered)


def accesses_are_told_once(patch: pytest.MonkeyPatch) -> None:
    """What is on a link that breaks, or waits for one, is told no more."""

    def link_down(self: Accesses) -> None:
        self._owed = {}
        self._under_way = {}

    patch.setattr(Accesses, "link_down", link_down)


def a_slow_peer_is_sent_everything(patch: pytest.MonkeyPatch) -> None:
    """What is sent again counts as gone from the link, and the rest is sent after it."""
    real = Outbound._give_up

    def give_up(self: Outbound, sequences: list[int]) -> None:
        real(self, sequences)
        self._in_flight_bytes -= sum(size for _, size in self._given_up)
        self._given_up.clear()

    patch.setattr(Outbound, "_give_up", give_up)


def a_repair_only_pulls(patch: pytest.MonkeyPatch) -> None:
    """What the smaller node id of a pair holds and the other lacks stays so: the one does not give, the other waits."""
    real_start, real_due = sync.Sync.start, Comparison.repair_due

    def start(self: sync.Sync, table: Table, now_s: float, scope: int, *, both_ways: bool = False) -> sync.Step:
        return real_start(self, table, now_s, scope)

    def repair_due(self: Comparison, equal: bool, now_s: float) -> bool:
        return real_due(self, equal, now_s) and self._first

    patch.setattr(sync.Sync, "start", start)
    patch.setattr(Comparison, "repair_due", repair_due)


def held_is_fresh(patch: pytest.MonkeyPatch) -> None:
    """A session that is held is served, whatever the client has written elsewhere."""

    def satisfies(record: Record | None, dots: Any) -> bool:
        return record is not None

    patch.setattr(fetch, "satisfies", satisfies)
    patch.setattr(reads, "satisfies", satisfies)


def waits_have_no_end(patch: pytest.MonkeyPatch) -> None:
    """A write that nobody confirms is waited for until somebody does."""
    patch.setattr(Confirmations, "next_deadline", lambda self: None)
    patch.setattr(Confirmations, "timeout", lambda self, now_s: [])


def an_old_acknowledgement_confirms_the_newest_write(patch: pytest.MonkeyPatch) -> None:
    """Whoever acknowledges a push is taken to hold also what was written to its sessions since."""
    real = Outbound.acknowledged

    def acknowledged(self: Outbound, ack: PushAck) -> dict[Sid, list[Ticket]]:
        flight = self._flights.get(ack.sequence)
        sids = list(flight.debts) if flight is not None else []
        held = real(self, ack)
        return {sid: [*held.get(sid, ()), *tickets_of(self, sid)] for sid in {**held, **dict.fromkeys(sids)}}

    patch.setattr(Outbound, "acknowledged", acknowledged)


def one_no_makes_a_session_absent(patch: pytest.MonkeyPatch) -> None:
    """The first holder that has everything, but not this session, is believed, whatever the others would say."""
    real = Fetches.answered

    def answered(
        self: Fetches, peer: NodeId, answer: PullAnswer, held_here: dict[Sid, Record], now_s: float
    ) -> fetch.Step:
        waiting = self._waiting.get(answer.request)
        if waiting is not None and not answer.held and answer.synced and waiting.sid not in held_here:
            return fetch.Step(settled=(self._end(answer.request, Found.ABSENT),))
        return real(self, peer, answer, held_here, now_s)

    patch.setattr(Fetches, "answered", answered)


def what_is_over_here_is_waited_for(patch: pytest.MonkeyPatch) -> None:
    """A holder's yes is believed although what it sent is over by the time here: the wait is for what never comes."""
    patch.setattr(reads.Reads, "refused", lambda self, node, sid: None)


def copies_that_end_are_waited_for(patch: pytest.MonkeyPatch) -> None:
    """Of a copy that ends while others are asked for it nobody is asked anew, and what was said proves nothing."""
    patch.setattr(fetch._Waiting, "copy_ended", lambda self: setattr(self, "doubtful", True))


def the_bound_in_flight_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    """A slow peer is sent everything at once, and its sender's memory fills."""
    real_flush = Outbound.flush

    def flush(self: Outbound, table: Table, now_s: float) -> Push | None:
        counted, self._in_flight_bytes = self._in_flight_bytes, 0
        push = real_flush(self, table, now_s)
        self._in_flight_bytes += counted
        return push

    patch.setattr(Outbound, "flush", flush)
    patch.setattr(Outbound, "can_flush", property(lambda self: bool(self.owed)))


PLANTS: tuple[Plant, ...] = (
    gaps_count_as_held,
    refusals_count_as_held,
    nothing_is_sent_again,
    tombstones_do_not_sync,
    newcomers_say_absent,
    no_fence,
    what_was_received_is_pushed_on,
    accesses_are_not_told,
    accesses_are_told_once,
    a_slow_peer_is_sent_everything,
    a_repair_only_pulls,
    held_is_fresh,
    waits_have_no_end,
    an_old_acknowledgement_confirms_the_newest_write,
    one_no_makes_a_session_absent,
    what_is_over_here_is_waited_for,
    copies_that_end_are_waited_for,
    the_bound_in_flight_is_forgotten,
)
