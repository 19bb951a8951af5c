"""A difference between two digests: who repairs it, when, and how often."""

import random
from itertools import pairwise

from gossipsess.model.digest import PARTITIONS, SETTLE_S
from gossipsess.protocol.effects import Notify, SendDatagram, Warn
from gossipsess.protocol.events import Watch, Write
from gossipsess.protocol.outcomes import Confirmed
from gossipsess.protocol.repair import OTHER_AFTER_S, WAIT_MAX_S, WAIT_S, Comparison
from gossipsess.protocol.sessions import RECHECKED_AT_ONCE
from gossipsess.wire.messages import Ping, Pull, Push, SyncAsk
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
    """What the last repair did not mend, the next may not either."""
    seen = comparison()
    times = [number / 10 for number in range(6000) if seen.repair_due(False, number / 10)]
    waits = [later - earlier for earlier, later in pairwise(times)]
    for wait, expected in zip(waits, (WAIT_S, 2 * WAIT_S, 4 * WAIT_S, 4 * WAIT_S), strict=False):
        assert 0.8 * expected <= wait <= 1.2 * expected + 0.2
    assert waits[-1] <= 1.2 * WAIT_MAX_S + 0.2
    seen.repair_due(True, 600.0)
    seen.repair_due(False, 601.0)
    assert seen.repair_due(False, 601.5), "a match makes everything forgotten"


def write(here: Clocked, sid: bytes = SID, key: str = "a") -> None:
    """Write something that nobody is told."""
    begins = () if sid in here.node.records else tuple(registers().items())
    written = here.node.submit(Write(sid, (*begins, (key, b"1")), 0, lambda outcome: None))
    assert written.outcome == Confirmed(0, 0)
    for peer in here.replica.sessions._peers.values():
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
        digest = there.replica.sessions.digest(there.now_s)
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
        assert (one.replica.sessions.repairs, other.replica.sessions.repairs) == (1, 0)
        assert one.replica.sessions.repaired >= 1


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
    assert (one.replica.sessions.repairs, other.replica.sessions.repairs) == (1, 0)


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
        one.replica.sessions.synced = ready
        hear(one, other)
        assert asks(one) == ready
    one, other = pair()
    one.replica.sessions.link_down(BOB, one.now_s)
    write(other)
    rest(one, other)
    hear(one, other, 5)
    assert one.replica.sessions.repairs == 0


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
    assert one.replica.sessions.repairs == 0


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
    assert one.replica.sessions.repaired == 0


def test_a_wrong_sum_is_put_right_within_ten_minutes_and_read_of_once():
    """It runs beside everything else; who runs the machine should know that it happened, not how often."""
    here = Clocked().alone()
    here.replica.sessions.table.sums._sums[PARTITIONS - 1] ^= 1
    here.replica.sessions.table.sums._sums[5] ^= 1
    warnings = []
    for _ in range(600):
        warnings += [effect.text for effect in here.waits(1.0).does() if isinstance(effect, Warn)]
    assert PARTITIONS / RECHECKED_AT_ONCE <= 600
    assert here.replica.sessions.put_right == 2
    (warning,) = warnings
    assert "memory" in warning
    assert not any(here.replica.sessions.table.sums.of_groups())
