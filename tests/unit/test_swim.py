"""Rules of one Swim machine, one message at a time. What holds of many together is in tests/simulation."""

import random
from itertools import pairwise

import pytest

from gossipsess.model.member import Address, Member, MemberState, Told
from gossipsess.protocol.effects import Effect, MemberChanged, SendDatagram
from gossipsess.protocol.swim import INCARNATION_MAX, Swim, SwimTimings
from gossipsess.wire.messages import Beacon, Datagram, Gossip, Nack, Ping, PingRequest, ProbeAck, WrongId

ALIVE, SUSPECT, DEAD, LEFT = MemberState


def member(number: int, state: MemberState = ALIVE, incarnation: int = 0) -> Member:
    address = (f"10.0.0.{number}", 7950)
    return Member(bytes([number] * 8), incarnation, state, address, f"n{number}", host=f"h{number}")


ME, A, B, C = (member(number) for number in range(4))
ELSEWHERE: Address = ("192.168.0.9", 40000)


def swim(*others: Member, now_s: float = 0.0) -> Swim:
    machine = Swim(ME, timings=SwimTimings(), rng=random.Random(1), now_s=now_s)
    machine.heard_members([Told(one) for one in others], now_s)
    while machine._next_gossip_s is not None:  # the news of the others is told; tests begin in silence
        machine._gossip(now_s)
    return machine


def run(machine: Swim, until_s: float) -> list[tuple[float, Effect]]:
    done: list[tuple[float, Effect]] = []
    while (deadline_s := machine.next_deadline()) is not None and deadline_s <= until_s:
        done += [(deadline_s, effect) for effect in machine.timeout(deadline_s)]
    return done


def sent(effects: list[Effect], kind: type[Datagram]) -> list[SendDatagram]:
    return [e for e in effects if isinstance(e, SendDatagram) and isinstance(e.message, kind)]


def next_ping(machine: Swim) -> tuple[float, Ping]:
    while (deadline_s := machine.next_deadline()) is not None:
        for send in sent(machine.timeout(deadline_s), Ping):
            return deadline_s, send.message
    raise AssertionError("nobody was pinged")


# --- answers ----------------------------------------------------------------------------------------------


def test_a_ping_is_answered_where_it_came_from():
    machine = swim(A)
    assert machine.receive(A.node, ELSEWHERE, Ping(7, ME.node), 1.0) == [SendDatagram(ELSEWHERE, ProbeAck(7))]


def test_a_ping_for_another_node_is_answered_with_wrong_id():
    """The asker holds on to a node that was here before: it is told at once that this one is gone."""
    machine = swim(A)
    effects = machine.receive(A.node, A.address, Ping(7, b"earlier!"), 1.0)
    assert effects == [SendDatagram(A.address, WrongId(7, b"earlier!"))]


def test_a_stranger_is_answered_but_not_believed():
    """Its datagram may be an old one, sent again by somebody else; a Hello cannot be."""
    machine = swim(A)
    news = (B, A._replace(state=DEAD), ME._replace(state=SUSPECT))
    effects = machine.receive(C.node, C.address, Ping(7, ME.node, news), 1.0)
    assert effects == [SendDatagram(C.address, ProbeAck(7))]
    assert machine.receive(C.node, C.address, Gossip(news), 1.0) == []
    assert machine.receive(C.node, C.address, PingRequest(7, A.node, A.address, news), 1.0) == []
    assert machine.view.all() == (A,)
    assert machine.myself == ME


def test_a_beacon_is_no_news():
    machine = swim(A)
    assert machine.receive(A.node, A.address, Beacon(7950, reply=False), 1.0) == []


# --- refuting ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [SUSPECT, DEAD])
@pytest.mark.parametrize("accused", [0, 5])
def test_an_accusation_is_refuted_in_the_very_answer(state, accused):
    """The accuser is the one who needs to hear it, and the answer is the one message it surely awaits."""
    machine = swim(A, B)
    accusation = member(0, state, accused)
    effects = machine.receive(A.node, A.address, Ping(7, ME.node, (accusation,)), 1.0)
    refuted = member(0, ALIVE, accused + 1)
    assert machine.myself == refuted
    assert effects == [SendDatagram(A.address, ProbeAck(7, (refuted,)))]
    assert any(refuted in send.message.updates for send in sent(machine.timeout(1.0), Gossip))


