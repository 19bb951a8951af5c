"""Reads on a node that is no holder: what they cost, how old they may be, and what is never called absent."""

from concurrent.futures import Future

import pytest

from gossipsess.model.identity import Sid, sid_of
from gossipsess.protocol import replication
from gossipsess.protocol.events import Drain, Fetch, Invalidate
from gossipsess.protocol.gains import GRACE_S
from gossipsess.protocol.outcomes import Found
from gossipsess.protocol.placement import partition_of
from gossipsess.protocol.reads import TOKENED_S, UNTOKENED_S
from gossipsess.protocol.surplus import QUIET_S
from gossipsess.wire.messages import Gap, Have, Pull, PullAnswer, Push, PushAck
from tests.unit.cluster import FIVE, Cluster, Said, of

ONE, TWO, THREE, FOUR, FIFTH = FIVE


def stored(cluster: Cluster, node: bytes, *, elsewhere: bytes) -> tuple[str, Sid]:
    """Store a session at a node of which another one is no holder; return its cookie and sid."""
    while True:
        session = cluster[node].store.create()
        if elsewhere not in cluster.ranking(sid_of(session.id))[:2]:
            break
    session["user"] = "kim"
    cluster[node].store.commit(session, 1)
    cluster.passes(0.1)
    assert elsewhere not in cluster.holding(session.record.sid)
    return session.cookie, session.record.sid


def reads(cluster: Cluster, node: bytes, cookie: str) -> tuple[object, list[Said]]:
    """Read a session; return it, and what was said for it."""
    loaded = cluster[node].store.load(cookie)
    said = cluster.carry()
    return (loaded.result(0) if isinstance(loaded, Future) else loaded), said


def kinds(said: list[Said]) -> list[str]:
    return [type(one.message).__name__ for one in said]


def bare(cookie: str) -> str:
    """Return a cookie without its token, as a client that has only read has it."""
    return cookie.partition(".")[0]


def test_a_first_read_on_a_non_holder_costs_one_pull():
    """Behind a balancer that knows nothing of holders most requests are such, and none may cost a message a node."""
    cluster = Cluster()
    cookie, sid = stored(cluster, ONE, elsewhere=FIFTH)
    session, said = reads(cluster, FIFTH, bare(cookie))
    assert dict(session) == {"user": "kim"}
    assert not session.stale
    assert kinds(said) == ["Pull", "Push", "PullAnswer", "PushAck"]
    assert said[0].hearer == cluster.ranking(sid)[0]


@pytest.mark.parametrize("token", [False, True], ids=["without a token", "with a token"])
def test_a_copy_is_served_without_a_message_until_it_is_old(token):
    """One that a holder has just confirmed lacks at most what was written since. A client's own writes are in it, where
    its token says so; then it may be older."""
    cluster = Cluster()
    cookie, _ = stored(cluster, ONE, elsewhere=FIFTH)
    shown = cookie if token else bare(cookie)
    lasts_s = TOKENED_S if token else UNTOKENED_S
    assert (UNTOKENED_S, TOKENED_S) == (1.0, 10.0)
    reads(cluster, FIFTH, shown)
    cluster.passes(lasts_s - 0.1, 0.1)
    session, said = reads(cluster, FIFTH, shown)
    assert dict(session) == {"user": "kim"}
    assert of(said, Pull) == []
    cluster.passes(0.2, 0.1)
    session, said = reads(cluster, FIFTH, shown)
    assert dict(session) == {"user": "kim"}
    assert kinds(said) == ["Pull", "PullAnswer"], "it is confirmed, and not sent again"
    session, said = reads(cluster, FIFTH, shown)
    assert of(said, Pull) == [], "and is confirmed again from then on"


