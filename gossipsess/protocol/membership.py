# Membership: what this node knows of the others, as one table of records that are replaced, never edited.
#
# In:    member records from gossip, from a link's Hello and from this node's own verdicts.
# Out:   the view (live, all), and one MemberChanged for each record that was news.
# Rule:  of two records of a node the greater rank (incarnation, state) holds. Merging is therefore a maximum:
#        order, repetition and detours of gossip do not matter, and a record never goes back.
# Why remember the dead: gossip that is still on its way says "alive" of a node that died a moment ago. While
#        its death is on record, only a higher incarnation brings it back, which only the node itself makes.
# Why ages in lists: who has forgotten a death hears of it again from those that have not. Taken for news, it would
#        be remembered for another day, told back to them, and so on for ever.
# Not here: this node's own record, timers and verdicts (swim.py). Asking the remembered dead again
#        (graveyard.py). Comparing whole views between peers (views.py).

import math
from bisect import bisect_left, insort
from collections.abc import Iterator

from gossipsess.model.identity import NodeId
from gossipsess.model.member import Member, Told
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
        self._ended: dict[NodeId, float] = {}  # dead or left -> since when
        self._by_age: list[tuple[float, NodeId]] = []  # the same, sorted: lists tell of old deaths late
        self._live: tuple[Member, ...] = ()  # what live() answers; made anew by each change

    def get(self, node: NodeId) -> Member | None:
        """Return the record of `node`, dead and left ones too; None when nothing is known of it."""
        return self._members.get(node)

    def live(self) -> tuple[Member, ...]:
        """Return alive and suspect members, sorted by node id."""
        return self._live

    def all(self) -> tuple[Member, ...]:
        """Return every record, sorted by node id."""
        return tuple(self._members[node] for node in sorted(self._members))

    def all_told(self, now_s: float) -> tuple[Told, ...]:
        """Return the same with ages: what a Hello carries."""
        return tuple(self._told(node, now_s) for node in sorted(self._members))

    def told(self, now_s: float) -> tuple[Told, ...]:
        """Return all live members and the `ENDED_TOLD_MAX` that ended last: what an exchange of lists carries."""
        ended = (self._told(node, now_s) for _, node in self._by_age[-ENDED_TOLD_MAX:])
        return (*(Told(member) for member in self._live), *ended)

    def ended(self) -> Iterator[tuple[Member, float]]:
        """Yield each member that died or left, and since when this node knows it, oldest first."""
        return ((self._members[node], since_s) for since_s, node in self._by_age)

    def ended_last(self) -> Iterator[tuple[Member, float]]:
        """Yield the same, the newest first."""
        return ((self._members[node], since_s) for since_s, node in reversed(self._by_age))

    def merge(self, member: Member, now_s: float, ended_s: float = 0.0) -> MemberChanged | None:
        """Take `member` over if it outranks what is known; return the change, or None when it was no news.

        `ended_s`: how long ago it died or left. Of somebody unknown, who would be forgotten at once, nothing is news.
        """
        held = self._members.get(member.node)
        if held is not None and member.rank <= held.rank:
            return None
        since_s = now_s - ended_s
        if held is None and not member.is_live and self._is_forgotten(since_s, now_s):
            return None
        self._members[member.node] = member
        self._unmark(member.node)
        if not member.is_live:
            self._ended[member.node] = since_s
            insort(self._by_age, (since_s, member.node))
            self._forget(now_s)
        # Skipped for news of the long dead, of which a newcomer may hear thousands at once.
        if member.is_live or (held is not None and held.is_live):
            live = (known for known in self._members.values() if known.is_live)
            self._live = tuple(sorted(live, key=lambda known: known.node))
        return MemberChanged(member, None if held is None else held.state)

    def _told(self, node: NodeId, now_s: float) -> Told:
        # Rounded up: an age that lost a part of a second on each way round would never reach the day.
        return Told(self._members[node], math.ceil(now_s - self._ended.get(node, now_s)))

    def _unmark(self, node: NodeId) -> None:
        since_s = self._ended.pop(node, None)
        if since_s is not None:
            del self._by_age[bisect_left(self._by_age, (since_s, node))]

    def _is_forgotten(self, since_s: float, now_s: float) -> bool:
        full = len(self._by_age) >= ENDED_MAX
        return since_s <= now_s - ENDED_KEPT_S or (full and since_s < self._by_age[0][0])

    def _forget(self, now_s: float) -> None:
        while self._by_age:
            since_s, oldest = self._by_age[0]
            if len(self._by_age) <= ENDED_MAX and since_s > now_s - ENDED_KEPT_S:
                return
            del self._by_age[0], self._ended[oldest], self._members[oldest]
