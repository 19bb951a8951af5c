# The benchmarks run and see what they are to see. Their figures are judged by whoever runs them.

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from bench import replicate
from gossipsess.config import Config
from gossipsess.service import lone_node

SCRIPT = Path(replicate.__file__)
SCALE = SCRIPT.with_name("scale.py")


def scale(folder: Path, *arguments: str) -> list[dict[str, Any]]:
    """Run the scale benchmark over few sessions; return the figures of each cluster."""
    short = ["--sessions", "12", "--writes", "1", "--real-sessions", "20", "--idle", "2"]
    files = ["--json", str(folder / "scale.json"), "--plot", str(folder / "scale.svg")]
    done = subprocess.run(
        [sys.executable, str(SCALE), *short, *files, *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    clusters: list[dict[str, Any]] = json.loads((folder / "scale.json").read_text())["clusters"]
    return clusters


def test_b_ends_up_with_what_a_wrote_and_every_figure_is_there() -> None:
    """A benchmark that nobody runs breaks unnoticed, and the next figures are then of something else."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--quick", "--json", "--confirm", "0", "1", "--writers", "2"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    passes = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["confirm"] for one in passes] == [0, 1]
    for one in passes:
        assert one["equal"] is True
        assert one["updates"] == 500
        # The values alone are 100 bytes an update, and each of them travels.
        assert one["wire_bytes"] > replicate.VALUE_BYTES, one
        for figure in ("updates_per_s", "cpu_us_a", "cpu_us_b", "lag_p50_ms", "lag_p99_ms", "read_us"):
            assert one[figure] > 0, one


def test_one_different_value_makes_the_digests_differ() -> None:
    """Equality is the benchmark's verdict on B; a digest of ids alone would let lost updates pass."""
    service = lone_node(Config())
    session = service.store.create()
    session["color"] = "red"
    service.store.commit(session)
    before = replicate.digest(service)
    assert before == replicate.digest(service)
    session["color"] = "blue"
    service.store.commit(session)
    assert before != replicate.digest(service)


def test_scale_counts_the_same_in_processes_and_in_virtual_time(tmp_path: Path) -> None:
    """Large clusters are only simulated; their figures mean something while small ones agree with real processes."""
    simulated, five, real = scale(tmp_path, "--simulated", "2", "5", "--real", "2")
    assert [(one["where"], one["nodes"]) for one in (simulated, five, real)] == [
        ("simulated", 2),
        ("simulated", 5),
        ("real", 2),
    ]
    for one in (simulated, real):
        assert one["holders"] == 2
        assert one["read_cold"] is None, "of two nodes both hold everything"
        assert one["read_copy"] is None
        for kind, values in (("create", 10), ("write", 1)):
            # A push and its acknowledgement; a busy machine may repeat one.
            assert one[kind]["messages"] == pytest.approx(2, rel=0.2), one
            assert values * 100 < one[kind]["bytes"] < values * 100 + 800, one
        # Half a second between probes: a ping and an answer of each node.
        assert 2 <= one["idle"]["messages"] <= 8, one
        assert one["idle"]["bytes"] > 37 * one["idle"]["messages"], "a datagram's seal alone is that long"
    for kind in ("create", "write"):
        assert real[kind]["bytes"] == pytest.approx(simulated[kind]["bytes"], rel=0.2)
        assert real[kind]["p99_ms"] >= real[kind]["p50_ms"] > 0
    for one in (five, real):
        assert one["write_holder"]["messages"] == pytest.approx(2, rel=0.2), "the other holder, and back"
    assert five["write_copy"]["messages"] == 4, "both holders, and back"
    assert real["write_copy"] is None, "of two nodes both are holders"
    assert real["rss_bytes"] > real["table_bytes"] > 20 * 10 * 100
    for one in (simulated, five, real):
        assert one["read_holder"]["messages"] == 0, "a holder asks nobody"
    # Two holders, one of which may be the writer. A late answer has a read ask the second holder, too.
    for kind in ("create", "write"):
        assert 2 <= five[kind]["messages"] <= 4
        assert 1 <= five[kind]["nodes"] <= 2
    assert 4 <= five["read_cold"]["messages"] <= 6
    assert five["read_copy"]["messages"] == 0, "it was used a moment ago"
    assert five["rested_records_mean"] * 5 == 2 * five["sessions"], "copies are gone"
    assert five["idle_sessions"]["bytes"] == 0

    plot = ElementTree.parse(tmp_path / "scale.svg").getroot()
    lines = [line.attrib["points"].split() for line in plot.iter("{http://www.w3.org/2000/svg}polyline")]
    assert len(lines[0]) == 2, "a point for each simulated cluster"


def test_scale_can_be_told_to_keep_every_session_everywhere(tmp_path: Path) -> None:
    """The picture compares placement with all-to-all; if the option did nothing, it would compare it with itself."""
    (five,) = scale(tmp_path, "--all-to-all", "--simulated", "5", "--real")
    assert five["holders"] == 5
    assert (five["create"]["messages"], five["create"]["nodes"]) == (8, 4)
    assert (five["write"]["messages"], five["write"]["nodes"]) == (8, 4)
    assert five["rested_records_mean"] == five["sessions"] == 12


def test_a_write_costs_as_much_with_four_nodes_as_with_sixteen(tmp_path: Path) -> None:
    """That more nodes make no write dearer is what placement is for; `scale` fails where the command says otherwise."""
    clusters = scale(tmp_path, "--simulated", "4", "16", "--real")
    for one in clusters:
        assert (one["write_holder"]["messages"], one["write_holder"]["messages_max"]) == (2, 2)
        assert (one["write_copy"]["messages"], one["write_copy"]["messages_max"]) == (4, 4)
        assert one["create"]["nodes_max"] == 2
        assert one["write_holder"]["requests"] == one["write_copy"]["requests"] == one["write"]["requests"] == 12
    for kind in ("write_holder", "write_copy"):
        few, many = [one[kind]["bytes"] for one in clusters]
        assert many == pytest.approx(few, rel=0.1)


def made_up(nodes: int, holders: int, **costs: Any) -> Any:
    """Return figures of a cluster whose requests cost as the page says, but for `costs`: fields of each kind."""
    count = importlib.import_module("scale_count")
    usual: dict[str, dict[str, Any]] = {
        "create": {"messages": 4.0, "bytes": 2900.0, "nodes": 2.0, "nodes_max": 2},
        "write_holder": {"messages": 2.0, "bytes": 280.0, "messages_max": 2},
        "write_copy": {"messages": 4.0, "bytes": 580.0, "messages_max": 4},
    }
    requests = {
        kind: count.Cost(**{"requests": 9, "kinds": {}, **fields, **costs.get(kind, {})})
        for kind, fields in usual.items()
    }
    empty = dict.fromkeys(count.Figures._fields)
    return count.Figures(**{**empty, "where": "simulated", "nodes": nodes, "holders": holders, **requests})


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (
            {"write_copy": {"bytes": 640.0}},
            "a write elsewhere takes 580 bytes with 4 nodes and 640 with 64 (simulated)",
        ),
        ({"write_holder": {"bytes": 250.0}}, "a write on a holder takes 250 bytes with 64 nodes and 280 with 4"),
        (
            {"write_copy": {"messages_max": 7}},
            "with 64 nodes (simulated) a write elsewhere took 7 messages, more than 2R+2",
        ),
        ({"write_holder": {"messages": 8.0, "messages_max": None}}, "a write on a holder took 8 messages"),
        ({"create": {"nodes_max": 3}}, "with 64 nodes (simulated) a create reached 3 nodes, more than R = 2"),
    ],
)
def test_a_cost_that_grows_is_told(monkeypatch: pytest.MonkeyPatch, wrong: dict[str, Any], told: str) -> None:
    """A check that can not fail checks nothing."""
    monkeypatch.syspath_prepend(str(SCALE.parent))
    contradicted = importlib.import_module("scale_check").contradicted
    assert contradicted([made_up(4, 2), made_up(64, 2)]) == []
    (sentence,) = contradicted([made_up(4, 2), made_up(64, 2, **wrong)])
    assert told in sentence
    assert contradicted([made_up(64, 2, **wrong)]) == [], "one size says nothing of growth"
    assert contradicted([made_up(4, 4), made_up(64, 64, **wrong)]) == [], "all-to-all grows, and is to"


