"""Clusters in which not every node holds every session, in the moments when that might cost one.

Nothing is drawn here: each test brings about one moment that swarms of seeds come to rarely or never.
"""

from gossipsess.model.identity import SID_BYTES, Sid
from gossipsess.model.record import ABSOLUTE, CREATED, IDLE
from gossipsess.model.table import register_value
from gossipsess.protocol.events import Fetch, Invalidate, Write
from gossipsess.protocol.outcomes import Confirmed, Found, Gone, Outcome
from gossipsess.sim import places
from gossipsess.sim.checkers import Checker
from gossipsess.sim.cluster import Cluster
from gossipsess.sim.network import Faults
from gossipsess.sim.process import EPOCH_MS, Process
from gossipsess.sim.scenario import Scenario

MET_S = 8.0
"""After which nodes that started together have met and know what they hold."""
DROPPED_S = 90.0
"""After which nobody keeps a copy that it is not to hold and did not use."""


class Nodes(Cluster):
    """Processes that have met, each on a host of its own, and watched by the checkers."""

    def __init__(self, count: int, slots: int = 0) -> None:
        hosts = tuple([f"host-{slot}" for slot in range(max(count, slots))])
        super().__init__(Scenario(5, hosts, Faults(), (), ()), trace=False)
        self.observer = Checker(self)
        for slot in range(count):
            self.start(slot)
        self.waits(MET_S)

    def waits(self, seconds: float) -> None:
        """Let time pass."""
        self.run_until(self.now_s + seconds)

    def begins(self, process: Process, *sids: Sid) -> None:
        """Have a node begin sessions, and those that hold them hear of them."""
        time_ms = EPOCH_MS + round(self.now_s * 1000)
        registers = ((CREATED, time_ms), (IDLE, 1_800_000), (ABSOLUTE, time_ms + 43_200_000))
        for sid in sids:
            self.submit(process, Write(sid, tuple((key, register_value(value)) for key, value in registers), 0, print))
        self.waits(0.5)

    def reads(self, process: Process, sid: Sid) -> Found:
        """Return what a request without a token is told of a session."""
        told: list[Found] = []
        found = self.submit(process, Fetch(sid, (), told.append))
        self.waits(0.0 if found else 0.2)
        assert isinstance(found, Found | None)
        return found or told[0]

    def holders(self, sid: Sid) -> tuple[Process, ...]:
        """Return who is to hold a session."""
        return tuple([one for one in self.live if places.is_holder(one, sid)])


def sids(count: int) -> list[Sid]:
    """Return ids that lie in as many partitions as there are."""
    return [number.to_bytes(2, "big") * (SID_BYTES // 2) for number in range(1, 65536, 65536 // count)][:count]


def test_a_request_that_outlasts_the_copy_it_read_still_writes() -> None:
    """A WebSocket is open for longer than a node keeps a copy that others hold; its session has not ended for that."""
    nodes = Nodes(5)
    here = nodes.live[0]
    sid = next(sid for sid in sids(64) if here not in nodes.holders(sid))
    nodes.begins(nodes.holders(sid)[0], sid)
    assert nodes.reads(here, sid) is Found.FRESH
    read = here.records[sid]
    nodes.waits(DROPPED_S)
    assert sid not in here.records, "the copy was dropped"
    outcomes: list[Outcome] = []
    nodes.submit(here, Write(sid, (("cart", b"1"),), 1, outcomes.append, read))
    nodes.waits(1.0)
    assert outcomes == [Confirmed(1, 1)]
    assert all("cart" in holder.records[sid].entries for holder in nodes.holders(sid))


def test_a_request_that_outlasts_its_session_writes_to_none() -> None:
    """What it has read comes back for a moment only: the holders know of the logout, here it may be forgotten."""
    nodes = Nodes(5)
    here = nodes.live[0]
    sid = next(sid for sid in sids(64) if here not in nodes.holders(sid))
    nodes.begins(nodes.holders(sid)[0], sid)
    nodes.reads(here, sid)
    read = here.records[sid]
    nodes.submit(nodes.holders(sid)[0], Invalidate(sid, 0, print))
    nodes.waits(DROPPED_S)
    assert sid not in here.records, "the tombstone was dropped too"
    outcomes: list[Outcome] = []
    nodes.submit(here, Write(sid, (("cart", b"1"),), 1, outcomes.append, read))
    nodes.waits(1.0)
    assert outcomes == [Gone()]
    assert all(node.records[sid].tombstone for node in (here, *nodes.holders(sid)))


def test_what_began_beyond_a_split_is_not_absent_once_the_split_is_over() -> None:
    """Who was to hold it all the time has never heard of it, and all it needed to have it is yet to come."""
    nodes = Nodes(6)
    near, far = nodes.live[:3], nodes.live[3:]
    began = [sid for sid in sids(512) if all(holder in near for holder in nodes.holders(sid))]
    ways = [way for one in near for other in far for way in ((one.slot, other.slot), (other.slot, one.slot))]
    nodes.shut("udp", ways)
    nodes.shut("tcp", ways)
    nodes.break_links(ways)
    nodes.waits(30.0)
    nodes.begins(far[0], *began)
    nodes.open("udp", ways)
    nodes.open("tcp", ways)
    here = near[0]
    while not all(other.node in here.replica.linked for other in far):
        nodes.waits(0.005)
    lacking = [sid for sid in began if sid not in here.records]
    assert lacking, "asked before it was pulled"
    told: list[list[Found]] = [[] for _ in lacking]
    at_once = [nodes.submit(here, Fetch(sid, (), heard.append)) for sid, heard in zip(lacking, told, strict=True)]
    nodes.waits(0.2)
    assert Found.ABSENT not in at_once
    assert [Found.ABSENT] not in told


def test_who_leaves_hands_over_to_one_that_has_just_started() -> None:
    """The joiner is a holder of everything already, and has not come to most of it; nobody else has it."""
    nodes = Nodes(1, slots=2)
    old = nodes.live[0]
    nodes.begins(old, *sids(200))
    for sid in sids(200):
        nodes.submit(old, Write(sid, (("cart", bytes(50_000)),), 0, print))
    new = nodes.start(1)
    nodes.waits(0.5)
    assert not new.replica.sessions.synced
    nodes.leave(old)
    nodes.waits(10.0)
    assert not old.alive
    assert len(new.records) == 200


def test_to_leave_takes_no_longer_when_all_do() -> None:
    """What stops all machines of a cluster waits for none of them to hand over to the others."""
    nodes = Nodes(5)
    for number, process in enumerate(nodes.live):
        nodes.begins(process, *sids(1000)[number::5])
    for process in nodes.live:
        nodes.leave(process)
    nodes.waits(2.0)
    assert not any(process.alive for process in nodes.processes)
