# Swarm: what one seed does to a cluster. Draws a scenario.
#
# Each seed arms a random part of the menu of faults only. With all of them at once, every run would be the same
# mush, in which a fault that hides another's traces is always there (Groce et al., "Swarm Testing", 2012).
# Requests come as browsers send them: a few sessions, several requests at once for the same one; now and then a
# logout or a login's rotation, and late requests under the old id. Crashes prefer the moment just after a write,
# where a promise is youngest.

import random
from typing import Final

from gossipsess.protocol.events import Confirm
from gossipsess.sim.knobs import KNOBS
from gossipsess.sim.network import Faults
from gossipsess.sim.scenario import REQUEST_KINDS, Mishap, Request, Scenario

NODES_MIN: Final = 2
NODES_MAX: Final = 9
NODES_DRAWN: Final = (2, 3, 4, 5, 6, 7)
NODES_WEIGHTS: Final = (15, 34, 22, 17, 8, 4)
CLIENTS_MAX: Final = 5
KEYS: Final = ("cart", "user", "theme")
REQUEST_WEIGHTS: Final = (18, 32, 20, 8, 4, 5, 5, 6, 2)
READING_WEIGHTS: Final = (50, 12, 6, 2, 20, 2, 2, 4, 2)
"""Where sessions end soon: one that is only read lives by what its holders tell each other."""
LOSS_MAX: Final = 0.3
SKEW_MS_MAX: Final = 4_900
"""Two clocks twice this apart still bear each other: ten seconds are refused."""
SKEW_MS_SUSPENDED_MAX: Final = 900
"""Where a machine is suspended: its wall clock must agree with its peers' within two seconds, or none confirms it."""
MENU: Final = {
    "processes": (("crash", 50), ("vanish", 20), ("leave", 20), ("blackout", 3), ("rolling", 7)),
    "pauses": (("pause", 60), ("slow", 40)),
    "partitions": (("split", 45), ("one way", 15), ("bridge", 10), ("flap", 15), ("clog", 15)),
    "clocks": (("day ahead", 1), ("suspend", 25), ("wall step", 25)),
}
ARMED: Final = {"processes": 0.7, "pauses": 0.35, "partitions": 0.6, "clocks": 0.12}
"""How often each group of the menu is armed."""


def draw(seed: int, *, nodes: int | None = None, loss_max: float = LOSS_MAX) -> Scenario:
    """Draw a scenario. `nodes`: None to draw it too. `loss_max`: the worst share of messages lost, 0 .. 1."""
    rng = random.Random(f"{seed} scenario")  # noqa: S311  # must repeat with the seed
    drawn = rng.choices(NODES_DRAWN, NODES_WEIGHTS)[0]
    nodes = nodes or drawn
    shared = rng.random() < 0.25
    idle_is_short = rng.random() < 0.3
    hurt_s = rng.uniform(10, 16) if idle_is_short else 8.0
    idle_ms = round(rng.uniform(3_000, 9_000)) if idle_is_short else 1_800_000
    requests = _requests(rng, nodes, hurt_s, READING_WEIGHTS if idle_is_short else REQUEST_WEIGHTS)
    swift = rng.random() < 0.5
    mishaps = _mishaps(rng, nodes, hurt_s, requests)
    wake_s = max((mishap.at_s + mishap.lasts_s for mishap in mishaps if mishap.kind == "suspend"), default=0.0)
    return Scenario(
        seed=seed,
        hosts=tuple(f"host{slot // 2 if shared else slot}" for slot in range(nodes)),
        faults=_faults(rng, loss_max),
        requests=requests,
        mishaps=mishaps,
        hurt_s=max(hurt_s, wake_s + 2),
        core=tuple(sorted(rng.sample(range(nodes), rng.randint(1, nodes - 1)))) if rng.random() < 0.2 else (),
        idle_ms=idle_ms,
        absolute_ms=idle_ms * (2 if idle_is_short and rng.random() < 0.3 else 24),
        skew_ms=min(_skew_ms(rng, idle_is_short), SKEW_MS_SUSPENDED_MAX if wake_s else SKEW_MS_MAX),
        drift=rng.choice((0.0, 0.0, 1e-5, 5e-4)),
        probe_interval_s=10 ** rng.uniform(-1.3, -0.6) if swift and rng.random() < 0.5 else 0.5,
        alone_s=rng.uniform(0.2, 2.0) if swift else 2.0,
        knobs=_knobs(rng) if swift else (),
        beacons=rng.random() < 0.15,
        codec=rng.random() < 0.3,
        watch=rng.random() < 0.3,
    )


def _skew_ms(rng: random.Random, idle_is_short: bool) -> int:
    # Clocks that differ by more than an idle timeout expire what is in use; nobody has both.
    return rng.choice((0, 200)) if idle_is_short else rng.choice((0, 500, 2_000, SKEW_MS_MAX))


def _faults(rng: random.Random, loss_max: float) -> Faults:
    return Faults(
        loss=rng.uniform(0, loss_max) if rng.random() < 0.85 else 0.0,
        duplicate=rng.uniform(0, 0.3) if rng.random() < 0.7 else 0.0,
        delay_s=10 ** rng.uniform(-3.3, -1.3),
        lossy_links=rng.random() < 0.55,
        link_life_s=rng.uniform(1, 6) if rng.random() < 0.4 else 0.0,
        dial_failure=rng.uniform(0, loss_max),
    )


def _knobs(rng: random.Random) -> tuple[tuple[str, float], ...]:
    knobs: list[tuple[str, float]] = []
    for name, knob in KNOBS.items():
        if knob.drawn and rng.random() < 0.6:
            value = rng.uniform(knob.least, knob.greatest)
            knobs.append((name, round(value) if knob.whole else value))
    return tuple(knobs)


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
                    rng.choices(REQUEST_KINDS, weights)[0],
                    rng.choice(confirms),
                    rng.choice(KEYS),
                )
            )
    return tuple(requests)


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
            return Mishap(at_s, kind, tuple(range(nodes)), 10 ** rng.uniform(-1.5, 0.6))
        case _:
            return Mishap(at_s, kind, (slot,), 10 ** rng.uniform(-1.5, 0.6), elsewhere=rng.random() < 0.25)
