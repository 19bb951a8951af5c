# What was confirmed survives kill -9 under load, in a few short trials; confirmed.py plays the full measure.

import pytest

from .confirmed import CONFIRMED_SHARE_MIN, play_trial
from .harness import Discovery


@pytest.mark.parametrize("discovery", ["static", "multicast"])
def test_a_confirmed_write_survives_kill_9_of_its_writer(discovery: Discovery) -> None:
    """Confirmed must mean held elsewhere; slower than the full measure, for busy build machines."""
    trial = play_trial(rate=300, discovery=discovery)
    assert trial.missing == 0, trial
    assert trial.confirmed >= CONFIRMED_SHARE_MIN * trial.writes > 0, trial


def test_missing_writes_are_counted_where_the_nodes_never_meet() -> None:
    """The trials above prove something only if a missing write would be seen."""
    trial = play_trial(rate=300, discovery="none")
    assert trial.missing == trial.writes > 0, trial
