"""To whom a write is sent from four nodes on, and when to somebody more."""

import pytest

from gossipsess.model.member import MemberState
from gossipsess.model.revocation import user_sid
from gossipsess.protocol.confirmation import HEDGE_AFTER
from gossipsess.protocol.events import Invalidate, LinkClosed, Revoke, Rotate
from gossipsess.protocol.outcomes import Confirmed, Degraded
from gossipsess.protocol.placement import Rules
from gossipsess.wire.messages import Gossip
from tests.unit.cluster import FIVE, Cluster, pushed
from tests.unit.machines import SID

ONE, TWO, THREE, FOUR, FIFTH = FIVE
TIMEOUT_S = 0.25
HEDGE_S = HEDGE_AFTER * TIMEOUT_S


def suspects(cluster: Cluster, at: bytes, suspect: bytes) -> None:
    """Let a node hear that a member is suspected; it is linked as before."""
    accused = cluster[suspect].me._replace(state=MemberState.SUSPECT)
    teller = next(node for node in cluster.ids if node not in (at, suspect))
    cluster.tells(teller, at, Gossip((accused,)))
    cluster[at].does()


# --- a write ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("confirm", [0, 1])
def test_a_write_goes_to_the_holders_and_to_nobody_else(confirm):
    """Sent to all, each write would cost as many messages as there are nodes; that is what placement is for."""
    cluster = Cluster()
    for sid, writer in ((cluster.sid(ONE, TWO), ONE), (cluster.sid(THREE, ONE), ONE), (cluster.sid(TWO, FOUR), ONE)):
        holders = cluster.ranking(sid)[:2]
        outcomes = cluster.write(writer, sid, confirm)
        said = cluster.passes(0.01, 0.005)
        assert pushed(said, sid, writer) == [node for node in FIVE if node in holders and node != writer]
        assert sorted(cluster.holding(sid)) == sorted({*holders, writer})
        (outcome,) = outcomes
        assert isinstance(outcome, Confirmed)
        assert outcome.hosts >= confirm


@pytest.mark.parametrize("confirm", [1, 2, 3, 9])
def test_where_all_share_a_host_a_write_reaches_as_many_nodes(confirm):
    """On a developer's machine, or in one pod with many workers, nodes are what can be waited for."""
    cluster = Cluster(*FIVE, hosts=("a",) * 5)
    for sid in (cluster.sid(ONE), cluster.sid(TWO, FIFTH)):
        outcomes = cluster.write(ONE, sid, confirm)
        told = pushed(cluster.due(), sid, ONE)
        holders = [node for node in cluster.ranking(sid)[:2] if node != ONE]
        assert len(told) == max(len(holders), min(confirm, 4))
        (outcome,) = outcomes
        assert isinstance(outcome, Confirmed)


def test_a_wait_is_hedged_where_all_share_a_host():
    """One worker of many may stand still there too."""
    cluster = Cluster(*FIVE, hosts=("a",) * 5)
    sid = cluster.sid(ONE, TWO)
    cluster.deaf = [TWO]
    outcomes = cluster.write(ONE, sid, 1)
    cluster.passes(2 * HEDGE_S, 0.005)
    assert outcomes == [Confirmed(0, 1)]