def test_an_old_accusation_is_answered_without_a_new_incarnation():
    """Its sender missed the refutation; raising the number each time would never end."""
    machine = swim(A)
    for _ in range(2):
        effects = machine.receive(A.node, A.address, Ping(7, ME.node, (member(0, SUSPECT),)), 1.0)
        assert effects == [SendDatagram(A.address, ProbeAck(7, (member(0, ALIVE, 1),)))]


def test_much_other_news_does_not_crowd_out_the_refutation():
    """A datagram has room for about a dozen updates; in a large start there are more."""
    machine = swim(A)
    machine.receive(A.node, A.address, Gossip(tuple(member(number) for number in range(10, 60))), 1.0)
    accusation = member(0, SUSPECT)
    (answer,) = sent(machine.receive(A.node, A.address, Ping(7, ME.node, (accusation,)), 1.0), ProbeAck)
    assert answer.message.updates[0] == member(0, ALIVE, 1)


def test_the_last_incarnation_is_not_exceeded():
    """One above it does not fit its field: a broken peer must not be able to silence this node."""
    machine = swim(A)
    machine.receive(A.node, A.address, Gossip((member(0, DEAD, INCARNATION_MAX),)), 1.0)
    assert machine.myself == ME
    machine.receive(A.node, A.address, Gossip((member(0, DEAD, INCARNATION_MAX - 1),)), 1.0)
    assert machine.myself.incarnation == INCARNATION_MAX


@pytest.mark.parametrize("state", [SUSPECT, DEAD])
def test_whoever_is_accused_here_is_told_so_with_every_message(state):
    """It cannot refute what it does not hear."""
    accused = A._replace(state=state)
    machine = swim(A, B)
    machine.receive(B.node, B.address, Gossip((accused,)), 1.0)
    (answer,) = sent(machine.receive(A.node, A.address, Ping(7, ME.node), 30.0), ProbeAck)
    assert accused in answer.message.updates


# --- probing ----------------------------------------------------------------------------------------------


def test_an_answer_in_time_leaves_nothing_behind():
    machine = swim(A)
    asked_s, ping = next_ping(machine)
    machine.receive(A.node, A.address, ProbeAck(ping.sequence), asked_s + 0.01)
    later_s, _ = next_ping(machine)
    assert later_s - asked_s == pytest.approx(0.5)
    assert machine.view.live() == (A,)


def test_without_an_answer_helpers_are_asked_and_then_it_is_suspect():
    machine = swim(A, B, C)
    asked_s, ping = next_ping(machine)
    target = machine.view.get(ping.target)
    helped_s = machine.next_deadline()
    requests = sent(machine.timeout(helped_s), PingRequest)
    assert helped_s - asked_s == pytest.approx(0.5 / 3)
    assert sorted(send.address for send in requests) == [m.address for m in (A, B, C) if m != target]
    assert {send.message for send in requests} == {PingRequest(ping.sequence, target.node, target.address)}
    changes = [(s, e) for s, e in run(machine, asked_s + 0.5) if isinstance(e, MemberChanged)]
    suspect = target._replace(state=SUSPECT)
    assert changes == [(pytest.approx(asked_s + 0.5), MemberChanged(suspect, ALIVE))]


def test_a_suspect_is_asked_again_at_once_and_told_why():
    """With the accusation in its hands it can refute within a round trip."""
    machine = swim(A)
    asked_s, _ = next_ping(machine)
    run(machine, asked_s + 0.49)
    pings = sent(machine.timeout(asked_s + 0.5), Ping)
    assert [ping.message.updates for ping in pings] == [(A._replace(state=SUSPECT),)]


