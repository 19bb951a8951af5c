"""Placement: the same for all who see the same, even, and moved by nothing but who comes and who goes."""

from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossipsess.model.member import Member, MemberState
from gossipsess.protocol.placement import EVERYWHERE, LINGER_S, Layout, Placement, Rules

EVEN = 1.35
"""How much more than its even share a member may hold."""


def member(number: int, host: int, zone: int, *, run: int = 0, leaving: bool = False) -> Member:
    """Return a node by number; `run` counts its restarts in place."""
    node = blake2b(f"{number} {run}".encode(), digest_size=8).digest()
    return Member(node, 0, MemberState.ALIVE, ("10.0.0.1", number), f"web-{number}", f"h{host}", f"z{zone}", leaving)


members = st.builds(member, st.integers(1, 30), st.integers(0, 5), st.integers(0, 2), leaving=st.booleans())
clusters = st.lists(members, min_size=1, max_size=12, unique_by=lambda one: one.name)
rules = st.builds(Rules, st.integers(2, 6), st.integers(1, 3), st.sampled_from(["node", "host"]))
partitions = st.lists(st.integers(0, EVERYWHERE), min_size=1, max_size=20)


def layout(live: list[Member], of: Rules) -> Layout:
    """Return a layout with primaries, whatever the count."""
    return Layout(tuple(sorted(live, key=lambda one: one.node)), of, all_to_all=False)


