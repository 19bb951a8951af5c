"""Searches, for each mutant, a seed that catches it, shrinks the scenario and saves it for CI to replay.

    python -m tests.simulation.search_mutants            all mutants that have no scenario, or whose it catches no more
    python -m tests.simulation.search_mutants NAME ...   these, anew

It prints how many seeds each took. A mutant that 2,000 seeds do not catch is a hole in the checkers or in the draws,
and the exit status is 1.
"""

import argparse
import sys
from difflib import get_close_matches
from pathlib import Path

from gossipsess.sim.run import run
from gossipsess.sim.scenario import Scenario, load, save
from gossipsess.sim.shrink import Shrinker, size_text
from gossipsess.sim.swarm import draw
from tests.simulation.mutants import BY_HAND, MUTANTS, UNSEEN, planted

SEEDS_MAX = 2000
FOLDER = Path(__file__).with_name("scenarios")


def file_of(name: str) -> Path:
    """Return where a mutant's scenario is kept."""
    return FOLDER / f"{name}.json"


def caught(name: str, scenario: Scenario) -> str | None:
    """Return the rule that a scenario breaks with the mutant in place."""
    with planted(name):
        return run(scenario).rule


def main(names: list[str]) -> int:
    """Search; return 1 where a mutant was not caught."""
    missed = 0
    for name in names or MUTANTS:
        if name in UNSEEN:
            continue
        file = file_of(name)
        if not names and file.exists() and caught(name, load(file)):
            print(f"{name}: still caught by {file.name}")
            continue
        if name in BY_HAND:
            print(f"{name}: {file.name} is made by hand, and catches it no more")
            missed += 1
            continue
        missed += not _search(name, file)
    return 1 if missed else 0


def _search(name: str, file: Path) -> bool:
    with planted(name):
        for seed in range(SEEDS_MAX):
            scenario = draw(seed)
            result = run(scenario)
            if result.rule is not None:
                shrinker = Shrinker(scenario, result.rule, lambda runs, best: None)
                small = shrinker.shrink()
                violation = run(small).violation or ""
                print(f"{name}: seed {seed}, {size_text(small)} after {shrinker.runs} runs: {violation}", flush=True)
                save(file, small, mutant=name, seed=str(seed), rule=result.rule, violation=violation)
                return True
    print(f"{name}: not caught by {SEEDS_MAX} seeds", flush=True)
    return False


def parse(arguments: list[str] | None = None) -> list[str]:
    """Return the mutants named on the command line; a name that there is none of ends the process."""
    wanted = [name for name in MUTANTS if name not in UNSEEN]
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation.search_mutants",
        description="Searches a seed that catches each planted bug, shrinks its scenario, and saves it for CI.",
        epilog=f"Mutants: {', '.join(wanted)}. The exit status is 1 where one was not caught.",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="search anew for these (default: for all without a scenario, or whose scenario no longer fails)",
    )
    names: list[str] = parser.parse_args(arguments).names
    for name in names:
        if name not in wanted:
            near = "".join(f" Did you mean {close}?" for close in get_close_matches(name, wanted, n=1))
            parser.error(f"there is no mutant {name!r} to search for.{near}")
    return names


if __name__ == "__main__":
    sys.exit(main(parse()))
