# The demo as a newcomer runs it: processes, a terminal, signals, and nothing left behind.

import asyncio
import contextlib
import gc
import io
import json
import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import pytest
from starlette.requests import Request

from gossipsess.cli.demo import app, visitors
from gossipsess.cli.demo.balancer import Balancer
from gossipsess.cli.demo.browser import Browser
from gossipsess.cli.demo.narrator import Narrator, held, where
from gossipsess.cli.demo.page import Mate, crew
from gossipsess.cli.demo.ports import take_ports
from gossipsess.cli.demo.scenario import lost

from .harness import wait_until

COMMAND = [sys.executable, "-m", "gossipsess.cli", "demo", "--json"]
STOPPED_S = 10.0


@contextmanager
def demo(
    *arguments: str, stdin: int = subprocess.DEVNULL, stderr: TextIO | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A demo, which is killed at the end if it still runs."""
    environ = {name: value for name, value in os.environ.items() if name != "CI"}
    with subprocess.Popen(
        [*COMMAND, *arguments], stdin=stdin, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environ
    ) as popen:
        try:
            yield popen
        finally:
            popen.kill()


def events(popen: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    assert popen.stdout is not None
    for line in popen.stdout:
        yield json.loads(line)


def until(stream: Iterator[dict[str, Any]], event: str) -> dict[str, Any]:
    """Return the next event of that name."""
    for one in stream:
        if one["event"] == event:
            return one
    raise AssertionError(f"the demo ended before it said {event!r}")


def running(pids: list[int]) -> list[int]:
    """Return which of these are still the demo's replicas."""
    found = []
    for pid in pids:
        with contextlib.suppress(FileNotFoundError):
            if b"gossipsess.cli.demo.app" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def test_the_kill_scenario_keeps_the_login_and_ends_with_exit_code_0() -> None:
    """It is the first thing that a newcomer or a CI job sees of the promise."""
    with demo("--scenario", "kill") as popen:
        told = list(events(popen))
        code = popen.wait(STOPPED_S)
    names = [one["event"] for one in told]
    steps = [
        "started",
        "members",
        "login",
        "cart",
        "cart",
        "killed",
        "survived",
        "survived",
        "restarted",
        "caught_up",
        "verdict",
    ]
    assert [name for name in names if name in steps] == steps
    verdict = told[-1]
    assert verdict["event"] == "verdict"
    assert (verdict["ok"], verdict["why"], code) == (True, "", 0)
    pids = [one["pid"] for one in told if "pid" in one]
    assert len(set(pids)) == 4, "three replicas, and one that was started again"
    assert running(pids) == []


def test_with_six_nodes_it_shows_where_the_session_lives_and_how_it_moves() -> None:
    """Without a terminal: the login outlives the death of its primary, a replica that drains, and one that joins."""
    with demo("--nodes", "6") as popen:
        told = list(events(popen))
        code = popen.wait(STOPPED_S)
    steps = {"members", "lives", "killed", "drained", "verdict"}
    names = [one["event"] for one in told if one["event"] in steps]
    assert names == ["members", "lives", "killed", "lives", "drained", "lives", "lives", "verdict"]
    lives = [one for one in told if one["event"] == "lives"]
    killed, drained, joined = (
        next(one for one in told if one["event"] == name) for name in ("killed", "drained", "joined")
    )
    assert f"replica-{killed['replica']}" == lives[0]["holders"][0], "the primary"
    assert f"replica-{killed['replica']}" not in lives[1]["holders"] + lives[2]["holders"]
    assert f"replica-{drained['replica']}" not in lives[2]["holders"] + lives[3]["holders"]
    assert (joined["replica"], drained["how"]) == (7, "SIGTERM")
    [visitors] = [one["visitors"] for one in told if one["event"] == "visitors"]
    assert drained["sessions"] > visitors / 20, "about a third is usual"
    gains = [one for one in told if one["event"] == "gains" and one["replica"] == 7]
    assert gains[0]["partitions"] < gains[-1]["partitions"] == gains[-1]["of"]
    caught_up = {one["replica"]: one["sessions"] for one in told if one["event"] == "caught_up"}
    assert caught_up.keys() == {7, killed["replica"]}
    assert min(caught_up.values()) > visitors / 20, "the newcomer fills up visibly"
    survived = [one["replica"] for one in told if one["event"] == "survived"]
    assert len(survived) == sum(len(one["holders"]) for one in lives) + 6
    assert set(survived[-6:]) == {1, 2, 3, 4, 5, 6, 7} - {drained["replica"]}
    assert (told[-1]["ok"], told[-1]["why"], code) == (True, "", 0)
    assert running([one["pid"] for one in told if "pid" in one]) == []


def test_the_pages_buttons_kill_drain_start_and_join() -> None:
    """A visitor of the page does by a click what a rollout does to the replicas."""
    terminal, stdin = pty.openpty()

    async def play(stream: Iterator[dict[str, Any]], port: int) -> None:
        browser = Browser(port)

        async def click(order: str, replica: str = "0", **headers: str) -> int:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            return (await browser.post("/crew", {"order": order, "replica": replica}, sent)).status

        own = {"Host": f"127.0.0.1:{port}"}
        for foreign in (
            {"Origin": "https://shop.example"},
            {"Origin": "null"},
            {"Origin": "http://127.0.0.1:3000"},
            {"Sec_Fetch_Site": "cross-site"},
            {"Sec_Fetch_Site": "same-site"},
            {"Host": f"shop.example:{port}", "Origin": f"http://shop.example:{port}"},
        ):
            assert await click("kill", "1", **(own | foreign)) == 403, foreign
        assert await click("kill", "99", Origin=f"http://127.0.0.1:{port}", **own) == 400, "no such replica"
        assert await click("kill", "99", Sec_Fetch_Site="same-origin") == 400
        assert (await browser.post("/crew", {"order": "kill"})).status == 400, "of which replica?"
        assert await click("drain", "2") == 303
        assert until(stream, "drained")["replica"] == 2
        assert await click("kill", "2") == 303, "it is not up: nothing is done"
        assert await click("start", "2") == 303
        assert until(stream, "restarted")["replica"] == 2
        assert await click("join") == 303
        assert until(stream, "joined")["replica"] == 3
        assert await click("kill", "1") == 303
        assert until(stream, "killed")["replica"] == 1
        assert await click("burn", "1") == await click("kill", "-1") == 400

    try:
        with demo("--nodes", "2", stdin=stdin) as popen:
            stream = events(popen)
            page = until(stream, "started")["page"]
            assert until(stream, "visitors")["visitors"] > 100
            asyncio.run(play(stream, int(page.rpartition(":")[2])))
    finally:
        os.close(terminal)
        os.close(stdin)


@pytest.mark.parametrize(("replicas", "shown", "status"), [(9, True, 303), (10, False, 409)])
def test_one_more_is_offered_only_while_there_may_be_more(
    replicas: int, shown: bool, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A button that does nothing looks broken."""
    mates = tuple(Mate(number, "up", 1, 8000 + number, 0, 0, 341, 341, True) for number in range(1, replicas + 1))
    assert ("Start one more" in crew(mates)) == shown
    monkeypatch.setattr(app, "mates", mates)
    monkeypatch.setattr(app, "tell", lambda *_, **__: None)
    body = b"order=join"

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    request = Request({"type": "http", "method": "POST", "headers": [(b"host", b"127.0.0.1:8000")]}, receive)
    answer = asyncio.run(app.order(request))
    assert answer.status_code == status
    assert status == 303 or b"10 replicas" in answer.body


@pytest.mark.parametrize(
    ("mate", "sentence"), [(("up", 341, 341), "<td>341</td>"), (("starting", 120, 341), "<td>120 of 341</td>")]
)
def test_the_page_shows_what_a_replica_holds_of_what_it_is_to_hold(mate: tuple[str, int, int], sentence: str) -> None:
    """So one sees a newcomer fill up."""
    state, partitions, share = mate
    assert sentence in crew([Mate(1, state, 1, 8001, 99, 0, partitions, share, False)])


@pytest.mark.parametrize(
    ("holders", "live", "sentence"),
    [
        (["replica-3", "replica-5"], 6, "on replica 3 (primary) and replica 5 (secondary)"),
        (["replica-3"], 2, "on replica 3 (primary)"),
        (["replica-1", "replica-2"], 2, "on every replica that is up, 2 of them"),
    ],
)
def test_where_a_session_lives_is_said_by_role_unless_it_is_everywhere(
    holders: list[str], live: int, sentence: str
) -> None:
    """Who holds it is the replicas' word; only the sentence is the demo's."""
    assert where(holders, live) == sentence


@pytest.mark.parametrize(
    ("sessions", "copies", "sentence"),
    [
        (1, 0, "1 session"),
        (1, 1, "1 session, which lives elsewhere"),
        (3, 1, "3 sessions, 1 of which lives elsewhere"),
        (3, 2, "3 sessions, 2 of which live elsewhere"),
        (3, 3, "3 sessions, which live elsewhere"),
    ],
)
def test_a_replica_that_has_a_copy_only_does_not_seem_to_be_where_the_session_lives(
    sessions: int, copies: int, sentence: str
) -> None:
    """A request leaves a copy where it was served; "holds 1 session" alone contradicted the line above it."""
    assert held(sessions, copies) == sentence


def test_on_a_terminal_it_serves_survives_a_kill_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    """A person kills whenever they like; only Ctrl-C is to end the demo, and that is no failure."""
    terminal, stdin = pty.openpty()
    errors = tmp_path / "errors"
    try:
        with errors.open("w") as stderr, demo(stdin=stdin, stderr=stderr) as popen:
            stream = events(popen)
            started = until(stream, "started")
            replicas = started["replicas"]
            until(stream, "members")
            idle = socket.create_connection(("127.0.0.1", int(started["page"].rpartition(":")[2])))
            os.kill(replicas[1]["pid"], signal.SIGKILL)
            killed = until(stream, "killed")
            assert (killed["replica"], killed["how"]) == (2, "SIGKILL")
            again = until(stream, "restarted")
            assert again["replica"] == 2
            popen.send_signal(signal.SIGINT)
            assert popen.wait(STOPPED_S) == 0
            idle.close()  # browsers keep connections open; the demo does not wait for them
            assert errors.read_text() == ""
            assert running([replica["pid"] for replica in replicas] + [again["pid"]]) == []
    finally:
        os.close(terminal)
        os.close(stdin)


def test_replicas_end_with_a_demo_that_gets_no_chance_to_end_them() -> None:
    """Three forgotten servers on a developer's machine would be worse than no demo."""
    with demo("--scenario", "kill") as popen:
        pids = [replica["pid"] for replica in until(events(popen), "started")["replicas"]]
        assert running(pids) == pids
        popen.kill()
        wait_until(lambda: not running(pids), "the replicas end", STOPPED_S)


@pytest.mark.parametrize(
    ("after", "missing"),
    [
        ({"user": "kim", "cart": ["tea"], "session": "aa"}, []),
        ({"user": None, "cart": ["tea"], "session": "aa"}, ["login"]),
        ({"user": "kim", "cart": [], "session": "aa"}, ["cart"]),
        ({"user": "kim", "cart": ["tea"], "session": "bb"}, ["session_id"]),
        ({"user": None, "cart": [], "session": None}, ["login", "cart", "session_id"]),
    ],
)
def test_a_scenario_names_what_was_lost(after: dict[str, Any], missing: list[str]) -> None:
    """A verdict that cannot be bad proves nothing."""
    assert lost({"user": "kim", "cart": ["tea"], "session": "aa"}, after) == missing


@pytest.mark.parametrize(("method", "status", "asked"), [(b"GET", b"200", 1), (b"POST", b"502", 0)])
def test_only_what_changes_nothing_is_sent_to_a_second_replica(method: bytes, status: bytes, asked: int) -> None:
    """A replica that dies with a POST in its hands may have carried it out: twice would be two things in the cart."""
    answered = 0

    async def dies(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answered
        answered += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async def play() -> bytes:
        servers = [await asyncio.start_server(serve, "127.0.0.1", 0) for serve in (dies, answers)]
        ports = [server.sockets[0].getsockname()[1] for server in servers]
        servers.append(await asyncio.start_server(Balancer(lambda: ports).serve, "127.0.0.1", 0))
        reader, writer = await asyncio.open_connection(*servers[-1].sockets[0].getsockname())
        writer.write(method + b" / HTTP/1.1\r\n\r\n")
        answer = await reader.read()
        writer.close()
        for server in servers:
            server.close()
        return answer

    assert asyncio.run(play()).split()[1] == status
    assert answered == asked


def test_a_request_whose_browser_has_gone_is_served_to_its_end() -> None:
    """Nothing but its own task then knew of it, so that collecting garbage ended it with a traceback."""
    gone, served = asyncio.Event(), asyncio.Event()

    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gone.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async def play() -> None:
        backend = await asyncio.start_server(answers, "127.0.0.1", 0)
        balancer = Balancer(lambda: [backend.sockets[0].getsockname()[1]])

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await balancer.serve(reader, writer)
            served.set()

        front = await asyncio.start_server(serve, "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*front.sockets[0].getsockname())
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        writer.transport.abort()
        await asyncio.sleep(0.1)
        gc.collect()
        gone.set()
        for _ in range(10):
            gc.collect()
            await asyncio.sleep(0.01)
        await asyncio.wait_for(served.wait(), 5)
        front.close()
        backend.close()

    asyncio.run(play())


def test_a_visitor_whose_replica_was_killed_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """People kill whenever they like, also while the visitors come: that is no reason for the demo to end."""
    monkeypatch.setattr(visitors, "VISITORS", 8)
    asked = 0

    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        number = asked = asked + 1
        await reader.readuntil(b"\r\n\r\n")
        line = b"502 Bad Gateway" if number in (2, 3, 7) else b"303 See Other"
        writer.write(b"HTTP/1.1 " + line + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    async def play(told: io.StringIO) -> None:
        server = await asyncio.start_server(answers, "127.0.0.1", 0)
        await visitors.visit(server.sockets[0].getsockname()[1], Narrator(told, as_json=True))
        server.close()

    told = io.StringIO()
    asyncio.run(play(told))
    assert json.loads(told.getvalue())["visitors"] == 8
    assert asked == 8 + 3


def test_two_demos_at_a_time_share_no_port_though_their_replicas_are_not_up_yet() -> None:
    """The balancer of one asked the replicas of the other, whose page then drained replicas of the first."""
    one = take_ports(18000, 4)
    ports = {sock.getsockname()[1] for sock in one}
    for sock in one[1:]:
        sock.close()  # for replicas that are still starting, or were killed
    other = take_ports(18000, 4)
    try:
        assert ports.isdisjoint(sock.getsockname()[1] for sock in other)
        assert len(ports) == len(other) == 4
    finally:
        for sock in (one[0], *other):
            sock.close()


def test_importing_the_command_line_imports_no_server_and_no_trio() -> None:
    """``--help`` and ``version`` work without the demo's extra, and at once."""
    code = """
import sys, gossipsess.cli, gossipsess.cli.__main__ as command
command.main(["version"])
heavy = {"trio", "uvicorn", "starlette"} & set(sys.modules)
assert not heavy, f"imported: {heavy}"
"""
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
