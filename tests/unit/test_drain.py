"""A node that leaves in order: from its drain until nothing is lost by its end."""

import pytest

from gossipsess.protocol.events import Drain, Fetch, Leave
from gossipsess.protocol.outcomes import Confirmed, Found
from gossipsess.protocol.placement import Rules
from gossipsess.wire.messages import Have, Members
from tests.unit.cluster import FIVE, Cluster, of, pushed
from tests.unit.machines import stamp

ONE, TWO, THREE, FOUR, FIFTH = FIVE
DRAIN_S = 10.0
"""What the driver allows for it (runtime/driver.py)."""


def drains(cluster: Cluster, node: bytes) -> None:
    """Let a node say that it leaves, and all hear of it."""
    cluster[node].node.submit(Drain())
    cluster.carry()


def secures(cluster: Cluster, node: bytes) -> float:
    """Let time pass until a node that leaves has nothing left that others lack; return how long that took."""
    sessions = cluster[node].replica.sessions
    for tenth in range(round(10 * DRAIN_S)):
        if not sessions.securing and not sessions.unacknowledged:
            return tenth / 10
        cluster.passes(0.1, 0.02)
    raise AssertionError(f"{sessions.securing} partitions are not secured after {DRAIN_S} s")


def holds_alone(cluster: Cluster, node: bytes, sids: list[bytes]) -> None:
    """Let a node hold sessions of which nobody else has heard."""
    for sid in sids:
        cluster.write(node, sid)
        for peer in cluster[node].replica.sessions.peers:
            peer.outbound.forget(sid)
    cluster.passes(0.1)


@pytest.mark.parametrize("datagrams", [True, False], ids=["told by gossip", "told over links alone"])
def test_a_node_that_drains_is_no_holder_any_more_for_anybody(datagrams):
    """What was written to it now would have to be moved at once, by a node that is about to end."""
    cluster = Cluster()
    cluster.datagrams = datagrams
    sids = cluster.sids(ONE)[:5] + cluster.sids(TWO, ONE)[:5]
    drains(cluster, ONE)
    layouts = [here.replica.placement.layout for here in cluster.nodes.values()]
    assert len({layout.tag for layout in layouts}) == 1, "all have heard"
    for layout in layouts:
        assert layout.partitions_of(ONE).bit_count() == 1, "the revocations, which every live member holds"
    for sid in sids:
        outcomes = cluster.write(THREE, sid, 1)
        said = cluster.due()
        assert ONE not in pushed(said, sid, THREE)
        (outcome,) = outcomes
        assert isinstance(outcome, Confirmed)


def test_to_drain_once_more_is_nothing_new():
    """A preStop hook says it, perhaps twice, and later the end of the process does again."""
    cluster = Cluster()
    holds_alone(cluster, ONE, cluster.sids(ONE)[:5])
    drains(cluster, ONE)
    here = cluster[ONE].node
    here.take()
    here.submit(Drain())
    assert here.take()[0] == []


def leaves(cluster: Cluster, node: bytes) -> None:
    """Let a node leave, and its process end."""
    cluster[node].node.submit(Leave())
    cluster.carry()
    del cluster.nodes[node]
    for here in cluster.nodes.values():
        assert node not in [one.node for one in here.replica.swim.view.live()]


def test_everything_a_node_alone_held_is_with_its_new_holders_before_it_leaves():
    """A deployment replaces one node after the other; a session of which the last copy went would log its user out."""
    cluster = Cluster()
    sids = cluster.sids(ONE)[:20] + cluster.sids(TWO, ONE)[:20]
    before = {sid: cluster.ranking(sid)[:2] for sid in sids}
    holds_alone(cluster, ONE, sids)
    assert all(cluster.holding(sid) == [ONE] for sid in sids)
    states = {sid: cluster[ONE].node.records[sid].state_hash for sid in sids}
    drains(cluster, ONE)
    secures(cluster, ONE)
    for sid in sids:
        (new,) = [node for node in cluster.ranking(sid)[:2] if node not in before[sid]]
        assert cluster[new].node.records[sid].state_hash == states[sid]
    leaves(cluster, ONE)
    cluster.passes(8.0, 0.5)
    for sid in sids:
        assert [cluster[node].node.records[sid].state_hash for node in cluster.ranking(sid)[:2]] == 2 * [states[sid]]


