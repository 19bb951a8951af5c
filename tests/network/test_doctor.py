"""The doctor beside real nodes: it names what is wrong, and disturbs nobody."""

import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
import trio

from gossipsess.cli.doctor.report import Report
from gossipsess.cli.doctor.run import examine
from gossipsess.service import RunningNode
from tests.network.nodes import (
    CLUSTER,
    SECRET,
    all_linked,
    driver_of,
    eventually,
    multicast_group,
    rejected,
    settings,
    static,
)
from tests.ports import free_ports, free_range

SECONDS = 0.5


@pytest.fixture(autouse=True)
def runtime_folder(tmp_path, monkeypatch) -> None:
    """Give the nodes of each test, and its doctor, a folder of their own: others of this machine are not asked."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def environ(**changes) -> dict[str, str]:
    """Return variables by which the doctor has the settings of these tests' nodes; None leaves one out."""
    values = {
        "CLUSTER": CLUSTER,
        "SECRET": SECRET,
        "BIND": "127.0.0.1",
        "PORT": "0",
        "DISCOVERY": "none",
    } | {name.upper(): value for name, value in changes.items()}
    return {f"GOSSIPSESS_{name}": value for name, value in values.items() if value is not None}


def examined(**changes) -> Report:
    """Return what the doctor finds with these settings."""
    return trio.run(examine, SECONDS, lambda text: None, environ(**changes))


def faults(report: Report, *verdicts: str) -> set[str]:
    """Return the faults it names with one of these verdicts, of `fail` and `warn` where none are given."""
    return {one.fault for one in report.findings if one.verdict in (verdicts or ("fail", "warn")) and one.fault}


def texts(report: Report, check: str) -> str:
    """Return all that it says of one check."""
    return "\n".join(one.text for one in report.findings if one.check == check)


def most_likely(report: Report) -> str:
    from gossipsess.cli.doctor.finding import reasons

    return reasons(report.findings)[0].fault


def test_a_cluster_that_is_well_is_called_well(cluster):
    """A doctor that finds something in everybody is not asked twice."""
    nodes = cluster(3)
    report = examined(discovery=static(*nodes))
    assert report.exit_code == 0
    assert faults(report) == set()
    for node in nodes:
        assert f"127.0.0.1:{node.sockets.port} (seed): sees 2 others; TCP " in texts(report, "node")
    assert "UDP" in texts(report, "node")
    assert texts(report, "clock").startswith("3 clocks within 0.")


@pytest.mark.parametrize("way", ["seeds", "multicast"])
def test_nobody_notices_the_doctor(start, caplog, way):
    """It is run where something is wrong already: it must not add a member, a log line, or a change of placement."""
    caplog.set_level(logging.INFO, "gossipsess")
    group = multicast_group()
    nodes = [start(discovery=group) for _ in range(3)]
    all_linked(*nodes)
    eventually(lambda: time.time() - caplog.records[-1].created > 2.0, "nothing happens any more")
    caplog.clear()
    before = [_seen_by(node) for node in nodes]
    for _ in range(3):
        report = examined(discovery=group if way == "multicast" else static(*nodes))
        assert report.exit_code == 0
        assert "3 on this machine" in texts(report, "cluster")
    assert [_seen_by(node) for node in nodes] == before
    assert [one.getMessage() for one in caplog.records if one.name.startswith("gossipsess")] == []
    assert all(not rejected(node) for node in nodes)
    # A node hears of the end of a connection a moment after the doctor has closed it.
    eventually(lambda: all(len(driver_of(node)._links) == 2 for node in nodes), "the doctor's links are gone")


def _seen_by(node: RunningNode) -> tuple[object, ...]:
    replica = node.node.replica
    return node.status().members, replica.placement.layout.tag, replica.swim.myself.incarnation


def test_whom_nobody_named_is_found_through_who_knows_him(cluster, tmp_path, monkeypatch):
    """One seed is enough for a node, and so it is for its doctor."""
    nodes = cluster(3)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "elsewhere"))
    report = examined(discovery=static(nodes[0]))
    assert texts(report, "node").count("sees 2 others") == 3
    assert texts(report, "node").count("(known at 127.0.0.1)") == 2


def test_nodes_are_found_by_multicast_and_answer_the_doctor(start):
    """They say a beacon every ten seconds only; nobody wants to wait so long for a doctor."""
    group = multicast_group()
    nodes = [start(discovery=group) for _ in range(2)]
    all_linked(*nodes)
    report = examined(discovery=group)
    assert report.exit_code == 0
    assert "our own heard, 2 nodes of this machine" in texts(report, "multicast")
    assert texts(report, "node").count("(multicast)") == 2


