# Times: what a process's clock may show by rights, and since when two processes have had a link.
#
# In:    stamps that processes have taken in, and the world's clock.    Out: milliseconds and seconds to judge by.
# Computed from the world and from what a process has heard, never read from the process's own clock.

from collections.abc import Iterable
from math import inf

from gossipsess.model.clock import AHEAD_MS_MAX, Stamp, time_ms_of
from gossipsess.model.delta import Delta
from gossipsess.model.identity import NodeId
from gossipsess.sim.process import Process
from gossipsess.sim.world import World


class Times:
    """The clocks of one world's processes, as they must be."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._heard_of: dict[NodeId, Stamp] = {}  # the newest stamp that a process has taken in

    def own_ms(self, process: Process) -> int:
        """Return a process's own time, without what it has heard from others."""
        # One whose clock stood still may go on from there, or have caught up with its wall clock.
        running_s = process.clock(self._world.now_s) + process.stopped_s
        return int(running_s * 1000) + process.offset_ms

    def cluster_ms(self, process: Process) -> int:
        """Return the cluster's time as a process knows it."""
        return max(self.own_ms(process), time_ms_of(self._heard_of.get(process.node, 0)))

    def heard(self, process: Process, stamp: Stamp) -> None:
        """Note that a process has taken in a stamp; one too far ahead of it moves nothing."""
        if time_ms_of(stamp) <= self.own_ms(process) + AHEAD_MS_MAX:
            self._heard_of[process.node] = max(self._heard_of.get(process.node, 0), stamp)


def newest_in(deltas: Iterable[Delta]) -> Stamp:
    """Return the newest stamp that a push tells its receiver, also where that lacks what it needs to take it in."""
    newest: Stamp = 0
    for delta in deltas:
        newest = max(newest, delta.tombstone, *delta.after.values(), *(entry[1] for entry in delta.entries))
    return newest


def linked_since_s(process: Process, other: Process) -> float:
    """Return since when the link that a process uses to another is open; infinity while there is none."""
    number = process.replica.linked.get(other.node)
    link = process.links.get(number) if number is not None else None
    return link.opened_at_s if link is not None and not link.broken else inf
