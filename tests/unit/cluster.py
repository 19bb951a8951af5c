"""Several whole nodes, all linked with each other, whose messages and time the test drives."""

from collections.abc import Callable
from typing import NamedTuple

from gossipsess.model.identity import NodeId, Sid
from gossipsess.model.member import Member
from gossipsess.protocol.effects import Effect, Send, SendDatagram
from gossipsess.protocol.events import DialFailed, LinkClosed, LinkOpened, ReceivedDatagram, Tick, Write
from gossipsess.protocol.placement import Rules, partition_of
from gossipsess.wire.messages import Push
from tests.unit.machines import Clocked, member, registers

FIVE = (b"node-one", b"node-two", b"node-3..", b"node-4..", b"node-5..")


class Said(NamedTuple):
    """One message over a link."""

    sender: NodeId
    hearer: NodeId
    message: object


class Cluster:
    """Nodes that have everything. Link n leads to the n-th of them."""

    def __init__(self, *nodes: NodeId, hosts: tuple[str, ...] = (), rules: Rules = Rules(2)) -> None:  # noqa: B008
        self.ids = nodes or FIVE
        named = zip(self.ids, hosts or [""] * len(self.ids), strict=True)
        members = [member(node, host, 7950 + number) for number, (node, host) in enumerate(named)]
        self.nodes = {me.node: Clocked(me=me, rules=rules).alone() for me in members}
        self.deaf: list[NodeId] = []
        """Nothing that is said to these gets there."""
        self.is_lost: Callable[[Said], bool] = lambda said: False
        """Which messages over links do not get there."""
        self.datagrams = True
        """Datagrams get through, too."""
        for node, here in self.nodes.items():
            for other in self.ids:
                if other != node:
                    here.node.submit(LinkOpened(self.link(other), other, None))
        self.carry()

    def __getitem__(self, node: NodeId) -> Clocked:
        return self.nodes[node]

    def link(self, node: NodeId) -> int:
        """Return the number of each node's link to this one."""
        return self.ids.index(node) + 1

    def hosts(self, nodes: list[NodeId]) -> set[str]:
        """Return the hosts of nodes."""
        return {self[node].me.host for node in nodes}

    # --- what is placed where -----------------------------------------------------------------------------

    def ranking(self, sid: Sid) -> list[NodeId]:
        """Return all nodes as placement ranks them for a session, as the first one sees it."""
        layout = next(iter(self.nodes.values())).replica.placement.layout
        return [one.node for one in layout.ranking(partition_of(sid))]

    def sid(self, *holders: NodeId) -> Sid:
        """Return a session's id with these holders, the primary first."""
        return self.sids(*holders)[0]

    def sids(self, *holders: NodeId) -> list[Sid]:
        """Return one id of each partition that has these holders, the primary first."""
        sids = [number.to_bytes(2) + bytes(14) for number in range(0, 1 << 16, 64)]
        return [sid for sid in sids if tuple(self.ranking(sid)[: len(holders)]) == holders]

    def holding(self, sid: Sid) -> list[NodeId]:
        """Return who has a record of a session in its table."""
        return [node for node, here in self.nodes.items() if sid in here.node.records]

    # --- what happens -------------------------------------------------------------------------------------

    def write(self, node: NodeId, sid: Sid, confirm: int | str = 0, key: str = "a", idle_ms: int = 600_000) -> list:
        """Write a session at a node, which begins where there is none; return the list its outcome goes to."""
        outcomes: list = []
        here = self[node].node
        begins = () if sid in here.records else tuple(registers(idle_ms=idle_ms).items())
        written = here.submit(Write(sid, (*begins, (key, b"1")), confirm, outcomes.append))
        outcomes += [written.outcome] if written.outcome is not None else []
        return outcomes

    def carry(self) -> list[Said]:
        """Carry all that is said, answers included, and return what went over links; time stands still."""
        carried: list[Said] = []
        while True:
            effects = [(node, effect) for node, here in self.nodes.items() for effect in here.does()]
            said = [self._deliver(node, effect) for node, effect in effects]
            carried += [one for one in said if one is not None]
            if not any(isinstance(effect, Send | SendDatagram) for _, effect in effects):
                return carried

    def passes(self, seconds: float, step_s: float = 0.05) -> list[Said]:
        """Let time pass at all nodes, their drivers notice, and all that is said be carried; return the latter."""
        carried = self.due()
        for _ in range(round(seconds / step_s)):
            for here in self.nodes.values():
                here.waits(step_s)
            carried += self.carry()
        return carried + self.due()

    def due(self) -> list[Said]:
        """Let all drivers do what is due now, and carry what is said."""
        carried: list[Said] = []
        for _ in range(2):  # what one tick makes owed leaves with the next
            for here in self.nodes.values():
                here.node.submit(Tick())
            carried += self.carry()
        return carried

    def dies(self, node: NodeId) -> None:
        """Kill a node's process; all others know it."""
        dead = self.nodes.pop(node)
        for here in self.nodes.values():
            here.node.submit(LinkClosed(self.link(node)))
            here.node.submit(DialFailed(dead.me.address, refused=True))

    def tells(self, teller: NodeId, hearer: NodeId, message: object) -> None:
        """Let a datagram come in."""
        sender: Member = self[teller].me
        self[hearer].node.submit(ReceivedDatagram(sender.node, sender.address, message))

    def _deliver(self, sender: NodeId, effect: Effect) -> Said | None:
        if isinstance(effect, SendDatagram):
            at = [node for node, here in self.nodes.items() if here.me.address == effect.address]
            if at and at[0] not in self.deaf and self.datagrams:
                self.tells(sender, at[0], effect.message)
        if not isinstance(effect, Send):
            return None
        hearer = self.ids[effect.link - 1]
        said = Said(sender, hearer, effect.message)
        if hearer in self.nodes and hearer not in self.deaf and not self.is_lost(said):
            self[hearer].hears(effect.message, self.link(sender))
        return said


def pushed(said: list[Said], sid: Sid, by: NodeId) -> list[NodeId]:
    """Return to whom a node has pushed a session, in that order."""
    pushes = [one for one in said if one.sender == by and isinstance(one.message, Push)]
    return [one.hearer for one in pushes if sid in [delta.sid for delta in one.message.deltas]]


def of(said: list[Said], kind: type) -> list[Said]:
    """Return the messages of one kind."""
    return [one for one in said if isinstance(one.message, kind)]
