"""Which updates ride on the next datagram, and how often each is sent."""

import pytest

from gossipsess.model.member import Member, MemberState
from gossipsess.protocol.broadcast import UPDATE_BYTES_MAX, Broadcast, sends_wanted, update_bytes
from gossipsess.wire.codec import encode
from gossipsess.wire.crypto import DATAGRAM_BODY_BYTES_MAX
from gossipsess.wire.messages import Gossip, PingRequest


def member(number: int, *, name: str = "n", zone: str = "", incarnation: int = 0) -> Member:
    node = number.to_bytes(8, "big")
    return Member(node, incarnation, MemberState.ALIVE, ("10.0.0.1", 7950), name, host="h", zone=zone)


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


@pytest.mark.parametrize("name", ["n", "shop-7d4b9c6f5-x2x8k", "é" * 100, "x" * 255])
def test_the_largest_message_fits_into_a_datagram_whatever_the_names(name):
    """A larger one would be split on its way, and lost with any part of it; the sealer refuses it."""
    broadcast = Broadcast()
    for number in range(100):
        broadcast.add(member(2**63 + number, name=name, zone=name[:99], incarnation=2**32 - 1))
    updates = broadcast.take([member(2**64 - number, name=name, zone=name[:99]) for number in (1, 2, 3)], 5)
    message = PingRequest(2**32 - 1, b"12345678", ("1234:" * 7 + "1234", 65535), updates)
    assert len(encode(message)) <= DATAGRAM_BODY_BYTES_MAX
    larger = sum(map(update_bytes, updates)) + update_bytes(updates[-1])
    assert larger > UPDATE_BYTES_MAX, "and no room is wasted"


def test_an_update_too_large_for_any_datagram_is_left_out():
    """Such a record can come in by a link; it must neither block the others nor fail when it is sent."""
    broadcast = Broadcast()
    huge = member(1, name="é" * UPDATE_BYTES_MAX)
    broadcast.add(huge)
    assert not broadcast
    broadcast.add(member(2))
    assert broadcast.take([huge], 5) == (member(2),)


@pytest.mark.parametrize("name", ["", "n", "é" * 40, "x" * 255])
def test_the_estimate_is_an_upper_bound(name):
    update = member(2**64 - 1, name=name, zone=name, incarnation=2**32 - 1)
    assert len(encode(Gossip((update,)))) - len(encode(Gossip(()))) <= update_bytes(update)


def test_names_count_in_bytes_and_not_in_characters():
    assert update_bytes(member(1, name="éé")) == update_bytes(member(1, name="xx")) + 2
    assert update_bytes(member(1, zone="éé")) == update_bytes(member(1, zone="xx")) + 2