def test_an_old_copy_is_brought_up_to_date_before_it_is_served():
    """What another node wrote since was sent to the holders only."""
    cluster = Cluster()
    cookie, sid = stored(cluster, ONE, elsewhere=FIFTH)
    reads(cluster, FIFTH, bare(cookie))
    session, _ = reads(cluster, ONE, cookie)
    session["cart"] = ["book"]
    cluster[ONE].store.commit(session, 1)
    cluster.passes(UNTOKENED_S + 0.1, 0.1)
    assert "cart" not in cluster[FIFTH].node.records[sid].entries
    again, said = reads(cluster, FIFTH, bare(cookie))
    assert dict(again) == {"user": "kim", "cart": ["book"]}
    assert kinds(said) == ["Pull", "Push", "PullAnswer", "PushAck"]
    assert len(of(said, Push)[0].message.deltas[0].entries) == 1, "only what is missing"


def test_a_fresh_copy_without_the_tokens_write_is_not_served():
    """The client has seen its cart with the book in it; the page before would look like a lost write."""
    cluster = Cluster()
    cookie, _ = stored(cluster, ONE, elsewhere=FIFTH)
    reads(cluster, FIFTH, cookie)
    session, _ = reads(cluster, ONE, cookie)
    session["cart"] = ["book"]
    cluster[ONE].store.commit(session, 1)
    cluster.due()
    again, said = reads(cluster, FIFTH, session.cookie)
    assert dict(again) == {"user": "kim", "cart": ["book"]}
    assert not again.stale
    assert len(of(said, Pull)) == 1


def test_a_session_that_ended_elsewhere_is_not_served_from_an_old_copy():
    """Also where the tombstone was lost on its way here: a logout must end the login everywhere."""
    cluster = Cluster()
    cookie, sid = stored(cluster, ONE, elsewhere=FIFTH)
    reads(cluster, FIFTH, cookie)
    cluster[ONE].node.submit(Invalidate(sid, 0, print))
    cluster[ONE].replica.sessions.peers[FIFTH].outbound.forget(sid)
    cluster.passes(UNTOKENED_S + 0.1, 0.1)
    assert not cluster[FIFTH].node.records[sid].tombstone
    session, _ = reads(cluster, FIFTH, bare(cookie))
    assert session is None


def test_what_no_holder_has_is_absent_after_one_question_to_each():
    """An old cookie must not cost a question to every node of the cluster."""
    cluster = Cluster()
    sid = cluster.sid(ONE, TWO)
    found: list = []
    assert cluster[FIFTH].node.submit(Fetch(sid, (), found.append)) is None
    said = cluster.carry()
    assert found == [Found.ABSENT]
    assert [one.hearer for one in of(said, Pull)] == [ONE, TWO]
    assert [one.message.synced for one in of(said, PullAnswer)] == [True, True]


@pytest.mark.parametrize("behind_s", [0, 5], ids=["before the holders have looked", "holders whose clocks lag"])
def test_what_has_just_ended_by_time_is_absent_at_once(behind_s):
    """A visitor who comes back then is to see the login page, and not an error."""
    cluster = Cluster()
    cookie, sid = stored(cluster, ONE, elsewhere=FIFTH)
    holder = cluster[cluster.ranking(sid)[0]]
    left_ms = holder.replica.sessions.table.life(holder.node.records[sid]).ends_ms - holder.node.time_ms()
    for node, here in cluster.nodes.items():
        here.now_s += left_ms / 1000 + 0.01 - (behind_s if node != FIFTH else 0)
    assert sid in holder.node.records
    session, said = reads(cluster, FIFTH, bare(cookie))
    assert session is None
    assert kinds(said).count("Pull") == 2, "the other one may know of a later use"


def test_a_logout_that_only_a_non_holder_heard_of_outlives_who_was_asked_for_it():
    """Its node died before a holder had it. Nobody else looks for it there, and the login would live on."""
    cluster = Cluster()
    sid = cluster.sid(ONE, TWO)
    cluster.write(ONE, sid)
    cluster.passes(0.1)
    cluster.deaf = [ONE, TWO]
    cluster[FOUR].node.submit(Invalidate(sid, 0, print))
    cluster.passes(0.1)
    assert cluster[FIFTH].node.records[sid].tombstone
    cluster.dies(FOUR)
    cluster.deaf = []
    cluster.passes(1.0)
    assert cluster.ranking(sid)[:2] == [ONE, TWO]
    assert all(cluster[node].node.records[sid].tombstone for node in (ONE, TWO))


