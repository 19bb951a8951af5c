"""Concurrent overwrites: each race over a key is counted by somebody, and what is no race by nobody."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from gossipsess.model.delta import apply
from tests.property.histories import HOLDERS, KEYS, History, origin, same_state


class Races(History):
    """A history that keeps, beside what claims say, who has truly seen which write."""

    def __init__(self, steps):
        self.seen: list[set[int]] = [set() for _ in range(HOLDERS)]
        """The numbers of the writes that each holder has made or taken in."""
        self.sees: list[set[int]] = []
        """The numbers of the writes that each delta brings along."""
        self.read: list[set[int]] = []
        """The numbers of the writes that each write's writer had seen."""
        self.counted = 0
        super().__init__(steps)

    def write(self, holder, keys, deletes):
        self.read.append(set(self.seen[holder]))
        self.seen[holder].add(len(self.writes))
        super().write(holder, keys, deletes)

    def cut(self, holder, back):
        super().cut(holder, back)
        self.sees.append(set(self.seen[holder]))

    def cut_by_hash(self, holder, back):
        super().cut_by_hash(holder, back)
        self.sees.append(set(self.seen[holder]))

    def answer(self, holder, asker):
        super().answer(holder, asker)
        self.sees.append(set(self.seen[holder]))

    def deliver(self, holder, which):
        if self.deltas:
            which %= len(self.deltas)
            applied = apply(self.held[holder], self.deltas[which])
            assert applied.overwrites == (0 if applied.gap else self.unread(holder, which))
            self.counted += applied.overwrites
            super().deliver(holder, which)
            if not applied.gap:
                self.seen[holder] |= self.sees[which]

    def unread(self, holder, which):
        """Count the keys of a delta over which two writes meet that nobody has seen both of."""
        numbers = {(made_by, stamp): number for number, (made_by, stamp, _) in enumerate(self.writes)}
        held = self.held[holder].entries
        return sum(
            key in held
            and held[key].origin != made_by
            and numbers[held[key].origin, held[key].stamp] not in self.sees[which]
            and numbers[made_by, stamp] not in self.seen[holder]
            for key, stamp, made_by, _ in self.deltas[which].entries
        )

    def tell(self, holder, asker):
        """Bring one holder to what another has."""
        self.answer(holder, asker)
        self.deliver(asker, len(self.deltas) - 1)

    def exchange(self):
        """Bring all holders to one state."""
        for one, other in [*itertools.permutations(range(HOLDERS), 2)] * 2:
            self.tell(one, other)

    @property
    def races(self):
        """The pairs of writes of one key whose writers had not seen each other's."""
        numbers = range(len(self.writes))
        return [
            (a, b) for a, b in itertools.combinations(numbers, 2)
            if a not in self.read[b] and b not in self.read[a] and set(self.writes[a][2]) & set(self.writes[b][2])
        ]  # fmt: skip


holders = st.integers(0, HOLDERS - 1)
some_keys = st.lists(st.sampled_from(KEYS[:2]), min_size=1, max_size=2, unique=True).map(tuple)
steps = st.one_of(
    st.tuples(st.just("write"), holders, some_keys, st.booleans()),
    st.tuples(st.just("cut"), holders, st.integers(0, 3)),
    st.tuples(st.just("cut_by_hash"), holders, st.integers(0, 3)),
    st.tuples(st.just("answer"), holders, holders),
    st.tuples(st.just("tell"), holders, holders),
    st.tuples(st.just("tell"), holders, holders),
    st.tuples(st.just("deliver"), holders, st.integers(0, 30)),
)


@settings(max_examples=400)
@given(st.lists(steps, max_size=30))
def test_a_race_over_a_key_is_counted_and_nothing_else_is(drawn):
    """An operator who reads 0 must be able to trust it; one who reads more must find a race."""
    history = Races(drawn)
    history.exchange()
    assert all(same_state(record, history.held[0]) for record in history.held)
    assert (history.counted > 0) == bool(history.races)


def test_a_race_is_counted_at_most_once_by_each_of_its_two_writers():
    """Deliveries doubled and repeated do not make it more."""
    history = Races([("write", 0, ("a",), False), ("write", 1, ("a",), False), ("cut", 0, 9), ("cut", 1, 9)])
    assert history.races == [(0, 1)]
    for _ in range(3):
        history.deliver(0, 1)
        history.deliver(1, 0)
    assert history.counted == 2
    assert history.held[0].entries["a"].origin == origin(1) == history.held[1].entries["a"].origin
