"""Candidates: which addresses are tried, how often, and who of two strangers dials."""

import random
from itertools import pairwise

import pytest

from gossipsess.model.member import Address, Name
from gossipsess.protocol import discovery
from gossipsess.protocol.discovery import Discovery
from gossipsess.protocol.effects import Dial, Effect, LookUp, SendBeacon, SendDatagram, Warn
from gossipsess.protocol.names import LONELY_S, PATIENCE_S
from gossipsess.wire.messages import Beacon

SMALLER, GREATER = b"\x01" * 8, b"\x02" * 8
HERE: Address = ("10.0.0.1", 7951)
THERE: Address = ("10.0.0.2", 7950)


def make(*seeds: Address, beacons: bool = False, seed: int = 1) -> Discovery:
    return Discovery(myself=HERE, seeds=seeds, beacons=beacons, rng=random.Random(seed), now_s=0.0)


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


# --- names ------------------------------------------------------------------------------------------------

GOSSIP = Name("dns", "gossipsess", 7950, 4)
SERVICE = Name("srv", "_gossip._tcp.shop", 0, 1)


def named(*names: Name, when_alone: bool = False, seeds: tuple[Address, ...] = ()) -> Discovery:
    return Discovery(
        myself=("10.0.0.1", 7950),
        seeds=seeds,
        names=names or (GOSSIP,),
        names_when_alone=when_alone,
        rng=random.Random(1),
        now_s=0.0,
    )


def lookups(
    found: Discovery, until_s: float, *, alone: bool, answer: tuple[Address, ...] = (), dials_find: str = "nothing"
) -> list[float]:
    """Answer each lookup at once; return when they were made.

    Dials find a `stranger`, or this node `itself`; else they never end.
    """
    made: list[float] = []
    while (deadline_s := found.next_deadline()) is not None and deadline_s <= until_s:
        for effect in found.timeout(deadline_s, alone=alone):
            if isinstance(effect, LookUp):
                made.append(deadline_s)
                found.looked_up(effect.name, answer, "no such name", alone=alone, now_s=deadline_s)
            elif isinstance(effect, Dial) and dials_find != "nothing":
                found.dial_failed(effect.address, deadline_s, **{dials_find: True})
    return made


def dialed(found: Discovery, now_s: float) -> list[Address]:
    return [effect.address for effect in found.timeout(now_s) if isinstance(effect, Dial)]


def settle_siblings(found: Discovery, now_s: float = 0.0) -> None:
    """Let the dials to this machine's own ports come to nothing."""
    for address in dialed(found, now_s):
        found.dial_failed(address, now_s, refused=True)


def test_a_name_is_looked_up_every_second_at_first_and_ever_more_rarely():
    """Pods that start together come into the records one after the other; a settled cluster costs the server little."""
    made = lookups(named(), 300.0, alone=True)
    assert made[0] == 0.0
    waits = [later - earlier for earlier, later in pairwise(made)]
    fast = [wait for wait, at_s in zip(waits, made, strict=False) if at_s < discovery.BEACON_FAST_FOR_S - 2]
    assert all(0.8 <= wait <= 1.2 for wait in fast)
    assert all(4.0 <= wait <= 6.0 for wait in waits[12:])
    settled = lookups(named(), 300.0, alone=False)
    assert all(24.0 <= later - earlier <= 36.0 for earlier, later in pairwise(settled))


def test_while_somebody_who_was_named_is_not_reached_lookups_go_on_faster():
    """The record may be old: the next answer tells."""
    made = lookups(named(), 100.0, alone=False, answer=(THERE,))
    waits = [later - earlier for earlier, later in pairwise(made)]
    assert len(waits) >= 20
    assert all(4.0 <= wait <= 6.0 for wait in waits[15:])


def test_a_stranger_at_an_address_that_is_named_is_no_reason_to_ask_more_often():
    """Two applications behind one name, or on one host network, stay so: each would ask six times as often for ever."""
    found = named()
    settle_siblings(found)
    found.looked_up(GOSSIP, (THERE,), "", alone=False, now_s=0.0)
    found.dial_failed(THERE, 0.0, stranger=True)
    made = lookups(found, 500.0, alone=False, answer=(THERE,), dials_find="stranger")
    assert all(24.0 <= later - earlier <= 36.0 for earlier, later in pairwise(made[1:]))


def test_a_lookup_that_does_not_end_is_not_made_twice():
    """A resolver that hangs would collect a thread for each."""
    found = named()
    assert found.timeout(0.0).count(LookUp(GOSSIP)) == 1
    for second in range(1, 100):
        assert LookUp(GOSSIP) not in found.timeout(float(second), alone=True)