def test_a_suspect_heard_of_is_asked_at_once_and_in_each_interval():
    """Where few know it, each of them must try: with two members there is nobody else."""
    machine = swim(A, B, C)
    machine.receive(A.node, A.address, Gossip((B._replace(state=SUSPECT),)), 0.0)
    moments = [
        at_s for at_s, effect in run(machine, 1.6) for ping in sent([effect], Ping) if ping.message.target == B.node
    ]
    assert [moment for moment in (0.0, 0.5, 1.0, 1.5) if pytest.approx(moment) not in moments] == []


def test_in_a_large_cluster_only_some_ask_a_suspect_again():
    """A hundred members asking at once would drown the answer of a member that is merely slow."""
    others = [member(number) for number in range(1, 60)]
    machine = swim(*others)
    accused = tuple(other._replace(state=SUSPECT) for other in others[1:41])
    machine.receive(A.node, A.address, Gossip(accused), 0.0)
    assert 1 <= len(sent(machine.timeout(0.0), Ping)) <= 12, "of 40 suspects, with 6 of 60 members asking each"


def test_helpers_carry_the_accusation_to_the_suspect():
    """Where the accuser cannot reach it, the refutation has to come back the same way round."""
    machine = swim(A, B, C)
    accused = B._replace(state=SUSPECT)
    machine.receive(A.node, A.address, Gossip((accused,)), 0.0)
    requests = [request for _, effect in run(machine, 1.6) for request in sent([effect], PingRequest)]
    about_b = [request.message for request in requests if request.message.target == B.node]
    assert len(about_b) >= 4
    assert all(accused in request.updates for request in about_b)


def test_a_helper_that_brings_the_answer_saves_the_target():
    machine = swim(A, B)
    asked_s, ping = next_ping(machine)
    target, helper = (A, B) if ping.target == A.node else (B, A)
    machine.timeout(machine.next_deadline())
    machine.receive(helper.node, helper.address, ProbeAck(ping.sequence), asked_s + 0.3)
    run(machine, asked_s + 0.49)
    machine.timeout(asked_s + 0.5)
    assert machine.view.get(target.node) == target


@pytest.mark.parametrize(("nacked", "dead_after_s"), [(False, 12.0), (True, 2.0)])
def test_a_helpers_nack_shortens_the_wait(nacked, dead_after_s):
    """Without it the accuser may be the one that is cut off, and waits longer before it acts alone."""
    machine = swim(A, B)
    asked_s, ping = next_ping(machine)
    target, helper = (A, B) if ping.target == A.node else (B, A)
    machine.timeout(machine.next_deadline())
    if nacked:
        machine.receive(helper.node, helper.address, Nack(ping.sequence), asked_s + 0.3)
    died_s = None
    while died_s is None:
        now_s = machine.next_deadline()
        for effect in machine.timeout(now_s):
            if isinstance(effect, SendDatagram) and isinstance(effect.message, Ping):
                if effect.message.target == helper.node:  # the helper itself is well
                    machine.receive(helper.node, helper.address, ProbeAck(effect.message.sequence), now_s)
            elif isinstance(effect, MemberChanged) and effect.member.state is DEAD:
                assert effect.member.node == target.node
                died_s = now_s
    assert died_s - asked_s == pytest.approx(0.5 + dead_after_s)


def test_a_refutation_during_the_probe_outweighs_its_silence():
    """The new incarnation is younger than the ping that went unanswered."""
    machine = swim(A)
    asked_s, _ = next_ping(machine)
    machine.receive(A.node, A.address, Gossip((member(1, ALIVE, 1),)), asked_s + 0.4)
    run(machine, asked_s + 0.5)
    assert machine.view.live() == (member(1, ALIVE, 1),)


def test_helping_relays_the_answer_with_the_news_of_the_target():
    refuted = member(2, ALIVE, 1)
    machine = swim(A, refuted)
    request = PingRequest(7, B.node, B.address, (B._replace(state=SUSPECT),))
    (ping,) = sent(machine.receive(A.node, ELSEWHERE, request, 1.0), Ping)
    assert (ping.address, ping.message.target) == (B.address, B.node)
    effects = machine.receive(B.node, B.address, ProbeAck(ping.message.sequence), 1.1)
    assert effects == [SendDatagram(ELSEWHERE, ProbeAck(7, (refuted,)))]


