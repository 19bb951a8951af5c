# Mishaps: carries out what a scenario does to processes and to the ways between them, and undoes it at the heal.
#
# In:    a scenario's mishaps.    Out: calls to the cluster, at their time.
# What is under way when the faults end (a rolling restart, a split) ends with them: `stop` makes every later
# step of it void, and the cluster's own `heal` restores the ways.

from collections.abc import Callable
from functools import partial
from typing import Final

from gossipsess.sim.cluster import Cluster
from gossipsess.sim.process import Process, Way
from gossipsess.sim.scenario import Mishap

SHORTEST_S: Final = 0.02
"""A split that comes and goes faster than this is none."""


class Mishaps:
    """The mishaps of one run."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._over = False
        for mishap in cluster.scenario.mishaps:
            self._later(mishap.at_s, partial(self._strike, mishap))

    def stop(self) -> None:
        """End them all, but for what they did to processes."""
        self._over = True

    def start_again(self, slot: int, *, elsewhere: bool = False) -> None:
        """Start a process in a slot that has none."""
        if self._cluster.in_slot(slot) is None:
            self._cluster.counts["restarts"] += 1
            self._cluster.start(slot, elsewhere=elsewhere)

    def _later(self, delay_s: float, action: Callable[[], object]) -> None:
        self._cluster.after(delay_s, lambda: None if self._over else action())

    def _strike(self, mishap: Mishap) -> None:
        cluster, slot, lasts_s = self._cluster, mishap.slots[0], mishap.lasts_s
        cluster.counts[mishap.kind] += 1
        process = cluster.in_slot(slot)
        again = partial(self.start_again, slot, elsewhere=mishap.elsewhere)
        match mishap.kind:
            case "crash" | "vanish" if process is not None:
                cluster.crash(process, silent=mishap.kind == "vanish")
                self._later(lasts_s, again)
            case "foreign" if process is not None:
                cluster.crash(process, silent=False)
                cluster.foreign[process.address] = None
                self._later(lasts_s, again)
            case "blackout":
                for number, each in enumerate(mishap.slots):
                    victim = cluster.in_slot(each)
                    if victim is not None:
                        cluster.crash(victim, silent=False)
                    self._later(lasts_s + number * mishap.period_s, partial(self.start_again, each))
            case "leave" if process is not None and not process.leaving:
                self._leave(process, lasts_s, elsewhere=mishap.elsewhere)
            case "rolling":
                for number, each in enumerate(mishap.slots):
                    self._later(number * mishap.period_s, partial(self._roll, each, lasts_s))
            case "pause" if process is not None and not process.paused:
                cluster.pause(process)
                self._later(lasts_s, partial(cluster.resume, process))
            case "suspend" if process is not None and not process.paused:
                cluster.pause(process, clock_stops=True)
                self._later(lasts_s, partial(cluster.resume, process))
            case "wall step" if process is not None:
                process.stepped_ms = round(mishap.period_s * 1000)
                self._later(lasts_s, partial(setattr, process, "stepped_ms", 0))
            case "slow" if process is not None:
                process.lag_s = mishap.period_s
                self._later(lasts_s, partial(setattr, process, "lag_s", 0.0))
            case "slow reader" if process is not None:
                process.read_s = mishap.period_s
                self._later(lasts_s, partial(setattr, process, "read_s", 0.0))
            case "day ahead" if process is not None:
                cluster.day_ahead[slot] = None
                cluster.crash(process, silent=False)
                self._later(min(lasts_s, 0.2), again)
            case "unsaid" if process is not None:
                process.forgets_to_tell = True
            case "split" | "one way" | "bridge":
                self._shut(mishap, lasts_s)
            case "flap":
                self._flap(mishap, cluster.now_s + lasts_s)
            case "clog":
                cluster.note(f"clogged for {lasts_s:.2f} s: {_ways(mishap, range(0))}")
                cluster.clog(_ways(mishap, range(0)), cluster.now_s + lasts_s)
            case _:
                pass  # whom it was meant for is not there

    def _leave(self, process: Process, away_s: float, *, elsewhere: bool) -> None:
        self._cluster.leave(process)
        self._later(away_s, partial(self._follow, process, elsewhere=elsewhere))

    def _follow(self, process: Process, *, elsewhere: bool) -> None:
        if process.alive:
            self._later(0.1, partial(self._follow, process, elsewhere=elsewhere))
        else:
            self.start_again(process.slot, elsewhere=elsewhere)

    def _roll(self, slot: int, away_s: float) -> None:
        process = self._cluster.in_slot(slot)
        if process is not None and not process.leaving:
            self._leave(process, away_s, elsewhere=False)

    def _shut(self, mishap: Mishap, lasts_s: float) -> None:
        cluster = self._cluster
        ways = _ways(mishap, range(len(cluster.scenario.hosts)))
        cluster.note(f"shut for {lasts_s:.2f} s, {mishap.channel}: {ways}")
        cluster.shut(mishap.channel, ways)
        if mishap.breaks:
            cluster.break_links(ways)
        self._later(lasts_s, partial(cluster.open, mishap.channel, ways))

    def _flap(self, mishap: Mishap, until_s: float) -> None:
        if self._cluster.now_s < until_s:
            self._shut(mishap, mishap.period_s / 2)
            self._later(max(mishap.period_s, SHORTEST_S), partial(self._flap, mishap, until_s))


def _ways(mishap: Mishap, slots: range) -> list[Way]:
    match mishap.kind:
        case "one way":
            return [(mishap.slots[0], mishap.slots[1])]
        case "clog":
            return [(mishap.slots[0], mishap.slots[1]), (mishap.slots[1], mishap.slots[0])]
        case "bridge":
            here, both = mishap.slots[:-1], mishap.slots[-1:]
        case _:
            here, both = mishap.slots, ()
    there = [slot for slot in slots if slot not in here and slot not in both]
    return [way for a in here for b in there for way in ((a, b), (b, a))]
