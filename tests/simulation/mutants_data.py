"""Bugs planted in records, deltas, the table, its sums, clocks and revocations. See mutants.py."""

from collections.abc import Callable, Iterator
from itertools import compress
from typing import Any

import pytest

from gossipsess.model import delta as delta_module
from gossipsess.model import record as record_module
from gossipsess.model import subkeys
from gossipsess.model import table as table_module
from gossipsess.model.clock import HybridClock, Stamp
from gossipsess.model.delta import Applied, Delta, apply, not_covered
from gossipsess.model.digest import SUM_MASK, LeafSums
from gossipsess.model.identity import NodeId, Sid
from gossipsess.model.member import Member
from gossipsess.model.record import HASH_MASK, Record, covers, dead_record, empty_record
from gossipsess.model.revocation import login_of, user_entry
from gossipsess.model.table import Life, Table
from gossipsess.protocol import replication
from gossipsess.protocol.ends import Ends
from gossipsess.protocol.peers import Peers
from gossipsess.protocol.replication import Debt
from gossipsess.protocol.sessions import SessionProtocol

Plant = Callable[[pytest.MonkeyPatch], None]


def scalar_since(patch: pytest.MonkeyPatch) -> None:
    """A delta is "my own entries since my stamp n", and whoever has my n applies it.

    What another writer overwrote meanwhile is in no such delta, and yet claimed after it.
    """
    owners: dict[Peers, NodeId] = {}
    sender: list[NodeId] = []
    real_init, real_flush = SessionProtocol.__init__, Peers.flush

    def init(self: SessionProtocol, myself: Member, *args: Any, **kwargs: Any) -> None:
        real_init(self, myself, *args, **kwargs)
        owners[self.peers] = myself.node

    def flush(self: Peers, peer: Any, now_s: float) -> None:
        sender[:] = [owners[self]]
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

    patch.setattr(SessionProtocol, "__init__", init)
    patch.setattr(Peers, "flush", flush)
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


def expiry_leaves_a_tombstone(patch: pytest.MonkeyPatch) -> None:
    """A session that ends by time is invalidated: an idle copy kills the one that is in use elsewhere."""

    def expired(self: Table, time_ms: int, now_s: float) -> Iterator[Record]:
        for sid, record in list(self.records.items()):
            if not record.tombstone and self.life(record).ends_ms <= time_ms:
                yield self.kill(sid, record.newest + 1, now_s)

    patch.setattr(Table, "expired", expired)


def unknown_sessions_are_not_invalidated(patch: pytest.MonkeyPatch) -> None:
    """A tombstone is kept only by a node that held the session; elsewhere a late delta makes it anew."""
    real = Table.merge

    def merge(self: Table, delta: Delta, time_ms: int, now_s: float) -> Applied:
        if delta.tombstone and delta.sid not in self.records:
            return Applied(empty_record(delta.sid), gap=False)
        return real(self, delta, time_ms, now_s)

    patch.setattr(Table, "merge", merge)


def stamps_of_the_future_are_taken(patch: pytest.MonkeyPatch) -> None:
    """Whatever a peer's clock says, this node's follows."""

    def hear(self: HybridClock, stamp: Stamp, now_s: float) -> None:
        self._last = max(self._last, stamp)

    patch.setattr(HybridClock, "hear", hear)


def the_wall_is_believed_unconfirmed(patch: pytest.MonkeyPatch) -> None:
    """A node's time is whatever its wall clock says: set an hour ahead, it would win every write."""

    def hint(self: HybridClock, wall_ms: int, now_s: float) -> None:
        self.offset_ms = wall_ms - int(now_s * 1000)

    patch.setattr(HybridClock, "hint", hint)


def clocks_that_stood_still_stay_behind(patch: pytest.MonkeyPatch) -> None:
    """A node whose machine was suspended refuses everybody until its process starts again."""
    patch.setattr(HybridClock, "hint", lambda self, wall_ms, now_s: None)


def tombstones_end_early(patch: pytest.MonkeyPatch) -> None:
    """A tombstone is dropped after a second, and an old copy logs the user in again."""
    real = Table.life

    def life(self: Table, record: Record) -> Life:
        kept = real(self, record)
        return kept._replace(ends_ms=kept.accessed_ms + 1000) if record.tombstone else kept

    patch.setattr(Table, "life", life)


