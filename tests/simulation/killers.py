"""Scenarios made by hand for moments in which sessions change hands: where a copy is most easily lost or brought back.

Each is a builder and no file: it says in what order things happen, and its length follows from that. None knows which
node holds what; where that matters, each pair of nodes takes its turn.
"""

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Final

from gossipsess.protocol.events import Confirm
from gossipsess.sim.network import Faults
from gossipsess.sim.scenario import Mishap, Request, Scenario

KINDS: Final = ("write", "read and write", "read", "write", "rotate", "read", "access", "log in", "read", "invalidate")
CONFIRMS: Final[tuple[Confirm, ...]] = (1, "all", 0)
KEYS: Final = ("cart", "theme")
FLAP_S: Final = 8.0
"""Shorter than a name that has ended still counts."""
QUIET_S: Final = 60.0
"""How long nobody touches a copy that its node need not hold before it may go."""


def requests(from_s: float, to_s: float, every_s: float, nodes: int, kinds: Sequence[str] = KINDS) -> list[Request]:
    """Return what four browsers ask, evenly spread over time and, by turns, over the nodes."""
    times = int((to_s - from_s) / every_s)
    return [
        Request(
            number,
            round(from_s + number * every_s, 6),
            number % nodes,
            number % 4,
            kinds[number // 4 % len(kinds)],
            CONFIRMS[number // 4 % len(CONFIRMS)],
            KEYS[number // 8 % len(KEYS)],
        )
        for number in range(times)
    ]


def scenario(nodes: int, asked: list[Request], mishaps: Sequence[Mishap], hurt_s: float, **fields: int) -> Scenario:
    """Return a run in a network that loses little. Its requests are numbered anew, in their order."""
    ordered = sorted(asked, key=lambda request: request.at_s)
    return Scenario(
        seed=nodes,
        hosts=tuple(f"host{slot}" for slot in range(nodes)),
        faults=Faults(loss=0.02, delay_s=0.002),
        requests=tuple(request._replace(number=number) for number, request in enumerate(ordered)),
        mishaps=tuple(mishaps),
        hurt_s=hurt_s,
        **fields,
    )


def flapping() -> Scenario:
    """Three nodes become four and three again every eight seconds, under writes; the fourth leaves, or is killed."""
    mishaps = [
        Mishap(FLAP_S * (1 + 2 * time), "leave" if time % 2 else "crash", (3,), FLAP_S, elsewhere=time == 2)
        for time in range(4)
    ]
    ends_s = 9 * FLAP_S
    return scenario(4, requests(1.0, ends_s, 0.2, 4), mishaps, ends_s)


def both_holders_paused() -> Scenario:
    """Each pair of five nodes stands still together for as long as requests wait, and longer; the others are asked."""
    pairs = list(combinations(range(5), 2))
    mishaps = [Mishap(3.0 + 5.0 * turn, "pause", (slot,), 2.0) for turn, pair in enumerate(pairs) for slot in pair]
    ends_s = 3.0 + 5.0 * len(pairs)
    return scenario(5, requests(1.0, ends_s, 0.1, 5), mishaps, ends_s)


def origin_killed_between_two_sends() -> Scenario:
    """Each of five nodes is killed just after a write that two of the others did not get."""
    mishaps: list[Mishap] = []
    asked = requests(1.0, 2.5, 0.1, 5, ("write",))
    for turn in range(10):
        at_s, slot = 3.0 + 4.0 * turn, turn % 5
        mishaps += [
            Mishap(at_s - 0.001, "one way", (slot, (slot + other) % 5), 2.0, breaks=True)
            for other in ((1, 2) if turn < 5 else (2, 4))
        ]
        mishaps.append(Mishap(at_s + 0.004 + 0.002 * (turn % 3), "crash", (slot,), 1.5))
        asked += [Request(0, at_s + 0.001 * client, slot, client, "write", 0, "cart") for client in range(4)]
        asked += requests(at_s + 0.3, at_s + 3.5, 0.2, 5, ("read", "read and write"))
    return scenario(5, asked, mishaps, 43.0)


def drop_race() -> Scenario:
    """Copies are left over where one node went and a new one came, and when they go, holders begin to die.

    Of one write of each node nobody was told: not all that is left over is with its holders.
    """
    # That a node vanished is known by 10.7 s; nothing changes hands from then on. Of what not all holders had at the
    # first look after the quiet, more goes at the next, ten seconds later.
    dropped_s = 10.7 + QUIET_S + 10.0
    mishaps = [Mishap(4.0, "leave", (5,), 1.0, elsewhere=True), Mishap(8.0, "vanish", (4,), 1.0, elsewhere=True)]
    mishaps += [Mishap(11.0, "unsaid", (slot,), 0.0) for slot in range(6)]
    mishaps += [Mishap(dropped_s + 1.5 * turn, "crash", (turn % 6,), 1.0) for turn in range(12)]
    ends_s = dropped_s + 20.0
    asked = [
        *requests(1.0, 12.0, 0.15, 6, ("write", "read")),
        *requests(5.0 + QUIET_S, ends_s, 0.5, 6, ("read", "write", "invalidate", "log in")),
    ]
    return scenario(6, asked, mishaps, ends_s)


def join_during_a_rolling_restart() -> Scenario:
    """A sixth node comes while the five leave and start again, one after the other."""
    mishaps = [
        Mishap(0.5, "crash", (5,), 6.0, elsewhere=True),
        Mishap(4.0, "rolling", (0, 1, 2, 3, 4), 0.5, period_s=1.5),
        Mishap(14.0, "rolling", (4, 3, 2, 1, 0), 0.2, period_s=0.8),
    ]
    return scenario(6, requests(1.0, 20.0, 0.1, 6), mishaps, 20.0)


def split_around_the_threshold() -> Scenario:
    """Three of five are apart from two: each side has too few nodes for primaries, and there are enough together."""
    mishaps = [
        Mishap(4.0, "split", (0, 1, 2), 20.0, breaks=True),
        Mishap(34.0, "split", (1, 3), 12.0),
    ]
    return scenario(5, requests(1.0, 54.0, 0.2, 5), mishaps, 56.0)


KILLERS: Final[dict[str, Callable[[], Scenario]]] = {
    builder.__name__: builder
    for builder in (
        flapping,
        both_holders_paused,
        origin_killed_between_two_sends,
        drop_race,
        join_during_a_rolling_restart,
        split_around_the_threshold,
    )
}
