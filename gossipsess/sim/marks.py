# Marks: the paths that a campaign of runs must have taken, or it has proved less than it seems to.
#
# Counted by the cluster, the checkers and `of_message`; the summary of many runs names those never reached.
# A path that no run takes any more is noticed here, not when it breaks in production.

from collections.abc import Iterator
from typing import Final

from gossipsess.model.record import USER, Entry
from gossipsess.model.revocation import login_of
from gossipsess.sim.process import Process
from gossipsess.wire.messages import LinkMessage, Members, Pull, PullAnswer, Push, PushAck, SyncPage, Touch

MARKS: Final = {
    "adopted": "a former cookie became a session",
    "spent cookies": "a former cookie was nothing any more, since its session had ended",
    "cookies unknown": "it could not be known whether a former cookie was adopted before",
    "counted": "a request added to a counter",
    "counters cleared": "a request cleared a counter",
    "counters moved": "a rotation moved a counter that was not 0",
    "absorbed": "a write reached a node where its session was dead",
    "blackout": "all processes crashed at once",
    "broken links": "a link broke without a word",
    "clocks apart": "a node warned of a peer whose clock differs",
    "clocks caught up": "a clock that had stood still followed the wall clock, since a peer confirmed it",
    "claims forgotten": "a record dropped claims that grew too old or too many",
    "collapsed": "a peer took nothing for too long, or was owed too much",
    "confirmed": "a write was confirmed",
    "core only": "only some nodes healed, and those agreed",
    "day ahead": "a node started with a clock that is a day ahead",
    "deaths": "a node that had ended was declared dead",
    "degraded": "a write was not confirmed in time",
    "digest mismatches": "a node began a repair, since a peer's digest stayed another than its own",
    "expired": "a session ended by time",
    "false deaths": "a node that ran was declared dead, and came back",
    "foreign": "a node of another cluster took the address of one that crashed",
    "found absent": "a fetch proved that there is no such session",
    "found fresh": "a fetch found the writes it wanted",
    "found stale": "a fetch found the session without the writes it wanted",
    "found unknown": "a fetch could not tell",
    "gaps": "a delta came whose base was missing",
    "gaps of everything": "a node asked for a whole record",
    "gone": "a waiting write heard that its session is dead",
    "graveyard answers": "a node that was held dead was asked, and is a member again",
    "hash bases": "a delta was cut against a state, not against claims",
    "heard created elsewhere": "a subscriber heard of a session made elsewhere",
    "heard expired": "a subscriber heard of an expiry at the one node that announces it",
    "heard expired elsewhere": "a subscriber heard of an expiry at another node",
    "heard invalidated elsewhere": "a subscriber heard of a logout elsewhere",
    "held elsewhere yet": "a fetch proved that a session is over, and another node had not dropped it yet",
    "hot sessions rested": "a session that was sent too often waited",
    "in flight enough": "a peer was owed more, and was not sent it before it had acknowledged some",
    "leaves": "a node left in good order",
    "lost Push": "a push was lost",
    "lost PushAck": "an acknowledgement was lost",
    "member syncs": "a node told another everyone it knows",
    "pauses guarded": "a process that had stood still judged nobody in its first moments",
    "pulls for a request": "a node asked the others for a session",
    "repaired by digest": "such a repair found something to pull or to give",
    "refused clocks": "a node refused a peer whose clock is far ahead",
    "revoked": "a revocation ended a session on the node that was asked for it",
    "revoked elsewhere": "a revocation ended a session on another node that held it",
    "revoked on arrival": "a session came to a node that knew its user to be revoked",
    "rolling": "every process left and started again, one after the other",
    "slow reader": "a node took in at a low rate what came over its links",
    "split": "two groups of nodes did not reach each other",
    "surplus dropped": "a node dropped a copy that others are to hold",
    "suspend": "a machine was suspended, and its monotonic clock stood still",
    "sync differences": "a sync found sessions that differ",
    "tombstones ended": "a tombstone was dropped at the end of its time",
    "touches": "accesses were told",
    "unknown kinds": "a node of a newer version said something that the others do not know",
    "unsynced answers": "a node that was not synced yet was asked, and said so",
    "view mismatches": "a node asked for the list of one that sees other members",
    "wall step": "a wall clock was set by an hour",
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
        case Members():
            yield "member syncs"
            there = sorted(told.member.node for told in message.members if told.member.is_live)
            here = sorted([receiver.node, *(member.node for member in receiver.replica.swim.view.live())])
            if message.reply and there != here:
                yield "view mismatches"
        case Push():
            for delta in message.deltas:
                held = receiver.records.get(delta.sid)
                if held is not None and held.tombstone and not delta.tombstone:
                    yield "absorbed"
                for key, stamp, origin, value in delta.entries:
                    login = login_of(Entry(stamp, origin, value, 0)) if key == USER else None
                    revocation = receiver.records.get(login.user) if login is not None else None
                    if login is not None and revocation is not None and revocation.tombstone >= login.stamp:
                        yield "revoked on arrival"
                if delta.base_claims is None:
                    yield "hash bases"
        case _:
            pass
