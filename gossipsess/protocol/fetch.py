# Fetch: a request waits for a session that is not held here, or not with the writes its version token names; or whose
# copy here was not confirmed for too long.
#
# In:    who may hold the session, links and members that come and go, answers, records that came in.
# Out:   a `Step`: whom to ask, which waits have ended, which copies a holder has confirmed.
# One holder after the other is asked, and not all at once: nearly always the first one has the session, and each more
# would send all of it again. The next one's turn comes at once when an answer did not help or a link broke, else after
# a hedge. Three answers are never confused: present, absent (all who had to be asked have said so), and unknown.
# Not here: who holds what (placement.py), sending, and what becomes of copies afterwards.

from collections.abc import Iterable
from typing import Final, NamedTuple

from gossipsess.model.identity import NodeId, Sid
from gossipsess.model.record import Record, empty_record
from gossipsess.protocol.effects import Settle
from gossipsess.protocol.events import Dot, Waiter
from gossipsess.protocol.outcomes import Found
from gossipsess.wire.messages import Gap, Pull, PullAnswer

FETCH_TIMEOUT_S: Final = 0.15
HEDGE_S: Final = 0.015
"""How long a node that is asked has to itself. Longer: a paused holder delays more. Shorter: whoever is merely busy is
not waited for, and a session is sent twice."""
FETCHES_MAX: Final = 1024
"""Waiting requests. Each costs some messages; a client that sends made-up ids is the one who could fill it, and
beyond it such a request is answered `UNKNOWN` at once."""


class Candidates(NamedTuple):
    """The live members that may hold a session, this node left out, none of them twice."""

    holders: tuple[NodeId, ...]
    """Those that placement gives it, in rank order, with a link or without."""
    origins: tuple[NodeId, ...] = ()
    """Those that made a write that is asked for and missing here, and are no holders."""
    others: tuple[NodeId, ...] = ()
    """All the rest: asked where a holder does not have everything, or none is left."""
    complete: bool = False
    """This node is synced: it has met everybody, so that together with it these are all who can hold the session."""


class Step(NamedTuple):
    """What follows."""

    asks: tuple[tuple[NodeId, Pull], ...] = ()
    """Whom to ask what. All of them have a link."""
    settled: tuple[Settle, ...] = ()
    validated: tuple[Sid, ...] = ()
    """Sessions held here of which a holder has just said that it holds them, too; what it had more came before."""


class _Waiting:
    __slots__ = (
        "answers",
        "complete",
        "deadline_s",
        "dots",
        "doubtful",
        "held",
        "holders",
        "named",
        "origins",
        "orphaned",
        "others",
        "over",
        "queue",
        "sid",
        "spread",
        "validate",
        "waiter",
    )

    def __init__(self, sid: Sid, dots: tuple[Dot, ...], waiter: Waiter, deadline_s: float) -> None:
        self.sid = sid
        self.dots = dots
        self.waiter = waiter
        self.deadline_s = deadline_s
        self.holders: dict[NodeId, None] = {}
        self.origins: dict[NodeId, None] = {}
        self.others: dict[NodeId, None] = {}
        self.queue: dict[NodeId, None] = {}
        """Not asked yet, in the order of their turns."""
        self.answers: dict[NodeId, PullAnswer | None] = {}
        """Of all who were asked; None while there is no answer."""
        self.named: dict[NodeId, None] = {}
        """Who was asked for what the copy here lacks: one that holds the same sends nothing."""
        self.over: set[NodeId] = set()
        """Of whom a state came that is over by this node's time."""
        self.complete = False
        self.doubtful = False
        self.validate = False
        self.held = False
        """Somebody has said that the session is held there."""
        self.orphaned = False
        """A holder died without having said no: it may have been the only one of them that had heard of the session."""
        self.spread = False
        """The others are, or were, in the queue too."""

    def awaits(self, node: NodeId) -> bool:
        """Say whether a node was asked and has not answered."""
        return node in self.answers and self.answers[node] is None

    def unsure(self) -> bool:
        """Say whether the holders' no is not enough: one lacks the session and more, or has died, or there is none."""
        if self.validate:
            return False  # no surplus copy elsewhere could confirm the one here
        if self.orphaned:
            return True
        answers = [self.answers.get(node) for node in self.holders]
        return not answers or any(answer is not None and not (answer.held or answer.synced) for answer in answers)

    def forget(self, node: NodeId) -> bool:
        """Strike out a node that is no more; say whether it was one of the candidates."""
        known = node in self.holders or node in self.origins or node in self.others
        for group in (self.holders, self.origins, self.others, self.queue, self.answers, self.named):
            group.pop(node, None)
        return known

    def copy_ended(self) -> None:
        """Ask on as for a session that was never here: its writers, too, and once more who holds it as it was here."""
        self.validate = False
        for origin, _ in self.dots:
            if origin in self.others:
                del self.others[origin]
                self.origins[origin] = self.queue[origin] = None
        again = {node: None for node in self.named if (answer := self.answers.get(node)) is not None and answer.held}
        for node in again:
            del self.answers[node], self.named[node]
        self.queue = {**again, **self.queue}
        self.held = any(answer is not None and answer.held for answer in self.answers.values())


