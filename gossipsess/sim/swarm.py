# Swarm: what one seed does to a cluster. Draws a scenario.
#
# Each seed arms a random part of the menu of faults only. With all of them at once, every run would be the same
# mush, in which a fault that hides another's traces is always there (Groce et al., "Swarm Testing", 2012).
# Requests come as browsers send them: a few sessions, several requests at once for the same one; now and then a
# logout or a login's rotation, late requests under the old id, and in some runs users whose sessions are all ended.
# Crashes prefer the moment just after a write, where a promise is youngest.

import random
from typing import Final

from gossipsess.model.record import VALUE_BYTES_MAX
from gossipsess.protocol.events import Confirm
from gossipsess.sim.knobs import KNOBS, PLACES
from gossipsess.sim.network import Faults
from gossipsess.sim.scenario import PLAIN_KINDS, SUBKEY_KINDS, Mishap, Request, Scenario

NODES_MIN: Final = 2
NODES_MAX: Final = 20
NODES_DRAWN: Final = (2, 3, 4, 5, 6, 7)
NODES_WEIGHTS: Final = (15, 34, 22, 17, 8, 4)
CROWDS_DRAWN: Final = ((4, 4), (5, 5), (6, 9), (10, NODES_MAX))
CROWDS_WEIGHTS: Final = (30, 25, 35, 10)
"""Of how many nodes crowds are. Large ones are rare: a run costs with the square, and twenty nodes that place sessions
on two of them show little that nine do not."""
CLIENTS_MAX: Final = 5
KEYS: Final = ("cart", "user", "theme")
REQUEST_WEIGHTS: Final = (18, 32, 20, 8, 4, 5, 5, 6, 2, 4, 1)
READING_WEIGHTS: Final = (50, 12, 6, 2, 20, 2, 2, 4, 2, 4, 1)
"""Where sessions end soon: one that is only read lives by what its holders tell each other."""
BURSTS: Final = 0.04
"""How often one session is written hundreds of times within a second."""
LARGE_VALUES: Final = 0.03
"""How often values are of hundreds of kilobytes."""
LONG_SPLITS: Final = 0.02
"""How often a run is mostly a long split."""
LONG_SPLIT_S: Final = (20.0, 60.0)
REVOKING_WEIGHTS: Final = (14, 14, 10, 4, 4, 14, 3, 2, 2, 24, 9)
"""Where users log in on several devices, and have all their sessions ended."""
LOSS_MAX: Final = 0.3
SKEW_MS_MAX: Final = 4_900
"""Two clocks twice this apart still bear each other: ten seconds are refused."""
SKEW_MS_SUSPENDED_MAX: Final = 900
"""Where a machine is suspended: its wall clock must agree with its peers' within two seconds, or none confirms it."""
MENU: Final = {
    "processes": (("crash", 47), ("vanish", 18), ("foreign", 8), ("leave", 17), ("blackout", 3), ("rolling", 7)),
    "pauses": (("pause", 50), ("slow", 30), ("slow reader", 20)),
    "partitions": (("split", 45), ("one way", 15), ("bridge", 10), ("flap", 15), ("clog", 15)),
    "clocks": (("day ahead", 1), ("suspend", 25), ("wall step", 25)),
}
ARMED: Final = {"processes": 0.7, "pauses": 0.35, "partitions": 0.6, "clocks": 0.12}
"""How often each group of the menu is armed."""
MOVING: Final = 0.4
"""How often sessions change hands within seconds, and copies that are left over go, where there are nodes enough."""
MOVING_NODES_MIN: Final = 4
UNSAID: Final = 0.2
"""How often a write or two are told to nobody."""
SUBKEYS: Final = 0.35
"""How often a session has a counter and a set, and many requests use them at once."""
SUBKEY_USES: Final = (*SUBKEY_KINDS, "rotate", "invalidate")
SUBKEY_WEIGHTS: Final = (45, 18, 20, 12, 4, 1)
SUBKEY_CLIENT: Final = 200
FORMER: Final = 0.25
"""How often clients have a cookie of their framework's own sessions."""
FORMER_CLIENTS: Final = 100
"""The first of those; what other clients do is as it would be without them."""
FORMER_KINDS: Final = ("adopt", "read and write", "rotate", "invalidate", *SUBKEY_KINDS[:1])
FORMER_WEIGHTS: Final = (60, 15, 4, 9, 12)
LAPSES: Final = 0.25
"""How often sessions end by time while they are read, once all is well."""
LAPSES_MAX: Final = 3