def test_what_a_name_service_tells_is_dialed_until_it_answers():
    found = named()
    settle_siblings(found)
    found.looked_up(GOSSIP, (THERE, ("10.0.0.1", 7950)), "", alone=True, now_s=1.0)
    assert dialed(found, 1.0).count(THERE) == 1, "and nobody dials itself"
    assert ("10.0.0.1", 7950) not in dialed(found, 200.0)
    found.dial_failed(THERE, 1.1)
    assert THERE in dialed(found, 2.0)


@pytest.mark.parametrize("answer", [(), (("10.0.0.3", 7950),)], ids=["empty", "in part"])
def test_an_answer_takes_no_address_away(answer):
    """Answers are cached, lag behind and come in part: they say who may be there, and never who is gone."""
    found = named()
    settle_siblings(found)
    found.looked_up(GOSSIP, (THERE,), "", alone=True, now_s=0.0)
    found.dial_failed(THERE, 0.1) if THERE in dialed(found, 0.0) else None
    found.looked_up(GOSSIP, answer, "no such name", alone=True, now_s=1.0)
    assert THERE in dialed(found, 10.0)


def test_an_address_that_is_named_no_more_is_forgotten_after_ten_minutes():
    """Each rolling update leaves as many addresses behind as there are pods."""
    found = named()
    settle_siblings(found)
    found.looked_up(GOSSIP, (THERE,), "", alone=True, now_s=0.0)
    dialed(found, 0.0)
    found.dial_failed(THERE, 0.1)
    found.looked_up(GOSSIP, (("10.0.0.3", 7950),), "", alone=True, now_s=discovery.NAMED_FOR_S + 1)
    assert THERE not in dialed(found, discovery.NAMED_FOR_S + 100)


def test_further_ports_are_forgotten_with_the_address_they_belong_to():
    """Each pod that ends would leave fifteen behind, until the table is full and nobody new is dialed."""
    found = named()
    settle_siblings(found)
    found.looked_up(GOSSIP, (THERE,), "", alone=True, now_s=0.0)
    found.linked(THERE)
    found.looked_up(GOSSIP, (("10.0.0.3", 7950),), "", alone=False, now_s=30.0)
    found.unlinked(THERE, 31.0)
    found.dial_failed(THERE, 32.0, refused=True)
    late_s = 32.0 + discovery.NAMED_FOR_S
    found.looked_up(GOSSIP, (("10.0.0.3", 7950),), "", alone=False, now_s=late_s)
    assert [address for address in dialed(found, late_s + 100) if address[0] == THERE[0]] == []


def test_while_there_are_no_answers_nothing_is_forgotten():
    """A node that is cut off for an hour, from the name service too, must still know where the others were."""
    found = named()
    settle_siblings(found)
    found.looked_up(GOSSIP, (THERE,), "", alone=True, now_s=0.0)
    dialed(found, 0.0)
    found.dial_failed(THERE, 0.1)
    for minute in range(1, 60):
        found.looked_up(GOSSIP, (), "no answer", alone=True, now_s=minute * 60.0)
    found.looked_up(GOSSIP, (("10.0.0.3", 7950),), "", alone=True, now_s=3600.0)
    assert THERE in dialed(found, 3600.0)


def test_further_ports_do_not_keep_out_who_is_named_now():
    """Forty pods that are named before their processes listen refuse; whoever comes after them must be dialed too."""
    wide = GOSSIP._replace(ports=16)
    found = named(wide)
    slow = tuple((f"10.0.1.{n}", 7950) for n in range(40))
    found.looked_up(wide, slow, "", alone=True, now_s=0.0)
    for address in slow:
        found.dial_failed(address, 1.0, refused=True)
    found.looked_up(wide, (THERE,), "", alone=True, now_s=2.0)
    assert THERE in [address for step in range(20) for address in dialed(found, 2.0 + step)]


def test_addresses_that_are_named_no_more_do_not_keep_out_who_is_named_now():
    """A wildcard record that was there for a moment would keep a node alone for ten minutes."""
    found = named()
    found.looked_up(GOSSIP, tuple((f"10.1.{n // 256}.{n % 256}", 7950) for n in range(600)), "", alone=True, now_s=0.0)
    found.looked_up(GOSSIP, (THERE,), "", alone=True, now_s=1.0)
    assert THERE in [address for step in range(100) for address in dialed(found, 1.0 + step)]


