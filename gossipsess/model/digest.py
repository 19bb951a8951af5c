# Digest: sums of state hashes, which let two nodes find what differs without listing what does not.
#
# Leaf        a session's is the first 12 bits of its sid, 4,096 in 64 groups of 64: a tree of two levels, so that one
#             session of 100,000 is found by three short messages. A leaf's sum is the sum of its records' hashes.
# USERS       one leaf more, a group of its own: the revocations of users, which every node holds wherever sessions are.
# Partition   four leaves, the unit in which sessions are placed; the revocations are the last one, 1024.
# Scope       a set of partitions, as an int whose bit p stands for partition p. What two nodes compare may be less than
#             everything.
# Settled     the sum over all sessions that did not change in the last `SETTLE_S`. While a cluster is written to, a
#             delta is always on its way and no two nodes are ever equal; what has settled is equal, or it is wrong.
# Why sums and not exclusive ors: nothing cancels. Why modulo 2**48: sums are most of what a repair sends, and a hash is
# evenly spread: two that differ look equal once in 10**14 times, until one of them changes.
# Every change costs two dict operations and some additions.
# Not here: what is done about a difference (protocol/sync.py).

from itertools import compress
from typing import Final

from gossipsess.model.identity import Sid
from gossipsess.model.revocation import USER_SID_END

GROUP_LEAVES: Final = 64
USERS: Final = 64 * GROUP_LEAVES
"""The leaf of revocations."""
LEAVES: Final = USERS + 1
GROUPS: Final = 65
PARTITION_LEAVES: Final = 4
PARTITIONS: Final = USERS // PARTITION_LEAVES + 1
EVERYTHING: Final = (1 << PARTITIONS) - 1
"""The scope of all partitions."""
USERS_SCOPE: Final = 1 << USERS // PARTITION_LEAVES
"""The scope of the revocations alone, which is part of every sync."""
_FLAGS: Final = bytes.maketrans(b"01", b"\0\1")
_GROUP_PARTITIONS: Final = GROUP_LEAVES // PARTITION_LEAVES
_WHOLE_GROUP: Final = (1 << _GROUP_PARTITIONS) - 1
SUM_BYTES: Final = 6
SUM_MASK: Final = (1 << 8 * SUM_BYTES) - 1
SETTLE_S: Final = 3.0
"""A session counts as settled when it has not changed for this long. Longer than a push takes that is lost once and
sent again; a real difference is noticed that much later."""

SHARED_MAX: Final = 256
"""Answers of `settled` kept for different sets of leaves, one for each peer, of 4 KB each."""


def leaf_of(sid: Sid) -> int:
    """Return the leaf of a session, 0 .. `LEAVES` - 1."""
    return USERS if sid.endswith(USER_SID_END) else sid[0] << 4 | sid[1] >> 4


def leaves_in(group: int) -> int:
    """Return how many leaves a group, 0 .. `GROUPS` - 1, has."""
    return min(GROUP_LEAVES, LEAVES - group * GROUP_LEAVES)