def test_helping_tells_the_suspect_of_its_accusation():
    machine = swim(A, B)
    accused = B._replace(state=SUSPECT)
    request = PingRequest(7, B.node, B.address, (accused,))
    (ping,) = sent(machine.receive(A.node, ELSEWHERE, request, 1.0), Ping)
    assert accused in ping.message.updates


def test_helping_says_so_when_the_target_is_silent():
    """The asker learns that its helper is well, and that the fault is not its own."""
    machine = swim(A, B)
    machine.receive(A.node, ELSEWHERE, PingRequest(7, B.node, B.address), 0.0)
    done = run(machine, 0.4)
    nacks = [(at_s, effect) for at_s, effect in done if effect == SendDatagram(ELSEWHERE, Nack(7))]
    assert [at_s for at_s, _ in nacks] == [pytest.approx(0.5 / 3)]


def test_helping_passes_on_that_another_node_lives_there():
    machine = swim(A, B)
    (ping,) = sent(machine.receive(A.node, ELSEWHERE, PingRequest(7, B.node, B.address), 0.0), Ping)
    effects = machine.receive(C.node, B.address, WrongId(ping.message.sequence, B.node), 0.1)
    assert effects == [
        MemberChanged(B._replace(state=DEAD), ALIVE),
        SendDatagram(ELSEWHERE, WrongId(7, B.node)),
    ]


# --- certain ends -----------------------------------------------------------------------------------------


def test_wrong_id_in_answer_to_a_ping_ends_the_old_node_at_once():
    machine = swim(A)
    asked_s, ping = next_ping(machine)
    assert machine.receive(C.node, A.address, WrongId(ping.sequence + 1, A.node), asked_s) == []
    effects = machine.receive(C.node, A.address, WrongId(ping.sequence, A.node), asked_s)
    assert effects == [MemberChanged(A._replace(state=DEAD), ALIVE)]


def test_a_certain_death_is_told_on_and_happens_once():
    machine = swim(A, B)
    dead = A._replace(state=DEAD)
    assert machine.certain_death(A.node, 0.0) == [MemberChanged(dead, ALIVE)]
    assert machine.certain_death(A.node, 0.0) == []
    assert machine.certain_death(C.node, 0.0) == []
    assert sent(machine.timeout(0.2), Gossip) == [SendDatagram(B.address, Gossip((dead,)))]


@pytest.mark.parametrize("told_first", [A.node, C.node])
def test_of_two_members_at_one_address_both_are_probed_now(told_first):
    """One of them is gone, and answers for it are the other's. A list may name the older one last: asking only who
    was known before would ask the one that lives, and commits would wait for the other until its turn comes."""
    both = sorted((A, C._replace(address=A.address)), key=lambda member: member.node != told_first)
    machine = swim(both[0])
    effects = machine.heard_members([Told(one) for one in both[1:]], 0.0)
    assert effects[0] == MemberChanged(both[1], None)
    assert {(s.address, s.message.target) for s in sent(effects, Ping)} == {(A.address, A.node), (A.address, C.node)}


def test_a_broken_link_has_its_node_probed_now_and_once():
    machine = swim(A)
    assert [s.message.target for s in sent(machine.suspect_link(A.node, 0.0), Ping)] == [A.node]
    assert machine.suspect_link(A.node, 0.1) == [], "a link that flaps must not put off the verdict"
    assert machine.suspect_link(C.node, 0.1) == []


# --- lists from a Hello -----------------------------------------------------------------------------------


def test_a_death_heard_second_hand_is_only_a_suspicion():
    """The list may be old: the node may have refuted since, and its sender not heard of it."""
    machine = swim(A, B)
    effects = machine.heard_members([Told(B), Told(A._replace(state=DEAD))], 1.0)
    assert effects == [MemberChanged(A._replace(state=SUSPECT), ALIVE)]


