# The lab's scenarios, in short; the scripts play each as long and as often as one likes.
#
# What proves that a check can fail stands beside the check.

import random
from typing import Any

import pytest

from . import form, partition, pods, rolling, strangers
from .lab import needs_lab

pytestmark = needs_lab


@pytest.mark.parametrize(
    ("by", "shape"),
    [
        ("dns", {}),
        ("multicast", {}),
        ("dns", {"version": 6, "nodes": 3}),
        (
            "dns",
            {"app": "flask", "nodes": 2},
        ),  # the second worker is not at the first port
        ("dns", {"lag_s": 5.0, "nodes": 3}),  # everyone has taken itself for the first by then
    ],
)
async def test_pods_started_at_once_become_one_cluster(by: form.By, shape: dict[str, Any]) -> None:
    """By one configuration in every network: whoever deploys does not know what passes there."""
    played = await form.play(by, **shape)
    assert played["clean"], str(played)


async def test_pods_stay_apart_where_nothing_names_the_others() -> None:
    """The starts above prove something only if a cluster that did not form would be seen."""
    played = await form.play("neither", nodes=2, apart_s=5)
    assert played["clean"], str(played)


@pytest.mark.parametrize("sticky", [False, True])
async def test_a_login_outlives_the_pods_that_answered(sticky: bool) -> None:
    """Where this library comes from: every deployment logged everybody out, with a sticky balancer too."""
    played = await pods.play(2, sticky=sticky, drain_s=0.5)
    assert played["clean"], str(played)


async def test_a_login_is_lost_with_its_pod_where_the_pods_never_meet() -> None:
    """The deletions above prove something only if a lost login would be seen."""
    played = await pods.play(1, nodes=2, discovery="none", drain_s=0)
    assert not played["clean"], played


@pytest.mark.parametrize("order", ["new-first", "old-first"])
async def test_an_update_of_all_pods_loses_nothing_though_one_is_killed(order: rolling.Order) -> None:
    """Both ways in which a Deployment replaces pods, and the accident that does not wait until it is over."""
    played = await rolling.play(1, nodes=3, order=order, kill=True, drain_s=0.5, seed=random.randrange(10**6))
    assert played["clean"], str(played)
    assert played["kills"] == 1


async def test_an_update_loses_all_where_the_pods_never_meet() -> None:
    """The updates above prove something only if clients would see a loss."""
    played = await rolling.play(1, nodes=2, discovery="none", drain_s=0)
    assert not played["clean"], played
    assert played["lost"] > 0, played


async def test_two_halves_that_meet_again_lack_nothing_and_undo_no_logout() -> None:
    """Both sides serve meanwhile, so both have what the other must get: writes, and ends."""
    played = await partition.play(8)
    assert played["clean"], str(played)


async def test_halves_that_never_meet_are_not_taken_for_equal() -> None:
    """The partition above proves something only if a write that does not come over would be missed."""
    played = await partition.play(2, (1, 1), discovery="none")
    assert not played["clean"], played
    assert played["twins_lack"] > 0, played


@pytest.mark.parametrize(("differ", "by"), [("cluster", "dns"), ("secret", "both")])
async def test_two_applications_on_one_network_never_mix_and_say_so_once(differ: strangers.Differ, by: form.By) -> None:
    """A session that the other application could read would be a login there."""
    played = await strangers.play(differ, by, watch_s=3)
    assert played["clean"], str(played)


async def test_pods_that_differ_in_nothing_are_seen_to_mix() -> None:
    """The strangers above prove something only if a mixture would be seen."""
    played = await strangers.play("nothing", nodes=1, watch_s=3)
    assert played["mixed"] > 0, played
    assert played["shown_by_the_other"] > 0, played
