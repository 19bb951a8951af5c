# Record: the replicated state of one session, a state-based CRDT.
#
# State:   entries, key -> (stamp, origin, value); or dead, a tombstone that absorbs everything.
# Merge:   per key the greater (stamp, origin) wins; a tombstone wins over entries, a later one over an earlier.
#          So the state is a product of max-semilattices with one absorbing top: merge commutes, associates and
#          is idempotent, whatever is lost, doubled or reordered on the way.
# Deleted keys stay as entries without a value for as long as the session lives: dropped early, an old copy would
# bring back, say, a revoked role. What the session itself needs (when created, how long it may idle) are entries
# under reserved keys, under the same rule.
#
# Claims are beside the state: `claims[origin] >= stamp` says "I hold every write of that origin up to that
# stamp, or what replaced it". They shorten transfers and answer "have you seen my write?"; convergence never
# rests on them but on the state hash, so an old claim may be dropped, and a lost one costs one pull.
# (A version vector that had to be complete would grow with every restart of every node.)
#
# Records are replaced, never edited: a request's thread reads one without a lock.

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from struct import Struct
from typing import Final, NamedTuple

from gossipsess.model.clock import COUNTER_BITS, Stamp
from gossipsess.model.identity import NodeId, Sid

HASH_MASK: Final = (1 << 128) - 1
CLAIMS_MAX: Final = 16
CLAIM_AGE: Final = 600_000 << COUNTER_BITS
"""Claims this much older than the record's newest are dropped: ten minutes, as long as a version token lives."""

VALUE_BYTES_MAX: Final = 256 * 1024
KEY_CHARACTERS_MAX: Final = 256
SESSION_BYTES_MAX: Final = 1024 * 1024
"""What one session may hold: keys, values and `ENTRY_BYTES` for each. Checked where a value is assigned, and again
under the lock where it is written, since another request may have written meanwhile."""
RECORD_BYTES_MAX: Final = 16 * SESSION_BYTES_MAX
"""What a record may grow to by merging. Nodes that write at the same moment can pass the bound of a session together,
but not by this much; a peer that does is broken."""
ENTRY_BYTES: Final = 48
"""What an entry costs beyond its key and value."""

RESERVED: Final = "\0"
"""First character of the keys that belong to the library; no application key may begin with it."""
CREATED: Final = RESERVED + "c"
IDLE: Final = RESERVED + "i"
ABSOLUTE: Final = RESERVED + "a"
USER: Final = RESERVED + "u"
"""Whose the session is, and since when; `revocation.py` reads it."""
REGISTERS: Final = frozenset({CREATED, IDLE, ABSOLUTE, USER})
"""What the library notes of a session, and no content of it."""

_BLANK = blake2b(digest_size=16)  # each write asks: a copy costs half of what a new one does
_PLACE = Struct(">Q8s").pack
_TOMBSTONE_ORIGIN = bytes(8)
_new_tuple: Final = tuple.__new__  # half of what a call of a named tuple costs, and each write makes one

Claims = Mapping[NodeId, Stamp]


class Entry(NamedTuple):
    """One key's last write."""

    stamp: Stamp
    origin: NodeId
    value: bytes | None
    """The encoded value; None where the key was deleted."""
    mark: int
    """This entry's share of the state hash."""


def entry_mark(sid: Sid, key: str, stamp: Stamp, origin: NodeId) -> int:
    """Return an entry's share of its record's state hash, 128 bits.

    The sid is in it, so that the sum over many sessions does not cancel; the value is not, since the dot
    (origin, stamp) names the write.
    """
    mark = _BLANK.copy()
    mark.update(sid + _PLACE(stamp, origin) + key.encode("utf-8"))
    return int.from_bytes(mark.digest(), "big")


def entry_bytes(key: str, value: bytes | None) -> int:
    """Return what an entry counts against the bounds."""
    return ENTRY_BYTES + (len(key) if key.isascii() else len(key.encode("utf-8"))) + (len(value) if value else 0)


