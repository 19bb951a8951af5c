"""The member table: what counts as news, who is live, and how long the gone are remembered."""

import pytest

from gossipsess.model.member import Member, MemberState, Told
from gossipsess.protocol import membership
from gossipsess.protocol.effects import MemberChanged
from gossipsess.protocol.membership import Membership

ALIVE, SUSPECT, DEAD, LEFT = MemberState


def member(name: str, state: MemberState = ALIVE, incarnation: int = 0) -> Member:
    return Member(name.encode().ljust(8), incarnation, state, ("10.0.0.1", 7950), name, host=name)


@pytest.mark.parametrize(
    ("held", "told", "is_news"),
    [
        ((0, ALIVE), (0, ALIVE), False),
        ((0, ALIVE), (0, SUSPECT), True),
        ((0, SUSPECT), (0, ALIVE), False),
        ((0, SUSPECT), (1, ALIVE), True),
        ((0, DEAD), (0, SUSPECT), False),
        ((0, DEAD), (1, ALIVE), True),
        ((0, DEAD), (0, LEFT), True),
        ((1, ALIVE), (0, DEAD), False),
        ((0, LEFT), (0, DEAD), False),
    ],
)
def test_only_a_greater_incarnation_or_a_later_state_is_news(held, told, is_news):
    """The one rule of the table; everything that makes gossip's detours harmless follows from it."""
    view = Membership()
    before = member("a", held[1], held[0])
    told = member("a", told[1], told[0])
    view.merge(before, 0.0)
    assert view.merge(told, 1.0) == (MemberChanged(told, before.state) if is_news else None)
    assert view.get(told.node) == (told if is_news else before)


def test_suspects_are_live_and_the_dead_and_left_are_not():
    """A suspect keeps its place: moving its sessions for a lost datagram would be a waste."""
    view = Membership()
    for name, state in [("d", ALIVE), ("b", DEAD), ("c", SUSPECT), ("a", LEFT)]:
        assert view.merge(member(name, state), 0.0) == MemberChanged(member(name, state), None)
    assert view.live() == (member("c", SUSPECT), member("d"))
    assert [known.name for known in view.all()] == ["a", "b", "c", "d"]


def test_stale_gossip_does_not_revive_the_dead_until_the_memory_of_them_ends():
    """A rumour of its life may be under way for long; a day later nobody can be left who spreads it."""
    view = Membership()
    view.merge(member("a"), 0.0)
    view.merge(member("a", DEAD), 10.0)
    view.merge(member("x", DEAD), 9.0 + membership.ENDED_KEPT_S)
    assert view.merge(member("a"), 9.0 + membership.ENDED_KEPT_S) is None
    view.merge(member("y", DEAD), 10.0 + membership.ENDED_KEPT_S)
    assert view.get(member("a").node) is None


def test_the_memory_of_the_dead_is_bounded_and_the_oldest_goes_first(monkeypatch):
    """A crash loop makes a new id every few seconds and must not fill the memory of the others."""
    monkeypatch.setattr(membership, "ENDED_MAX", 3)
    view = Membership()
    view.merge(member("live"), 0.0)
    for number in range(5):
        view.merge(member(f"d{number}", DEAD), float(number))
    assert [known.name for known in view.all()] == ["d2", "d3", "d4", "live"]


def test_a_node_that_came_back_is_not_forgotten_with_the_dead(monkeypatch):
    """It refuted; the note of its death must not take its living record along."""
    monkeypatch.setattr(membership, "ENDED_MAX", 1)
    view = Membership()
    view.merge(member("a", DEAD), 0.0)
    view.merge(member("a", ALIVE, 1), 1.0)
    view.merge(member("b", DEAD), 2.0)
    view.merge(member("c", DEAD), 3.0)
    assert view.live() == (member("a", ALIVE, 1),)
    assert [known.name for known in view.all()] == ["a", "c"]


def test_an_exchange_of_lists_carries_all_live_members_and_the_latest_dead(monkeypatch):
    """A crash loop leaves thousands of dead; told to a peer each minute, they would be most of the traffic."""
    monkeypatch.setattr(membership, "ENDED_TOLD_MAX", 2)
    view = Membership()
    view.merge(member("live"), 0.0)
    for number in range(5):
        view.merge(member(f"d{number}", DEAD), float(number))
    view.merge(member("suspect", SUSPECT), 9.0)
    assert sorted(one.member.name for one in view.told(9.0)) == ["d3", "d4", "live", "suspect"]
    assert [(known.name, since_s) for known, since_s in view.ended()] == [(f"d{n}", float(n)) for n in range(5)]


def test_who_is_forgotten_is_not_learned_again_from_those_who_remember():
    """Each would start the other's day anew, and nobody who ever died would be forgotten."""
    one, other = Membership(), Membership()
    one.merge(member("a", DEAD), 0.0)
    other.merge(member("a", DEAD), 60.0)
    day_s = membership.ENDED_KEPT_S
    one.merge(member("x", DEAD), day_s)
    (told,) = other.told(day_s)
    assert told == Told(member("a", DEAD), int(day_s) - 60)
    assert one.merge(told.member, day_s, told.ended_s) is not None, "a minute is left"
    one.merge(member("y", DEAD), day_s + 60)
    assert one.get(told.member.node) is None
    assert one.merge(told.member, day_s + 61, other.told(day_s + 61)[0].ended_s) is None


def test_a_death_told_late_takes_its_place_among_the_others(monkeypatch):
    """The oldest go first, and the latest are told, by when they ended and not by when this node heard of it."""
    monkeypatch.setattr(membership, "ENDED_MAX", 3)
    view = Membership()
    for name, ended_s in (("d1", 10), ("d3", 0), ("d2", 5)):
        view.merge(member(name, DEAD), 100.0, ended_s)
    assert [(known.name, since_s) for known, since_s in view.ended()] == [("d1", 90.0), ("d2", 95.0), ("d3", 100.0)]
    assert view.merge(member("d0", DEAD), 100.0, 20) is None, "there are three that ended later"
    view.merge(member("d4", DEAD), 101.0)
    assert [told.member.name for told in view.told(101.0)] == ["d2", "d3", "d4"]


def test_ages_are_rounded_up():
    """An age that lost a part of a second on each way between two nodes would never reach the day."""
    view = Membership()
    view.merge(member("a", DEAD), 10.0)
    assert [told.ended_s for told in (*view.told(10.25), *view.all_told(12.0))] == [1, 2]
