# Places: which nodes hold a session, as one process sees it.
#
# In:    a process, a session id.    Out: node ids.
# The only place in the simulator that asks the machine where sessions are placed; checkers ask here.
# Of the layout nothing is computed anew: whether it is a good one is shown in tests/unit. That all come to have the
# same, and that what it says is so, is checked here.

from collections.abc import Iterable
from math import inf

from gossipsess.model.identity import NodeId, Sid
from gossipsess.protocol.placement import Layout, partition_of
from gossipsess.sim.process import Process


def holders(process: Process, sid: Sid) -> tuple[NodeId, ...]:
    """Return the nodes that hold a session by a process's layout; some may have died, and it does not know yet."""
    return tuple([member.node for member in process.replica.placement.layout.holders(partition_of(sid))])


def is_holder(process: Process, sid: Sid) -> bool:
    """Say whether a process takes itself for a holder of a session."""
    return process.node in holders(process, sid)


def fills_up(process: Process, sid: Sid) -> bool:
    """Say whether a process has not seen yet all that others hold of a session's partition, as it says itself."""
    return not process.replica.sessions.anti_entropy.is_synced(partition_of(sid))


def running_holders(process: Process, sid: Sid, running: Iterable[Process]) -> list[Process]:
    """Return those of the running processes that hold a session by a process's layout."""
    nodes = holders(process, sid)
    return [one for one in running if one.node in nodes]


class Gained:
    """When processes came to hold what they hold, each by its own layout."""

    def __init__(self) -> None:
        self._layouts: dict[NodeId, Layout] = {}
        self._since: dict[NodeId, list[tuple[int, float]]] = {}  # partitions as a mask, and when; the newest last

    def look_at(self, process: Process, now_s: float) -> None:
        """Note what a process's last event has given it."""
        layout, before = process.replica.placement.layout, self._layouts.get(process.node)
        if layout is before:
            return
        self._layouts[process.node] = layout
        held = before.partitions_of(process.node) if before is not None else 0
        gained = layout.partitions_of(process.node) & ~held
        if gained:
            self._since.setdefault(process.node, []).append((gained, now_s))

    def since_s(self, process: Process, sid: Sid) -> float:
        """Return since when a process is a holder of a session; infinity where it is none."""
        if not is_holder(process, sid):
            return inf
        partition = partition_of(sid)
        gains = reversed(self._since.get(process.node, []))
        return next((at_s for gained, at_s in gains if gained >> partition & 1), inf)