@pytest.mark.parametrize("between_s", [0.0, 0.2], ids=["before its next probe", "after it"])
def test_who_has_just_become_a_holder_is_handed_over_what_its_digest_does_not_tell_yet(between_s):
    """A process is killed while a deployment stops another one: the next in rank has nothing yet, and cannot say so
    before its next probe."""
    a, b, c, d = FIVE[:4]
    cluster = Cluster(a, b, c, d, rules=Rules())
    cluster.passes(2.0)
    sids = cluster.sids(a, c)[:10] + cluster.sids(c, a)[:10]
    for sid in sids:
        cluster.write(a, sid, 1)
    cluster.passes(2.0)
    drains(cluster, d)
    secures(cluster, d)
    leaves(cluster, d)
    cluster.passes(6.0)
    cluster.dies(c)
    cluster.carry()
    cluster.passes(between_s)
    drains(cluster, a)
    secures(cluster, a)
    leaves(cluster, a)
    cluster.passes(1.0)
    assert [sid for sid in sids if sid not in cluster[b].node.records] == []


def test_what_the_other_holder_has_too_is_not_sent_again_by_all():
    """With a hundred thousand sessions a node must be gone within seconds; only what is lacking moves."""
    cluster = Cluster()
    sids = cluster.sids(ONE, TWO)[:10]
    for sid in sids:
        cluster.write(ONE, sid)
    cluster.passes(0.1)
    drains(cluster, ONE)
    said = cluster.passes(4.0)
    third = {sid: cluster.ranking(sid)[1] for sid in sids}
    for sid in sids:
        assert [node for teller in cluster.ids for node in pushed(said, sid, teller)] == [third[sid]]
    assert cluster[ONE].replica.sessions.securing == 0


def test_securing_says_what_is_left_until_nothing_is():
    """The driver waits for it; nothing at the start would let the process end with what it alone holds."""
    cluster = Cluster()
    sids = cluster.sids(ONE, TWO)[:3]
    holds_alone(cluster, ONE, sids)
    sessions = cluster[ONE].replica.sessions
    assert sessions.securing == 0, "a holder that stays has nothing to hand over"
    cluster.deaf = list(FIVE[1:])
    cluster[ONE].node.submit(Drain())
    cluster.passes(0.5)
    assert sessions.securing == 3
    cluster.deaf = []
    assert secures(cluster, ONE) < 3.0
    assert all(cluster.holding(sid)[:2] == [ONE, TWO] for sid in sids)


def test_a_drain_with_nothing_to_hand_over_is_over_at_once():
    """Most of them: what is written is held by two."""
    cluster = Cluster()
    drains(cluster, ONE)
    assert cluster[ONE].replica.sessions.securing == 0
    assert of(cluster.passes(1.0), Have) == []


def test_a_node_that_drains_serves_and_acknowledges_until_it_has_left():
    """The balancer goes on sending it requests for a moment, and others may hold back nothing for it."""
    cluster = Cluster()
    kept, new = cluster.sid(ONE, TWO), cluster.sid(TWO, THREE)
    cluster.write(TWO, kept)
    cluster.passes(0.1)
    drains(cluster, ONE)
    written = cluster.write(ONE, new, 1)
    again = cluster.write(ONE, kept, 1, key="b")
    cluster.passes(0.1, 0.02)
    for (outcome,) in (written, again):
        assert isinstance(outcome, Confirmed)
        assert outcome.hosts
    found: list = []
    at_once = cluster[ONE].node.submit(Fetch(kept, (), found.append))
    cluster.carry()
    assert Found.FRESH in (at_once, *found)
    secures(cluster, ONE)


