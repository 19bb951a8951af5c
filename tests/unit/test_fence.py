"""The fence: who was apart for nearly a day brings back no session whose logout may be forgotten."""

import pytest

from gossipsess.model.delta import changes_since, not_covered
from gossipsess.model.record import dead_record
from gossipsess.protocol import fence as fence_module
from gossipsess.protocol.events import LinkClosed, LinkOpened
from gossipsess.protocol.fence import FENCE_MS, INHERIT_AFTER_MS, Fence
from gossipsess.wire.messages import Hello, Push, PushAck, SyncAsk, SyncSums
from tests.unit.machines import BOB, CAROL, EPOCH_MS, SID, Clocked, record, registers, stamp

DAY_MS = 86_400_000
OLD = EPOCH_MS - 10 * DAY_MS


def old_fence() -> Fence:
    """Return the fence of a node that has run for ten days."""
    return Fence(OLD)


@pytest.mark.parametrize(("apart_ms", "fenced"), [(1_000, False), (FENCE_MS, False), (FENCE_MS + 1, True)])
def test_a_pair_that_was_apart_for_longer_than_the_fence_is_fenced(apart_ms, fenced):
    """Tombstones of an hour less are all still there."""
    fence = old_fence()
    fence.link_up(BOB, EPOCH_MS, EPOCH_MS)
    fence.synced(BOB, EPOCH_MS)
    fence.link_down(BOB, EPOCH_MS)
    assert fence.link_up(BOB, OLD, EPOCH_MS + apart_ms) is fenced


def test_two_that_never_met_are_as_far_apart_as_the_younger_is_old():
    """A newcomer has nothing that others forgot; but two halves of a cluster whose nodes were all restarted have."""
    assert not old_fence().link_up(BOB, EPOCH_MS - 1_000, EPOCH_MS)
    assert not Fence(EPOCH_MS - 1_000).link_up(BOB, OLD, EPOCH_MS)
    assert old_fence().link_up(BOB, OLD, EPOCH_MS)


def test_a_newcomer_becomes_as_old_as_those_whose_sessions_it_took_over_but_not_at_once():
    """Its other links come up in the same second as the first, and are no reunion."""
    fence = Fence(EPOCH_MS)
    assert not fence.link_up(BOB, OLD, EPOCH_MS)
    fence.synced(BOB, EPOCH_MS)
    assert fence.since_ms(EPOCH_MS + INHERIT_AFTER_MS - 1) == EPOCH_MS
    assert not fence.link_up(CAROL, OLD, EPOCH_MS + INHERIT_AFTER_MS - 1)
    assert fence.since_ms(EPOCH_MS + INHERIT_AFTER_MS) == OLD


def test_nobody_grows_younger_by_a_sync():
    """What it holds is as old as before."""
    fence = old_fence()
    fence.link_up(BOB, EPOCH_MS, EPOCH_MS)
    fence.synced(BOB, EPOCH_MS)
    assert fence.since_ms(EPOCH_MS + INHERIT_AFTER_MS) == OLD


def test_a_second_link_of_a_pair_is_no_reunion_and_does_not_lift_the_fence():
    """Both ends may dial at the same moment."""
    fence = old_fence()
    assert fence.link_up(BOB, OLD, EPOCH_MS)
    assert fence.link_up(BOB, OLD, EPOCH_MS)
    fence.synced(BOB, EPOCH_MS)
    assert not fence.link_up(BOB, OLD, EPOCH_MS + 2 * DAY_MS)


def test_a_link_that_breaks_before_its_sync_is_fenced_again():
    """Otherwise the second try would bring in what the first one kept out."""
    fence = old_fence()
    assert fence.link_up(BOB, OLD, EPOCH_MS)
    fence.link_down(BOB, EPOCH_MS)
    assert fence.link_up(BOB, OLD, EPOCH_MS)
    fence.synced(BOB, EPOCH_MS)
    fence.link_down(BOB, EPOCH_MS)
    assert not fence.link_up(BOB, OLD, EPOCH_MS)


def test_who_is_forgotten_among_too_many_counts_as_never_met(monkeypatch):
    """Memory is bounded, and the fence errs toward a login too many."""
    monkeypatch.setattr(fence_module, "PARTED_MAX", 1)
    fence = old_fence()
    for node in (BOB, CAROL):
        fence.link_up(node, OLD, OLD)
        fence.link_down(node, EPOCH_MS)
    assert not fence.link_up(CAROL, OLD, EPOCH_MS)
    assert fence.link_up(BOB, OLD, EPOCH_MS)


