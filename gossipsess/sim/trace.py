# Trace: one line of plain text for each thing that happened, for who reads a failing run.

from gossipsess.model.delta import Delta
from gossipsess.model.identity import short
from gossipsess.model.record import Claims
from gossipsess.protocol.events import Adopt, Changes, Event, Fetch, Invalidate, LinkOpened, Revoke, Rotate, Write
from gossipsess.protocol.outcomes import Found
from gossipsess.protocol.writes import Written
from gossipsess.wire.messages import Gap, LinkMessage, Push, PushAck, SyncList, SyncPage, SyncSums

STAMP_DIGITS = 10**7
"""Stamps are shown modulo this: enough to tell those of one run apart."""


def event_text(event: Event) -> str:
    """Return what happens at a node, in one line."""
    match event:
        case Adopt(delta, confirm):
            return f"adopt {_delta(delta)} confirm={confirm}"
        case Write(sid, changes, confirm):
            return f"write {short(sid)} {_keys(changes)} confirm={confirm}"
        case Invalidate(sid, confirm):
            return f"invalidate {short(sid)} confirm={confirm}"
        case Revoke(sid, confirm):
            return f"revoke {short(sid)} confirm={confirm}"
        case Rotate(sid, new_sid, changes, confirm):
            return f"rotate {short(sid)} to {short(new_sid)} {_keys(changes)} confirm={confirm}"
        case Fetch(sid, dots):
            return f"fetch {short(sid)} {_claims(dict(dots))}"
        case LinkOpened(link, node, dialed):
            return f"link {link} {'to' if dialed else 'from'} {short(node)}"
        case _:
            return str(event)


def answer_text(answer: Written | Found) -> str:
    """Return what a request learned at once."""
    if isinstance(answer, Found):
        return answer.name
    return f"{_claims(answer.record.claims)} {answer.outcome or 'waits'}"


def message_text(message: LinkMessage) -> str:
    """Return a link message in one line."""
    match message:
        case Push(sequence, deltas):
            return f"push {sequence}: " + "; ".join(_delta(delta) for delta in deltas)
        case PushAck(sequence, gaps):
            return f"ack {sequence}" + "".join(f", lacks {_gap(gap)}" for gap in gaps)
        case SyncSums(number, groups, synced):
            return f"sync sums {number}: groups {[group for group, _ in groups]} synced={synced}"
        case SyncList(number, partitions):
            return f"sync list {number}: partitions {list(partitions)}"
        case SyncPage(number, answered, sessions, synced):
            return f"sync page {number}: {[short(sid) for sid, _ in sessions]} of {answered} synced={synced}"
        case _:
            return type(message).__name__ + str(tuple(message)[:1])


def _delta(delta: Delta) -> str:
    if delta.tombstone:
        return f"{short(delta.sid)} dead@{delta.tombstone % STAMP_DIGITS}"
    base = f"#{delta.base_hash >> 96:08x}" if delta.base_claims is None else _claims(delta.base_claims)
    entries = ", ".join(
        f"{key!r}{'' if value is not None else ' deleted'}@{stamp % STAMP_DIGITS}/{short(origin)}"
        for key, stamp, origin, value in delta.entries
    )
    return f"{short(delta.sid)} {base} -> {_claims(delta.after)} [{entries}]"


def _gap(gap: Gap) -> str:
    return f"{short(gap.sid)} beyond {'nothing' if gap.claims is None else _claims(gap.claims)}"


def _claims(claims: Claims) -> str:
    return "{" + ", ".join(f"{short(origin)}:{stamp % STAMP_DIGITS}" for origin, stamp in claims.items()) + "}"


def _keys(changes: Changes) -> str:
    return " ".join(repr(key) if value is not None else f"-{key!r}" for key, value in changes)
