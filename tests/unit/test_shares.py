"""What two nodes tell each other of the sessions that both hold, and of no others: accesses, and digests."""

import pytest

from gossipsess.model.digest import SETTLE_S, in_scope, leaf_of
from gossipsess.protocol import sync
from gossipsess.protocol.antientropy import INCOMPARABLE
from gossipsess.protocol.events import Accessed, Fetch
from gossipsess.protocol.gains import GRACE_S, STALL_S
from gossipsess.wire.messages import Members, Ping, ProbeAck, SyncAsk, Touch
from tests.unit.cluster import FIVE, Cluster, Said, of
from tests.unit.machines import EPOCH_MS

ONE, TWO, THREE, FOUR, FIFTH = FIVE


def held_by(cluster: Cluster, *ranked: bytes) -> bytes:
    """Return a session that has been written, and was not used since; the first of these are its holders."""
    sid = cluster.sid(*ranked)
    cluster.write(ranked[0], sid)
    cluster.passes(0.1)
    return sid


def uses(cluster: Cluster, node: bytes, sid: bytes) -> list[Said]:
    """Use a session after so long that it is news, and let that be told; return who told whom."""
    for here in cluster.nodes.values():
        here.now_s += 35.0
    cluster.due()
    cluster[node].node.submit(Accessed(sid))
    return of(cluster.passes(2.0, 0.5), Touch)


# --- accesses ---------------------------------------------------------------------------------------------


def test_a_holder_tells_of_an_access_the_other_holder_alone():
    """Told to all, the accesses of a cluster grow with the square of its nodes."""
    cluster = Cluster()
    sid = held_by(cluster, ONE, TWO)
    assert [(one.sender, one.hearer) for one in uses(cluster, ONE, sid)] == [(ONE, TWO)]
    assert cluster[TWO].replica.sessions.table.accesses[sid] > EPOCH_MS + 30_000


def test_a_non_holder_tells_of_an_access_all_holders():
    """They are who must not let the session end while it is in use, wherever the balancer sends its client."""
    cluster = Cluster()
    sid = held_by(cluster, ONE, TWO)
    cluster.write(FIFTH, sid, key="b")
    cluster.write(ONE, sid, key="c")
    cluster.passes(0.1)
    assert sid in cluster[FIFTH].node.records, "it has written it"
    told = uses(cluster, FIFTH, sid)
    assert {(one.sender, one.hearer) for one in told} == {(FIFTH, ONE), (FIFTH, TWO)}
    for node in (ONE, TWO):
        assert cluster[node].replica.sessions.table.accesses[sid] > EPOCH_MS + 30_000


def test_a_new_holder_is_told_of_the_accesses_to_what_it_now_holds_and_of_no_others():
    """It pulls no state that it has already, and accesses are no part of one: a session in use would end there."""
    cluster = Cluster()
    sid = held_by(cluster, ONE, TWO)
    third = cluster.ranking(sid)[2]
    other = next(sid for sid in cluster.sids(TWO) if third not in cluster.ranking(sid)[:3])
    cluster.write(TWO, other)
    cluster[third].node.submit(Fetch(sid, (), lambda found: None))
    cluster.passes(0.1)
    for used in (sid, other):
        assert third not in [one.hearer for one in uses(cluster, TWO, used)]
    cluster.dies(ONE)
    said = of(cluster.passes(GRACE_S + 3.0, 0.25), Touch)
    assert {used for one in said if one.hearer == third for used, _ in one.message.accesses} == {sid}
    times = [cluster[node].replica.sessions.table.accesses[sid] for node in (TWO, third)]
    assert times[0] == times[1] > EPOCH_MS + 30_000


# --- gains ------------------------------------------------------------------------------------------------


def test_a_donor_that_is_silent_over_its_link_keeps_no_other_waiting():
    """An application that hangs still answers pings for a while. Until others have shown what a dead member held, that
    is on one node only."""
    cluster = Cluster()
    cluster.passes(1.0)
    for sid in cluster.sids(FIFTH)[:20]:
        cluster.write(FIFTH, sid)
    cluster.passes(0.5)
    cluster.is_lost = lambda said: said.hearer == FOUR
    cluster.dies(FIFTH)
    asks = of(cluster.passes(GRACE_S - 0.5, 0.25), SyncAsk)
    asks = of(cluster.passes(STALL_S + 1.5, 0.25), SyncAsk)
    for node in (ONE, TWO, THREE):
        assert {one.hearer for one in asks if one.sender == node} == {ONE, TWO, THREE, FOUR} - {node}


def test_a_donor_is_not_silent_while_it_is_asked_for_nothing(monkeypatch):
    """Large sessions are paid for by a pause. Another donor asked meanwhile would have them come twice as fast."""
    monkeypatch.setattr(sync, "PULL_BYTES_PER_S", 10)
    monkeypatch.setattr(sync, "BURST_BYTES", 10)
    monkeypatch.setattr(sync, "LEAVES_PER_LIST", 1)
    cluster = Cluster()
    cluster.passes(1.0)
    gained = [sid for sid in cluster.sids(FIFTH, TWO) if cluster.ranking(sid)[2] == ONE][:10]
    for sid in gained:
        cluster.write(FIFTH, sid)
    cluster.passes(0.5)
    cluster.dies(FIFTH)
    cluster.passes(GRACE_S - 0.5, 0.25)
    said = cluster.passes(2 * STALL_S, 0.25)
    asked = [one.hearer for one in of(said, SyncAsk) if one.sender == ONE]
    assert asked[-1] == TWO, "who has the sessions, and not the next one"
    assert THREE not in asked
    assert sum(ONE in cluster.holding(sid) for sid in gained) < len(gained)


