# Counters: what a counter of a session must show at each process, after each event that changed its record.
#
#   sum   what was added by requests whose writes are in this record, each once, but for what was cleared by a request
#         that is in it too and had seen it
#
# So nothing counts twice, two who clear at once take nothing off twice, and what a request has not seen it does not
# clear, whatever came in which order. With what was confirmed being there (waits.py) that is all that is promised.
# Whether a write is in a record is judged as elsewhere, by its entry; of totals and notes in entries nothing is
# believed. Of sets there is nothing to check here: a member is an entry as any.
#
# In:    what requests did to counters, and the records as they change.    Out: `Violation`.

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from gossipsess.model.clock import Stamp
from gossipsess.model.identity import Sid
from gossipsess.model.record import Entry, Record
from gossipsess.model.subkeys import COUNTER, Added, count, counters_in
from gossipsess.protocol.events import Changes
from gossipsess.sim.cluster import Cluster
from gossipsess.sim.history import must
from gossipsess.sim.process import Process

_Which = tuple[str, Stamp]
"""The entry that a request wrote, and when: by these an addition is known."""


class _Addition(NamedTuple):
    which: _Which
    amount: int
    cleared: dict[_Which, None]
    """What it took off: all that its request saw."""


class Counters:
    """Everything that requests of one cluster did to counters."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._additions: dict[tuple[Sid, str], list[_Addition]] = {}

    def wrote(
        self, process: Process, record: Record, changes: Changes, seen: Mapping[str, Entry]
    ) -> dict[str, bytes | None]:
        """Note a write, and return the entries that it made of counters. `seen`: what its request had read.

        Raises:
            Violation: it made none.
        """
        written: dict[str, bytes | None] = {}
        for key, change in changes:
            if isinstance(change, Added):
                name = key[len(COUNTER) :]
                cleared = {one.which: None for one in self._held(record.sid, name, seen)} if change.taken else {}
                slot = self._added(process, record, name, change.amount, cleared)
                written[slot] = record.entries[slot].value
                self._cluster.counts["counters cleared" if change.taken else "counted"] += 1
        return written

    def moved(self, process: Process, old: Record, record: Record) -> dict[str, bytes | None]:
        """Note a rotation, and return the entries that it made of counters: in each the whole value.

        Raises:
            Violation: it made none.
        """
        written: dict[str, bytes | None] = {}
        for name in self._names(old.sid):
            value = self._value(old, name)
            if value:
                slot = self._added(process, record, name, value, {})
                written[slot] = record.entries[slot].value
                self._cluster.counts["counters moved"] += 1
        return written

    def check(self, process: Process, record: Record) -> None:
        """Check what a record shows of its counters.

        Raises:
            Violation: it is not what was added to them.
        """
        for name in dict.fromkeys([*self._names(record.sid), *counters_in(record.entries)]):
            shown, value = count(record.entries, Added(0), name), self._value(record, name)
            must(shown == value, "{}: a counter of {} shows {}, and {} was added", process, record.sid, shown, value)

    def _added(self, process: Process, record: Record, name: str, amount: int, cleared: dict[_Which, None]) -> str:
        # The newest of its own is what it has just written.
        own = [
            (entry.stamp, key)
            for key, entry in record.entries.items()
            if entry.origin == process.node and key.startswith(COUNTER) and key.endswith(name)
        ]
        must(bool(own), "{} adds to a counter of {}, and writes nothing", process, record.sid)
        stamp, slot = max(own)
        self._additions.setdefault((record.sid, name), []).append(_Addition((slot, stamp), amount, cleared))
        return slot

    def _names(self, sid: Sid) -> list[str]:
        return [name for its, name in self._additions if its == sid]

    def _value(self, record: Record, name: str) -> int:
        held = list(self._held(record.sid, name, record.entries))
        cleared = {which: None for one in held for which in one.cleared}
        return sum(one.amount for one in held if one.which not in cleared)

    def _held(self, sid: Sid, name: str, entries: Mapping[str, Entry]) -> Iterator[_Addition]:
        for one in self._additions.get((sid, name), ()):
            slot, stamp = one.which
            if slot in entries and entries[slot].stamp >= stamp:
                yield one
