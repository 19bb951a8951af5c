"""What a node says of where sessions live, and of what moves."""

from dataclasses import replace

from gossipsess.model.member import Member, MemberState, Told
from gossipsess.model.rules import Rules
from gossipsess.protocol.events import Drain
from gossipsess.status import GainStatus, Status, snapshot
from gossipsess.wire.messages import Members
from tests.unit.machines import ALICE, BOB, CAROL, Clocked, exchange, member

ADA, DAVE, EVE = b"ada.....", b"dave....", b"eve....."
PRIMARY_SECONDARY = Rules(all_to_all_below=2)


def status(here: Clocked) -> Status:
    return snapshot(here.node)


def pair(rules: Rules = PRIMARY_SECONDARY) -> tuple[Clocked, Clocked]:
    """Return two nodes that have met, and hold what they are to hold."""
    here, there = Clocked(ALICE, rules=rules).alone(), Clocked(BOB, rules=rules).alone()
    here.linked(BOB)
    there.linked(ALICE)
    exchange(here, there)
    return here, there


def hears_of(here: Clocked, one: Member) -> None:
    here.hears(Members((Told(one),), reply=False))


def stored(here: Clocked, count: int) -> None:
    for number in range(count):
        session = here.store.create()
        session["cart"] = "x" * 1000 + str(number)
        here.store.commit(session, 0)


def test_below_the_bound_every_node_holds_every_session():
    """Where all are equal, "primary" would be a claim that nothing rests on."""
    here, _ = pair(Rules())
    said = status(here)
    assert (said.mode, said.copies) == ("all-to-all", 2)
    assert (said.primary_partitions, said.secondary_partitions) == (0, 1024)
    assert (said.surplus, said.gaining, said.handing_over) == (0, None, 0)


def test_the_parts_of_all_nodes_make_up_primary_and_secondary_of_everything():
    """The figures say how evenly the load is shared; counted twice or not at all, they say nothing."""
    primary = secondary = 0
    nodes = (ALICE, BOB, CAROL, DAVE)
    for node in nodes:
        here = Clocked(node).alone()
        for link, peer in enumerate([one for one in nodes if one != node], 1):
            here.linked(peer, link)
        said = status(here)
        assert (said.mode, said.copies) == ("primary-secondary", 2)
        announcers = [here.replica.placement.layout.announcer(partition).node for partition in range(1024)]
        assert said.primary_partitions == announcers.count(node), "the primary announces what ends"
        primary += said.primary_partitions
        secondary += said.secondary_partitions
    assert (primary, secondary) == (1024, 1024)


def test_what_is_held_for_others_is_counted_as_surplus():
    """It is memory that comes back by itself, and an operator who wonders about it should see so."""
    here = Clocked().alone()
    stored(here, 200)
    assert status(here).surplus == 0
    for link, peer in enumerate((BOB, CAROL, DAVE), 1):
        here.linked(peer, link)
    said = status(here)
    layout = here.replica.placement.layout
    held = layout.partitions_of(ALICE)
    beyond = [sid for sid in here.node.records if not held >> (sid[0] << 2 | sid[1] >> 6) & 1]
    assert 0 < said.surplus == len(beyond) < said.sessions == 200


def test_a_node_that_gains_says_how_far_it_is_and_what_came():
    """Who restarts node after node waits for this to end."""
    here, there = Clocked(ALICE).alone(), Clocked(BOB)
    stored(here, 300)
    assert status(there).gaining == GainStatus(1024, 1024, 0, 0.0, None), "it has just started, and met nobody"
    here.linked(BOB)
    there.linked(ALICE)
    there.now_s += 0.5
    gaining = status(there).gaining
    assert gaining is not None
    assert (gaining.of, gaining.for_s) == (1024, 0.5)
    exchange(here, there)
    said = status(there)
    assert said.gaining is None
    assert said.sessions == 300
    assert 300 * 1000 < said.pulled_bytes < 300 * 1300
    assert status(here).pulled_bytes == 0, "giving is not pulling"


def test_a_node_that_leaves_says_what_is_still_to_be_handed_over():
    """It may be stopped once that is nothing."""
    here = Clocked(ALICE, rules=PRIMARY_SECONDARY).alone()
    for link, peer in enumerate((BOB, CAROL), 1):
        here.linked(peer, link)
    stored(here, 100)
    here.does()
    before = status(here)
    assert (before.leaving, before.handing_over) == (False, 0)
    here.node.submit(Drain())
    said = status(here)
    assert said.leaving
    assert said.primary_partitions == said.secondary_partitions == 0
    assert said.handing_over > 20
    assert said.surplus == 100


def test_what_holders_lacked_is_counted_as_handed_over():
    """How much a change of the layout cost is what decides how fast nodes may be replaced."""
    here, there = pair()
    for one in (here, there):
        hears_of(one, member(CAROL, port=7951))
    stored(here, 100)
    here.waits(0.01)
    exchange(here, there)
    theirs = len(there.node.records)
    assert 0 < theirs < 100, "some live on this node and on carol, who has no link to anybody"
    here.node.submit(Drain())
    for _ in range(300):
        here.waits(0.01)
        exchange(here, there)
    came = len(there.node.records) - theirs
    assert came
    assert came * 1000 < status(here).handed_over_bytes < came * 1300
    assert status(there).handed_over_bytes == 0


def test_zones_and_leaving_of_members_are_shown():
    """Whether copies can go to distinct zones depends on what every node was told about its own."""
    here = Clocked().alone()
    here.linked(BOB)
    bob = member(BOB)._replace(incarnation=1, zone="eu-1a", leaving=True)
    hears_of(here, bob)
    (said,) = status(here).members
    assert (said.zone, said.leaving) == ("eu-1a", True)
    assert (status(here).zone, status(here).leaving) == ("", False)


def test_of_the_former_lives_of_one_name_the_last_comes_first():
    """A node that was killed, came back and left has left: who shows one life of each name shows the last."""
    here = Clocked().alone()
    here.linked(BOB)
    for name, killed, left in (("web-1", CAROL, DAVE), ("web-2", EVE, ADA)):  # in either order of their ids
        hears_of(here, member(killed)._replace(name=name, state=MemberState.DEAD))
        here.waits(0.1)
        hears_of(here, member(left)._replace(name=name, state=MemberState.LEFT))
    bob, *former = [(said.name, said.state) for said in status(here).members]
    assert bob == (BOB.decode(), "alive")
    assert former == [("web-1", "left"), ("web-1", "dead"), ("web-2", "left"), ("web-2", "dead")]


def test_a_node_that_cannot_be_synced_is_ready_after_a_minute():
    """A peer that lives and refuses this node's clock never shows what it holds; a deployment must not end by that."""
    here = Clocked().linked(BOB)
    here.waits(1.0)
    early = replace(status(here), running=True)
    assert early.up_s == 1.0
    assert not early.synced
    assert not early.ready
    late = replace(early, up_s=60.0)
    assert late.ready
    assert not replace(late, leaving=True).ready
    assert not replace(late, running=False).ready
