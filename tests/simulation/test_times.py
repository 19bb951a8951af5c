"""What time does to a cluster: reunions after logouts were forgotten, clocks that stood still, sessions that end."""

import pytest

from gossipsess.sim.network import Faults
from gossipsess.sim.run import run, simulate
from gossipsess.sim.scenario import Mishap, Request, Scenario, load
from tests.simulation.search_mutants import file_of

NODES = 3


def scenario(*requests: tuple[float, int, int, str], **fields) -> Scenario:
    """Return a run on a good network; a request is (at_s, slot, client, kind)."""
    made = [Request(number, at_s, slot, client, kind, "all", "user") for number, (at_s, slot, client, kind)
            in enumerate(requests)]  # fmt: skip
    defaults = {"seed": 1, "hosts": ("a", "b", "c"), "faults": Faults(), "requests": tuple(made), "mishaps": ()}
    return Scenario(**{**defaults, **fields})


LONG_APART = scenario(
    (2.0, 0, 1, "log in"),
    (2.0, 1, 2, "log in"),
    (10.0, 1, 1, "invalidate"),  # by the majority
    (10.0, 0, 2, "invalidate"),  # by the node that is alone
    (24.0, 0, 1, "access"),  # each is in use where it was not ended, so that it does not end by time
    (24.0, 1, 2, "access"),
    (34.0, 0, 3, "log in"),
    (34.0, 2, 4, "log in"),
    mishaps=(Mishap(4.0, "split", (0,), 40.0, breaks=True),),
    hurt_s=48.0,
    idle_ms=25_000,
    knobs=(("tombstone_ms", 20_000), ("fence_ms", 15_000), ("fence_inherit_ms", 2_000)),
)
"""A partition twice as long as tombstones are kept. At its end nobody remembers who was logged out."""


def test_a_logout_that_everybody_has_forgotten_is_not_undone_by_a_reunion():
    """Each side still holds live what the other ended, and each must lose it; what is young is kept."""
    result = run(LONG_APART)
    assert result.violation is None
    # At the reunion one node refuses the copy of the node that was alone, and that one refuses the majority's.
    assert result.counts["fenced"] >= 2
    assert load(file_of("no_fence")) == LONG_APART, "the mutant without a fence fails in this very run"


def test_restarts_one_after_the_other_are_no_reunion():
    """Every node of the cluster is then younger than the data that it holds; taken for strangers, they would end it."""
    rolling = [Mishap(at_s, "rolling", (0, 1, 2), 0.2, period_s=3.0) for at_s in (16.0, 28.0, 40.0)]
    result = run(
        scenario(
            *((2.0, slot, slot, "log in") for slot in range(NODES)),
            mishaps=tuple(rolling),
            hurt_s=52.0,
            knobs=(("fence_ms", 10_000), ("fence_inherit_ms", 1_000)),
        )
    )
    assert result.violation is None
    assert result.counts["restarts"] == 3 * NODES
    assert result.counts["fenced"] == 0


@pytest.mark.parametrize("lasts_s", [20, 60])
def test_a_machine_that_was_suspended_takes_part_again(lasts_s):
    """Its clock stood still; without help it would be refused by all, and refuse them, until its process ends."""
    result = run(
        scenario(
            (2.0, 0, 1, "log in"),
            (3.0 + lasts_s, 1, 1, "write"),
            mishaps=(Mishap(3.0, "suspend", (0,), lasts_s),),
            hurt_s=10.0 + lasts_s,
        )
    )
    assert result.violation is None
    assert result.counts["clocks caught up"] == 1
    assert result.counts["refused clocks"] == 0


@pytest.mark.parametrize("step_s", [-3600.0, 3600.0])
def test_a_wall_clock_that_is_set_wrong_on_one_node_changes_nothing(step_s):
    """An administrator's slip, or a bad time server, must not decide which writes win."""
    result = run(
        scenario(
            *((2.0 + slot, slot, slot, "log in") for slot in range(NODES)),
            *((5.0 + slot, 0, slot, "write") for slot in range(NODES)),
            mishaps=(Mishap(4.0, "wall step", (0,), 10.0, period_s=step_s), Mishap(6.0, "crash", (1,), 0.5)),
            hurt_s=15.0,
        )
    )
    assert result.violation is None
    assert [result.counts[mark] for mark in ("clocks apart", "clocks caught up", "refused clocks")] == [0, 0, 0]


def test_each_expiry_is_announced_by_one_node_and_heard_at_all():
    """What ends with a session, a basket that is given back, say, must be done once and not by every process."""
    result = run(
        scenario(*((1.0 + n / 10, n % NODES, n, "log in") for n in range(12)), idle_ms=4_000, hurt_s=3.0, watch=True)
    )
    assert result.violation is None
    heard, elsewhere = result.counts["heard expired"], result.counts["heard expired elsewhere"]
    assert result.counts["expired"] == NODES * heard
    assert elsewhere == (NODES - 1) * heard
    assert heard >= 12


def test_tombstones_that_end_one_after_the_other_are_no_difference_that_stays():
    """Clocks differ by up to ten seconds there: for a quarter of a minute no moment found the same ones everywhere."""
    assert simulate(9001508, nodes=4).violation is None


def test_a_clock_is_moved_by_a_push_that_cannot_be_taken_in():
    """Its receiver lacked what the push was made against. By the time that it told a session was over, and dropped."""
    assert simulate(8121100, crowd=True).violation is None
