# Placement: which members hold a given session.
#
# In:    the members that gossip calls live.    Out: `holders(partition)`.
# Rule:  every live member holds every session (all-to-all).
# The only place that decides this: replication, fetch and sync ask here and know no other rule.
# Of the holders of a partition one is its announcer: it tells its subscribers of what ends by time as the node that
# did it, so that of all the processes that notice one cleans up.

from gossipsess.model.digest import leaf_of
from gossipsess.model.identity import Sid
from gossipsess.model.member import Member


def partition_of(sid: Sid) -> int:
    """Return the partition of a session: four leaves of the table's sums."""
    return leaf_of(sid) >> 2


class Placement:
    """A pure function of the view it was last given."""

    def __init__(self, myself: Member) -> None:
        self._holders: tuple[Member, ...] = (myself,)

    def view_changed(self, live: tuple[Member, ...]) -> None:
        """Take over the live members, this node included, in the order of their node ids."""
        self._holders = live

    def holders(self, partition: int) -> tuple[Member, ...]:
        """Return the members that hold the sessions of a partition."""
        return self._holders

    def announcer(self, partition: int) -> Member:
        """Return the holder of a partition's sessions that announces their expiry; equal views name the same one."""
        holders = self.holders(partition)
        return holders[partition % len(holders)]