def draw(seed: int, *, nodes: int | None = None, loss_max: float = LOSS_MAX, crowd: bool = False) -> Scenario:
    """Draw a scenario. `nodes`: None to draw it too. `loss_max`: the worst share of messages lost, 0 .. 1.

    `crowd`: of 4 to 20 nodes, on hosts in zones, with one or two secondaries and other bounds of all-to-all.
    """
    if crowd:
        rng = random.Random(f"{seed} crowd")  # noqa: S311  # must repeat with the seed
        drawn = rng.randint(*rng.choices(CROWDS_DRAWN, CROWDS_WEIGHTS)[0])
        return _crowded(rng, draw(seed, nodes=nodes or drawn, loss_max=loss_max))
    rng = random.Random(f"{seed} scenario")  # noqa: S311  # must repeat with the seed
    drawn = rng.choices(NODES_DRAWN, NODES_WEIGHTS)[0]
    nodes = nodes or drawn
    shared = rng.random() < 0.25
    idle_is_short = rng.random() < 0.3
    hurt_s = rng.uniform(10, 16) if idle_is_short else 8.0
    idle_ms = round(rng.uniform(3_000, 9_000)) if idle_is_short else 1_800_000
    revoking = REVOKING_WEIGHTS if rng.random() < 0.25 else REQUEST_WEIGHTS
    requests = _requests(rng, nodes, hurt_s, READING_WEIGHTS if idle_is_short else revoking)
    swift = rng.random() < 0.5
    beacons = rng.random() < 0.15
    mishaps = _mishaps(rng, nodes, hurt_s, requests)
    if idle_is_short:
        mishaps = _one_keeps_time(mishaps, nodes)
    wake_s = max((mishap.at_s + mishap.lasts_s for mishap in mishaps if mishap.kind == "suspend"), default=0.0)
    scenario = Scenario(
        seed=seed,
        hosts=tuple(f"host{slot // 2 if shared else slot}" for slot in range(nodes)),
        faults=_faults(rng, loss_max),
        requests=requests,
        mishaps=(*mishaps, *_unsaid(seed, nodes, hurt_s)),
        hurt_s=max(hurt_s, wake_s + 2),
        core=tuple(sorted(rng.sample(range(nodes), rng.randint(1, nodes - 1)))) if rng.random() < 0.2 else (),
        idle_ms=idle_ms,
        absolute_ms=idle_ms * (2 if idle_is_short and rng.random() < 0.3 else 24),
        skew_ms=min(_skew_ms(rng, idle_is_short), SKEW_MS_SUSPENDED_MAX if wake_s else SKEW_MS_MAX),
        drift=rng.choice((0.0, 0.0, 1e-5, 5e-4)),
        probe_interval_s=10 ** rng.uniform(-1.3, -0.6) if swift and rng.random() < 0.5 else 0.5,
        alone_s=rng.uniform(0.2, 2.0) if swift else 2.0,
        knobs=_knobs(rng) if swift else (),
        beacons=beacons,
        dead_seeds=rng.randint(1, 4) if rng.random() < (0.3 if beacons else 0.05) else 0,
        codec=rng.random() < 0.3,
        watch=rng.random() < 0.3,
        newer=tuple(sorted(rng.sample(range(nodes), rng.randint(1, nodes - 1)))) if rng.random() < 0.12 else (),
    )
    scenario = scenario._replace(knobs=(*scenario.knobs, *_moving(scenario)))
    scenario = _parted_for_long(rng, scenario) if rng.random() < LONG_SPLITS else scenario
    for more in (_subkeys, _former):
        scenario = scenario._replace(requests=(*scenario.requests, *more(scenario)))
    return scenario._replace(lapses=_lapses(seed))


def _crowded(rng: random.Random, scenario: Scenario) -> Scenario:
    """Place a scenario's nodes on hosts and in zones, and leave out what makes many of them dear."""
    slots = range(len(scenario.hosts))
    zones, workers = rng.choice((0, 0, 2, 3)), rng.choice((1, 1, 1, 2, 3))
    return scenario._replace(
        hosts=tuple(f"host{slot // workers}" for slot in slots),
        zones=tuple(f"zone{slot // workers % zones}" for slot in slots) if zones else (),
        secondaries=rng.choice((1, 1, 1, 2)),
        all_to_all_below=rng.choice((2, 4, 4, 4, len(slots), len(slots) + 1)),
        count_by=rng.choice(("node", "node", "host")),
        requests=tuple([_confirmed_twice(rng, request) for request in scenario.requests]),
        # Twenty nodes that probe each other twenty times a second would be most of a campaign.
        probe_interval_s=max(0.25, scenario.probe_interval_s),
    )


