"""The fence: who was apart for nearly a day brings back no session whose logout may be forgotten."""

from collections.abc import Callable
from itertools import combinations, permutations

import pytest

from gossipsess.model import table as table_module
from gossipsess.model.delta import changes_since, not_covered
from gossipsess.model.member import Told
from gossipsess.model.record import USER, dead_record
from gossipsess.model.revocation import rotated_value, user_value
from gossipsess.protocol import fence as fence_module
from gossipsess.protocol.events import DialFailed, Fetch, Invalidate, LinkClosed, LinkOpened, Rotate, Write
from gossipsess.protocol.fence import FENCE_MS, INHERIT_AFTER_MS, Fence
from gossipsess.protocol.outcomes import Found
from gossipsess.protocol.placement import partition_of
from gossipsess.wire.messages import Hello, Members, Push, PushAck, SyncAsk, SyncSums
from tests.unit.cluster import Cluster, Said
from tests.unit.machines import BOB, CAROL, EPOCH_MS, SID, Clocked, member, record, registers, stamp

DAY_MS = 86_400_000
OLD = EPOCH_MS - 10 * DAY_MS
DAVE = b"dave...."
LONG_LIVED = record((stamp(0), BOB, registers(idle_ms=30 * DAY_MS, absolute_ms=30 * DAY_MS)))


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


