"""Who holds which partition: the modes, the count that decides between them, and who is no holder."""

import random
from itertools import combinations

import pytest

from gossipsess.model.member import Member, MemberState, Told
from gossipsess.model.revocation import user_sid
from gossipsess.protocol.effects import CloseLink, Dial, SendDatagram
from gossipsess.protocol.events import Abandon, LinkOpened, ReceivedDatagram
from gossipsess.protocol.membership import Membership
from gossipsess.protocol.placement import EVERYWHERE, LINGER_S, Layout, Placement, Rules, partition_of
from gossipsess.wire.messages import Gossip, Hello, Members, Ping, ProbeAck
from tests.unit.machines import ALICE, BOB, CAROL, Clocked, stamp
from tests.unit.machines import member as at_one_address

PARTITIONS = range(EVERYWHERE)


def member(
    number: int, *, name: str = "", host: str = "", zone: str = "", run: int = 0, leaving: bool = False
) -> Member:
    """Return a node by number; `run` counts its restarts in place."""
    node = random.Random(f"{number} {run}").randbytes(8)
    ip = f"10.0.0.{number}"
    return Member(node, 0, MemberState.ALIVE, (ip, 7950), name or f"{ip}:7950", host or ip, zone, leaving)


def laid_out(*members: Member, rules: Rules = Rules(), all_to_all: bool = False) -> Layout:  # noqa: B008  # immutable
    return Layout(tuple(sorted(members, key=lambda one: one.node)), rules, all_to_all=all_to_all)


def names(holders: tuple[Member, ...]) -> list[str]:
    return [holder.name for holder in holders]


FIVE = [member(number) for number in range(1, 6)]


def viewing(*members: Member, rules: Rules = Rules(), now_s: float = 0.0) -> Placement:  # noqa: B008  # immutable
    placement = Placement(members[0], rules, now_s)
    placement.view_changed(members, (), now_s)
    return placement


# --- who holds what ---------------------------------------------------------------------------------------


def test_a_partition_is_the_first_ten_bits_of_a_sid_and_that_of_users_is_one_more():
    """All nodes must cut the sessions alike; the masks of a sync are made of these numbers."""
    assert partition_of(b"\x00\x3f" + bytes(14)) == 0
    assert partition_of(b"\x00\x40" + bytes(14)) == 1
    assert partition_of(b"\xff" * 2 + bytes(14)) == EVERYWHERE - 1 == 1023
    assert partition_of(user_sid("kim")) == EVERYWHERE == 1024


def test_the_scores_are_those_of_every_other_version():
    """A node of a release that hashed otherwise would send each session to members that do not expect it."""
    layout = laid_out(*[member(number, name=f"web-{number}") for number in range(1, 6)])
    assert [names(layout.holders(partition)) for partition in (0, 1, 511, 1023)] == [
        ["web-5", "web-3"],
        ["web-4", "web-1"],
        ["web-5", "web-3"],
        ["web-3", "web-4"],
    ]


@pytest.mark.parametrize(
    ("members", "rules", "copies"),
    [
        (3, Rules(), 3),
        (4, Rules(), 2),
        (8, Rules(), 2),
        (4, Rules(secondaries=2), 3),
        (4, Rules(secondaries=9), 4),
        (4, Rules(all_to_all_below=5), 4),
        (2, Rules(all_to_all_below=2), 2),
        (3, Rules(all_to_all_below=2), 2),
        (1, Rules(all_to_all_below=2), 1),
    ],
)
def test_all_members_hold_a_session_until_there_are_as_many_as_the_settings_say(members, rules, copies):
    """The one place that knows the number four."""
    placement = viewing(*[member(number) for number in range(1, members + 1)], rules=rules)
    assert {len(set(placement.layout.holders(partition))) for partition in PARTITIONS} == {copies}
    assert placement.layout.all_to_all == (members < rules.all_to_all_below)


def test_hosts_are_counted_where_the_settings_say_so():
    """Four workers of one machine are four nodes, and one place that fails at once."""
    workers = [member(number, host=f"pod-{number % 2}") for number in range(1, 7)]
    assert not viewing(*workers).layout.all_to_all
    by_host = Rules(count_by="host")
    assert viewing(*workers, rules=by_host).layout.all_to_all
    assert not viewing(*workers, member(8, host="pod-8"), member(9, host="pod-9"), rules=by_host).layout.all_to_all


def test_revocations_are_held_by_all_live_members_in_every_mode():
    """Whoever holds a session of the user must know that it is over; a leaving one still serves."""
    members = [*FIVE, member(6, leaving=True)]
    for all_to_all in (False, True):
        layout = laid_out(*members, all_to_all=all_to_all)
        assert set(layout.holders(EVERYWHERE)) == set(members)
        assert all(layout.holds(one.node, EVERYWHERE) for one in members)
        assert all(layout.partitions_of(one.node) >> EVERYWHERE == 1 for one in members)