def test_the_nodes_of_this_machine_say_how_they_are_and_whom_they_know(cluster):
    """To whom a node is linked only the node itself can say."""
    nodes = cluster(2)
    report = examined()
    for node in nodes:
        assert f"{node.status().name} ({node.status().node}): ready; sees 1 other" in texts(report, "here")
    assert texts(report, "node").count("(known here): sees 1 other") == 2
    assert report.exit_code == 0


def test_the_environment_of_another_application_is_told(start):
    """The doctor was called in another shell than the application."""
    node = start()
    report = examined(cluster="another")
    assert f"nodes here are of cluster {node.config.cluster!r}" in texts(report, "here")
    assert "secret" in faults(report)


def test_two_doctors_at_once_are_no_finding(start):
    """Two people look for the same fault, and hear each other's beacons."""
    group = multicast_group()
    nodes = [start(discovery=group) for _ in range(2)]
    all_linked(*nodes)
    reports: list[Report] = []

    async def one() -> None:
        reports.append(await examine(SECONDS, lambda text: None, environ(discovery=group)))

    async def both() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one)
            nursery.start_soon(one)

    trio.run(both)
    assert [report.exit_code for report in reports] == [0, 0]
    assert all("0 nodes of this cluster elsewhere, 2 on this machine" in texts(one, "cluster") for one in reports)


@pytest.mark.parametrize("changes", [{"secret": "another-horse-battery"}, {"cluster": "another"}])
def test_a_wrong_secret_is_named(start, changes):
    """The two look alike from the outside: one that says nothing at all."""
    node = start()
    report = examined(discovery=static(node), **changes)
    assert report.exit_code == 1
    assert most_likely(report) == "secret"
    assert "another secret or another cluster" in texts(report, "node")
    assert SECRET not in repr(report)


def test_a_stranger_on_the_multicast_group_is_named(start):
    """It is how a wrong secret shows where no address is set."""
    group = multicast_group()
    start(discovery=group)
    report = trio.run(examine, 2.0, lambda text: None, environ(discovery=group, secret="another-horse-battery"))
    assert most_likely(report) == "secret"
    assert "127.0.0.1 sends beacons that do not open" in texts(report, "multicast")


def test_a_node_that_takes_only_the_former_secret_is_told_from_a_stranger(start):
    """A rotation in the wrong order: the cure is another one."""
    node = start(secret="former-horse-battery-staple")
    report = examined(discovery=static(node), secret_fallbacks="former-horse-battery-staple")
    assert most_likely(report) == "secret"
    assert "knows only a former secret" in texts(report, "node")


def test_an_address_where_nobody_listens_is_named():
    """Stopped, or at another port: in any case no firewall."""
    report = examined(discovery=f"static://127.0.0.1:{free_ports(1)[0]}")
    assert most_likely(report) == "refused"
    assert "nobody listens there" in texts(report, "node")
    assert report.exit_code == 1


def test_a_program_that_is_no_node_is_named():
    """A port that is set twice, usually."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        report = examined(discovery=f"static://127.0.0.1:{other.getsockname()[1]}")
    assert most_likely(report) == "not-a-node"
    assert "no greeting within" in texts(report, "node")


def test_a_port_range_that_another_program_has_is_named():
    """No node can start; its log says so too, where anybody reads it."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        report = examined(port=str(port), port_range="1")
    assert most_likely(report) == "ports"
    assert f"{port}/TCP by other programs" in texts(report, "ports")


def test_a_range_tells_who_has_which_port(start):
    """Workers of one machine take the next free one; a third one's ports are in the way of nobody."""
    node = start(port=free_range(4), port_range=3)
    port = node.sockets.port
    stranger = start(port=port + 1, port_range=1, cluster="another")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", port + 2))
        report = examined(port=str(port), port_range="4")
    text = texts(report, "ports")
    assert f"{port}/UDP and TCP by nodes of this cluster" in text
    assert f"{stranger.sockets.port}/UDP and TCP by nodes of another secret or cluster" in text
    assert f"{port + 2}/UDP by other programs" in text
    assert "(this machine): sees 0 others" in texts(report, "node")


def test_a_lone_node_is_called_alone(start):
    """One process, and nothing wrong: also an answer to why it is alone."""
    node = start(port=free_ports(1)[0], port_range=1)
    report = examined(port=str(node.sockets.port), port_range="1")
    assert report.exit_code == 1
    assert "1 on this machine: it is alone" in texts(report, "cluster")


def test_a_name_that_does_not_exist_is_named():
    """The first mistake with a headless Service: another name, or another namespace."""
    report = examined(discovery="dns://no-such-name.invalid")
    assert most_likely(report) == "dns"
    assert "no such name" in texts(report, "names") or "name server gives no answer" in texts(report, "names")


def test_a_name_with_this_machine_alone_is_told():
    """The Service selects one pod only, or there is one pod only."""
    report = examined(discovery=f"dns://localhost:{free_ports(1)[0]}")
    assert "dns-own" in faults(report)


