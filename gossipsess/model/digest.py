# Digest: partition sums, which let two nodes find what differs without listing what does not.
#
# A session's partition is the first 10 bits of its sid. A partition's sum is the sum of its records' state
# hashes modulo 2**128: a change updates it in O(1). A sum, not an exclusive or, so that nothing cancels.

from typing import Final

from gossipsess.model.identity import Sid
from gossipsess.model.record import HASH_MASK

PARTITIONS: Final = 1024


def partition_of(sid: Sid) -> int:
    """Return the partition of a session, 0 .. `PARTITIONS` - 1."""
    return sid[0] << 2 | sid[1] >> 6


class PartitionSums:
    """The sums of all partitions that hold anything."""

    __slots__ = ("_sums",)

    def __init__(self) -> None:
        self._sums = [0] * PARTITIONS

    def replace(self, sid: Sid, old_hash: int, new_hash: int) -> None:
        """Account for one record that changed; 0 stands for no record."""
        partition = sid[0] << 2 | sid[1] >> 6
        self._sums[partition] = (self._sums[partition] + new_hash - old_hash) & HASH_MASK

    def __getitem__(self, partition: int) -> int:
        return self._sums[partition]
