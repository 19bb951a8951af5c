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
from gossipsess.model.digest import LeafSums, short_hash
from gossipsess.model.identity import NodeId, Sid
from gossipsess.model.record import HASH_MASK, Record, covers, dead_record, empty_record
from gossipsess.model.revocation import login_of, user_entry
from gossipsess.model.table import Life, Table
from gossipsess.protocol import fetch, replication, sessions, suspicion, sync
from gossipsess.protocol.confirmation import Confirmations, Ticket
from gossipsess.protocol.expiry import Accesses, Expiry
from gossipsess.protocol.fence import Fence
from gossipsess.protocol.fetch import Fetches
from gossipsess.protocol.graveyard import Graveyard
from gossipsess.protocol.links import Links
from gossipsess.protocol.membership import Membership
from gossipsess.protocol.outcomes import Found
from gossipsess.protocol.repair import Comparison
from gossipsess.protocol.replica import Replica
from gossipsess.protocol.replication import Debt, Outbound
from gossipsess.protocol.sessions import SessionProtocol
from gossipsess.protocol.swim import Swim
from gossipsess.protocol.views import Views
from gossipsess.sim import process
from gossipsess.sim.process import node_id
from gossipsess.wire.messages import PullAnswer, Push, PushAck
from tests.unit.machines import tickets_of

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
        mine = {sid: table.get(sid) for sid, _ in page.sessions}
        seen = tuple(
            (sid, short_hash(mine[sid].state_hash) if mine[sid].tombstone else state_hash)
            for sid, state_hash in page.sessions
        )
        return real(self, page._replace(sessions=seen), table, now_s)

    patch.setattr(sync.Sync, "page", page)


def node_ids_are_reused(patch: pytest.MonkeyPatch) -> None:
    """A restart in place takes its old id again, having forgotten what others know it wrote."""
    patch.setattr(process, "node_id", lambda seed, slot, generation: node_id(seed, slot, 0))


def newcomers_say_absent(patch: pytest.MonkeyPatch) -> None:
    """A node that has not met everybody takes every session for one that does not exist."""
    patch.setattr(fetch, "_without", lambda doubtful: Found.ABSENT)


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


def sleepers_judge(patch: pytest.MonkeyPatch) -> None:
    """A process that stood still holds the others responsible for the answers it did not hear."""
    patch.setattr(Swim, "_paused", lambda self, late_s, now_s: None)


def the_wall_is_believed_unconfirmed(patch: pytest.MonkeyPatch) -> None:
    """A node's time is whatever its wall clock says: set an hour ahead, it would win every write."""

    def hint(self: HybridClock, wall_ms: int, now_s: float) -> None:
        self.offset_ms = wall_ms - int(now_s * 1000)

    patch.setattr(HybridClock, "hint", hint)


def clocks_that_stood_still_stay_behind(patch: pytest.MonkeyPatch) -> None:
    """A node whose machine was suspended refuses everybody until its process starts again."""
    patch.setattr(HybridClock, "hint", lambda self, wall_ms, now_s: None)


def no_fence(patch: pytest.MonkeyPatch) -> None:
    """What comes from a node that was long apart is taken in, though its logout may be forgotten."""
    patch.setattr(Fence, "refuses", lambda self, node, delta, time_ms: False)


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


def a_slow_peer_is_sent_everything(patch: pytest.MonkeyPatch) -> None:
    """What is sent again counts as gone from the link, and the rest is sent after it."""
    real = Outbound._give_up

    def give_up(self: Outbound, sequences: list[int]) -> None:
        real(self, sequences)
        self._in_flight_bytes -= sum(size for _, size in self._given_up)
        self._given_up.clear()

    patch.setattr(Outbound, "_give_up", give_up)


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
    patch.setattr(LeafSums, "settled", lambda self, now_s: self._total)


def a_repair_only_pulls(patch: pytest.MonkeyPatch) -> None:
    """What the smaller node id of a pair holds and the other lacks stays so: the one does not give, the other waits."""
    real_start, real_due = sync.Sync.start, Comparison.repair_due

    def start(self: sync.Sync, table: Table, now_s: float, *, both_ways: bool = False) -> sync.Step:
        return real_start(self, table, now_s)

    def repair_due(self: Comparison, equal: bool, now_s: float) -> bool:
        return real_due(self, equal, now_s) and self._first

    patch.setattr(sync.Sync, "start", start)
    patch.setattr(Comparison, "repair_due", repair_due)


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


def hearsay_kills(patch: pytest.MonkeyPatch) -> None:
    """A death in a peer's list is a death here, however old the list is."""

    def heard_members(self: Swim, members: Any, now_s: float) -> Any:
        return self._merge_all([told.member for told in members], now_s)

    patch.setattr(Swim, "heard_members", heard_members)


def the_dead_rest(patch: pytest.MonkeyPatch) -> None:
    """Nobody asks the dead again: what a partition has made of one cluster stays two."""
    patch.setattr(Graveyard, "due", lambda self, ended, taken, now_s: [])
    patch.setattr(Graveyard, "next_deadline", lambda self: None)


