# Table: every record this node holds, with what is kept beside the replicated state: sums, last accesses, deadlines
# and whose each session is.
#
# One lock, held by the caller, guards every method that writes. `records` may be read by any thread without it:
# records are immutable and a dict lookup is atomic.
#
# Expiry is silent and makes no tombstone: an idle copy on one side of a partition must not kill the session that
# is in use on the other. It is decided in cluster time. Deadlines are looked up lazily, in a heap with one entry
# a session, so that a write or a touch costs nothing there.

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from heapq import heappop, heappush
from typing import Final, NamedTuple

from gossipsess.errors import SessionTooLarge, WireError
from gossipsess.model.clock import COUNTER_BITS, Stamp
from gossipsess.model.delta import Applied, Delta, apply
from gossipsess.model.digest import LEAVES, PARTITION_LEAVES, SUM_MASK, LeafSums, leaf_flags, leaf_of
from gossipsess.model.dropped import Dropped
from gossipsess.model.identity import NodeId, Sid
from gossipsess.model.record import (
    ABSOLUTE,
    IDLE,
    RECORD_BYTES_MAX,
    SESSION_BYTES_MAX,
    USER,
    Record,
    dead_record,
    empty_record,
    recounted,
)
from gossipsess.model.revocation import Owners, is_user_sid, login_of, user_entry
from gossipsess.model.subkeys import Change, resolved

TOMBSTONE_MS: Final = 24 * 3600 * 1000
"""Tombstones outlive the longest partition this promises to survive. Dropped earlier, a node that comes back with
the old record would log the user in again."""

RECORD_OVERHEAD_BYTES: Final = 750
ENTRY_OVERHEAD_BYTES: Final = 260
"""What a record costs in memory beyond its `size`, and each of its entries again: objects, dictionaries, stamps, hashes
and the table's own books. Measured with tracemalloc in CPython 3.11 for records that came from a peer, of 3 to 33
entries; one written here costs about a quarter less, since its keys are shared."""


def register(record: Record, key: str) -> int:
    """Return one of the session's own numbers; 0 where it is missing, which ends the session: fail closed."""
    entry = record.entries.get(key)
    return int.from_bytes(entry.value, "big") if entry is not None and entry.value else 0


def register_value(number: int) -> bytes:
    """Return what `register` reads back, for numbers from 0 to 2**64 - 1."""
    return number.to_bytes(8, "big")


