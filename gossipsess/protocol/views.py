# Views: do two linked members see the same cluster, and when do they tell each other everyone they know?
#
# In:    the live members here, the view hash in each probe of a peer.    Out: the peer to exchange lists with.
# Rule:  a peer whose probes differ from here twice in succession, and one peer at random each minute; with each
#        peer at most once in 5 s, whoever of the two began. Who is asked answers with its own list; where both
#        ask at the same moment each has the other's list in the question, and nobody answers.
# Why:   gossip sends each update only so often. What a member misses it would never hear, and would place
#        sessions, and wait for confirmations, by another view than the others.
# Why twice: news takes a few gossip rounds, and the views differ meanwhile.
# Why a hash of node ids alone: states and incarnations change with every suspicion, and are nobody's placement.
# Not here: what a list means to who hears it (swim.py), and sending (replica.py).

import random
from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

from gossipsess.model.identity import NodeId

MEMBER_SYNC_EVERY_S: Final = 60.0
"""Between exchanges without a reason, which find what the hash of the live members does not show."""
MEMBER_SYNC_PEER_S: Final = 5.0
"""At most one exchange with a peer in this time: while two judge a third differently, each probe would ask for one."""
JITTER: Final = 0.2
_HASH_BYTES: Final = 4


def view_hash(nodes: Iterable[NodeId]) -> int:
    """Return 32 bits that stand for a set of nodes."""
    return int.from_bytes(blake2b(b"".join(sorted(nodes)), digest_size=_HASH_BYTES).digest(), "big")


class Views:
    """One node's view, as a hash, beside those of its peers."""

    def __init__(self, myself: NodeId, *, rng: random.Random, now_s: float) -> None:
        self.hash = view_hash((myself,))
        """This node's live members, itself included."""
        self._rng = rng
        self._differs: dict[NodeId, None] = {}  # peers whose last probe showed another view
        self._exchanged_at_s: dict[NodeId, float] = {}
        # Anywhere within the first interval, or nodes that started together would ask in step for ever.
        self._next_s = now_s + rng.random() * MEMBER_SYNC_EVERY_S

    def changed(self, live: Iterable[NodeId]) -> None:
        """Take over who is live, this node included."""
        self.hash = view_hash(live)

    def heard(self, peer: NodeId, view: int, now_s: float) -> bool:
        """Compare with what a linked peer's probe shows; True: exchange lists with it now."""
        if view == self.hash:
            self._differs.pop(peer, None)
            return False
        if peer not in self._differs:
            self._differs[peer] = None
            return False
        return self.exchange(peer, now_s)

    def exchange(self, peer: NodeId, now_s: float) -> bool:
        """Begin or answer an exchange with a linked peer; False where the last one is too young."""
        last_s = self._exchanged_at_s.get(peer)
        if last_s is not None and now_s - last_s < MEMBER_SYNC_PEER_S:
            return False
        self._exchanged_at_s[peer] = now_s
        self._differs.pop(peer, None)
        return True

    def gone(self, peer: NodeId) -> None:
        """Forget a peer that is not live any more."""
        self._differs.pop(peer, None)
        self._exchanged_at_s.pop(peer, None)

    def next_deadline(self) -> float:
        """Return when timeout() wants to be called."""
        return self._next_s

    def timeout(self, linked: Iterable[NodeId], now_s: float) -> NodeId | None:
        """Return the linked peer to exchange lists with because it is time; None when it is not, or nobody is there."""
        if self._next_s > now_s:
            return None
        self._next_s = now_s + MEMBER_SYNC_EVERY_S * self._rng.uniform(1 - JITTER, 1 + JITTER)
        peers = sorted(linked)
        peer = self._rng.choice(peers) if peers else None
        return peer if peer is not None and self.exchange(peer, now_s) else None
