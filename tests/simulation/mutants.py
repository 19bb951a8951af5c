"""Bugs planted on purpose: what the checkers must catch. Each replaces one rule of the real machine for a while.

There is no switch for them in gossipsess itself. A mutant that no seed catches means that the simulator would not
catch the real bug either.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from gossipsess.model import delta as delta_module
from gossipsess.model import table as table_module
from gossipsess.model.clock import HybridClock, Stamp
from gossipsess.model.delta import Applied, Delta, apply, not_covered
from gossipsess.model.identity import NodeId, Sid
from gossipsess.model.record import HASH_MASK, Record, covers, empty_record
from gossipsess.protocol import fetch, replication, sync
from gossipsess.protocol.confirmation import Ticket
from gossipsess.protocol.outcomes import Found
from gossipsess.protocol.replication import Debt, Outbound
from gossipsess.protocol.sessions import SessionProtocol
from gossipsess.sim import cluster
from gossipsess.sim.cluster import node_id
from gossipsess.wire.messages import PushAck

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
        if not isinstance(debt, Record) or record.tombstone:
            return not_covered(record, {} if isinstance(debt, Record) else debt)
        me = sender[0]
        since = debt.claims.get(me, 0)
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


def nothing_is_sent_again(patch: pytest.MonkeyPatch) -> None:
    """A push that is never acknowledged stays in flight for ever."""
    patch.setattr(Outbound, "resend", lambda self, now_s: None)


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
    """A node that has met nobody yet takes every session for one that does not exist."""
    patch.setattr(fetch, "_known_alone", lambda synced: Found.ABSENT)


MUTANTS: Mapping[str, Plant] = {
    plant.__name__: plant
    for plant in (
        scalar_since,
        advance_on_gap,
        death_does_not_dominate,
        deleted_entries_are_dropped,
        stamps_follow_the_wall_clock,
        gaps_count_as_held,
        nothing_is_sent_again,
        tombstones_do_not_sync,
        node_ids_are_reused,
        newcomers_say_absent,
    )
}


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Have one mutant in place."""
    with pytest.MonkeyPatch.context() as patch:
        MUTANTS[name](patch)
        yield