@lru_cache(maxsize=64)  # each read asks, and sessions of one application have the same
def touch_grain_ms(idle_ms: int) -> int:
    """Return how coarse accesses are kept: a twentieth of the idle timeout, within 5 s and 60 s.

    Finer costs a message for every read; coarser lets idle sessions live longer by as much. Timeouts under
    twenty seconds, as tests have them, take a quarter.
    """
    return min(60_000, max(idle_ms // 20, min(5_000, idle_ms // 4)))


def held_bytes(record: Record) -> int:
    """Return what a record costs in memory, roughly."""
    return RECORD_OVERHEAD_BYTES + ENTRY_OVERHEAD_BYTES * len(record.entries) + record.size


_new_tuple: Final = tuple.__new__  # half of what a call of a named tuple costs


class RecordTooLarge(WireError):
    """A peer's delta would make a record larger than any node that keeps to the bounds could."""


class Life(NamedTuple):
    """Times of one record, milliseconds of cluster time."""

    accessed_ms: int
    """The last known access, a write being one too."""
    grain_ms: int
    """How much later an access must be to be noted."""
    ends_ms: int
    """When it may be dropped: idle or absolute timeout, or the end of a tombstone."""


class Table:
    """The sessions of one node."""

    def __init__(self) -> None:
        self.records: dict[Sid, Record] = {}
        self.sums = LeafSums()
        self.revocations = 0
        """How many of the records are tombstones of users, and no sessions."""
        self.overwrites = 0
        """Writes of one key at the same moment, of which merges have kept the later one."""
        self.bytes = 0
        """What all records cost in memory, roughly."""
        self.occupied = 0
        """The partitions in which anything is held, as a scope."""
        self._leaves: list[dict[Sid, None]] = [{} for _ in range(LEAVES)]
        self._accesses: dict[Sid, int] = {}
        self._owners = Owners()
        self._dropped = Dropped()
        self._checks: list[tuple[int, Sid]] = []  # a heap: (when to look at the deadline, sid)
        # Of those once dropped, or given other limits: which of their checks counts, 0 for none.
        self._check_at: dict[Sid, int] = {}
        self._rechecked = 0  # the leaf that comes next

    def get(self, sid: Sid) -> Record:
        """Return the record held, or the empty one."""
        return self.records.get(sid) or empty_record(sid)

    def write(
        self, sid: Sid, changes: Iterable[tuple[str, Change]], stamp: Stamp, origin: NodeId, now_s: float
    ) -> Record:
        """Apply a local write to a session that is not dead; return its new record.

        It claims the write, unless the copy here is older than one that was dropped: then it may lack earlier writes
        of this node.

        Raises:
            SessionTooLarge: the record, or a counter in it, would be over its bound. Nothing has changed.
        """
        old = self.records.get(sid)
        base = old or empty_record(sid)
        remembered = sid in self._dropped.copies
        claimed = not (remembered and self._dropped.is_ahead_of(base))
        entries = resolved(changes, base.entries, stamp, origin, behind=not claimed)
        new = base.written(entries, stamp, origin, claimed=claimed)
        if new.size > SESSION_BYTES_MAX and (old is None or new.size > old.size):
            raise SessionTooLarge(
                f"with what other requests have written meanwhile the session would have {new.size} bytes; at most "
                f"{SESSION_BYTES_MAX} travel. Nothing of this request is stored. Keep large data in the application's "
                "database and its key in the session."
            )
        if remembered and claimed:
            self._dropped.forget(sid)
        self._replace(old, new, now_s)
        return new

    def kill(self, sid: Sid, stamp: Stamp, now_s: float) -> Record:
        """Put a tombstone, also for a session never heard of: its first record may still be on the way."""
        old = self.records.get(sid)
        new = dead_record(sid, max(stamp, old.tombstone) if old else stamp)
        self._replace(old, new, now_s)
        return new

    def end_sessions_of(self, user: Sid, now_s: float) -> list[Record]:
        """Put tombstones on the sessions that the revocation held under a user's sid ends; return what they are now."""
        revoked_at = self.get(user).tombstone
        logins = [(sid, login_of(user_entry(self.records[sid]))) for sid in self._owners.sessions_of(user)]
        return [self.kill(sid, login.stamp, now_s) for sid, login in logins if login and login.stamp <= revoked_at]

    def merge(self, delta: Delta, time_ms: int, now_s: float) -> Applied:
        """Apply a peer's delta. `time_ms` is cluster time, `now_s` the monotonic clock.

        State whose deadline has passed is not taken in: an old copy would come back to life for a moment. What a
        revocation held here ends is taken in as dead; a revocation itself ends sessions by `end_sessions_of`.

        Raises:
            RecordTooLarge: no node that keeps to the bounds sends that much. Nothing has changed.
        """
        sid = delta.sid
        old = self.records.get(sid)
        applied = apply(old or empty_record(sid), delta)
        new = applied.record
        if new.size > RECORD_BYTES_MAX:
            raise RecordTooLarge(f"a record of {new.size} bytes; at most {RECORD_BYTES_MAX} are merged")
        dead = self._revoked(old, new)
        if dead is not None:
            applied = Applied(dead, gap=False, absorbed=True)
            new = dead
        if delta.accessed_ms and new.entries:
            self._accesses[sid] = max(self._accesses.get(sid, 0), min(delta.accessed_ms, time_ms))
        if new is not old and (new.entries or new.tombstone):
            if old is None and self.life(new).ends_ms <= time_ms:
                self._accesses.pop(sid, None)
                return Applied(empty_record(sid), gap=False, over=new)
            self._replace(old, new, now_s)
        self.overwrites += applied.overwrites
        return applied

    def touch(self, sid: Sid, time_ms: int) -> bool:
        """Note an access; return whether it is news. Accesses only move forward."""
        record = self.records.get(sid)
        if record is None or time_ms <= self.life(record).accessed_ms:
            return False
        self._accesses[sid] = time_ms
        return True

    @property
    def accesses(self) -> Mapping[Sid, int]:
        """The last noted access of each session that has one, milliseconds; a write since is not among them."""
        return self._accesses

    def accessed_since_ms(self, record: Record) -> int:
        """Return when a session was last used, where that was after its last write; else 0."""
        accessed_ms = self._accesses.get(record.sid, 0)
        return accessed_ms if accessed_ms and accessed_ms > record.newest >> COUNTER_BITS else 0

    def life(self, record: Record) -> Life:
        """Return when a record was last used, and when it ends."""
        written_ms = record.newest >> COUNTER_BITS
        if record.tombstone:
            return Life(written_ms, 0, written_ms + TOMBSTONE_MS)
        accessed_ms = self._accesses.get(record.sid, 0)
        if accessed_ms < written_ms:  # each request comes by here: max() and min() cost thrice as much
            accessed_ms = written_ms
        idle, absolute = record.entries.get(IDLE), record.entries.get(ABSOLUTE)
        idle_ms = int.from_bytes(idle.value, "big") if idle is not None and idle.value else 0
        ends_ms = int.from_bytes(absolute.value, "big") if absolute is not None and absolute.value else 0
        grain_ms = touch_grain_ms(idle_ms)
        # The grain is added because an access within it is not told to anyone.
        idle_ends_ms = accessed_ms + idle_ms + grain_ms
        return _new_tuple(Life, (accessed_ms, grain_ms, idle_ends_ms if idle_ends_ms < ends_ms else ends_ms))

    def expired(self, time_ms: int, now_s: float) -> Iterator[Record]:
        """Drop every record whose deadline has passed, and yield it."""
        while self._checks and self._checks[0][0] <= time_ms:
            check_ms, sid = heappop(self._checks)
            record = self.records.get(sid)
            if self._check_at.get(sid, check_ms) != check_ms:
                if record is None:
                    del self._check_at[sid]
                continue
            if record is None:
                continue
            ends_ms = self.life(record).ends_ms
            if ends_ms > time_ms:
                self._look_at(sid, ends_ms)
                continue
            self._drop(record, now_s)
            self._check_at.pop(sid, None)
            yield record

    def drop(self, sid: Sid, myself: NodeId, now_s: float) -> None:
        """Hold a session no longer that others hold; it may come again. `myself`: the node whose table this is."""
        record = self.records[sid]
        self._dropped.note(record, myself)
        self._drop(record, now_s)
        # Its check stays in the heap. Were the next one put beside it, a session that comes and goes for hours would
        # be looked at as often as it has come.
        self._check_at[sid] = 0

    def wrote_before_drop(self, sid: Sid, time_ms: int) -> Stamp:
        """Return the stamp of a write of this node that the copy here lacks, and one that was dropped had; 0 where
        there is none known, or it is too old to be asked for."""
        stamp = self._dropped.wrote(sid, time_ms)
        return stamp if stamp and self._dropped.is_ahead_of(self.get(sid)) else 0

    def in_leaf(self, leaf: int) -> Iterable[Sid]:
        """Return the sids held in a leaf, in the order they came."""
        return self._leaves[leaf]

    def in_partition(self, partition: int) -> list[Sid]:
        """Return the sids held in a partition."""
        first = partition * PARTITION_LEAVES
        return [sid for leaf in self._leaves[first : first + PARTITION_LEAVES] for sid in leaf]

    def count_beyond(self, scope: int) -> int:
        """Return how many records are held in partitions that are not in a scope; a look at each leaf, not at each."""
        sizes = zip(leaf_flags(scope), self._leaves, strict=True)
        return sum([len(sids) for inside, sids in sizes if not inside])

    def _revoked(self, old: Record | None, new: Record) -> Record | None:
        """Return the tombstone of a record to be taken in whose login a revocation has ended; None where none has."""
        entry = user_entry(new)
        if entry is None or entry is user_entry(old):
            return None  # what was held before was looked at when it came
        login = login_of(entry)
        revocation = self.records.get(login.user) if login is not None else None
        if login is None or revocation is None or revocation.tombstone < login.stamp:
            return None
        return dead_record(new.sid, login.stamp)

    def recheck(self, leaves: int, now_s: float) -> int:
        """Compute hashes and sums of the next leaves anew, and put right what is wrong; return how much was.

        What is added to and taken from for months must not rest on never having been wrong.
        """
        wrong = 0
        for _ in range(leaves):
            total = 0
            for sid in self._leaves[self._rechecked]:
                record = self.records[sid]
                true = recounted(record)
                if true is not record:
                    wrong += 1
                    self._replace(record, true, now_s)
                total += true.state_hash
            wrong += self.sums.put_right(self._rechecked, total & SUM_MASK)
            self._rechecked = (self._rechecked + 1) % LEAVES
        return wrong

    def _replace(self, old: Record | None, new: Record, now_s: float) -> None:
        sid = new.sid
        if new.tombstone:
            self._dropped.forget(sid)
        self.records[sid] = new
        if old is None:
            leaf = leaf_of(sid)
            self._leaves[leaf][sid] = None
            self.occupied |= 1 << leaf // PARTITION_LEAVES
            self.bytes += held_bytes(new)
            self.sums.replace(sid, 0, new.state_hash, now_s)
            self._look_at(sid, self.life(new).ends_ms)
            self.revocations += is_user_sid(sid)
        else:
            self.bytes += new.size - old.size + ENTRY_OVERHEAD_BYTES * (len(new.entries) - len(old.entries))
            self.sums.replace(sid, old.state_hash, new.state_hash, now_s)
            if new.tombstone and not old.tombstone:
                self._accesses.pop(sid, None)
                # It may end before the session would have, and must do so here when it does elsewhere.
                self._look_at(sid, self.life(new).ends_ms)
            elif not new.tombstone and (
                old.entries.get(IDLE) != new.entries.get(IDLE) or old.entries.get(ABSOLUTE) != new.entries.get(ABSOLUTE)
            ):
                # Its limits have changed, and it may end sooner than it was to be looked at. Only this check counts.
                self._check_at[sid] = 0
                self._look_at(sid, self.life(new).ends_ms)
        was, now = old.entries.get(USER) if old is not None else None, new.entries.get(USER)
        if was is not now:
            self._owners.changed(sid, was, now)

    def _look_at(self, sid: Sid, time_ms: int) -> None:
        heappush(self._checks, (time_ms, sid))
        if sid in self._check_at:
            self._check_at[sid] = time_ms

    def _drop(self, record: Record, now_s: float) -> None:
        sid = record.sid
        del self.records[sid]
        self.bytes -= held_bytes(record)
        leaf = leaf_of(sid)
        del self._leaves[leaf][sid]
        first = leaf - leaf % PARTITION_LEAVES
        if not any(self._leaves[first : first + PARTITION_LEAVES]):
            self.occupied ^= 1 << leaf // PARTITION_LEAVES
        self._accesses.pop(sid, None)
        self.sums.replace(sid, record.state_hash, 0, now_s)
        self._owners.changed(sid, user_entry(record), None)
        self.revocations -= is_user_sid(sid)
