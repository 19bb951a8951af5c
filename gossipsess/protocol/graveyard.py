# Graveyard: which of the dead are asked again whether they are.
#
# In:    the remembered dead, and the time.    Out: whom to ping now, with the accusation.
# Rule:  every 5 s one of those that died within the last ten minutes, every 30 s one of the older ones.
# Why:   the two sides of a long partition hold each other for dead. Nobody pings the dead, so without this the
#        sides stay islands when the network is whole again, unless a seed or a beacon happens to join them.
#        One answer is enough: it carries the answerer's own record with a higher incarnation.
# Why at random and not in turn: the members of an island ask independently, and find more of the dead together.
# Source: serf's reconnect.
# Not here: how long the dead are remembered (membership.py), and the ping itself (swim.py).

import random
from collections.abc import Container, Iterable
from typing import Final

from gossipsess.model.member import Address, Member, MemberState

ASK_EVERY_S: Final = 5.0
"""Between questions to those that died lately. Smaller: islands join sooner, for more datagrams into the void."""
LATELY_S: Final = 600.0
"""Most partitions and most mistaken verdicts end within this; who stays away longer rarely comes back."""
ASK_OLD_EVERY_S: Final = 30.0
JITTER: Final = 0.2
"""Each wait is stretched or shortened by up to this share: many learn of one death in the same moment."""


class Graveyard:
    """The rhythm in which one node asks the dead."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._next_s: float | None = None  # None while nobody is dead
        self._old_from_s = 0.0

    def died(self, now_s: float) -> None:
        """Note that somebody died, just now or long ago as this node hears only now."""
        if self._next_s is None:
            self._next_s = now_s + self._wait_s()

    def close(self) -> None:
        """Ask nobody any more."""
        self._next_s = None

    def next_deadline(self) -> float | None:
        """Return when due() has something to return; None while nobody is dead."""
        return self._next_s

    def due(self, ended: Iterable[tuple[Member, float]], taken: Container[Address], now_s: float) -> list[Member]:
        """Return whom to ask now, two members at most.

        `ended`: the dead and the left, and since when. `taken`: addresses where others live now, so that whoever was
        there before is gone for certain.
        """
        if self._next_s is None or self._next_s > now_s:
            return []
        dead = [(member, since_s) for member, since_s in ended if member.state is MemberState.DEAD]
        self._next_s = now_s + self._wait_s() if dead else None
        lately: list[Member] = []
        old: list[Member] = []
        for member, since_s in dead:
            if member.address not in taken:
                (lately if now_s - since_s < LATELY_S else old).append(member)
        asked = [self._rng.choice(lately)] if lately else []
        if old and self._old_from_s <= now_s:
            self._old_from_s = now_s + ASK_OLD_EVERY_S
            asked.append(self._rng.choice(old))
        return asked

    def _wait_s(self) -> float:
        return ASK_EVERY_S * self._rng.uniform(1 - JITTER, 1 + JITTER)
