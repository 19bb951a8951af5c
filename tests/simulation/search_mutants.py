"""Searches, for each mutant, a seed that catches it, shrinks the scenario and saves it for CI to replay.

    python -m tests.simulation.search_mutants            all mutants that have no scenario, or whose it catches no more
    python -m tests.simulation.search_mutants NAME ...   these, anew
    ... --seconds 60                                     give up on each after a minute

It prints how many seeds each took. A mutant that 2,000 seeds do not catch is a hole in the checkers or in the draws,
and the exit status is 1.
"""

import argparse
import sys
from difflib import get_close_matches
from math import inf
from pathlib import Path
from time import monotonic

from gossipsess.sim.knobs import PLACES
from gossipsess.sim.run import Result, run
from gossipsess.sim.scenario import Scenario, load, save
from gossipsess.sim.shrink import RUNS_MAX, Shrinker, size_text
from gossipsess.sim.swarm import draw
from tests.simulation.close_up import CLOSE_UP
from tests.simulation.mutants import BY_HAND, CROWDED, HASH_SEEDS, MUTANTS, SMALL_WORLD, planted

SEEDS_MAX = 2000
CROWD_SIZES = (4, 5, 6)
"""Of crowds: enough nodes for a session not to be everywhere, and few enough for thousands of runs."""
FOLDER = Path(__file__).with_name("scenarios")
REPLAYED = tuple(name for name in MUTANTS if name not in (*HASH_SEEDS, *SMALL_WORLD, *CLOSE_UP))
"""Mutants that have a scenario. Of each of the others test_mutants.py sees the kill in another way."""

MISFITS = tuple(f"{error.__name__} in the state machine" for error in (AttributeError, NameError, TypeError))
"""What a run says of a mutant that was written for another state of the machine: nothing about a checker."""


def file_of(name: str) -> Path:
    """Return where a mutant's scenario is kept."""
    return FOLDER / f"{name}.json"


def caught(name: str, scenario: Scenario, *, hurt_only: bool = False) -> str | None:
    """Return the rule that a scenario breaks with the mutant in place; none where the mutant only breaks down."""
    with planted(name):
        rule = run(scenario, hurt_only=hurt_only).rule
    return None if rule in MISFITS else rule


def main(options: argparse.Namespace) -> int:
    """Search; return 1 where a mutant was not caught."""
    missed = 0
    names: list[str] = options.names
    for name in names or REPLAYED:
        file = file_of(name)
        if not names and file.exists() and caught(name, load(file)):
            print(f"{name}: still caught by {file.name}")
            continue
        if name in BY_HAND:
            print(f"{name}: {file.name} is made by hand, and catches it no more")
            missed += 1
            continue
        missed += not _search(name, file, options.start, options.seconds, hurt_only=options.hurt_only)
    return 1 if missed else 0


def drawn(name: str, seed: int) -> Scenario:
    """Draw a scenario in which a mutant may be caught: a small crowd, where it needs one."""
    if name not in CROWDED:
        return draw(seed)
    return draw(seed, nodes=CROWD_SIZES[seed % len(CROWD_SIZES)], crowd=True)


class _Shrinker(Shrinker):
    """Shrinks to what fails with a mutant in place, and passes without it."""

    def __init__(self, name: str, scenario: Scenario, rule: str, until_s: float) -> None:
        super().__init__(scenario, rule, lambda runs, best: None)
        self._name = name
        self._until_s = until_s

    def run(self, scenario: Scenario, *, hurt_only: bool = False) -> Result:
        if monotonic() >= self._until_s:
            self.runs = RUNS_MAX
        with planted(self._name):
            result = run(scenario, hurt_only=hurt_only)
        fails = result.rule == self._rule and run(scenario).rule is None
        return result if fails else result._replace(rule=None)


def _search(name: str, file: Path, start: int, seconds: float, *, hurt_only: bool) -> bool:
    until_s = monotonic() + seconds
    for seed in range(start, start + SEEDS_MAX):
        if monotonic() >= until_s:
            print(f"{name}: not caught by seeds {start} to {seed - 1}", flush=True)
            return False
        scenario = drawn(name, seed)
        if name in CROWDED and not any(knob in PLACES for knob, _ in scenario.knobs):
            continue  # nothing changes hands within so short a run
        rule = caught(name, scenario, hurt_only=hurt_only)
        if rule is not None and run(scenario).rule is None:
            shrinker = _Shrinker(name, scenario, rule, monotonic() + seconds)
            small = shrinker.shrink()
            with planted(name):
                violation = run(small).violation or ""
            print(f"{name}: seed {seed}, {size_text(small)} after {shrinker.runs} runs: {violation}", flush=True)
            of = f"{seed} of crowds of {len(scenario.hosts)}" if name in CROWDED else str(seed)
            save(file, small, mutant=name, seed=of, rule=rule, violation=violation)
            return True
    print(f"{name}: not caught by {SEEDS_MAX} seeds", flush=True)
    return False


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return what the command line asks for; a mutant that there is none of ends the process."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation.search_mutants",
        description="Searches a seed that catches each planted bug, shrinks its scenario, and saves it for CI.",
        epilog=f"Mutants: {', '.join(REPLAYED)}. The exit status is 1 where one was not caught.",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="search anew for these (default: for all without a scenario, or whose scenario no longer fails)",
    )
    parser.add_argument("--start", type=int, default=0, metavar="S", help="the first seed (default: 0)")
    parser.add_argument(
        "--seconds", type=float, default=inf, help="at most this long for the search, and for making it small, each"
    )
    parser.add_argument(
        "--hurt-only", action="store_true", help="look only for what is wrong before the heal: several times as fast"
    )
    options = parser.parse_args(arguments)
    for name in options.names:
        if name not in REPLAYED:
            near = "".join(f" Did you mean {close}?" for close in get_close_matches(name, REPLAYED, n=1))
            parser.error(f"there is no mutant {name!r} to search for.{near}")
    return options


if __name__ == "__main__":
    sys.exit(main(parse()))
