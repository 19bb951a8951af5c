# Offers: what one peer, a holder, is still to be asked whether it holds; and the answer to such a question.
#
# In:    what is to be offered to it, and when; what it said that it lacks.    Out: what the next question names.
# Kept by partition, since a question is about one: a partition as a whole until its turn comes, then its sessions by
# name, of which 256 go with each question. So a hundred thousand sessions cost a thousand small entries.
# What the peer lacks is asked about again, less and less often while that does not help. Not much of it is waited for
# at a time: until some has arrived, no further partition is begun, and so never more is owed to the peer than it takes.
# Held means the same state hash, or a tombstone where the asker's session lives. Where states differ, each side owes
# the other what it may lack, and the hashes are equal when asked again. Why claims that cover the asker's are not
# enough: a node that no longer remembers what it dropped (model/dropped.py), gets an older copy and writes to that,
# claims what it lost. Such a claim may cost a transfer, as it does in a sync, but not the last good copy.
# Not here: whom to offer what, and what becomes of an answer (surplus.py).

from collections.abc import Iterable, Mapping
from itertools import islice
from math import inf
from typing import Final, NamedTuple

from gossipsess.model.identity import Sid
from gossipsess.model.record import Claims, Record, covers_claims
from gossipsess.model.table import Table
from gossipsess.wire.messages import Gap, Have, Held

NAMED_MAX: Final = 256
"""Sessions named in one question."""
NAMED_BYTES: Final = 48 * 1024
"""A question ends after about this size, so that it is one frame."""
GAP_BYTES: Final = 40
CLAIM_BYTES: Final = 16
LACKING_MAX: Final = 512
"""Sessions that the peer lacks and that have not arrived, beyond which nothing new is asked. Together with a page of a
sync it fits what may be owed to a peer beyond its bound (replication.py)."""
AGAIN_S: Final = 0.1
AGAIN_MAX_S: Final = 2.0
"""When to ask again for what was lacking: first, and at the latest."""


class _Job:
    """What is to be offered of one partition."""

    __slots__ = ("due_s", "sids", "whole")

    def __init__(self, due_s: float) -> None:
        self.due_s = due_s
        self.whole = False
        """All of the partition; its sessions are looked up when its turn comes."""
        self.sids: dict[Sid, int | None] = {}
        """With the state the peer had when it said that it lacks something; None where it was not asked."""


class Question(NamedTuple):
    """Sessions of one partition."""

    partition: int
    gaps: tuple[Gap, ...]
    lacked: Mapping[Sid, int]
    """The state of the peer that it showed before, of those that it lacked then."""


