"""A difference between two digests: who repairs it, when, and how often."""

import random
from itertools import chain, pairwise, repeat

from gossipsess.model.digest import LEAVES, SETTLE_S
from gossipsess.protocol import replication, sync
from gossipsess.protocol.effects import Notify, SendDatagram, Warn
from gossipsess.protocol.events import LinkClosed, Tick, Watch, Write
from gossipsess.protocol.outcomes import Confirmed
from gossipsess.protocol.repair import OTHER_AFTER_S, Comparison
from gossipsess.protocol.sessions import RECHECKED_AT_ONCE
from gossipsess.wire.messages import Ping, Pull, Push, PushAck, SyncAsk, SyncList
from tests.unit.machines import ALICE, BOB, SID, Clocked, exchange, registers, stamp

SETTLED_S = 2 * SETTLE_S


def comparison(*, first: bool = True) -> Comparison:
    return Comparison(first=first, rng=random.Random(1))


def test_one_difference_is_none_and_the_second_is_repaired():
    """A session settles here a moment before it does there."""
    seen = comparison()
    assert not seen.repair_due(False, 0.0)
    assert not seen.repair_due(True, 0.5)
    assert not seen.repair_due(False, 1.0)
    assert seen.repair_due(False, 1.5)


def test_the_other_of_the_two_waits_whether_the_first_repairs_it():
    """Both at once would do everything twice; none, where datagrams get through one way only."""
    seen = comparison(first=False)
    assert not any(seen.repair_due(False, number / 2) for number in range(int(2 * OTHER_AFTER_S)))
    assert seen.repair_due(False, OTHER_AFTER_S)


def test_while_a_difference_stands_repairs_come_less_and_less_often():
    """What the last repair did not mend, the next may not either; but noise must not hide a real loss for long."""
    seen = comparison()
    times = [number / 10 for number in range(6000) if seen.repair_due(False, number / 10)]
    waits = [later - earlier for earlier, later in pairwise(times)]
    assert len(waits) > 60
    for wait, expected in zip(waits, chain((2.0, 4.0), repeat(8.0)), strict=False):
        assert 0.8 * expected <= wait <= 1.2 * expected + 0.2
    seen.repair_due(True, 600.0)
    seen.repair_due(False, 601.0)
    assert seen.repair_due(False, 601.5), "a match makes everything forgotten"


def write(here: Clocked, sid: bytes = SID, key: str = "a") -> None:
    """Write something that nobody is told."""
    begins = () if sid in here.node.records else tuple(registers().items())
    written = here.node.submit(Write(sid, (*begins, (key, b"1")), 0, lambda outcome: None))
    assert written.outcome == Confirmed(0, 0)
    for peer in here.replica.sessions.peers:
        peer.outbound.forget(sid)


def pair() -> tuple[Clocked, Clocked]:
    """Return two nodes that have everything, and are linked."""
    one, other = Clocked(ALICE).linked(BOB), Clocked(BOB).linked(ALICE)
    for here in (one, other):
        here.alone()
    exchange(one, other)
    return one, other


def rest(*nodes: Clocked, seconds: float = SETTLED_S) -> None:
    """Let time pass; nothing that is said by itself reaches anybody."""
    for here in nodes:
        here.waits(seconds)
        here.does()


def hear(here: Clocked, there: Clocked, times: int = 2) -> None:
    """Let `here` hear the other's digest."""
    for _ in range(times):
        digest = there.replica.sessions.digest(here.me.node, there.now_s)
        here.replica.sessions.heard_digest(there.me.node, digest, here.now_s)


def settle(one: Clocked, other: Clocked) -> None:
    """Carry everything that the two have to say to each other."""
    exchange(one, other)
    for here in (one, other):
        here.waits(0.0)  # what is owed leaves with the next tick
    exchange(one, other)


def asks(here: Clocked) -> int:
    return sum(isinstance(message, SyncAsk) for message in here.says())


