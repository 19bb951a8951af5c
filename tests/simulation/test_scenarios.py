"""Scenario files: what is saved is what runs, what failed once stays mended, and a failure can be made small."""

import json
from pathlib import Path

import pytest

from gossipsess.sim.__main__ import main, replay_command
from gossipsess.sim.knobs import KNOBS, turned
from gossipsess.sim.run import run
from gossipsess.sim.scenario import from_json, load, save, to_json
from gossipsess.sim.shrink import Shrinker
from gossipsess.sim.swarm import draw
from tests.simulation.mutants import planted

FILES = sorted(Path(__file__).with_name("scenarios").glob("*.json"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_no_saved_scenario_breaks_a_rule(file: Path) -> None:
    """Each file once showed a bug: a real one, now mended, or a planted one, which is not in place here."""
    result = run(load(file))
    assert result.violation is None, f"{result.violation}\npython -m gossipsess.sim --replay {file} --trace"


def test_a_scenario_is_the_same_after_it_was_saved(tmp_path: Path) -> None:
    """A file that runs otherwise than the seed it was made of would keep nothing."""
    for seed in range(30):
        for scenario in (draw(seed), draw(seed, crowd=True)):
            assert from_json(json.loads(json.dumps(to_json(scenario)))) == scenario
    save(tmp_path / "one.json", draw(3), why="a test")
    assert run(load(tmp_path / "one.json")).trace_hash == run(draw(3)).trace_hash


def test_a_crowd_is_of_four_to_twenty_nodes_with_and_without_zones_and_is_repeated_by_its_command() -> None:
    """Sizes at which no session is everywhere must be drawn, and what fails among them must be seen again."""
    crowds = [draw(seed, crowd=True) for seed in range(600)]
    sizes = [len(crowd.hosts) for crowd in crowds]
    assert sorted(dict.fromkeys(sizes)) == list(range(4, 21))
    assert all(not crowd.zones or len(crowd.zones) == len(crowd.hosts) for crowd in crowds)
    for choices in (
        {bool(crowd.zones): None for crowd in crowds},
        {crowd.secondaries: None for crowd in crowds},
        {crowd.count_by: None for crowd in crowds},
        {len(crowd.hosts) < crowd.all_to_all_below: None for crowd in crowds},
    ):
        assert len(choices) == 2
    assert replay_command(7, None, 0.3, crowd=True) == "python -m gossipsess.sim --seed 7 --crowd"


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        '{"scenario": {}}',
        '{"scenario": {"seed": 1, "hosts": ["a", "b"], "faults": {}, "requests": [], "mishaps": [], "colour": 1}}',
        '{"scenario": {"seed": 1, "hosts": ["a", "b"], "faults": {}, "requests": [], "mishaps": '
        '[{"at_s": 1, "kind": "flood", "slots": [0], "lasts_s": 1}]}}',
        '{"scenario": {"seed": 1, "hosts": ["a", "b"], "faults": {}, "requests": [], "mishaps": '
        '[{"at_s": 1, "kind": "crash", "slots": [2], "lasts_s": 1}]}}',
    ],
)
def test_a_file_that_is_no_scenario_is_refused(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A regression that silently runs something else is worse than none."""
    file = tmp_path / "wrong.json"
    file.write_text(content)
    assert main(["--replay", str(file)]) == 2
    assert "scenario" in capsys.readouterr().err


def test_a_knob_turns_a_constant_of_the_machine_and_turns_it_back() -> None:
    """A knob that turns nothing would leave the slow rules untried, and nobody would notice."""
    for name, knob in KNOBS.items():
        module = __import__(knob.module, fromlist=[knob.constant])
        before = getattr(module, knob.constant)
        with turned(((name, knob.least),)):
            assert getattr(module, knob.constant) == knob.least != before
        assert getattr(module, knob.constant) == before


def test_taking_requests_out_leaves_the_fate_of_all_other_messages() -> None:
    """Shrinking works only as long as what is left runs as it did."""
    scenario = draw(7, nodes=3)
    first = scenario.requests[0]
    one, none = (run(scenario._replace(requests=requests, mishaps=()), trace=True) for requests in ((first,), ()))

    def before_it(trace: list[str]) -> list[str]:
        return [line for line in trace if float(line.split()[0]) < first.at_s]

    assert before_it(one.trace) == before_it(none.trace) != []


def test_a_failing_scenario_is_made_small_and_still_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Eighty requests and four mishaps tell nobody what is wrong; a handful does."""
    file = tmp_path / "small.json"
    with planted("death_does_not_dominate"):
        seed = next(seed for seed in range(100) if run(draw(seed)).rule == "{}: {} came back to life")
        assert main(["--seed", str(seed), "--shrink", "--out", str(file)]) == 1
        printed = capsys.readouterr().out
        assert "came back to life" in printed
        assert "push" in printed
        small = load(file)
        assert len(small.requests) + len(small.mishaps) <= 5
        assert main(["--replay", str(file)]) == 1
    assert main(["--replay", str(file)]) == 0


def test_shrinking_keeps_to_the_rule_that_was_broken() -> None:
    """Any violation will do would end at another bug than the one looked for."""
    with planted("node_ids_are_reused"):
        seed, rule = next(
            (seed, rule) for seed, rule in ((seed, run(draw(seed)).rule) for seed in range(200)) if rule is not None
        )
        sizes: list[int] = []
        small = Shrinker(draw(seed), rule, lambda runs, best: sizes.append(len(best.requests))).shrink()
        assert run(small).rule == rule
    assert sizes == sorted(sizes, reverse=True)
