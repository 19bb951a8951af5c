# Places: which nodes hold a session, as one process sees it.
#
# In:    a process, a session id.    Out: node ids.
# The only place in the simulator that asks the machine where sessions are placed; checkers ask here.
# Of the layout nothing is computed anew: whether it is a good one is shown in tests/unit. That all come to have the
# same, and that what it says is so, is checked here.

from collections.abc import Iterable

from gossipsess.model.identity import NodeId, Sid
from gossipsess.protocol.placement import partition_of
from gossipsess.sim.process import Process


def holders(process: Process, sid: Sid) -> tuple[NodeId, ...]:
    """Return the nodes that hold a session by a process's layout; some may have died, and it does not know yet."""
    return tuple([member.node for member in process.replica.placement.layout.holders(partition_of(sid))])


def is_holder(process: Process, sid: Sid) -> bool:
    """Say whether a process takes itself for a holder of a session."""
    return process.node in holders(process, sid)


def running_holders(process: Process, sid: Sid, running: Iterable[Process]) -> list[Process]:
    """Return those of the running processes that hold a session by a process's layout."""
    nodes = holders(process, sid)
    return [one for one in running if one.node in nodes]
