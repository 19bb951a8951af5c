# Shrink: make a failing scenario small enough to be understood.
#
# In:    a scenario and the rule that it breaks.    Out: a smaller one that breaks the same rule.
# Steps: cut off what comes after the violation; leave out requests and mishaps, half of them at a time, then
#        quarters, down to single ones (Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input",
#        2002); leave out slots; set every number and switch to its plain value; again, until nothing changes.
# The same rule, and not just any violation: otherwise a shrunk case may show another bug than the one looked for.

from collections.abc import Callable, Iterator
from typing import Final

from gossipsess.sim.knobs import PLACES
from gossipsess.sim.network import Faults
from gossipsess.sim.run import Result, run
from gossipsess.sim.scenario import Mishap, Request, Scenario

RUNS_MAX: Final = 1500
"""Runs to spend on one scenario: about a minute."""
NODES_LEAST: Final = 2

Progress = Callable[[int, Scenario], None]


class _Spent(Exception):
    """All runs are used up."""


class Shrinker:
    """Shrinks one scenario. `best` is the smallest that still breaks `rule`; `runs` tells what it cost."""

    def __init__(self, scenario: Scenario, rule: str, progress: Progress) -> None:
        self.best = scenario
        self.runs = 0
        self._rule = rule
        self._progress = progress
        self._early = False  # the violation comes before the heal

    def shrink(self) -> Scenario:
        """Return the smallest scenario found."""
        try:
            while self._round():
                pass
        except _Spent:
            pass
        return self.best

    def run(self, scenario: Scenario, *, hurt_only: bool = False) -> Result:
        """Run a candidate. Who looks for more than a violation, says here what counts as one."""
        return run(scenario, hurt_only=hurt_only)

    def _round(self) -> bool:
        before = self.best
        self._cut_off()
        self._leave_out_items()
        self._leave_out_slots()
        for simplify in (_plainer, _plainer_requests, _plainer_mishaps):
            self._simplify(simplify)
        return self.best != before

    def _fails(self, candidate: Scenario) -> bool:
        if candidate == self.best:
            return False
        if self.runs >= RUNS_MAX:
            raise _Spent
        self.runs += 1
        result = self.run(candidate, hurt_only=self._early)
        if result.rule != self._rule:
            return False
        self.best = candidate
        self._progress(self.runs, candidate)
        return True

    def _cut_off(self) -> None:
        result = self.run(self.best)
        self._early = result.violated_at_s <= self.best.hurt_s
        ends_s = result.violated_at_s
        if self._early and ends_s + 0.01 < self.best.hurt_s:
            self._fails(
                self.best._replace(
                    hurt_s=ends_s + 0.005,
                    requests=tuple(request for request in self.best.requests if request.at_s <= ends_s),
                    mishaps=tuple(mishap for mishap in self.best.mishaps if mishap.at_s <= ends_s),
                )
            )

    def _leave_out_items(self) -> None:
        size = max(1, (len(self.best.requests) + len(self.best.mishaps)) // 2)
        while True:
            start = 0
            while start < len(self.best.requests) + len(self.best.mishaps):
                items: list[Request | Mishap] = [*self.best.mishaps, *self.best.requests]
                if not self._fails(_with_items(self.best, items[:start] + items[start + size :])):
                    start += size
            if size == 1:
                return
            size //= 2

    def _leave_out_slots(self) -> None:
        slot = len(self.best.hosts) - 1
        while slot >= 0 and len(self.best.hosts) > NODES_LEAST:
            self._fails(_without_slot(self.best, slot))
            slot -= 1

    def _simplify(self, simplify: Callable[[Scenario], Iterator[Scenario]]) -> None:
        found = True
        while found:
            found = False
            for candidate in simplify(self.best):
                if self._fails(candidate):
                    found = True
                    break


def size_text(scenario: Scenario) -> str:
    """Return how large a scenario is, in words."""
    return (
        f"{len(scenario.hosts)} nodes, {len(scenario.requests)} requests, {len(scenario.mishaps)} mishaps, "
        f"{scenario.hurt_s:.2f} s"
    )


def _with_items(scenario: Scenario, items: list[Request | Mishap]) -> Scenario:
    return scenario._replace(
        requests=tuple(item for item in items if isinstance(item, Request)),
        mishaps=tuple(item for item in items if isinstance(item, Mishap)),
    )


def _without_slot(scenario: Scenario, slot: int) -> Scenario:
    def moved(slots: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(each - (each > slot) for each in slots if each != slot)

    nodes = len(scenario.hosts) - 1
    mishaps = (mishap._replace(slots=moved(mishap.slots)) for mishap in scenario.mishaps)
    pairs = ("one way", "clog")
    core = moved(scenario.core)
    return scenario._replace(
        hosts=scenario.hosts[:slot] + scenario.hosts[slot + 1 :],
        zones=scenario.zones[:slot] + scenario.zones[slot + 1 :],
        requests=tuple(
            request._replace(slot=min(request.slot - (request.slot > slot), nodes - 1)) for request in scenario.requests
        ),
        mishaps=tuple(mishap for mishap in mishaps if len(mishap.slots) >= (2 if mishap.kind in pairs else 1)),
        core=core if len(core) < nodes else (),
        newer=moved(scenario.newer),
    )


def _plainer(scenario: Scenario) -> Iterator[Scenario]:
    plain = Scenario._field_defaults
    for field in (
        "core",
        "newer",
        "lapses",
        "zones",
        "all_to_all_below",
        "secondaries",
        "count_by",
        "knobs",
        "beacons",
        "dead_seeds",
        "codec",
        "watch",
        "skew_ms",
        "drift",
        "probe_interval_s",
        "alone_s",
    ):
        if getattr(scenario, field) != plain[field]:
            yield scenario._replace(**{field: plain[field]})
    for turned in scenario.knobs:
        # With only some of the places' turned, a copy may go on an answer that is older than the quiet.
        without = PLACES if turned[0] in PLACES else (turned[0],)
        yield scenario._replace(knobs=tuple(knob for knob in scenario.knobs if knob[0] not in without))
    for field in ("idle_ms", "absolute_ms"):
        if getattr(scenario, field) != plain[field]:
            yield scenario._replace(**{field: plain[field]})
    for field, good in Faults()._asdict().items():
        if getattr(scenario.faults, field) != good:
            yield scenario._replace(faults=scenario.faults._replace(**{field: good}))
    hosts = tuple(f"host{slot}" for slot in range(len(scenario.hosts)))
    if scenario.hosts != hosts:
        yield scenario._replace(hosts=hosts)


def _plainer_requests(scenario: Scenario) -> Iterator[Scenario]:
    for place, request in enumerate(scenario.requests):
        for plain in (
            request._replace(confirm=0),
            request._replace(client=0),
            request._replace(key="cart"),
            request._replace(value_bytes=0),
            request._replace(kind="write") if request.kind == "read and write" else request,
            *(request._replace(at_s=at_s) for at_s in _rounder(request.at_s)),
        ):
            if plain != request:
                yield scenario._replace(requests=(*scenario.requests[:place], plain, *scenario.requests[place + 1 :]))


def _plainer_mishaps(scenario: Scenario) -> Iterator[Scenario]:
    for place, mishap in enumerate(scenario.mishaps):
        for plain in (
            mishap._replace(kind="crash") if mishap.kind in ("vanish", "leave", "foreign") else mishap,
            mishap._replace(elsewhere=False),
            mishap._replace(breaks=False),
            mishap._replace(channel="all"),
            *(mishap._replace(lasts_s=lasts_s) for lasts_s in _rounder(mishap.lasts_s)),
            *(mishap._replace(at_s=at_s) for at_s in _rounder(mishap.at_s)),
        ):
            if plain != mishap:
                yield scenario._replace(mishaps=(*scenario.mishaps[:place], plain, *scenario.mishaps[place + 1 :]))


def _rounder(number: float) -> Iterator[float]:
    for digits in (0, 1, 2, 3):
        rounded = round(number, digits)
        if rounded == number:
            return  # as round as it gets
        if rounded > 0:
            yield rounded
