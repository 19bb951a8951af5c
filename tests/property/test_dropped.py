"""Copies that come and go: a node that dropped its own writes, and writes to an older copy, must not claim them."""

from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from gossipsess.model.clock import HybridClock
from gossipsess.model.delta import Delta, changes_since, not_covered
from gossipsess.model.record import ABSOLUTE, CREATED, IDLE, Record
from gossipsess.model.table import Table, register_value
from tests.property.histories import HOLDERS, KEYS, SID, SKEWS_MS, includes, origin, same_state

AGES_MS = 10**12
"""No session ends by time here."""


class Tables:
    """Three nodes that write one session, drop it and get it from each other; messages come late, doubled or never."""

    def __init__(self, steps: list[tuple[Any, ...]]) -> None:
        self.time_ms = 1_700_000_000_000
        self.tables = [Table() for _ in range(HOLDERS)]
        self.clocks = [HybridClock(skew_ms) for skew_ms in SKEWS_MS]
        self.states: list[list[Record]] = [[] for _ in range(HOLDERS)]
        self.writes: list[tuple[bytes, int, tuple[str, ...]]] = []
        self.deltas: list[Delta] = []
        created = {CREATED: self.time_ms, IDLE: AGES_MS, ABSOLUTE: self.time_ms + AGES_MS}
        self._put(0, {key: register_value(number) for key, number in created.items()})
        for node in range(1, HOLDERS):
            self.pull(node, 0)
        for name, *arguments in steps:
            getattr(self, name)(*arguments)
            self.check()

    def write(self, node: int, keys: tuple[str, ...]) -> None:
        if SID in self.tables[node].records:
            self._put(node, dict.fromkeys(keys, b"value"))

    def drop(self, node: int) -> None:
        if SID in self.tables[node].records:
            self.tables[node].drop(SID, origin(node), 0.0)

    def pull(self, node: int, peer: int) -> None:
        held = self.tables[peer].records.get(SID)
        if held is not None:
            self._merge(node, not_covered(held, self.tables[node].get(SID).claims))

    def cut(self, node: int, back: int) -> None:
        if SID in self.tables[node].records:
            states = self.states[node]
            self.deltas.append(changes_since(states[-1], states[max(0, len(states) - 1 - back)]))

    def deliver(self, node: int, which: int) -> None:
        if self.deltas:
            self._merge(node, self.deltas[which % len(self.deltas)])

    def wait(self, ms: int) -> None:
        self.time_ms += ms

    def pull_all(self) -> None:
        for node in [*range(HOLDERS), *range(HOLDERS)]:
            for peer in range(HOLDERS):
                self.pull(node, peer)

    def check(self) -> None:
        """Every write that is claimed anywhere must be there."""
        for table in self.tables:
            record = table.get(SID)
            for write in self.writes:
                assert includes(record, write) or not record.contains(*write[:2])

    def _put(self, node: int, changes: dict[str, bytes]) -> None:
        table = self.tables[node]
        stamp = self.clocks[node].tick(self.time_ms / 1000, table.get(SID).newest)
        record = table.write(SID, changes.items(), stamp, origin(node), 0.0)
        assert record.newest == stamp
        self.states[node].append(record)
        self.writes.append((origin(node), stamp, tuple(changes)))

    def _merge(self, node: int, delta: Delta) -> None:
        record = self.tables[node].merge(delta, self.time_ms, 0.0).record
        self.clocks[node].hear(record.newest, self.time_ms / 1000)
        if record.entries:
            self.states[node].append(record)


_node = st.integers(0, HOLDERS - 1)
_keys = st.lists(st.sampled_from(KEYS), min_size=1, max_size=2, unique=True).map(tuple)
_steps = st.one_of(
    st.tuples(st.just("write"), _node, _keys),
    st.tuples(st.just("write"), _node, _keys),
    st.tuples(st.just("drop"), _node),
    st.tuples(st.just("pull"), _node, _node),
    st.tuples(st.just("pull"), _node, _node),
    st.tuples(st.just("cut"), _node, st.integers(0, 3)),
    st.tuples(st.just("deliver"), _node, st.integers(0, 20)),
    st.tuples(st.just("wait"), st.sampled_from([1, 350_000, 700_000])),  # claims become too old to keep
)
OLDER_COPY = [("write", 0, ("a",)), ("drop", 0), ("pull", 0, 1), ("write", 0, ("b",))]
"""The shortest way to a false claim."""
UNCLAIMED_TWICE = [*OLDER_COPY, ("pull", 2, 0), ("drop", 0), ("pull", 0, 2), ("write", 0, ("c",))]
"""The second copy has what was written to the first one, and lacks what that one lacked."""
FORGOTTEN = [
    *[("write", 1, ("a",)), ("pull", 0, 1), ("wait", 700_000), ("write", 0, ("a",)), ("pull", 1, 0)],
    *[("drop", 1), ("pull", 1, 2), ("write", 1, ("b",))],
]
"""The dropped copy shows no trace of this node's write: its claim was too old, and others have replaced the entry."""


@settings(max_examples=300)
@given(st.lists(_steps, max_size=40))
@example(OLDER_COPY)
@example(UNCLAIMED_TWICE)
@example(FORGOTTEN)
def test_nobody_claims_what_was_lost_with_a_dropped_copy(steps):
    """Who believes such a claim never sends what is missing, calls a write confirmed, and a stale session fresh."""
    Tables(steps)


@given(st.lists(_steps, max_size=40))
@example(OLDER_COPY)
def test_copies_that_come_and_go_still_become_equal_by_what_claims_leave_open(steps):
    """A false claim would leave nodes different for good, or until whole records are compared."""
    world = Tables(steps)
    world.pull_all()
    records = [table.get(SID) for table in world.tables]
    assert all(same_state(record, records[0]) for record in records)


@given(st.lists(_steps, max_size=40))
def test_a_copy_as_good_as_the_dropped_one_is_claimed_again(steps):
    """Writes that are not claimed cost whole records and stale reads; a node must not be left with them for ever."""
    world = Tables(steps)
    world.pull_all()
    record = world.tables[0].get(SID)
    if record.entries and all(includes(record, write) for write in world.writes):  # the last copy of none was dropped
        for node, table in enumerate(world.tables):
            world.write(node, ("a",))
            assert table.get(SID).claims[origin(node)] == table.get(SID).newest
