# Membership: what this node knows of the others, as one table of records that are replaced, never edited.
#
# In:    member records from gossip, from a link's Hello and from this node's own verdicts.
# Out:   the view (live, all), and one MemberChanged for each record that was news.
# Rule:  of two records of a node the greater rank (incarnation, state) holds. Merging is therefore a maximum:
#        order, repetition and detours of gossip do not matter, and a record never goes back.
# Why remember the dead: gossip that is still on its way says "alive" of a node that died a moment ago. While
#        its death is on record, only a higher incarnation brings it back, which only the node itself makes.
# Not here: this node's own record, timers and verdicts (swim.py). Asking the remembered dead again
#        (graveyard.py). Comparing whole views between peers (views.py).

from collections.abc import Iterator

from gossipsess.model.identity import NodeId
from gossipsess.model.member import Member
from gossipsess.protocol.effects import MemberChanged

# As long as tombstones of sessions are kept.
ENDED_KEPT_S = 24 * 3600.0
# About 1 MB. A crash loop makes a node id every few seconds, and must not fill the memory of the others.
ENDED_MAX = 4096
# About 3 kB. What ended longer ago the others have heard of, or find out; a crash loop's thousands would otherwise
# travel with every exchange of lists.
ENDED_TOLD_MAX = 64


class Membership:
    """All other nodes this one has heard of, in every state; this node itself is never in it."""

    def __init__(self) -> None:
        self._members: dict[NodeId, Member] = {}
        self._ended: dict[NodeId, float] = {}  # dead or left -> since when, oldest first
        self._live: tuple[Member, ...] = ()  # what live() answers; made anew by each change

    def get(self, node: NodeId) -> Member | None:
        """Return the record of `node`, dead and left ones too; None when nothing is known of it."""
        return self._members.get(node)

    def live(self) -> tuple[Member, ...]:
        """Return alive and suspect members, sorted by node id."""
        return self._live

    def all(self) -> tuple[Member, ...]:
        """Return every record, sorted by node id: what a Hello carries."""
        return tuple(self._members[node] for node in sorted(self._members))

    def told(self) -> tuple[Member, ...]:
        """Return all live members and the `ENDED_TOLD_MAX` that ended last: what an exchange of lists carries."""
        ended = list(self._ended)[-ENDED_TOLD_MAX:]
        return (*self._live, *(self._members[node] for node in ended))

    def ended(self) -> Iterator[tuple[Member, float]]:
        """Yield each member that died or left, and since when this node knows it, oldest first."""
        return ((self._members[node], since_s) for node, since_s in self._ended.items())

    def merge(self, member: Member, now_s: float) -> MemberChanged | None:
        """Take `member` over if it outranks what is known; return the change, or None when it was no news."""
        held = self._members.get(member.node)
        if held is not None and member.rank <= held.rank:
            return None
        self._members[member.node] = member
        self._ended.pop(member.node, None)
        if not member.is_live:
            self._ended[member.node] = now_s
            self._forget(now_s)
        # Skipped for news of the long dead, of which a newcomer may hear thousands at once.
        if member.is_live or (held is not None and held.is_live):
            live = (known for known in self._members.values() if known.is_live)
            self._live = tuple(sorted(live, key=lambda known: known.node))
        return MemberChanged(member, None if held is None else held.state)

    def _forget(self, now_s: float) -> None:
        while self._ended:
            oldest = next(iter(self._ended))
            if len(self._ended) <= ENDED_MAX and self._ended[oldest] > now_s - ENDED_KEPT_S:
                return
            del self._ended[oldest]
            del self._members[oldest]
