"""How a node ends: on purpose, by a crash of its thread, by a fork of its process."""

import asyncio
import json
import subprocess
import sys
import time
from concurrent.futures import Future

import pytest
from litestar import Litestar
from quart import Quart
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.testclient import TestClient

from gossipsess import Confirmed, Degraded, SessionUnavailable
from gossipsess.protocol.effects import Notify, Settle, Warn
from gossipsess.service import process_node
from gossipsess.waiting import blocking
from gossipsess.web.litestar import GossipSessionConfig
from gossipsess.web.quart import GossipSessions
from gossipsess.web.starlette import SessionMiddleware
from tests.network.nodes import SECRET, alive, committed, driver_of, eventually, loaded, settings, state_of


def test_a_leave_is_seen_as_such_at_once_and_no_commit_waits_for_it(cluster):
    """A deployment restarts every node; none of these goodbyes may look like a crash, or slow a request."""
    confirm_timeout_s = 5.0
    stays, goes, also = cluster(3, confirm_timeout_s=confirm_timeout_s)
    seen = set()
    goes.close()
    for node in (stays, also):
        eventually(lambda node=node: seen.add(state_of(node, goes)) or "left" in seen, "it has left", within_s=1.0)
    assert seen <= {"alive", "left"}
    started_s = time.monotonic()
    session = stays.store.create()
    session["user"] = "kim"
    assert blocking(stays.store.commit(session, "all")) == Confirmed(1, 1)
    assert time.monotonic() - started_s < confirm_timeout_s - 1


def test_what_a_leaving_node_wrote_last_goes_out_first(cluster):
    """The last unconfirmed write before a restart is not lost for want of four milliseconds."""
    stays, goes = cluster(2)
    session = committed(goes, confirm=0, user="kim")
    goes.close()
    eventually(lambda: state_of(stays, goes) == "left", "it has left")
    assert loaded(stays, session.cookie)["user"] == "kim"


def test_sessions_stay_readable_and_writable_in_a_process_whose_node_has_left(cluster):
    """Requests that are still being served while the server shuts down; what they write nobody else gets to hold."""
    stays, goes = cluster(2)
    session = committed(goes, confirm="all", user="kim")
    goes.close()
    again = loaded(goes, session.cookie)
    again["late"] = True
    assert goes.store.commit(again, "all") == Degraded(0, 0)
    assert not goes.status().running
    assert stays.status().running


async def serve_starlette(config, served):
    with TestClient(Starlette(middleware=[Middleware(SessionMiddleware, config=config)])):
        served()


async def serve_litestar(config, served):
    app = Litestar([], plugins=[GossipSessionConfig(config=config)], openapi_config=None, logging_config=None)
    async with app.lifespan():
        served()


async def serve_quart(config, served):
    app = Quart("shop")
    GossipSessions(app, config=config)
    async with app.test_app():
        served()


@pytest.mark.parametrize("serve", [serve_starlette, serve_litestar, serve_quart])
def test_the_node_leaves_when_serving_ends_and_not_only_when_the_process_does(serve):
    """A server that ends by a signal comes no further."""
    config, nodes = settings(cluster=serve.__name__), []

    def served():
        nodes.append(process_node(config))
        assert not nodes[0].closed

    asyncio.run(serve(config, served))
    assert nodes[0].closed


def crash(node, when) -> None:
    """Let the node's thread raise at the first effect for which `when` is true."""
    driver = driver_of(node)
    perform = driver._perform

    def broken(effect):
        if when(effect):
            raise RuntimeError("planted by a test")
        perform(effect)

    driver._perform = broken


def is_push(effect) -> bool:
    return type(getattr(effect, "message", None)).__name__ == "Push"


