"""No drop of a surplus copy ever leaves fewer copies than there shall be, however the nodes' views differ."""

from pathlib import Path
from types import ModuleType

import pytest

from gossipsess.protocol import offers, surplus
from tests.unit.surplus_world import NODES, Layout, LostCopy, World, play

SEEDS = 100

MUTANTS = {
    "dropped after one answer": (surplus, "if check.waiting and check.states:", "if False:"),
    "dropped for one who lacks it": (
        surplus,
        "named = check.states.pop(gap.sid, None) is not None",
        "named = False",
    ),
    "dropped for one who held an older state": (surplus, "named and not check.begun", "named"),
    "dropped for one who is no holder": (surplus, "            check.states.clear()\n", "            pass\n"),
    "dropped though it has changed": (surplus, "record.state_hash == state and ", ""),
    "dropped in unquiet times": (surplus, "QUIET_S: Final = 60.0", "QUIET_S: Final = 0.0"),
    "dropped on old answers": (surplus, "FRESH_S: Final = 10.0", "FRESH_S: Final = 1e9"),
}


FOUND = {"dropped for one who held an older state": (1103, 1262)}
"""Seeds that a longer search has found."""


def planted(name: str) -> tuple[ModuleType, ModuleType]:
    """Return the two modules with one rule replaced."""
    module, old, new = MUTANTS[name]
    source = Path(module.__file__).read_text()
    assert source.count(old) == 1, f"{name}: the rule has moved"
    mutant = ModuleType(module.__name__)
    exec(compile(source.replace(old, new), module.__file__, "exec"), mutant.__dict__)
    return (mutant, offers) if module is surplus else (surplus, mutant)


def there_and_back(surplus: ModuleType, offers: ModuleType, pause_s: float) -> None:
    """Let a node be no holder, be one, and be none again, while one answer is on its way to it."""
    a, b, c, d = NODES
    elsewhere, here = Layout(b, c), Layout(a, d)
    world = World(surplus, offers, [elsewhere, here], 4)
    world.now_s = 100.0
    world.timeout(a)  # asks b and c
    world.clogged_until_s[c, a] = 1000.0
    world.deliver_all()
    late, world.messages = world.messages, []
    world.clogged_until_s[c, a] = 0.0
    for node in (a, d, b, c):
        world.change(node, here)
    world.now_s += pause_s
    for node in (b, c):
        world.timeout(node)
    world.deliver_all()
    world.change(a, elsewhere)
    world.now_s += pause_s
    world.messages += late
    world.deliver_all()


def test_no_drop_loses_a_copy():
    """Each node decides alone and by a view of its own. Were the copies that back each other's drop in a circle, the
    session would be gone everywhere at once."""
    drops = sum(play(seed, surplus, offers) for seed in range(SEEDS))
    assert drops > SEEDS, "a model in which nothing is dropped proves nothing"


@pytest.mark.parametrize("pause_s", [0.5, 61.0])
def test_an_answer_from_before_the_layout_went_and_came_back_drops_nothing(pause_s):
    """Meanwhile this node was a holder, and others may have dropped theirs because of it."""
    there_and_back(surplus, offers, pause_s)


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_loses_a_copy(name):
    """Each of the rules is needed, and a world that cannot show it would not show a real bug either."""
    modules = planted(name)
    with pytest.raises(LostCopy):  # noqa: PT012
        for pause_s in (0.5, 61.0):
            there_and_back(*modules, pause_s)
        for seed in (*FOUND.get(name, ()), *range(SEEDS)):
            play(seed, *modules)