def test_scale_fails_where_a_cost_grows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The exit code is what a job sees; the figures must be there all the same, to see why."""
    monkeypatch.syspath_prepend(str(SCALE.parent))
    command = importlib.import_module("scale")
    monkeypatch.setattr("scale_check.FLAT", 0.5)  # more than any figures keep to
    file = tmp_path / "scale.json"
    short = ["--sessions", "6", "--writes", "1", "--simulated", "4", "5", "--real", "--json", str(file)]
    monkeypatch.setattr(sys, "argv", ["scale.py", *short])
    assert command.main() == 1
    told = capsys.readouterr().err
    assert "Not as docs/SCALE.md says:\na write on a holder takes" in told
    assert [one["nodes"] for one in json.loads(file.read_text())["clusters"]] == [4, 5]
    monkeypatch.setattr(sys, "argv", ["scale.py", *short, "--all-to-all"])
    assert command.main() == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--json", "none/x.json"], "none/x.json cannot be written: No such file or directory"),
        (["--plot", "none/x.svg"], "none/x.svg cannot be written: No such file or directory"),
        (["--plot", "."], ". cannot be written: Is a directory"),
        (["--before", "none.json"], "--before none.json cannot be read: No such file or directory"),
        (["--before", "words"], "--before words is no file that --json has written"),
        (["--before", "other.json"], "--before other.json is no file that --json has written"),
        (["--json", "x", "--plot", "x"], "--plot would draw over the figures in x"),
        (["--simulated", "x"], "argument --simulated: 'x' is no number of nodes, such as 4"),
        (["--real", "1"], "argument --real: 1 nodes replicate nothing; two or more do"),
        (["--simulated", "--real"], "--simulated and --real both name no size: there is nothing to measure"),
        (["--idle", "nan"], "--sessions, --writes, --real-sessions and --idle are positive"),
    ],
)
def test_what_scale_cannot_do_is_refused_before_it_measures(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: list[str],
    told: str,
) -> None:
    """Figures take minutes; a path that is wrong must not cost them."""
    monkeypatch.syspath_prepend(str(SCALE.parent))
    command = importlib.import_module("scale")
    monkeypatch.chdir(tmp_path)
    Path("words").write_text("not JSON")
    Path("other.json").write_text(json.dumps({"all_to_all": False, "clusters": [{"where": "simulated"}]}))
    files = sorted(tmp_path.iterdir())
    monkeypatch.setattr(sys, "argv", ["scale.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        command.main()
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert said.err.endswith(f"error: {told}\n")
    assert said.out == "", "nothing was measured"
    assert sorted(tmp_path.iterdir()) == files


def test_a_former_file_stays_until_there_are_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Whether a file can be written is tried before; where the measurement then fails, it must not be empty."""
    monkeypatch.syspath_prepend(str(SCALE.parent))
    command = importlib.import_module("scale")
    former = tmp_path / "former.json"
    former.write_text("figures")
    monkeypatch.setattr(sys, "argv", ["scale.py", "--json", str(former), "--plot", str(tmp_path / "new.svg")])

    def fail(_: object) -> None:
        raise command.BenchError("no cluster today")

    monkeypatch.setattr(command, "_measured", fail)
    assert command.main() == 1
    assert capsys.readouterr().err == "no cluster today\n"
    assert [file.read_text() for file in tmp_path.iterdir()] == ["figures"]


