# Recipients: to whom a write is sent.
#
# In:    the layout, who has a link, how many hosts a request waits for.    Out: members, in the order of their rank.
# Rule:  a session's holders; and of those who would hold it next, as many as it takes for the hosts that are waited
#        for. A tombstone goes to every member: there may be copies anywhere that were fetched for a read.
# Why also the next: a holder that is suspect, or has no link, would have the request wait for its deadline. What they
#        keep is a surplus copy, offered to the holders, and given up when these have it.
# Not here: counting who has it (confirmation.py).

from gossipsess.model.identity import NodeId, Sid
from gossipsess.model.member import Member, MemberState
from gossipsess.protocol.confirmation import Ticket
from gossipsess.protocol.events import Confirm
from gossipsess.protocol.peers import Peers
from gossipsess.protocol.placement import Placement, partition_of


class Recipients:
    """Who is sent what this node's requests write."""

    def __init__(self, myself: Member, placement: Placement, peers: Peers) -> None:
        self._myself = myself
        self._placement = placement
        self._peers = peers

    def of_write(self, sid: Sid, confirm: Confirm, other_hosts: int) -> tuple[Member, ...]:
        """Return whom a write is sent. `other_hosts`: how many there are; where there is none, nodes are waited for."""
        others = self._placement.others(partition_of(sid))
        if confirm == "all" or self._placement.layout.all_to_all:
            return others
        wanted = min(confirm, other_hosts or len(self._peers))
        tried = {member.node: member.host for member in others if self._answers(member)}
        while (self._hosts(tried) if other_hosts else len(tried)) < wanted:
            more = self.next_after(sid, tried, by_host=other_hosts > 0)
            if more is None:
                break
            tried[more.node] = more.host
            if more not in others:
                others = (*others, more)
        return others

    def next_after(self, sid: Sid, tried: dict[NodeId, str], *, by_host: bool) -> Member | None:
        """Return who would hold a session next and was not tried, with `by_host` on a host not tried; None: nobody."""
        hosts = {self._myself.host: None, **dict.fromkeys(tried.values())} if by_host else {}
        for member in self._placement.layout.ranking(partition_of(sid)):
            untried = member.host not in hosts and member.node not in tried and member.node != self._myself.node
            if untried and self._answers(member):
                return member
        return None

    def hedge(self, ticket: Ticket, other_hosts: int) -> tuple[Member, ...]:
        """Return to whom a write that is waited for is sent, too: holders that were not sent it yet, and the next."""
        holders = self._placement.others(partition_of(ticket.sid))
        late = tuple(member for member in holders if member.node not in ticket.tried)
        more = None
        if ticket.confirm != "all":
            more = self.next_after(ticket.sid, ticket.tried, by_host=other_hosts > 0)
        return late if more is None or more in late else (*late, more)

    def _answers(self, member: Member) -> bool:
        peer = self._peers.get(member.node)
        return peer is not None and peer.link is not None and peer.member.state is MemberState.ALIVE

    def _hosts(self, tried: dict[NodeId, str]) -> int:
        return len(dict.fromkeys(host for host in tried.values() if host != self._myself.host))
