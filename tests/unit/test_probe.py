"""Whom to probe next, and which questions are open."""

import random
from collections import Counter

from gossipsess.model.member import Member, MemberState
from gossipsess.protocol import probe
from gossipsess.protocol.probe import ProbeOrder, Probes, Relay


def member(number: int) -> Member:
    node = bytes([number] * 8)
    return Member(node, 0, MemberState.ALIVE, (f"10.0.0.{number}", 7950), f"n{number}", host=f"h{number}")


A, B, C = member(1), member(2), member(3)


def asked(probes: Probes, target: Member = A) -> int:
    return probes.start(target, help_due_s=1.0, verdict_s=3.0).sequence


def test_every_member_is_probed_once_a_round():
    """Plain random choice would leave a member unasked for long now and then, and its death unseen."""
    order = ProbeOrder(random.Random(1))
    candidates = {m.node: m for m in map(member, range(10))}
    for _ in range(5):
        asked_in_round = [order.next(candidates) for _ in range(10)]
        assert sorted(asked_in_round) == sorted(candidates.values())


def test_rounds_are_shuffled_anew():
    """All nodes asking in one fixed order would come to the same member at the same moment."""
    order = ProbeOrder(random.Random(1))
    candidates = {m.node: m for m in map(member, range(10))}
    rounds = [tuple(order.next(candidates).node for _ in range(10)) for _ in range(5)]
    assert len(dict.fromkeys(rounds)) == 5


def test_a_new_member_waits_one_round_at_most():
    candidates = {m.node: m for m in map(member, range(10))}
    places = Counter()
    for seed in range(200):
        order = ProbeOrder(random.Random(seed))
        order.next({m.node: m for m in map(member, range(9))})
        order.joined(member(9).node)
        places[next(turn for turn in range(9) if order.next(candidates) == member(9))] += 1
    assert len(places) == 9, "and is not probed by everyone at the same moment either"


def test_who_is_no_candidate_is_passed_over():
    order = ProbeOrder(random.Random(1))
    everyone = {m.node: m for m in (A, B, C)}
    order.next(everyone)
    assert [order.next({B.node: B}) for _ in range(3)] == [B, B, B]
    assert order.next({}) is None


def test_an_answer_closes_the_question_once_and_only_from_the_target_or_a_helper():
    """Any other answer is late, doubled or made up, and says nothing about the target."""
    probes = Probes(0)
    sequence = asked(probes)
    assert not probes.answered(sequence + 1, A.node)
    assert not probes.answered(sequence, B.node)
    probes.due_for_help(1.0)[0].helpers = (B.node,)
    assert not probes.answered(sequence, C.node)
    assert probes.answered(sequence, B.node)
    assert not probes.answered(sequence, A.node)
    assert probes.take_failed(3.0) == []


def test_help_is_due_before_the_verdict_and_each_comes_once():
    probes = Probes(0)
    asked(probes)
    assert probes.next_deadline() == 1.0
    assert probes.due_for_help(0.9) == []
    (open_probe,) = probes.due_for_help(1.0)
    open_probe.helpers = ()
    assert probes.due_for_help(1.0) == []
    assert probes.next_deadline() == 3.0
    assert probes.take_failed(2.9) == []
    assert probes.take_failed(3.0) == [open_probe]
    assert probes.take_failed(3.0) == []
    assert probes.next_deadline() is None


def test_a_nack_counts_once_and_only_from_a_helper():
    """Each is taken for an independent measurement; one helper heard twice is still one."""
    probes = Probes(0)
    sequence = asked(probes)
    probes.nacked(sequence, B.node)
    probes.due_for_help(1.0)[0].helpers = (B.node, C.node)
    for sender in (B.node, B.node, A.node):
        probes.nacked(sequence, sender)
    probes.nacked(sequence + 1, C.node)
    assert probes.take_failed(3.0)[0].nacks == [B.node]


def test_another_node_at_the_address_closes_the_question_it_was_asked():
    """Only an answer to a ping of ours is believed: a made-up one would kill a member at once."""
    probes = Probes(0)
    sequence = asked(probes)
    assert not probes.disowned(sequence, B.node)
    assert not probes.disowned(sequence + 1, A.node)
    assert probes.disowned(sequence, A.node)
    assert not probes.disowned(sequence, A.node)


def test_a_relay_ends_with_the_answer_of_its_target_or_in_silence():
    probes = Probes(0)
    first = Relay(77, B.node, B.address, A.node, due_s=2.0)
    second = first._replace(sequence=78, due_s=4.0)
    number = probes.relay(first)
    probes.relay(second)
    assert probes.relay_done(number, C.node) is None
    assert probes.relay_done(number, A.node) == first
    assert probes.relay_done(number, A.node) is None
    assert probes.next_deadline() == 4.0
    assert probes.take_silent(3.9) == []
    assert probes.take_silent(4.0) == [second]


def test_relays_are_bounded():
    """One member must not be able to flood another through this node."""
    probes = Probes(0)
    relay = Relay(1, B.node, B.address, A.node, due_s=2.0)
    numbers = [probes.relay(relay) for _ in range(probe.RELAYS_MAX + 1)]
    assert None not in numbers[:-1]
    assert numbers[-1] is None


def test_sequence_numbers_fit_four_bytes():
    probes = Probes(2**32 - 1)
    assert probes.next_sequence() == 0
