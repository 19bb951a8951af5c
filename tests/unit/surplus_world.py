"""A few nodes, one session, and layouts that each node changes by itself: does a drop ever lose the session?

Everything that can go wrong between nodes does: layouts differ and change at any moment, messages
overtake each other, wait for minutes or are lost, nodes are late, and the session is written anywhere.
"""

import random
from types import ModuleType

from gossipsess.model.delta import not_covered
from gossipsess.model.digest import EVERYTHING
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

    def partitions_of(self, node: bytes) -> int:
        return EVERYTHING if node in self.nodes else EVERYTHING & ~(1 << PARTITION)


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
    """Nodes that hold one session, with the rules of these two modules."""

    def __init__(
        self, surplus: ModuleType, offers: ModuleType, layouts: list[Layout], count: int, seed: int = 0
    ) -> None:
        self.rng = random.Random(seed)
        self.offers = offers
        self.now_s = 0.0
        self.nodes = NODES[:count]
        self.copies = len(layouts[0].nodes)
        self.pool = layouts
        self.tables = {node: Table() for node in self.nodes}
        self.layouts = dict.fromkeys(self.nodes, layouts[0])
        self.parts = {node: surplus.Surplus(node, 0.0) for node in self.nodes}
        self.messages: list[tuple[bytes, bytes, object]] = []
        self.clogged_until_s: dict[tuple[bytes, bytes], float] = {}
        self.loss = 0.0
        self.writes = 0
        self.drops = 0
        for part in self.parts.values():
            for node in self.nodes:
                part.link_up(node)
        self.write(self.nodes[0])
        for node in self.nodes[1:]:
            self._merge(node, self.tables[self.nodes[0]].get(SID))
        self.now_s = 100.0

    def change(self, node: bytes, layout: Layout) -> None:
        """Let a node see the cluster otherwise."""
        before, self.layouts[node] = self.layouts[node], layout
        self.parts[node].layout_changed(before, layout, self.tables[node], self.now_s)

    def timeout(self, node: bytes) -> None:
        """Let a node do what is due."""
        self._do(node, self.parts[node].timeout(self.now_s, self.layouts[node], self.tables[node]))

    def deliver_all(self) -> None:
        """Let everything arrive whose way is free."""
        while self.deliver():
            pass

    def write(self, node: bytes) -> None:
        """Let a request change the session on a node, which pushes it to any other."""
        self.writes += 1
        changes = {f"key {self.writes % 3}": b"%d" % self.writes} | (registers() if self.writes == 1 else {})
        self.tables[node].write(SID, changes.items(), stamp(0, self.writes), node, self.now_s)
        self._send(node, self.rng.choice(self.nodes), self.tables[node].get(SID))

    def _merge(self, node: bytes, record: Record) -> None:
        self.tables[node].merge(not_covered(record, {}), EPOCH_MS, self.now_s)

    def _send(self, sender: bytes, receiver: bytes, message: object) -> None:
        if self.rng.random() >= self.loss:
            self.messages.append((sender, receiver, message))

    def deliver(self) -> bool:
        """Let any message arrive whose way is free; say whether there was one."""
        free = [one for one in self.messages if self.clogged_until_s.get(one[:2], 0.0) <= self.now_s]
        if not free:
            return False
        chosen = self.rng.choice(free)
        self.messages.remove(chosen)
        sender, receiver, message = chosen
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
        return True

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


def play(seed: int, surplus: ModuleType, offers: ModuleType) -> int:
    """Play one random schedule; return how many copies were dropped.

    Raises:
        LostCopy: one too many.
    """
    rng = random.Random(seed)
    count = rng.choice((2, 3, 3, 4))
    copies = rng.randint(1, count - 1)
    layouts = [Layout(*rng.sample(NODES[:count], copies)) for _ in range(3)]  # few, so that views come back
    world = World(surplus, offers, layouts, count, seed)
    world.loss = 0.02
    world.layouts = {node: rng.choice(layouts) for node in world.nodes}
    flips = rng.choice((0.005, 0.02, 0.1))
    pauses_s = rng.choice(((0.02, 0.3, 1.1, 61.0), (0.3, 4.0, 11.0, 61.0)))
    chance = rng.random
    for _ in range(300):
        if chance() < flips:
            world.change(rng.choice(world.nodes), rng.choice(layouts))
        if chance() < 0.03:
            world.write(rng.choice(world.nodes))
        if chance() < 0.03:
            clogged = rng.choice(world.nodes), rng.choice(world.nodes)
            world.clogged_until_s[clogged] = world.now_s + rng.choice((5.0, 15.0, 150.0))
        if chance() < 0.4 or not world.deliver():
            world.now_s += rng.choice(pauses_s)
            world.timeout(rng.choice(world.nodes))  # one alone: the others are late
    return world.drops