def score(one: Member, partition: int) -> int:
    digest = blake2b(one.name.encode(), salt=(partition // 8).to_bytes(16, "big")).digest()
    return int.from_bytes(digest[partition % 8 * 8 :][:8], "big")


def plainly(live: list[Member], secondaries: int, partition: int) -> list[Member]:
    """Return the holders of a partition as the rule says it, one after the other."""
    rest = [one for one in live if not one.leaving] or list(live)
    holders: list[Member] = []
    while rest and len(holders) <= secondaries:
        other_zone = [one for one in rest if one.zone not in [held.zone for held in holders]]
        other_host = [one for one in rest if one.host not in [held.host for held in holders]]
        both = [one for one in other_zone if one in other_host]
        holders.append(max(both or other_zone or other_host or rest, key=lambda one: score(one, partition)))
        rest.remove(holders[-1])
    return holders


@given(clusters, rules, partitions)
def test_the_holders_are_those_that_the_rule_names(live, of, asked):
    """The fast version, which remembers who may follow whom, against the plain one."""
    made = layout(live, of)
    for partition in asked:
        if partition != EVERYWHERE:
            assert list(made.holders(partition)) == plainly(live, of.secondaries, partition)


@given(clusters, rules, partitions, st.data())
def test_equal_views_place_alike_whatever_else_they_differ_in(live, of, asked, data):
    """Each node lists the members in its own order and has its own doubts; it must not send elsewhere for that."""
    other_order = data.draw(st.permutations(live))
    doubted = [one._replace(incarnation=3, state=MemberState.SUSPECT) for one in other_order]
    one, other = Placement(live[0], of, 0.0), Placement(doubted[0], of, 55.0)
    for count in range(1, len(live) + 1):  # by another way too
        one.view_changed(live[:count], (), 1.0)
    other.view_changed(doubted, (), 56.0)
    assert one.layout.tag == other.layout.tag
    assert one.layout.live == other.layout.live
    for partition in asked:
        assert one.layout.holders(partition) == other.layout.holders(partition)
        assert one.layout.ranking(partition) == other.layout.ranking(partition)
        assert one.layout.announcer(partition) == other.layout.announcer(partition)


@given(clusters, members, rules, partitions)
def test_who_comes_or_goes_moves_only_what_it_gets_or_had(live, comer, of, asked):
    """Read from right to left it is a departure. Anything else that moved would be copied for nothing."""
    comer = comer._replace(leaving=False)
    stayers = [one._replace(leaving=False) for one in live if one.name != comer.name]
    if not stayers:
        return
    before, after = layout(stayers, of), layout([*stayers, comer], of)
    for partition in asked:
        if not after.holds(comer.node, partition):
            assert before.holders(partition) == after.holders(partition)


@given(clusters, members, partitions)
def test_with_one_secondary_a_newcomer_gives_nobody_else_anything(live, comer, asked):
    """What it wins somebody loses, and that is all: a partition is copied once.

    Each host lies in one zone here: where one claims two, the newcomer may make room for a third member. With more
    secondaries it may do so in any case.
    """
    one_zone = [one._replace(leaving=False, host=one.zone + one.host) for one in (comer, *live)]
    stayers = [one for one in one_zone[1:] if one.name != comer.name]
    if not stayers:
        return
    before, after = layout(stayers, Rules()), layout([*stayers, one_zone[0]], Rules())
    for partition in asked:
        gained = set(after.holders(partition)) - set(before.holders(partition))
        assert gained <= {one_zone[0]}


@given(clusters, rules, st.data())
def test_a_restart_in_place_moves_nothing(live, of, data):
    """A rolling update is one restart after the other; by node ids it would copy everything once for each."""
    restarted = data.draw(st.sampled_from(live))
    again = restarted._replace(node=blake2b(restarted.node, digest_size=8).digest())
    before, after = layout(live, of), layout([again if one is restarted else one for one in live], of)
    for partition in range(EVERYWHERE):
        assert [one.name for one in before.holders(partition)] == [one.name for one in after.holders(partition)]
    assert before.tag != after.tag, "it holds nothing yet, and nobody may take it for the one before"


@given(clusters, rules)
def test_copies_are_spread_as_far_as_there_is_room(live, of):
    """Never two in one zone while another zone has none, nor on one host while another has none."""
    eligible = [one for one in live if not one.leaving] or live
    copies = min(1 + of.secondaries, len(eligible))
    made = layout(live, of)
    for partition in range(0, EVERYWHERE, 16):
        holders = made.holders(partition)
        assert len(set(holders)) == copies
        assert len({one.zone for one in holders}) == min(copies, len({one.zone for one in eligible}))
    one_zone = [one._replace(zone="") for one in live]
    hosts = len({one.host for one in eligible})
    for partition in range(0, EVERYWHERE, 16):
        assert len({one.host for one in layout(one_zone, of).holders(partition)}) == min(copies, hosts)


seen = st.lists(st.tuples(members, st.floats(0, 100)), max_size=10).map(
    lambda ended: sorted(ended, key=lambda one: one[1], reverse=True)
)


@given(clusters, seen, rules, st.floats(0, 200))
def test_the_mode_follows_the_count_at_every_moment(live, ended, of, now_s):
    """The deadline, and what is done at it, against a count of the names at that moment."""
    placement = Placement(live[0], of, 0.0)
    placement.view_changed(live, ended, 100.0)
    due_s = placement.next_deadline()
    for moment_s in sorted({100.0 + now_s, *([] if due_s is None else [due_s])}):
        placement.timeout(moment_s)
        counted = [*live, *[one for one, since_s in ended if moment_s < since_s + LINGER_S]]
        count = len({one.host if of.count_by == "host" else one.name for one in counted})
        assert placement.layout.all_to_all == (count < of.all_to_all_below)


@pytest.mark.parametrize("name", ["10.0.0.{}:7950", "web-{}"])
@pytest.mark.parametrize("count", range(4, 21))
def test_every_member_holds_about_its_share(name, count):
    """Who holds far more than the others is the first to run out of memory."""
    live = [member(number, number, 0)._replace(name=name.format(number)) for number in range(1, count + 1)]
    made = layout(live, Rules())
    held = [made.partitions_of(one.node).bit_count() - 1 for one in live]
    first = [sum(made.holders(partition)[0] == one for partition in range(EVERYWHERE)) for one in live]
    assert sum(held) == 2 * EVERYWHERE
    for loads in (held, first):
        assert max(loads) <= EVEN * sum(loads) / count
