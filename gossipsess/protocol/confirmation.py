# Confirmation: when may a write's response leave?
#
# confirm=k waits until min(k, other live hosts) other hosts hold the write: two copies in one machine die
# together. Where no other host is live, other nodes count. "all": every other holder. Alone it does not wait.
# Any member that has the write counts, holder or not: what it keeps is not given up before the holders have it.
# A deadline ends every wait as Degraded, never with a rollback: the write stands and is on its way.
# Hedge: a wait that has not ended after a fifth of its time may be one for a slow holder. It is then tried with the
# member that would hold the session next, whose host then counts as well.

from collections.abc import Callable
from math import inf
from typing import Final

from gossipsess.model.identity import NodeId, Sid
from gossipsess.model.member import Member
from gossipsess.protocol.effects import Settle
from gossipsess.protocol.events import Confirm, Waiter
from gossipsess.protocol.outcomes import Confirmed, Degraded, Gone

HEDGE_AFTER: Final = 0.2
"""The part of a wait after which it is hedged. Earlier: more writes are sent to three; later: less time is left."""


class Ticket:
    """One write that somebody waits for."""

    __slots__ = ("confirm", "deadline_s", "nodes", "settled", "sid", "tried", "waiter")

    def __init__(self, sid: Sid, waiter: Waiter, confirm: Confirm, deadline_s: float) -> None:
        self.sid = sid
        self.waiter = waiter
        self.confirm = confirm
        self.deadline_s = deadline_s
        self.nodes: dict[NodeId, str] = {}
        """Who holds the write, and its host."""
        self.tried: dict[NodeId, str] = {}
        """Who was sent it."""
        self.settled = False


class Confirmations:
    """Every open ticket of this node."""

    def __init__(self, my_host: str, timeout_s: float) -> None:
        self.my_host = my_host
        self.timeout_s = timeout_s
        self._live: dict[NodeId, str] = {}  # other live members and their hosts
        self._other_hosts = 0
        self._open: dict[int, Ticket] = {}  # oldest first, and all wait equally long, so the first is due first
        self._to_hedge: dict[int, Ticket] = {}  # those whose time to hedge has not come
        self._count = 0

    @property
    def other_hosts(self) -> int:
        """How many other hosts are live."""
        return self._other_hosts

    def open(self, sid: Sid, waiter: Waiter, confirm: Confirm, now_s: float, *, hedge: bool = False) -> Ticket:
        """Start a wait. `hedge`: there are members that were not sent the write, and may be."""
        ticket = Ticket(sid, waiter, confirm, now_s + self.timeout_s)
        self._count += 1
        self._open[self._count] = ticket
        if hedge:
            self._to_hedge[self._count] = ticket
        return ticket

    def held_by(self, ticket: Ticket, peer: Member, holders: tuple[Member, ...]) -> list[Settle]:
        """Note that a peer holds the write. `holders`: the other holders of the session."""
        if ticket.settled:
            return []
        ticket.nodes[peer.node] = peer.host
        return self._settled(ticket) if self._enough(ticket, holders) else []

    def gone(self, sid: Sid) -> list[Settle]:
        """End every wait for a session that is dead now, also one of which no peer is owed anything any more."""
        settled: list[Settle] = []
        for ticket in self._open.values():
            if ticket.sid == sid and not ticket.settled:
                ticket.settled = True
                settled.append(Settle(ticket.waiter, Gone()))
        return settled

    def view_changed(self, live: tuple[Member, ...], holders: Callable[[Sid], tuple[Member, ...]]) -> list[Settle]:
        """Take over the other live members; settle what waits for members that are no more.

        `holders`: the other holders of a session.
        """
        self._live = {member.node: member.host for member in live}
        self._other_hosts = len(dict.fromkeys(host for host in self._live.values() if host != self.my_host))
        settled: list[Settle] = []
        for ticket in self._open.values():
            if not ticket.settled and self._enough(ticket, holders(ticket.sid)):
                settled += self._settled(ticket)
        return settled

    def next_deadline(self) -> float | None:
        """Return when the oldest wait ends, or is to be hedged."""
        _forget_settled(self._open)
        _forget_settled(self._to_hedge)
        ends_s = next((ticket.deadline_s for ticket in self._open.values()), inf)
        hedge_s = next((self._hedge_s(ticket) for ticket in self._to_hedge.values()), inf)
        due_s = min(ends_s, hedge_s)
        return due_s if due_s < inf else None

    def hedges(self, now_s: float) -> list[Ticket]:
        """Return the waits that it is time to hedge, each once."""
        due: list[Ticket] = []
        for number, ticket in list(self._to_hedge.items()):
            if self._hedge_s(ticket) > now_s:
                break
            del self._to_hedge[number]
            if not ticket.settled:
                due.append(ticket)
        return due

    def timeout(self, now_s: float) -> list[Settle]:
        """End every wait that is due."""
        late: list[Settle] = []
        _forget_settled(self._open)
        for ticket in self._open.values():
            if ticket.deadline_s > now_s:
                break
            if not ticket.settled:
                ticket.settled = True
                holding = self._holding(ticket)
                late.append(Settle(ticket.waiter, Degraded(self._hosts_of(holding), len(holding))))
        return late

    def _enough(self, ticket: Ticket, holders: tuple[Member, ...]) -> bool:
        if ticket.confirm == "all":
            return all(member.node in ticket.nodes for member in holders)
        holding = self._holding(ticket)
        if self._other_hosts:
            return self._hosts_of(holding) >= min(ticket.confirm, self._other_hosts)
        return len(holding) >= min(ticket.confirm, len(self._live))

    def _holding(self, ticket: Ticket) -> dict[NodeId, str]:
        """Return who holds the write and is live: who has died since holds nothing."""
        return {node: host for node, host in ticket.nodes.items() if node in self._live}

    def _hosts_of(self, nodes: dict[NodeId, str]) -> int:
        return len(dict.fromkeys(host for host in nodes.values() if host != self.my_host))

    def _settled(self, ticket: Ticket) -> list[Settle]:
        ticket.settled = True
        holding = self._holding(ticket)
        return [Settle(ticket.waiter, Confirmed(self._hosts_of(holding), len(holding)))]

    def _hedge_s(self, ticket: Ticket) -> float:
        return ticket.deadline_s - (1 - HEDGE_AFTER) * self.timeout_s


def _forget_settled(tickets: dict[int, Ticket]) -> None:
    while tickets:
        first = next(iter(tickets))
        if not tickets[first].settled:
            return
        del tickets[first]
