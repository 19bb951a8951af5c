# Views: do two linked members place sessions alike, and when do they tell each other everyone they know?
#
# In:    the tags of the layouts (placement.py) here and in a peer's probes.    Out: the peer to exchange lists with.
# Rule:  a peer whose probes differ from here twice in succession, and one peer at random each minute; with each
#        peer at most once in 5 s, whoever of the two began. Who is asked answers with its own list; where both
#        ask at the same moment each has the other's list in the question, and nobody answers.
# Why:   gossip sends each update only so often. What a member misses it would never hear, and would place
#        sessions, and wait for confirmations, by another view than the others.
# Why twice: news takes a few gossip rounds, and the layouts differ meanwhile.
# Not here: what a list means to who hears it (swim.py), and sending (replica.py).

import random
from collections.abc import Iterable
from typing import Final

from gossipsess.model.identity import NodeId

MEMBER_SYNC_EVERY_S: Final = 60.0
"""Between exchanges without a reason, which find what the tags do not show."""
MEMBER_SYNC_PEER_S: Final = 5.0
"""At most one exchange with a peer in this time: while two judge a third differently, each probe would ask for one."""
JITTER: Final = 0.2


class Views:
    """Which of one node's peers see it otherwise, and when it last exchanged lists with each."""

    def __init__(self, *, rng: random.Random, now_s: float) -> None:
        self._rng = rng
        self._differs: dict[NodeId, None] = {}  # peers whose last probe showed another view
        self._exchanged_at_s: dict[NodeId, float] = {}
        # Anywhere within the first interval, or nodes that started together would ask in step for ever.
        self._next_s = now_s + rng.random() * MEMBER_SYNC_EVERY_S

    def heard(self, peer: NodeId, theirs: int, mine: int, now_s: float) -> bool:
        """Compare the tag in a linked peer's probe with this node's; True: exchange lists with it now."""
        if theirs == mine:
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
