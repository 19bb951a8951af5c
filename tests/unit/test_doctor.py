"""The doctor's judgement: what follows from what was found, and what is said first."""

import socket
import subprocess
import sys

import pytest

from gossipsess.cli.doctor.finding import FAULTS, Finding, reasons
from gossipsess.cli.doctor.multicast import check_multicast
from gossipsess.cli.doctor.names import Answer, check_name, is_needed
from gossipsess.cli.doctor.outpost import Ears, Heard, Visit
from gossipsess.cli.doctor.report import Report, print_report
from gossipsess.cli.doctor.visits import check_clocks, check_visit
from gossipsess.config import Config
from gossipsess.discovery import MULTICAST_GROUP
from gossipsess.model.member import Member, MemberState, Name
from gossipsess.wire.messages import Hello

CONFIG = Config(secret="correct-horse-battery-staple", bind="10.0.0.1", discovery="multicast://239.255.79.50:7949")
NAME = Name("dns", "shop", 7950, 16)


def is_mine(host: str) -> bool:
    return host == "10.0.0.1"


def met(number: int, ahead_s: float) -> Visit:
    """Return a visit to a node whose clock is that far ahead."""
    address = (f"10.0.0.{number}", 7950)
    member = Member(bytes([number] * 8), 0, MemberState.ALIVE, address, "a", "a")
    return Visit(address, "seed", "met", node=member.node, hello=Hello(member, 0, ()), ahead_s=ahead_s, udp_s=0.001)


def test_the_command_explains_itself_without_importing_trio():
    """Help is asked for where nothing works yet, and it should come at once."""
    code = (
        "import sys; from gossipsess.cli.doctor.command import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: assert 'trio' not in sys.modules"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert all(f"  {fault} " in told for fault in FAULTS)


@pytest.mark.parametrize("seconds", ["0", "61", "soon", "nan"])
def test_it_does_not_listen_for_ever(seconds):
    done = subprocess.run(
        [sys.executable, "-m", "gossipsess", "doctor", "--seconds", seconds],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "take one above 0" in done.stderr) == (2, True)


def test_to_be_alone_is_said_last_and_what_fails_before_what_may_fail():
    """The reader wants the reason, not the symptom that made him call."""
    found = [
        Finding("cluster", "fail", "nobody", fault="alone"),
        Finding("multicast", "warn", "silence", fault="multicast-dropped"),
        Finding("node", "fail", "no UDP to the first", fault="udp-blocked"),
        Finding("node", "fail", "no UDP to the second", fault="udp-blocked"),
        Finding("node", "fail", "a stranger", fault="secret"),
        Finding("clock", "ok", "all agree"),
    ]
    assert [one.text for one in reasons(found)] == ["a stranger", "no UDP to the first", "silence", "nobody"]


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "no such name"),
        (socket.gaierror(socket.EAI_NODATA, "No address associated with hostname"), "has no address"),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), "gives no answer"),
        (TimeoutError("no answer within 10 s"), "gives no answer within 10 s"),
    ],
)
def test_failures_of_the_name_service_are_told_apart(error, says):
    """A missing Service and a closed port 53 have different cures."""
    found = check_name(Answer(NAME, error=error), needed=True, is_mine=is_mine)
    assert (found.verdict, found.fault) == ("fail", "dns")
    assert says in found.text
    assert ("resolv.conf" in found.advice) == ("gives no answer" in says)


def test_addresses_of_the_other_version_of_ip_are_told():
    """The records are there, and would be of no use."""
    answer = Answer(NAME, error=socket.gaierror(socket.EAI_NODATA, "-"), others=(("fd00::2", 7950),))
    found = check_name(answer, needed=True, is_mine=is_mine)
    assert "another version of IP" in found.text
    assert "GOSSIPSESS_BIND=::" in found.advice


def test_a_name_that_nobody_needs_is_no_fault():
    """Outside Kubernetes `auto` asks only where multicast brings nobody, and the name is nowhere."""
    error = socket.gaierror(socket.EAI_NONAME, "-")
    assert check_name(Answer(NAME, error=error), needed=False, is_mine=is_mine).verdict == "info"


