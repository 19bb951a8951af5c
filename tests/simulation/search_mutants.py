"""Searches, for each mutant, a seed that catches it, shrinks the scenario and saves it for CI to replay.

    python -m tests.simulation.search_mutants            all mutants that have no scenario, or whose it catches no more
    python -m tests.simulation.search_mutants NAME ...   these, anew

It prints how many seeds each took. A mutant that 2,000 seeds do not catch is a hole in the checkers or in the draws.
"""

import sys
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
