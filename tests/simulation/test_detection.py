"""The failure detector's figures in a short form, and that bad ones are seen. `detection.py` measures the real ones."""

from math import inf

import pytest

from gossipsess.protocol import suspicion, swim
from tests.simulation.detection import (
    alive_figure,
    figures,
    lose,
    lost_figure,
    paused_figure,
    percentile,
)


@pytest.mark.parametrize("nodes", [2, 3, 5, 10])
def test_a_lost_machine_is_known_dead_in_time(nodes):
    """Until then each commit waits its whole timeout for it. A bound for p99 needs more trials than these."""
    figure = lost_figure(map, nodes, 0.0, 40, start=0)
    assert figure.values["all_p50_s"] <= 3.0, figure
    assert figure.values["all_max_s"] <= 5.5, figure
    assert figure.values["first_p50_s"] > 2, "sooner nobody could have refuted"


def test_fifty_members_know_of_a_death_nearly_at_once():
    """While some know and others do not, they disagree on who counts."""
    figure = lost_figure(map, 50, 0.0, 5, start=0)
    assert 0 < figure.values["spread_p99_s"] <= 0.25, figure


@pytest.mark.parametrize("nodes", [2, 3, 5, 10])
def test_no_live_member_is_declared_dead_at_twenty_percent_loss(nodes):
    figure = alive_figure(map, nodes, 0.2, 2000, start=0)
    assert figure.values["false_deaths"] == 0, figure
    assert figure.values["suspicions"] > 0, "without one false suspicion this test would show nothing"


@pytest.mark.parametrize("nodes", [2, 3, 10])
def test_a_node_that_stood_still_convicts_nobody_and_all_are_together_again(nodes):
    assert paused_figure(map, nodes, 6, start=0).broken == ""


def test_an_impatient_detector_breaks_the_bound_for_false_deaths(monkeypatch):
    monkeypatch.setattr(suspicion, "TIMEOUT_MIN_ROUNDS", 0.05)
    figure = alive_figure(map, 3, 0.2, 1000, start=0)
    assert figure.values["false_deaths"] > 0
    assert "false deaths" in figure.broken


def test_a_patient_detector_breaks_the_bound_for_lost_machines(monkeypatch):
    monkeypatch.setattr(suspicion, "TIMEOUT_MIN_ROUNDS", 8)
    assert "p99" in lost_figure(map, 3, 0.0, 10, start=0).broken


def test_a_detector_that_never_judges_breaks_the_bound_for_lost_machines(monkeypatch):
    """What is never known must count as the worst of all times, and not be left out."""
    monkeypatch.setattr(suspicion, "TIMEOUT_MIN_ROUNDS", 1e6)
    assert lose(2, 0.0, 0) == (inf, inf)
    assert "p99" in lost_figure(map, 2, 0.0, 2, start=0).broken


def test_a_node_that_does_not_notice_its_pause_is_seen_to_convict(monkeypatch):
    monkeypatch.setattr(swim, "PAUSE_S", inf)
    assert "convicted" in paused_figure(map, 2, 6, start=0).broken


def test_every_kind_of_figure_is_measured_by_the_script():
    """The script's own list: a row that is left out there is a bound that nobody keeps."""
    kinds = {figure.kind for figure in figures(_one_only, part=0.0001)}
    assert kinds == {"lost", "paused", "alive"}


def _one_only(function, seeds):
    return [function(seed) for seed in list(seeds)[:1]]


@pytest.mark.parametrize(("percent", "value"), [(50, 2), (99, 4), (100, 4), (25, 1), (26, 2)])
def test_a_percentile_is_one_of_the_values(percent, value):
    assert percentile([4.0, 1.0, 3.0, 2.0], percent) == value