def test_probes_carry_the_digest_of_what_has_settled():
    """It costs no datagram of its own, so a pair that rests is compared for nothing."""
    one, _ = pair()
    write(one)
    one.waits(SETTLED_S)
    pings = [effect.message for effect in one.does() if isinstance(effect, SendDatagram)]
    assert [ping.digest for ping in pings if isinstance(ping, Ping)] == [one.node.records[SID].state_hash % 2**48]


def test_a_session_that_one_of_two_lacks_is_repaired_by_the_smaller_id_in_either_direction():
    """It repairs for both: the other would wait for ten seconds."""
    for holder in (0, 1):
        nodes = pair()
        write(nodes[holder])
        rest(*nodes)
        one, other = nodes
        hear(one, other)
        hear(other, one)
        settle(one, other)
        assert SID in other.node.records
        assert SID in one.node.records
        assert (one.replica.sessions.anti_entropy.repairs, other.replica.sessions.anti_entropy.repairs) == (1, 0)
        assert one.replica.sessions.anti_entropy.repaired >= 1


def test_two_states_of_which_neither_has_all_become_one():
    """Pulling brings the one side up to date, and shows what the other lacks."""
    one, other = pair()
    write(one)
    rest(one, other)
    hear(one, other)
    settle(one, other)
    write(one, key="b")
    write(other, key="c")
    rest(one, other)
    hear(one, other)
    settle(one, other)
    for here in (one, other):
        assert {"a", "b", "c"} <= set(here.node.records[SID].entries)
    assert one.node.records[SID].state_hash == other.node.records[SID].state_hash


def test_a_later_logout_here_ends_the_session_there():
    """The one who holds the tombstone may be the one who repairs."""
    one, other = pair()
    for here in (one, other):
        here.replica.sessions.table.write(SID, registers().items(), stamp(0), BOB, here.now_s)
    one.replica.sessions.table.kill(SID, stamp(1), one.now_s)
    rest(one, other)
    hear(one, other)
    settle(one, other)
    assert other.node.records[SID].tombstone == stamp(1)


def test_after_a_repair_both_are_quiet():
    """Whatever was pulled or given must not be taken for news."""
    one, other = pair()
    write(one)
    rest(one, other)
    hear(one, other)
    settle(one, other)
    for _ in range(20):
        rest(one, other, seconds=0.5)
        hear(one, other, 1)
        hear(other, one, 1)
        assert not [message for here in (one, other) for message in here.says()]
    assert (one.replica.sessions.anti_entropy.repairs, other.replica.sessions.anti_entropy.repairs) == (1, 0)


def test_a_peer_that_is_still_pulling_is_not_repaired():
    """All that it lacks would be given to it a second time."""
    one, other = pair()
    write(one)
    rest(one, other)
    hear(one, other, 1)
    one.hears(SyncAsk(1, other.replica.sessions.table.sums.of_groups()))
    one.does()
    hear(one, other)
    assert asks(one) == 0
    rest(one, other)
    hear(one, other)
    assert asks(one) == 1


def test_nobody_repairs_before_it_has_everything_or_without_a_link():
    """What it lacks is on its way, or cannot be had."""
    for ready in (False, True):
        one, other = pair()
        write(other)
        rest(one, other)
        one.replica.sessions.anti_entropy.gains.started = ready
        hear(one, other)
        assert asks(one) == ready
    one, other = pair()
    one.replica.sessions.link_down(BOB, one.now_s)
    write(other)
    rest(one, other)
    hear(one, other, 5)
    assert one.replica.sessions.anti_entropy.repairs == 0


def test_a_session_that_is_over_is_neither_pulled_nor_given_and_ends_once():
    """Nodes whose timers tick at different moments would repair each session at its end, and subscribers hear twice."""
    one, other = pair()
    for here in (one, other):
        here.node.submit(Watch(True))
        here.replica.sessions.table.write(SID, registers(idle_ms=20_000).items(), stamp(0), BOB, here.now_s)
    other.waits(25.0)
    assert [effect.kind for effect in other.does() if isinstance(effect, Notify)] == ["expired"]
    one.now_s += 25.0  # its timer has not ticked
    hear(one, other)
    one.waits(1.0)
    done = one.does()
    assert [effect.kind for effect in done if isinstance(effect, Notify)] == ["expired"]
    assert one.replica.sessions.anti_entropy.repairs == 0


