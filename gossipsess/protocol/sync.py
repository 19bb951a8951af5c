# Sync: come to hold everything that one peer holds of some partitions; a repair also gives the peer what it lacks.
#
#   SyncAsk -> SyncSums    the sums of all groups; the leaf sums of those that differ
#   SyncList -> SyncPage   some of the leaves that differ; the sessions in as many of them as fit a page
#   Pull -> Push           what is not held here, or differs; when all of it has come, the next SyncList
#
# One procedure for a joiner, which pulls everything, and for repair, where one session of very many differs. One
# question is outstanding at a time, so a joiner never crowds out the deltas on the same link; what is not answered in
# time is asked for again from the same place.
# Compared are the sums of everything, not of what has settled: a joiner needs all. What is on its way at that moment
# is pulled too, for nothing.
# Scope: the partitions to be compared. Both sides sum up what they have of them, whether they are holders or not; so
# who lost a partition still shows what it has of it. When a sync has ended, the peer has shown all of its scope.
# Pace: what a sync pulls is bounded in bytes a second, beyond a first megabyte. A joiner that pulled as fast as its
# links carry would take its donors' processors from their requests; and asking later is all that it takes.
# Pull only or both ways: when a link comes up each side runs its own sync, and pulling is enough. A repair is run by
# one side alone, and must do for both.
# Not here: which scope, and whom to ask first (gains.py).

import math
from typing import Final, NamedTuple

from gossipsess.model.delta import Delta
from gossipsess.model.digest import GROUP_LEAVES, USERS_SCOPE, in_scope, leaf_of, short_hash
from gossipsess.model.identity import Sid
from gossipsess.model.record import Claims, entry_bytes
from gossipsess.model.table import Table
from gossipsess.wire.messages import Gap, Pull, SyncAsk, SyncList, SyncPage, SyncSums

LEAVES_PER_LIST: Final = 128
"""Leaves asked for at a time. What a page does not answer is sent again: 256 bytes at most."""
SESSIONS_PER_PAGE: Final = 256
"""A page ends after the leaf that reaches this. At 2 KB a session the page's records make half a megabyte."""
ASK_AGAIN_S: Final = 1.0
PULL_BYTES_PER_S: Final = 8_000_000
"""Keys and values pulled in a second: 100,000 sessions of 2 KB in 25 s. Faster: donors answer requests later, for the
longer part of a core; slower: a gainer forwards its misses for longer, and a second death meets fewer copies."""
BURST_BYTES: Final = 1_000_000
"""What is pulled before the bound is felt. A repair needs less, and is never slowed down."""
UNEQUAL_MAX: Final = 4096
"""Sessions remembered as unequal, some 700 KB. Nearly all are equal the next time; the rest waits its turn."""


class Step(NamedTuple):
    """What a sync wants next."""

    message: SyncAsk | SyncList | Pull | None = None
    """To be sent to the peer; None: wait, or it has ended."""
    owed: tuple[tuple[Sid, Claims | None], ...] = ()
    """(session, claims): what the peer lacks is what these claims do not cover; None: all of it. Of a repair only."""
    shown: int = 0
    """A sync has ended: the partitions of which the peer has shown all that it held since they were asked for last."""


