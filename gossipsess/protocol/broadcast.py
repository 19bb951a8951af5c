# Broadcast: updates that still have to be passed on, and what fits into one datagram.
#
# In:    every record that was news here.    Out: the updates for the next message, whatever it is.
# Rule:  one update per node, the newest; the least sent goes first; after 4 * ceil(log10(N + 1)) sends it
#        has, with high probability, reached everyone, and is dropped.
# Why piggyback: an update costs no datagram of its own while probes run anyway (SWIM, section 4.1).
# Not here: when to gossip, and to whom (swim.py).

from collections.abc import Iterable
from heapq import nsmallest
from math import ceil, log10

from gossipsess.model.identity import NodeId
from gossipsess.model.member import Member

# memberlist's default. Under 20 % loss each hop then still gets through with probability above 0.998.
SENDS_PER_DIGIT = 4
# Keeps a sealed datagram under 1200 bytes, which every path carries whole: some 200 bytes are left for the
# seal, the message's own fields and the encoding. Seven or eight updates with names of usual length.
UPDATE_BYTES_MAX = 1000
# Upper bound for what one update needs beside its texts: id, incarnation, state, port, type and length bytes.
_UPDATE_FIXED_BYTES = 40


def sends_wanted(member_count: int) -> int:
    """Return how often each update is sent by each node that has it; `member_count` includes this node."""
    return SENDS_PER_DIGIT * ceil(log10(member_count + 1))


def update_bytes(member: Member) -> int:
    """Return an upper bound for the encoded size of one update."""
    texts = (member.address[0], member.name, member.host, member.zone)
    return _UPDATE_FIXED_BYTES + sum(len(text.encode()) for text in texts)


class Broadcast:
    """The pending updates. False when there are none."""

    def __init__(self) -> None:
        self._pending: dict[NodeId, tuple[Member, int]] = {}  # node -> (newest record, times sent)

    def __bool__(self) -> bool:
        return bool(self._pending)

    def add(self, member: Member) -> None:
        """Pass `member` on from now on, in place of anything older about the same node.

        A record too large for any datagram is left to the lists of Hellos.
        """
        if update_bytes(member) <= UPDATE_BYTES_MAX:
            self._pending[member.node] = (member, 0)

    def clear(self) -> None:
        """Drop everything: nobody is left to hear it, and who joins later gets the whole view."""
        self._pending.clear()

    def take(self, first: Iterable[Member], member_count: int) -> tuple[Member, ...]:
        """Return the updates for one message, at most `UPDATE_BYTES_MAX`: `first`, then pending ones."""
        chosen: dict[NodeId, Member] = {}
        room = UPDATE_BYTES_MAX
        for member in first:
            if update_bytes(member) <= room:
                chosen[member.node] = member
                room -= update_bytes(member)
        most = UPDATE_BYTES_MAX // _UPDATE_FIXED_BYTES
        for member, sent in nsmallest(most, self._pending.values(), key=lambda pending: pending[1]):
            if member.node not in chosen:
                if update_bytes(member) > room:
                    continue
                chosen[member.node] = member
                room -= update_bytes(member)
            self._sent(member, sent + 1, member_count)
        return tuple(chosen.values())

    def _sent(self, member: Member, times: int, member_count: int) -> None:
        if times >= sends_wanted(member_count):
            del self._pending[member.node]
        else:
            self._pending[member.node] = (member, times)
