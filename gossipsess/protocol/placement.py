# Placement: which members hold a given session.
#
# In:    the members that gossip calls live, those that ended lately, and the rules that all nodes share.
# Out:   `Placement.layout`: the holders of each partition, and the tag that probes carry.
# Rule:  below `all_to_all_below` names every member holds every session; from there on one primary and `secondaries`
#        secondaries, by rendezvous hashing, in distinct zones where there are enough, else on distinct hosts.
# The only place that decides this: whoever wants to know who holds what asks here, and knows no other rule.
#
# Why rendezvous and not a token ring: with tens of members a scan is cheap, and a member that comes or goes moves only
# the partitions that it gets or had (Thaler and Ravishankar, 1998).
# Why names are hashed and node ids are not: a restart in place has a new node id, and must move nothing.
# Why names linger in the count: a fourth node that comes and goes would otherwise have every session moved each time.
# To count too many does no harm, since only who is there is a holder.
# A layout is a pure function of one view, worked out where it is asked for and not before, and shared between the nodes
# of a process that see the same, as simulated ones do.
# Not here: sending and moving anything (sessions.py). Who is live (swim.py).

import math
from array import array
from collections.abc import Container, Iterable
from functools import lru_cache
from hashlib import blake2b
from struct import Struct
from typing import Final

from gossipsess.model.digest import USERS, leaf_flags
from gossipsess.model.identity import NodeId, Sid
from gossipsess.model.member import Member, MemberState
from gossipsess.model.revocation import USER_SID_END
from gossipsess.model.rules import Rules

LINGER_S: Final = 30.0
"""For how long the name of a member that died or left still counts: longer than a rolling restart takes for a node."""
EVERYWHERE: Final = USERS >> 2
"""The partition of the revocations of users, which every live member holds. Those of sessions are the numbers below."""
_SCORES: Final = Struct(f">{EVERYWHERE}Q")
_SCORES_A_DIGEST: Final = 8
_TAG_BYTES: Final = 4


def partition_of(sid: Sid) -> int:
    """Return the partition of a session: four leaves of the table's sums. That of a user's sid is `EVERYWHERE`."""
    return EVERYWHERE if sid.endswith(USER_SID_END) else sid[0] << 2 | sid[1] >> 6


