"""Sessions change hands at the worst moments, and none is lost or comes back."""

import pytest

from gossipsess.sim.run import run
from tests.simulation.killers import KILLERS
from tests.simulation.mutants import planted

CATCHES = {
    "flapping": "unknown_sessions_are_not_invalidated",
    "both_holders_paused": "what_was_received_is_pushed_on",
    "origin_killed_between_two_sends": "node_ids_are_reused",
    "drop_race": "changed_copies_go",
    "join_during_a_rolling_restart": "death_does_not_dominate",
    "split_around_the_threshold": "unknown_sessions_are_not_invalidated",
}
MARKS = {
    "flapping": ("leaves", "crash", "confirmed"),
    "both_holders_paused": ("pause", "degraded"),
    "origin_killed_between_two_sends": ("one way", "deaths", "found stale"),
    "drop_race": ("leaves", "vanish", "deaths", "unsaid", "surplus dropped", "confirmed"),
    "join_during_a_rolling_restart": ("rolling", "restarts", "confirmed"),
    "split_around_the_threshold": ("split", "false deaths", "degraded"),
}


@pytest.mark.parametrize("name", KILLERS)
def test_no_session_is_lost_or_comes_back_where_nodes_change_hands(name: str) -> None:
    """The random swarm meets such moments rarely, and all of them at once hardly ever."""
    result = run(KILLERS[name]())
    assert result.violation is None
    assert all(result.counts[mark] for mark in MARKS[name]), "it does what its name says"


@pytest.mark.parametrize("name", KILLERS)
def test_each_of_these_runs_can_fail(name: str) -> None:
    """A run that passes whatever the machine does would be a decoration."""
    with planted(CATCHES[name]):
        assert run(KILLERS[name]()).rule is not None
