# Pace: which sessions are sent to one peer so often that they rest between two sends.
#
# A session that is written all the time (a counter, a script that polls) would otherwise be in every push: its
# writes are merged by every peer hundreds of times a second, for states that nobody will look at. What has been
# sent 20 times within a second is hot: from there on it goes with the next beat, one each 50 ms, until two beats
# went by without it. One beat for all hot sessions of a peer, not one each: then there is one deadline to keep, and
# they travel together.
# Not here: what is owed meanwhile, and that nothing rests for which a request waits (replication.py).

from collections.abc import Iterable
from typing import Final

from gossipsess.model.identity import Sid

HOT_SENDS: Final = 20
"""Sends within a second after which a session rests."""
HOT_EVERY_S: Final = 0.05
"""How far apart two sends of hot sessions are. Longer: more of an unconfirmed write is lost with a crash."""


class Pace:
    """How often sessions were sent to one peer lately."""

    def __init__(self) -> None:
        self.beat_s = 0.0
        """When hot sessions may be sent again."""
        self._hot: dict[Sid, float] = {}  # when each was sent last
        self._counts: dict[Sid, int] = {}  # sends since the second began; as many at most as a link carries in one
        self._second_ends_s = 0.0

    def rests(self, sid: Sid, due_s: float) -> bool:
        """Say whether a session that would be sent at `due_s` is to wait for the beat."""
        sent_s = self._hot.get(sid)
        return sent_s is not None and self.beat_s > due_s and _is_hot(sent_s, due_s)

    def sent(self, sids: Iterable[Sid], now_s: float) -> None:
        """Count the sessions of one push."""
        if now_s >= self._second_ends_s:
            self._hot = {sid: sent_s for sid, sent_s in self._hot.items() if _is_hot(sent_s, now_s)}
            self._counts = {}
            self._second_ends_s = now_s + 1.0
        counts, hot = self._counts, self._hot
        for sid in sids:
            count = counts[sid] = counts.get(sid, 0) + 1
            if count >= HOT_SENDS or (sid in hot and _is_hot(hot[sid], now_s)):
                hot[sid] = now_s
        if hot and self.beat_s <= now_s:
            self.beat_s = now_s + HOT_EVERY_S


def _is_hot(sent_s: float, now_s: float) -> bool:
    return now_s - sent_s < 2 * HOT_EVERY_S