def test_who_leaves_holds_nothing_any_more_but_counts():
    """Its sessions go to those that stay, while it is still there to hand them over."""
    leaving = FIVE[0]._replace(leaving=True)
    assert leaving.is_live
    assert not leaving.is_eligible
    placement = viewing(leaving, *FIVE[1:4])
    assert not placement.layout.all_to_all
    assert placement.layout.partitions_of(leaving.node) == 1 << EVERYWHERE
    without = laid_out(*FIVE[1:4])
    assert all(placement.layout.holders(partition) == without.holders(partition) for partition in PARTITIONS)
    assert all(leaving not in placement.layout.ranking(partition) for partition in PARTITIONS)
    three = viewing(leaving, *FIVE[1:3])
    assert leaving not in three.layout.holders(0)


def test_where_all_leave_all_stay_holders():
    """A cluster that is stopped as a whole moves nothing, and somebody must answer until the end."""
    leaving = [one._replace(leaving=True) for one in FIVE]
    gone, stayed = laid_out(*leaving), laid_out(*FIVE)
    assert all(names(gone.holders(partition)) == names(stayed.holders(partition)) for partition in PARTITIONS)
    assert set(laid_out(*leaving, all_to_all=True).holders(0)) == set(leaving)


def test_copies_are_in_distinct_zones_then_on_distinct_hosts():
    """Two copies that fail together are one."""
    zoned = [member(number, host=f"h{number // 2}", zone=f"z{number // 4}") for number in range(12)]
    layout = laid_out(*zoned, rules=Rules(secondaries=3))
    for partition in PARTITIONS:
        holders = layout.holders(partition)
        assert len({one.zone for one in holders[:3]}) == 3, "as long as there are zones left"
        assert len({one.host for one in holders}) == 4, "then another host, though the zone has one already"
    hosted = laid_out(*[member(number, host=f"h{number % 3}") for number in range(9)])
    assert all(len({one.host for one in hosted.holders(partition)}) == 2 for partition in PARTITIONS)
    assert {len(laid_out(*[member(n, host="one") for n in range(5)]).holders(p)) for p in PARTITIONS} == {2}


def test_a_node_and_its_former_run_do_not_hold_both_copies():
    """For a moment both are live. On one host only their names tell that they are the same node."""
    members = [member(number, name=f"web-{number}", host="one") for number in range(1, 5)]
    layout = laid_out(*members, member(1, name="web-1", host="one", run=1))
    assert all(len(set(names(layout.holders(partition)))) == 2 for partition in PARTITIONS)
    assert any("web-1" in names(layout.holders(partition)) for partition in PARTITIONS)


def test_a_ranking_goes_on_where_the_holders_end():
    """A write whose holders do not answer goes to the next one that everybody else would name too."""
    layout = laid_out(*FIVE, member(6, leaving=True))
    for partition in PARTITIONS:
        ranking = layout.ranking(partition)
        assert ranking[:2] == layout.holders(partition)
        assert sorted(ranking) == sorted(FIVE)
        smaller = laid_out(*[one for one in FIVE if one != ranking[1]])
        assert smaller.holders(partition) == (ranking[0], ranking[2]), "each has a host of its own here"
    everyone = laid_out(*FIVE, all_to_all=True)
    assert everyone.ranking(7) == everyone.holders(7) == tuple(sorted(FIVE, key=lambda one: one.node))


def test_the_ways_to_ask_agree():
    """A sync asks by mask, a read by node, a write by holders; one that said otherwise would lose sessions."""
    for layout in (laid_out(*FIVE), laid_out(*FIVE, member(6, leaving=True), all_to_all=True)):
        for one in layout.live:
            mask = layout.partitions_of(one.node)
            for partition in range(EVERYWHERE + 1):
                held = one in layout.holders(partition)
                assert held == layout.holds(one.node, partition) == bool(mask >> partition & 1)
            assert mask < 1 << EVERYWHERE + 1
        assert layout.partitions_of(b"nobody..") == 0
        assert not layout.holds(b"nobody..", 0)


def test_a_node_knows_the_others_of_a_partition():
    """What every write asks: whom to send it to."""
    here, *others = members = [member(number, host=f"h{number // 2}") for number in range(5)]
    placement = viewing(*members)
    for partition in range(EVERYWHERE + 1):
        assert placement.others(partition) == tuple(one for one in placement.layout.holders(partition) if one != here)
    assert placement.others(EVERYWHERE) == tuple(sorted(others, key=lambda one: one.node))


