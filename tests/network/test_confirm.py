"""How many others hold a write when its response leaves, and how long that may take."""

import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from signal import SIGCONT, SIGSTOP

import pytest

from gossipsess import Confirmed, Degraded
from gossipsess.waiting import blocking
from tests.network.nodes import CLUSTER, SECRET, alive, eventually, static

PEER = """
import sys
from gossipsess import Config
from gossipsess.service import RunningNode
cluster, secret, seed = sys.argv[1:]
node = RunningNode(Config(cluster=cluster, secret=secret, discovery=seed, bind="127.0.0.1", port=0, host="other"))
sys.stdin.read()
node.close()
"""


@contextmanager
def peer_process(seed: str):
    """A node in a process of its own, which can be stopped as a whole."""
    arguments = [sys.executable, "-c", PEER, CLUSTER, SECRET, seed]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def commit(node, confirm):
    session = node.store.create()
    session["user"] = "kim"
    return blocking(node.store.commit(session, confirm))


@pytest.mark.parametrize("below", [4, 5])
@pytest.mark.parametrize(("confirm", "at_least"), [(1, 1), (2, 2), (9, 3)])
def test_a_commit_waits_for_as_many_hosts_as_asked_for_or_as_there_are(cluster, confirm, at_least, below):
    """What a user has seen succeed must be held elsewhere, and asking for too many must not hang."""
    nodes = cluster(4, all_to_all_below=below)
    session = nodes[0].store.create()
    session["user"] = "kim"
    outcome = blocking(nodes[0].store.commit(session, confirm))
    assert isinstance(outcome, Confirmed)
    assert outcome.hosts >= at_least
    holders = [node for node in nodes[1:] if session.record.sid in node.node.records]
    assert len(holders) >= at_least, "confirmed means held, at the moment the commit returns"


@pytest.mark.parametrize(("below", "holders"), [(4, 2), (5, 4)])
def test_a_commit_that_asks_for_all_waits_for_every_holder_and_for_nobody_else(cluster, below, holders):
    """Who asks for all wants as much safety as there is, and not to wait for whom the session is not placed on."""
    nodes = cluster(4, all_to_all_below=below)
    by_name = {node.status().name: node for node in nodes}
    for writer in nodes:
        session = writer.store.create()
        session["user"] = "kim"
        outcome = blocking(writer.store.commit(session, "all"))
        placed = [by_name[name] for name in writer.holders_of(session.cookie)]
        assert len(placed) == holders
        others = [node for node in placed if node is not writer]
        assert outcome == Confirmed(len(others), len(others))
        assert all(session.record.sid in node.node.records for node in others)


def test_a_commit_that_asks_for_none_does_not_wait(cluster):
    """The caller has chosen speed; nothing crosses a thread."""
    here, _ = cluster(2)
    session = here.store.create()
    session["user"] = "kim"
    assert here.store.commit(session, 0) == Confirmed(0, 0)


def test_a_lone_node_never_waits(start):
    """One process, in development or at night, is not slower for being alone."""
    node = start()
    session = node.store.create()
    session["user"] = "kim"
    assert node.store.commit(session, "all") == Confirmed(0, 0)


def test_workers_of_one_host_are_counted_only_where_no_other_host_is(start):
    """Two copies in one machine die together; but where there is one machine, another process is the best."""
    first = start(host="one")
    second = start(host="one", discovery=static(first))
    eventually(lambda: alive(first) == 1 and alive(second) == 1, "two workers of one host")
    assert commit(first, 1) == Confirmed(hosts=0, nodes=1)
    elsewhere = start(host="two", discovery=static(first))
    eventually(lambda: alive(first) == 2 and alive(elsewhere) == 2, "and one of another")
    assert commit(first, 1).hosts == 1


def is_stopped(process) -> bool:
    threads = Path(f"/proc/{process.pid}/task").iterdir()
    return all((thread / "stat").read_text().rpartition(")")[2].split()[0] == "T" for thread in threads)


def test_a_stopped_peer_costs_no_more_than_the_timeout(start):
    """A machine that swaps itself to death answers nobody, and the kernel still acknowledges every byte."""
    node = start(host="here")
    with peer_process(static(node)) as process:
        eventually(lambda: alive(node) == 1, "the peer is linked")
        assert commit(node, 1) == Confirmed(1, 1)
        process.send_signal(SIGSTOP)
        eventually(lambda: is_stopped(process), "the kernel has stopped it, which it does in its own time")
        started_s = time.monotonic()
        outcome = commit(node, 1)
        waited_s = time.monotonic() - started_s
        assert outcome == Degraded(0, 0)
        assert 0.2 < waited_s < 2.0, f"the timeout is 0.25 s; it took {waited_s:.2f} s"
        process.send_signal(SIGCONT)
        eventually(lambda: commit(node, 1) == Confirmed(1, 1), "it answers again")


def test_a_killed_peer_is_dead_within_a_second_and_commits_stop_waiting_for_it(start):
    """Its kernel says so at once: the connection is reset, and nobody listens on its port."""
    node = start(host="here")
    with peer_process(static(node)) as process:
        eventually(lambda: alive(node) == 1, "the peer is linked")
        process.kill()
        process.wait()
        eventually(lambda: [m.state for m in node.status().members] == ["dead"], "it is declared dead", within_s=1.5)
    assert commit(node, "all") == Confirmed(0, 0)