class Layout:
    """Who holds what in one view. Never changes; any thread may ask.

    Its members are described without incarnation and suspicion (0, ALIVE), on which no placement depends.
    """

    def __init__(self, live: tuple[Member, ...], rules: Rules, *, all_to_all: bool) -> None:
        """Lay out at least one member; `live` is sorted by node id. Equal arguments give equal answers."""
        self.live = live
        """All live members, leaving ones included, by node id."""
        self.all_to_all = all_to_all
        """Every eligible member holds everything."""
        self.tag = _tag(live, rules, all_to_all)
        """32 bits: who is live, who leaves, the mode and the rules. Nodes with equal tags place alike."""
        # Where all leave at the same time, their sessions stay where they are.
        self._eligible = tuple([member for member in live if member.is_eligible]) or live
        self._nodes = {member.node: None for member in self._eligible}
        self.copies = len(self._eligible) if all_to_all else min(1 + rules.secondaries, len(self._eligible))
        """On how many nodes each session lives."""
        self._columns = () if all_to_all else tuple([_column(member.name) for member in self._eligible])
        # Worked out on demand. Two threads may do so at the same time, and come to the same.
        self._holders: dict[int, tuple[Member, ...]] = {}
        self._candidates_after: dict[tuple[int, ...], tuple[int, ...]] = {}
        self._partitions: dict[NodeId, int] | None = None
        self._shared: dict[tuple[NodeId, NodeId], bytes] = {}

    def holders(self, partition: int) -> tuple[Member, ...]:
        """Return the members that hold a partition, the primary first; of `EVERYWHERE`, all live ones.

        Where all hold everything, they stand in the order of their node ids.
        """
        if partition == EVERYWHERE:
            return self.live
        if self.all_to_all:
            return self._eligible
        holders = self._holders.get(partition)
        if holders is None:
            holders = self._holders[partition] = self._place(partition)
        return holders

    def holds(self, node: NodeId, partition: int) -> bool:
        """Say whether a node is a holder of a partition."""
        if self.all_to_all and partition != EVERYWHERE:
            return node in self._nodes
        for member in self.holders(partition):  # a loop, since each read and each delta asks
            if member.node == node:
                return True
        return False

    def is_eligible(self, node: NodeId) -> bool:
        """Say whether sessions are placed on a node."""
        return node in self._nodes

    def shared_leaves(self, one: NodeId, other: NodeId) -> bytes:
        """Return a byte for each leaf of a table's sums: 1 where both nodes hold it, else 0."""
        pair = (one, other) if one < other else (other, one)
        shared = self._shared.get(pair)
        if shared is None:
            shared = self._shared[pair] = leaf_flags(self.partitions_of(one) & self.partitions_of(other))
        return shared

    def ranking(self, partition: int) -> tuple[Member, ...]:
        """Return all eligible members: the holders of a partition, then the others as they would come next.

        Of `EVERYWHERE` it is all live members.
        """
        holders = self.holders(partition)
        if len(holders) >= len(self._eligible):
            return holders
        # Of two of one score, as of a restarted node and its former run, the smaller node id comes first here too.
        rest = [member for member in self._eligible if member not in holders]
        rest.sort(key=lambda member: _column(member.name)[partition], reverse=True)
        return (*holders, *rest)

    def announcer(self, partition: int) -> Member:
        """Return the holder that tells its subscribers of what ends by time as the node that did it.

        So of all the processes that notice one cleans up. Where all hold everything, they take turns by partition.
        """
        holders = self.holders(partition)
        return holders[partition % len(holders)] if self.all_to_all else holders[0]

    def partitions_of(self, node: NodeId) -> int:
        """Return what a node holds, as a mask: bit p is set where it holds partition p, 0 .. `EVERYWHERE`."""
        if self._partitions is None:
            self._partitions = self._masks()
        return self._partitions.get(node, 0)

    def _masks(self) -> dict[NodeId, int]:
        masks = {member.node: 1 << EVERYWHERE for member in self.live}
        if self.all_to_all:
            return masks | {member.node: (1 << EVERYWHERE + 1) - 1 for member in self._eligible}
        for partition in range(EVERYWHERE):
            for member in self.holders(partition):
                masks[member.node] |= 1 << partition
        return masks

    def _place(self, partition: int) -> tuple[Member, ...]:
        scores = [column[partition] for column in self._columns]
        chosen: tuple[int, ...] = ()
        while len(chosen) < self.copies:
            chosen = (*chosen, max(self._candidates(chosen), key=scores.__getitem__))
        return tuple([self._eligible[index] for index in chosen])

    def _candidates(self, chosen: tuple[int, ...]) -> tuple[int, ...]:
        """Return who may come next: those that share least with the chosen, by zone, then host, then name.

        By name too, so that a node that has just been restarted and its former run do not get both copies.
        """
        known = self._candidates_after.get(chosen)
        if known is not None:
            return known
        taken = [self._eligible[index] for index in chosen]
        zones, hosts, names = [one.zone for one in taken], [one.host for one in taken], [one.name for one in taken]
        shared = {
            index: (member.zone in zones, member.host in hosts, member.name in names)
            for index, member in enumerate(self._eligible)
            if index not in chosen
        }
        least = min(shared.values())
        candidates = tuple([index for index, shares in shared.items() if shares == least])
        if len(chosen) <= 1:  # beyond, there may be as many choices as partitions
            self._candidates_after[chosen] = candidates
        return candidates