def test_one_holder_announces_and_holders_take_turns():
    """Of all the processes that see a session end by its time, one cleans up; and not always the same."""
    for layout in (laid_out(*FIVE), laid_out(*FIVE, all_to_all=True)):
        announcers = [layout.announcer(partition) for partition in PARTITIONS]
        assert all(layout.holds(one.node, partition) for partition, one in enumerate(announcers))
        assert set(announcers) == set(FIVE)


# --- the tag ----------------------------------------------------------------------------------------------


def test_whatever_changes_a_layout_changes_its_tag():
    """Equal tags say that digests may be compared, and that no lists need to be exchanged."""
    leaving = [FIVE[0]._replace(leaving=True), *FIVE[1:]]
    tags = [
        laid_out(*FIVE).tag,
        laid_out(*FIVE[1:]).tag,
        laid_out(*leaving).tag,
        laid_out(*FIVE, all_to_all=True).tag,
        *[laid_out(*FIVE, rules=rules).tag for rules in (Rules(5), Rules(4, 2), Rules(4, 1, "host"))],
    ]
    assert all(0 <= tag < 2**32 for tag in tags)
    assert all(one != other for one, other in combinations(tags, 2))


def test_suspicions_and_refutations_change_nothing():
    """They come and go all the time; each would start the quiet anew that copies must see before they go."""
    placement = viewing(*FIVE)
    layout = placement.layout
    doubted = [FIVE[0], *[one._replace(incarnation=7, state=MemberState.SUSPECT) for one in FIVE[1:]]]
    assert not placement.view_changed(doubted, (), 9.0)
    assert placement.layout is layout
    assert placement.changed_at_s == 0.0
    assert placement.view_changed(FIVE[1:], (), 9.0)
    assert placement.changed_at_s == 9.0


# --- the count --------------------------------------------------------------------------------------------


def test_a_fourth_node_that_comes_and_goes_changes_no_mode():
    """At three and four every session would have two holders, then three, then two, every eight seconds."""
    here, *others, fourth = FIVE[:4]
    placement, moments = viewing(*FIVE[:4]), range(8, 800, 8)
    for run, now_s in enumerate(moments):
        if run % 2 == 0:
            placement.view_changed([here, *others], [(fourth, float(now_s))], now_s)
        else:
            fourth = member(4, run=run)
            placement.view_changed([here, *others, fourth], (), now_s)
        assert not placement.timeout(now_s + 7.9)
        assert not placement.layout.all_to_all


def test_a_node_that_stays_away_stops_counting_after_half_a_minute():
    """Three nodes that stay three hold everything again."""
    placement = viewing(*FIVE[:4])
    assert placement.next_deadline() is None
    placement.view_changed(FIVE[:3], [(FIVE[3], 10.0)], 11.0)
    assert placement.next_deadline() == 10.0 + LINGER_S
    assert not placement.timeout(10.0 + LINGER_S - 0.1)
    assert not placement.layout.all_to_all
    assert placement.timeout(10.0 + LINGER_S)
    assert placement.layout.all_to_all
    assert placement.changed_at_s == 10.0 + LINGER_S
    assert placement.next_deadline() is None


def test_of_several_that_are_gone_as_many_count_as_are_needed():
    """The mode changes when the last name that it needs stops counting, not with the first."""
    placement = viewing(*FIVE)
    placement.view_changed(FIVE[:2], [(FIVE[2], 1.0), (FIVE[3], 2.0), (FIVE[4], 3.0)], 4.0)
    assert placement.next_deadline() == 2.0 + LINGER_S
    placement.view_changed(FIVE[:2], [(FIVE[2], 1.0), (FIVE[3], 2.0)], 5.0)
    assert placement.next_deadline() == 1.0 + LINGER_S
    placement.view_changed(FIVE[:2], [(FIVE[2], 1.0)], 6.0)
    assert placement.layout.all_to_all


def test_a_restart_in_place_counts_once():
    """A crash loop of one node must not look like a cluster of many."""
    placement = viewing(*FIVE[:3])
    former = [(member(3, run=run), float(run)) for run in range(1, 9)]
    assert not placement.view_changed(FIVE[:3], former, 9.0)
    assert placement.layout.all_to_all
    placement = viewing(*FIVE[:2])
    assert not placement.view_changed(FIVE[:2], former, 9.0), "and its last run lingers once"
    placement = viewing(*FIVE[:4])
    placement.view_changed(FIVE[:3], [(member(4, run=2), 20.0), (FIVE[3], 1.0)], 21.0)
    assert placement.next_deadline() == 20.0 + LINGER_S, "and as long as its last run does"