def _confirmed_twice(rng: random.Random, request: Request) -> Request:
    return request._replace(confirm=2) if request.confirm == 1 and rng.random() < 0.3 else request


def _parted_for_long(rng: random.Random, scenario: Scenario) -> Scenario:
    """Let a run be mostly one long split with a logout on one side; quiet, so that it costs little."""
    nodes, idle_ms = len(scenario.hosts), 1_800_000
    slots = tuple(rng.sample(range(nodes), rng.randint(1, nodes - 1)))
    begins_s, lasts_s = rng.uniform(1, 6), rng.uniform(*LONG_SPLIT_S)
    last = len(scenario.requests)
    client = rng.choice(scenario.requests).client if scenario.requests else 0
    # The logout, and on the other side what would bring the session back.
    late_s = sorted(begins_s + rng.uniform(0, lasts_s) for _ in range(4))
    kinds = ["invalidate", *rng.choices(("read", "write", "access", "read and write"), k=3)]
    rng.shuffle(kinds)
    requests = [
        Request(last + number, at_s, rng.randrange(nodes), client, kind, 0, rng.choice(KEYS))
        for number, (at_s, kind) in enumerate(zip(late_s, kinds, strict=True))
    ]
    return scenario._replace(
        requests=(*scenario.requests, *requests),
        mishaps=(*scenario.mishaps, Mishap(begins_s, "split", slots, lasts_s, breaks=rng.random() < 0.5)),
        hurt_s=begins_s + lasts_s + 0.5,
        idle_ms=idle_ms,
        absolute_ms=24 * idle_ms,
        probe_interval_s=0.5,
        # A tombstone must outlast the split; a sync each half second would make it dear.
        knobs=tuple(knob for knob in scenario.knobs if knob[0] not in ("tombstone_ms", "sync_every_s")),
    )


def _skew_ms(rng: random.Random, idle_is_short: bool) -> int:
    # Clocks that differ by more than an idle timeout expire what is in use; nobody has both.
    return rng.choice((0, 200)) if idle_is_short else rng.choice((0, 500, 2_000, SKEW_MS_MAX))


def _one_keeps_time(mishaps: tuple[Mishap, ...], nodes: int) -> tuple[Mishap, ...]:
    # A clock that stood still follows its wall clock once a peer confirms that. Where all have stood still, each for
    # another time, none does, and they stay apart by more than a short idle timeout.
    suspended = {mishap.slots[0] for mishap in mishaps if mishap.kind == "suspend"}
    return mishaps if len(suspended) < nodes else tuple([one for one in mishaps if one.kind != "suspend"])


def _faults(rng: random.Random, loss_max: float) -> Faults:
    return Faults(
        loss=rng.uniform(0, loss_max) if rng.random() < 0.85 else 0.0,
        duplicate=rng.uniform(0, 0.3) if rng.random() < 0.7 else 0.0,
        delay_s=10 ** rng.uniform(-3.3, -1.3),
        lossy_links=rng.random() < 0.55,
        link_life_s=rng.uniform(1, 6) if rng.random() < 0.4 else 0.0,
        dial_failure=rng.uniform(0, loss_max),
        beacon_loss=rng.uniform(0.3, 0.9) if rng.random() < 0.2 else 0.0,
    )


def _knobs(rng: random.Random) -> tuple[tuple[str, float], ...]:
    knobs: list[tuple[str, float]] = []
    for name, knob in KNOBS.items():
        if knob.drawn and rng.random() < 0.6:
            value = rng.uniform(knob.least, knob.greatest)
            knobs.append((name, round(value) if knob.whole else value))
    return tuple(knobs)