def test_a_crash_of_the_nodes_thread_ends_every_wait_and_leaves_the_process_alone(cluster, caplog):
    """The worst bug of this library may cost replication; it must never cost a request."""
    confirm_timeout_s = 5.0
    here, there = cluster(2, confirm_timeout_s=confirm_timeout_s)
    before = committed(here, confirm="all", user="kim")
    crash(here, is_push)
    session = here.store.create()
    session["cart"] = ["book"]
    started_s = time.monotonic()
    assert blocking(here.store.commit(session, 1)) == Degraded(0, 0)
    assert time.monotonic() - started_s < confirm_timeout_s - 1, "the wait ends with the thread, not with its timeout"
    eventually(lambda: not here.status().running, "the status says so")
    eventually(lambda: "replication stopped" in caplog.text, "the log says why")

    assert loaded(here, before.cookie)["user"] == "kim"
    assert loaded(here, session.cookie)["cart"] == ["book"]
    with pytest.raises(SessionUnavailable):
        loaded(here, "0" * 32)  # the others may hold it, and can be asked no more
    session["cart"] = []
    assert here.store.commit(session, "all") == Degraded(0, 0)
    assert here.store.rotate(session) == Degraded(0, 0)
    assert here.store.invalidate(session) == Degraded(0, 0)

    eventually(lambda: state_of(there, here) == "dead", "the other notices", within_s=2.0)
    assert loaded(there, before.cookie)["user"] == "kim"


def test_a_crash_in_the_middle_of_a_batch_settles_what_came_after_it(start):
    """An effect taken from the node and not carried out would leave its request waiting for ever."""
    node = start()
    crash(node, lambda effect: isinstance(effect, Warn))
    future: Future = Future()
    with node.node.locked() as replica:
        replica.outbox += [Warn("this one fails"), Settle(future.set_result, Confirmed(1, 1))]
    # Taken at the next deadline, within a second, by the task that ends with the failure.
    assert future.result(timeout=5) == Confirmed(1, 1)


def test_a_load_that_waits_for_a_node_that_crashes_ends_with_it(cluster, monkeypatch):
    """A miss at the very moment of the crash."""
    here, _ = cluster(2)
    crash(here, lambda effect: type(getattr(effect, "message", None)).__name__ == "Pull")
    with pytest.raises(SessionUnavailable):
        loaded(here, "0" * 32)


FORK = """
import json, os, sys, time
from gossipsess import Config
from gossipsess.service import process_node
from gossipsess.waiting import blocking

config = Config(cluster=sys.argv[1], secret=sys.argv[2], discovery="none", bind="127.0.0.1", port=0)
seed = process_node(config)
child_config = Config(cluster=sys.argv[1], secret=sys.argv[2], bind="127.0.0.1", port=0,
                      discovery=f"static://127.0.0.1:{seed.sockets.port}")
other = process_node(child_config)
while sum(m.linked for m in seed.status().members) < 1:
    time.sleep(0.01)
session = seed.store.create()
session["user"] = "kim"
blocking(seed.store.commit(session))

reading, writing = os.pipe()
if os.fork() == 0:
    node = process_node(child_config)
    until = time.monotonic() + 8
    while sum(m.linked for m in node.status().members) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    found = blocking(node.store.load(session.cookie))
    members = [m.node for m in node.status().members]
    os.write(writing, json.dumps([node.status().node, node.sockets.port, members, dict(found or {})]).encode())
    os._exit(0)
os.close(writing)
with os.fdopen(reading) as pipe:
    child = json.load(pipe)
print(json.dumps({
    "parents": [seed.status().node, other.status().node],
    "ports": [seed.sockets.port, other.sockets.port],
    "child": child,
    "same": [process_node(config) is seed, process_node(child_config) is other],
    "running": [seed.status().running, other.status().running],
    "outcome": type(blocking(seed.store.commit(session))).__name__,
}))
"""