def test_a_copy_that_no_holder_can_confirm_is_served_all_the_same():
    """The user is not logged out because two machines are slow."""
    cluster = Cluster()
    cookie, sid = stored(cluster, ONE, elsewhere=FIFTH)
    reads(cluster, FIFTH, cookie)
    cluster.passes(TOKENED_S + 0.1, 0.1)
    cluster.deaf = cluster.ranking(sid)[:2]
    waiting = cluster[FIFTH].store.load(cookie)
    cluster.passes(0.2, 0.01)
    session = waiting.result(0)
    assert dict(session) == {"user": "kim"}
    assert session.stale, "the application may want to know"


def test_a_read_on_a_holder_costs_nothing():
    """The balancer that keeps a client at its node pays for no placement."""
    cluster = Cluster()
    cookie, sid = stored(cluster, ONE, elsewhere=FIFTH)
    for node in cluster.ranking(sid)[:2]:
        session, said = reads(cluster, node, cookie)
        assert dict(session) == {"user": "kim"}
        assert said == []


# --- what a node says of what it does not hold ------------------------------------------------------------


def answer(cluster: Cluster, asker: bytes, asked: bytes, sid: Sid) -> PullAnswer:
    """Return a node's verdict on a session."""
    cluster[asked].hears(Pull(99, (Gap(sid, {}, 0),)), cluster.link(asker))
    (said,) = [one for one in cluster[asked].says() if isinstance(one, PullAnswer)]
    return said


def test_a_node_says_no_for_sure_only_of_partitions_that_it_has_in_whole():
    """Taken for sure, the no of a node that has just become a holder would log out whoever asks there first."""
    cluster = Cluster()
    gained = next(sid for sid in cluster.sids(ONE, TWO) if cluster.ranking(sid)[2] == THREE)
    held = cluster.sid(TWO, THREE)
    assert answer(cluster, FIFTH, THREE, held) == PullAnswer(99, held=False, synced=True)
    cluster.dies(ONE)
    assert cluster.ranking(gained)[:2] == [TWO, THREE]
    assert answer(cluster, FIFTH, THREE, gained) == PullAnswer(99, held=False, synced=False)
    assert answer(cluster, FIFTH, THREE, held) == PullAnswer(99, held=False, synced=True), "the others as before"
    cluster.passes(GRACE_S + 3, 0.25)
    assert answer(cluster, FIFTH, THREE, gained) == PullAnswer(99, held=False, synced=True)


def test_a_new_holder_that_lacks_a_session_has_everybody_asked_who_may_have_it():
    """Of two holders one died, and the other was out of reach when a third one took the write: it is there."""
    cluster = Cluster()
    sid = next(sid for sid in cluster.sids(ONE, TWO) if cluster.ranking(sid)[2:4] == [THREE, FOUR])
    cluster.deaf.append(TWO)
    cluster.write(ONE, sid, 1)
    cluster.passes(0.1, 0.01)
    assert cluster.holding(sid) == [ONE, THREE], "hedged"
    cluster.dies(ONE)
    cluster.dies(TWO)
    assert cluster.ranking(sid)[:2] == [THREE, FOUR]
    found: list = []
    cluster[FOUR].node.submit(Fetch(sid, (), found.append))
    cluster.carry()
    assert found == [Found.FRESH]
    assert sid in cluster[FOUR].node.records


def test_what_its_writer_has_told_nobody_yet_is_found_there_by_who_was_answered():
    """The next page of a login that was just answered may come elsewhere, before any holder has heard of it."""
    cluster = Cluster()
    sid = cluster.sid(ONE, TWO)
    cluster.write(FIFTH, sid)
    assert cluster.holding(sid) == [FIFTH]
    found: list = []
    token = ((FIFTH, cluster[FIFTH].node.records[sid].newest),)
    cluster[THREE].node.submit(Fetch(sid, token, found.append))
    said = cluster.carry()
    assert found == [Found.FRESH]
    assert [one.hearer for one in of(said, Pull)] == [ONE, TWO, FIFTH]