def _moving(scenario: Scenario) -> tuple[tuple[str, float], ...]:
    # Drawn apart: what else happens in such a run is what would have happened without. Where a clock stands still, an
    # answer of long ago looks new; nobody gives up a copy on it as long as the quiet is longer than a suspension.
    rng = random.Random(f"{scenario.seed} moving")  # noqa: S311  # must repeat with the seed
    suspended = any(mishap.kind == "suspend" for mishap in scenario.mishaps)
    if suspended or len(scenario.hosts) < MOVING_NODES_MIN or rng.random() >= MOVING:
        return ()
    return tuple([(name, rng.uniform(KNOBS[name].least, KNOBS[name].greatest)) for name in PLACES])


def _requests(rng: random.Random, nodes: int, hurt_s: float, weights: tuple[int, ...]) -> tuple[Request, ...]:
    clients = rng.randint(1, CLIENTS_MAX)
    sticky = rng.random() < 0.2
    confirms: tuple[Confirm, ...] = (0, 1, "all")
    requests: list[Request] = []
    at_s = 0.3
    for _ in range(rng.randint(8, 20)):
        at_s += rng.expovariate(16 / hurt_s)
        if at_s >= hurt_s:
            break
        client = rng.randrange(clients)
        for _ in range(rng.randint(1, 5)):  # a page's requests come together
            requests.append(
                Request(
                    len(requests),
                    at_s + rng.uniform(0, 0.03),
                    client % nodes if sticky else rng.randrange(nodes),
                    client,
                    rng.choices(PLAIN_KINDS, weights)[0],
                    rng.choice(confirms),
                    rng.choice(KEYS),
                )
            )
    if rng.random() < BURSTS:
        requests += _burst(rng, nodes, hurt_s, len(requests))
    if rng.random() < LARGE_VALUES:
        requests = [request._replace(value_bytes=rng.randint(50_000, VALUE_BYTES_MAX)) for request in requests]
    return tuple(requests)


def _burst(rng: random.Random, nodes: int, hurt_s: float, number: int) -> list[Request]:
    """Return hundreds of writes to one session within a second, at one node or two."""
    slots = rng.sample(range(nodes), rng.randint(1, 2))
    begins_s, client = rng.uniform(0.5, hurt_s - 1), rng.randrange(CLIENTS_MAX)
    confirms: tuple[Confirm, ...] = (0, 0, 0, 1)
    times_s = sorted(begins_s + rng.random() for _ in range(rng.randint(100, 300)))
    return [
        Request(number + more, at_s, rng.choice(slots), client, "write", rng.choice(confirms), rng.choice(KEYS))
        for more, at_s in enumerate(times_s)
    ]


def _mishaps(rng: random.Random, nodes: int, hurt_s: float, requests: tuple[Request, ...]) -> tuple[Mishap, ...]:
    kinds: list[str] = []
    weights: list[int] = []
    for group, choices in MENU.items():
        if rng.random() < ARMED[group]:
            kinds += [kind for kind, _ in choices]
            weights += [weight for _, weight in choices]
    if not kinds:
        return ()
    mishaps: list[Mishap] = []
    for _ in range(rng.choice((1, 2, 2, 3, 4, 5))):
        at_s, slot = rng.uniform(0.5, hurt_s), rng.randrange(nodes)
        if requests and rng.random() < 0.5:
            last = rng.choice(requests)
            at_s, slot = last.at_s + 10 ** rng.uniform(-4, -1), last.slot
        mishaps.append(_mishap(rng, rng.choices(kinds, weights)[0], at_s, slot, nodes))
    return tuple(mishaps)


def _unsaid(seed: int, nodes: int, hurt_s: float) -> tuple[Mishap, ...]:
    # Drawn apart: what else happens in a run with such a bug is what would have happened without.
    rng = random.Random(f"{seed} unsaid")  # noqa: S311  # must repeat with the seed
    if rng.random() >= UNSAID:
        return ()
    many = rng.choice((1, 1, 2))
    return tuple([Mishap(rng.uniform(0.5, hurt_s), "unsaid", (rng.randrange(nodes),), 0.0) for _ in range(many)])


def _subkeys(scenario: Scenario) -> list[Request]:
    # Drawn apart: what else is asked for in such a run is what would have been asked for without.
    rng = random.Random(f"{scenario.seed} sub-keys")  # noqa: S311  # must repeat with the seed
    if rng.random() >= SUBKEYS:
        return []
    moments = [(SUBKEY_CLIENT, rng.randint(2, 5)) for _ in range(rng.randint(3, 7))]
    key = rng.choice(KEYS)
    used = [request._replace(key=key) for request in _at_moments(rng, scenario, moments, SUBKEY_USES, SUBKEY_WEIGHTS)]
    return [used[0]._replace(number=used[-1].number + 1, at_s=rng.uniform(0.3, 0.5), kind="write"), *used]