def sums_keep_what_has_ended(patch: pytest.MonkeyPatch) -> None:
    """A leaf's sum still counts a record that was dropped."""
    real = LeafSums.replace

    def replace(self: LeafSums, sid: Sid, old_hash: int, new_hash: int, now_s: float) -> None:
        real(self, sid, old_hash if new_hash else 0, new_hash, now_s)

    patch.setattr(LeafSums, "replace", replace)


def sums_forget_a_change(patch: pytest.MonkeyPatch) -> None:
    """A leaf's sum counts a record as it was first."""
    real = LeafSums.replace

    def replace(self: LeafSums, sid: Sid, old_hash: int, new_hash: int, now_s: float) -> None:
        if not (old_hash and new_hash):
            real(self, sid, old_hash, new_hash, now_s)

    patch.setattr(LeafSums, "replace", replace)


def what_moves_counts_as_settled(patch: pytest.MonkeyPatch) -> None:
    """The digest is that of everything: where there are writes, no two nodes ever agree."""

    def settled(self: LeafSums, now_s: float, shared: bytes = b"") -> int:
        return sum(compress(self._sums, shared) if shared else self._sums) & SUM_MASK

    patch.setattr(LeafSums, "settled", settled)


def forgotten_claims_still_cover(patch: pytest.MonkeyPatch) -> None:
    """A record that has dropped old claims goes on saying that they cover its entries."""
    patch.setattr(record_module, "covers", lambda claims, entries: True)
    patch.setattr(delta_module, "covers", lambda claims, entries: True)


def revocations_stay_at_home(patch: pytest.MonkeyPatch) -> None:
    """A revocation ends the sessions of the node that was asked for it, and no others."""
    real = Ends.user_died

    def user_died(self: Ends, user: Sid, now_s: float, *, remote: bool) -> int:
        return 0 if remote else real(self, user, now_s, remote=remote)

    patch.setattr(Ends, "user_died", user_died)


def late_arrivals_escape_revocation(patch: pytest.MonkeyPatch) -> None:
    """A revocation ends what is held when it comes; what comes after it, from who had not heard of it, lives."""
    patch.setattr(Table, "_revoked", lambda self, old, new: None)


def rotation_is_a_login(patch: pytest.MonkeyPatch) -> None:
    """A rotation names the user by a new write, which looks later than the revocation."""
    patch.setattr(subkeys, "rotated_value", lambda key, entry: entry.value)


def revocations_end_later_logins(patch: pytest.MonkeyPatch) -> None:
    """Whoever was revoked once is locked out for as long as the revocation is kept."""

    def revoked(self: Table, old: Record | None, new: Record) -> Record | None:
        login = login_of(user_entry(new))
        return dead_record(new.sid, login.stamp) if login is not None and login.user in self.records else None

    patch.setattr(Table, "_revoked", revoked)


def any_state_is_the_base_of_a_hash(patch: pytest.MonkeyPatch) -> None:
    """A delta that was cut against one state is merged into another, though what lies between is missing."""

    def trusting(mine: Record, delta: Delta) -> Applied:
        by_hash = delta.base_claims is None and not mine.tombstone and not delta.tombstone
        return apply(mine, delta._replace(base_hash=mine.state_hash) if by_hash else delta)

    patch.setattr(table_module, "apply", trusting)


PLANTS: tuple[Plant, ...] = (
    scalar_since,
    advance_on_gap,
    death_does_not_dominate,
    deleted_entries_are_dropped,
    stamps_follow_the_wall_clock,
    expiry_leaves_a_tombstone,
    unknown_sessions_are_not_invalidated,
    stamps_of_the_future_are_taken,
    the_wall_is_believed_unconfirmed,
    clocks_that_stood_still_stay_behind,
    tombstones_end_early,
    sums_keep_what_has_ended,
    sums_forget_a_change,
    what_moves_counts_as_settled,
    forgotten_claims_still_cover,
    revocations_stay_at_home,
    late_arrivals_escape_revocation,
    rotation_is_a_login,
    revocations_end_later_logins,
    any_state_is_the_base_of_a_hash,
)
