"""Whatever happens on the way, a counter ends with all that was added and not seen to be cleared; so does a set.

Each addition is a power of two, so a value says which additions are in it: a clear takes off those, and no others.
"""

from concurrent.futures import Future
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gossipsess import SessionUnavailable
from gossipsess.model.clock import HybridClock
from gossipsess.model.delta import Delta, changes_since, not_covered
from gossipsess.model.record import Record
from gossipsess.model.subkeys import COUNTER, Added, all_of, count, rotated
from gossipsess.model.table import Table
from gossipsess.protocol.placement import Rules
from gossipsess.session import Session
from tests.property.histories import HOLDERS, SID, SKEWS_MS, origin
from tests.unit.cluster import Cluster, Said
from tests.unit.machines import EPOCH_MS, registers
from tests.unit.test_session import session_over

NOTHING = Added(0)
MEMBERS = "abc"
Step = tuple[Any, ...]


class Tables:
    """Three nodes' tables and one session. Deltas are lost, doubled and reordered; copies are dropped, and come again
    older than they went."""

    def __init__(self, steps: list[Step]) -> None:
        self.now_s = 0.0
        self.tables = [Table() for _ in range(HOLDERS)]
        self.clocks = [HybridClock(EPOCH_MS + skew_ms) for skew_ms in SKEWS_MS]
        self.deltas: list[Delta] = []
        self.added = self.cleared = 0
        self._write(0, list(registers(absolute_ms=10**9, idle_ms=10**9).items()))
        self.begun = self.tables[0].records[SID]
        for holder in range(1, HOLDERS):
            self._merge(holder, not_covered(self.begun, {}))
        self.loaded = [self.begun] * HOLDERS
        """What a request at each node has read, and not committed yet."""
        for name, *arguments in steps:
            self.now_s += 0.01
            getattr(self, name)(*arguments)
            for table in self.tables:
                value = count(table.get(SID).entries, NOTHING, "n")
                assert 0 <= value < 1 << self.added or value == self.added == 0, (
                    "nothing counts twice, and nothing is taken off twice"
                )

    def load(self, holder: int) -> None:
        self.loaded[holder] = self.tables[holder].records.get(SID) or self.loaded[holder]

    def add(self, holder: int) -> None:
        if SID in self.tables[holder].records:
            self.added += 1
            self._write(holder, [(COUNTER + "n", Added(1 << self.added - 1))])

    def clear(self, holder: int, adds: bool) -> None:
        read = self.loaded[holder]
        if SID in self.tables[holder].records:
            self._write(holder, [(COUNTER + "n", Added(adds << self.added, all_of(read.entries, "n")))])
            self.cleared |= count(read.entries, NOTHING, "n")
            self.added += adds

    def send(self, holder: int, to: int) -> None:
        record = self.tables[holder].records.get(SID)
        if record is not None:
            self._merge(to, changes_since(record, self.loaded[holder]))
            self._merge(to, not_covered(record, self.tables[to].get(SID).claims))

    def come_late(self, holder: int, which: int) -> None:
        self._merge(holder, self.deltas[which % len(self.deltas)])

    def drop(self, holder: int, to: int) -> None:
        record = self.tables[holder].records.get(SID)
        if record is not None and holder != to:
            self._merge(to, not_covered(record, {}))  # nobody drops what no other holds
            self.tables[holder].drop(SID, origin(holder), self.now_s)

    def get_older(self, holder: int, to: int, which: int) -> None:
        self.drop(holder, to)
        self.come_late(holder, which)

    def settle(self) -> list[Record]:
        """Let everybody hear of everything; return what each holds then."""
        for _ in range(2):
            for table in self.tables:
                record = table.records.get(SID)
                for holder in range(HOLDERS):
                    if record is not None:
                        self._merge(holder, not_covered(record, {}))
        return [table.records[SID] for table in self.tables]

    def _merge(self, holder: int, delta: Delta) -> None:
        self.clocks[holder].hear(max(delta.after.values(), default=0), self.now_s)
        self.tables[holder].merge(delta, EPOCH_MS, self.now_s)

    def _write(self, holder: int, changes: list) -> None:
        table = self.tables[holder]
        stamp = self.clocks[holder].tick(self.now_s, table.get(SID).newest)
        record = table.write(SID, changes, stamp, origin(holder), self.now_s)
        self.deltas.append(not_covered(record, {}))


_holder = st.sampled_from([0, 0, 0, 1, 1, 2])
table_steps = st.one_of(
    st.tuples(st.just("load"), _holder),
    st.tuples(st.just("add"), _holder),
    st.tuples(st.just("add"), _holder),
    st.tuples(st.just("clear"), _holder, st.booleans()),
    st.tuples(st.just("send"), _holder, _holder),
    st.tuples(st.just("send"), _holder, _holder),
    st.tuples(st.just("come_late"), _holder, st.integers(0, 10)),
    st.tuples(st.just("drop"), _holder, _holder),
    st.tuples(st.just("get_older"), _holder, _holder, st.integers(0, 10)),
)