def test_a_leave_heard_second_hand_is_a_leave():
    """Only the node itself says so."""
    machine = swim(A, B)
    left = A._replace(state=LEFT)
    assert machine.heard_members([Told(left)], 1.0) == [MemberChanged(left, ALIVE)]


def test_the_dead_of_a_list_that_were_never_live_here_are_remembered_as_dead():
    """A newcomer must not take thousands of the dead for suspects, nor be fooled by stale gossip of them."""
    machine = swim(A)
    dead = C._replace(state=DEAD)
    assert machine.heard_members([Told(dead)], 1.0) == [MemberChanged(dead, None)]
    assert machine.heard_members([Told(C)], 1.0)[1:] == []
    assert machine.view.live() == (A,)


def test_who_is_dead_here_and_live_there_is_told_so():
    """The two sides of a healed partition hold each other for dead, and neither would ever ask again."""
    machine = swim(A, B)
    machine.certain_death(B.node, 1.0)
    (told,) = machine.heard_members([Told(B)], 2.0)
    assert told.address == B.address
    assert B._replace(state=DEAD) in told.message.updates
    machine.receive(B.node, B.address, ProbeAck(told.message.sequence, (member(2, ALIVE, 1),)), 2.1)
    assert machine.view.live() == (A, member(2, ALIVE, 1))


def test_an_old_death_told_in_a_list_is_not_gossiped_on():
    """Gossip says no age: who has forgotten the member would take it for one that ended now, and tell it to others."""
    gossiped = []
    for ended_s in (5, 3600):
        machine = swim(A, B)
        told = Told(C._replace(state=DEAD), ended_s)
        assert machine.heard_members([told], 10.0) == [MemberChanged(told.member, None)]
        done = [effect for at in range(100, 120) for effect in machine.timeout(at / 10)]
        gossip = [effect.message for effect in done if isinstance(effect, SendDatagram)]
        gossiped.append(any(told.member in message.updates for message in gossip if isinstance(message, Gossip)))
    assert gossiped == [True, False]


def test_ones_own_record_in_a_list_is_an_accusation_or_nothing():
    machine = swim(A)
    machine.heard_members([Told(ME._replace(state=DEAD))], 1.0)
    assert machine.myself == member(0, ALIVE, 1)
    assert machine.view.all() == (A,)


# --- leaving ----------------------------------------------------------------------------------------------


def test_leaving_tells_several_members_at_once():
    """The process ends soon; a leave that only the next gossip round would carry might never be heard."""
    others = [member(number) for number in range(1, 21)]
    machine = swim(*others)
    effects = machine.leave(1.0)
    left = ME._replace(state=LEFT)
    assert machine.myself == left
    assert len({send.address for send in sent(effects, Gossip)}) == len(effects) == 8
    assert all(left in send.message.updates for send in effects)
    assert machine.leave(1.0) == []


def test_who_has_left_answers_so_and_judges_nobody():
    machine = swim(A, B)
    next_ping(machine)
    machine.receive(A.node, A.address, Gossip((B._replace(state=SUSPECT),)), 1.0)
    machine.leave(1.0)
    done = [effect for _, effect in run(machine, 60.0)]
    assert done == sent(done, Gossip)
    assert machine.next_deadline() is None
    accusation = ME._replace(state=DEAD)
    (answer,) = machine.receive(A.node, A.address, Ping(7, ME.node, (accusation,)), 61.0)
    assert answer == SendDatagram(A.address, ProbeAck(7, (ME._replace(state=LEFT),)))
    assert machine.suspect_link(A.node, 61.0) == []


def test_who_has_left_asks_none_of_the_dead():
    """An answer would make the dead a member again of a node that is going."""
    machine = swim(A, B)
    machine.certain_death(B.node, 1.0)
    machine.leave(1.0)
    assert not sent([effect for _, effect in run(machine, 60.0)], Ping)
    assert machine.next_deadline() is None


