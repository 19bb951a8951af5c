# Marks: the paths that a campaign of runs must have taken, or it has proved less than it seems to.
#
# Counted by the cluster, the checkers and `of_message`; the summary of many runs names those never reached.
# A path that no run takes any more is noticed here, not when it breaks in production.

from collections.abc import Iterator
from typing import Final

from gossipsess.sim.cluster import Process
from gossipsess.wire.messages import LinkMessage, Pull, PullAnswer, Push, PushAck, SyncPage, Touch

MARKS: Final = {
    "absorbed": "a write reached a node where its session was dead",
    "blackout": "all processes crashed at once",
    "broken links": "a link broke without a word",
    "claims forgotten": "a record dropped claims that grew too old or too many",
    "collapsed": "a peer took nothing for too long, or was owed too much",
    "confirmed": "a write was confirmed",
    "core only": "only some nodes healed, and those agreed",
    "day ahead": "a node started with a clock that is a day ahead",
    "deaths": "a node that had ended was declared dead",
    "degraded": "a write was not confirmed in time",
    "expired": "a session ended by time",
    "false deaths": "a node that ran was declared dead, and came back",
    "found absent": "a fetch proved that there is no such session",
    "found fresh": "a fetch found the writes it wanted",
    "found stale": "a fetch found the session without the writes it wanted",
    "found unknown": "a fetch could not tell",
    "gaps": "a delta came whose base was missing",
    "gaps of everything": "a node asked for a whole record",
    "gone": "a waiting write heard that its session is dead",
    "hash bases": "a delta was cut against a state, not against claims",
    "heard created elsewhere": "a subscriber heard of a session made elsewhere",
    "heard expired": "a subscriber heard of an expiry",
    "heard invalidated elsewhere": "a subscriber heard of a logout elsewhere",
    "hot sessions rested": "a session that was sent too often waited",
    "leaves": "a node left in good order",
    "lost Push": "a push was lost",
    "lost PushAck": "an acknowledgement was lost",
    "pauses guarded": "a process that had stood still judged nobody in its first moments",
    "pulls for a request": "a node asked the others for a session",
    "refused clocks": "a node refused a peer whose clock is far ahead",
    "rolling": "every process left and started again, one after the other",
    "split": "two groups of nodes did not reach each other",
    "sync differences": "a sync found sessions that differ",
    "tombstones ended": "a tombstone was dropped at the end of its time",
    "touches": "accesses were told",
    "unsynced answers": "a node that was not synced yet was asked, and said so",
}


def unreached(counts: dict[str, int]) -> list[str]:
    """Return the marks that no run reached."""
    return [mark for mark in MARKS if not counts.get(mark)]


def of_message(receiver: Process, message: LinkMessage) -> Iterator[str]:
    """Yield what to count for a message that is about to be taken in."""
    match message:
        case PushAck(_, gaps) if gaps:
            yield "gaps"
            if any(gap.claims is None for gap in gaps):
                yield "gaps of everything"
        case SyncPage() if message.sessions:
            yield "sync differences"
        case Touch():
            yield "touches"
        case Pull(request) if request:
            yield "pulls for a request"
        case PullAnswer() if not message.synced:
            yield "unsynced answers"
        case Push():
            for delta in message.deltas:
                held = receiver.records.get(delta.sid)
                if held is not None and held.tombstone and not delta.tombstone:
                    yield "absorbed"
                if delta.base_claims is None:
                    yield "hash bases"
        case _:
            pass
