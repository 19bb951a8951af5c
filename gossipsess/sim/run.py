# Run: one scenario from its first event to its verdict.
#
#   hurt    requests and mishaps; every rule that must always hold is checked after each event
#   heal    the faults end: everywhere, or for a core of nodes while the others stay dead
#   agree   all that run must come to hold the same within a bound
#   serve   with all well, what is there is read at every node, and what is dead is served at none; then a write at
#           each node is confirmed by all, with few messages
#   lapse   in some runs sessions end by time while they are read at every node
#   rest    nobody says anything about sessions; then what ends by time ends, and stays ended
# Not here: the rules themselves (checkers.py).

from collections import Counter
from collections.abc import Callable
from functools import partial
from traceback import format_exc
from typing import Any, Final, NamedTuple

from gossipsess.model import digest
from gossipsess.model.adoption import is_mark_sid
from gossipsess.model.identity import SID_BYTES, NodeId, Sid, short
from gossipsess.model.record import ABSOLUTE, CREATED, IDLE, Record
from gossipsess.model.revocation import is_user_sid
from gossipsess.model.table import register_value
from gossipsess.protocol import gains, placement
from gossipsess.protocol.events import Fetch, Invalidate, Write
from gossipsess.protocol.fetch import FETCH_TIMEOUT_S
from gossipsess.protocol.outcomes import Confirmed, Found, Outcome
from gossipsess.protocol.replication import RESEND_AFTER_MAX_S
from gossipsess.session import Session
from gossipsess.sim import places
from gossipsess.sim.checkers import Checker
from gossipsess.sim.cluster import Cluster
from gossipsess.sim.cookies import Cookies
from gossipsess.sim.history import Violation
from gossipsess.sim.knobs import turned
from gossipsess.sim.lapses import Lapses
from gossipsess.sim.mishaps import Mishaps
from gossipsess.sim.network import luck
from gossipsess.sim.process import EPOCH_MS, Process
from gossipsess.sim.scenario import Scenario
from gossipsess.sim.swarm import LOSS_MAX, draw
from gossipsess.sim.workload import Workload

LOOK_EVERY_S: Final = 0.25
AGREE_S: Final = 15.0
"""Beyond two rounds of probes, how long agreement may take."""
GONE_S: Final = 8.0
"""How much longer it may take for each node that is gone for good, until it is known dead: where most are gone, those
that are left doubt themselves, and probe one after the other, and slowly."""
CALM_S: Final = 2.0
"""After this much longer, every link that broke before the heal has been noticed."""
SIDS_READ: Final = 12
"""Sessions that are read at every node once all agree."""
SERVE_S: Final = 1.0
TOLD_S: Final = 0.1
"""By when, with all well, a logout has come to every node: long before copies there are asked about again."""
REST_S: Final = 60.0
QUIET_S: Final = 35.0
"""How long a rest is where nothing ends by time: the sync of each half minute has come to every pair."""
REST_EVENTS_MAX: Final = 10_000
"""A cluster that rests still probes. Small intervals would make a minute of it longer than all else in the run."""
EXPIRY_SLACK_S: Final = 15.0
"""Beyond its idle timeout, when a session is gone everywhere, however wrong the clocks."""


class Result(NamedTuple):
    """What came of one run."""

    seed: int
    violation: str | None
    rule: str | None
    """The violation without its names and numbers."""
    violated_at_s: float
    events: int
    settle_s: float
    """Virtual seconds from the heal until all agreed."""
    counts: Counter[str]
    """How often each path was taken."""
    trace_hash: str
    trace: list[str]


def simulate(
    seed: int,
    *,
    nodes: int | None = None,
    loss_max: float = LOSS_MAX,
    crowd: bool = False,
    trace: bool = False,
) -> Result:
    """Draw a seed's scenario and run it."""
    return run(draw(seed, nodes=nodes, loss_max=loss_max, crowd=crowd), trace=trace)


def run(scenario: Scenario, *, hurt_only: bool = False, trace: bool = False) -> Result:
    """Run a scenario. Never raises for what is wrong in the cluster; `violation` tells.

    `hurt_only`: end at the heal.

    Raises:
        KeyError, AttributeError: it turns a knob that this version has not.
    """
    with turned(scenario.knobs):
        cluster = Cluster(scenario, trace=trace)
        one = _Run(cluster)
        violation: str | None = None
        rule: str | None = None
        try:
            one.hurt()
            if not hurt_only:
                one.heal()
        except Violation as found:
            violation, rule = f"at {cluster.now_s:.4f} s: {found}", found.rule
        except Exception as bug:
            rule = f"{type(bug).__name__} in the state machine"
            violation = f"at {cluster.now_s:.4f} s: {rule}: {bug}"
            for line in format_exc().splitlines():
                cluster.note(line)
    return Result(
        scenario.seed,
        violation,
        rule,
        cluster.now_s,
        cluster.events,
        one.settle_s,
        cluster.counts,
        cluster.trace_hash(),
        cluster.trace or [],
    )