def test_where_somebody_is_linked_the_further_ports_there_are_left_alone():
    """It knows the other workers. Fifteen dials a minute to each pod that was slow to listen are noise for ever."""
    found = named()
    settle_siblings(found)
    found.looked_up(GOSSIP, (THERE,), "", alone=True, now_s=0.0)
    found.dial_failed(THERE, 0.0, refused=True)
    found.linked(THERE)
    found.looked_up(GOSSIP, (THERE,), "", alone=False, now_s=30.0)
    tried = [address for step in range(200) for address in dialed(found, 30.0 + step)]
    assert [address for address in tried if address[0] == THERE[0]] == []


def test_an_address_that_was_a_strangers_and_is_a_members_is_dialed_again_soon():
    """A node that closes during the greeting, as one under load does, looks like a stranger; it is not one for ever."""
    found = named()
    settle_siblings(found)
    found.looked_up(GOSSIP, (THERE,), "", alone=True, now_s=0.0)
    found.dial_failed(THERE, 0.0, stranger=True)
    found.linked(THERE)
    found.unlinked(THERE, 100.0)
    tries: list[float] = []
    for step in range(1, 3000):
        now_s = 100.0 + step / 10
        if THERE in dialed(found, now_s):
            tries.append(now_s)
            found.dial_failed(THERE, now_s)
    assert max(later - earlier for earlier, later in pairwise(tries)) < 1.3 * discovery.RETRY_MAX_S


def test_a_nodes_own_other_address_is_nobody_to_wait_for():
    """A pod with an address of each version of IP is named twice. It would look for a firewall, and ask for ever."""
    found = named()
    settle_siblings(found)
    mine = (("10.0.0.1", 7950), ("fd00::1", 7950))
    found.looked_up(GOSSIP, mine, "", alone=True, now_s=0.0)
    assert dialed(found, 0.0) == [mine[1]]
    found.dial_failed(mine[1], 0.0, itself=True)
    assert not found.is_searching
    tried = [address for step in range(300) for address in dialed(found, float(step))]
    assert {address for address in tried if address[0] == "fd00::1"} <= {mine[1]}, "its ports are this node's own"
    told = [found.looked_up(GOSSIP, mine, "", alone=True, now_s=at_s) for at_s in (0.0, PATIENCE_S, 2 * PATIENCE_S)]
    assert not [effect for effects in told for effect in effects if isinstance(effect, Warn)]
    made = lookups(found, 500.0, alone=False, answer=mine, dials_find="itself")
    assert all(24.0 <= later - earlier <= 36.0 for earlier, later in pairwise(made[1:]))


def test_no_answer_makes_a_node_remember_addresses_without_end():
    """A wildcard record, or somebody who may answer for the name, could fill the memory of every node."""
    found = named()
    for block in range(20):
        found.looked_up(GOSSIP, tuple((f"10.{block}.{n}.1", 7950) for n in range(256)), "", alone=True, now_s=1.0)
    dials = sum(len(dialed(found, float(second))) for second in range(10, 200))
    assert 0 < dials <= discovery.NAMED_MAX


def test_all_ports_of_a_pods_own_address_are_tried():
    """Its workers share the address; who takes the second port finds the first by no record."""
    assert sorted(dialed(named(), 0.0)) == [("10.0.0.1", 7951), ("10.0.0.1", 7952), ("10.0.0.1", 7953)]


@pytest.mark.parametrize("how", ["refused", "stranger"])
def test_where_nobody_of_this_cluster_is_at_the_first_port_the_further_ones_are_tried(how):
    """The worker that had the first port may have died, or another cluster's pod runs on the same host network."""
    found = named()
    settle_siblings(found)
    found.looked_up(GOSSIP, (THERE,), "", alone=True, now_s=1.0)
    dialed(found, 1.0)
    found.dial_failed(THERE, 1.0, **{how: True})
    tried = [address for step in range(100) for address in dialed(found, 1.0 + step / 10)]
    assert {("10.0.0.2", 7951), ("10.0.0.2", 7952), ("10.0.0.2", 7953)} <= set(tried)


def test_where_nothing_answers_no_further_port_is_tried():
    """The address of a pod that is gone: fifteen more dials into the void each time."""
    found = named()
    settle_siblings(found)
    found.looked_up(GOSSIP, (THERE,), "", alone=True, now_s=1.0)
    dialed(found, 1.0)
    found.dial_failed(THERE, 4.0)
    tried = [address for step in range(100) for address in dialed(found, 5.0 + step)]
    assert {address for address in tried if address[0] == THERE[0]} == {THERE}