def test_a_rotation_does_not_make_a_login_young():
    """The user's revocation may be as old as the login, and forgotten; the node that rotated had not heard of it."""
    fence = old_fence()
    fence.link_up(BOB, OLD, EPOCH_MS)
    login = record((stamp(-2 * DAY_MS), BOB, {USER: user_value("kim")})).entries[USER]
    for moved, refused in ((rotated_value(USER, login), True), (user_value("kim"), False)):
        rotated = record((stamp(-DAY_MS // 2), BOB, {**registers(), USER: moved}))
        assert fence.refuses(BOB, not_covered(rotated, {}), EPOCH_MS) is refused


def joined(own_ms: int, met_ms: int) -> Fence:
    """Return the fence of a node that joined Bob's, started then, and heard when he was in touch with Carol."""
    fence = Fence(own_ms)
    fence.link_up(BOB, OLD, own_ms)
    fence.synced(BOB, own_ms)
    fence.met([(CAROL, met_ms)])
    return fence


@pytest.mark.parametrize(("met_ms", "fenced"), [(EPOCH_MS - 600_000, False), (EPOCH_MS - 2 * DAY_MS, True)])
def test_a_newcomer_was_apart_from_the_others_as_long_as_those_it_joined(met_ms, fenced):
    """Else a partition of minutes, in which a node starts, would end each old session that one side does not hold."""
    fence = joined(EPOCH_MS - 300_000, met_ms)
    assert fence.apart_ms(CAROL, EPOCH_MS) == EPOCH_MS - met_ms
    assert fence.link_up(CAROL, OLD, EPOCH_MS) is fenced
    assert fence.apart_ms(CAROL, EPOCH_MS) == (EPOCH_MS - met_ms if fenced else 0)


def test_what_a_list_says_of_old_times_does_not_undo_a_later_meeting():
    """A peer that was apart from Carol for longer knows less than this node."""
    fence = joined(EPOCH_MS - 300_000, EPOCH_MS - 600_000)
    fence.met([(CAROL, EPOCH_MS - 2 * DAY_MS)])
    assert fence.apart_ms(CAROL, EPOCH_MS) == 600_000


def test_a_newcomer_does_not_say_that_it_was_in_touch_at_its_start_with_whom_it_never_met():
    """Its peers would believe it, and let somebody in unfenced from whom they were apart for days."""
    assert Fence(EPOCH_MS).apart_ms(CAROL, EPOCH_MS + 1_000) > 10 * 365 * DAY_MS


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


def hello(peer: bytes, here: Clocked, *told: Told) -> Hello:
    return Hello(member(peer), stamp(0) + (int(here.now_s - 100) * 1000 << 16), told, OLD)


@pytest.mark.parametrize(("list_of_link", "fenced"), [(2, False), (1, True)])
def test_whom_a_peer_has_met_counts_unless_its_own_link_is_fenced(list_of_link, fenced):
    """At a reunion the other side's first greeting names all of that side; none of them has been in touch with us."""
    here = Clocked().alone().linked(CAROL, 2)
    agrees(here, 2)
    here.waits(2 * 86_400.0)
    here.node.submit(LinkOpened(1, BOB, None))
    here.hears(hello(BOB, here))
    here.hears(Members((Told(member(DAVE, port=7953), 0, 5),), reply=False), list_of_link)
    here.node.submit(LinkOpened(3, DAVE, None))
    here.hears(hello(DAVE, here), 3)
    here.hears(Push(1, (not_covered(LONG_LIVED, {}),)), 3)
    assert here.replica.sessions.fenced == fenced


def test_a_newcomer_says_when_its_side_was_in_touch_with_this_node():
    """Carol joined Bob while he was cut off from here. Here nobody knows her, and her sessions are as old as his."""
    outcomes = []
    for apart_s in (600, 2 * 86_400):
        here = Clocked().alone()
        here.waits(2 * 86_400.0)
        here.node.submit(LinkOpened(1, CAROL, None))
        here.hears(hello(CAROL, here, Told(here.me, 0, apart_s)))
        here.hears(Push(1, (not_covered(LONG_LIVED, {}),)))
        outcomes.append(here.replica.sessions.fenced)
    assert outcomes == [0, 1]


def test_lists_tell_how_long_ago_the_last_link_was_also_of_who_is_live():
    """A node is live again by one datagram, before anybody has looked at its sessions."""
    here = Clocked().alone().linked(BOB).linked(CAROL, 2)
    agrees(here, 1)
    here.node.submit(LinkClosed(1))
    here.waits(3590.0)
    here.waits(10.0)  # the list of each minute was told before
    here.does()
    here.hears(Members((Told(member(CAROL)),), reply=True), 2)
    (said,) = [message for message in here.says() if isinstance(message, Members) and not message.reply]
    assert {told.member.node: told.apart_s for told in said.members} == {here.me.node: 0, BOB: 3600, CAROL: 0}


def test_a_greeting_says_how_old_the_data_is():
    """The peer has no other way to tell a newcomer from a node that comes back."""
    here = Clocked()
    here.now_s += 5
    here.node.submit(LinkOpened(1, BOB, None))
    (said,) = here.says()
    assert isinstance(said, Hello)
    assert said.since_ms == EPOCH_MS


# --- the sides of a cluster, where not every node holds every session -----------------------------------------


class Sides(Cluster):
    """Six nodes, of which three are cut off from the others for a while."""

    def __init__(self) -> None:
        self.apart: tuple[bytes, ...] = ()
        self.is_late: Callable[[Said], bool] = lambda said: False
        super().__init__(*[b"node-%d.." % number for number in range(6)])
        self.is_lost = lambda said: self.are_parted(said.sender, said.hearer) or self.is_late(said)
        self.passes(2.0)

    def are_parted(self, one: bytes, other: bytes) -> bool:
        return (one in self.apart) != (other in self.apart)

    def part(self, *side: bytes) -> None:
        """Cut these off, until each side takes the other for dead."""
        self.apart = side
        for one, other in permutations(self.ids, 2):
            if self.are_parted(one, other):
                self[one].node.submit(LinkClosed(self.link(other)))
                self[one].node.submit(DialFailed(self[other].me.address, refused=True))
        self.carry()
        assert all(len(here.replica.swim.view.live()) == 2 for here in self.nodes.values())

    def meet(self) -> None:
        """Let the sides see each other again; their links are not up yet."""
        self.apart = ()
        while not all(len(here.replica.swim.view.live()) == 5 for here in self.nodes.values()):
            self.passes(0.5, 0.1)

    def link_up(self, *pairs: tuple[bytes, bytes]) -> None:
        for pair in pairs or combinations(self.ids, 2):
            for one, other in (pair, pair[::-1]):
                if other not in self[one].replica.linked:
                    self[one].node.submit(LinkOpened(self.link(other), other, None))
        self.carry()

    def alive_at(self, sid: bytes) -> list[bytes]:
        return [node for node in self.holding(sid) if not self[node].node.records[sid].tombstone]

    def tells(self, teller: bytes, hearer: bytes, message: object) -> None:
        if not self.are_parted(teller, hearer):
            super().tells(teller, hearer, message)


@pytest.fixture
def sides(monkeypatch) -> Sides:
    """Return a cluster in which a minute apart is a long time."""
    monkeypatch.setattr(fence_module, "FENCE_MS", 40_000)
    monkeypatch.setattr(table_module, "TOMBSTONE_MS", 45_000)
    return Sides()


def test_a_logout_of_which_no_holder_has_heard_is_not_undone_when_sides_meet(sides):
    """Both holders may come from the side that knows nothing of it, and nobody remembers it any more."""
    side = sides.ids[:3]
    sid = next(sid for sid in sides.sids() if not {*side} & {*sides.ranking(sid)[:2]})
    sides.write(sides.ids[3], sid, idle_ms=3_600_000)
    sides.passes(1.0)
    sides.part(*side)
    sides[side[0]].node.submit(Invalidate(sid, "all", print))
    sides.passes(60.0, 0.5)
    assert not {*side} & {*sides.holding(sid)}, "nobody of this side remembers"
    sides.meet()
    sides.link_up()
    sides.passes(20.0, 0.1)
    assert sides.alive_at(sid) == []


def test_a_session_that_both_sides_know_does_not_end_when_a_node_without_it_reads_it(sides):
    """That this node does not hold it, where it is not to, says nothing."""
    side = sides.ids[:3]
    sid = next(
        sid for sid in sides.sids() if sides.ranking(sid)[0] == sides.ids[3] and sides.ranking(sid)[1] in side[:2]
    )
    sides.write(sides.ids[3], sid, idle_ms=3_600_000)
    sides.passes(1.0)
    sides.part(*side)
    sides.passes(60.0, 0.5)
    holding = sides.alive_at(sid)
    (reader,) = [node for node in side if node not in holding]
    assert sides.ids[3] in holding
    sides.meet()
    sides.is_late = lambda said: isinstance(said.message, SyncSums)  # the fence stands
    sides.link_up((reader, sides.ids[3]))
    found: list[object] = []
    found.append(sides[reader].node.submit(Fetch(sid, (), found.append)))
    sides.passes(0.3, 0.01)
    assert Found.FRESH in found, "from its own side"
    assert reader in sides.alive_at(sid)
    sides.is_late = lambda said: False
    sides.link_up()
    sides.passes(20.0, 0.1)
    assert {*sides.ranking(sid)[:2]} <= {*sides.alive_at(sid)}
    assert all(here.replica.sessions.fenced == 0 for here in sides.nodes.values())


def test_a_login_that_is_rotated_while_sides_meet_stays_though_it_is_old(sides):
    """The new id is unknown to who held its partition until just now, and is not to any more: that says nothing."""
    side, others = sides.ids[:3], sides.ids[3:]
    old = sides.sid(others[0], side[0])
    begins = (*registers(idle_ms=3_600_000).items(), (USER, user_value("kim")))
    sides[side[0]].node.submit(Write(old, begins, 1, print))
    sides.passes(1.0)
    sides.part(*side)
    sides.passes(60.0, 0.5)
    held = {node: sides[node].replica.placement.layout.partitions_of(node) for node in side}
    sides.meet()
    new = next(
        sid
        for sid in sides.sids()
        if {*sides.ranking(sid)[:2]} <= {*others} and any(held[node] >> partition_of(sid) & 1 for node in side)
    )
    sides.is_late = lambda said: isinstance(said.message, SyncSums) and said.hearer in side and said.sender in others
    sides.link_up()
    sides.passes(0.5, 0.1)
    rotating = next(node for node in side if node in sides.alive_at(old))
    sides[rotating].node.submit(Rotate(old, new, (), 1, print))
    sides.passes(1.0)
    assert {*sides.ranking(new)[:2]} <= {*sides.alive_at(new)}
    sides.is_late = lambda said: False
    sides.passes(20.0, 0.1)
    assert {*sides.ranking(new)[:2]} <= {*sides.alive_at(new)}
