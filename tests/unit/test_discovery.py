"""Candidates: which addresses are tried, how often, and who of two strangers dials."""

import random
from itertools import pairwise

import pytest

from gossipsess.model.member import Address
from gossipsess.protocol import discovery
from gossipsess.protocol.discovery import Discovery
from gossipsess.protocol.effects import Dial, Effect, SendBeacon, SendDatagram
from gossipsess.wire.messages import Beacon

SMALLER, GREATER = b"\x01" * 8, b"\x02" * 8
THERE: Address = ("10.0.0.2", 7950)


def make(*seeds: Address, beacons: bool = False, seed: int = 1) -> Discovery:
    return Discovery(seeds=seeds, beacons=beacons, port=7951, rng=random.Random(seed), now_s=0.0)


def hear(
    found: Discovery,
    now_s: float = 0.0,
    *,
    address: Address = THERE,
    reply: bool = False,
    known: bool = False,
    sender: bytes = GREATER,
    myself: bytes = SMALLER,
) -> list[Effect]:
    return found.heard_beacon(sender, address, reply=reply, known=known, myself=myself, now_s=now_s)


def run(found: Discovery, until_s: float) -> list[tuple[float, Effect]]:
    done: list[tuple[float, Effect]] = []
    while (deadline_s := found.next_deadline()) is not None and deadline_s <= until_s:
        done += [(deadline_s, effect) for effect in found.timeout(deadline_s)]
    return done


@pytest.mark.parametrize("reply", [False, True])
def test_the_smaller_id_dials_a_stranger(reply):
    assert hear(make(), reply=reply) == [Dial(THERE)]


def test_the_greater_id_answers_so_that_the_smaller_can_dial():
    """Multicast may reach in one direction only; without the answer the two would never meet."""
    assert hear(make(), sender=SMALLER, myself=GREATER) == [SendDatagram(THERE, Beacon(port=7951, reply=True))]


def test_a_reply_is_never_answered():
    """Two nodes that answer answers never stop."""
    assert hear(make(), reply=True, sender=SMALLER, myself=GREATER) == []


def test_a_known_member_and_this_node_itself_are_left_alone():
    assert hear(make(), known=True) == []
    assert hear(make(), sender=SMALLER, myself=SMALLER) == []


def test_a_beacon_is_no_reason_to_dial_while_a_dial_is_under_way():
    found = make()
    assert hear(found, 0.0) == [Dial(THERE)]
    assert hear(found, 60.0) == []


def test_dials_to_one_address_back_off_from_one_second_to_five():
    """Its beacons come through and its port does not: trying as often as it beacons helps nobody."""
    found = make()
    waits: list[float] = []
    now_s = 0.0
    for _ in range(6):
        began_s = now_s
        while not hear(found, now_s):
            now_s += 0.01
        waits.append(now_s - began_s)
        found.dial_failed(THERE, now_s)
    for waited, expected in zip(waits[1:], [1, 2, 4, 5, 5], strict=True):
        assert expected * 0.8 <= waited <= expected * 1.2 + 0.02


def test_answers_to_one_address_are_limited_too():
    """A repeated beacon would otherwise make this node send one datagram for each it gets."""
    found = make()
    answers = [hear(found, now / 100, sender=SMALLER, myself=GREATER) for now in range(1000)]
    assert 2 <= sum(map(len, answers)) <= 5


def test_all_addresses_together_are_limited():
    """A hundred nodes that start at once would otherwise make ten thousand dials in one second."""
    found = make()
    for second in range(3):
        dials = [hear(found, float(second), address=(f"10.0.{second}.{n}", 7950)) for n in range(100)]
        assert sum(map(len, dials)) == discovery.ATTEMPTS_PER_SECOND


def test_the_memory_of_addresses_is_bounded():
    found = make()
    for number in range(discovery.HEARD_MAX + 50):
        hear(found, float(number), address=("10.0.0.2", number))
    assert len(found._heard) == discovery.HEARD_MAX


def test_a_link_ends_the_backoff():
    """After a link the address was right; when its node comes back it is dialed at its first beacon."""
    found = make()
    for now_s in (0.0, 2.0, 6.0):
        hear(found, now_s)
        found.dial_failed(THERE, now_s)
    assert hear(found, 7.0) == []
    found.linked(THERE)
    assert hear(found, 7.0) == [Dial(THERE)]


def test_a_seed_is_dialed_for_ever_and_less_and_less_often():
    """The seed may be the pod that comes up last, an hour later."""
    found = make(THERE)
    now_s, dials = 0.0, []
    while now_s < 3600:
        ((now_s, effect),) = run(found, found.next_deadline())
        assert effect == Dial(THERE)
        assert found.next_deadline() is None, "one dial at a time"
        dials.append(now_s)
        found.dial_failed(THERE, now_s)
    waits = [later - earlier for earlier, later in pairwise(dials)]
    assert 0.2 <= waits[0] <= 0.3
    assert all(4.0 <= wait <= 6.0 for wait in waits[6:])
    assert len(waits) > 600


def test_a_linked_seed_is_left_alone_until_its_member_is_gone():
    """Then another node may start at its address, and this one may be all it knows of the cluster."""
    found = make(THERE)
    while found.next_deadline() < 30.0:
        ((dialed_s, _),) = run(found, found.next_deadline())
        found.dial_failed(THERE, dialed_s)
    assert run(found, 40.0)[0][1] == Dial(THERE)
    found.linked(THERE)
    assert run(found, 1000.0) == []
    found.unlinked(THERE, 1000.0)
    ((dialed_s, effect),) = run(found, 1001.0)
    assert effect == Dial(THERE)
    assert 1000.2 <= dialed_s <= 1000.3


def test_many_seeds_share_the_limit_and_all_get_their_turn():
    seeds = tuple(("10.0.0.2", port) for port in range(7950, 8000))
    done = run(make(*seeds), 10.0)
    assert sorted(effect.address for _, effect in done) == sorted(seeds)
    assert sum(at_s < 1.0 for at_s, _ in done) <= 2 * discovery.ATTEMPTS_PER_SECOND


def test_beacons_come_each_second_at_first_and_rarely_later():
    """Nodes started together meet at once; afterwards the network is not ours alone."""
    done = run(make(beacons=True), 130.0)
    assert {effect for _, effect in done} == {SendBeacon(Beacon(port=7951, reply=False))}
    moments = [at_s for at_s, _ in done]
    assert moments[0] == 0.0
    assert 9 <= sum(moment < 10 for moment in moments) <= 13
    assert 10 <= sum(moment >= 10 for moment in moments) <= 15
    waits = {round(later - earlier, 3) for earlier, later in pairwise(moments)}
    assert len(waits) > 10, "nodes started together must not stay in step"


def test_without_beacons_and_seeds_there_is_nothing_to_do():
    assert make().next_deadline() is None
    assert make().timeout(5.0) == []
