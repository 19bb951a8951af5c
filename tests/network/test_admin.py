"""How a node is asked from outside its process: who answers, who does not, and that asking can do no harm."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trio

import gossipsess
from gossipsess.cli.__main__ import main
from gossipsess.errors import ConfigError
from gossipsess.protocol import fetch
from gossipsess.runtime import admin, driver, inquiry
from gossipsess.service import RunningNode, lone_node
from gossipsess.waiting import blocking
from tests.network.nodes import CLUSTER, SECRET, committed, driver_of, eventually, loaded, settings, static
from tests.network.test_placement import are_held, kill, spread

SOON_S = 0.3


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """A user's folder of the test's own; else all nodes of this user would be asked too."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "gossipsess"


@pytest.fixture(autouse=True)
def patient(monkeypatch) -> None:
    """As in test_placement.py: all nodes and clients share one interpreter."""
    monkeypatch.setattr(fetch, "FETCH_TIMEOUT_S", 3.0)


def sockets(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix == ".sock")


def answers(request: str = inquiry.STATUS, within_s: float = inquiry.ANSWER_S) -> list[dict]:
    return [reply.answer for reply in inquiry.ask(request, within_s=within_s)]


def command(*arguments: str) -> tuple[int, str]:
    """Run a command of a user's in a process of its own; return its exit code and what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "gossipsess", *arguments, "--cluster", CLUSTER],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


def sends(folder: Path, name: str, data: bytes) -> bytes:
    """Send some bytes to a node's socket and return all that comes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(5)
        sock.connect(str(folder / name))
        sock.sendall(data)
        received = b""
        try:
            while part := sock.recv(65536):
                received += part
        except ConnectionResetError:
            pass  # it was closed before all was read
        return received


NODE = """
import os, signal, sys, time
from gossipsess import Config
from gossipsess.service import RunningNode

node = RunningNode(Config(cluster=sys.argv[1], secret=sys.argv[2], discovery="none", bind="127.0.0.1", port=0))
"""


