# Placement: which members hold a given session.
#
# In:    the members that gossip calls live.    Out: `holders(partition)`.
# Rule:  every live member holds every session (all-to-all).
# The only place that decides this: replication, fetch and sync ask here and know no other rule.

from gossipsess.model.member import Member


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
