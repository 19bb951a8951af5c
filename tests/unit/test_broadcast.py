"""Which updates ride on the next datagram, and how often each is sent."""

import pytest

from gossipsess.model.member import Member, MemberState
from gossipsess.protocol.broadcast import UPDATE_BYTES_MAX, Broadcast, sends_wanted, update_bytes


def member(number: int, *, name: str = "n", incarnation: int = 0) -> Member:
    node = number.to_bytes(8, "big")
    return Member(node, incarnation, MemberState.ALIVE, ("10.0.0.1", 7950), name, host="h")


@pytest.mark.parametrize(("members", "sends"), [(1, 4), (9, 4), (10, 8), (99, 8), (100, 12)])
def test_an_update_is_sent_more_often_in_a_larger_cluster(members, sends):
    assert sends_wanted(members) == sends
    broadcast = Broadcast()
    broadcast.add(member(1))
    taken = [broadcast.take([], members) for _ in range(sends)]
    assert taken == [(member(1),)] * sends
    assert not broadcast
    assert broadcast.take([], members) == ()


def test_a_newer_record_takes_the_place_of_the_older_and_starts_anew():
    """The older one would only be merged away; each of its sends would be wasted."""
    broadcast = Broadcast()
    broadcast.add(member(1))
    for _ in range(3):
        broadcast.take([], 5)
    broadcast.add(member(1, incarnation=1))
    assert [broadcast.take([], 5) for _ in range(5)] == [(member(1, incarnation=1),)] * 4 + [()]


def test_what_was_sent_least_goes_first():
    """Fresh news must not wait behind news that most have heard."""
    broadcast = Broadcast()
    name = "x" * 400  # two to a datagram
    old, fresh = [member(n, name=name) for n in (1, 2)], [member(n, name=name) for n in (3, 4)]
    for update in old:
        broadcast.add(update)
    assert broadcast.take([], 5) == tuple(old)
    for update in fresh:
        broadcast.add(update)
    assert broadcast.take([], 5) == tuple(fresh)


def test_what_must_go_along_goes_first_and_only_once():
    """An accusation that its subject does not get to read cannot be refuted."""
    broadcast = Broadcast()
    for number in (1, 2):
        broadcast.add(member(number))
    assert broadcast.take([member(2), member(3)], 5) == (member(2), member(3), member(1))


def test_the_updates_of_one_message_stay_within_their_bytes():
    """A larger datagram is split on its way, and is lost when any part of it is."""
    broadcast = Broadcast()
    for number in range(100):
        broadcast.add(member(number, name="shop-7d4b9c6f5-x2x8k"))
    taken = broadcast.take([member(500)], 5)
    assert sum(map(update_bytes, taken)) <= UPDATE_BYTES_MAX
    assert 8 <= len(taken) < 20


def test_an_update_too_large_for_any_datagram_does_not_block_the_others():
    broadcast = Broadcast()
    broadcast.add(member(1, name="é" * UPDATE_BYTES_MAX))
    broadcast.add(member(2))
    taken = [broadcast.take([], 5) for _ in range(8)]
    assert taken.count((member(1, name="é" * UPDATE_BYTES_MAX),)) == 4
    assert taken.count((member(2),)) == 4


def test_names_count_in_bytes_and_not_in_characters():
    assert update_bytes(member(1, name="éé")) == update_bytes(member(1, name="xx")) + 2
