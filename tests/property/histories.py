"""Arbitrary histories of one session: three holders that write, cut deltas, lose, double and reorder them."""

from typing import Any

from hypothesis import strategies as st

from gossipsess.model.clock import HybridClock
from gossipsess.model.delta import Delta, apply, changes_since, not_covered
from gossipsess.model.record import HASH_MASK, Record, dead_record, empty_record, entry_mark

SID = b"session-16-bytes"
HOLDERS = 3
SKEWS_MS = (-3_000, 0, 4_000)
"""How wrong the holders' clocks are: the last writer by the wall is often not the last by stamp."""
KEYS = "abcd"

Step = tuple[Any, ...]
"""(name of a method of `History`, arguments...)"""


class History:
    """Plays steps. `states[i]` are the records holder i ever had, the last one being what it holds."""

    def __init__(self, steps: list[Step]) -> None:
        self.time_ms = 1_700_000_000_000
        self.states = [[empty_record(SID)] for _ in range(HOLDERS)]
        self.clocks = [HybridClock(skew_ms) for skew_ms in SKEWS_MS]
        self.writes: list[tuple[bytes, int, tuple[str, ...]]] = []
        """(origin, stamp, keys) of every write that any holder made."""
        self.deltas: list[Delta] = []
        """Sent and never removed: each may arrive anywhere, often, late or not at all."""
        for name, *arguments in steps:
            getattr(self, name)(*arguments)

    @property
    def held(self) -> list[Record]:
        """What every holder holds now."""
        return [states[-1] for states in self.states]

    def write(self, holder: int, keys: tuple[str, ...], deletes: bool) -> None:
        record = self.held[holder]
        if record.tombstone:
            return
        stamp = self._tick(holder)
        value = None if deletes else stamp.to_bytes(8, "big")
        self.states[holder].append(record.written([(key, value) for key in keys], stamp, origin(holder)))
        self.writes.append((origin(holder), stamp, keys))

    def end(self, holder: int) -> None:
        self.states[holder].append(dead_record(SID, self._tick(holder)))

    def cut(self, holder: int, back: int) -> None:
        states = self.states[holder]
        self.deltas.append(changes_since(states[-1], states[max(0, len(states) - 1 - back)]))

    def cut_by_hash(self, holder: int, back: int) -> None:
        # As for a base whose claims were dropped: the rarest of the three bases, so it is asked for.
        states = self.states[holder]
        base = states[max(0, len(states) - 1 - back)]
        uncovered = Record(
            SID, base.entries, base.claims, base.state_hash, covered=False, size=base.size, tombstone=base.tombstone
        )
        self.deltas.append(changes_since(states[-1], uncovered))

    def answer(self, holder: int, asker: int) -> None:
        self.deltas.append(not_covered(self.held[holder], self.held[asker].claims))

    def deliver(self, holder: int, which: int) -> None:
        if self.deltas:
            delta = self.deltas[which % len(self.deltas)]
            record = apply(self.held[holder], delta).record
            self.clocks[holder].hear(record.newest, self.time_ms / 1000)
            self.states[holder].append(record)

    def wait(self, ms: int) -> None:
        self.time_ms += ms

    def _tick(self, holder: int) -> int:
        return self.clocks[holder].tick(self.time_ms / 1000, self.held[holder].newest)


def origin(holder: int) -> bytes:
    """Return a holder's node id."""
    return bytes([holder + 1] * 8)


_holder = st.integers(0, HOLDERS - 1)
_keys = st.lists(st.sampled_from(KEYS), min_size=1, max_size=3, unique=True).map(tuple)
_steps = st.one_of(
    st.tuples(st.just("write"), _holder, _keys, st.booleans()),
    st.tuples(st.just("write"), _holder, _keys, st.just(False)),
    st.tuples(st.just("cut"), _holder, st.integers(0, 3)),
    st.tuples(st.just("cut_by_hash"), _holder, st.integers(0, 3)),
    st.tuples(st.just("answer"), _holder, _holder),
    st.tuples(st.just("deliver"), _holder, st.integers(0, 30)),
    st.tuples(st.just("deliver"), _holder, st.integers(0, 30)),
    st.tuples(st.just("wait"), st.sampled_from([1, 700_000])),  # the second makes claims too old to keep
    st.tuples(st.just("wait"), st.just(350_000)),
)


def histories(*, ends: bool = True) -> st.SearchStrategy[History]:
    """Draw histories; with `ends` some holders also end the session."""
    steps = st.one_of(_steps, _steps, _steps, st.tuples(st.just("end"), _holder)) if ends else _steps
    return st.lists(steps, min_size=1, max_size=40).map(History)


def joined(mine: Record, theirs: Record) -> Record:
    """Return the join of two records, by the delta that carries everything."""
    return apply(mine, not_covered(theirs, {})).record


def same_state(one: Record, other: Record) -> bool:
    """Say whether two records are the same replicated state; claims may differ."""
    return (one.state_hash, one.entries, one.tombstone) == (other.state_hash, other.entries, other.tombstone)


def recomputed_hash(record: Record) -> int:
    """Return a record's state hash from its entries alone."""
    if record.tombstone:
        return dead_record(SID, record.tombstone).state_hash
    marks = [entry_mark(SID, key, entry.stamp, entry.origin) for key, entry in record.entries.items()]
    return sum(marks) & HASH_MASK


def includes(record: Record, write: tuple[bytes, int, tuple[str, ...]]) -> bool:
    """Say whether a record has every key of a write, as that write left it or later: looked up, not claimed."""
    made_by, stamp, keys = write
    entries = record.entries
    return bool(record.tombstone) or all(
        key in entries and (entries[key].stamp, entries[key].origin) >= (stamp, made_by) for key in keys
    )