def test_a_node_that_is_no_holder_says_no_for_sure_of_nothing():
    """It is asked by who sees other members than it does. Its no would end a login that the true holders have."""
    cluster = Cluster()
    _, sid = stored(cluster, ONE, elsewhere=FIFTH)
    assert answer(cluster, ONE, FIFTH, sid) == PullAnswer(99, held=False, synced=False)


def test_a_reader_that_has_not_heard_of_a_drain_finds_what_the_new_holders_took_since():
    """It asks those that leave. What was created since they said so is with others, and is no old cookie."""
    cluster = Cluster()
    sid = next(sid for sid in cluster.sids(ONE, TWO) if cluster.ranking(sid)[4] == FIFTH)
    cluster.deaf.append(FIFTH)
    for node in (ONE, TWO):
        cluster[node].node.submit(Drain())
        cluster.carry()
    cluster.write(THREE, sid, 1)
    cluster.due()
    assert cluster.holding(sid) == [THREE, FOUR]
    cluster.deaf.clear()
    assert [one.node for one in cluster[FIFTH].replica.placement.layout.holders(partition_of(sid))] == [ONE, TWO]
    found: list = []
    cluster[FIFTH].node.submit(Fetch(sid, (), found.append))
    cluster.carry()
    assert found == [Found.FRESH]


def test_a_holder_whose_way_is_full_does_not_confirm_a_copy_of_what_has_ended(monkeypatch):
    """What it has more, the end above all, goes before its answer. Where that has to wait, so does the answer."""
    monkeypatch.setattr(replication, "IN_FLIGHT_BYTES_MAX", 2_000)
    cluster = Cluster()
    cookie, sid = stored(cluster, ONE, elsewhere=FIFTH)
    reads(cluster, FIFTH, bare(cookie))
    cluster.passes(2 * UNTOKENED_S)
    holder = cluster.ranking(sid)[0]
    cluster.is_lost = lambda said: said[:2] == (FIFTH, holder) and isinstance(said.message, PushAck)
    for other in cluster.sids(holder, FIFTH)[:20]:
        cluster.write(holder, other)
    cluster.passes(0.2)
    outcomes: list[object] = []
    cluster[holder].node.submit(Invalidate(sid, 1, outcomes.append))
    cluster.passes(0.1)
    assert not cluster[FIFTH].node.records[sid].tombstone, "it has not heard yet"
    answers: list[object] = []
    cluster[FIFTH].node.submit(Fetch(sid, (), answers.append))
    said = cluster.carry()
    assert [one.hearer for one in of(said, Pull)] == [holder]
    assert not of(said, PullAnswer)
    cluster.is_lost = lambda said: False
    cluster.passes(0.1, 0.01)
    assert answers == [Found.FRESH]
    assert cluster[FIFTH].node.records[sid].tombstone


def test_copies_that_are_only_older_go_in_one_check_however_much_newer_there_is(monkeypatch):
    """What a holder has newer is more than one Push. What came after its answer would count as used, and stay."""
    monkeypatch.setattr(replication, "PUSH_BYTES", 1)
    cluster = Cluster()
    cluster.passes(1.0)
    first = cluster.sid(ONE, TWO)
    sids = [first[:2] + number.to_bytes(14) for number in range(5)]
    for sid in sids:
        cluster.write(ONE, sid, idle_ms=3_600_000)
    cluster.passes(0.5)
    for sid in sids:
        cluster[THREE].node.submit(Fetch(sid, (), print))
        cluster.carry()
    for sid in sids:
        cluster.write(ONE, sid)
    said = cluster.passes(QUIET_S + 15.0, 0.25)
    assert [cluster.holding(sid) for sid in sids] == [[ONE, TWO]] * 5
    assert not [one for one in of(said, Push) if one.sender == THREE]
    assert [len(one.message.records) for one in of(said, Have) if one.sender == THREE] == [5, 5]