def _former(scenario: Scenario) -> list[Request]:
    # Drawn apart, as well.
    rng = random.Random(f"{scenario.seed} former")  # noqa: S311  # must repeat with the seed
    if rng.random() >= FORMER:
        return []
    clients = range(FORMER_CLIENTS, FORMER_CLIENTS + rng.randint(1, 2))
    moments = [(rng.choice(clients), rng.randint(2, 4)) for _ in range(rng.randint(4, 8))]
    return _at_moments(rng, scenario, moments, FORMER_KINDS, FORMER_WEIGHTS)


def _lapses(seed: int) -> int:
    # Drawn apart, and at the end: up to there the run is what it would be without.
    rng = random.Random(f"{seed} lapses")  # noqa: S311  # must repeat with the seed
    return rng.randint(1, LAPSES_MAX) if rng.random() < LAPSES else 0


def _at_moments(
    rng: random.Random,
    scenario: Scenario,
    moments: list[tuple[int, int]],
    kinds: tuple[str, ...],
    weights: tuple[int, ...],
) -> list[Request]:
    """Return requests of clients, so many of one at once, at any nodes."""
    confirms: tuple[Confirm, ...] = (0, 1, "all")
    first = max((request.number + 1 for request in scenario.requests), default=0)
    requests: list[Request] = []
    for client, many in moments:
        at_s = rng.uniform(0.5, scenario.hurt_s - 0.1)
        for _ in range(many):
            requests.append(
                Request(
                    first + len(requests),
                    at_s + rng.uniform(0, 0.05),
                    rng.randrange(len(scenario.hosts)),
                    client,
                    rng.choices(kinds, weights)[0],
                    rng.choice(confirms),
                    rng.choice(KEYS),
                )
            )
    return requests


def _mishap(rng: random.Random, kind: str, at_s: float, slot: int, nodes: int) -> Mishap:
    others = [other for other in range(nodes) if other != slot]
    match kind:
        case "pause":
            return Mishap(at_s, kind, (slot,), 10 ** rng.uniform(-1, 1.1))
        case "suspend":
            # Longer than clocks may differ; with every pause and split after it, shorter than tombstones are kept.
            return Mishap(at_s, kind, (slot,), rng.uniform(12, 25))
        case "wall step":
            return Mishap(at_s, kind, (slot,), rng.uniform(1, 30), period_s=rng.choice((-3600.0, 3600.0)))
        case "slow":
            return Mishap(at_s, kind, (slot,), rng.uniform(0.5, 4), period_s=10 ** rng.uniform(-2.5, -0.7))
        case "one way" | "clog":
            return Mishap(at_s, kind, (slot, rng.choice(others)), rng.uniform(0.2, 5))
        case "split" | "flap" | "bridge":
            many = 1 if rng.random() < 0.5 else rng.randint(1, nodes - 1)
            group = (slot, *rng.sample(others, many - 1))
            return Mishap(
                at_s,
                kind,
                group if kind != "bridge" or len(group) > 1 else (slot, others[0]),
                10 ** rng.uniform(-1, 0.8),
                period_s=rng.uniform(0.1, 1.0) if kind == "flap" else 0.0,
                channel=rng.choices(("all", "udp", "tcp"), (70, 15, 15))[0],
                breaks=rng.random() < 0.5,
            )
        case "rolling":
            return Mishap(at_s, kind, tuple(range(nodes)), rng.uniform(0.05, 0.5), period_s=rng.uniform(0.3, 1.5))
        case "blackout":
            apart_s = rng.uniform(0.1, 1.0) if rng.random() < 0.5 else 0.0
            return Mishap(at_s, kind, tuple(range(nodes)), 10 ** rng.uniform(-1.5, 0.6), period_s=apart_s)
        case "slow reader":
            return Mishap(at_s, kind, (slot,), rng.uniform(0.5, 4), period_s=10 ** rng.uniform(-2, -0.3))
        case _:
            return Mishap(at_s, kind, (slot,), 10 ** rng.uniform(-1.5, 0.6), elsewhere=rng.random() < 0.25)