class Sync:
    """This node's sync with one peer."""

    def __init__(self) -> None:
        self.completed = False
        """A sync with this peer has run to the end."""
        self.peer_synced = False
        """The peer had everything itself when it ended."""
        self.pulled_bytes = 0
        """Keys and values that came because a sync had asked for them."""
        self.running = False
        self._scope = 0
        self._gives = 0  # of what is in scope, what the peer is given too
        self._shows = 0  # those in scope that nobody has asked for again since it began
        self._again: tuple[int, int] | None = None  # another one follows: its scope, and what of it is given
        self._round = 0
        self._differing: list[int] | None = None  # leaves not yet compared; None until the sums have come
        self._differed = 0  # how many of them there were
        self._free_s = -math.inf  # when what was pulled so far is paid for, at `PULL_BYTES_PER_S`
        self._rests = False  # the next list waits for that
        self._answered = 0  # how many of them the page at hand is about
        self._page_synced = False
        self._missing: dict[Sid, bool] = {}  # what was pulled and has not come; whether as a whole
        self._unequal: dict[Sid, tuple[int, int]] = {}  # (mine, theirs) when last seen to differ
        self._due_s: float | None = None

    @property
    def both_ways(self) -> bool:
        """The one that runs is a repair."""
        return bool(self._gives)

    @property
    def rests(self) -> bool:
        """Nothing is asked for at present, since enough was pulled a moment ago."""
        return self._rests

    @property
    def share(self) -> float:
        """How much of what differed has been compared by now, 0 .. 1; 0 while there are no sums."""
        return 1 - len(self._differing) / self._differed if self._differing else 0.0

    def start(self, table: Table, now_s: float, scope: int, *, both_ways: bool = False) -> Step:
        """Begin, or begin anew once the one that runs has ended; what is asked meanwhile is then one scope.

        What is asked for again is shown by the later one only: the peer may have shown its part of it long ago.

        Args:
            scope: the partitions to be compared, as bits; the revocations always are.
            both_ways: also find what the peer lacks, as a repair does that the peer does not run itself.
        """
        scope |= USERS_SCOPE
        gives = scope if both_ways else 0
        if self.running:
            waiting, given = self._again or (0, 0)
            self._again = (waiting | scope, given | gives)
            self._shows &= ~scope
            return Step()
        return self._begin(table, now_s, scope, gives)

    def stop(self) -> None:
        """The link is lost; the next `start` begins from the front."""
        self.running = False
        self._again = None
        self._rests = False
        self._missing.clear()
        self._due_s = None

    def sums(self, sums: SyncSums, table: Table, now_s: float) -> Step:
        """Take the sums of what differs, and begin with its leaves."""
        if not self.running or sums.round != self._round or self._differing is not None:
            return Step()  # an answer to an ask that was repeated meanwhile
        self._page_synced = sums.synced
        self._differing = [
            leaf
            for group, theirs in sums.groups
            for leaf, total in enumerate(theirs, group * GROUP_LEAVES)
            if table.sums[leaf] != total and in_scope(leaf, self._scope if total else self._gives)
        ]  # of a sum of nothing there is nothing to pull
        self._differed = len(self._differing)
        return self._next(table, now_s)

    def page(self, page: SyncPage, table: Table, now_s: float) -> Step:
        """Take a page; pull what it shows missing, or go on."""
        if not self.running or page.round != self._round or not page.answered:
            return Step()
        if self._missing or self._rests or not self._differing:
            return Step()  # it came before, or nobody asked for one
        wanted: list[Gap] = []
        for sid, state_hash in page.sessions:
            record = table.get(sid)
            mine = short_hash(record.state_hash)
            if mine != state_hash:  # of two tombstones too: the later one must come everywhere
                # Unequal as before, after what the claims did not cover has come: the claims cover too much. That
                # takes a write of this node's own that it has lost, by expiry. Only the whole record can tell.
                unequal = (mine, state_hash)
                whole = self._unequal.get(sid) == unequal
                wanted.append(Gap(sid, None if whole else record.claims, record.state_hash))
                self._missing[sid] = whole
                if len(self._unequal) < UNEQUAL_MAX:
                    self._unequal[sid] = unequal
            else:
                self._unequal.pop(sid, None)
        self._answered = page.answered
        self._page_synced = page.synced
        owed = self._not_in(page, table) if self.both_ways else ()
        if not wanted:
            return self._next(table, now_s)._replace(owed=owed)
        self._due_s = now_s + ASK_AGAIN_S
        return Step(Pull(0, tuple(wanted)), owed)

    def merged(self, delta: Delta, table: Table, now_s: float) -> Step:
        """Note that this peer's state of a session was merged; go on when the page is complete."""
        whole = self._missing.pop(delta.sid, None)
        if whole is None:
            return Step()
        pulled_bytes = sum([entry_bytes(entry[0], entry[3]) for entry in delta.entries])
        self.pulled_bytes += pulled_bytes
        self._free_s = max(self._free_s, now_s - BURST_BYTES / PULL_BYTES_PER_S) + pulled_bytes / PULL_BYTES_PER_S
        owed: tuple[tuple[Sid, Claims | None], ...] = ()
        record = table.records.get(delta.sid)
        if record is not None and record.state_hash == delta.after_hash:
            self._unequal.pop(delta.sid, None)
        given = in_scope(leaf_of(delta.sid), self._gives)
        if given and record is not None and record.state_hash != delta.after_hash:
            owed = ((delta.sid, None if whole else delta.after),)
        if self._missing:
            self._due_s = now_s + ASK_AGAIN_S
            return Step(None, owed)
        return self._next(table, now_s)._replace(owed=owed)

    def next_deadline(self) -> float | None:
        """Return when to ask for more, or again for what did not come."""
        return self._due_s

    def timeout(self, table: Table, now_s: float) -> Step:
        """Ask for what comes next, or again; what has come meanwhile is not asked for twice."""
        if self._due_s is None or now_s < self._due_s:
            return Step()
        self._missing.clear()
        return self._ask(table, now_s) if self._differing is None else self._list(now_s)

    def _begin(self, table: Table, now_s: float, scope: int, gives: int) -> Step:
        self.running = True
        self._gives = gives
        self._scope = self._shows = scope
        self._again = None
        self._differing = None
        self._answered = 0
        return self._ask(table, now_s)

    def _ask(self, table: Table, now_s: float) -> Step:
        self._round += 1
        self._due_s = now_s + ASK_AGAIN_S
        return Step(SyncAsk(self._round, table.sums.of_groups(self._scope), self._scope))

    def _list(self, now_s: float) -> Step:
        assert self._differing, "there is something to ask for"
        self._round += 1
        self._rests = False
        self._answered = 0
        self._due_s = now_s + ASK_AGAIN_S
        return Step(SyncList(self._round, tuple(self._differing[:LEAVES_PER_LIST])))

    def _next(self, table: Table, now_s: float) -> Step:
        assert self._differing is not None, "the sums have come"
        shown = self._shows
        del self._differing[: self._answered]
        self._answered = 0
        if self._differing and self._free_s > now_s:
            self._rests = True
            self._due_s = self._free_s
            return Step()
        if self._differing:
            return self._list(now_s)
        self.completed = True
        self.peer_synced = self._page_synced
        self.running = False
        self._due_s = None
        step = Step() if self._again is None else self._begin(table, now_s, *self._again)
        return step._replace(shown=shown)

    def _not_in(self, page: SyncPage, table: Table) -> tuple[tuple[Sid, None], ...]:
        assert self._differing, "a page was asked for"
        listed = dict(page.sessions)
        given = [leaf for leaf in self._differing[: page.answered] if in_scope(leaf, self._gives)]
        return tuple([(sid, None) for leaf in given for sid in table.in_leaf(leaf) if sid not in listed])


def answer(ask: SyncAsk, table: Table, synced: bool) -> SyncSums:
    """Return the leaf sums of the groups in which this node and a peer differ, within the scope asked for."""
    groups = enumerate(zip(table.sums.of_groups(ask.scope | USERS_SCOPE), ask.groups, strict=True))
    differing = tuple([(group, table.sums.of_leaves(group)) for group, (mine, theirs) in groups if mine != theirs])
    return SyncSums(ask.round, differing, synced)


def listing(asked: SyncList, table: Table, synced: bool) -> SyncPage:
    """Return the page of sessions that answers a peer's list; at least one leaf is answered."""
    sessions: list[tuple[Sid, int]] = []
    answered = 0
    for leaf in asked.leaves:
        sessions += [(sid, short_hash(table.records[sid].state_hash)) for sid in table.in_leaf(leaf)]
        answered += 1
        if len(sessions) >= SESSIONS_PER_PAGE:
            break
    return SyncPage(asked.round, answered, tuple(sessions), synced)