def test_nodes_behind_one_name_are_found_at_its_further_ports(start):
    """The first port may be another application's: a node looks further, and so does its doctor."""
    port = free_range(2)
    start(port=port, port_range=1, cluster="another")
    node = start(port=port + 1, port_range=1)
    report = examined(discovery=f"dns://localhost:{port}", port="0")
    assert f"127.0.0.1:{node.sockets.port} (dns://localhost): sees 0 others" in texts(report, "node")


def test_settings_that_are_refused_are_said_with_exit_code_2():
    """No node starts with them, so there is nothing else to look for."""
    report = examined(discovery="mulitcast://239.255.79.50:7949")
    assert report.exit_code == 2
    assert "allowed are auto" in texts(report, "settings")


def test_loopback_advertised_to_other_machines_is_refused():
    """Others would dial themselves."""
    changes = environ(bind="0.0.0.0") | {"POD_IP": "127.0.0.1"}
    del changes["GOSSIPSESS_BIND"]
    report = trio.run(examine, SECONDS, lambda text: None, changes)
    assert report.exit_code == 2
    assert "would reach themselves" in texts(report, "settings")


def test_an_address_of_no_interface_is_told():
    """Right behind a forwarded port, else a copied setting."""
    report = examined(advertise="192.0.2.7")
    assert "address" in faults(report)
    assert "no interface of this machine has 192.0.2.7" in texts(report, "address")


def test_other_rules_of_placement_are_told(start):
    """Nodes that differ in them do not find out what the other lacks."""
    node = start(secondaries=2)
    report = examined(discovery=static(node))
    assert "rules" in faults(report)
    assert "GOSSIPSESS_SECONDARIES is 1 here and 2 there" in texts(report, "node")


def test_nodes_that_do_not_know_each_other_are_told(start):
    """Each of them is well for itself: only who sees both can tell."""
    here, there = start(), start()
    report = examined(discovery=static(here, there))
    assert "unlinked" in faults(report)
    assert f"127.0.0.1:{here.sockets.port}" in texts(report, "cluster")


@pytest.mark.parametrize(("ahead_s", "verdict"), [(0, "ok"), (5, "warn"), (-5, "warn"), (60, "fail"), (-60, "fail")])
def test_a_clock_that_is_off_is_named(start, monkeypatch, ahead_s, verdict):
    """Nodes refuse who is more than ten seconds ahead, and it looks like a network that swallows links."""
    node = start()
    now = time.time
    with monkeypatch.context() as shifted:  # the doctor's own clock
        shifted.setattr("gossipsess.cli.doctor.outpost.time", type("Time", (), {"time": lambda: now() - ahead_s}))
        report = examined(discovery=static(node))
    [clock] = [one for one in report.findings if one.check == "clock"]
    assert clock.verdict == verdict
    if ahead_s:
        assert f"{abs(ahead_s)}.0 s {'ahead of' if ahead_s > 0 else 'behind'}" in clock.text


def test_the_doctor_ends_though_a_peer_says_nothing(start):
    """A stopped process accepts connections: its kernel does."""
    silent = socket.create_server(("127.0.0.1", 0))
    with silent:
        began_s = trio.run(_timed, lambda: examine(SECONDS, lambda text: None, environ(discovery=_at(silent))))
    assert began_s < 8


async def _timed(play: Callable) -> float:
    began_s = trio.current_time()
    await play()
    return trio.current_time() - began_s


def _at(sock: socket.socket) -> str:
    return f"static://127.0.0.1:{sock.getsockname()[1]}"


def test_the_command_prints_for_people_and_for_programs(start):
    """Who asks is either somebody at a terminal, or a script that watches."""
    node: RunningNode = start()
    there = {name: value for name, value in os.environ.items() if not name.startswith("GOSSIPSESS_")}
    there |= environ(discovery=static(node), secret="another-horse-battery")
    command = [sys.executable, "-m", "gossipsess", "doctor", "--seconds", "0.1"]
    told = subprocess.run([*command, "--json"], env=there, capture_output=True, text=True, check=False)
    assert (told.returncode, told.stderr) == (1, "")
    answer = json.loads(told.stdout)
    assert (answer["well"], answer["cluster"], answer["reasons"][0]["fault"]) == (False, CLUSTER, "secret")
    shown = subprocess.run(command, env=there, capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stderr) == (1, "")
    assert f"FAIL  node      127.0.0.1:{node.sockets.port} (seed) does not belong here" in shown.stdout
    assert "Most likely:" in shown.stdout
    assert settings(secret="another-horse-battery").secret not in told.stdout + shown.stdout
    eventually(lambda: rejected(node)["StrangerError"], "the node has counted a stranger")
