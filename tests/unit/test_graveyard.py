"""Which of the dead are asked again, and how often."""

import random

import pytest

from gossipsess.model.member import Address, Member, MemberState
from gossipsess.protocol.graveyard import ASK_EVERY_S, ASK_OLD_EVERY_S, JITTER, LATELY_S, Graveyard


def ended(number: int, state: MemberState = MemberState.DEAD) -> Member:
    return Member(bytes([number] * 8), 0, state, (f"10.0.0.{number}", 7950), f"n{number}", host="h")


def asked(
    dead: list[tuple[Member, float]], until_s: float, taken: tuple[Address, ...] = (), from_s: float = 0.0
) -> list[tuple[float, Member]]:
    graveyard = Graveyard(random.Random(1))
    graveyard.died(from_s)
    done = []
    while (due_s := graveyard.next_deadline()) is not None and due_s < until_s:
        done += [(due_s, member) for member in graveyard.due(dead, taken, due_s)]
    return done


def test_who_died_lately_is_asked_every_five_seconds():
    """So a network that is whole again has one cluster within seconds, and the dead cost next to nothing."""
    dead = [(ended(number), 0.0) for number in (1, 2, 3)]
    done = asked(dead, 300.0)
    assert len(done) == pytest.approx(300 / ASK_EVERY_S, rel=0.05)
    assert sorted({member for _, member in done}) == [member for member, _ in dead]


def test_who_has_been_dead_for_long_is_asked_less_often_and_beside_the_others():
    """A day of crashed processes must not keep the one from waiting that was cut off a minute ago."""
    now_s = 3600.0
    dead = [(ended(number), 0.0) for number in range(1, 9)] + [(ended(9), now_s - 1)]
    done = asked(dead, now_s + 300, from_s=now_s)
    old = [at_s for at_s, member in done if member != ended(9)]
    assert len(old) == pytest.approx(300 / ASK_OLD_EVERY_S, abs=2)
    assert len(done) - len(old) == pytest.approx(300 / ASK_EVERY_S, rel=0.05)
    assert {member for at_s, member in asked([(ended(1), 0.0)], 2 * LATELY_S) if at_s > LATELY_S} == {ended(1)}


def test_who_left_is_not_asked_nor_whose_place_is_taken():
    """The one said itself that it is gone; of the other it is certain."""
    left, replaced, lost = ended(1, MemberState.LEFT), ended(2), ended(3)
    done = asked([(left, 0.0), (replaced, 0.0), (lost, 0.0)], 100.0, taken=(replaced.address,))
    assert {member for _, member in done} == {lost}


def test_with_nobody_dead_there_is_nothing_to_wait_for():
    """A lone node must not wake up for the sake of an empty list."""
    graveyard = Graveyard(random.Random(1))
    assert graveyard.next_deadline() is None
    graveyard.died(0.0)
    due_s = graveyard.next_deadline()
    assert due_s is not None
    assert ASK_EVERY_S * (1 - JITTER) <= due_s <= ASK_EVERY_S * (1 + JITTER)
    assert graveyard.due([], (), due_s) == []
    assert graveyard.next_deadline() is None