# --- digests ----------------------------------------------------------------------------------------------


def probes(cluster: Cluster, at: bytes, to: bytes) -> list[int]:
    """Return the digests that a node shows another in its next probes."""
    address = cluster[to].me.address
    shown: list[int] = []
    for _ in range(40):
        cluster[at].waits(0.5)
        for effect in cluster[at].does():
            message = getattr(effect, "message", None)
            if isinstance(message, Ping | ProbeAck) and effect.address == address:
                shown.append(message.digest)
        if shown:
            return shown
    raise AssertionError("nobody was probed")


def hears_digest(cluster: Cluster, hearer: bytes, teller: bytes, digest: int, view: int, times: int = 2) -> list:
    """Let a node be pinged with a digest; return what it says over links."""
    for number in range(times):
        cluster.tells(teller, hearer, Ping(number, hearer, (), view, digest))
    return cluster[hearer].says()


def settled(cluster: Cluster) -> None:
    """Let everything settle that was moved."""
    cluster.passes(2 * SETTLE_S, 0.5)


def test_a_digest_is_of_what_both_hold():
    """Anything else may differ for ever, and would be repaired for ever."""
    cluster = Cluster()
    sids = [*cluster.sids(ONE, TWO)[:3], *cluster.sids(TWO, ONE)[:3], *cluster.sids(ONE, THREE)[:3]]
    for sid in sids:
        cluster.write(ONE, sid)
    settled(cluster)
    layout = cluster[ONE].replica.placement.layout
    for other in FIVE[1:]:
        shared = layout.partitions_of(ONE) & layout.partitions_of(other)
        both = [sid for sid in sids if in_scope(leaf_of(sid), shared)]
        assert len(both) == {TWO: 6, THREE: 3, FOUR: 0, FIFTH: 0}[other]
        expected = sum(cluster[ONE].node.records[sid].state_hash for sid in both) % 2**48
        digests = [
            cluster[here].replica.sessions.digest(there, cluster[here].now_s)
            for here, there in ((ONE, other), (other, ONE))
        ]
        assert digests == [expected, expected]
        (shown,) = set(probes(cluster, ONE, other))
        assert shown == expected


def test_a_surplus_copy_is_in_no_digest():
    """A read that a balancer put here would start a repair with each holder."""
    cluster = Cluster()
    sid = held_by(cluster, ONE, TWO)
    before = cluster[FIFTH].replica.sessions.digest(ONE, cluster[FIFTH].now_s)
    cluster.write(FIFTH, sid, key="b")
    settled(cluster)
    assert sid in cluster[FIFTH].node.records
    assert cluster[FIFTH].replica.sessions.digest(ONE, cluster[FIFTH].now_s) == before == 0


@pytest.mark.parametrize("agree", [True, False], ids=["equal tags", "other tags"])
def test_digests_are_compared_only_where_both_place_alike(agree):
    """Under other layouts they are of other sessions; each change of the view would start repairs between all pairs."""
    cluster = Cluster()
    settled(cluster)
    tag = cluster[ONE].replica.placement.layout.tag
    said = hears_digest(cluster, ONE, TWO, 7, tag if agree else tag ^ 1)
    assert [type(message) for message in said] == [SyncAsk if agree else Members]
    assert cluster[ONE].replica.sessions.anti_entropy.repairs == agree


def test_a_node_that_fills_up_shows_no_digest_and_repairs_nothing():
    """It pulls what it lacks by itself; repaired by each other holder too, all of it would come twice."""
    cluster = Cluster()
    third = cluster.ranking(cluster.sid(ONE, TWO))[2]
    settled(cluster)
    cluster.dies(ONE)
    cluster.carry()
    here = cluster[third]
    assert here.replica.sessions.digest(TWO, here.now_s) == INCOMPARABLE
    assert set(probes(cluster, third, TWO)) == {INCOMPARABLE}
    here.now_s += 1.5 * SETTLE_S  # the syncs that follow a death are long over, the grace is not
    tag = here.replica.placement.layout.tag
    hears_digest(cluster, third, TWO, 7, tag)
    assert here.replica.sessions.anti_entropy.repairs == 0
    cluster.passes(GRACE_S + 2 * SETTLE_S, 0.25)
    hears_digest(cluster, third, TWO, 7, tag)
    assert here.replica.sessions.anti_entropy.repairs == 1, "once it has everything it does"


def test_a_digest_that_says_nothing_starts_no_repair():
    """Its sender is filling up: whatever differs is on its way."""
    cluster = Cluster()
    held_by(cluster, ONE, TWO)
    settled(cluster)
    tag = cluster[TWO].replica.placement.layout.tag
    assert hears_digest(cluster, TWO, ONE, INCOMPARABLE, tag, 10) == []
    assert hears_digest(cluster, ONE, TWO, INCOMPARABLE, tag, 10) == []
    assert hears_digest(cluster, ONE, TWO, 7, tag) != [], "any other one does"


def test_a_write_that_a_holder_missed_is_found_by_digests_and_reaches_nobody_else():
    """The last resort where a message was lost for good; it must work where each pair shares but a part."""
    cluster = Cluster()
    sid = cluster.sid(ONE, TWO)
    cluster.write(ONE, sid)
    for peer in cluster[ONE].replica.sessions.peers:
        peer.outbound.forget(sid)
    assert cluster.holding(sid) == [ONE]
    cluster.passes(4 * SETTLE_S, 0.5)
    assert cluster.holding(sid) == [ONE, TWO]
    assert sum(here.replica.sessions.anti_entropy.repairs for here in cluster.nodes.values()) == 1
