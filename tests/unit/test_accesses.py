"""Accesses are owed to each peer until it has taken them, one batch at a time; where nobody reads nothing is sent."""

from itertools import pairwise

import pytest

from gossipsess.model.delta import not_covered
from gossipsess.model.table import Table
from gossipsess.protocol import expiry
from gossipsess.protocol.events import Accessed, Invalidate, LinkClosed, LinkOpened
from gossipsess.protocol.expiry import AGAIN_AFTER_MAX_S, AGAIN_AFTER_S, EVERY_S, TOUCHES_PER_MESSAGE, Accesses, Expiry
from gossipsess.protocol.placement import partition_of
from gossipsess.wire.messages import Hello, Push, Touch, TouchAck
from tests.unit.machines import ALICE, BOB, CAROL, EPOCH_MS, SID, Clocked, member, registers, stamp

OTHER = b"another-16-bytes"
FIRST_MS, SECOND_MS = EPOCH_MS + 10_000, EPOCH_MS + 20_000


def table_with(*sids: bytes) -> Table:
    table = Table()
    for sid in sids:
        table.write(sid, registers().items(), stamp(0), ALICE, 0.0)
    return table


BOTH = table_with(SID, OTHER)


def owed() -> Accesses:
    """Return what a peer is owed after one access."""
    made = Accesses()
    made.owe({SID: FIRST_MS})
    return made


def test_nothing_is_sent_when_nobody_reads():
    """An idle cluster is silent."""
    accesses = Accesses()
    assert accesses.batch(BOTH, 0.0) is None
    accesses.owe({})
    assert accesses.batch(BOTH, 1.0) is None


def test_an_acknowledged_batch_is_not_sent_again():
    """Each access costs one message and its answer."""
    accesses = owed()
    assert accesses.batch(BOTH, 0.0) == Touch(1, ((SID, FIRST_MS),))
    accesses.acknowledged(TouchAck(1))
    assert accesses.batch(BOTH, 100.0) is None


def test_one_batch_is_on_its_way_and_what_gathers_meanwhile_coalesces():
    """A peer that takes nothing is owed one number a session, however long and often it is used."""
    accesses = owed()
    accesses.batch(BOTH, 0.0)
    for number in range(100):
        accesses.owe({SID: SECOND_MS + number, OTHER: SECOND_MS + number})
        assert accesses.batch(BOTH, 0.5) is None
    accesses.acknowledged(TouchAck(1))
    assert accesses.batch(BOTH, 0.5) == Touch(2, ((SID, SECOND_MS + 99), (OTHER, SECOND_MS + 99)))
    accesses.acknowledged(TouchAck(2))
    assert accesses.batch(BOTH, 0.6) is None


def test_a_batch_without_an_answer_is_sent_again_later_and_later():
    """A peer that is overloaded is not helped by more of the same."""
    accesses, sent_at_s = owed(), []
    for second in range(200):
        if accesses.batch(BOTH, float(second)) is not None:
            sent_at_s.append(second)
    waits = [later - earlier for earlier, later in pairwise(sent_at_s)]
    assert AGAIN_AFTER_S == 1.0
    assert waits[:6] == [1, 2, 4, 8, 16, AGAIN_AFTER_MAX_S]
    assert waits[-1] == AGAIN_AFTER_MAX_S


def test_after_an_answer_the_next_batch_does_not_wait_as_long_as_the_last_did():
    """The peer is well again."""
    accesses = owed()
    for second in (0.0, 1.0, 3.0):
        assert accesses.batch(BOTH, second) is not None
    accesses.acknowledged(TouchAck(3))
    accesses.owe({SID: SECOND_MS})
    assert accesses.batch(BOTH, 4.0) is not None
    assert accesses.batch(BOTH, 4.0 + AGAIN_AFTER_S) is not None


def test_what_is_sent_again_is_the_latest_that_is_known():
    """The greatest wins anyway, and the session would end sooner by the older."""
    accesses = owed()
    accesses.batch(BOTH, 0.0)
    accesses.owe({SID: SECOND_MS, OTHER: SECOND_MS})
    assert accesses.batch(BOTH, AGAIN_AFTER_S) == Touch(2, ((SID, SECOND_MS), (OTHER, SECOND_MS)))


def test_a_late_answer_to_what_was_sent_again_acknowledges_nothing():
    """What was added meanwhile was not in it."""
    accesses = owed()
    accesses.batch(BOTH, 0.0)
    accesses.owe({OTHER: SECOND_MS})
    accesses.batch(BOTH, AGAIN_AFTER_S)
    accesses.acknowledged(TouchAck(1))
    again = accesses.batch(BOTH, 10.0)
    assert again is not None
    assert dict(again.accesses) == {SID: FIRST_MS, OTHER: SECOND_MS}


def test_what_was_on_a_link_that_broke_is_owed_again_at_once():
    """It may have been lost with it; and a new link need not wait for the old one's patience."""
    accesses = owed()
    for second in (0.0, 1.0, 3.0):
        accesses.batch(BOTH, second)
    accesses.owe({OTHER: SECOND_MS})
    accesses.link_down()
    again = accesses.batch(BOTH, 3.1)
    assert again == Touch(4, ((SID, FIRST_MS), (OTHER, SECOND_MS)))
    assert accesses.batch(BOTH, 3.1 + AGAIN_AFTER_S) is not None


