"""Bugs planted in who holds which session, and in what follows from it. See mutants.py."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pytest

from gossipsess.model.delta import Applied, Delta
from gossipsess.model.identity import NodeId
from gossipsess.model.member import Member
from gossipsess.model.record import Record, empty_record
from gossipsess.protocol import placement
from gossipsess.protocol.antientropy import INCOMPARABLE, AntiEntropy
from gossipsess.protocol.confirmation import Confirmations, Ticket
from gossipsess.protocol.events import Confirm, Dot, ReceivedDatagram, Waiter
from gossipsess.protocol.fetch import Candidates, Fetches
from gossipsess.protocol.gains import Gains
from gossipsess.protocol.intake import Intake
from gossipsess.protocol.placement import Layout, Rules, partition_of
from gossipsess.protocol.replica import Replica
from gossipsess.protocol.usage import Usage
from gossipsess.protocol.writes import Writes
from gossipsess.wire.messages import Ping, ProbeAck, PullAnswer

Plant = Callable[[pytest.MonkeyPatch], None]


def who_fills_up_has_everything(patch: pytest.MonkeyPatch) -> None:
    """A holder's "not held" is believed, though it has only begun to pull what it gained."""
    real = Fetches.answered

    def answered(self: Fetches, peer: NodeId, answer: PullAnswer, *args: Any) -> Any:
        return real(self, peer, answer._replace(synced=True), *args)

    patch.setattr(Fetches, "answered", answered)


def what_is_gained_is_there(patch: pytest.MonkeyPatch) -> None:
    """Once past its start, a node takes what it gains for held in whole at once."""
    real = Gains._look

    def look(self: Gains) -> None:
        real(self)
        if self.started:
            self.unsynced = 0

    patch.setattr(Gains, "_look", look)


def nobody_takes_over(patch: pytest.MonkeyPatch) -> None:
    """What a node gains once it is past its start it pulls from nobody."""
    real = Gains.next_pull

    def next_pull(self: Gains, *args: Any) -> tuple[NodeId, int] | None:
        if self.started:
            self._grace = []
            return None
        return real(self, *args)

    patch.setattr(Gains, "next_pull", next_pull)


def gains_go_unnoticed(patch: pytest.MonkeyPatch) -> None:
    """A node takes what it gains for held all along; digests may find what it lacks."""
    real = Gains.layout_changed

    def layout_changed(self: Gains, holdings: Any, now_s: float, **how: bool) -> None:
        if self.started:
            self.held |= holdings.partitions_of(self._myself)
        real(self, holdings, now_s, **how)

    patch.setattr(Gains, "layout_changed", layout_changed)


def writers_are_not_asked(patch: pytest.MonkeyPatch) -> None:
    """A session is absent when its holders say no, though the node that a token names may have made it just now."""
    real = Fetches.start

    def start(
        self: Fetches, sid: Any, dots: tuple[Dot, ...], waiter: Waiter, candidates: Candidates, *args: Any, **how: Any
    ) -> Any:
        return real(self, sid, dots, waiter, candidates._replace(origins=()), *args, **how)

    patch.setattr(Fetches, "start", start)


def only_holders_take_writes(patch: pytest.MonkeyPatch) -> None:
    """A pushed session is refused by who is no holder by its own layout, which may be the one that is behind."""
    real = Intake._merge

    def merge(self: Intake, node: NodeId, delta: Delta, time_ms: int, now_s: float) -> Applied:
        sid = delta.sid
        here = self._anti_entropy
        stray = not here._placement.layout.holds(here._myself, partition_of(sid)) and not delta.tombstone
        if stray and sid not in self._table.records and not self._reads.asked(node, sid):
            return Applied(empty_record(sid), gap=False)
        return real(self, node, delta, time_ms, now_s)

    patch.setattr(Intake, "_merge", merge)


def node_ids_are_placed(patch: pytest.MonkeyPatch) -> None:
    """Rendezvous is over node ids, so that a restart in place moves everything that the node held."""

    @lru_cache(maxsize=64)
    def layout(live: tuple[Member, ...], rules: Rules, *, all_to_all: bool) -> Layout:
        return Layout(tuple([one._replace(name=one.node.hex()) for one in live]), rules, all_to_all=all_to_all)

    patch.setattr(placement, "_layout", layout)


