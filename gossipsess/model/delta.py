# Delta: the part of a record that a peer lacks, and the one rule for applying it.
#
# One form serves the push, the answer to a pull and the hand-off. A delta names the base it was cut against:
#   NOTHING      the whole record;
#   claims       everything those claims do not cover;
#   state hash   everything that changed since the state with that hash.
# It may be applied only where that base is held at the moment it arrives. Applied over a gap it would still
# converge, but the receiver would then claim writes it never saw, confirm them, and lose them (a base of
# "everything since my stamp n" has that very bug once two nodes write one session). So over a gap nothing of
# the claims moves, and the receiver asks for what it lacks: one round trip.
# Source: Almeida, Shoker, Baquero, "Delta State Replicated Data Types", 2018, section 6 (causal merging
# condition).

from collections.abc import Mapping
from typing import NamedTuple

from gossipsess.model.clock import Stamp
from gossipsess.model.identity import NodeId, Sid
from gossipsess.model.record import (
    CLAIM_AGE,
    CLAIMS_MAX,
    HASH_MASK,
    Claims,
    Entry,
    Record,
    covers,
    covers_claims,
    dead_record,
    entry_bytes,
    entry_mark,
    pruned_claims,
)

DeltaEntry = tuple[str, Stamp, NodeId, bytes | None]
"""(key, stamp, origin, encoded value or None where deleted)"""


class Delta(NamedTuple):
    """What changed in one session since a base. `after` are the sender's claims, `after_hash` its state."""

    sid: Sid
    base_claims: Claims | None
    """The base as claims; empty: no base is needed. None: the base is `base_hash`."""
    base_hash: int
    """The base as a state hash, where `base_claims` is None."""
    after: Claims
    after_hash: int
    entries: tuple[DeltaEntry, ...]
    tombstone: Stamp = 0
    """The stamp of the invalidation: then there are no entries and no base is needed."""
    accessed_ms: int = 0
    """When the session was last used, where the receiver may not know of it: accesses are no part of the record, and
    without it a session that is only read would be over before it arrives."""


class Applied(NamedTuple):
    """What applying a delta did."""

    record: Record
    """The record held from now on; the same object when nothing changed."""
    gap: bool
    """The base is not held here, or the outcome is not the sender's state: ask for more."""
    absorbed: bool = False
    """The session is dead here, and the sender does not know."""
    overwrites: int = 0
    """How many keys two nodes had written without knowing of each other; one of the two writes is gone."""
    over: Record | None = None
    """What was not taken in, since by the time here the session has ended."""


def changes_since(record: Record, base: Record) -> Delta:
    """Return the delta that turns `base`, an earlier state of the same record, into `record`."""
    if record.tombstone:
        return _death(record)
    if base.covered and not base.tombstone:
        return not_covered(record, base.claims)
    old = base.entries
    entries = tuple(
        (key, entry.stamp, entry.origin, entry.value)
        for key, entry in record.entries.items()
        if key not in old or old[key].mark != entry.mark
    )
    return Delta(record.sid, None, base.state_hash, record.claims, record.state_hash, entries)


def not_covered(record: Record, claims: Claims) -> Delta:
    """Return everything of `record` that a holder of those claims may lack; all of it for empty claims."""
    if record.tombstone:
        return _death(record)
    claimed = claims.get
    entries = tuple(
        [
            (key, entry.stamp, entry.origin, entry.value)
            for key, entry in record.entries.items()
            if claimed(entry.origin, 0) < entry.stamp
        ]
    )
    return Delta(record.sid, claims, 0, record.claims, record.state_hash, entries)


def _death(record: Record) -> Delta:
    return Delta(record.sid, {}, 0, {}, record.state_hash, (), record.tombstone)


def apply(mine: Record, delta: Delta) -> Applied:
    """Merge a peer's delta into this node's record, if its base is held here. Pure; `mine` is not changed."""
    if delta.tombstone:
        if delta.tombstone <= mine.tombstone:
            return Applied(mine, gap=False, absorbed=delta.tombstone < mine.tombstone)
        return Applied(dead_record(delta.sid, delta.tombstone), gap=False)
    if mine.tombstone:
        return Applied(mine, gap=False, absorbed=True)
    base = delta.base_claims
    if base is None:
        if delta.base_hash != mine.state_hash:
            return Applied(mine, gap=mine.state_hash != delta.after_hash)
    elif not covers_claims(mine.claims, base):
        return Applied(mine, gap=mine.state_hash != delta.after_hash)

    record = _joined(mine, delta)
    # Where the claims are now the sender's own, so must the state be. If it is not, an entry that the base
    # promised is missing here: ask for everything. A delta of everything cannot be asked for more.
    whole = base is not None and not base
    gap = not whole and record.state_hash != delta.after_hash and record.claims == delta.after
    return Applied(record, gap, overwrites=_overwrites(mine, delta))


def _joined(mine: Record, delta: Delta) -> Record:
    entries = mine.entries
    state_hash = mine.state_hash
    size = mine.size
    sid = mine.sid
    copied = False
    for key, stamp, origin, value in delta.entries:
        old = entries.get(key)
        if old is not None:
            if old.stamp > stamp or (old.stamp == stamp and old.origin >= origin):
                continue
            state_hash -= old.mark
            size -= entry_bytes(key, old.value)
        size += entry_bytes(key, value)
        if not copied:
            entries = entries.copy()
            copied = True
        mark = entry_mark(sid, key, stamp, origin)
        entries[key] = Entry(stamp, origin, value, mark)
        state_hash += mark

    claims = _joined_claims(mine.claims, delta.after)
    if not copied and claims is mine.claims:
        return mine
    pruned = False
    if len(claims) > 1:
        claims, pruned = pruned_claims(claims)
        if pruned and not copied and claims == mine.claims:
            return mine  # nothing came but claims too old to keep
    covered = mine.covered and not pruned
    if covered:
        claimed = claims.get
        for _, stamp, origin, _ in delta.entries:
            if claimed(origin, 0) < stamp:
                covered = False
                break
    else:
        covered = covers(claims, entries)
    return Record(sid, entries, claims, state_hash & HASH_MASK, covered, size)


def _joined_claims(mine: dict[NodeId, Stamp], theirs: Mapping[NodeId, Stamp]) -> dict[NodeId, Stamp]:
    claims = mine
    for origin, stamp in theirs.items():
        if mine.get(origin, 0) < stamp:
            if claims is mine:
                claims = mine.copy()
            claims[origin] = stamp
    return claims


def _overwrites(mine: Record, delta: Delta) -> int:
    """Count the entries that meet another node's write which their sender has not seen, whichever of the two wins."""
    after = delta.after
    if mine.covered and covers_claims(after, mine.claims):
        return 0  # nearly always: the sender has seen all that is here
    claimed = mine.claims.get
    count = 0
    for key, stamp, origin, _ in delta.entries:
        old = mine.entries.get(key)
        if old is None or old.origin == origin:
            continue
        # What came before, doubled or overtaken, was counted then.
        unseen_there = after.get(old.origin, 0) < old.stamp and _would_claim(after, old.stamp)
        unseen_here = claimed(origin, 0) < stamp and _would_claim(mine.claims, stamp)
        count += unseen_there and unseen_here
    return count


def _would_claim(claims: Claims, stamp: Stamp) -> bool:
    """Say whether these claims would still name a write of that age, had it been seen: old ones are dropped."""
    stamps = claims.values()
    return stamp >= max(stamps, default=0) - CLAIM_AGE and (len(claims) < CLAIMS_MAX or stamp >= min(stamps))
