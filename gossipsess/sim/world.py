# World: virtual time, who runs where, and which ways are open. The ground that links and the cluster stand on.
#
#   after, run_until         one heap of (time, sequence, action) orders everything: a run is a function of its scenario
#   reach                    something gets to a process: at once, when it is done with what came before, or awake again
#   is_shut, clogged_for_s   what stands between two slots at the moment
#
# Not here: what processes do (cluster.py), what travels over links (wires.py), which faults there are (mishaps.py).

import heapq
from collections import Counter
from collections.abc import Callable
from itertools import count

from gossipsess.model.member import Address
from gossipsess.sim.network import Network
from gossipsess.sim.process import Process, Way
from gossipsess.sim.scenario import Scenario


class World:
    """What all processes share. Times are virtual seconds from its beginning."""

    def __init__(self, scenario: Scenario, *, trace: bool) -> None:
        self.scenario = scenario
        self.seed = scenario.seed
        self.network = Network(scenario.seed, scenario.faults)
        self.now_s = 0.0
        self.counts: Counter[str] = Counter()
        self.processes: list[Process] = []
        """All there ever were."""
        self.at: dict[Address, Process] = {}
        """Those that run."""
        self.silent: dict[Address, None] = {}
        """Addresses of machines that are gone, and refuse no connection."""
        self.foreign: dict[Address, None] = {}
        """Addresses where a node of another cluster is: a dial gets there, and ends with the greeting."""
        self.shut_ways: Counter[tuple[str, Way]] = Counter()
        """How many faults keep a way shut on a channel: ``all``, ``udp`` or ``tcp``."""
        self.clogged: dict[Way, float] = {}
        """Until when what goes a way does not arrive."""
        self.trace: list[str] | None = [] if trace else None
        self._heap: list[tuple[float, int, Callable[[], object]]] = []
        self._order = count()

    @property
    def live(self) -> list[Process]:
        """The processes that run and are not about to leave, by slot."""
        return sorted((one for one in self.at.values() if not one.leaving), key=lambda process: process.slot)

    def in_slot(self, slot: int) -> Process | None:
        """Return the process that runs in a slot, also one that is about to leave."""
        return next((process for process in self.at.values() if process.slot == slot), None)

    def after(self, delay_s: float, action: Callable[[], object]) -> None:
        """Do something later."""
        heapq.heappush(self._heap, (self.now_s + delay_s, next(self._order), action))

    def run_until(self, time_s: float) -> None:
        """Let everything happen that is due by then."""
        heap = self._heap
        while heap and heap[0][0] <= time_s:
            self.now_s, _, action = heapq.heappop(heap)
            action()
        self.now_s = time_s

    def reach(self, process: Process, action: Callable[[], object]) -> None:
        """Have something happen at a process as soon as it gets to it."""
        if process.paused:
            process.waiting.append(action)
            return
        at_s = max(self.now_s + process.lag_s, process.free_at_s)
        if at_s <= self.now_s:
            action()
        else:
            process.free_at_s = at_s
            self.after(at_s - self.now_s, lambda: process.waiting.append(action) if process.paused else action())

    def is_shut(self, channel: str, way: Way) -> bool:
        """Say whether nothing gets through on a way."""
        return self.shut_ways[channel, way] > 0 or self.shut_ways["all", way] > 0

    def clogged_for_s(self, way: Way) -> float:
        """Return how long what goes a way now is held up; 0 or less where it is not."""
        return self.clogged.get(way, 0.0) - self.now_s

    def luck(self, channel: str, label: str) -> float:
        """Return the luck, 0 .. 1, of the next happening of a kind."""
        return self.network.draw(channel, label, "")[0]

    def note(self, text: str) -> None:
        """Add a line to the trace."""
        if self.trace is not None:
            self.trace.append(f"{self.now_s:9.4f}  {text}")
