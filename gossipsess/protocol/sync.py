# Sync: come to hold everything that one peer holds.
#
# The asker sends the sums of a range of partitions; the peer answers with the sessions of those partitions whose
# sums differ; the asker pulls what it lacks, and asks for the next range when all of it has come. One procedure
# for a joiner, which pulls everything, and for repair, where nearly all sums agree. It pulls only: the other
# direction is the peer's own sync. One page at a time is outstanding, so a joiner never crowds out the deltas on
# the same link, and an interrupted sync starts again where it was.

import random
from typing import Final

from gossipsess.model.digest import PARTITIONS
from gossipsess.model.identity import Sid
from gossipsess.model.table import Table
from gossipsess.wire.messages import Gap, Pull, SyncAsk, SyncPage

PARTITIONS_PER_ASK: Final = 128
SESSIONS_PER_PAGE: Final = 256
"""A page ends after the partition that reaches this. At 2 KB a session the page's records make half a megabyte."""
ASK_AGAIN_S: Final = 1.0
UNEQUAL_MAX: Final = 4096
"""Sessions remembered as unequal, some 700 KB. Nearly all are equal the next time; the rest waits its turn."""
SYNC_EVERY_S: Final = 30.0
"""How often a link is synced without a reason: it repairs whatever no other rule has noticed."""


class Sync:
    """This node's sync with one peer."""

    def __init__(self, rng: random.Random) -> None:
        self.completed = False
        """A sync with this peer has run to the end."""
        self.peer_synced = False
        """The peer had everything itself when it ended."""
        self._rng = rng
        self._running = False
        self._again = False
        self._round = 0
        self._start = 0
        self._resume = 0
        self._page_synced = False
        self._missing: dict[Sid, None] = {}
        self._unequal: dict[Sid, tuple[int, int]] = {}  # (mine, theirs) when last seen to differ
        self._due_s: float | None = None

    def start(self, table: Table, now_s: float) -> SyncAsk | None:
        """Begin, or begin anew once the one that runs has ended."""
        if self._running:
            self._again = True
            return None
        self._running = True
        self._start = 0
        return self._ask(table, now_s)

    def stop(self) -> None:
        """The link is lost; the next `start` begins from the front."""
        self._running = self._again = False
        self._missing.clear()
        self._due_s = None

    def page(self, page: SyncPage, table: Table, now_s: float) -> list[SyncAsk | Pull]:
        """Take a page; return the pulls of what it shows missing, or the next ask."""
        if not self._running or page.round != self._round or self._missing:
            return []  # an answer to an ask that was repeated meanwhile
        wanted: list[Gap] = []
        for sid, state_hash in page.sessions:
            record = table.get(sid)
            if record.state_hash != state_hash:  # of two tombstones too: the later one must come everywhere
                # Unequal as before, after what the claims did not cover has come: the claims cover too much. That
                # takes a write of this node's own that it has lost, by expiry. Only the whole record can tell.
                unequal = (record.state_hash, state_hash)
                claims = None if self._unequal.get(sid) == unequal else record.claims
                wanted.append(Gap(sid, claims, record.state_hash))
                if len(self._unequal) < UNEQUAL_MAX:
                    self._unequal[sid] = unequal
            else:
                self._unequal.pop(sid, None)
        self._resume = page.resume
        self._page_synced = page.synced
        if not wanted:
            return list(self._next(table, now_s))
        self._missing = {gap.sid: None for gap in wanted}
        self._due_s = now_s + ASK_AGAIN_S
        return [Pull(0, tuple(wanted))]

    def merged(self, sid: Sid, table: Table, now_s: float) -> SyncAsk | None:
        """Note that this peer's state of a session was merged; return the next ask when the page is complete."""
        if sid not in self._missing:
            return None
        del self._missing[sid]
        if self._missing:
            self._due_s = now_s + ASK_AGAIN_S
            return None
        return next(iter(self._next(table, now_s)), None)

    @property
    def is_running(self) -> bool:
        """It has begun, and has not ended yet."""
        return self._running

    def next_deadline(self) -> float | None:
        """Return when to ask again for a page that did not come, or to sync without a reason."""
        return self._due_s

    def timeout(self, table: Table, now_s: float) -> SyncAsk | None:
        """Ask again; what has come meanwhile is not asked for twice."""
        if self._due_s is None or now_s < self._due_s:
            return None
        if not self._running:
            return self.start(table, now_s)
        self._missing.clear()
        return self._ask(table, now_s)

    def _next(self, table: Table, now_s: float) -> list[SyncAsk]:
        self._start = self._resume
        if self._start < PARTITIONS:
            return [self._ask(table, now_s)]
        self.completed = True
        self.peer_synced = self._page_synced
        self._running = False
        if self._again:
            self._again = False
            self._running = True
            self._start = 0
            return [self._ask(table, now_s)]
        self._due_s = now_s + SYNC_EVERY_S * self._rng.uniform(0.8, 1.2)
        return []

    def _ask(self, table: Table, now_s: float) -> SyncAsk:
        self._round += 1
        self._due_s = now_s + ASK_AGAIN_S
        stop = min(self._start + PARTITIONS_PER_ASK, PARTITIONS)
        sums = tuple((p, table.sums[p]) for p in range(self._start, stop) if table.sums[p])
        return SyncAsk(self._round, self._start, sums, stop)


def answer(ask: SyncAsk, table: Table, synced: bool) -> SyncPage:
    """Return the page that answers a peer's ask."""
    theirs = dict(ask.sums)
    sessions: list[tuple[Sid, int]] = []
    for partition in range(ask.start, ask.stop):
        if table.sums[partition] != theirs.get(partition, 0):
            sessions += [(sid, table.get(sid).state_hash) for sid in table.in_partition(partition)]
            if len(sessions) >= SESSIONS_PER_PAGE:
                return SyncPage(ask.round, partition + 1, tuple(sessions), synced)
    return SyncPage(ask.round, ask.stop, tuple(sessions), synced)
