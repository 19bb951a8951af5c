"""Where not every node holds every session, the checkers must let go of what may go, and of nothing else.

The machine holds everything everywhere here: the layout that the checkers ask for is replaced, and what a node of
that layout would do is done to its table by hand.
"""

from collections.abc import Callable

import pytest

from gossipsess.model.identity import SID_BYTES, NodeId, Sid
from gossipsess.model.record import ABSOLUTE, CREATED, IDLE
from gossipsess.model.table import register_value
from gossipsess.protocol.events import Confirm, Invalidate, Tick, Write
from gossipsess.protocol.outcomes import Found
from gossipsess.sim import places
from gossipsess.sim.checkers import Checker
from gossipsess.sim.cluster import Cluster
from gossipsess.sim.history import Violation
from gossipsess.sim.network import Faults
from gossipsess.sim.process import EPOCH_MS, Process
from gossipsess.sim.run import simulate
from gossipsess.sim.scenario import Scenario
from gossipsess.sim.workload import Waiter

SID = bytes([7]) * SID_BYTES
HOLDERS = (0, 1)


class Stage:
    """Four nodes that have met, of which two hold the session."""

    def __init__(self) -> None:
        self.cluster = Cluster(Scenario(5, ("a", "b", "c", "d"), Faults(), (), (), all_to_all_below=9), trace=False)
        self.checker = Checker(self.cluster)
        self.cluster.observer = self.checker
        self.processes = [self.cluster.start(slot) for slot in range(4)]
        self.cluster.run_until(3.0)

    def written(self, slot: int, *, confirm: Confirm = 1) -> None:
        """Begin the session at a node, and let what follows happen."""
        time_ms = EPOCH_MS + round(self.cluster.now_s * 1000)
        registers = ((CREATED, time_ms), (IDLE, 1_800_000), (ABSOLUTE, time_ms + 43_200_000))
        changes = tuple((key, register_value(value)) for key, value in registers)
        self.cluster.submit(self.processes[slot], Write(SID, changes, confirm, Waiter()))
        self.cluster.run_until(self.cluster.now_s + 0.5)

    def changed(self, slot: int) -> None:
        """Write into the session at a node that tells nobody of it."""
        self.processes[slot].forgets_to_tell = True
        self.cluster.submit(self.processes[slot], Write(SID, (("cart", b"1"),), 0, Waiter()))

    def killed(self, slot: int) -> None:
        """Invalidate the session, and let everybody hear of it."""
        self.cluster.submit(self.processes[slot], Invalidate(SID, 0, Waiter()))
        self.cluster.run_until(self.cluster.now_s + 0.5)

    def drops(self, slot: int) -> None:
        """Have a node drop the session, and look at it."""
        process = self.processes[slot]
        self.loses(process)
        self.cluster.submit(process, Tick(process.wall_ms(self.cluster.now_s)))

    def loses(self, process: Process) -> None:
        """Take the session out of a node's table, all accounts kept."""
        process.replica.sessions.table.drop(SID, process.node, process.clock(self.cluster.now_s))


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Return the four nodes, in a layout in which the first two are the holders of everything."""
    stage = Stage()

    def holders(process: Process, sid: Sid) -> tuple[NodeId, ...]:
        return tuple([stage.processes[slot].node for slot in HOLDERS])

    monkeypatch.setattr(places, "holders", holders)
    return stage


def test_who_is_no_holder_may_drop_what_the_holders_have(stage: Stage) -> None:
    """Else a node that once read a session would keep it to its end."""
    stage.written(3)
    stage.drops(3)
    stage.drops(2)
    assert stage.cluster.counts["surplus dropped"] == 2
    assert stage.checker.difference() is None


def test_a_holder_drops_nothing_before_its_time(stage: Stage) -> None:
    """The other copy may be gone in the next moment."""
    stage.written(0)
    with pytest.raises(Violation, match="before its time"):
        stage.drops(1)


def test_nothing_is_dropped_that_the_holders_lack(stage: Stage) -> None:
    """A copy that is left over may be the only one that has a write."""
    stage.written(0)
    stage.changed(3)
    with pytest.raises(Violation, match="only 0 others hold it"):
        stage.drops(3)


def test_a_holder_that_died_counts_for_some_seconds_only(stage: Stage) -> None:
    """No rule can know of a death at once; but an answer from long ago is worth nothing."""
    stage.written(0)
    stage.cluster.crash(stage.processes[0], silent=True)
    stage.cluster.run_until(stage.cluster.now_s + 5.0)
    stage.drops(2)
    stage.drops(3)
    stage.cluster.run_until(stage.cluster.now_s + 8.0)  # a digest differs, and both have it again
    stage.drops(2)
    with pytest.raises(Violation, match="only 1 others hold it"):
        stage.drops(3)


@pytest.mark.parametrize("hands_over", [True, False])
def test_who_took_over_answers_for_what_was_confirmed(stage: Stage, hands_over: bool) -> None:
    """With the old witness gone free, a loss at the new ones would go unseen; and the old one answers no more."""
    stage.written(3, confirm="all")
    for slot in (2, 3) if hands_over else ():
        stage.drops(slot)
    for slot in HOLDERS:
        stage.cluster.crash(stage.processes[slot], silent=False)
    for slot in HOLDERS:
        stage.processes[slot] = stage.cluster.start(slot)
    for process in stage.processes:
        if SID in process.records:
            stage.loses(process)
    if hands_over:
        stage.checker.check_end()
    else:
        with pytest.raises(Violation, match="though a holder survived"):
            stage.checker.check_end()


def test_a_copy_may_be_old_and_not_ahead(stage: Stage) -> None:
    """Old copies are asked about before they are served; one that has more than the holders is a write that may go."""
    stage.written(0)
    stage.changed(2)
    assert stage.checker.difference() is not None
    stage.processes[0].records[SID] = stage.processes[1].records[SID] = stage.processes[2].records[SID]
    assert stage.checker.difference() is None, "now the copy of the fourth is older"
    del stage.processes[1].records[SID]
    assert stage.checker.difference() is not None, "a holder lacks it"


def test_layouts_that_differ_are_a_difference(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each writer would look for its holders elsewhere."""
    stage.written(0)
    assert stage.checker.difference() is None
    same: Callable[[Process, Sid], tuple[NodeId, ...]] = places.holders
    turned = stage.processes[3]
    monkeypatch.setattr(
        places, "holders", lambda process, sid: (turned.node,) if process is turned else same(process, sid)
    )
    assert "belongs to" in (stage.checker.difference() or "")