@pytest.mark.parametrize("confirm", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("hosts", [("a", "b", "c", "d", "e"), ("a", "a", "b", "b", "c")], ids=["five", "three"])
def test_a_write_reaches_as_many_hosts_as_are_waited_for_or_as_there_are(hosts, confirm):
    """There are fewer holders than an application may ask for; its response must not wait for a deadline."""
    cluster = Cluster(*FIVE, hosts=hosts)
    wanted = min(confirm, len(set(hosts)) - 1)
    for sid in (cluster.sid(ONE), cluster.sid(TWO, FIFTH), cluster.sid(FOUR)):
        outcomes = cluster.write(ONE, sid, confirm)
        told = pushed(cluster.due(), sid, ONE)
        assert len(cluster.hosts(told) - {"a"}) >= wanted
        holders = [node for node in cluster.ranking(sid)[:2] if node != ONE]
        assert set(holders) <= set(told), "beyond the holders, not in their place"
        more = max(wanted - len(cluster.hosts(holders) - {"a"}), 0)
        assert len(told) == len(holders) + more, "and no further than it takes"
        (outcome,) = outcomes
        assert isinstance(outcome, Confirmed)
        assert outcome.hosts >= wanted


def test_those_beyond_the_holders_are_the_next_in_rank():
    """They are who holds it when a holder dies: the copy is where it is wanted."""
    cluster = Cluster()
    sid = cluster.sid(ONE, TWO)
    cluster.write(ONE, sid, 3)
    assert set(pushed(cluster.due(), sid, ONE)) == set(cluster.ranking(sid)[1:4])


@pytest.mark.parametrize("why", ["suspect", "no link"])
def test_a_holder_that_may_not_answer_is_made_up_for_at_once(why):
    """The request would wait for its deadline, or for the hedge, though others could confirm it."""
    cluster = Cluster()
    sid = cluster.sid(ONE, TWO)
    if why == "suspect":
        suspects(cluster, ONE, TWO)
    else:
        cluster[ONE].node.submit(LinkClosed(cluster.link(TWO)))
    cluster.deaf.append(TWO)
    outcomes = cluster.write(ONE, sid, 1)
    said = cluster.due()
    third = cluster.ranking(sid)[2]
    assert third in pushed(said, sid, ONE)
    assert outcomes == [Confirmed(1, 1)]
    assert cluster[ONE].replica.sessions.peers[TWO].outbound.unacknowledged == 1, "the holder is owed it all the same"


def test_nobody_who_may_not_answer_makes_up_for_a_holder():
    """The next one may be as badly off."""
    cluster = Cluster()
    sid = cluster.sid(ONE, TWO)
    third, fourth = cluster.ranking(sid)[2:4]
    suspects(cluster, ONE, TWO)
    suspects(cluster, ONE, third)
    cluster.deaf += [TWO, third]
    outcomes = cluster.write(ONE, sid, 1)
    told = pushed(cluster.due(), sid, ONE)
    assert (fourth in told, third in told) == (True, False)
    assert outcomes == [Confirmed(1, 1)]


def test_all_means_every_holder_and_nobody_in_its_place():
    """Who asks for all wants to know that the holders have it; a copy elsewhere is not what was asked for."""
    cluster = Cluster(rules=Rules(2, 2))
    sid = cluster.sid(ONE, TWO, THREE)
    outcomes = cluster.write(ONE, sid, "all")
    assert pushed(cluster.due(), sid, ONE) == [TWO, THREE]
    assert outcomes == [Confirmed(2, 2)]
    suspects(cluster, ONE, THREE)
    cluster.deaf.append(THREE)
    outcomes = cluster.write(ONE, sid, "all", key="b")
    said = cluster.passes(TIMEOUT_S, 0.01)
    assert set(pushed(said, sid, ONE)) == {TWO, THREE}
    assert outcomes == [Degraded(1, 1)]


# --- the hedge --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("writer", [ONE, FIFTH], ids=["the primary", "no holder"])
def test_a_holder_that_does_not_acknowledge_is_hedged_by_the_next_in_rank(writer):
    """A paused or overloaded holder is taken for alive for seconds; each commit to its sessions would be degraded."""
    cluster = Cluster()
    sid = next(sid for sid in cluster.sids(ONE, TWO) if cluster.ranking(sid)[2] != FIFTH)
    third = cluster.ranking(sid)[2]
    cluster.deaf += [node for node in (ONE, TWO) if node != writer]
    outcomes = cluster.write(writer, sid, 1)
    told = pushed(cluster.passes(0.9 * HEDGE_S, HEDGE_S / 10), sid, writer)
    assert set(told) == {node for node in (ONE, TWO) if node != writer}
    assert outcomes == []
    assert cluster[writer].replica.next_deadline() <= cluster[writer].now_s + 0.1 * HEDGE_S + 1e-9, "the driver wakes"
    said = cluster.passes(0.2 * HEDGE_S, HEDGE_S / 10)
    assert pushed(said, sid, writer) == [third]
    assert outcomes == [Confirmed(1, 1)]
    assert sid in cluster[third].node.records


def test_a_wait_that_has_ended_is_not_hedged():
    """Each commit would be sent to three."""
    cluster = Cluster()
    sid = cluster.sid(ONE, TWO)
    cluster.write(ONE, sid, 1)
    cluster.due()
    assert pushed(cluster.passes(2 * TIMEOUT_S), sid, ONE) == []
    assert cluster.holding(sid) == [ONE, TWO]


def test_a_wait_is_hedged_once():
    """One that goes on being slow must not draw in the whole cluster, write by write."""
    cluster = Cluster()
    sid = cluster.sid(ONE, TWO)
    third = cluster.ranking(sid)[2]
    cluster.deaf += [TWO, third]
    outcomes = cluster.write(ONE, sid, 1)
    said = cluster.passes(TIMEOUT_S, 0.01)
    assert set(pushed(said, sid, ONE)) == {TWO, third}
    assert outcomes == [Degraded(0, 0)]


def test_a_hedge_goes_to_a_host_that_was_not_tried():
    """A machine that is slow is slow for all its processes, and two copies on it are one."""
    cluster = Cluster(*FIVE, hosts=("a", "b", "b", "a", "c"))
    sid = next(sid for sid in cluster.sids(ONE, TWO) if cluster.ranking(sid)[2] != FIFTH)
    cluster.deaf.append(TWO)
    outcomes = cluster.write(ONE, sid, 1)
    said = cluster.passes(1.2 * HEDGE_S, HEDGE_S / 5)
    assert pushed(said, sid, ONE) == [TWO, FIFTH]
    assert outcomes == [Confirmed(1, 1)]


# --- what ends sessions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("confirm", [0, 1, "all"])
@pytest.mark.parametrize("how", ["logout", "rotation", "revocation"])
def test_an_end_is_told_to_every_member(how, confirm):
    """A copy that was fetched for a read may be anywhere; a logout that does not get there leaves it to be served."""
    cluster = Cluster()
    sid, other = cluster.sid(ONE, TWO), cluster.sid(TWO, THREE)
    cluster.write(ONE, sid)
    cluster.passes(0.01)
    outcomes: list = []
    match how:
        case "logout":
            cluster[ONE].node.submit(Invalidate(sid, confirm, outcomes.append))
        case "rotation":
            cluster[ONE].node.submit(Rotate(sid, other, (), confirm, outcomes.append))
        case _:
            sid = user_sid("kim")
            cluster[ONE].node.submit(Revoke(sid, confirm, outcomes.append))
    said = cluster.passes(0.01)
    assert pushed(said, sid, ONE) == [TWO, THREE, FOUR, FIFTH]
    assert all(here.node.records[sid].tombstone for here in cluster.nodes.values())
    if how == "rotation":
        assert pushed(said, other, ONE) == [TWO, THREE], "the data goes to its holders only"
    assert all(isinstance(outcome, Confirmed) for outcome in outcomes)
    assert len(outcomes) == (confirm != 0)


def test_a_logout_that_is_waited_for_by_one_host_counts_any_member():
    """Whoever has the tombstone passes it on when the writer dies, holder or not."""
    cluster = Cluster()
    sid = cluster.sid(ONE, TWO)
    cluster.write(ONE, sid)
    cluster.passes(0.01)
    cluster.deaf.append(TWO)
    outcomes: list = []
    cluster[ONE].node.submit(Invalidate(sid, 1, outcomes.append))
    cluster.due()
    assert outcomes == [Confirmed(1, 1)]


def test_below_the_bound_a_write_goes_to_everybody():
    """With three nodes each has everything, and any of them serves it without asking."""
    cluster = Cluster(*FIVE[:3], rules=Rules())
    outcomes = cluster.write(ONE, SID, 1)
    said = cluster.due()
    assert pushed(said, SID, ONE) == [TWO, THREE]
    assert cluster.holding(SID) == [ONE, TWO, THREE]
    assert outcomes == [Confirmed(1, 1)]