def test_a_repair_that_finds_nothing_pulls_and_gives_nothing():
    """A false alarm costs two short messages."""
    one, other = pair()
    for _ in range(2):
        one.replica.sessions.heard_digest(BOB, 1, one.now_s + SETTLED_S)
    said = one.says()
    assert [type(message) for message in said] == [SyncAsk]
    for message in said:
        other.hears(message)
    (sums,) = other.says()
    assert sums.groups == ()
    one.hears(sums)
    assert not [message for message in one.says() if isinstance(message, Pull | Push)]
    assert one.replica.sessions.anti_entropy.repaired == 0


def test_a_wrong_sum_is_put_right_within_ten_minutes_and_read_of_once():
    """It runs beside everything else; who runs the machine should know that it happened, not how often."""
    here = Clocked().alone()
    here.replica.sessions.table.sums._sums[LEAVES - 1] ^= 1
    here.replica.sessions.table.sums._sums[5] ^= 1
    warnings = []
    for _ in range(600):
        warnings += [effect.text for effect in here.waits(1.0).does() if isinstance(effect, Warn)]
    assert LEAVES / RECHECKED_AT_ONCE <= 600
    assert here.replica.sessions.put_right == 2
    (warning,) = warnings
    assert "memory" in warning
    assert not any(here.replica.sessions.table.sums.of_groups())


def repairing(monkeypatch) -> Clocked:
    """Return a node whose repair has just found that its peer lacks more than a page, and has more to compare. One
    session fills the way to the peer."""
    monkeypatch.setattr(sync, "LEAVES_PER_LIST", 3)
    monkeypatch.setattr(sync, "SESSIONS_PER_PAGE", 1)
    monkeypatch.setattr(replication, "PUSH_BYTES", 1)
    monkeypatch.setattr(replication, "IN_FLIGHT_BYTES_MAX", 1)
    one, other = pair()
    for number in range(8):
        write(one, bytes([number]) * 16)
    rest(one, other)
    hear(one, other)
    for _ in range(2):  # the sums, then the first page
        for message in one.says():
            other.hears(message)
        for message in other.says():
            one.hears(message)
    assert len(next(iter(one.replica.sessions.peers)).outbound.owed) > sync.SESSIONS_PER_PAGE
    return one


def lists(messages: list) -> int:
    return sum(isinstance(message, SyncList) for message in messages)


def test_a_repair_does_not_ask_on_while_the_peer_is_owed_more_than_a_page(monkeypatch):
    """It finds a whole table faster than a peer takes it: the peer would be owed too much, collapse, be repaired anew,
    again and again."""
    one = repairing(monkeypatch)
    for _ in range(3):
        one.node.submit(Tick())
    assert [type(message) for message in one.says()] == [Push]


def test_a_repair_asks_on_once_the_peer_has_taken_what_it_is_owed(monkeypatch):
    """Whatever ticks meanwhile: asked again only when the question is overdue, a repair would move a page a second."""
    one = repairing(monkeypatch)
    one.node.submit(Tick())
    (push,) = one.says()
    one.hears(PushAck(push.sequence))
    assert lists(one.says()) == 1


def test_what_a_repair_asks_next_is_forgotten_with_its_link(monkeypatch):
    """Over the new link it begins anew: an answer to the old question would stand for nothing that runs."""
    one = repairing(monkeypatch)
    one.node.submit(LinkClosed(1))
    one.does()
    one.linked(BOB, 2)
    # Else the old question would still be held, and not be seen.
    next(iter(one.replica.sessions.peers)).outbound.owed.clear()
    one.waits(0.1)
    said = one.says()
    assert [type(message) for message in said if isinstance(message, SyncAsk | SyncList)] == [SyncAsk]