def test_a_dead_session_that_a_copy_still_serves_is_seen(stage: Stage) -> None:
    """Logged out stays logged out, whichever node is asked."""
    stage.written(0)
    reader = stage.processes[3]
    alive = reader.records[SID]
    stage.checker.check_read(reader, SID, Found.FRESH, reader.records[SID])
    stage.killed(0)
    stage.checker.check_read(reader, SID, Found.FRESH, reader.records[SID])
    stage.checker.check_read(reader, SID, Found.UNKNOWN, alive)
    for found in (Found.FRESH, Found.STALE):
        with pytest.raises(Violation, match="which is dead"):
            stage.checker.check_read(reader, SID, found, alive)


def test_a_session_that_a_copy_serves_in_an_old_state_is_seen(stage: Stage) -> None:
    """With all well there is no excuse for it."""
    stage.written(0)
    stage.changed(0)
    with pytest.raises(Violation, match="not what its holders have"):
        stage.checker.check_read(stage.processes[3], SID, Found.FRESH, stage.processes[3].records[SID])
    with pytest.raises(Violation, match="not what its holders have"):
        stage.checker.check_read(stage.processes[0], SID, Found.UNKNOWN, None)


def test_a_copy_that_goes_after_it_was_served_was_there() -> None:
    """It did when a copy that nobody used was dropped between an answer and the look at it."""
    assert simulate(8111300, nodes=4, crowd=True).violation is None


def test_a_cookie_may_be_unknown_to_who_wrote_its_session_before_a_death() -> None:
    """Its copy there was dropped, and whoever had the write may have died with it: so docs/PROTOCOL.md, "Reading"."""
    assert simulate(9001080, nodes=4).violation is None
