"""The commands that ask nodes: what they print, what they refuse, and what they cost. Real nodes: test_admin.py."""

import dataclasses
import json
import subprocess
import sys

import pytest

from gossipsess import Config
from gossipsess.cli import asking
from gossipsess.cli.__main__ import main
from gossipsess.runtime import driver, inquiry
from gossipsess.status import snapshot
from tests.unit.machines import ALICE, BOB, CAROL, Clocked


def told(here: Clocked, **changes) -> dict:
    """Return what a node answers, as it comes over the socket."""
    here.node.driven_by(lambda: None)
    status = snapshot(here.node)
    told = {"cluster": "shop", "process": 4711, "ready": status.ready, **dataclasses.asdict(status), **changes}
    return json.loads(json.dumps(told))


def test_a_node_is_ready_when_it_has_what_the_others_have_and_not_before():
    """It is asked here and by Kubernetes alike; one rule for both."""
    here = Clocked(ALICE)
    assert not snapshot(here.alone().node).ready, "nobody drives it"
    here.node.driven_by(lambda: None)
    assert snapshot(here.node).ready
    assert not told(Clocked(BOB))["ready"], "it has met nobody, and has not waited"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"running": False}, "has stopped replicating"),
        ({"leaving": True}, "drains or leaves, and has nothing more to hand over"),
        (
            {"leaving": True, "handing_over": 1, "unconfirmed": 1234},
            "drains or leaves, and has 1 partition and 1,234 session states to hand over",
        ),
        ({"members": []}, "has met nobody yet, and waits a little"),
        ({}, "has met others, and is about to pull what they hold"),
        (
            {"gaining": {"partitions": 3, "of": 1024, "come": 5, "for_s": 1.0, "eta_s": None}},
            "pulls what the others hold: 5 of 1,024 partitions are here",
        ),
    ],
)
def test_who_is_not_ready_says_why(changes, why):
    """It is all that a failed probe shows."""
    here = Clocked(ALICE).alone()
    here.linked(BOB)
    assert asking.why_unready(told(here, **{"gaining": None} | changes)) == why


def test_the_status_is_a_few_lines_that_name_what_matters():
    here = Clocked(ALICE).alone()
    here.linked(BOB)
    lines = asking.status_text(told(here, zone="east", gaining=None)).splitlines()
    assert lines[0].endswith("process 4711)")
    names = [line.split()[0] for line in lines[1:]]
    assert names == ["ready", "address", "cluster", "sessions", "placement", "moving", "unconfirmed"]
    text = "\n".join(lines)
    assert "zone east" in text
    assert "shop: 1 other node live, 1 linked" in text
    assert "moving      nothing" in text


def test_what_moves_is_told_in_the_status():
    """Who restarts node after node waits for this to be nothing."""
    gaining = {"partitions": 3, "of": 340, "come": 12, "for_s": 1.0, "eta_s": 3.2}
    text = asking.status_text(told(Clocked(ALICE).alone(), gaining=gaining, handing_over=2))
    assert "pulls 340 partitions, of which 12 are here, about 3 s left; hands over 2 partitions" in text


def test_the_table_of_members_has_a_row_for_each_and_says_who_cannot_be_reached():
    """A member that is live and not linked is one whose TCP port is closed to this node."""
    here = Clocked(ALICE).alone()
    here.linked(BOB)
    members = told(here)["members"]
    (bob,) = members
    carol = {**bob, "name": "carol", "node": CAROL.hex()[:8], "linked": False, "zone": "east", "leaving": True}
    dead = {**carol, "state": "dead", "address": ["fd00::1", 7950]}
    rows = [line.split() for line in asking.members_text([bob, carol, dead]).splitlines()]
    assert rows[0] == ["NAME", "ADDRESS", "HOST", "ZONE", "STATE", "LINK", "NODE"]
    assert [row[3:6] for row in rows[1:]] == [["-", "alive", "yes"], ["east", "leaving", "no"], ["east", "dead", "-"]]
    assert rows[3][1] == "[fd00::1]:7950"


def test_what_is_repeated_here_to_save_an_import_is_what_it_stands_for():
    """A probe that asked for another cluster than the nodes' default would never say yes."""
    assert Config().cluster == asking.CLUSTER
    assert driver.DRAIN_S == asking.TIMEOUT_S


@pytest.mark.parametrize("command", asking.COMMANDS)
def test_each_command_teaches_its_use(command, capsys):
    """People look here first, and copy what they find into a manifest."""
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    assert text.startswith(f"usage: gossipsess {command} ")
    for part in ("exit codes:", "--json", "--cluster", "XDG_RUNTIME_DIR"):
        assert part in text
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize(
    "arguments",
    [
        ["ready", "--cluster", ""],
        ["ready", "now"],
        ["drain", "--timeout", "-1"],
        ["drain", "--wait", "soon"],
        ["drain", "--wait", "inf"],
        ["live", "--wait", "1"],
    ],
)
def test_wrong_arguments_are_told_apart_from_a_no(arguments, capsys):
    """A misspelt probe must not look like a pod that is not ready."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"usage: gossipsess {arguments[0]} ")


@pytest.mark.parametrize("command", ["ready", "live"])
def test_a_probe_imports_hardly_more_than_the_standard_library(command, tmp_path):
    """It is run every few seconds in each pod: half a second of imports would be a tenth of a small pod's processor."""
    code = f"""
import sys
from gossipsess.cli.__main__ import main
try:
    main(["{command}"])
finally:
    print(sorted(name for name in sys.modules if name.startswith("gossipsess")))
    dear = ["trio", "cbor2", "cryptography", "asyncio", "typing", "dataclasses", "pathlib", "tempfile", "shutil"]
    dear += ["argparse", "re", "socket", "contextlib", "collections"]
    print([name for name in dear if name in sys.modules])
"""
    # -S: what a site's own start-up imports is not this library's; so the package itself must be named.
    path = [*sys.path[1:], str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:] = {path!r}\n{code}"],
        capture_output=True,
        text=True,
        check=True,
        env={"XDG_RUNTIME_DIR": str(tmp_path)},
    )
    said, ours, dear = done.stdout.splitlines()
    assert said.startswith("no: ")
    assert dear == "[]"
    assert len(ours.split()) < 12


@pytest.mark.parametrize("cluster", ["shop", "a\tb\nc\\", "Größe 店", "yes"])
def test_a_probes_answer_is_read_without_a_parser_and_holds_any_name(cluster):
    """A name that looked like the end of a field would make another node of this one."""
    line = inquiry.probe_line(cluster, "web-1", "8b6fd0e2", 4000, "no")
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    told = {"cluster": cluster, "name": "web-1", "node": "8b6fd0e2", "process": "4000", "ready": False}
    assert inquiry._probed(bytearray(line)) == told
    assert inquiry._probed(bytearray(inquiry.probe_line(cluster, "a", "b", 1, "yes")))["ready"] is True


@pytest.mark.parametrize(
    "received", [b"", b"\n", b'{"error": "no such request"}\n', b"a\tb\tc\td\\x\tyes\n", b"a\tb\tc\n"]
)
def test_what_is_no_answer_to_a_probe_is_none(received):
    """A node that was stopped in the middle of its answer is not ready."""
    assert inquiry._probed(bytearray(received)) is None