def test_further_ports_leave_half_of_the_dials_to_others():
    """Where a hundred pods have died, what the name service tells anew must not wait for their ports."""
    found = Discovery(myself=("10.0.0.1", 7950), names=(GOSSIP._replace(ports=16),), rng=random.Random(1), now_s=0.0)
    assert len(dialed(found, 0.0)) == discovery.ATTEMPTS_PER_SECOND / 2
    found.looked_up(
        GOSSIP._replace(ports=16), tuple((f"10.0.1.{n}", 7950) for n in range(8)), "", alone=True, now_s=0.0
    )
    assert len(dialed(found, 0.0)) == 8


def test_records_with_ports_are_tried_at_these_alone():
    """An SRV record tells where each worker is."""
    found = named(SERVICE)
    found.looked_up(SERVICE, (THERE,), "", alone=True, now_s=0.0)
    assert dialed(found, 0.0) == [THERE]
    found.dial_failed(THERE, 0.0, refused=True)
    assert {address for step in range(50) for address in dialed(found, float(step))} == {THERE}


def test_a_node_searches_until_all_who_were_named_have_been_tried():
    """It would serve without their sessions, though they are there."""
    found = named()
    assert found.is_searching
    settle_siblings(found)
    found.looked_up(GOSSIP, (THERE, ("10.0.0.3", 7950)), "", alone=True, now_s=0.0)
    assert found.is_searching
    found.linked(THERE)
    assert found.is_searching
    found.dial_failed(("10.0.0.3", 7950), 0.0)
    assert not found.is_searching
    found.looked_up(GOSSIP, (THERE, ("10.0.0.3", 7950)), "", alone=False, now_s=5.0)
    assert not found.is_searching


def test_a_node_that_hears_others_does_not_ask_the_name_service_as_a_second_way():
    """Outside a cluster the name means nothing, and a query for it nobody expects."""
    assert lookups(named(when_alone=True), 60.0, alone=False) == []
    made = lookups(named(when_alone=True), 60.0, alone=True)
    assert made[0] >= LONELY_S * 0.8
    assert not named(when_alone=True).is_searching


def warnings(found: Discovery, failures: list[float]) -> list[str]:
    told: list[str] = []
    for at_s in failures:
        found.timeout(at_s, alone=True)
        effects = found.looked_up(GOSSIP, (), "Name or service not known", alone=True, now_s=at_s)
        told += [effect.text for effect in effects if isinstance(effect, Warn)]
    return told


def test_a_name_without_an_answer_is_warned_of_once_with_what_to_do():
    """At a first start the records come late, so not at once."""
    found = named()
    assert warnings(found, [0.0, 5.0]) == []
    [text] = warnings(found, [PATIENCE_S + 1, 50.0, 100.0])
    assert "dns://gossipsess:7950 has had no answer" in text
    assert "Name or service not known" in text
    assert "headless Service" in text
    found.looked_up(GOSSIP, (THERE,), "", alone=True, now_s=200.0)
    [text] = warnings(found, [201.0, 220.0, 300.0])
    assert "What its last answer named is kept" in text


def test_a_second_way_that_has_no_answer_is_not_warned_of():
    """Nobody set it."""
    assert warnings(named(when_alone=True), [0.0, 50.0, 100.0]) == []


def test_a_node_that_reaches_nobody_whom_the_name_service_names_says_so_once():
    """Otherwise its log tells of addresses, and of nothing that is wrong."""
    found = named()

    def told(now_s: float, *, alone: bool, others: bool = True) -> list[str]:
        found.timeout(now_s, alone=alone)
        answer = (("10.0.0.1", 7950), *((THERE,) if others else ()))
        effects = found.looked_up(GOSSIP, answer, "", alone=alone, now_s=now_s)
        return [effect.text for effect in effects if isinstance(effect, Warn)]

    assert told(0.0, alone=True) == told(5.0, alone=True) == []
    [text] = told(PATIENCE_S + 1, alone=True)
    assert "names 1 other address, and this node is linked to nobody there" in text
    assert "ports (7950)" in text
    assert told(100.0, alone=True) == told(200.0, alone=True) == []
    assert told(300.0, alone=False) == told(400.0, alone=True) == []
    assert len(told(400.0 + PATIENCE_S, alone=True)) == 1
    assert told(500.0, alone=True, others=False) == told(600.0, alone=True, others=False) == []
