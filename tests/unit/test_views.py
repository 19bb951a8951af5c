"""When two nodes tell each other everyone they know."""

import random
from itertools import pairwise

import pytest

from gossipsess.model.member import MemberState, Told
from gossipsess.protocol.effects import Send, SendDatagram
from gossipsess.protocol.events import Leave, LinkOpened, Received, ReceivedDatagram
from gossipsess.protocol.placement import Placement, Rules
from gossipsess.protocol.views import JITTER, MEMBER_SYNC_EVERY_S, MEMBER_SYNC_PEER_S, Views
from gossipsess.wire.messages import Hello, Members, Ping, ProbeAck
from tests.unit.machines import ALICE, BOB, CAROL, Clocked, exchange, member


def tag(*nodes: bytes) -> int:
    """Return what the probes of a node show that sees these."""
    placement = Placement(member(nodes[0]), Rules(), 0.0)
    placement.view_changed([member(node) for node in nodes], (), 0.0)
    return placement.layout.tag


MINE, OTHER = tag(ALICE, BOB), tag(ALICE, CAROL)


def views() -> Views:
    return Views(rng=random.Random(1), now_s=0.0)


def test_a_view_that_differs_twice_in_succession_is_looked_into():
    """Once is news on its way."""
    mine = views()
    assert [mine.heard(BOB, shown, MINE, at) for shown, at in ((OTHER, 1.0), (MINE, 1.5), (OTHER, 2.0))] == [False] * 3
    assert mine.heard(CAROL, OTHER, MINE, 2.1) is False, "one peer's first is not another's second"
    assert mine.heard(BOB, OTHER, MINE, 2.5) is True


def test_a_standing_difference_asks_once_in_five_seconds():
    """While two judge a third differently, every probe shows it; a list each time would be a flood."""
    mine = views()
    asked = [at / 10 for at in range(300) if mine.heard(BOB, OTHER, MINE, at / 10)]
    assert len(asked) == 6
    assert all(later - earlier >= MEMBER_SYNC_PEER_S for earlier, later in pairwise(asked))


def test_each_minute_one_linked_peer_is_asked_without_a_reason():
    """Who missed a death of long ago has the same live members, and no probe shows it."""
    mine, asked = views(), []
    while (due_s := mine.next_deadline()) < 3600:
        peer = mine.timeout((CAROL, BOB), due_s)
        assert peer is not None
        asked.append((due_s, peer))
    assert 3600 / MEMBER_SYNC_EVERY_S / (1 + JITTER) <= len(asked) <= 3600 / MEMBER_SYNC_EVERY_S / (1 - JITTER)
    assert {peer for _, peer in asked} == {BOB, CAROL}
    assert mine.timeout((), mine.next_deadline()) is None


def test_a_peer_that_was_gone_is_a_new_one():
    """Its first difference after it came back is news on its way, and an exchange may follow at once."""
    mine = views()
    mine.heard(BOB, OTHER, MINE, 1.0)
    mine.gone(BOB)
    assert mine.heard(BOB, OTHER, MINE, 2.0) is False
    assert mine.heard(BOB, OTHER, MINE, 2.1) is True
    mine.gone(BOB)
    assert mine.exchange(BOB, 2.2) is True


# --- as a node does it --------------------------------------------------------------------------------------


def pinged(here: Clocked, by: bytes, view: int) -> None:
    here.node.submit(ReceivedDatagram(by, here.me.address, Ping(1, here.me.node, (), view)))


def asks(here: Clocked) -> list[bool]:
    """Say after which of two probes that show another view Bob's list is asked for."""
    asked = []
    for _ in range(2):
        here.does()
        pinged(here, BOB, OTHER)
        asked.append(any(isinstance(message, Members) for message in here.says()))
    return asked


def test_a_node_shows_its_view_in_every_probe_and_every_answer():
    """Only what is shown can be compared."""
    here = Clocked()
    shown = []
    for linked in (False, True):
        if linked:
            here.linked(BOB)
        here.waits(1.0)
        pinged(here, BOB, 0)
        probes = [effect.message for effect in here.does() if isinstance(effect, SendDatagram)]
        shown.append({(type(probe), probe.view) for probe in probes if isinstance(probe, Ping | ProbeAck)})
    alone, both = tag(ALICE), tag(ALICE, BOB)
    assert shown == [{(ProbeAck, alone)}, {(ProbeAck, both), (Ping, both)}]


def test_a_node_asks_the_peer_whose_view_differs_and_learns_whom_it_missed():
    """The rumour of Carol was lost on its way to Alice; nobody would ever send it again."""
    one, other = Clocked(ALICE).linked(BOB), Clocked(BOB).linked(ALICE)
    other.replica.swim.heard_members([Told(member(CAROL, port=7951))], 100.0)
    one.does()
    other.does()
    for _ in range(2):
        pinged(one, BOB, tag(ALICE, BOB, CAROL))
    assert [message for message in one.says() if isinstance(message, Members)] == [
        Members((Told(one.me), Told(member(BOB))), reply=True)
    ]
    other.hears(Members((Told(one.me), Told(member(BOB))), reply=True))
    exchange(one, other)
    assert one.replica.swim.view.get(CAROL) == member(CAROL, port=7951)


def test_a_list_is_answered_once_and_an_answer_never():
    """A notice that answers a notice goes round and round."""
    here = Clocked().linked(BOB)
    here.does()
    here.hears(Members((Told(member(BOB)),), reply=False))
    assert here.says() == []
    for _ in range(3):
        here.hears(Members((Told(member(BOB)),), reply=True))
    assert here.says() == [Members((Told(here.me), Told(member(BOB))), reply=False)]
    here.now_s += MEMBER_SYNC_PEER_S
    here.hears(Members((Told(member(BOB)),), reply=True))
    assert [message.reply for message in here.says()] == [False]


def test_who_is_not_linked_is_not_compared_with():
    """A stranger's probe, or a replayed one, must not make this node send anything, nor remember anything."""
    here = Clocked()
    for _ in range(5):
        pinged(here, BOB, OTHER)
    assert here.says() == []
    here.linked(BOB)
    assert asks(here) == [False, True]


def test_a_peer_that_came_back_is_compared_with_anew():
    """What it missed while it was away is the likeliest difference of all, and no reason to wait five seconds."""
    here = Clocked().linked(BOB)
    assert asks(here) == [False, True]
    here.loses()
    assert here.replica.swim.view.live() == ()
    here.node.submit(LinkOpened(2, BOB, None))
    here.hears(Hello(member(BOB)._replace(incarnation=1), 0, ()), link=2)
    assert asks(here) == [False, True]


def test_who_leaves_tells_no_lists():
    """Its own record says that it has left, and all it knows the others know."""
    here = Clocked().linked(BOB)
    here.node.submit(Leave())
    here.does()
    assert asks(here) == [False, False]


@pytest.mark.parametrize("state", [MemberState.DEAD, MemberState.SUSPECT])
def test_a_death_told_in_a_list_is_a_suspicion(state):
    """The list may be older than the refutation: the usual time to refute runs."""
    here = Clocked().linked(BOB)
    here.node.submit(LinkOpened(2, CAROL, None))
    here.node.submit(Received(2, Hello(member(CAROL, port=7951), 0, ())))
    here.hears(Members((Told(member(CAROL, port=7951)._replace(state=state)),), reply=False))
    held = here.replica.swim.view.get(CAROL)
    assert held is not None
    assert held.state is MemberState.SUSPECT
    assert [effect for effect in here.does() if isinstance(effect, Send) and isinstance(effect.message, Members)] == []