def test_draining_tells_several_members_at_once_and_stays_a_member():
    """Until the others know, they place sessions on a node that is about to go."""
    others = [member(number) for number in range(1, 21)]
    machine = swim(*others)
    effects = machine.drain(1.0)
    drains = member(0, incarnation=1)._replace(leaving=True)
    assert machine.myself == drains
    assert len({send.address for send in sent(effects, Gossip)}) == len(effects) == 8
    assert all(drains in send.message.updates for send in effects)
    assert machine.drain(1.0) == []
    assert next_ping(machine), "it judges others as before"


def test_a_draining_node_outranks_what_was_said_of_it_before():
    """A suspicion of a moment ago, still on its way, must not bring sessions back to it."""
    machine, other = swim(A), swim(ME._replace(node=b"drains!!", state=SUSPECT))
    machine.drain(1.0)
    (change,) = other.heard_members([Told(machine.myself._replace(node=b"drains!!"))], 1.0)
    assert isinstance(change, MemberChanged)
    assert change.member.leaving
    assert other.heard_members([Told(ME._replace(node=b"drains!!", state=SUSPECT))], 1.1) == []


def test_a_refutation_still_says_that_the_node_drains():
    """Forgotten in one, sessions would move back to a node that is going."""
    machine = swim(A)
    machine.drain(1.0)
    machine.receive(A.node, A.address, Gossip((machine.myself._replace(state=SUSPECT),)), 2.0)
    assert machine.myself == member(0, incarnation=2)._replace(leaving=True)
    machine.leave(3.0)
    assert machine.myself == member(0, LEFT, 2)._replace(leaving=True)
    assert machine.drain(4.0) == []


# --- time -------------------------------------------------------------------------------------------------


def test_a_lone_node_waits_for_nothing():
    machine = swim()
    assert machine.next_deadline() is None
    assert machine.timeout(100.0) == []
    machine.heard_members([Told(A)], 100.0)
    assert 100.0 <= machine.next_deadline() <= 100.5


def test_gossip_runs_only_while_there_is_news():
    machine = swim(A, B, C)
    machine.receive(A.node, A.address, Gossip((member(9),)), 0.0)
    rounds = {at_s for at_s, e in run(machine, 0.45) if isinstance(e.message, Gossip)}
    assert 1 <= len(rounds) <= 3
    moments = sorted(rounds)
    assert all(later - earlier > 0.099 for earlier, later in pairwise(moments))


def test_a_pause_voids_open_probes():
    """Answers came while this process stood still, and were thrown away with its full buffers."""
    machine = swim(A)
    asked_s, _ = next_ping(machine)
    effects = machine.timeout(asked_s + 5.0)
    assert effects == sent(effects, Ping)
    assert machine.view.live() == (A,)


@pytest.mark.parametrize(("paused_s", "resumed_s", "earliest_s"), [(1.0, 21.0, 22.5), (2.9, 5.0, 6.0)])
def test_a_pause_gives_suspects_their_time_back(paused_s, resumed_s, earliest_s):
    """What they sent to refute was lost here; they get the time again, and at least two intervals of it."""
    machine = swim(A)
    machine.receive(A.node, A.address, Gossip((A._replace(state=SUSPECT),)), 1.0)
    assert not [effect for _, effect in run(machine, paused_s) if isinstance(effect, MemberChanged)]
    assert not [effect for effect in machine.timeout(resumed_s) if isinstance(effect, MemberChanged)]
    dead = [at_s for at_s, effect in run(machine, 60.0) if isinstance(effect, MemberChanged)]
    assert len(dead) == 1
    assert earliest_s <= dead[0] < earliest_s + 1


def test_an_unhealthy_node_probes_more_slowly():
    """It was accused twice, so it doubts itself before it doubts others; each answer gives back some trust."""
    machine = swim(A)
    for incarnation in (0, 1):
        machine.receive(A.node, A.address, Gossip((member(0, SUSPECT, incarnation),)), 0.0)
    moments = []
    for _ in range(4):
        asked_s, ping = next_ping(machine)
        machine.receive(A.node, A.address, ProbeAck(ping.sequence), asked_s + 0.01)
        moments.append(asked_s)
    assert [later - earlier for earlier, later in pairwise(moments)] == pytest.approx([1.5, 1.0, 0.5])