@pytest.mark.parametrize(
    ("settings", "in_kubernetes", "met_elsewhere", "needed"),
    [
        ({}, False, False, False),
        ({}, True, False, True),
        ({}, True, True, True),
        ({"SERVICE": "shop"}, False, False, True),
        ({"SERVICE": "shop"}, False, True, False),
        ({"DISCOVERY": "dns://gossipsess"}, False, True, True),
    ],
)
def test_a_name_is_needed_where_it_was_set_or_this_is_kubernetes(
    monkeypatch, settings, in_kubernetes, met_elsewhere, needed
):
    """Told of a name that nobody has set, a newcomer would look for the fault in DNS."""
    if in_kubernetes:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    else:
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    config = Config.from_env({f"GOSSIPSESS_{name}": text for name, text in ({"SECRET": "s" * 44} | settings).items()})
    assert is_needed(config, config.discovery_parts(), met_elsewhere=met_elsewhere) == needed


@pytest.mark.parametrize(
    ("ahead_s", "verdicts", "says"),
    [
        ([0.1, -0.3], ["ok"], "2 clocks within 0.3 s"),
        ([3.0, 0.0], ["warn"], "node at 10.0.0.2:7950 is 3.0 s ahead of this machine's"),
        ([30.0, 30.2, 29.9], ["fail"], "this machine's clock is 30.0 s behind those of 3 nodes"),
        ([0.0, 0.1, -700.0], ["fail"], "node at 10.0.0.4:7950 is 700.0 s behind"),
        ([5.0], ["warn"], "5.0 s ahead of"),
        ([], [], ""),
    ],
)
def test_the_clock_that_differs_from_all_others_is_named(ahead_s, verdicts, says):
    """On the wrong machine NTP is repaired in vain."""
    found = check_clocks([met(number, each_s) for number, each_s in enumerate(ahead_s, 2)], is_mine)
    assert [one.verdict for one in found] == verdicts
    assert says in "".join(one.text for one in found)


@pytest.mark.parametrize(
    ("ears", "met_elsewhere", "verdict", "fault"),
    [
        (Ears(problem="Network is unreachable"), False, "fail", "multicast-local"),
        (Ears(), False, "fail", "multicast-local"),
        (Ears(), True, "warn", "multicast-local"),
        (Ears(own=True), False, "warn", "multicast-dropped"),
        (Ears(own=True), True, "info", "multicast-dropped"),
        (Ears(own=True, heard={("10.0.0.1", 7950): Heard(True, True)}), False, "warn", "multicast-dropped"),
        (Ears(own=True, heard={("10.0.0.2", 7950): Heard(True, False)}), False, "warn", "multicast-dropped"),
        (Ears(own=True, heard={("10.0.0.2", 7950): Heard(True, True)}), False, "ok", ""),
        (Ears(own=True, strangers={"10.0.0.3": "unknown key"}), False, "warn", "secret"),
    ],
)
def test_what_multicast_brings_is_judged_by_who_was_met_otherwise(ears, met_elsewhere, verdict, fault):
    """A cloud that drops it is no fault where names find everybody."""
    found = check_multicast(CONFIG, ears, MULTICAST_GROUP, 3.0, met_elsewhere=met_elsewhere, is_mine=is_mine)
    assert (found[0].verdict, found[0].fault) == (verdict, fault)


@pytest.mark.parametrize(
    ("visit", "verdict", "fault"),
    [
        (Visit(("10.0.0.2", 7950), "seed", "silent"), "fail", "tcp-blocked"),
        (Visit(("10.0.0.2", 7950), "seed", "silent", udp_s=0.01), "fail", "tcp-blocked"),
        (Visit(("10.0.0.2", 7950), "seed", "refused", udp_s=0.01), "fail", "tcp-blocked"),
        (Visit(("10.0.0.2", 7950), "seed", "refused"), "warn", "refused"),
        (Visit(("10.0.0.2", 7950), "seed", "unreachable", "No route to host"), "fail", "tcp-blocked"),
        (Visit(("10.0.0.2", 7950), "seed", "no node", "no greeting"), "fail", "not-a-node"),
        (met(2, 0.0), "ok", ""),
    ],
)
def test_each_way_in_which_an_address_fails_has_its_own_name(visit, verdict, fault):
    """Firewall, stopped application, wrong port: three people who can repair it."""
    [found] = check_visit(visit, CONFIG)
    assert (found.verdict, found.fault) == (verdict, fault)


@pytest.mark.parametrize(("verdict", "code"), [("ok", 0), ("info", 0), ("warn", 0), ("fail", 1)])
def test_only_what_keeps_nodes_apart_fails(capsys, verdict, code):
    """A script that watches must not be woken by every doubt."""
    report = Report([Finding("clock", verdict, "text " * 60, "advice", "clock")])
    assert print_report(report, as_json=False) == code
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 118
    assert ("what to do:" in shown) == (verdict in ("warn", "fail"))