def test_a_newer_access_is_not_undone_by_a_link_that_breaks():
    """What is owed again is older than what has gathered."""
    accesses = owed()
    accesses.batch(BOTH, 0.0)
    accesses.owe({SID: SECOND_MS})
    accesses.link_down()
    assert accesses.batch(BOTH, 0.1) == Touch(2, ((SID, SECOND_MS),))


@pytest.mark.parametrize("under_way", [False, True], ids=["owed", "on its way"])
def test_a_session_that_is_over_is_forgotten(under_way):
    """A peer that takes nothing would make them gather for ever."""
    accesses = owed()
    if under_way:
        accesses.batch(BOTH, 0.0)
    accesses.forget(SID)
    assert not accesses._owed
    assert not accesses._under_way
    assert accesses.batch(BOTH, 10.0) is None
    accesses.owe({OTHER: SECOND_MS})
    assert accesses.batch(BOTH, 10.0) is not None, "a batch of which nothing is left holds nothing up"


def test_what_is_not_held_any_more_or_is_dead_is_not_told():
    """Nobody could make anything of it."""
    table = table_with(OTHER)
    table.kill(OTHER, stamp(1), 0.0)
    accesses = owed()
    accesses.owe({OTHER: SECOND_MS})
    assert accesses.batch(table, 0.0) is None


def test_more_than_one_batch_go_one_after_the_other():
    """A message has a bounded size, and the link's other traffic its turn."""
    sids = [number.to_bytes(16, "big") for number in range(2 * TOUCHES_PER_MESSAGE + 1)]
    table, accesses = table_with(*sids), Accesses()
    accesses.owe(dict.fromkeys(sids, FIRST_MS))
    told: list[bytes] = []
    for size in (TOUCHES_PER_MESSAGE, TOUCHES_PER_MESSAGE, 1):
        touch = accesses.batch(table, 0.0)
        assert len(touch.accesses) == size
        assert accesses.batch(table, 0.0) is None
        told += [sid for sid, _ in touch.accesses]
        accesses.acknowledged(TouchAck(touch.sequence))
    assert told == sids
    assert accesses.batch(table, 0.0) is None


def test_a_batch_of_what_is_not_held_any_more_does_not_hide_the_next(monkeypatch):
    """The rest would wait for a second, or for ever where nobody reads on."""
    monkeypatch.setattr(expiry, "TOUCHES_PER_MESSAGE", 2)
    accesses = Accesses()
    accesses.owe({bytes([number]) * 16: FIRST_MS for number in range(4)} | {SID: FIRST_MS})
    assert accesses.batch(BOTH, 0.0) == Touch(1, ((SID, FIRST_MS),))


# --- as a whole -------------------------------------------------------------------------------------------


def holder(*peers: bytes) -> Clocked:
    """Return a node that holds `SID` and `OTHER`, linked to these peers."""
    here = Clocked().alone()
    for link, peer in enumerate(peers, 1):
        here.linked(peer, link)
    for sid in (SID, OTHER):
        here.replica.sessions.table.write(sid, registers(idle_ms=600_000).items(), stamp(0), BOB, here.now_s)
    here.says()
    return here


def uses(here: Clocked, sid: bytes = SID) -> None:
    """Use a session after so long that it is news, and let the second pass in which it is told."""
    here.now_s += 60.0
    here.node.submit(Accessed(sid))
    here.waits(0.0)


def touches(here: Clocked) -> list[Touch]:
    return [message for message in here.says() if isinstance(message, Touch)]


def test_an_access_is_acknowledged_by_who_hears_of_it():
    """Also where the session is not held: it need not be told again."""
    here = holder(BOB)
    here.hears(Touch(7, ((SID, EPOCH_MS), (b"no-such-16-bytes", EPOCH_MS))))
    assert TouchAck(7) in here.says()


def test_an_access_that_is_told_before_the_session_came_counts_when_it_comes():
    """Who becomes a holder hears of accesses at once and of the session later, from somebody who may know of none."""
    here = Clocked().alone().linked(BOB)
    here.now_s += 50.0
    here.hears(Touch(1, ((SID, EPOCH_MS + 45_000), (OTHER, EPOCH_MS))))
    here.hears(Touch(2, ((SID, EPOCH_MS + 30_000),)))
    here.hears(Push(1, (not_covered(table_with(SID).get(SID), {}),)))
    table = here.replica.sessions.table
    assert table.life(table.get(SID)).accessed_ms == EPOCH_MS + 45_000
    assert OTHER not in table.accesses


def test_of_accesses_to_what_is_not_held_the_oldest_make_room(monkeypatch):
    """A peer could tell of any number of them."""
    monkeypatch.setattr(expiry, "EARLY_MAX", 2)
    heard = Expiry(0.0)
    for number in (1, 2, 1, 3):
        heard.told(bytes([number]) * 16, BOTH, number)
    assert [heard.told_early_ms(bytes([number]) * 16) for number in (1, 2, 3)] == [1, 0, 3]