def satisfies(record: Record | None, dots: Iterable[Dot]) -> bool:
    """Say whether a record is held that contains every one of these writes."""
    return record is not None and all(record.contains(origin, stamp) for origin, stamp in dots)


def _without(doubtful: bool) -> Found:
    return Found.UNKNOWN if doubtful else Found.ABSENT


class Fetches:
    """Every request of this node that waits for a session.

    Events: start(), answered(), merged(), linked(), unlinked(), holder_lost(), timeout(). `held_here` is always the
    records held at that moment; times are seconds of the caller's monotonic clock.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, _Waiting] = {}  # by request number; all wait equally long
        self._of_sid: dict[Sid, list[int]] = {}
        self._hedges: dict[int, float] = {}  # request -> when the next one's turn comes; the earliest first
        self._linked: dict[NodeId, None] = {}
        self._request = 0

    def start(
        self,
        sid: Sid,
        dots: tuple[Dot, ...],
        waiter: Waiter,
        candidates: Candidates,
        held_here: dict[Sid, Record],
        now_s: float,
        *,
        doubtful: bool = False,
        validate: bool = False,
    ) -> Step | Found:
        """Begin a wait, and return whom to ask; or the outcome where there is nothing to wait for.

        `doubtful`: somebody who cannot be asked may hold the session, so that nobody's no makes it absent. To take
        it for absent would end a login. `validate`: the record here contains the writes, and is to be confirmed by a
        holder: `FRESH` when one holds it too, with whatever that one had more; else `STALE`, also where a token's
        writes are in it. A token tells what its client has seen; that nobody has ended the session since, only a
        holder can tell.
        """
        waiting = _Waiting(sid, dots, waiter, now_s + FETCH_TIMEOUT_S)
        waiting.validate = validate
        waiting.doubtful = doubtful
        waiting.complete = candidates.complete
        waiting.holders = dict.fromkeys(candidates.holders)
        # A copy is confirmed by holders only; the others are asked should it end meanwhile.
        waiting.origins = {} if validate else dict.fromkeys(candidates.origins)
        waiting.others = dict.fromkeys((*candidates.origins, *candidates.others) if validate else candidates.others)
        here = held_here.get(sid)
        wrote = [origin for origin, stamp in dots if here is None or not here.contains(origin, stamp)]
        ranked = sorted(waiting.holders, key=lambda node: node not in wrote)  # the order is kept where that is equal
        waiting.queue = dict.fromkeys((*ranked, *waiting.origins))
        found = self._verdict(waiting, held_here)
        if found is not None:
            return found
        if len(self._waiting) >= FETCHES_MAX:
            return Found.STALE if sid in held_here else Found.UNKNOWN
        self._request += 1
        self._waiting[self._request] = waiting
        self._of_sid.setdefault(sid, []).append(self._request)
        return Step(tuple(self._go_on(self._request, held_here, now_s)))

    def answered(self, peer: NodeId, answer: PullAnswer, held_here: dict[Sid, Record], now_s: float) -> Step:
        """Take the verdict of somebody who was asked: end the wait, or go on to the next at once.

        An answer comes after the records it speaks of. Where they were lost or overtaken, the wait goes on, and a copy
        that was to be confirmed counts as confirmed without them: it still contains what was asked for.
        """
        waiting = self._waiting.get(answer.request)
        if waiting is None or not waiting.awaits(peer):
            return Step()
        if peer in waiting.over:
            answer = answer._replace(held=False)
        waiting.answers[peer] = answer
        waiting.held = waiting.held or answer.held
        if waiting.named and waiting.sid not in held_here:
            waiting.copy_ended()
        validated = answer.held and peer in waiting.holders and waiting.sid in held_here
        found = Found.FRESH if validated and waiting.validate else self._verdict(waiting, held_here)
        sids = (waiting.sid,) if validated else ()
        if found is not None:
            return Step((), (self._end(answer.request, found),), sids)
        return Step(tuple(self._go_on(answer.request, held_here, now_s)), (), sids)

    def refused(self, peer: NodeId, record: Record) -> None:
        """What a peer sent of this session is over by this node's time: that it is held there is no reason to wait.

        Unless it lacks what the client has seen: then it was on its way before, and the peer's answer is about more.
        """
        for request in self._of_sid.get(record.sid, ()):
            if satisfies(record, self._waiting[request].dots):
                self._waiting[request].over.add(peer)

    def asked(self, peer: NodeId, sid: Sid) -> bool:
        """Say whether a peer was asked for a session, and has not answered yet."""
        return any(self._waiting[request].awaits(peer) for request in self._of_sid.get(sid, ()))

    def merged(self, record: Record) -> list[Settle]:
        """A state of this session came in: end the waits that it satisfies.

        Where a copy is to be confirmed the answer does that, which follows; unless the session is over.
        """
        done = [
            request
            for request in self._of_sid.get(record.sid, ())
            if record.tombstone
            or (not self._waiting[request].validate and satisfies(record, self._waiting[request].dots))
        ]
        return [self._end(request, Found.FRESH) for request in done]

    def linked(self, peer: NodeId, held_here: dict[Sid, Record], now_s: float) -> Step:
        """A link to a live member is in use, maybe in place of another: ask what that one took with it.

        Who was not asked yet is asked where it is the next one's turn, and waits for its own otherwise.
        """
        self._linked[peer] = None
        asks: list[tuple[NodeId, Pull]] = []
        for request, waiting in self._waiting.items():
            if waiting.awaits(peer):
                asks.append((peer, self._pull(request, peer, held_here)))
            elif peer in waiting.queue and request not in self._hedges:
                asks += self._go_on(request, held_here, now_s)
        return Step(tuple(asks))

    def unlinked(self, peer: NodeId, held_here: dict[Sid, Record], now_s: float) -> Step:
        """The link to a member is lost: who waits for its answer goes on to the next, and may hear from it yet."""
        if peer not in self._linked:
            return Step()
        del self._linked[peer]
        asks: list[tuple[NodeId, Pull]] = []
        for request, waiting in self._waiting.items():
            if waiting.awaits(peer):
                asks += self._go_on(request, held_here, now_s)
        return Step(tuple(asks))

    def holder_lost(self, peer: NodeId, held_here: dict[Sid, Record], now_s: float, *, died: bool) -> Step:
        """A member is no more: nobody waits for it. Where it `died`, its writes may have died with it."""
        self._linked.pop(peer, None)
        asks: list[tuple[NodeId, Pull]] = []
        settled: list[Settle] = []
        for request, waiting in list(self._waiting.items()):
            awaited = waiting.awaits(peer)
            answer = waiting.answers.get(peer)
            if died and peer in waiting.holders and (answer is None or answer.held or not answer.synced):
                waiting.orphaned = True
            if not waiting.forget(peer):
                continue
            if died and any(origin == peer for origin, _ in waiting.dots):
                waiting.doubtful = True
            if waiting.named and waiting.sid not in held_here:
                waiting.copy_ended()
            found = self._verdict(waiting, held_here)
            if found is not None:
                settled.append(self._end(request, found))
            elif awaited or request not in self._hedges:
                asks += self._go_on(request, held_here, now_s)
        return Step(tuple(asks), tuple(settled))

    def next_deadline(self) -> float | None:
        """Return when the oldest wait ends, or the next one is to be asked."""
        deadline_s = next((waiting.deadline_s for waiting in self._waiting.values()), None)
        hedge_s = next(iter(self._hedges.values()), None)
        return deadline_s if hedge_s is None or deadline_s is None else min(deadline_s, hedge_s)

    def timeout(self, held_here: dict[Sid, Record], now_s: float) -> Step:
        """End every wait that is due, and ask the next one where the last one is slow."""
        settled: list[Settle] = []
        for request, waiting in list(self._waiting.items()):
            if waiting.deadline_s > now_s:
                break
            settled.append(self._end(request, Found.STALE if waiting.sid in held_here else Found.UNKNOWN))
        asks: list[tuple[NodeId, Pull]] = []
        for request, due_s in list(self._hedges.items()):
            if due_s > now_s:
                break
            asks += self._go_on(request, held_here, now_s)
        return Step(tuple(asks), tuple(settled))

    # --- inside -------------------------------------------------------------------------------------------

    def _go_on(self, request: int, held_here: dict[Sid, Record], now_s: float) -> list[tuple[NodeId, Pull]]:
        """Ask whose turn it is: the next one that has a link; the others, where they are needed, all at once."""
        waiting = self._waiting[request]
        able = [node for node in waiting.queue if node in self._linked]
        if not able and not waiting.spread and waiting.unsure():
            waiting.spread = True
            waiting.queue.update(waiting.others)
            able = [node for node in waiting.queue if node in self._linked]
        turn = able if waiting.spread else able[:1]
        # Without an entry everybody who has a link was asked; the next link that comes up is asked at once.
        self._hedges.pop(request, None)
        if turn and not waiting.spread:
            self._hedges[request] = now_s + HEDGE_S
        for node in turn:
            del waiting.queue[node]
            waiting.answers[node] = None
        return [(node, self._pull(request, node, held_here)) for node in turn]

    def _pull(self, request: int, node: NodeId, held_here: dict[Sid, Record]) -> Pull:
        waiting = self._waiting[request]
        sid = waiting.sid
        if sid in held_here:
            waiting.named[node] = None
        record = held_here.get(sid) or empty_record(sid)  # as it is now: what came meanwhile need not come again
        return Pull(request, (Gap(sid, record.claims, record.state_hash),))

    def _verdict(self, waiting: _Waiting, held_here: dict[Sid, Record]) -> Found | None:
        """Return what the answers come to once all who have to be asked have given theirs; None before."""
        unsure = waiting.unsure()
        needed = [*waiting.holders, *waiting.origins, *(waiting.others if unsure else ())]
        if any(waiting.answers.get(node) is None for node in needed):
            return None
        unmet = unsure and not waiting.complete
        if unmet and needed:
            return None  # somebody whom only the unsynced know may have it: their syncs, or this node's, may bring it
        if waiting.sid in held_here:
            return Found.STALE
        # Held there but not here: the record itself is still on the way.
        return None if waiting.held else _without(waiting.doubtful or unmet)

    def _end(self, request: int, found: Found) -> Settle:
        waiting = self._waiting.pop(request)
        self._hedges.pop(request, None)
        requests = self._of_sid[waiting.sid]
        requests.remove(request)
        if not requests:
            del self._of_sid[waiting.sid]
        return Settle(waiting.waiter, found)
