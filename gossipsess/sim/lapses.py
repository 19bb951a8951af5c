# Lapses: sessions that end by time once all is well, and are read at that very moment, at every node.
#
# When a session is over each node finds by its own clock, and it looks once a second. So for a while a node at which
# it is over asks another one that holds it yet. A visitor must be told then that there is none, and not an error.
#
# In:    how many, by the scenario.    Out: requests, and time passes until all those sessions have gone.
# All of them live long at first, so that no clock refuses them; then a write ends each in a moment, by its absolute or
# its idle timeout. Not here: what reads must be told (calm.py).

from functools import partial
from typing import Final

from gossipsess.model.identity import SID_BYTES, Sid
from gossipsess.model.record import ABSOLUTE, CREATED, IDLE
from gossipsess.model.table import register_value, touch_grain_ms
from gossipsess.protocol.events import Dot, Fetch, Write
from gossipsess.protocol.fetch import FETCH_TIMEOUT_S
from gossipsess.protocol.writes import Written
from gossipsess.sim.cluster import Cluster
from gossipsess.sim.network import luck
from gossipsess.sim.process import Process
from gossipsess.sim.workload import Waiter

TOLD_S: Final = 0.3
"""After which all holders have what was written, with all well."""
LEFT_MS: Final = 1300
"""How long the first clock lets a session live yet when its end is written: a copy must be confirmed again by then."""
EARLY_S: Final = 0.05
"""When a session is read at half of the nodes, after that: it leaves copies where it need not be."""
READS_S: Final = ((-0.02, 0.02), (-0.02, 0.02), (0.0, 1.1))
"""Between which moments it is read at each node, from when it is over there by the node's own clock."""
LOOK_EVERY_S: Final = 0.25
GONE_S: Final = 30.0
"""Longer than clocks differ: what is held then is an old copy, which knows nothing of the new end."""


class Lapses:
    """The sessions of one cluster that end while they are read."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def run(self) -> None:
        """Let them begin, come to their ends, and be gone."""
        cluster = self._cluster
        sids = [f"lapses {number}".encode("ascii").ljust(SID_BYTES, b"-") for number in range(cluster.scenario.lapses)]
        for number, sid in enumerate(sids):
            self._begin(self._writer(number), sid)
        cluster.run_until(cluster.now_s + TOLD_S)
        read_by_s = max(self._end(self._writer(number), number, sid) for number, sid in enumerate(sids))
        cluster.run_until(read_by_s + FETCH_TIMEOUT_S + LOOK_EVERY_S)
        until_s = cluster.now_s + GONE_S
        while cluster.now_s < until_s and any(sid in one.records for one in cluster.live for sid in sids):
            cluster.run_until(cluster.now_s + LOOK_EVERY_S)

    def _writer(self, number: int) -> Process:
        live = self._cluster.live
        return live[int(luck(self._cluster.seed, "lapses at", number)[0] * len(live))]

    def _wall_ms(self, process: Process) -> int:
        return process.wall_ms(self._cluster.now_s)

    def _begin(self, process: Process, sid: Sid) -> None:
        time_ms, hour_ms = self._wall_ms(process), 3_600_000
        registers = ((CREATED, time_ms), (IDLE, hour_ms), (ABSOLUTE, time_ms + 2 * hour_ms))
        changes = tuple([(key, register_value(value)) for key, value in registers])
        self._cluster.submit(process, Write(sid, changes, 0, Waiter()))

    def _end(self, process: Process, number: int, sid: Sid) -> float:
        """Write when a session ends, and have it read then; return when it is read last."""
        cluster, last_s = self._cluster, 0.0
        ends_ms = max(self._wall_ms(one) for one in cluster.live) + LEFT_MS
        change = (ABSOLUTE, register_value(ends_ms))
        if luck(cluster.seed, "lapses how", number)[0] < 0.5:
            idle_ms = ends_ms - self._wall_ms(process)
            ends_ms += touch_grain_ms(idle_ms)
            change = (IDLE, register_value(idle_ms))
        written = cluster.submit(process, Write(sid, (change,), 0, Waiter()))
        assert isinstance(written, Written)
        for reader in cluster.live:
            left_s = (ends_ms - self._wall_ms(reader)) / 1000
            if luck(cluster.seed, "lapses early", number, reader.label)[0] < 0.5:
                cluster.after(EARLY_S, partial(self._read, reader, sid, ()))
            for read, (from_s, to_s) in enumerate(READS_S):
                chance, token, *_ = luck(cluster.seed, "lapses read", number, reader.label, read)
                dots = ((process.node, written.stamp),) if token < 0.5 else ()
                after_s = max(0.0, left_s + from_s + chance * (to_s - from_s))
                cluster.after(after_s, partial(self._read, reader, sid, dots))
                last_s = max(last_s, cluster.now_s + after_s)
        return last_s

    def _read(self, reader: Process, sid: Sid, dots: tuple[Dot, ...]) -> None:
        self._cluster.submit(reader, Fetch(sid, dots, Waiter()))
