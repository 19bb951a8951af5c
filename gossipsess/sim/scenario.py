# Scenario: everything one run needs, as plain data that can be saved, replayed and made smaller.
#
# In:    a seed's draws (swarm.py), or a JSON file.    Out: the same, for run.py.
# What is not listed here (the fate of each message, each process's clock and id) is drawn on the way from
# `Scenario.seed` by what it belongs to, so that taking a request or a mishap out leaves the rest as it was.
# Why files and not seeds are kept as regressions: a change of the machine or of the draws gives a seed another
# meaning; a file keeps its own.

import json
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from gossipsess.protocol.events import Confirm
from gossipsess.sim.network import Faults

PLAIN_KINDS: Final = (
    "read",
    "write",
    "read and write",
    "delete",
    "access",
    "rotate",
    "invalidate",
    "log in",
    "old cookie",
    "log in as",
    "revoke",
)
SUBKEY_KINDS: Final = ("count", "clear counter", "collect", "discard")
"""What requests do with a counter or a set of their session; the key is its name."""
REQUEST_KINDS: Final = (*PLAIN_KINDS, *SUBKEY_KINDS, "adopt")
MISHAP_KINDS: Final = (
    "crash",
    "vanish",
    "foreign",
    "leave",
    "blackout",
    "rolling",
    "pause",
    "slow",
    "slow reader",
    "day ahead",
    "suspend",
    "wall step",
    "split",
    "one way",
    "bridge",
    "flap",
    "clog",
    "unsaid",
)


class Request(NamedTuple):
    """One request of the workload."""

    number: int
    """Its place in the drawn list, which its value names; kept when others are taken out."""
    at_s: float
    slot: int
    """Where the balancer sends it; the next slot that serves takes it."""
    client: int
    kind: str
    """One of `REQUEST_KINDS`."""
    confirm: Confirm
    key: str
    value_bytes: int = 0
    """How long the value is at least."""


class Mishap(NamedTuple):
    """One thing that happens to slots, or between them. Which fields count depends on the kind."""

    at_s: float
    kind: str
    """One of `MISHAP_KINDS`:

    ``crash``, ``vanish`` (the machine goes too), ``leave``: the process of a slot ends, and starts again later;
    ``foreign``: it crashes, and a node of another cluster has its address until it starts again;
    ``blackout``: all of them crash together, and start `period_s` apart, so that the first find nobody;
    ``rolling``: one after the other leaves and starts again;
    ``pause``: it stands still, and serves all deadlines late;    ``slow``: it takes `period_s` over everything;
    ``slow reader``: it takes a message from its links each `period_s` only;
    ``day ahead``: it starts again with a clock that is a day ahead;
    ``suspend``: it stands still and so does its monotonic clock;    ``wall step``: its wall clock is set by `period_s`;
    ``split``: the slots from the others;    ``one way``: the first slot does not reach the second;
    ``bridge``: the last slot reaches all, the other slots reach only it and each other;
    ``flap``: a split that comes and goes each `period_s`;    ``clog``: what two slots say arrives at its end;
    ``unsaid``: of what it is to hold, a slot tells nobody its next write, as by a bug that no rule foresees.
    """
    slots: tuple[int, ...]
    lasts_s: float
    period_s: float = 0.0
    channel: str = "all"
    """What a split keeps out: ``all``, ``udp`` or ``tcp``."""
    breaks: bool = False
    """A split also breaks the links across it; else they stand, and are silent."""
    elsewhere: bool = False
    """The process starts again at another address."""


