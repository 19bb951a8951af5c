"""Bugs planted on purpose: what the checkers must catch. Each replaces one rule of the real machine for a while.

There is no switch for them in gossipsess itself. A mutant that no seed catches means that the simulator would not
catch the real bug either.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from gossipsess.model import delta as delta_module
from gossipsess.model import record as record_module
from gossipsess.model import table as table_module
from gossipsess.model.clock import HybridClock, Stamp
from gossipsess.model.delta import Applied, Delta, apply, not_covered
from gossipsess.model.digest import PartitionSums
from gossipsess.model.identity import NodeId, Sid
from gossipsess.model.record import HASH_MASK, Record, covers, empty_record
from gossipsess.model.table import Life, Table
from gossipsess.protocol import fetch, replication, sessions, sync
from gossipsess.protocol.confirmation import Confirmations, Ticket
from gossipsess.protocol.expiry import Accesses, Expiry
from gossipsess.protocol.membership import Membership
from gossipsess.protocol.outcomes import Found
from gossipsess.protocol.replication import Debt, Outbound
from gossipsess.protocol.sessions import SessionProtocol
from gossipsess.protocol.swim import Swim
from gossipsess.sim import cluster
from gossipsess.sim.cluster import node_id
from gossipsess.wire.messages import Push, PushAck

Plant = Callable[[pytest.MonkeyPatch], None]


def scalar_since(patch: pytest.MonkeyPatch) -> None:
    """A delta is "my own entries since my stamp n", and whoever has my n applies it.

    What another writer overwrote meanwhile is in no such delta, and yet claimed after it.
    """
    sender: list[NodeId] = []
    real_flush = SessionProtocol._flush

    def flush(self: SessionProtocol, peer: Any, now_s: float) -> None:
        sender[:] = [self._myself]
        real_flush(self, peer, now_s)

    def cut(record: Record, debt: Debt) -> Delta:
        if record.tombstone:
            return not_covered(record, {})
        me = sender[0]
        since = (debt.claims if isinstance(debt, Record) else debt).get(me, 0)
        if not since:
            return not_covered(record, {})
        entries = tuple(
            (key, entry.stamp, entry.origin, entry.value)
            for key, entry in record.entries.items()
            if entry.origin == me and entry.stamp > since
        )
        return Delta(record.sid, {me: since}, 0, {me: record.claims[me]}, record.state_hash, entries)

    patch.setattr(SessionProtocol, "_flush", flush)
    patch.setattr(replication, "cut", cut)


def advance_on_gap(patch: pytest.MonkeyPatch) -> None:
    """A delta whose base is missing is joined all the same, claims included."""

    def greedy(mine: Record, delta: Delta) -> Applied:
        applied = apply(mine, delta)
        joinable = applied.gap and not mine.tombstone and not delta.tombstone
        return Applied(delta_module._joined(mine, delta), gap=True) if joinable else applied

    patch.setattr(table_module, "apply", greedy)


def death_does_not_dominate(patch: pytest.MonkeyPatch) -> None:
    """A whole record that comes after its invalidation is taken in again."""

    def forgiving(mine: Record, delta: Delta) -> Applied:
        return apply(mine if delta.tombstone else _alive(mine), delta)

    def _alive(record: Record) -> Record:
        return empty_record(record.sid) if record.tombstone else record

    patch.setattr(table_module, "apply", forgiving)


def deleted_entries_are_dropped(patch: pytest.MonkeyPatch) -> None:
    """A merge throws out deleted entries, to save their space."""
    real_joined = delta_module._joined

    def tidy(mine: Record, delta: Delta) -> Record:
        record = real_joined(mine, delta)
        entries = {key: entry for key, entry in record.entries.items() if entry.value is not None}
        state_hash = sum(entry.mark for entry in entries.values()) & HASH_MASK
        return Record(record.sid, entries, record.claims, state_hash, covers(record.claims, entries), record.size)

    patch.setattr(delta_module, "_joined", tidy)


def stamps_follow_the_wall_clock(patch: pytest.MonkeyPatch) -> None:
    """A write's stamp is the node's own time, whatever it has read or heard."""

    def tick(self: HybridClock, now_s: float, above: Stamp = 0) -> Stamp:
        self._last = max((int(now_s * 1000) + self.offset_ms) << 16, self._last + 1)
        return self._last

    patch.setattr(HybridClock, "tick", tick)
    patch.setattr(HybridClock, "hear", lambda self, stamp, now_s: None)


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
        alive = tuple((sid, state_hash) for sid, state_hash in page.sessions if not table.get(sid).tombstone)
        return real(self, page._replace(sessions=alive), table, now_s)

    patch.setattr(sync.Sync, "page", page)


def node_ids_are_reused(patch: pytest.MonkeyPatch) -> None:
    """A restart in place takes its old id again, having forgotten what others know it wrote."""
    patch.setattr(cluster, "node_id", lambda seed, slot, generation: node_id(seed, slot, 0))


def newcomers_say_absent(patch: pytest.MonkeyPatch) -> None:
    """A node that has not met everybody takes every session for one that does not exist."""
    patch.setattr(fetch, "_without", lambda doubtful: Found.ABSENT)


def expiry_leaves_a_tombstone(patch: pytest.MonkeyPatch) -> None:
    """A session that ends by time is invalidated: an idle copy kills the one that is in use elsewhere."""

    def expired(self: Table, time_ms: int) -> Iterator[Record]:
        for sid, record in list(self.records.items()):
            if not record.tombstone and self.life(record).ends_ms <= time_ms:
                yield self.kill(sid, record.newest + 1)

    patch.setattr(Table, "expired", expired)


def unknown_sessions_are_not_invalidated(patch: pytest.MonkeyPatch) -> None:
    """A tombstone is kept only by a node that held the session; elsewhere a late delta makes it anew."""
    real = Table.merge

    def merge(self: Table, delta: Delta, time_ms: int) -> Applied:
        if delta.tombstone and delta.sid not in self.records:
            return Applied(empty_record(delta.sid), gap=False)
        return real(self, delta, time_ms)

    patch.setattr(Table, "merge", merge)


def stamps_of_the_future_are_taken(patch: pytest.MonkeyPatch) -> None:
    """Whatever a peer's clock says, this node's follows."""

    def hear(self: HybridClock, stamp: Stamp, now_s: float) -> None:
        self._last = max(self._last, stamp)

    patch.setattr(HybridClock, "hear", hear)


def sleepers_judge(patch: pytest.MonkeyPatch) -> None:
    """A process that stood still holds the others responsible for the answers it did not hear."""
    patch.setattr(Swim, "_paused", lambda self, late_s, now_s: None)


def what_was_received_is_pushed_on(patch: pytest.MonkeyPatch) -> None:
    """Every change is sent on by everybody who hears it."""
    real_push = SessionProtocol.push

    def push(self: SessionProtocol, node: NodeId, message: Push, now_s: float) -> None:
        before = {delta.sid: self.table.get(delta.sid) for delta in message.deltas}
        real_push(self, node, message, now_s)
        for sid, old in before.items():
            if self.table.get(sid).state_hash != old.state_hash:
                for other, peer in self._peers.items():
                    if other != node:
                        peer.outbound.wrote(old, None, now_s)
        self.flush(now_s)

    patch.setattr(SessionProtocol, "push", push)


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


def who_collapsed_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    """What was given up for a peer that took nothing is never repaired."""
    patch.setattr(SessionProtocol, "_resync", lambda self, peer, now_s: None)


def a_slow_peer_is_sent_everything(patch: pytest.MonkeyPatch) -> None:
    """What is sent again counts as gone from the link, and the rest is sent after it."""
    real = Outbound._give_up

    def give_up(self: Outbound, sequences: list[int]) -> None:
        real(self, sequences)
        self._in_flight_bytes -= sum(self._given_up.values())
        self._given_up = {}

    patch.setattr(Outbound, "_give_up", give_up)


def tombstones_end_early(patch: pytest.MonkeyPatch) -> None:
    """A tombstone is dropped after a second, and an old copy logs the user in again."""
    real = Table.life

    def life(self: Table, record: Record) -> Life:
        kept = real(self, record)
        return kept._replace(ends_ms=kept.accessed_ms + 1000) if record.tombstone else kept

    patch.setattr(Table, "life", life)


def sums_keep_what_has_ended(patch: pytest.MonkeyPatch) -> None:
    """A partition's sum still counts a record that was dropped."""
    real = PartitionSums.replace

    def replace(self: PartitionSums, sid: Sid, old_hash: int, new_hash: int) -> None:
        real(self, sid, old_hash if new_hash else 0, new_hash)

    patch.setattr(PartitionSums, "replace", replace)


