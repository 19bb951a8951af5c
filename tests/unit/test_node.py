"""The thread-safe face: who is woken, when, and how often."""

import threading

from gossipsess.protocol.events import Tick, Write
from gossipsess.protocol.replication import FLUSH_DELAY_S
from tests.unit.machines import BOB, SID, Clocked, registers


def driven() -> tuple[Clocked, list]:
    """A node with a peer, whose driver sleeps; its alarm rings into the list."""
    here, rings = Clocked().linked(BOB), []
    here.node.driven_by(lambda: rings.append(here.now_s))
    here.node.take()
    return here, rings


def write(here: Clocked, confirm: int, sid: bytes = SID) -> None:
    here.node.submit(Write(sid, tuple(registers().items()), confirm, print))


def test_the_driver_is_woken_once_for_all_that_gathers():
    """A wake crosses threads; one for each write would cost more than the write."""
    here, rings = driven()
    for number in range(5):
        write(here, 1, number.to_bytes(16, "big"))
    assert len(rings) == 1
    here.node.submit(Tick())
    effects, _ = here.node.take()
    assert effects
    write(here, 1, b"one-more-session")
    assert len(rings) == 2


def test_a_driver_that_sleeps_past_a_flush_is_woken_for_it():
    """Else an unconfirmed write would leave with the next probe, half a second later."""
    here, rings = driven()
    write(here, 0)
    assert len(rings) == 1
    _, due_s = here.node.take()
    assert due_s <= here.now_s + FLUSH_DELAY_S


def test_a_driver_that_will_wake_in_time_is_left_asleep():
    """The first write of a burst has set its deadline already."""
    here, rings = driven()
    write(here, 0)
    here.node.take()
    write(here, 0, b"one-more-session")
    assert len(rings) == 1


def test_taken_effects_are_gone_and_come_in_order():
    """Carried out twice, a message would be sent twice."""
    here, _ = driven()
    write(here, 1)
    here.node.submit(Tick())
    first, _ = here.node.take()
    second, _ = here.node.take()
    assert first
    assert second == []


def test_a_node_that_nobody_drives_still_takes_writes():
    """The thread has gone; requests have not."""
    here, _ = driven()
    here.node.driven_by(None)
    assert not here.node.is_driven
    write(here, 0)
    assert SID in here.node.records


def test_many_threads_at_once_leave_every_write_in_place():
    """One lock guards all writing; readers need none."""
    here = Clocked().alone()
    here.now_s = 100.0

    def writer(number: int) -> None:
        for count in range(50):
            write(here, 0, bytes([number, count]) * 8)

    threads = [threading.Thread(target=writer, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(here.node.records) == 200
    stamps = [next(iter(record.claims.values())) for record in here.node.records.values()]
    assert len(set(stamps)) == 200, "no two writes have one stamp"


def test_time_is_cluster_time():
    """Deadlines are compared between nodes."""
    here = Clocked()
    before = here.node.time_ms()
    here.now_s += 1.5
    assert here.node.time_ms() == before + 1500