def workers_count_as_hosts(patch: pytest.MonkeyPatch) -> None:
    """Two workers of one host confirm as two hosts, and die together."""
    patch.setattr(Confirmations, "_hosts_of", lambda self, nodes: len(nodes))


def workers_are_enough(patch: pytest.MonkeyPatch) -> None:
    """As many nodes are waited for as hosts were asked for; what is told is counted right."""

    def enough(self: Confirmations, ticket: Ticket, holders: tuple[Member, ...]) -> bool:
        if ticket.confirm == "all":
            return all(member.node in ticket.nodes for member in holders)
        return len([node for node in ticket.nodes if node in self._live]) >= min(ticket.confirm, len(self._live))

    patch.setattr(Confirmations, "_enough", enough)


def all_is_one(patch: pytest.MonkeyPatch) -> None:
    """A write that is to be held by all holders is confirmed by the first."""
    real = Confirmations._enough

    def enough(self: Confirmations, ticket: Ticket, holders: tuple[Member, ...]) -> bool:
        if ticket.confirm == "all":
            return not holders or any(member.node in ticket.nodes for member in holders)
        return real(self, ticket, holders)

    patch.setattr(Confirmations, "_enough", enough)


def copies_count_in_digests(patch: pytest.MonkeyPatch) -> None:
    """The digest that two nodes compare is that of all they hold, also of what only one of them is to hold."""

    def digest(self: AntiEntropy, node: NodeId | None, now_s: float) -> int:
        if node is None or self.gains.unsynced & self._shared(node):
            return INCOMPARABLE
        return self._table.sums.settled(now_s, b"")

    patch.setattr(AntiEntropy, "digest", digest)


def any_view_compares(patch: pytest.MonkeyPatch) -> None:
    """Digests are compared also where two nodes have other layouts, and mean other sessions by what both hold."""
    real = Replica._received_datagram

    def received(self: Replica, event: ReceivedDatagram, now_s: float) -> None:
        real(self, event, now_s)
        message = event.message
        if isinstance(message, Ping | ProbeAck) and message.view != self.placement.layout.tag:
            self.sessions.heard_digest(event.sender, message.digest, now_s)

    patch.setattr(Replica, "_received_datagram", received)


def ends_are_told_to_holders(patch: pytest.MonkeyPatch) -> None:
    """A tombstone goes where writes go, and copies elsewhere live on."""

    def end(self: Writes, before: Record, confirm: Confirm, waiter: Waiter, now_s: float) -> Any:
        return self._replicate(before, confirm, waiter, now_s)

    patch.setattr(Writes, "_end", end)


def new_holders_hear_of_no_access(patch: pytest.MonkeyPatch) -> None:
    """Who comes to hold a session learns its state, and not that it is in use."""
    patch.setattr(Usage, "tell_new_holders", lambda self, before: None)


def who_leaves_is_a_holder(patch: pytest.MonkeyPatch) -> None:
    """Sessions stay placed on a node that drains, and so it hands nothing over."""
    patch.setattr(Member, "is_eligible", property(lambda self: self.is_live))
    patch.setattr(
        placement, "_layout", lru_cache(maxsize=64)(placement._layout.__wrapped__)
    )  # none made before, or kept


def who_dies_has_told_all(patch: pytest.MonkeyPatch) -> None:
    """A holder that dies while it is asked counts as one that left: the others have what it had."""
    real = Fetches.holder_lost

    def holder_lost(self: Fetches, *args: Any, died: bool) -> Any:
        return real(self, *args, died=False)

    patch.setattr(Fetches, "holder_lost", holder_lost)


PLANTS: tuple[Plant, ...] = (
    who_fills_up_has_everything,
    who_dies_has_told_all,
    what_is_gained_is_there,
    nobody_takes_over,
    gains_go_unnoticed,
    writers_are_not_asked,
    only_holders_take_writes,
    node_ids_are_placed,
    workers_count_as_hosts,
    workers_are_enough,
    all_is_one,
    copies_count_in_digests,
    any_view_compares,
    ends_are_told_to_holders,
    new_holders_hear_of_no_access,
    who_leaves_is_a_holder,
)