def test_a_restart_in_place_moves_nothing():
    """A deployment restarts every node; under a new node id each would be sent other sessions than it has had."""
    placement = viewing(*FIVE)
    before = [names(placement.layout.holders(partition)) for partition in PARTITIONS]
    placement.view_changed((*FIVE[:4], member(5, run=1)), [(FIVE[4], 1.0)], 1.0)
    moved = [one for one in PARTITIONS if names(placement.layout.holders(one)) != before[one]]
    assert not moved


def test_a_newcomer_counts_who_has_just_ended_as_the_others_do():
    """In another mode than they it would take itself for a holder of everything."""
    placement = viewing(*FIVE[:1])
    assert placement.view_changed(FIVE[:3], [(FIVE[3], -5.0)], 0.0)
    assert not placement.layout.all_to_all


# --- as a node does it ------------------------------------------------------------------------------------


DAVE = b"dave...."


def crowd() -> Clocked:
    """Return a node that is linked with three others."""
    here = Clocked()
    for link, node in enumerate((BOB, CAROL, DAVE), 1):
        here.node.submit(LinkOpened(link, node, None))
        here.hears(Hello(at_one_address(node, port=7950 + link), stamp(0), ()), link)
    here.does()
    return here


def hears_of(here: Clocked, told: Member) -> list:
    here.does()
    here.node.submit(ReceivedDatagram(BOB, ("10.0.0.1", 7951), Gossip((told,))))
    return here.does()


def test_the_news_that_a_member_leaves_moves_its_sessions_and_nothing_else():
    """It is live before and after: its link stays, and is not dialed again."""
    here = crowd()
    layout = here.replica.placement.layout
    assert layout.partitions_of(DAVE) not in (0, 1 << EVERYWHERE)
    dave = at_one_address(DAVE, port=7953)._replace(incarnation=1, leaving=True)
    effects = hears_of(here, dave)
    assert here.replica.placement.layout.partitions_of(DAVE) == 1 << EVERYWHERE
    assert here.replica.placement.changed_at_s == here.now_s
    assert not [effect for effect in effects if isinstance(effect, Dial | CloseLink)]
    assert DAVE in here.replica.linked


def test_probes_show_the_tag_of_the_layout():
    """A peer compares what it holds with this node only where both place alike."""
    here = crowd()
    tags = [here.replica.placement.layout.tag]
    hears_of(here, at_one_address(DAVE, port=7953)._replace(incarnation=1, leaving=True))
    tags.append(here.replica.placement.layout.tag)
    assert tags[0] != tags[1]
    here.node.submit(ReceivedDatagram(BOB, ("10.0.0.1", 7951), Ping(7, ALICE)))
    shown = [effect.message for effect in here.does() if isinstance(effect, SendDatagram)]
    assert [message.view for message in shown if isinstance(message, ProbeAck)] == [tags[1]]


def test_a_node_wakes_when_a_name_stops_counting():
    """Nothing else may happen at that moment; without a deadline of its own it would stay in the other mode."""
    here = crowd().waits(0.37)  # apart from what is due each second or every five
    left = at_one_address(DAVE, port=7953)._replace(state=MemberState.LEFT)
    here.hears(Members((Told(left, ended_s=7),), reply=False))
    due_s = here.now_s - 7 + LINGER_S
    assert not here.replica.placement.layout.all_to_all
    while here.now_s < due_s:
        here.waits(max(here.replica.next_deadline() - here.now_s, 0.0))
        for peer in (BOB, CAROL):  # nobody answers here; a higher incarnation keeps them live
            alive = Told(at_one_address(peer)._replace(incarnation=int(here.now_s)))
            here.replica.swim.heard_members([alive], here.now_s)
        assert here.replica.placement.layout.all_to_all == (here.now_s >= due_s)
    assert here.now_s == due_s


def test_of_thousands_that_ended_long_ago_none_is_looked_at(monkeypatch):
    """A crash loop leaves as many, and a newcomer hears of all of them at once, each time the whole view anew."""
    here = crowd()
    ended = [at_one_address(b"%08d" % number)._replace(state=MemberState.DEAD) for number in range(500)]
    here.hears(Members(tuple([Told(one, ended_s=3600 + number) for number, one in enumerate(ended)]), reply=False))
    looked: list[Member] = []
    ended_last = Membership.ended_last

    def counting(view: Membership):
        for one in ended_last(view):
            looked.append(one[0])
            yield one

    monkeypatch.setattr(Membership, "ended_last", counting)
    hears_of(here, at_one_address(DAVE, port=7953)._replace(incarnation=1, state=MemberState.LEFT))
    assert not here.replica.placement.layout.all_to_all
    assert len(looked) == 2, "who has just left, and the last of the others"


def test_a_node_that_nobody_drives_any_more_holds_everything_alone():
    """What it cannot ask others for must not be said to be theirs."""
    here = crowd()
    here.node.submit(Abandon())
    assert names(here.replica.placement.layout.holders(0)) == [here.me.name]