def test_a_node_of_the_benchmark_says_what_to_run_instead() -> None:
    """It lies beside the commands, and looks like one."""
    script = SCALE.with_name("scale_real.py")
    done = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "scale_real.py is one node of several, and started by scale.py: see bench/scale.py --help\n"


def test_a_write_that_was_not_measured_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures that lack what is claimed must not pass for figures that agree."""
    monkeypatch.syspath_prepend(str(SCALE.parent))
    contradicted = importlib.import_module("scale_check").contradicted
    (sentence,) = contradicted([made_up(4, 2), made_up(64, 2)._replace(write_copy=None)])
    assert sentence == "with 64 nodes (simulated) nobody measured a write elsewhere: its cost is not known"


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command that writes the figures down. Like each of these it imports what lies beside it."""
    monkeypatch.syspath_prepend(str(SCALE.parent))
    return importlib.import_module("scale_report")


@pytest.fixture
def page(report: Any, tmp_path: Path) -> Path:
    """A document with figures of last year."""
    page = tmp_path / "SCALE.md"
    page.write_text(f"why\n{report.BEGIN}of last year\n{report.END}end\n")
    return page


def test_the_report_replaces_the_figures_and_nothing_else(report: Any, page: Path) -> None:
    """The document is written by people, its figures by one command; neither may lose what is the other's."""
    options = ["--sessions", "12", "--writes", "1", "--simulated", "4", "5", "--real", "2"]
    assert report.main(page.parent, [*options, "--real-sessions", "20", "--idle", "0.5"]) == 0
    text = page.read_text()
    assert text.startswith(f"why\n{report.BEGIN}")
    assert text.endswith(f"{report.END}end\n")
    assert "of last year" not in text
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith(("| 4 |", "| 5 |"))]
    assert len(rows) == 4, "two placements of two sizes"
    assert [row[1] for row in rows[2:]] == ["6.0", "8.0"], "to every other node and back"
    command = "python bench/scale.py --simulated 4 5 --sessions 12 --writes 1 --real 2 --real-sessions 20 --idle 0.5"
    assert text.count(f": `{command} --seed 1`\n") == text.count(f": `{command} --seed 1 --all-to-all`\n") == 2
    tables = [dict(zip(names, row, strict=True)) for names, row in first_rows(text)]
    assert float(tables[0]["bytes of create"].replace(",", "")) > 10 * 100
    for table in tables[2:]:
        assert float(table["resident, MiB"]) > float(table["grown, MiB"])
        assert float(table["table, KiB"]) > 20
    assert (page.parent / "scale.svg").exists()


