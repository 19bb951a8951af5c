# Process: one run of one node, with clocks that are wrong in their own way; and the links between two of them.
#
# Each process is the real `Replica`; only sockets, clocks and threads are replaced. Its monotonic clock may drift or
# stand still, and its wall clock is off; a restart has a new node id and no memory. All of it is drawn from the seed by
# the process's label.
# Not here: what happens to it and when (world.py, wires.py, cluster.py).

import random
from collections.abc import Callable
from hashlib import blake2b
from itertools import count
from math import inf
from typing import Final

from gossipsess.model.identity import NODE_ID_BYTES, NodeId, Sid
from gossipsess.model.member import Address, Member, MemberState, Name
from gossipsess.model.record import Record
from gossipsess.protocol.replica import Replica, Settings
from gossipsess.protocol.swim import SwimTimings
from gossipsess.sim.network import luck
from gossipsess.sim.scenario import Scenario

EPOCH_MS: Final = 1_700_000_000_000
DAY_MS: Final = 86_400_000

NAME: Final = Name("dns", "nodes", 7950, 2)
"""What is looked up where a scenario says so; a port more than anybody uses, so that further ones are tried."""

Way = tuple[int, int]
"""From one slot to another."""


class Process:
    """One run of one node, from its start to its crash; kept after it, as a witness."""

    def __init__(
        self,
        scenario: Scenario,
        slot: int,
        generation: int,
        address: Address,
        seeds: tuple[Address, ...],
        *,
        day_ahead: bool,
        now_s: float,
    ) -> None:
        """Start it at a moment of the world. `day_ahead`: its machine has the date wrong."""
        self.slot = slot
        self.label = f"n{slot}.{generation}"
        self.address = address
        self.alive = True
        self.ended_at_s = inf
        self.leaving = False
        self.paused = False
        self.woke_at_s = 0.0
        """When its last pause ended."""
        self.paused_at_s = 0.0
        self.paused_for_s = 0.0
        """How long its last pause was."""
        self.forgets_to_tell = False
        """It will not tell anybody of its next write."""
        self.lag_s = 0.0
        """How much later than it should it does everything."""
        self.stopped_s = 0.0
        """For how long its monotonic clock has stood still, in all."""
        self.stopped_at_s: float | None = None
        self.stepped_ms = 0
        """By how much somebody has set its wall clock since it started."""
        self.read_s = 0.0
        """How long it takes over each message that comes over a link; 0: no time."""
        self.unread: list[Callable[[], object]] = []
        """What has come over its links, and it has not read yet."""
        self.links: dict[int, Link] = {}
        self.dialing: dict[Address, None] = {}
        self.tick_at_s: float | None = None
        self.seen: dict[Sid, Record] = {}
        """The records as the observer last saw them."""
        self.waiting: list[Callable[[], object]] = []
        """What has reached it while it was paused."""
        self.free_at_s = 0.0
        """When it is done with what has reached it."""
        base, skew, drift, *_ = luck(scenario.seed, "clocks", self.label)
        self.base_s = base * 100_000
        self.rate = 1 + (2 * drift - 1) * scenario.drift
        self.host = scenario.hosts[slot]
        wrong_ms = round((2 * skew - 1) * scenario.skew_ms) + (DAY_MS if day_ahead else 0)
        started_s = self.clock(now_s)
        self.offset_ms = EPOCH_MS + round(now_s * 1000) + wrong_ms - round(started_s * 1000)
        member = Member(
            node_id(scenario.seed, slot, generation),
            0,
            MemberState.ALIVE,
            address,
            f"{address[0]}:{address[1]}",
            self.host,
            scenario.zones[slot] if scenario.zones else "",
        )
        self.replica = Replica(
            member,
            Settings(
                swim=SwimTimings(scenario.probe_interval_s, scenario.probe_interval_s / 5),
                seeds=seeds,
                beacons=scenario.beacons,
                names=(NAME,) if scenario.named else (),
                alone_s=scenario.alone_s,
                all_to_all_below=scenario.all_to_all_below,
                secondaries=scenario.secondaries,
                count_by=scenario.count_by,
            ),
            clock_offset_ms=self.offset_ms,
            rng=random.Random(f"{scenario.seed} {self.label}"),  # noqa: S311  # must repeat with the seed
            now_s=started_s,
        )
        self.records = self.replica.sessions.table.records
        self._link_numbers = count(1)

    def clock(self, world_s: float) -> float:
        """Return what its monotonic clock shows at a moment of the world."""
        running_s = (world_s if self.stopped_at_s is None else self.stopped_at_s) - self.stopped_s
        return self.base_s + running_s * self.rate

    def wall_ms(self, world_s: float) -> int:
        """Return what its wall clock shows at a moment of the world."""
        return round((self.clock(world_s) + self.stopped_s) * 1000) + self.offset_ms + self.stepped_ms

    def world(self, clock_s: float) -> float:
        """Return when its monotonic clock shows that."""
        return (clock_s - self.base_s) / self.rate + self.stopped_s

    @property
    def serves(self) -> bool:
        """A balancer would send it requests."""
        return self.alive and not self.leaving and not self.paused

    @property
    def node(self) -> NodeId:
        """Its node id."""
        return self.replica.node

    def add_link(self, link: "Link") -> int:
        """Give a link this end's own number."""
        number = next(self._link_numbers)
        self.links[number] = link
        return number


class Link:
    """One TCP connection between two processes."""

    def __init__(self, dialer: Process, acceptor: Process, opened_at_s: float) -> None:
        self.ends = (dialer, acceptor)
        self.numbers = (dialer.add_link(self), acceptor.add_link(self))
        self.opened_at_s = opened_at_s
        self.broken = False
        self.free_at_s = [0.0, 0.0]
        """For each end, when the last message for it arrives: in order means not before that."""
        self.held_up: tuple[list[Callable[[], object]], ...] = ([], [])
        """For each end, what is on its way to it and does not get through at the moment, in order."""

    def toward(self, sender: Process) -> int:
        """Return the index of the other end."""
        return 1 if self.ends[0] is sender else 0

    def way(self, index: int) -> Way:
        """Return the way of what goes to one end."""
        return (self.ends[1 - index].slot, self.ends[index].slot)


def node_id(seed: int, slot: int, generation: int) -> NodeId:
    """Return the id of one run of a slot: new at each start."""
    return blake2b(f"{seed} {slot} {generation}".encode("ascii"), digest_size=NODE_ID_BYTES).digest()
