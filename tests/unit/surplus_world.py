"""A few nodes, one session, and layouts that each node changes by itself: does a drop ever lose the session?

Everything that can go wrong between nodes does: layouts differ and change at any moment, answers take up to a minute
and a half, overtake each other or are lost, nodes stand still, and the session is written anywhere.
"""

import random
from types import ModuleType

from gossipsess.model.delta import not_covered
from gossipsess.model.record import Record, empty_record
from gossipsess.model.table import Table
from gossipsess.protocol.placement import partition_of
from gossipsess.wire.messages import Have
from tests.unit.machines import EPOCH_MS, SID, member, registers, stamp

PARTITION = partition_of(SID)
NODES = [b"node---%d" % number for number in range(4)]


class Layout:
    """A layout made by hand: who holds the one partition that matters."""

    def __init__(self, *nodes: bytes) -> None:
        self.nodes = nodes

    def holders(self, partition: int):
        return tuple(member(node) for node in self.nodes)

    def holds(self, node: bytes, partition: int) -> bool:
        return partition != PARTITION or node in self.nodes


class LostCopy(AssertionError):
    """A drop left fewer copies of what was dropped than the layout asks for."""


def contains(holds: Record, state: Record) -> bool:
    """Say whether a record has each entry of another, or what replaced it. By entries, never by claims."""
    entries = holds.entries
    return all(
        key in entries and (entries[key].stamp, entries[key].origin) >= (entry.stamp, entry.origin)
        for key, entry in state.entries.items()
    )


class World:
    """Plays one schedule, drawn from a seed, with the rules of these two modules."""

    def __init__(self, seed: int, surplus: ModuleType, offers: ModuleType) -> None:
        self.rng = rng = random.Random(seed)
        self.offers = offers
        self.now_s = 0.0
        self.nodes = NODES[: rng.choice((2, 3, 3, 4))]
        self.copies = rng.randint(1, len(self.nodes) - 1)
        self.tables = {node: Table() for node in self.nodes}
        self.layouts = {node: self._layout() for node in self.nodes}
        self.parts = {node: surplus.Surplus(node, 0.0) for node in self.nodes}
        self.asleep_until_s = dict.fromkeys(self.nodes, 0.0)
        self.messages: list[tuple[float, bytes, bytes, object]] = []
        self.slow = rng.choice((0.0, 0.05, 0.3))
        self.writes = 0
        self.drops = 0
        for part in self.parts.values():
            for node in self.nodes:
                part.link_up(node)
        self._write(self.nodes[0])
        for node in self.nodes[1:]:
            self._merge(node, self.tables[self.nodes[0]].get(SID))

    def run(self, steps: int) -> None:
        for _ in range(steps):
            # A change of a layout is seldom alone, and often taken back: that is what makes views differ.
            if self.rng.random() < 0.12:
                self._change(self.rng.choice(self.nodes))
            if self.rng.random() < 0.05:
                self._write(self.rng.choice(self.nodes))
            if self.rng.random() < 0.03:
                self.asleep_until_s[self.rng.choice(self.nodes)] = self.now_s + self.rng.choice((5, 15, 90))
            self.now_s += self.rng.choice((0.01, 0.2, 1.1, 4.0, 11.0, 61.0))
            for node in self.nodes:
                if self.asleep_until_s[node] <= self.now_s:
                    self._do(node, self.parts[node].timeout(self.now_s, self.layouts[node], self.tables[node]))
            for _ in range(self.rng.choice((0, 2, 20))):
                self._deliver()

    def _layout(self) -> Layout:
        return Layout(*self.rng.sample(self.nodes, self.copies))

    def _change(self, node: bytes) -> None:
        before, self.layouts[node] = self.layouts[node], self._layout()
        self.parts[node].layout_changed(before, self.layouts[node], self.tables[node], self.now_s)

    def _write(self, node: bytes) -> None:
        self.writes += 1
        changes = {f"key {self.writes % 3}": b"%d" % self.writes} | (registers() if self.writes == 1 else {})
        self.tables[node].write(SID, changes.items(), stamp(0, self.writes), node, self.now_s)
        self._send(node, self.rng.choice(self.nodes), self.tables[node].get(SID))

    def _merge(self, node: bytes, record: Record) -> None:
        self.tables[node].merge(not_covered(record, {}), EPOCH_MS, self.now_s)

    def _send(self, sender: bytes, receiver: bytes, message: object) -> None:
        if self.rng.random() > 0.05:
            delay_s = self.rng.choice((8.0, 40.0, 90.0)) if self.rng.random() < self.slow else 0.0
            self.messages.append((self.now_s + delay_s, sender, receiver, message))

    def _deliver(self) -> None:
        due = [one for one in self.messages if one[0] <= self.now_s and self.asleep_until_s[one[2]] <= self.now_s]
        if not due:
            return
        chosen = self.rng.choice(due)
        self.messages.remove(chosen)
        _, sender, receiver, message = chosen
        table, layout = self.tables[receiver], self.layouts[receiver]
        if isinstance(message, Record):
            self._merge(receiver, message)
        elif isinstance(message, Have):
            holder = layout.holds(receiver, message.partition)
            held, owed = self.offers.answer(message, table, holder=holder)
            self._send(receiver, sender, held)
            for sid, _ in owed:
                self._send(receiver, sender, table.get(sid))
        else:
            was = table.get(SID)
            step = self.parts[receiver].held(sender, message, layout, table, self.now_s)
            if step.dropped:
                self._look_after_drop(receiver, was)
            self._do(receiver, step)

    def _do(self, node: bytes, step) -> None:
        for peer, have in step.asks:
            self._send(node, peer, have)
        for peer, sid, _ in step.owed:
            self._send(node, peer, self.tables[node].records.get(sid) or empty_record(sid))

    def _look_after_drop(self, dropper: bytes, was: Record) -> None:
        self.drops += 1
        left = [node for node in self.nodes if contains(self.tables[node].get(SID), was)]
        if len(left) < self.copies:
            raise LostCopy(f"{dropper!r} dropped {was!r} at {self.now_s}, and {left} hold it; {self.copies} should")