def forgotten_claims_still_cover(patch: pytest.MonkeyPatch) -> None:
    """A record that has dropped old claims goes on saying that they cover its entries."""
    patch.setattr(record_module, "covers", lambda claims, entries: True)
    patch.setattr(delta_module, "covers", lambda claims, entries: True)


def held_is_fresh(patch: pytest.MonkeyPatch) -> None:
    """A session that is held is served, whatever the client has written elsewhere."""

    def satisfies(record: Record | None, dots: Any) -> bool:
        return record is not None

    patch.setattr(fetch, "satisfies", satisfies)
    patch.setattr(sessions, "satisfies", satisfies)


def waits_have_no_end(patch: pytest.MonkeyPatch) -> None:
    """A write that nobody confirms is waited for until somebody does."""
    patch.setattr(Confirmations, "next_deadline", lambda self: None)
    patch.setattr(Confirmations, "timeout", lambda self, now_s: [])


def a_set_decides(patch: pytest.MonkeyPatch) -> None:
    """The order of the members is that of a set. No seed shows it: another hash seed does."""
    real = Membership.live
    patch.setattr(Membership, "live", lambda self: tuple(set(real(self))))


MUTANTS: Mapping[str, Plant] = {
    plant.__name__: plant
    for plant in (
        scalar_since,
        advance_on_gap,
        death_does_not_dominate,
        deleted_entries_are_dropped,
        stamps_follow_the_wall_clock,
        gaps_count_as_held,
        refusals_count_as_held,
        nothing_is_sent_again,
        tombstones_do_not_sync,
        node_ids_are_reused,
        newcomers_say_absent,
        expiry_leaves_a_tombstone,
        unknown_sessions_are_not_invalidated,
        stamps_of_the_future_are_taken,
        sleepers_judge,
        what_was_received_is_pushed_on,
        accesses_are_not_told,
        accesses_are_told_once,
        who_collapsed_is_forgotten,
        a_slow_peer_is_sent_everything,
        tombstones_end_early,
        sums_keep_what_has_ended,
        forgotten_claims_still_cover,
        held_is_fresh,
        waits_have_no_end,
        a_set_decides,
    )
}


UNSEEN = ("a_set_decides",)
"""Mutants that break no rule within one run: they are caught by comparing runs."""


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Have one mutant in place."""
    with pytest.MonkeyPatch.context() as patch:
        MUTANTS[name](patch)
        yield