@settings(max_examples=300)
@given(st.lists(table_steps, min_size=30, max_size=60))
def test_a_counter_has_all_that_was_added_and_not_seen_to_be_cleared(steps):
    """Under loss, doubling, reordering, skewed clocks, dropped copies and requests that commit late."""
    history = Tables(steps)
    expected = ((1 << history.added) - 1) & ~history.cleared
    for record in history.settle():
        assert count(record.entries, NOTHING, "n") == expected


@given(st.lists(table_steps, max_size=25), _holder)
def test_a_rotation_keeps_the_value_in_one_entry(steps, holder):
    """Also where other nodes' entries, and what was taken off them, are part of it."""
    history = Tables(steps)
    record = history.tables[holder].get(SID)
    before = count(record.entries, NOTHING, "n")
    session = session_over(record)
    session.counter_of("n").add(5)
    kept = rotated(record.entries, session.changes())
    counters = [(key, change) for key, change in kept.items() if key.startswith(COUNTER)]
    assert counters == ([(COUNTER + "n", Added(before + 5))] if before != -5 else [])


# Whole nodes

NODES = 4
cluster_steps = st.one_of(
    st.tuples(st.just("add"), st.integers(0, NODES - 1)),
    st.tuples(st.just("add"), st.integers(0, NODES - 1)),
    st.tuples(st.just("clear"), st.integers(0, NODES - 1)),
    st.tuples(st.just("member"), st.integers(0, NODES - 1), st.sampled_from(MEMBERS), st.booleans()),
    st.tuples(st.just("cut_off"), st.integers(0, NODES - 1)),
    st.tuples(st.just("pass_by"), st.sampled_from([0.1, 1.5])),
)


class Sites:
    """Four whole nodes, two of which hold the session; those that are cut off serve on."""

    def __init__(self, steps: list[Step]) -> None:
        self.cluster = Cluster(*[b"node-%3d" % number for number in range(NODES)], rules=Rules(all_to_all_below=2))
        self.apart: set[bytes] = set()
        self.cluster.is_lost = self._is_lost
        self.added = self.cleared = 0
        self.toggles: dict[str, int] = dict.fromkeys(MEMBERS, 0)
        session = self.cluster[self.cluster.ids[0]].store.create()
        session["user"] = "kim"
        self.id = session.id
        self.cluster[self.cluster.ids[0]].store.commit(session, 0)
        self.cluster.passes(1.0, 0.25)
        for name, *arguments in steps:
            getattr(self, name)(*arguments)

    def add(self, number: int) -> None:
        session = self.load(number)
        if session is not None:
            session.counter_of("n").add(1 << self.added)
            session.set_of("all").add(self.added)
            self.added += 1
            self._commit(number, session)

    def clear(self, number: int) -> None:
        session = self.load(number)
        if session is not None:
            self.cleared |= session.counter_of("n").value
            session.counter_of("n").clear()
            self._commit(number, session)

    def member(self, number: int, member: str, adds: bool) -> None:
        session = self.load(number)
        if session is not None:
            members = session.set_of("some")
            (members.add if adds else members.discard)(member)
            self._commit(number, session)

    def cut_off(self, number: int) -> None:
        self.apart ^= {self.cluster.ids[number]}

    def pass_by(self, seconds: float) -> None:
        self.cluster.passes(seconds, 0.25)

    def load(self, number: int) -> Session | None:
        found = self.cluster[self.cluster.ids[number]].store.load(self.id)
        if isinstance(found, Future):
            self.cluster.passes(0.5, 0.25)
            try:
                found = found.result(0)
            except SessionUnavailable:
                return None
        return found

    def settled(self) -> list[Session]:
        self.apart.clear()
        self.cluster.passes(8.0, 0.25)
        return [session for session in map(self.load, range(NODES)) if session is not None]

    def _commit(self, number: int, session: Session) -> None:
        self.cluster[self.cluster.ids[number]].store.commit(session, 0)
        self.cluster.passes(0.25, 0.25)

    def _is_lost(self, said: Said) -> bool:
        return (said.sender in self.apart) != (said.hearer in self.apart) or (
            said.sender in self.apart and said.sender != said.hearer
        )


@settings(max_examples=40, deadline=None)
@given(st.lists(cluster_steps, max_size=20))
def test_what_was_added_on_nodes_apart_is_all_there_once_they_meet(steps):
    """What counters and sets are for, over the whole protocol: holders, others that fetch and drop, and healing."""
    sites = Sites(steps)
    seen = sites.settled()
    assert len(seen) == NODES
    for session in seen:
        assert session.counter_of("n").value == ((1 << sites.added) - 1) & ~sites.cleared
        assert session.set_of("all") == set(range(sites.added))
        assert session.set_of("some") == seen[0].set_of("some")