class _Run:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._scenario = cluster.scenario
        self._checker = Checker(cluster)
        self._mishaps = Mishaps(cluster)
        self._cookies = Cookies(cluster)
        self._lapses = Lapses(cluster)
        self.settle_s = 0.0
        cluster.observer = self._checker

    def hurt(self) -> None:
        cluster, scenario = self._cluster, self._scenario
        for slot in range(len(scenario.hosts)):
            cluster.after(0.3 * luck(scenario.seed, "start", slot)[0], partial(cluster.start, slot))
        Workload(cluster, self._cookies)
        cluster.run_until(scenario.hurt_s)

    def heal(self) -> None:
        cluster = self._cluster
        self._end_faults()
        self._agree()
        self._checker.check_end()
        cluster.run_until(cluster.now_s + CALM_S)
        self._agree()
        self._show_cookies()
        self._read()
        self._serve()
        if self._scenario.lapses:
            self._lapses.run()
        self._rest()
        self._show_cookies()

    def _end_faults(self) -> None:
        cluster, core = self._cluster, self._scenario.core
        cluster.note("the faults end")
        self._mishaps.stop()
        cluster.heal()
        for slot in range(len(self._scenario.hosts)):
            process = cluster.in_slot(slot)
            stays_dead = bool(core) and slot not in core
            if process is not None and (stays_dead or process.leaving or slot in cluster.day_ahead):
                cluster.crash(process, silent=stays_dead and luck(self._scenario.seed, "core", slot)[0] < 0.5)
            cluster.day_ahead.pop(slot, None)
            if not stays_dead:
                self._mishaps.start_again(slot)
        if core:
            cluster.counts["core only"] += 1

    def _agree(self) -> None:
        scenario = self._scenario
        nodes = len(scenario.hosts)
        bound_s = 2 * (nodes - 1) * scenario.probe_interval_s + AGREE_S
        gone = nodes - len(scenario.core or scenario.hosts)
        # Where not every node holds all, who is gone keeps its sessions until it is known dead.
        places_s = gone * GONE_S if nodes >= scenario.all_to_all_below else 0.0
        settle_s = self._until_none(self._checker.difference, bound_s + places_s, "no convergence")
        self.settle_s = max(self.settle_s, settle_s)
        # On links that lose acknowledgements, as no TCP does, what all hold may be sent again as late as that.
        resend_s = RESEND_AFTER_MAX_S if scenario.faults.lossy_links else 0.0
        rest_s = bound_s + gone * GONE_S + resend_s + placement.LINGER_S + gains.GRACE_S + AGREE_S
        self._until_none(self._checker.unsettled, rest_s, "does not come to rest")
        self._until_none(self._checker.difference, bound_s, "no convergence")  # something may have ended meanwhile

    def _until_none(self, look: Callable[[], str | None], bound_s: float, rule: str) -> float:
        """Let time pass until `look` finds nothing more; return how much."""
        cluster = self._cluster
        begun_s = cluster.now_s
        found = look()
        while found is not None:
            if cluster.now_s - begun_s >= bound_s:
                raise Violation(f"{rule} within {bound_s:.0f} s after the heal: {found}", rule)
            cluster.run_until(cluster.now_s + LOOK_EVERY_S)
            found = look()
        return cluster.now_s - begun_s

    def _show_cookies(self) -> None:
        """Show every former cookie at every node: it is its session, or nothing once that has ended."""
        cluster = self._cluster
        numbers = sorted({request.client for request in self._scenario.requests if request.kind == "adopt"})
        if not numbers:
            return
        shown: dict[tuple[NodeId, int], Session | None] = {}

        def told(process: Process, number: int, session: Session | None) -> None:
            shown[process.node, number] = session

        expected = {number: self._checker.cookie_must_be(self._cookies.sid(number)) for number in numbers}
        live = cluster.live
        for number in numbers:
            for process in live:
                self._cookies.show(process, number, partial(told, process, number))
        cluster.run_until(cluster.now_s + SERVE_S)
        for process in live:
            for number in numbers:
                if (process.node, number) not in shown:
                    if self._checker.may_doubt(process, self._cookies.sid(number)):
                        continue
                    raise Violation(f"{process.label} does not know cookie {number}", "a cookie unknown when well")
                session = shown[process.node, number]
                self._checker.check_shown(process, self._cookies.sid(number), expected[number], session)
        self._agree()

    def _read(self) -> None:
        """Read some sessions at every node, one of their holders or not."""
        cluster = self._cluster
        there = {sid: None for process in cluster.live for sid in process.records if not is_user_sid(sid)}
        sids = sorted(there, key=lambda sid: luck(self._scenario.seed, "read", sid.hex()))[:SIDS_READ]
        for read in self._fetched(sids):
            self._checker.check_read(*read)

    def _serve(self) -> None:
        """Write at each node in turn: when all is well, all confirm, and it takes few messages."""
        cluster = self._cluster
        live = cluster.live
        pushes = self._checker.pushes
        outcomes: list[Outcome | None] = []
        sids: list[Sid] = []
        for number, process in enumerate(live):
            sid = f"afterwards {number}".encode("ascii").ljust(SID_BYTES, b"-")
            sids.append(sid)
            outcomes.append(None)
            told = cluster.submit(process, Write(sid, self._changes(), "all", _Slot(outcomes, number)))
            if told is not None and not isinstance(told, Found):
                outcomes[number] = told.outcome
        cluster.run_until(cluster.now_s + SERVE_S)
        for process, outcome in zip(live, outcomes, strict=True):
            if not isinstance(outcome, Confirmed):
                raise Violation(f"with all well, a write at {process.label} is {outcome}", "not confirmed when well")
        sent = self._checker.pushes - pushes
        if sent > sum(2 * len(places.holders(live[0], sid)) + 2 for sid in sids):
            raise Violation(f"{sent} messages for {len(live)} writes at {len(live)} nodes", "too many messages")
        if any(found is not Found.FRESH for _, _, found, _ in self._fetched(sids)):
            raise Violation("a node lacks what all confirmed", "not there when well")
        self._end_at_each(sids)

    def _end_at_each(self, sids: list[Sid]) -> None:
        """End what each node wrote and all have just read, so that there are copies everywhere: none is served then."""
        cluster = self._cluster
        outcomes: list[Outcome | None] = [None] * len(sids)
        for number, (process, sid) in enumerate(zip(cluster.live, sids, strict=True)):
            cluster.submit(process, Invalidate(sid, "all", _Slot(outcomes, number)))
        cluster.run_until(cluster.now_s + TOLD_S)
        served = (Found.FRESH, Found.STALE)
        for process, sid, found, record in self._fetched(sids):
            if found in served and record is not None and not record.tombstone:
                raise Violation(f"{process.label} serves {short(sid)} after a logout", "a dead session is served")

    def _fetched(self, sids: list[Sid]) -> list["_Read"]:
        """Read sessions at every node; return what each was told, with what was there at that moment.

        A moment later a copy at a node that is no holder may have gone.
        """
        cluster = self._cluster
        reads: dict[tuple[NodeId, Sid], _Read] = {}

        def told(process: Process, sid: Sid, found: Found) -> None:
            reads[process.node, sid] = (process, sid, found, process.records.get(sid))

        for process in cluster.live:
            for sid in sids:
                reads[process.node, sid] = (process, sid, None, None)
                found = cluster.submit(process, Fetch(sid, (), partial(told, process, sid)))
                if isinstance(found, Found):
                    told(process, sid, found)
        if any(found is None for _, _, found, _ in reads.values()):
            cluster.run_until(cluster.now_s + FETCH_TIMEOUT_S + LOOK_EVERY_S)
        return list(reads.values())

    def _changes(self) -> tuple[tuple[str, bytes | None], ...]:
        time_ms = EPOCH_MS + round(self._cluster.now_s * 1000)
        return (
            (CREATED, register_value(time_ms)),
            (IDLE, register_value(self._scenario.idle_ms)),
            (ABSOLUTE, register_value(time_ms + self._scenario.absolute_ms)),
        )

    def _rest(self) -> None:
        cluster, scenario = self._cluster, self._scenario
        sessions_end_s = scenario.idle_ms / 1000 + EXPIRY_SLACK_S + 2 * scenario.skew_ms / 1000
        tombstones_end = any(name == "tombstone_ms" for name, _ in scenario.knobs)
        # What changed last settles at one node a moment after the other.
        cluster.run_until(cluster.now_s + 2 * digest.SETTLE_S)
        # Nodes drop what has ended each by its own clock, and until the last one has, they differ.
        self._checker.quiet_from(sessions_end_s > REST_S and not tombstones_end)
        until_s = cluster.now_s + (
            REST_S if tombstones_end else sessions_end_s if sessions_end_s <= REST_S else QUIET_S
        )
        events_max = cluster.events + REST_EVENTS_MAX
        while cluster.now_s < until_s and cluster.events < events_max:
            cluster.run_until(cluster.now_s + 1)
        self._checker.quiet_from(False)
        if sessions_end_s <= REST_S and cluster.now_s >= until_s:
            for process in cluster.live:
                left = [
                    record for record in process.records.values() if not (record.tombstone or is_mark_sid(record.sid))
                ]
                if left:
                    raise Violation(f"{process.label} still holds {left[0].sid.hex()}", "a session never ended")


_Read = tuple[Process, Sid, Found | None, Record | None]
"""Who was asked for which session, what it said, None for nothing, and what it served."""


class _Slot:
    """A waiter that keeps the outcome."""

    def __init__(self, outcomes: list[Any], number: int) -> None:
        self._outcomes = outcomes
        self._number = number

    def __call__(self, outcome: Any) -> None:
        self._outcomes[self._number] = outcome