class Placement:
    """One node's layout, as its view and time go on.

    Events: view_changed(), timeout(). Times are seconds on the caller's monotonic clock.
    """

    def __init__(self, myself: Member, rules: Rules, now_s: float) -> None:
        self.layout = _layout((_placed(myself),), rules, all_to_all=True)
        """The layout of the view last given; replaced as a whole, so that any thread may take it."""
        self.changed_at_s = now_s
        """When `layout` last became another."""
        self._myself = myself.node
        self._rules = rules
        self._live = self.layout.live
        self._few_from_s = -math.inf  # from when on fewer names count than primaries and secondaries need

    def view_changed(self, live: Iterable[Member], ended: Iterable[tuple[Member, float]], now_s: float) -> bool:
        """Take over the view; return whether the layout is another now.

        Args:
            live: the live members, this node included, in any order.
            ended: members that died or left, each with when that was, the last one first.
            now_s: the time.
        """
        self._live = tuple(sorted([_placed(member) for member in live], key=lambda member: member.node))
        self._few_from_s = self._when_few(ended, now_s)
        return self.timeout(now_s)

    def next_deadline(self) -> float | None:
        """Return when timeout() wants to be called; None while only an event can change the layout."""
        return None if self.layout.all_to_all or self._few_from_s == math.inf else self._few_from_s

    def timeout(self, now_s: float) -> bool:
        """Let names stop counting whose time is over; return whether the layout is another now."""
        all_to_all = self._few_from_s <= now_s
        if self.layout.live == self._live and self.layout.all_to_all == all_to_all:
            return False
        self.layout = _layout(self._live, self._rules, all_to_all=all_to_all)
        self.changed_at_s = now_s
        return True

    def counted(self, ended: Iterable[tuple[Member, float]], now_s: float) -> int:
        """Return how many names, or hosts, count; `ended` as for `view_changed`."""
        names = {self._counted(member) for member in self._live}
        return len(names) + len(self._lingering(ended, names, now_s))

    def others(self, partition: int) -> tuple[Member, ...]:
        """Return the holders of a partition but this node, the primary first."""
        return tuple([member for member in self.layout.holders(partition) if member.node != self._myself])

    def _when_few(self, ended: Iterable[tuple[Member, float]], now_s: float) -> float:
        names = {self._counted(member) for member in self._live}
        missing = self._rules.all_to_all_below - len(names)
        if missing <= 0:
            return math.inf
        lingering_s = sorted(self._lingering(ended, names, now_s).values(), reverse=True)
        return lingering_s[missing - 1] if len(lingering_s) >= missing else -math.inf

    def _lingering(
        self, ended: Iterable[tuple[Member, float]], names: Container[str], now_s: float
    ) -> dict[str, float]:
        """Return who counts although it is not live, and until when."""
        until_s: dict[str, float] = {}
        for member, since_s in ended:
            if since_s + LINGER_S <= now_s:
                break  # of thousands remembered only these are looked at
            name = self._counted(member)
            if name not in names:
                until_s.setdefault(name, since_s + LINGER_S)
        return until_s

    def _counted(self, member: Member) -> str:
        return member.host if self._rules.count_by == "host" else member.name


def _placed(member: Member) -> Member:
    return member._replace(incarnation=0, state=MemberState.ALIVE)


# Simulated nodes share views; a real one comes back to some when a member flaps. At most some 100 KB each.
@lru_cache(maxsize=64)
def _layout(live: tuple[Member, ...], rules: Rules, *, all_to_all: bool) -> Layout:
    return Layout(live, rules, all_to_all=all_to_all)


# 8 KB each: 2 MB at most, however many names a crash loop invents.
@lru_cache(maxsize=256)
def _column(name: str) -> "array[int]":
    """Return a name's score for each partition, 64 bits each. The greatest is a partition's primary."""
    text = name.encode()
    blocks = range(EVERYWHERE // _SCORES_A_DIGEST)
    return array("Q", _SCORES.unpack(b"".join([blake2b(text, salt=block.to_bytes(16)).digest() for block in blocks])))


def _tag(live: tuple[Member, ...], rules: Rules, all_to_all: bool) -> int:
    told = [f"{'all' if all_to_all else 'some'} {rules.all_to_all_below} {rules.secondaries} {rules.count_by}".encode()]
    # Of fixed length each. States and incarnations change with every suspicion, and are nobody's placement.
    told += [member.node + bytes([member.leaving]) for member in live]
    return int.from_bytes(blake2b(b"".join(told), digest_size=_TAG_BYTES).digest())