class Scenario(NamedTuple):
    """One run. Times are virtual seconds from its beginning."""

    seed: int
    hosts: tuple[str, ...]
    """The host of each slot; a slot is a place where one process at a time runs."""
    faults: Faults
    """How bad the network is until the heal."""
    requests: tuple[Request, ...]
    mishaps: tuple[Mishap, ...]
    hurt_s: float = 8.0
    """When the faults end."""
    core: tuple[int, ...] = ()
    """The only slots that heal; the others stay dead. Empty: all heal."""
    idle_ms: int = 1_800_000
    absolute_ms: int = 43_200_000
    skew_ms: int = 0
    """How wrong a process's wall clock may be, either way; each start draws its own."""
    drift: float = 0.0
    """How much faster or slower a process's clock may run, as a share."""
    probe_interval_s: float = 0.5
    alone_s: float = 2.0
    knobs: tuple[tuple[str, float], ...] = ()
    """Constants of the machine and their values in this run, by their names in knobs.py."""
    beacons: bool = False
    """Nodes find each other by beacons, and know no seeds that run."""
    named: bool = False
    """Nodes find each other by a name service, and know no seeds that run."""
    dead_seeds: int = 0
    """How many seeds of each node are addresses where none of them ever is: their machines refuse, say nothing, or
    belong to another cluster."""
    seed_slots: tuple[int, ...] = ()
    """The only slots whose addresses a process knows when it starts. Empty: all, also those of who moved."""
    codec: bool = False
    """Messages go through bytes."""
    watch: bool = False
    """Every process has subscribers."""
    zones: tuple[str, ...] = ()
    """The zone of each slot's host. Empty: nobody says."""
    all_to_all_below: int = 4
    """Below so many nodes every node holds every session."""
    secondaries: int = 1
    """Copies of a session beside the primary's, from there on."""
    count_by: Literal["node", "host"] = "node"
    """What is counted against that number."""
    lapses: int = 0
    """How many sessions end by time once all is well, while they are read at every node."""
    newer: tuple[int, ...] = ()
    """Slots whose processes are of a newer version: what they say goes through bytes, with more in them than this
    version knows, and now and then a message of a kind that it does not know."""


def to_json(scenario: Scenario) -> dict[str, Any]:
    """Return a scenario as JSON types; fields that have their default are left out."""
    fields: dict[str, Any] = _told(scenario)
    fields["faults"] = _told(scenario.faults)
    fields["requests"] = [_told(request) for request in scenario.requests]
    fields["mishaps"] = [_told(mishap) for mishap in scenario.mishaps]
    return fields


def from_json(fields: dict[str, Any]) -> Scenario:
    """Return the scenario that `to_json` told.

    Raises:
        ValueError: it is not one, or one of another version.
    """
    try:
        scenario = Scenario(
            **{
                **fields,
                "hosts": tuple(fields["hosts"]),
                "faults": Faults(**fields["faults"]),
                "requests": tuple(Request(**request) for request in fields["requests"]),
                "mishaps": tuple(Mishap(**{**mishap, "slots": tuple(mishap["slots"])}) for mishap in fields["mishaps"]),
                "core": tuple(fields.get("core", ())),
                "newer": tuple(fields.get("newer", ())),
                "zones": tuple(fields.get("zones", ())),
                "seed_slots": tuple(fields.get("seed_slots", ())),
                "knobs": tuple((name, value) for name, value in fields.get("knobs", ())),
            }
        )
    except (KeyError, TypeError) as wrong:
        raise ValueError(f"this is no scenario of this version: {wrong}") from wrong
    kinds = [request.kind not in REQUEST_KINDS for request in scenario.requests]
    kinds += [mishap.kind not in MISHAP_KINDS for mishap in scenario.mishaps]
    slots = [slot for mishap in scenario.mishaps for slot in mishap.slots]
    named = (*slots, *scenario.core, *scenario.newer, *scenario.seed_slots)
    if scenario.zones and len(scenario.zones) != len(scenario.hosts):
        raise ValueError("this is no scenario of this version: it has a zone for each host, or none")
    if any(kinds) or any(not 0 <= slot < len(scenario.hosts) for slot in named):
        raise ValueError("this is no scenario of this version: it names an unknown kind or slot")
    return scenario


def load(file: Path) -> Scenario:
    """Read a scenario file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a scenario file.
    """
    content = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not isinstance(content.get("scenario"), dict):
        raise ValueError(f"{file} is no scenario file: it is an object with a 'scenario'")
    return from_json(content["scenario"])


def save(file: Path, scenario: Scenario, **about: str) -> None:
    """Write a scenario file; `about` stands beside the scenario, for who reads it."""
    lines = json.dumps({**about, "scenario": to_json(scenario)}, indent=1)
    file.write_text(lines + "\n", encoding="utf-8")


def _told(part: Any) -> dict[str, Any]:
    defaults = part._field_defaults
    return {name: value for name, value in part._asdict().items() if name not in defaults or value != defaults[name]}
