# Calm: when nothing is wrong, so that each read must get a sure answer: the session, or that there is none.
#
#   calm   for as long as a read may take, and a message before it: no process has ended or stood still, no way was
#          shut, no link broke and no message was lost; all have links to all, see the same members, and have all that
#          they are to hold
#   sure   a read that begins and ends in calm; that asks so few, over so good a network, that all can answer in time;
#          and that asks for no write of which nobody who is left may know
#
# So wide, and no wider: each part has its answer "unknown" in docs/PROTOCOL.md ("Reading"). Who cannot be asked may
# hold the session, and so may whoever was not met, or has not shown all to who fills up; an answer does not go where
# the way is full; and a write may have died with its writer, or with a member that died after it. Sessions may come to
# their ends meanwhile, clocks differ as they like, and nodes be about to leave.
#
# In:    the world, what processes see of each other, and whom they took for dead.
# Not here: what else must hold of what requests are told (waits.py).

from math import inf
from typing import Final

from gossipsess.model.clock import Stamp, time_ms_of
from gossipsess.model.identity import NodeId, Sid
from gossipsess.model.member import MemberState
from gossipsess.protocol import replication
from gossipsess.protocol.effects import MemberChanged
from gossipsess.protocol.events import Dot, Event, Received
from gossipsess.protocol.fetch import FETCH_TIMEOUT_S, HEDGE_S
from gossipsess.sim import places
from gossipsess.sim.cluster import Cluster
from gossipsess.sim.network import Faults, latest_s
from gossipsess.sim.process import Process
from gossipsess.sim.times import Times, linked_since_s
from gossipsess.wire.messages import Pull

ROUNDING_MS: Final = 2


class Calm:
    """When one cluster is calm, and what its processes know of deaths."""

    def __init__(self, cluster: Cluster, times: Times) -> None:
        self._cluster = cluster
        self._times = times
        self._for_s = FETCH_TIMEOUT_S + max(map(latest_s, (cluster.scenario.faults, Faults())))
        self._full_at_s = -inf  # when somebody was asked, and the way back was full
        self._died_ms: dict[NodeId, int] = {}  # when a process last took another one for dead, by its own time

    def handled(self, process: Process, event: Event) -> None:
        """Note whom a process has taken for dead by its last event, and where the way for an answer was full."""
        for effect in process.replica.outbox:
            if isinstance(effect, MemberChanged) and effect.member.state is MemberState.DEAD:
                self._died_ms[process.node] = self._times.cluster_ms(process)
        match event:
            case Received(link, Pull(request)) if request:
                for peer in process.replica.sessions.peers:
                    way = peer.outbound
                    full = way.collapsed or way.in_flight_bytes >= replication.IN_FLIGHT_BYTES_MAX
                    if peer.link == link and full:
                        self._full_at_s = self._cluster.now_s
            case _:
                pass

    def is_now(self) -> bool:
        """Say whether it is calm, and has been for long enough."""
        cluster, faults = self._cluster, self._cluster.network.faults
        since_s = cluster.now_s - self._for_s
        if max(cluster.clear_since_s, self._full_at_s) > since_s or faults.lossy_links:
            return False
        if any(since_s < process.ended_at_s < inf for process in cluster.processes):
            return False
        running = list(cluster.at.values())
        nodes = sorted(process.node for process in running)
        return all(self._is_settled(process, nodes) for process in running) and all(
            linked_since_s(one, other) <= since_s for one in running for other in running if one is not other
        )

    def must_be_sure(self, process: Process, sid: Sid, dots: tuple[Dot, ...], own: list[Stamp]) -> bool:
        """Say whether a read that begins now must get a sure answer, should it end in calm, too.

        `own`: the stamps of what the process itself wrote to that session. It may have dropped a copy that had it.
        """
        return self.is_now() and self._is_in_time(process, sid, dots) and not self.is_doubted(process, dots, own)

    def _is_in_time(self, process: Process, sid: Sid, dots: tuple[Dot, ...]) -> bool:
        # One after the other, each as late as a message can be; and all of that once more if a copy ends meanwhile.
        asked = dict.fromkeys((*places.holders(process, sid), *(origin for origin, _ in dots)))
        others = len(asked) - (process.node in asked)
        round_s = (others - 1) * HEDGE_S + 2 * latest_s(self._cluster.network.faults)
        return round_s * (2 if sid in process.records else 1) <= FETCH_TIMEOUT_S

    def is_doubted(self, process: Process, dots: tuple[Dot, ...], own: list[Stamp]) -> bool:
        """Say whether one of these writes may have died with a member of whose death a process knows."""
        nodes = [one.node for one in self._cluster.at.values()]
        died_ms = self._died_ms.get(process.node, 0) + ROUNDING_MS
        stamps = (*own, *(stamp for _, stamp in dots))
        return any(origin not in nodes for origin, _ in dots) or any(time_ms_of(stamp) <= died_ms for stamp in stamps)

    def _is_settled(self, process: Process, nodes: list[NodeId]) -> bool:
        sessions = process.replica.sessions
        seen = sorted([process.node, *(member.node for member in process.replica.swim.view.live())])
        return seen == nodes and sessions.synced and not sessions.anti_entropy.gains.unsynced