class Offers:
    """What one peer is to be asked."""

    def __init__(self) -> None:
        self._jobs: dict[int, _Job] = {}
        self._again: dict[int, _Job] = {}  # of what it lacks
        self._lacking = 0  # how many sessions that are
        self._again_after_s = AGAIN_S
        self._due_s = inf  # never later than it is

    @property
    def partitions(self) -> Iterable[int]:
        """The partitions of which something is still to be offered."""
        return self._jobs | self._again

    def offer_all(self, partition: int, due_s: float) -> None:
        """Ask about every session of a partition."""
        self._job(partition, due_s).whole = True

    def offer(self, partition: int, sids: Iterable[Sid], due_s: float) -> None:
        """Ask about these sessions of a partition."""
        job = self._job(partition, due_s)
        for sid in sids:
            job.sids.setdefault(sid, None)

    def lacks(self, partition: int, states: Mapping[Sid, int], now_s: float) -> None:
        """Ask again, in a while, about sessions of which the peer said that this is all it has."""
        job = self._again.setdefault(partition, _Job(0.0))
        self._lacking -= len(job.sids)
        job.sids.update(states)
        self._lacking += len(job.sids)
        job.due_s = now_s + self._again_after_s
        self._due_s = min(self._due_s, job.due_s)

    def asked_again(self, still_lacking: bool) -> None:
        """Note whether what had been lacking still was when asked about again."""
        self._again_after_s = min(2 * self._again_after_s, AGAIN_MAX_S) if still_lacking else AGAIN_S

    def hurry(self, now_s: float) -> None:
        """Ask everything now."""
        for job in (*self._jobs.values(), *self._again.values()):
            job.due_s = min(job.due_s, now_s)
        self._look_when_due()

    def forget(self, partitions: Iterable[int]) -> None:
        """Ask nothing about these."""
        for partition in partitions:
            self._jobs.pop(partition, None)
            again = self._again.pop(partition, None)
            self._lacking -= len(again.sids) if again is not None else 0
        self._look_when_due()

    def next_deadline(self) -> float:
        """Return when there is something to ask at the earliest; inf where there is nothing."""
        return self._due_s

    def next_question(self, table: Table, now_s: float) -> Question | None:
        """Take the next question; None where nothing is due."""
        if now_s < self._due_s:
            return None
        for jobs in self._askable():
            for partition, job in list(jobs.items()):
                if job.due_s > now_s:
                    continue
                question = self._question(partition, job, table)
                if not job.sids:
                    del jobs[partition]
                if question.gaps:
                    return question
        self._look_when_due()
        return None

    def _askable(self) -> tuple[dict[int, _Job], ...]:
        return (self._again, self._jobs) if self._lacking < LACKING_MAX else (self._again,)

    def _look_when_due(self) -> None:
        self._due_s = min([job.due_s for jobs in self._askable() for job in jobs.values()], default=inf)

    def _question(self, partition: int, job: _Job, table: Table) -> Question:
        if job.whole:
            job.whole = False
            for sid in table.in_partition(partition):
                job.sids.setdefault(sid, None)
        gaps: list[Gap] = []
        lacked: dict[Sid, int] = {}
        size = 0
        for sid in list(islice(job.sids, NAMED_MAX)):
            if size >= NAMED_BYTES:
                break
            before = job.sids.pop(sid)
            self._lacking -= before is not None
            gap = gap_of(table, sid)
            if gap is None:
                continue  # it has ended meanwhile
            if before is not None:
                lacked[sid] = before
                if gap.claims:  # what claims could tell was exchanged; if that did not help, the whole record can
                    gap = gap._replace(claims=None)
            gaps.append(gap)
            size += GAP_BYTES + CLAIM_BYTES * len(gap.claims or ())
        return Question(partition, tuple(gaps), lacked)

    def _job(self, partition: int, due_s: float) -> _Job:
        job = self._jobs.get(partition)
        if job is None:
            job = self._jobs[partition] = _Job(due_s)
        job.due_s = min(job.due_s, due_s)
        self._due_s = min(self._due_s, due_s)
        return job


def gap_of(table: Table, sid: Sid) -> Gap | None:
    """Return what is held of a session, as a question names it; None where nothing is."""
    record = table.records.get(sid)
    if record is None:
        return None
    return Gap(sid, record.claims if record.covered else None, record.state_hash)


def answer(have: Have, table: Table, *, holder: bool) -> tuple[Held, tuple[tuple[Sid, Claims | None], ...]]:
    """Answer a peer that offers sessions of a partition of which this node is a holder, or is not.

    Also returns what the peer lacks of them, and is owed: (session, its claims).
    """
    lacking: list[Gap] = []
    owed: list[tuple[Sid, Claims | None]] = []
    for theirs in have.records:
        record = table.records.get(theirs.sid)
        if record is None:
            lacking.append(Gap(theirs.sid, {}, 0))
        elif record.state_hash != theirs.state_hash:
            is_dead = theirs.claims is not None and not theirs.claims
            if is_dead or not record.tombstone:  # of two tombstones either may be the later
                lacking.append(Gap(theirs.sid, record.claims, record.state_hash))
            if record.tombstone or not (is_dead or _covered_by(theirs.claims, record)):
                owed.append((theirs.sid, theirs.claims))
    return Held(have.round, holder, tuple(lacking)), tuple(owed)


def _covered_by(claims: Claims | None, record: Record) -> bool:
    return claims is not None and record.covered and covers_claims(claims, record.claims)
