# Fetch: a request waits for a session that is not held here, or not with the writes its version token names.
#
# Every other holder is asked at once; the wait ends with the first state that contains what was asked for. Three
# answers are never confused: present, absent (every holder that is live has everything, and not this session),
# and unknown.

from collections.abc import Iterable, Mapping
from typing import Final

from gossipsess.model.identity import NodeId, Sid
from gossipsess.model.record import Record, empty_record
from gossipsess.protocol.effects import Settle
from gossipsess.protocol.events import Dot, Waiter
from gossipsess.protocol.outcomes import Found
from gossipsess.wire.messages import Gap, Pull, PullAnswer

FETCH_TIMEOUT_S: Final = 0.15
FETCHES_MAX: Final = 1024
"""Waiting requests. Each costs a message to every holder; a client that sends made-up ids is the one who could
fill it, and beyond it such a request is answered `UNKNOWN` at once."""


class _Waiting:
    __slots__ = ("asked", "deadline_s", "dots", "doubtful", "heard", "held", "sid", "waiter")

    def __init__(self, sid: Sid, dots: tuple[Dot, ...], waiter: Waiter, deadline_s: float) -> None:
        self.sid = sid
        self.dots = dots
        self.waiter = waiter
        self.deadline_s = deadline_s
        self.asked: dict[NodeId, None] = {}
        self.heard: dict[NodeId, None] = {}
        self.held = False
        self.doubtful = False


def satisfies(record: Record | None, dots: Iterable[Dot]) -> bool:
    """Say whether a record is held that contains every one of these writes."""
    return record is not None and all(record.contains(origin, stamp) for origin, stamp in dots)


def _without(doubtful: bool) -> Found:
    return Found.UNKNOWN if doubtful else Found.ABSENT


class Fetches:
    """Every request of this node that waits for a session."""

    def __init__(self) -> None:
        self._waiting: dict[int, _Waiting] = {}  # by request number; all wait equally long
        self._of_sid: dict[Sid, list[int]] = {}
        self._request = 0

    def start(
        self,
        sid: Sid,
        dots: tuple[Dot, ...],
        waiter: Waiter,
        record: Record,
        holders: tuple[NodeId, ...],
        *,
        doubtful: bool,
        now_s: float,
    ) -> Pull | Found:
        """Begin a wait, and return what to ask every holder; or the outcome where there is nothing to wait for.

        `doubtful`: somebody who cannot be asked may hold the session, so that nobody's no makes it absent. To take
        it for absent would end a login.
        """
        held = bool(record.entries or record.tombstone)
        if not holders:
            return Found.STALE if held else _without(doubtful)
        if len(self._waiting) >= FETCHES_MAX:
            return Found.STALE if held else Found.UNKNOWN
        self._request += 1
        waiting = _Waiting(sid, dots, waiter, now_s + FETCH_TIMEOUT_S)
        waiting.asked = dict.fromkeys(holders)
        waiting.doubtful = doubtful
        self._waiting[self._request] = waiting
        self._of_sid.setdefault(sid, []).append(self._request)
        return Pull(self._request, (Gap(sid, record.claims, record.state_hash),))

    def unheard(self, peer: NodeId, held_here: Mapping[Sid, Record]) -> list[Pull]:
        """Return what to ask a holder again: over a link that ended its answers are lost."""
        pulls: list[Pull] = []
        for request, waiting in self._waiting.items():
            if peer in waiting.asked and peer not in waiting.heard:
                record = held_here.get(waiting.sid) or empty_record(waiting.sid)
                pulls.append(Pull(request, (Gap(waiting.sid, record.claims, record.state_hash),)))
        return pulls

    def merged(self, record: Record) -> list[Settle]:
        """A state of this session came in: end the waits that it satisfies."""
        if record.sid not in self._of_sid:
            return []
        done = [request for request in self._of_sid[record.sid] if satisfies(record, self._waiting[request].dots)]
        return [self._end(request, Found.FRESH) for request in done]

    def answered(self, peer: NodeId, answer: PullAnswer, held_here: dict[Sid, Record]) -> list[Settle]:
        """Note one holder's verdict; when the last one is in, end the wait."""
        waiting = self._waiting.get(answer.request)
        if waiting is None or peer not in waiting.asked:
            return []
        if answer.held:
            waiting.held = True
        if answer.held or answer.synced:
            waiting.heard[peer] = None
        if len(waiting.heard) < len(waiting.asked):
            return []
        if waiting.sid in held_here:
            return [self._end(answer.request, Found.STALE)]
        # Held there but not here: the record itself is still on the way.
        return [] if waiting.held else [self._end(answer.request, _without(waiting.doubtful))]

    def holder_lost(self, peer: NodeId, held_here: dict[Sid, Record], *, died: bool, synced: bool) -> list[Settle]:
        """A holder is no more: nobody waits for it. `synced`: this node has met those who have everything."""
        settled: list[Settle] = []
        for request, waiting in list(self._waiting.items()):
            if peer not in waiting.asked:
                continue
            del waiting.asked[peer]
            waiting.heard.pop(peer, None)
            wrote = any(origin == peer for origin, _ in waiting.dots)
            if (died and wrote) or not (waiting.asked or synced):
                waiting.doubtful = True
            if len(waiting.heard) >= len(waiting.asked) and not waiting.held:
                found = Found.STALE if waiting.sid in held_here else _without(waiting.doubtful)
                settled.append(self._end(request, found))
        return settled

    def next_deadline(self) -> float | None:
        """Return when the oldest wait ends."""
        return next((waiting.deadline_s for waiting in self._waiting.values()), None)

    def timeout(self, held_here: dict[Sid, Record], now_s: float) -> list[Settle]:
        """End every wait that is due."""
        settled: list[Settle] = []
        for request, waiting in list(self._waiting.items()):
            if waiting.deadline_s > now_s:
                break
            settled.append(self._end(request, Found.STALE if waiting.sid in held_here else Found.UNKNOWN))
        return settled

    def _end(self, request: int, found: Found) -> Settle:
        waiting = self._waiting.pop(request)
        requests = self._of_sid[waiting.sid]
        requests.remove(request)
        if not requests:
            del self._of_sid[waiting.sid]
        return Settle(waiting.waiter, found)