def test_the_child_of_a_fork_gets_a_node_of_its_own_and_the_parents_go_on():
    """Prefork servers do this. With the parent's id the child would claim its writes and seal with its nonces."""
    done = subprocess.run(
        [sys.executable, "-c", FORK, "forked", SECRET], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    child_id, child_port, child_members, child_session = told["child"]
    assert child_id not in told["parents"]
    assert child_port not in told["ports"]
    assert sorted(child_members) == sorted(told["parents"]), "the child's node is a member like any other"
    assert child_session == {"user": "kim"}
    assert told["same"] == [True, True]
    assert told["running"] == [True, True]
    assert told["outcome"] == "Confirmed"


ORPHAN = """
import os, sys
from gossipsess import Config
from gossipsess.service import RunningNode
from gossipsess.waiting import blocking

common = {"cluster": sys.argv[1], "secret": sys.argv[2], "bind": "127.0.0.1", "port": 0}
node = RunningNode(Config(discovery=f"static://127.0.0.1:{sys.argv[3]}", **common))
node.wait_ready(10)  # synced over the link that stays, should both have dialed
session = node.store.create()
session["user"] = "kim"
blocking(node.store.commit(session))
if os.fork() == 0:
    session["user"] = "lee"
    outcome = blocking(node.store.commit(session))  # on the parent's node, which has no thread here
    print(type(outcome).__name__, outcome.nodes, blocking(node.store.load(session.cookie))["user"], flush=True)
    sys.stdin.read()  # outlives the parent
    os._exit(0)
os.wait()
"""


DIALING = """
import os, socket, sys, time
from gossipsess import Config
from gossipsess.service import RunningNode

with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
    address = full.getsockname()
    others = [socket.socket() for _ in range(4)]
    for other in others:
        other.setblocking(False)
        other.connect_ex(address)  # those whose backlog is full are not answered
    node = RunningNode(Config(discovery=f"static://{address[0]}:{address[1]}", cluster=sys.argv[1], secret=sys.argv[2],
                              bind="127.0.0.1", port=0))
    while not node._driver._dialing:
        time.sleep(0.001)
    time.sleep(0.05)
    before = len(others) + 1
    reading, writing = os.pipe()
    if os.fork() == 0:
        count = 0
        for name in os.listdir("/proc/self/fd"):
            try:
                if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                    copy = socket.socket(fileno=os.dup(int(name)))
                    count += copy.family == socket.AF_INET
                    copy.close()
            except FileNotFoundError:
                pass
        os.write(writing, str(count - before).encode())
        os._exit(0)
    os.wait()
    print(len(node._driver._dialing), os.read(reading, 9).decode())
    for other in others:
        other.close()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_child_forked_in_the_midst_of_a_dial_keeps_no_socket_of_it():
    """A copy that nobody knows of is a connection that does not end when the parent dies."""
    done = subprocess.run(
        [sys.executable, "-c", DIALING, "dialing", SECRET], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout == "1 0\n", done.stdout + done.stderr


def test_a_child_that_outlives_its_parent_holds_no_request_and_no_link_of_it(start):
    """Its copies of the sockets would hide from the others that the parent has died."""
    node = start()
    parent = subprocess.Popen(
        [sys.executable, "-c", ORPHAN, settings().cluster, SECRET, str(node.sockets.port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout.readline() == "Degraded 0 lee\n"
        parent.kill()
        # Refused at its port it is dead at once; silence alone would take longer than this to convict it.
        dead = ["dead"]
        eventually(lambda: [m.state for m in node.status().members] == dead, "the parent is dead", within_s=1.5)


def test_subscribers_come_to_their_end_with_the_node(start):
    """A reader that waited on would hold up the end of its process, and what nobody takes would gather for ever."""
    node = start()
    with node.subscribe() as changes:
        node.close()
        assert list(changes) == []
        assert list(node.subscribe()) == []
        for _ in range(10):
            committed(node, confirm=0, user="kim")
        with node.node.locked() as replica:
            assert not [effect for effect in replica.outbox if isinstance(effect, Notify)]


def test_the_status_of_two_nodes_names_each_other(cluster):
    """What an operator reads first."""
    here, there = cluster(2)
    status = here.status()
    assert (status.synced, status.running, status.host) == (True, True, "host-0")
    assert alive(here) == 1
    assert [(member.node, member.name) for member in status.members] == [(there.status().node, there.status().name)]
    assert status.address == ("127.0.0.1", here.sockets.port)