def first_rows(text: str) -> list[tuple[list[str], list[str]]]:
    """Return of each table the names of its columns and its first row; `bytes` with what they belong to."""
    tables = []
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        names, _, row = [line.strip("| ").split(" | ") for line in table.splitlines()[:3]]
        for number, name in enumerate(names):
            if name == "bytes":
                names[number] = f"bytes of {names[number - 1].partition(':')[0]}"
        tables.append((names, row))
    return tables


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--jsno", "x"], "unrecognized arguments: --jsno x"),
        (["--json", "x"], "unrecognized arguments: --json x"),
        (["--all-to-all"], "unrecognized arguments: --all-to-all"),
        (["--simulated", "x"], "argument --simulated: 'x' is no number of nodes, such as 4"),
        (["--simulated", "--real"], "--simulated and --real both name no size: there is nothing to measure"),
    ],
)
def test_what_the_report_cannot_do_is_refused_before_it_measures(
    report: Any,
    page: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    told: str,
) -> None:
    """Two passes take minutes, and the page is not to be touched by a slip of the pen."""
    monkeypatch.setattr(report.subprocess, "run", lambda *_, **__: pytest.fail("it measures"))
    before = page.read_text()
    with pytest.raises(SystemExit) as ended:
        report.main(page.parent, arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith(f"error: {told}\n")
    assert page.read_text() == before
    assert list(page.parent.iterdir()) == [page]


@pytest.mark.parametrize("text", [None, "no mark", "<!-- figures: written by bench/scale_report.py -->\nno end\n"])
def test_a_page_without_marks_is_refused_before_the_report_measures(
    report: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str | None
) -> None:
    """Nowhere to write is a reason not to measure, and none to write a page of figures alone."""
    monkeypatch.setattr(report.subprocess, "run", lambda *_, **__: pytest.fail("it measures"))
    page = tmp_path / "SCALE.md"
    if text is not None:
        page.write_text(text)
    with pytest.raises(SystemExit) as ended:
        report.main(tmp_path, [])
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith(f"error: {page} has no marks between which figures go\n")
    assert not page.exists() if text is None else page.read_text() == text


def test_the_report_helps_and_measures_nothing(
    report: Any, page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who asks what it does is told of files and minutes before either is gone."""
    monkeypatch.setattr(report.subprocess, "run", lambda *_, **__: pytest.fail("it measures"))
    with pytest.raises(SystemExit) as ended:
        report.main(page.parent, ["--help"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    for part in ("docs/SCALE.md", "docs/scale.svg", "some minutes", "3 4 8 16 32 64", "(4 6 8)", "(300)", "(5)"):
        assert part in told


FIGURES = (
    """import sys; given = dict(zip(sys.argv, sys.argv[1:])); open(given["--json"], "w").write('{"clusters": []}')"""
)


@pytest.mark.parametrize(
    ("script", "code", "told"),
    [
        ("", 1, "ended well, and wrote no figures"),
        ("import sys; open(sys.argv[sys.argv.index('--json') + 1], 'w')", 1, "ended well, and wrote no figures"),
        ("import sys; sys.exit('no cluster today')", 1, ""),
        (FIGURES, 1, "ended well, and drew nothing"),
        (f"{FIGURES}; '--plot' in given and (open(given['--plot'], 'w'), sys.exit(1))", 1, ""),
        ("import sys; sys.exit(2)", 2, ""),
    ],
)
def test_a_pass_without_figures_leaves_the_page_as_it_is(
    report: Any,
    page: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path_factory: pytest.TempPathFactory,
    script: str,
    code: int,
    told: str,
) -> None:
    """Tables and picture that are not of one measurement would be believed all the same."""
    child = tmp_path_factory.mktemp("child") / "scale.py"
    child.write_text(script)
    monkeypatch.setattr(report, "SCRIPT", child)
    before = page.read_text()
    assert report.main(page.parent, ["--simulated", "4", "--real"]) == code
    assert told in capsys.readouterr().err
    assert page.read_text() == before
    assert list(page.parent.iterdir()) == [page]


def test_what_a_session_takes_in_memory_is_more_than_its_values_and_near_the_account() -> None:
    """Machines are sized by it; and the limit of all sessions together goes by the account."""
    script = SCRIPT.with_name("memory.py")
    done = subprocess.run(
        [sys.executable, str(script), "--sessions", "3000", "--bytes", "1000", "--json"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["resident_bytes"] > figures["json_bytes"] + 1000
    assert figures["resident_bytes"] < figures["account_bytes"] < 2 * figures["resident_bytes"]
    assert 0 < figures["ended_account_bytes"] < figures["account_bytes"] - 1000
    assert figures["redis_bytes"] is None or figures["redis_bytes"] > 1000


def test_a_requests_cost_is_shown_for_ours_beside_a_stock_session_layer_and_none() -> None:
    """A figure is the difference to the application without sessions: where one of the two is missing, it says nothing.

    That each answer is what its view says, the benchmark checks itself.
    """
    options = "--rounds 5 --visitors 3 --json --framework starlette --framework wsgi"
    done = subprocess.run(
        [sys.executable, str(SCRIPT.with_name("request.py")), *options.split()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    rows = {(row["framework"], row["sessions"]): row for row in map(json.loads, done.stdout.splitlines())}
    assert list(rows) == [
        ("Starlette", "without sessions"),
        ("Starlette", "gossipsess"),
        ("Starlette", "its own, signed cookies"),
        ("WSGI", "without sessions"),
        ("WSGI", "gossipsess"),
    ]
    for row in rows.values():
        assert min(row[kind] for kind in ("unused", "read", "write")) > 0
    ours = rows["Starlette", "gossipsess"]
    assert ours["write"] > ours["unused"]


def test_starting_is_measured_against_a_bare_python() -> None:
    """Probes and starts are judged by it. Whether it is within bounds depends on what else the machine does."""
    script = SCRIPT.with_name("start.py")
    done = subprocess.run(
        [sys.executable, str(script), "--rounds", "2", "--json"], capture_output=True, text=True, timeout=120
    )
    rows = {row["what"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert list(rows) == ["bare", "run", "live", "child"], done.stderr
    assert {name: row["bound_ms"] for name, row in rows.items() if row["bound_ms"]} == {"run": 15, "live": 30}
    over = [row for row in rows.values() if row["bound_ms"] and row["extra_ms"] > row["bound_ms"]]
    assert done.returncode == (1 if over else 0)
    for row in rows.values():
        assert row["median_ms"] > 1
        assert row["cpu_ms"] > 1
        assert row["extra_ms"] == pytest.approx(row["median_ms"] - rows["bare"]["median_ms"])