def test_a_session_written_while_its_node_drains_is_handed_over_too():
    """Also one that is confirmed by nobody, and of which no holder has heard when the process would end."""
    cluster = Cluster()
    drains(cluster, ONE)
    sid = cluster.sid(TWO, THREE)
    cluster.write(ONE, sid, 0)
    assert cluster[ONE].replica.sessions.unacknowledged
    secures(cluster, ONE)
    assert {TWO, THREE} <= set(cluster.holding(sid))


def test_a_tombstone_that_only_the_leaver_holds_is_handed_over():
    """A logout that leaves with its node is undone."""
    cluster = Cluster()
    sid = cluster.sid(ONE, TWO)
    cluster.write(ONE, sid)
    cluster.passes(0.1)
    here = cluster[ONE]
    here.replica.sessions.table.kill(sid, stamp(10_000), here.now_s)
    drains(cluster, ONE)
    secures(cluster, ONE)
    assert cluster[cluster.ranking(sid)[1]].node.records[sid].tombstone == stamp(10_000)
    leaves(cluster, ONE)
    cluster.passes(8.0, 0.5)
    for node in cluster.ranking(sid)[:2]:
        assert cluster[node].node.records[sid].tombstone == stamp(10_000)


def test_a_copy_that_a_hedge_left_is_handed_over_before_its_offer_is_due():
    """The writer that has died since told nobody else; what confirmed its write must not leave with it."""
    cluster = Cluster()
    sid = next(sid for sid in cluster.sids(TWO, THREE) if cluster.ranking(sid)[2] == ONE)
    cluster.deaf.append(THREE)
    outcomes = cluster.write(TWO, sid, 1)
    cluster.passes(0.06, 0.01)
    assert outcomes == [Confirmed(1, 1)]
    assert cluster.holding(sid) == [ONE, TWO]
    cluster.dies(TWO)
    cluster.deaf.clear()
    drains(cluster, ONE)
    assert cluster[ONE].replica.sessions.securing == 1
    assert secures(cluster, ONE) < 0.4
    assert THREE in cluster.holding(sid)


@pytest.mark.parametrize("rules", [Rules(2), Rules(4)], ids=["primaries", "all to all"])
def test_two_that_drain_at_once_do_not_hand_over_to_each_other(rules):
    """A rolling update may take two at a time; what each gave the other would end with both."""
    cluster = Cluster(*FIVE[:4], rules=rules)
    sids = cluster.sids(ONE, TWO)[:5]
    holds_alone(cluster, ONE, sids)
    for node in (ONE, TWO):
        cluster[node].node.submit(Drain())
    cluster.carry()
    for node in (ONE, TWO):
        secures(cluster, node)
    for sid in sids:
        assert {THREE, FOUR} <= set(cluster.holding(sid))


def test_who_reads_at_a_new_holder_while_both_former_ones_drain_gets_the_session():
    """The new ones have not everything yet; the no of one must not make the other call it absent."""
    cluster = Cluster(*FIVE[:4])
    sid = cluster.sid(ONE, TWO)
    cluster.write(ONE, sid)
    cluster.passes(0.1)
    for node in (ONE, TWO):
        cluster[node].node.submit(Drain())
        for told in of_kind(cluster[node].says(), Members):  # and nothing is offered yet
            for other in (one for one in FIVE[:4] if one != node):
                cluster[other].hears(told, cluster.link(node))
    assert cluster.holding(sid) == [ONE, TWO]
    found: list = []
    assert cluster[THREE].node.submit(Fetch(sid, (), found.append)) is None
    cluster.carry()
    assert found == [Found.FRESH]
    assert sid in cluster[THREE].node.records


def of_kind(said: list, kind: type) -> list:
    """Return one message of a kind; several peers are told the same."""
    return [message for message in said if isinstance(message, kind)][:1]
