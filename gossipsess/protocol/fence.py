# Fence: after a partition longer than tombstones are kept, a logout stays a logout.
#
# In:    links that come up and go down, syncs that end, what a peer's Hello says of its data's age, and its lists of
#        whom it has met.
# Out:   whether a record that comes over a link may be taken in.
# Rule:  a pair of nodes that was apart for more than `FENCE_MS` is fenced until a sync over its new link has ended.
#        What comes over a fenced link, is unknown here and was created more than `FENCE_MS` ago is refused: its
#        tombstone may have been here, and dropped. A younger session's tombstone would still be here. A session is
#        as old as its user's login: a rotation makes a young session of it, and the user's revocation may be dropped.
# Apart: since the pair's last link, or since one of them was in touch with somebody who was then in touch with the
#        other, whichever is later. Where there was neither, since the younger of the two lineages began: data
#        that is younger than the fence holds nothing that was forgotten elsewhere. A lineage is older than its node:
#        who joins takes over the sessions of others, and with them their age, and whom they have met.
# Why links and not who is live: a node comes back to the view by one datagram, before its sessions were looked at.
# Why refuse, and not ask the user's other copies: they are as old, and nobody remembers. A login too many is
#        bearable, a logout undone is not.
# All times are cluster time: a machine that was suspended has been apart for that long too.
# Not here: the tombstone that answers what is refused (intake.py).

from collections.abc import Iterable
from typing import Final

from gossipsess.model.clock import time_ms_of
from gossipsess.model.delta import Delta
from gossipsess.model.identity import NodeId
from gossipsess.model.record import CREATED, USER, Entry
from gossipsess.model.revocation import login_of

FENCE_MS: Final = 23 * 3600 * 1000
"""An hour less than tombstones are kept, so that no clock, and no death noticed late, opens a gap between the two."""
INHERIT_AFTER_MS: Final = 60_000
"""How long after a sync its peer's age is taken over. At once, a joiner's next links, which come up in the same
second, would be taken for a reunion after a long time."""
PARTED_MAX: Final = 1024
"""Nodes without a link remembered, some 100 KB; each restart of a peer leaves one. Of more the longest apart are
forgotten, and count as never met."""


class _Link:
    __slots__ = ("fenced", "parted_ms", "since_ms", "synced")

    def __init__(self, since_ms: int, parted_ms: int, time_ms: int) -> None:
        self.since_ms = since_ms
        self.parted_ms = parted_ms
        self.fenced = time_ms - parted_ms > FENCE_MS
        self.synced = False


class Fence:
    """What one node knows of how long it was apart from others."""

    def __init__(self, time_ms: int) -> None:
        self._since_ms = time_ms
        self._heir_to: tuple[int, int] | None = None  # (since when, from when on)
        self._links: dict[NodeId, _Link] = {}
        self._parted: dict[NodeId, int] = {}  # no link -> when in touch last

    def since_ms(self, time_ms: int) -> int:
        """Return when the lineage of the data held here began, for the Hello."""
        if self._heir_to is not None and self._heir_to[1] <= time_ms:
            self._since_ms, self._heir_to = self._heir_to[0], None
        return self._since_ms

    def inherit(self, since_ms: int) -> None:
        """Data whose lineage began then is held here from now on."""
        self._since_ms = min(self._since_ms, since_ms)

    def link_up(self, node: NodeId, since_ms: int, time_ms: int) -> bool:
        """A link to a node, whose data began at `since_ms`, is in use; return whether it is fenced."""
        link = self._links.get(node)  # one that replaces another brings nobody together
        if link is None:
            parted_ms = max(self._parted.pop(node, 0), self.since_ms(time_ms), since_ms)
            link = self._links[node] = _Link(since_ms, parted_ms, time_ms)
        return link.fenced

    def link_down(self, node: NodeId, time_ms: int) -> None:
        """A node's link ended, or the node itself. A link that was fenced to its end has not brought them together."""
        link = self._links.pop(node, None)
        if link is not None:
            self.met([(node, link.parted_ms if link.fenced else time_ms)])

    def met(self, others: Iterable[tuple[NodeId, int]]) -> None:
        """This node's sessions and those of others were in touch then, over a link or through a third."""
        for node, at_ms in others:
            if node not in self._links and at_ms > self._parted.get(node, 0):
                self._parted[node] = at_ms
        if len(self._parted) > PARTED_MAX:
            self._parted = dict(sorted(self._parted.items(), key=lambda one: one[1])[-PARTED_MAX:])

    def is_fenced(self, node: NodeId) -> bool:
        """Say whether a node's link is fenced, or it has none: whom such a node has met says nothing of this one."""
        link = self._links.get(node)
        return link is None or link.fenced

    def apart_ms(self, node: NodeId, time_ms: int) -> int:
        """Return for how long a node's sessions and those here have not been in touch; 0 while they are.

        Of a node never met that is since 1970. The hearer may be older than this node, whose own age says nothing then.
        """
        link = self._links.get(node)
        if link is not None:
            return time_ms - link.parted_ms if link.fenced else 0
        return time_ms - self._parted.get(node, 0)

    def synced(self, node: NodeId, time_ms: int) -> None:
        """All that a linked node holds has been looked at."""
        link = self._links.get(node)
        if link is None or link.synced:
            return
        link.synced, link.fenced = True, False
        if link.since_ms < (self._heir_to[0] if self._heir_to is not None else self._since_ms):
            self._heir_to = (link.since_ms, time_ms + INHERIT_AFTER_MS)

    def refuses(self, node: NodeId, delta: Delta, time_ms: int) -> bool:
        """Say whether a node's delta of a session that is unknown here must not be taken in."""
        if not self._links[node].fenced or delta.tombstone or delta.base_claims or delta.base_hash:
            return False  # a delta over a base is no whole record: it is a gap here, and is asked for
        logins = [
            login_of(Entry(stamp, origin, value, 0)) for key, stamp, origin, value in delta.entries if key == USER
        ]
        began_ms = min([created_ms(delta), *[time_ms_of(login.stamp) for login in logins if login is not None]])
        return time_ms - began_ms > FENCE_MS


def created_ms(delta: Delta) -> int:
    """Return when the session of a whole record was created, or rotated last; cluster time."""
    return time_ms_of(max((stamp for key, stamp, _, _ in delta.entries if key == CREATED), default=0))
