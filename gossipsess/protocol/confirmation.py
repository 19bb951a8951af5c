# Confirmation: when may a write's response leave?
#
# confirm=k waits until min(k, other live hosts) other hosts hold the write: two copies in one machine die
# together. Where no other host is live, other nodes count. "all": every other holder. Alone it does not wait.
# A deadline ends every wait as Degraded, never with a rollback: the write stands and is on its way.

from gossipsess.model.identity import NodeId, Sid
from gossipsess.model.member import Member
from gossipsess.protocol.effects import Settle
from gossipsess.protocol.events import Confirm, Waiter
from gossipsess.protocol.outcomes import Confirmed, Degraded, Gone


class Ticket:
    """One write that somebody waits for."""

    __slots__ = ("confirm", "deadline_s", "hosts", "nodes", "settled", "sid", "waiter")

    def __init__(self, sid: Sid, waiter: Waiter, confirm: Confirm, deadline_s: float) -> None:
        self.sid = sid
        self.waiter = waiter
        self.confirm = confirm
        self.deadline_s = deadline_s
        self.hosts: dict[str, None] = {}
        self.nodes: dict[NodeId, None] = {}
        self.settled = False


class Confirmations:
    """Every open ticket of this node."""

    def __init__(self, my_host: str, timeout_s: float) -> None:
        self.my_host = my_host
        self.timeout_s = timeout_s
        self._open: dict[int, Ticket] = {}  # oldest first, and all wait equally long, so the first is due first
        self._count = 0

    def open(self, sid: Sid, waiter: Waiter, confirm: Confirm, now_s: float) -> Ticket:
        """Start a wait."""
        ticket = Ticket(sid, waiter, confirm, now_s + self.timeout_s)
        self._count += 1
        self._open[self._count] = ticket
        return ticket

    def held_by(self, ticket: Ticket, peer: Member, others: tuple[Member, ...]) -> list[Settle]:
        """Note that a peer holds the write."""
        if ticket.settled:
            return []
        ticket.nodes[peer.node] = None
        if peer.host != self.my_host:
            ticket.hosts[peer.host] = None
        return self._settled(ticket) if self._enough(ticket, others) else []

    def gone(self, sid: Sid) -> list[Settle]:
        """End every wait for a session that is dead now, also one of which no peer is owed anything any more."""
        settled: list[Settle] = []
        for ticket in self._open.values():
            if ticket.sid == sid and not ticket.settled:
                ticket.settled = True
                settled.append(Settle(ticket.waiter, Gone()))
        return settled

    def holders_changed(self, others: tuple[Member, ...]) -> list[Settle]:
        """Settle what waits for members that are no more."""
        settled: list[Settle] = []
        for ticket in self._open.values():
            if not ticket.settled and self._enough(ticket, others):
                settled += self._settled(ticket)
        return settled

    def next_deadline(self) -> float | None:
        """Return when the oldest wait ends."""
        self._forget_settled()
        return next((ticket.deadline_s for ticket in self._open.values()), None)

    def timeout(self, now_s: float) -> list[Settle]:
        """End every wait that is due."""
        late: list[Settle] = []
        self._forget_settled()
        for ticket in self._open.values():
            if ticket.deadline_s > now_s:
                break
            if not ticket.settled:
                ticket.settled = True
                late.append(Settle(ticket.waiter, Degraded(len(ticket.hosts), len(ticket.nodes))))
        return late

    def _enough(self, ticket: Ticket, others: tuple[Member, ...]) -> bool:
        if ticket.confirm == "all":
            return all(member.node in ticket.nodes for member in others)
        holding = [member for member in others if member.node in ticket.nodes]  # who has died since holds nothing
        hosts = {member.host for member in others if member.host != self.my_host}
        if hosts:
            held = {member.host for member in holding if member.host != self.my_host}
            return len(held) >= min(ticket.confirm, len(hosts))
        return len(holding) >= min(ticket.confirm, len(others))

    def _settled(self, ticket: Ticket) -> list[Settle]:
        ticket.settled = True
        return [Settle(ticket.waiter, Confirmed(len(ticket.hosts), len(ticket.nodes)))]

    def _forget_settled(self) -> None:
        while self._open:
            first = next(iter(self._open))
            if not self._open[first].settled:
                return
            del self._open[first]