@contextmanager
def process(code: str = "time.sleep(60)", *, lines: int = 1) -> Iterator[subprocess.Popen[str]]:
    """Run a node in another process, which prints a line before this goes on."""
    running = subprocess.Popen(
        [sys.executable, "-c", f"{NODE}\nprint('runs', flush=True)\n{code}", CLUSTER, SECRET],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert running.stdout is not None
        for _ in range(lines):
            assert running.stdout.readline()
        yield running
    finally:
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.communicate()


def stop(running: subprocess.Popen) -> None:
    """Have it stand still, and return once it does: the signal takes a moment."""
    os.kill(running.pid, signal.SIGSTOP)
    os.waitpid(running.pid, os.WUNTRACED)


# --- who answers ------------------------------------------------------------------------------------------


def test_a_node_that_is_alone_is_ready_though_it_has_no_peers(start):
    """Were it not, pods that start together would wait for each other for ever."""
    start()
    code, text = command("ready")
    assert code == 0, text
    assert text.startswith("yes: ")
    assert command("live")[0] == 0


def test_a_node_that_still_looks_for_others_lives_and_is_not_ready(start):
    """A request that came to it now might be asked for a session that the others hold."""
    start(discovery="static://127.0.0.1:1")  # nobody is there
    assert main(["ready", "--cluster", CLUSTER]) == 1
    assert main(["live", "--cluster", CLUSTER]) == 0
    eventually(lambda: main(["ready", "--cluster", CLUSTER]) == 0, "after two seconds it takes itself for the first")


def test_where_no_node_runs_the_answer_is_no_and_says_where_it_was_looked_for(folder, capsys):
    """The commonest reason is another user, or another environment, than the application's."""
    for asks in ("ready", "live", "drain", "status", "members"):
        assert main([asks]) == 1
        said = capsys.readouterr()
        assert str(folder) in said.out + said.err, asks


def test_all_nodes_of_one_process_answer_each_for_itself(start, folder):
    """Two applications in one process, say, or a test."""
    nodes = [start(), start()]
    assert len(sockets(folder)) == 2
    assert sorted(one["node"] for one in answers()) == sorted(node.status().node for node in nodes)
    nodes[0].close()
    assert [one["node"] for one in answers()] == [nodes[1].status().node]
    nodes[1].close()
    assert sockets(folder) == []


def test_nodes_of_another_cluster_do_not_count_and_are_named(start, capsys):
    """Two applications of one user on one machine; one of them must not answer for the other."""
    start(cluster="books")
    assert main(["ready", "--cluster", "shop"]) == 1
    assert "no node of cluster 'shop' runs here, but of 'books'" in capsys.readouterr().out
    assert main(["drain", "--cluster", "shop"]) == 1
    assert main(["ready", "--cluster", "books"]) == 0


def test_the_status_that_is_answered_is_the_one_that_the_application_sees(cluster):
    """An operator compares the two."""
    here, _ = cluster(2, zone="east")
    committed(here, confirm="all", user="kim")
    (told,) = [one for one in answers() if one["node"] == here.status().node]
    status = here.status()
    for name in ("name", "host", "zone", "synced", "sessions", "mode", "copies", "unconfirmed"):
        assert told[name] == getattr(status, name), name
    assert told["ready"]
    assert told["cluster"] == CLUSTER
    assert told["process"] == os.getpid()
    assert [member["name"] for member in told["members"]] == [member.name for member in status.members]


def test_status_and_members_are_printed_for_people_and_for_programs(cluster, capsys):
    nodes = cluster(3, zone="east")
    assert main(["status", "--cluster", CLUSTER]) == 0
    text = capsys.readouterr().out
    assert text.count("all-to-all: each session lives on every node") == 3
    assert main(["status", "--json", "--cluster", CLUSTER]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(one["node"] for one in told) == sorted(node.status().node for node in nodes)
    assert main(["members", "--cluster", CLUSTER]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert rows[0] == ["NAME", "ADDRESS", "HOST", "ZONE", "STATE", "LINK", "NODE"]
    assert sorted(row[2:6] for row in rows[1:]) == [[f"host-{number}", "east", "alive", "yes"] for number in range(3)]
    assert main(["members", "--json", "--cluster", CLUSTER]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(one["host"] for one in told) == ["host-0", "host-1", "host-2"]


async def test_a_node_of_a_trio_application_answers_too():
    """It has no thread of its own, and a preStop hook all the same."""
    async with gossipsess.open_node(settings()) as node:
        (told,) = await trio.to_thread.run_sync(answers)
        assert told["node"] == node.status().node
    assert await trio.to_thread.run_sync(answers) == []


def test_a_lone_node_has_no_socket(folder):
    """Thousands of tests make one; none of them is anybody's to ask."""
    lone_node(settings())
    assert not folder.exists()


# --- who is no more ---------------------------------------------------------------------------------------


def test_the_socket_of_a_killed_process_is_removed_by_whoever_asks(folder):
    """Where a container is restarted with its folder, process ids come again; a dead one must not be waited for."""
    with process() as running:
        assert len(answers()) == 1
        running.kill()
        running.wait()
        (left,) = sockets(folder)
        assert left.startswith(f"{running.pid}-")
        began_s = time.monotonic()
        assert answers() == []
        assert time.monotonic() - began_s < SOON_S
        assert sockets(folder) == []


def test_the_socket_of_a_killed_process_is_removed_by_the_next_node(folder, start):
    """Where nobody ever asks, a crash loop would fill the folder."""
    with process() as running:
        running.kill()
        running.wait()
        node = start()
        assert sockets(folder) == [f"{os.getpid()}-{node.status().node}.sock"]


def test_a_probe_that_comes_while_a_node_makes_its_socket_leaves_it_alone(start, monkeypatch):
    """The startup of a pod is when probes come. Without its socket the node would never be ready, and be killed."""

    def bound_and_asked(name: str, use: Callable[[str], object]) -> None:
        inquiry.at(name, use)
        answers()  # it is bound, and does not listen yet

    monkeypatch.setattr(admin, "at", bound_and_asked)
    start()
    assert len(answers()) == 1


def test_a_process_that_stands_still_does_not_answer_and_keeps_its_socket(folder, capsys):
    """Stopped by a debugger, or starved: it may go on, and answer the next time."""
    with process() as running:
        stop(running)
        assert answers(within_s=SOON_S) == [None]
        assert main(["live", "--cluster", CLUSTER]) == 1
        assert f"process {running.pid} does not answer" in capsys.readouterr().out
        os.kill(running.pid, signal.SIGCONT)
        assert len(sockets(folder)) == 1
        assert main(["live", "--cluster", CLUSTER]) == 0


def test_one_that_stands_still_does_not_keep_another_from_being_ready(start):
    """One worker hangs; the other serves, and the pod must not be taken out for it."""
    with process() as running:
        stop(running)
        start()
        began_s = time.monotonic()
        assert main(["ready", "--cluster", CLUSTER]) == 0
        assert time.monotonic() - began_s < inquiry.ANSWER_S / 2


FORKS = """
child = os.fork()
if child == 0:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # in order, with whatever is to be done at exit
    print("child", os.getpid(), flush=True)
    time.sleep(60)
time.sleep(60)
"""


def test_a_forked_child_neither_answers_for_its_parent_nor_removes_its_socket(folder):
    """Prefork servers and multiprocessing do this. A child that listened on would be taken for the parent, for ever."""
    with process(FORKS, lines=1) as running:
        assert running.stdout is not None
        child = int(running.stdout.readline().split()[1])
        assert [one["process"] for one in answers()] == [running.pid]
        os.kill(child, signal.SIGTERM)
        time.sleep(SOON_S)
        assert [one["process"] for one in answers()] == [running.pid], "the child has ended, and nothing else"
    with process(FORKS, lines=1) as running:
        assert running.stdout is not None
        running.stdout.readline()
        running.kill()
        running.wait()
        began_s = time.monotonic()
        assert answers() == [], "the child lives, and holds nothing of it"
        assert time.monotonic() - began_s < SOON_S
        assert sockets(folder) == []


# --- what can go wrong with the folder --------------------------------------------------------------------


def test_a_node_whose_folder_cannot_be_made_runs_and_warns_once(start, tmp_path, monkeypatch, caplog, capsys):
    """A read-only file system, say. The sessions are worth more than the probe."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING, "gossipsess"):
        node = start()
        committed(node, user="kim")
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "Set XDG_RUNTIME_DIR to a folder that this user can write to" in warning
    assert main(["ready"]) == 1
    assert str(tmp_path / "file" / "gossipsess") in capsys.readouterr().out


def test_a_folder_that_others_can_enter_is_not_asked(start, folder, capsys):
    """Whoever made it could have put a socket there that says yes."""
    folder.mkdir()
    folder.chmod(0o777)
    node = start()
    assert node.status().running
    assert main(["ready"]) == 1
    assert "chmod" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="closed to all others"):
        inquiry.names()
    assert sockets(folder) == []


@pytest.mark.skipif(sys.platform != "linux", reason="the way round goes through /proc")
def test_a_folder_with_a_long_path_serves_as_any_other(start, tmp_path, monkeypatch):
    """A socket's path has at most 107 bytes; temporary folders of CI systems have more."""
    long = tmp_path / ("x" * 60) / ("y" * 60)
    long.mkdir(parents=True)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    node = start()
    assert [one["node"] for one in answers()] == [node.status().node]
    node.close()
    assert sockets(long / "gossipsess") == []


def test_only_this_user_can_enter_the_folder(start, folder):
    start()
    assert folder.stat().st_mode & 0o777 == 0o700


# --- what can go wrong with a question --------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [b"", b"\n", b"sta", b"status please\n", b"x" * 200_000, b"\xff\xfe\n", b"status\nstatus\n", b"status" + b" " * 90],
    ids=["nothing", "no word", "half a word", "another word", "far too much", "no text", "two", "no end"],
)
def test_a_question_that_is_none_does_no_harm(start, folder, monkeypatch, sent):
    """It is a local user's own mistake, and no reason to stop replicating."""
    monkeypatch.setattr(admin, "CONNECTION_S", SOON_S)
    node = start()
    (name,) = sockets(folder)
    began_s = time.monotonic()
    answer = sends(folder, name, sent)
    assert time.monotonic() - began_s < 3.0
    assert not answer or "error" in json.loads(answer)
    assert [one["node"] for one in answers()] == [node.status().node]


def test_who_connects_and_says_nothing_is_let_go_and_others_get_through(start, folder, monkeypatch):
    """A script that leaks connections must not make a pod unready."""
    monkeypatch.setattr(admin, "CONNECTION_S", SOON_S)
    node = start()
    (name,) = sockets(folder)
    idle = []
    for _ in range(3 * admin.CONNECTIONS_MAX):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        idle.append(sock)
        sock.settimeout(5)
        try:
            sock.connect(str(folder / name))
        except BlockingIOError:  # the queue is full; so it is for whoever asks at this moment
            sock.close()
            idle.pop()
    eventually(lambda: [one and one["node"] for one in answers()] == [node.status().node], "it answers again")
    assert len(driver_of(node)._admin._open) <= admin.CONNECTIONS_MAX
    assert len(idle) > admin.CONNECTIONS_MAX
    assert all(sock.recv(1) == b"" for sock in idle), "all are closed"
    for sock in idle:
        sock.close()


def test_a_question_whose_answer_fails_costs_that_answer_and_no_more(start, monkeypatch, caplog):
    """A bug in what is told must not end the replication."""

    def broken(node):
        raise RuntimeError("planted by a test")

    node = start()
    with monkeypatch.context() as broken_for_now:
        broken_for_now.setattr(admin, "snapshot", broken)
        assert answers() == [None]
        assert answers() == [None]
    assert len([record for record in caplog.records if record.exc_info]) == 1, "logged once"
    assert [one["node"] for one in answers()] == [node.status().node]


# --- drain ------------------------------------------------------------------------------------------------


@pytest.fixture
def alone_with_some(cluster) -> Callable[[], tuple[list[RunningNode], list]]:
    """Return a function that gives five nodes, and sessions written at all of them in turn."""

    def made(confirm=1):
        nodes = cluster(5)
        return nodes, spread(nodes, 200, confirm)

    return made


def drained(*, node: RunningNode, folder: Path, timeout_s: float = 10.0) -> dict:
    """Drain one of several nodes of this process, as the command does the nodes of its pod; return its last answer."""
    name = f"{os.getpid()}-{node.status().node}.sock"
    until_s = time.monotonic() + timeout_s
    request = inquiry.DRAIN
    while True:
        (reply,) = inquiry.ask(request, only=[name])
        if not reply.answer["handing_over"] and not reply.answer["unconfirmed"]:
            return reply.answer
        assert time.monotonic() < until_s, reply.answer
        request = inquiry.STATUS
        time.sleep(0.01)


def test_what_a_drained_node_held_survives_its_kill(alone_with_some, folder):
    """A pod whose preStop hook has returned may be killed at any moment: nothing of it is needed any more."""
    nodes, sessions = alone_with_some()
    goes, *stay = nodes
    answer = drained(node=goes, folder=folder)
    assert answer["leaving"]
    assert not answer["ready"]
    assert are_held(stay, sessions), "each has two holders among the others"
    kill(goes)
    for number, session in enumerate(sessions):
        assert loaded(stay[number % 4], session.cookie)["number"] == number


def test_a_drained_node_serves_on_and_what_is_written_there_is_held_by_others(alone_with_some, folder):
    """Between the hook and SIGTERM lie seconds in which the balancer still sends requests."""
    nodes, sessions = alone_with_some()
    goes, *stay = nodes
    drained(node=goes, folder=folder)
    for number, session in enumerate(sessions[:40]):
        again = loaded(goes, session.cookie)
        assert again["number"] == number
        again["more"] = number
        blocking(goes.store.commit(again))
        sessions[number] = again
    new = [committed(goes, number=number) for number in range(40)]
    kill(goes)
    for number in range(40):
        assert loaded(stay[number % 4], sessions[number].cookie)["more"] == number
        assert loaded(stay[number % 4], new[number].cookie)["number"] == number


def test_a_drain_ends_also_while_requests_write_on(alone_with_some, folder):
    """No quiet moment is needed: a busy pod is drained too."""
    nodes, _ = alone_with_some()
    goes, *stay = nodes
    stop = threading.Event()
    written: list = []

    def writes() -> None:
        while not stop.is_set():
            written.append((committed(goes, number=len(written)), len(written)))

    threads = [threading.Thread(target=writes) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(SOON_S)
        drained(node=goes, folder=folder)
        time.sleep(SOON_S)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    kill(goes)
    assert len(written) > 50
    for session, _ in written:
        assert loaded(stay[0], session.cookie)["number"] == session["number"]


def test_to_drain_twice_and_to_leave_then_changes_nothing(alone_with_some, folder):
    """A preStop hook is repeated when its first run is cut off, and SIGTERM follows in any case."""
    nodes, sessions = alone_with_some()
    goes, *stay = nodes
    drained(node=goes, folder=folder)
    incarnation = goes.node.replica.swim.myself.incarnation
    drained(node=goes, folder=folder)
    assert goes.node.replica.swim.myself.incarnation == incarnation
    began_s = time.monotonic()
    goes.close()
    assert time.monotonic() - began_s < 2.0, "there is nothing left to hand over"
    assert are_held(stay, sessions)


def test_the_command_drains_every_node_of_the_machine_and_says_what_it_did(cluster):
    """One pod with two workers, and others elsewhere: here, in another process with another folder."""
    nodes = cluster(3)
    code = f"""
import json
config = dict(cluster=sys.argv[1], secret=sys.argv[2], bind="127.0.0.1", port=0, discovery="{static(nodes[0])}")
nodes = [RunningNode(Config(host="pod", **config)) for _ in range(2)]
node.close()
for one in nodes:
    one.wait_ready(10)
from gossipsess.waiting import blocking
for number in range(50):
    session = nodes[0].store.create()
    session["number"] = number
    blocking(nodes[0].store.commit(session))
print("pod", flush=True)
time.sleep(60)
"""
    pod = Path(os.environ["XDG_RUNTIME_DIR"]) / "pod"
    pod.mkdir()
    with pytest.MonkeyPatch.context() as there:
        there.setenv("XDG_RUNTIME_DIR", str(pod))
        with process(code, lines=2):
            assert command("ready")[0] == 0
            code, text = command("drain", "--json")
            told = json.loads(text)
            assert (code, told["drained"], len(told["nodes"])) == (0, True, 2), told
            code, text = command("ready")
            assert code == 1
            assert text.count("nothing more to hand over") == 2
            assert command("live")[0] == 0
            code, text = command("drain")
            assert code == 0, "it is done, and stays so"
    assert all(node.status().ready for node in nodes), "the others have not been asked"


def test_a_drain_with_nobody_to_take_the_sessions_says_so_and_does_not_wait(start, capsys):
    """The last pod of all. Its sessions end with it, and that is worth an exit code."""
    node = start()
    assert main(["drain", "--cluster", CLUSTER]) == 0, "it has none"
    node = start()
    committed(node, user="kim")
    began_s = time.monotonic()
    assert main(["drain", "--cluster", CLUSTER]) == 1
    assert time.monotonic() - began_s < 2.0
    assert "nobody else is there to take 1 session of" in capsys.readouterr().out


def pair_of_which_one_is_deaf(cluster, monkeypatch) -> list[RunningNode]:
    """Return two nodes; the first has a session, and the second takes in nothing, but still answers pings."""
    monkeypatch.setattr(driver, "DRAIN_S", 1.0)
    goes, deaf = cluster(2)
    monkeypatch.setattr(driver_of(deaf), "_received", lambda *_: None)
    committed(goes, confirm=0, user="kim")
    return [goes, deaf]


def test_a_drain_that_cannot_end_gives_up_in_time_and_says_what_is_left(cluster, monkeypatch, capsys):
    """The grace period of a pod goes on meanwhile; what is left, SIGTERM gets another ten seconds for."""
    pair_of_which_one_is_deaf(cluster, monkeypatch)
    began_s = time.monotonic()
    assert main(["drain", "--timeout", "0.5", "--cluster", CLUSTER, "--json"]) == 1
    assert 0.5 <= time.monotonic() - began_s < 3.0
    told = json.loads(capsys.readouterr().out)
    assert not told["drained"]
    assert "1 session state to hand over" in told["text"]


def test_a_drain_that_is_to_wait_drains_at_once_and_returns_no_sooner(start):
    """Endpoints take seconds to go from every balancer; the process must not end before."""
    start()
    ended: list[float] = []

    def drains() -> None:
        began_s = time.monotonic()
        assert main(["drain", "--wait", "2", "--cluster", CLUSTER]) == 0
        ended.append(time.monotonic() - began_s)

    thread = threading.Thread(target=drains)
    thread.start()
    eventually(lambda: main(["ready", "--cluster", CLUSTER]) == 1, "it is unready", within_s=1.5)
    late = start()  # a worker that is started in the place of another while the hook waits
    eventually(lambda: late.status().leaving, "that one drains too", within_s=2.0)
    thread.join()
    assert 2.0 <= ended[0] < 4.0


def test_a_node_that_leaves_is_not_ready_from_the_first_moment(cluster, monkeypatch):
    """A server that shuts down lets its node leave; while that hands over, a balancer must not send anything new."""
    goes, _ = pair_of_which_one_is_deaf(cluster, monkeypatch)
    leaving = threading.Thread(target=goes.close)
    leaving.start()
    name = f"{os.getpid()}-{goes.status().node}.sock"
    eventually(lambda: goes.status().leaving, "it leaves")
    for reply in inquiry.ask(inquiry.STATUS, only=[name]):
        assert reply.answer is None or not reply.answer["ready"]
    leaving.join()
    assert list(inquiry.ask(inquiry.STATUS, only=[name])) == []
