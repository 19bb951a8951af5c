"""Accesses are told in batches, and only those that are news."""

from gossipsess.model.table import Table
from gossipsess.protocol.effects import Notify
from gossipsess.protocol.events import Accessed, Tick, Watch
from gossipsess.protocol.expiry import EVERY_S, Expiry
from gossipsess.wire.messages import Touch
from tests.unit.machines import ALICE, BOB, CAROL, EPOCH_MS, SID, Clocked, registers, stamp


def table_with(*sids: bytes) -> Table:
    table = Table()
    for sid in sids:
        table.write(sid, registers(idle_ms=60_000).items(), stamp(0), ALICE, 0.0)
    return table


def test_an_access_is_told_once_for_each_grain():
    """A busy session costs a message every few seconds, and not one for each request."""
    table, expiry = table_with(SID), Expiry(0.0)
    for ms in range(0, 12_000, 100):
        expiry.accessed(SID, table, EPOCH_MS + ms)
    assert expiry.gathered(EVERY_S) == {SID: EPOCH_MS + 10_000}
    assert expiry.gathered(2 * EVERY_S) == {}


def test_nothing_is_told_before_its_time():
    """The batch is what makes it cheap."""
    here = holder()
    here.waits(10)
    here.does()
    here.node.submit(Accessed(SID))
    here.waits(EVERY_S - 0.01)
    assert not [message for message in here.says() if isinstance(message, Touch)]
    here.waits(0.01)
    assert [message for message in here.says() if isinstance(message, Touch)]
    expiry = Expiry(0.0)
    assert expiry.next_deadline() == EVERY_S
    expiry.gathered(EVERY_S)
    assert expiry.next_deadline() == 2 * EVERY_S


def test_an_access_of_what_is_not_held_is_not_told():
    """Nobody could make anything of it."""
    expiry = Expiry(0.0)
    expiry.accessed(SID, Table(), EPOCH_MS)
    assert expiry.gathered(EVERY_S) == {}


def holder() -> Clocked:
    here = Clocked().linked(BOB)
    here.replica.sessions.table.write(SID, registers(idle_ms=60_000).items(), stamp(0), BOB, 0.0)
    here.says()
    return here


def test_a_use_here_is_told_to_the_peers_that_hold_the_session():
    """They would end it otherwise."""
    here = holder()
    here.now_s += 6
    here.node.submit(Accessed(SID))
    here.node.submit(Tick())
    touches = [message for message in here.says() if isinstance(message, Touch)]
    assert touches == [Touch(1, ((SID, EPOCH_MS + 6_000),))]


def test_a_use_elsewhere_keeps_the_session_and_is_not_told_on():
    """Told on, it would go round for ever."""
    here = holder()
    here.now_s += 60
    here.hears(Touch(1, ((SID, EPOCH_MS + 50_000),)))
    here.now_s += 40
    here.node.submit(Tick())
    assert not [message for message in here.says() if isinstance(message, Touch)]
    assert SID in here.node.records
    here.now_s += 16
    here.node.submit(Tick())
    assert SID not in here.node.records


def test_an_access_from_the_future_counts_as_one_of_now():
    """A peer's wrong clock must not keep sessions alive for a day."""
    here = holder()
    here.hears(Touch(1, ((SID, EPOCH_MS + 86_400_000),)))
    assert here.replica.sessions.table.life(here.node.records[SID]).accessed_ms == EPOCH_MS


def test_the_end_of_a_session_is_told_to_who_watches_but_not_that_of_a_tombstone():
    """Nobody wants to hear a day later that a session which was ended has ended."""
    here = holder()
    other = b"another-16-bytes"
    here.replica.sessions.table.kill(other, stamp(0), 0.0)
    here.node.submit(Watch(on=True))
    here.now_s += 25 * 3600
    here.node.submit(Tick())
    told = [effect for effect in here.does() if type(effect).__name__ == "Notify"]
    assert [(one.kind, one.sid) for one in told] == [("expired", SID)]
    assert here.node.records == {}


def test_of_those_who_hold_a_session_one_announces_its_end():
    """What must be done once when a session ends is done by the subscriber who hears of it as his own."""
    told = []
    for node, others in ((ALICE, (BOB, CAROL)), (BOB, (ALICE, CAROL)), (CAROL, (ALICE, BOB))):
        here = Clocked(node)
        for number, other in enumerate(others):
            here.linked(other, number)
        here.node.submit(Watch(on=True))
        for first in range(9):
            sid = bytes([0, first << 6 & 255, *SID[:14]]) if first < 4 else bytes([first, *SID[:15]])
            here.replica.sessions.table.write(sid, registers(idle_ms=60_000).items(), stamp(0), BOB, 0.0)
        here.waits(120)
        told += [(effect.sid, node, effect.remote) for effect in here.does() if isinstance(effect, Notify)]
    assert len(told) == 27
    announced = {sid: node for sid, node, remote in told if not remote}
    assert len(announced) == sum(not remote for _, _, remote in told) == 9
    assert set(announced.values()) == {ALICE, BOB, CAROL}, "the work is shared"