def test_the_next_batch_leaves_with_the_answer_to_the_last(monkeypatch):
    """At one batch a second a node with very many readers would fall behind for good."""
    monkeypatch.setattr(expiry, "TOUCHES_PER_MESSAGE", 1)
    here = holder(BOB)
    here.now_s += 60.0
    for sid in (SID, OTHER):
        here.node.submit(Accessed(sid))
    here.waits(0.0)
    (first,) = touches(here)
    here.hears(TouchAck(first.sequence))
    (second,) = touches(here)
    assert {sid for sid, _ in (*first.accesses, *second.accesses)} == {SID, OTHER}
    here.hears(TouchAck(second.sequence))
    assert touches(here) == []


def test_each_peer_is_told_until_it_has_acknowledged():
    """That one has heard says nothing of the other."""
    here = holder(BOB, CAROL)
    uses(here)
    assert len(touches(here)) == 2
    here.hears(TouchAck(1), 1)
    here.waits(EVERY_S)
    assert touches(here) == [Touch(2, ((SID, EPOCH_MS + 60_000),))]


def test_what_was_on_a_link_that_broke_leaves_with_the_next_one():
    """Told once, the session in use would end where it was not heard of."""
    here = holder(BOB)
    uses(here)
    assert len(touches(here)) == 1
    here.node.submit(LinkClosed(1))
    here.does()
    here.linked(BOB, 2)
    assert touches(here) == [Touch(2, ((SID, EPOCH_MS + 60_000),))]


def test_a_peer_that_died_and_is_back_is_told_of_all_that_were_used():
    """Its copies may have gone through a partition; equal states are not pulled, and accesses are no part of them."""
    here = holder(BOB)
    uses(here)
    here.does()
    here.hears(TouchAck(1))
    here.loses()
    assert not here.replica.sessions.peers
    here.waits(5.0)
    here.does()
    here.node.submit(LinkOpened(2, BOB, None))
    here.hears(Hello(member(BOB)._replace(incarnation=9), 0, ()), 2)
    assert touches(here) == [Touch(1, ((SID, EPOCH_MS + 60_000),))]


def test_a_peer_that_is_back_is_told_of_what_it_is_to_hold():
    """Where others hold the rest, it is a holder again only after it has become a member again."""
    here = Clocked().linked(BOB).linked(CAROL, 2).linked(b"dave....", 3).linked(b"erin....", 4)
    sids = [bytes([number]) * 16 for number in range(200)]
    for sid in sids:
        here.replica.sessions.table.write(sid, registers(idle_ms=600_000).items(), stamp(0), BOB, here.now_s)
        here.replica.sessions.table.touch(sid, EPOCH_MS + 60_000)
    here.loses()
    here.does()
    here.node.submit(LinkOpened(5, BOB, None))
    here.hears(Hello(member(BOB)._replace(incarnation=9), 0, ()), 5)
    told = [sid for message in touches(here) for sid, _ in message.accesses]
    layout = here.replica.placement.layout
    assert not layout.all_to_all
    assert set(told) >= {sid for sid in sids if layout.holds(BOB, partition_of(sid))}


def test_who_has_just_come_is_told_of_what_it_is_to_hold():
    """Its records may come from who knows of no access, and a session in use would end at one of its holders."""
    here = Clocked().linked(BOB).linked(CAROL, 2).linked(b"dave....", 3)
    sids = [bytes([number]) * 16 for number in range(200)]
    for sid in sids:
        here.replica.sessions.table.write(sid, registers(idle_ms=600_000).items(), stamp(0), BOB, here.now_s)
        here.replica.sessions.table.touch(sid, EPOCH_MS + 60_000)
    here.does()
    here.linked(b"erin....", 4)
    told = [sid for message in touches(here) for sid, _ in message.accesses]
    layout = here.replica.placement.layout
    assert not layout.all_to_all
    assert sorted(told) == [sid for sid in sids if layout.holds(b"erin....", partition_of(sid))]


def test_a_session_that_has_ended_is_told_of_no_more():
    """The batch on its way is repeated for as long as the peer is silent."""
    here = holder(BOB)
    uses(here)
    here.says()
    here.node.submit(LinkClosed(1))
    here.node.submit(Invalidate(SID, 0, lambda outcome: None))
    here.does()
    here.linked(BOB, 2)
    assert touches(here) == []


def test_a_session_that_expires_is_owed_to_no_peer_any_more():
    """A peer without a link keeps them all, and each of them will end some day."""
    here = Clocked().alone().linked(BOB)
    here.replica.sessions.table.write(SID, registers(idle_ms=1_000).items(), stamp(0), BOB, here.now_s)
    here.node.submit(LinkClosed(1))
    here.now_s += 0.5
    here.node.submit(Accessed(SID))
    here.waits(EVERY_S)
    peer = here.replica.sessions.peers[BOB]
    assert peer.accesses._owed == {SID: EPOCH_MS + 500}
    here.waits(2.0)
    assert SID not in here.node.records
    assert not peer.accesses._owed
