"""Bugs planted on purpose: what the checkers must catch. Each replaces one rule of the real machine for a while.

There is no switch for them in gossipsess itself. A mutant that no seed catches means that the simulator would not
catch the real bug either. They stand by part of the machine: data, exchange, kept
(counters, sets, former cookies), members, placement, surplus.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import pytest

from tests.simulation import (
    mutants_data,
    mutants_exchange,
    mutants_kept,
    mutants_members,
    mutants_placement,
    mutants_surplus,
)

Plant = Callable[[pytest.MonkeyPatch], None]

PARTS = (mutants_data, mutants_exchange, mutants_kept, mutants_members, mutants_placement, mutants_surplus)
MUTANTS: Mapping[str, Plant] = {plant.__name__: plant for part in PARTS for plant in part.PLANTS}

HASH_SEEDS = ("a_set_decides",)
"""Mutants that no run shows, but two runs with different hash seeds of Python, since these differ."""

BY_HAND = ("the_dead_rest", "who_leaves_hands_nothing_over")
"""Mutants whose scenario is made by hand, since the draws hardly come there: seeds that stay dead, and who
leaves in the moment in which it alone holds a write."""

CROWDED = tuple(plant.__name__ for part in (mutants_placement, mutants_surplus) for plant in part.PLANTS)
"""Mutants that are looked for in crowds, on hosts in zones: with few nodes every one holds everything."""

SMALL_WORLD = (
    "anybody_lets_a_copy_go",
    "copies_go_without_quiet",
    "old_answers_let_a_copy_go",
    "changed_copies_go",
    "lacking_copies_go",
)
"""Mutants that lose a copy only where the views of nodes differ for long while all links stand, or within the moment of
a question: clusters of whole nodes come there too rarely. A few nodes whose layouts are changed at will come there at
once: tests/unit/surplus_world.py. More bugs that whole runs do not show: close_up.py."""


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Have one mutant in place."""
    with pytest.MonkeyPatch.context() as patch:
        MUTANTS[name](patch)
        yield
