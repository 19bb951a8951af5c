"""Bugs planted on purpose: what the checkers must catch. Each replaces one rule of the real machine for a while.

There is no switch for them in gossipsess itself. A mutant that no seed catches means that the simulator would not
catch the real bug either. They stand by part of the machine: data, exchange, members, placement, surplus.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import pytest

from tests.simulation import mutants_data, mutants_exchange, mutants_members, mutants_placement, mutants_surplus

Plant = Callable[[pytest.MonkeyPatch], None]

PARTS = (mutants_data, mutants_exchange, mutants_members, mutants_placement, mutants_surplus)
MUTANTS: Mapping[str, Plant] = {plant.__name__: plant for part in PARTS for plant in part.PLANTS}

UNSEEN = (
    "a_set_decides",
    "views_are_not_compared",
    "nobody_need_confirm",
    "node_ids_are_placed",
    "any_view_compares",
    "copies_in_use_go",
    "only_holders_take_writes",
)
"""Mutants that break no rule within one run: the first are caught by comparing runs, and by test_members.py. The others
cost messages or time and lose nothing: tests/unit shows them, of placement, digests, surplus copies and recipients."""

BY_HAND = ("the_dead_rest",)
"""Mutants whose scenario is made by hand, since the draws do not come there: seeds that stay dead."""

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
once: tests/unit/surplus_world.py."""

NOT_FOUND = (
    "who_fills_up_has_everything",
    "what_is_gained_is_there",
    "gains_go_unnoticed",
    "writers_are_not_asked",
    "nothing_is_secured",
    "pushed_copies_are_not_offered",
    "new_holders_hear_of_no_access",
    "the_ends_of_the_dead_are_forgotten",
)
"""Mutants that a rule of the checkers forbids, and that no search has come upon yet; some dozens of runs of each."""


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Have one mutant in place."""
    with pytest.MonkeyPatch.context() as patch:
        MUTANTS[name](patch)
        yield