class Record:
    """One session's replicated state. Treat as immutable.

    `entries` and `claims` are never changed after construction. `covered` says that the claims cover every
    entry, which lets a delta be cut against claims alone. `tombstone` is the stamp of the invalidation, 0
    while the session lives; a dead record has no entries. `size` is the sum of `entry_bytes`, and `newest` the highest
    stamp in the state, 0 for the empty record.
    """

    __slots__ = ("claims", "covered", "entries", "newest", "sid", "size", "state_hash", "tombstone")

    def __init__(
        self,
        sid: Sid,
        entries: dict[str, Entry],
        claims: dict[NodeId, Stamp],
        state_hash: int,
        covered: bool,
        size: int,
        tombstone: Stamp = 0,
        newest: Stamp = 0,
    ) -> None:
        self.sid = sid
        self.entries = entries
        self.claims = claims
        self.state_hash = state_hash
        self.covered = covered
        self.size = size
        self.tombstone = tombstone
        if newest:  # known to who makes it of another
            self.newest: Stamp = newest
            return
        newest = tombstone
        for stamp in claims.values():  # mostly one: a loop costs less than max()
            if stamp > newest:
                newest = stamp
        # The newest claim is never dropped. But the newest write may not be claimed at all.
        self.newest = newest if covered else max([newest, *(entry.stamp for entry in entries.values())])

    def __repr__(self) -> str:
        life = f"dead@{self.tombstone}" if self.tombstone else f"{len(self.entries)} entries"
        return f"<Record {self.sid[:4].hex()} {life} hash={self.state_hash >> 96:08x}>"

    def contains(self, origin: NodeId, stamp: Stamp) -> bool:
        """Say whether this state includes that write, or what replaced it. May answer no too often, never yes."""
        if self.tombstone or self.claims.get(origin, 0) >= stamp:
            return True
        return any(entry.stamp == stamp and entry.origin == origin for entry in self.entries.values())

    def may_contain_writes_of(self, origin: NodeId) -> bool:
        """Say whether this state may include a write of that origin, or what replaced it. May answer yes too often."""
        claims = self.claims
        if origin in claims or len(claims) >= CLAIMS_MAX:
            return True
        # No claim was dropped as too old while all of the state is young. What made a session is never replaced.
        oldest_kept = self.newest - CLAIM_AGE
        return any(entry.origin == origin or entry.stamp < oldest_kept for entry in self.entries.values())

    def written(
        self, changes: Iterable[tuple[str, bytes | None]], stamp: Stamp, origin: NodeId, *, claimed: bool = True
    ) -> "Record":
        """Return the record after one local write: every change carries the same, new, highest stamp.

        Not `claimed`: this state may lack earlier writes of the same origin, so that a claim would be false. The
        entries are there all the same.
        """
        assert not self.tombstone, "the caller answers Gone for a dead session"
        entries = self.entries.copy()
        state_hash = self.state_hash
        size = self.size
        for key, value in changes:
            old = entries.get(key)
            if old is None:
                size += entry_bytes(key, value)
            else:
                state_hash -= old.mark
                size += (len(value) if value else 0) - (len(old.value) if old.value else 0)
            mark = entry_mark(self.sid, key, stamp, origin)
            entries[key] = _new_tuple(Entry, (stamp, origin, value, mark))
            state_hash += mark
        if not claimed:
            return Record(self.sid, entries, self.claims, state_hash & HASH_MASK, False, size, newest=stamp)
        claims = self.claims.copy()
        claims[origin] = stamp
        covered = self.covered
        if len(claims) > 1:
            claims, dropped = pruned_claims(claims)
            if dropped:
                covered = covers(claims, entries)
        return Record(self.sid, entries, claims, state_hash & HASH_MASK, covered, size, 0, stamp)


def empty_record(sid: Sid) -> Record:
    """Return the bottom of the lattice: what a node holds of a session it has never heard of."""
    return Record(sid, {}, {}, 0, True, 0)


def dead_record(sid: Sid, stamp: Stamp) -> Record:
    """Return the top of the lattice for one session: invalidated, its payload erased, for good."""
    mark = entry_mark(sid, RESERVED, stamp, _TOMBSTONE_ORIGIN)
    return Record(sid, {}, {}, mark, True, 0, stamp)


def recounted(record: Record) -> Record:
    """Return a record with its entries' marks and its state hash computed anew; the same where they were right."""
    sid = record.sid
    if record.tombstone:
        true = dead_record(sid, record.tombstone)
        return true if true.state_hash != record.state_hash else record
    state_hash = 0
    entries = record.entries
    for key, entry in record.entries.items():
        mark = entry_mark(sid, key, entry.stamp, entry.origin)
        state_hash += mark
        if mark != entry.mark:
            entries = {**entries, key: entry._replace(mark=mark)}
    state_hash &= HASH_MASK
    if entries is record.entries and state_hash == record.state_hash:
        return record
    return Record(sid, entries, record.claims, state_hash, record.covered, record.size)


def covers(claims: Claims, entries: Mapping[str, Entry]) -> bool:
    """Say whether the claims cover every entry."""
    return all(claims.get(entry.origin, 0) >= entry.stamp for entry in entries.values())


def covers_claims(mine: Claims, theirs: Claims) -> bool:
    """Say whether `mine` claims everything that `theirs` claims."""
    for origin, stamp in theirs.items():
        if mine.get(origin, 0) < stamp:
            return False
    return True


def pruned_claims(claims: dict[NodeId, Stamp]) -> tuple[dict[NodeId, Stamp], bool]:
    """Return the claims young enough to keep, at most `CLAIMS_MAX`, and whether any was dropped.

    Age is measured from the newest claim, not from a clock, so that equal records prune equally; the newest
    claim always stays, so an idle session's next delta still finds its base.
    """
    oldest_kept = max(claims.values()) - CLAIM_AGE
    kept = {origin: stamp for origin, stamp in claims.items() if stamp >= oldest_kept}
    if len(kept) > CLAIMS_MAX:
        newest = sorted(kept.items(), key=lambda claim: (claim[1], claim[0]))[-CLAIMS_MAX:]
        kept = dict(newest)
    return kept, len(kept) < len(claims)