def views_are_not_compared(patch: pytest.MonkeyPatch) -> None:
    """Two nodes tell each other whom they know when they meet, and never again."""
    patch.setattr(Views, "heard", lambda self, peer, view, now_s: False)
    patch.setattr(Views, "exchange", lambda self, peer, now_s: False)


def nobody_need_confirm(patch: pytest.MonkeyPatch) -> None:
    """One node's suspicion is as good as that of two."""
    patch.setattr(suspicion, "CONFIRMATIONS_WANTED", 0)


def a_set_decides(patch: pytest.MonkeyPatch) -> None:
    """The order of the members is that of a set. No seed shows it: another hash seed does."""
    real = Membership.live
    patch.setattr(Membership, "live", lambda self: tuple(set(real(self))))


def revocations_stay_at_home(patch: pytest.MonkeyPatch) -> None:
    """A revocation ends the sessions of the node that was asked for it, and no others."""
    real = SessionProtocol._end_sessions_of

    def end_sessions_of(self: SessionProtocol, user: Sid, now_s: float, *, remote: bool) -> int:
        return 0 if remote else real(self, user, now_s, remote=remote)

    patch.setattr(SessionProtocol, "_end_sessions_of", end_sessions_of)


def late_arrivals_escape_revocation(patch: pytest.MonkeyPatch) -> None:
    """A revocation ends what is held when it comes; what comes after it, from who had not heard of it, lives."""
    patch.setattr(Table, "_revoked", lambda self, old, new: None)


def rotation_is_a_login(patch: pytest.MonkeyPatch) -> None:
    """A rotation names the user by a new write, which looks later than the revocation."""
    patch.setattr(sessions, "rotated_value", lambda key, entry: entry.value)


def revocations_end_later_logins(patch: pytest.MonkeyPatch) -> None:
    """Whoever was revoked once is locked out for as long as the revocation is kept."""

    def revoked(self: Table, old: Record | None, new: Record) -> Record | None:
        login = login_of(user_entry(new))
        return dead_record(new.sid, login.stamp) if login is not None and login.user in self.records else None

    patch.setattr(Table, "_revoked", revoked)


def byes_are_dropped(patch: pytest.MonkeyPatch) -> None:
    """A node that leaves is not heard, and is looked for until it is declared dead."""
    patch.setattr(Replica, "_said_bye", lambda self, node, now_s: None)


def an_old_acknowledgement_confirms_the_newest_write(patch: pytest.MonkeyPatch) -> None:
    """Whoever acknowledges a push is taken to hold also what was written to its sessions since."""
    real = Outbound.acknowledged

    def acknowledged(self: Outbound, ack: PushAck) -> dict[Sid, list[Ticket]]:
        flight = self._flights.get(ack.sequence)
        sids = list(flight.debts) if flight is not None else []
        held = real(self, ack)
        return {sid: [*held.get(sid, ()), *tickets_of(self, sid)] for sid in {**held, **dict.fromkeys(sids)}}

    patch.setattr(Outbound, "acknowledged", acknowledged)


def each_side_keeps_the_link_it_dialed(patch: pytest.MonkeyPatch) -> None:
    """Of two links that come up at once both sides close the other's, and so both are gone."""
    patch.setattr(Links, "_dialed_by_smaller", lambda self, link: link.dialed is not None)


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


def any_state_is_the_base_of_a_hash(patch: pytest.MonkeyPatch) -> None:
    """A delta that was cut against one state is merged into another, though what lies between is missing."""

    def trusting(mine: Record, delta: Delta) -> Applied:
        by_hash = delta.base_claims is None and not mine.tombstone and not delta.tombstone
        return apply(mine, delta._replace(base_hash=mine.state_hash) if by_hash else delta)

    patch.setattr(table_module, "apply", trusting)


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
        the_wall_is_believed_unconfirmed,
        clocks_that_stood_still_stay_behind,
        no_fence,
        sleepers_judge,
        what_was_received_is_pushed_on,
        accesses_are_not_told,
        accesses_are_told_once,
        a_slow_peer_is_sent_everything,
        tombstones_end_early,
        sums_keep_what_has_ended,
        sums_forget_a_change,
        what_moves_counts_as_settled,
        a_repair_only_pulls,
        forgotten_claims_still_cover,
        held_is_fresh,
        waits_have_no_end,
        hearsay_kills,
        the_dead_rest,
        views_are_not_compared,
        nobody_need_confirm,
        revocations_stay_at_home,
        late_arrivals_escape_revocation,
        rotation_is_a_login,
        revocations_end_later_logins,
        byes_are_dropped,
        an_old_acknowledgement_confirms_the_newest_write,
        each_side_keeps_the_link_it_dialed,
        one_no_makes_a_session_absent,
        the_bound_in_flight_is_forgotten,
        any_state_is_the_base_of_a_hash,
        a_set_decides,
    )
}


UNSEEN = ("a_set_decides", "views_are_not_compared", "nobody_need_confirm")
"""Mutants that break no rule within one run: they are caught by comparing runs, and by test_members.py."""

BY_HAND = ("the_dead_rest",)
"""Mutants whose scenario is made by hand, since the draws do not come there: seeds that stay dead."""


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Have one mutant in place."""
    with pytest.MonkeyPatch.context() as patch:
        MUTANTS[name](patch)
        yield