def test_only_whole_old_live_records_are_refused_and_only_over_a_fenced_link():
    """A young session's tombstone would still be here; a delta over a base is asked for as a whole first."""
    fence = old_fence()
    old = record((stamp(-2 * DAY_MS), BOB, registers()), (stamp(-5), BOB, {"user": b"kim"}))
    young = record((stamp(5 - FENCE_MS), BOB, registers()))
    base = record((stamp(-2 * DAY_MS), BOB, registers()))
    fence.link_up(BOB, OLD, EPOCH_MS)
    assert fence.refuses(BOB, not_covered(old, {}), EPOCH_MS)
    assert fence.refuses(BOB, not_covered(record((stamp(0), BOB, {"user": b"kim"})), {}), EPOCH_MS), "no creation"
    assert not fence.refuses(BOB, not_covered(young, {}), EPOCH_MS)
    assert not fence.refuses(BOB, changes_since(old, base), EPOCH_MS)
    assert not fence.refuses(BOB, not_covered(dead_record(SID, stamp(0)), {}), EPOCH_MS)
    fence.synced(BOB, EPOCH_MS)
    assert not fence.refuses(BOB, not_covered(old, {}), EPOCH_MS)


def agrees(here: Clocked, link: int) -> None:
    """Let the peer behind a link answer that it holds the same: the sync ends."""
    asks = [message for message in here.says() if isinstance(message, SyncAsk)]
    here.hears(SyncSums(asks[-1].round, (), True), link)


def reunited() -> Clocked:
    """Return a node that was linked to Carol, and to Bob until two days ago; now Bob is back."""
    here = Clocked().alone().linked(BOB)
    agrees(here, 1)
    here.node.submit(LinkClosed(1))
    here.waits(2 * 86_400.0)
    here.linked(CAROL, 2, since_ms=EPOCH_MS)  # her data is as old as the cluster's, and she has just synced with it
    agrees(here, 2)
    here.linked(BOB, 3)
    here.does()
    return here


def test_what_is_refused_is_answered_by_a_tombstone_that_goes_to_everybody():
    """Bob must lose his copy, and so must whoever he gave it to; and his own writer must not call it confirmed."""
    here = reunited()
    old = record((stamp(0), BOB, registers(idle_ms=30 * DAY_MS, absolute_ms=30 * DAY_MS)))
    here.hears(Push(1, (not_covered(old, {}),)), 3)
    said = here.says()
    assert [type(message) for message in said][-1] is PushAck
    assert here.node.records[SID].tombstone > old.newest
    deaths = [message for message in said if isinstance(message, Push)]
    here.waits(0.0)
    deaths += [message for message in here.says() if isinstance(message, Push)]
    assert [delta.tombstone for push in deaths for delta in push.deltas] == 2 * [here.node.records[SID].tombstone]
    assert here.replica.sessions.fenced == 1


def test_a_session_that_is_held_here_is_merged_as_ever_after_a_reunion():
    """Nobody logged it out: it would be dead here."""
    here = reunited()
    old = record((stamp(0), BOB, registers(idle_ms=30 * DAY_MS, absolute_ms=30 * DAY_MS)))
    here.hears(Push(1, (not_covered(old, {}),)), 2)
    newer = old.written([("user", b"kim")], stamp(2 * DAY_MS), BOB)
    here.hears(Push(1, (not_covered(newer, {}),)), 3)
    assert here.node.records[SID].state_hash == newer.state_hash


def test_a_sync_that_finds_all_equal_lifts_the_fence():
    """Nothing more comes of it; what the peer writes next would be ended as a session that was logged out."""
    here = reunited()
    old = record((stamp(0), BOB, registers(idle_ms=30 * DAY_MS, absolute_ms=30 * DAY_MS)))
    here.node.submit(LinkClosed(3))
    here.linked(BOB, 4)
    agrees(here, 4)
    here.hears(Push(1, (not_covered(old, {}),)), 4)
    assert here.node.records[SID].state_hash == old.state_hash
    assert here.replica.sessions.fenced == 0


def test_a_greeting_says_how_old_the_data_is():
    """The peer has no other way to tell a newcomer from a node that comes back."""
    here = Clocked()
    here.now_s += 5
    here.node.submit(LinkOpened(1, BOB, None))
    (hello,) = here.says()
    assert isinstance(hello, Hello)
    assert hello.since_ms == EPOCH_MS