def in_scope(leaf: int, scope: int) -> bool:
    """Say whether a leaf, 0 .. `LEAVES` - 1, belongs to one of the partitions of a scope."""
    return bool(scope >> leaf // PARTITION_LEAVES & 1)


def partitions_in(scope: int) -> list[int]:
    """Return the partitions of a scope, in ascending order."""
    partitions: list[int] = []
    while scope:
        lowest = scope & -scope
        partitions.append(lowest.bit_length() - 1)
        scope ^= lowest
    return partitions


def leaf_flags(scope: int) -> bytes:
    """Return a byte for each leaf: 1 where it belongs to one of the partitions of a scope, else 0."""
    bits = format(scope, f"0{PARTITIONS}b")[::-1].encode("ascii").translate(_FLAGS)
    flags = bytearray(PARTITION_LEAVES * PARTITIONS)
    for leaf in range(PARTITION_LEAVES):
        flags[leaf::PARTITION_LEAVES] = bits
    return bytes(flags[:LEAVES])


def short_hash(state_hash: int) -> int:
    """Return a record's state hash as it travels in a listing, 48 bits. That is also its share of a sum."""
    return state_hash & SUM_MASK


class LeafSums:
    """The sums of one table: of each leaf, of each group, and of what has settled.

    Times are seconds on the caller's monotonic clock: wall clocks differ, and one that is set must settle nothing.
    """

    __slots__ = ("_settled", "_sums", "_unsettled", "_unsettled_sums")

    def __init__(self) -> None:
        self._sums = [0] * LEAVES
        self._unsettled: dict[Sid, tuple[float, int]] = {}  # (when it changed, its hash), by that time
        self._unsettled_sums = [0] * LEAVES  # of their hashes
        self._settled: dict[bytes, int] = {}  # what `settled` said for which leaves, since anything last changed

    def replace(self, sid: Sid, old_hash: int, new_hash: int, now_s: float) -> None:
        """Account for one record that changed; 0 stands for no record. Without a state nothing is left to settle."""
        change = new_hash - old_hash
        if not change:
            return  # only claims have moved
        if self._settled:
            self._settled.clear()
        leaf = leaf_of(sid)
        self._sums[leaf] = (self._sums[leaf] + change) & SUM_MASK
        before = self._unsettled.pop(sid, None)
        if new_hash:
            self._unsettled[sid] = (now_s, new_hash)
        self._unsettled_sums[leaf] += new_hash - before[1] if before is not None else new_hash

    def settled(self, now_s: float, shared: bytes = b"") -> int:
        """Return the sum over the sessions that have settled, 48 bits.

        `shared`: one byte for each leaf, 0 for those that do not count; empty: all count.
        """
        # Taken out afterwards: each search for a dict's first key passes the places of the old ones.
        due: list[Sid] = []
        for sid, (changed_s, state_hash) in self._unsettled.items():
            if changed_s + SETTLE_S > now_s:
                break
            due.append(sid)
            self._unsettled_sums[leaf_of(sid)] -= state_hash
        if due:
            self._settled.clear()
        if due and len(due) == len(self._unsettled):
            self._unsettled, self._unsettled_sums = {}, [0] * LEAVES  # whatever they were: none stays wrong
        else:
            for sid in due:
                del self._unsettled[sid]
        # Two passes over all leaves, which a node at rest would make for each probe.
        known = self._settled.get(shared)
        if known is None:
            sums, unsettled_sums = self._sums, self._unsettled_sums
            if shared:
                known = sum(compress(sums, shared)) - sum(compress(unsettled_sums, shared))
            else:
                known = sum(sums) - sum(unsettled_sums)
            known &= SUM_MASK
            if len(self._settled) == SHARED_MAX:
                self._settled.clear()
            self._settled[shared] = known
        return known

    def put_right(self, leaf: int, true_sum: int) -> bool:
        """Take over a leaf's sum as added up anew; return whether it was wrong."""
        wrong = self._sums[leaf] != true_sum
        if wrong:
            self._sums[leaf] = true_sum
            self._settled.clear()
        return wrong

    def of_groups(self, scope: int = EVERYTHING) -> tuple[int, ...]:
        """Return the sum of each group, over those of its leaves that are in scope."""
        return tuple([self._of_group(group, scope) & SUM_MASK for group in range(GROUPS)])

    def of_leaves(self, group: int) -> tuple[int, ...]:
        """Return the sum of each leaf of a group."""
        first = group * GROUP_LEAVES
        return tuple(self._sums[first : first + GROUP_LEAVES])

    def _of_group(self, group: int, scope: int) -> int:
        within = scope >> group * _GROUP_PARTITIONS & _WHOLE_GROUP
        if within == _WHOLE_GROUP:
            return sum(self.of_leaves(group))
        total, at = 0, group * GROUP_LEAVES
        while within:
            if within & 1:
                total += sum(self._sums[at : at + PARTITION_LEAVES])
            within >>= 1
            at += PARTITION_LEAVES
        return total

    def __getitem__(self, leaf: int) -> int:
        return self._sums[leaf]
