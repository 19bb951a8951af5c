# Form, in short; the script plays each as often as one likes.

import pytest

from .form import By, play
from .lab import needs_lab

pytestmark = needs_lab


@pytest.mark.parametrize("by", ["multicast"])
async def test_five_pods_started_at_once_become_one_cluster(by: By) -> None:
    """The same configuration in every network: whoever deploys does not know what passes there."""
    played = await play(by)
    assert played["clean"], played


async def test_pods_stay_apart_where_nothing_names_the_others() -> None:
    """The starts above prove something only if a cluster that did not form would be seen."""
    played = await play("neither", nodes=2)
    assert played["clean"], played
