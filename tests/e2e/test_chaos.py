# Real processes under faults, in short; the scripts of tests/chaos play each as long as one likes, and at full size.
#
# Bounds of time and memory are the scripts' own. What proves that a check can fail stands beside the check.

import random
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trio

from ..chaos import grow, host, in_place, joiner, rolling
from ..chaos.balancer import Answer, Balancer, BrokenOffError, fetch
from ..chaos.checker import Killed, Told, check, value_of
from ..chaos.detection import P99_MAX_S
from ..chaos.detection import play as play_detection
from ..chaos.history import play as play_history
from ..chaos.keys import play_hot, play_races
from ..chaos.nodes import can_have_own_network, percentile
from ..chaos.pause import play as play_pause
from ..chaos.shoppers import Basket, Tally, open_shop
from ..ports import LOOPBACK, free_ports

needs_network = pytest.mark.skipif(not can_have_own_network(), reason="needs root and iproute2, to be alone on lo")


def script(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script that counts bytes: it moves into a network namespace, which a test process cannot."""
    command = [sys.executable, "-m", f"tests.chaos.{module}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])


def test_keys_written_at_the_same_moment_are_kept_by_both_nodes() -> None:
    """Two parallel requests of one browser on two replicas: neither may undo the other."""
    races = play_races(150)
    assert races.kept, races


def test_races_are_lost_where_the_nodes_never_meet() -> None:
    """The races above prove something only if a lost key would be seen."""
    races = play_races(10, discovery="none")
    assert races.lost == 30, races  # own keys of both on the other, and the first session is not even known there
    assert not races.kept


def test_a_hot_session_is_equal_on_all_nodes_once_quiet() -> None:
    """Unpaced writes from every side coalesce, and what is left out of the pushes must not be missing in the end."""
    play_hot(5000, nodes=3)


def test_kill_9_is_known_to_every_other_process_within_a_second() -> None:
    """Until then commits wait for the dead one, or count on it."""
    took_s = play_detection(nodes=4, trials=4, rng=random.Random(1))
    assert len(took_s) == 12
    assert percentile(took_s, 99) <= P99_MAX_S, took_s


def test_a_stopped_peer_does_not_hurt_the_others_and_catches_up() -> None:
    """A peer that hangs is harder on the others than one that is dead: its kernel still takes bytes."""
    paused = play_pause(pause_s=6.0, before_s=3.0)
    assert paused.kept, paused


@needs_network
def test_idle_nodes_send_little() -> None:
    """A sidecar that chatters would be noticed on the bill, and idle is what sessions mostly are."""
    common = ("idle", "--sessions", "0", "--seconds", "5")
    with ThreadPoolExecutor(2) as threads:  # each in a network of its own
        measuring = threads.submit(script, *common, "--nodes", "3")
        broken = script(*common, "--nodes", "2", "--bound", "20")
        measured = measuring.result()
    assert measured.returncode == 0, measured.stdout + measured.stderr
    assert broken.returncode == 1, broken.stdout + broken.stderr


@needs_network
def test_a_session_that_differs_unnoticed_is_found_and_repaired_for_little() -> None:
    """Whatever goes wrong unseen, the digests on the probes show; and a big cluster must not pay for a small repair."""
    common = ("repair", "--sessions", "2000", "--rounds", "1", "--idle-seconds", "5")
    with ThreadPoolExecutor(2) as threads:  # each in a network of its own
        measuring = threads.submit(script, *common)
        broken = script(*common, "--bound", "200")
        measured = measuring.result()
    assert measured.returncode == 0, measured.stdout + measured.stderr
    assert broken.returncode == 1, broken.stdout + broken.stderr


def test_clients_amid_faults_are_told_the_truth() -> None:
    """Everything at once, and every answer that a client got is held against the cluster."""
    played = play_history(seconds=20, nodes=5, seed=random.randrange(10**6))
    assert not played.verdict.violations, played
    assert played.faults.total() > 3, played
    assert played.verdict.figures["writes that had to stay"] > 0, played


def test_violations_are_found_where_the_nodes_never_meet() -> None:
    """The history above proves something only if untrue answers would be seen."""
    played = play_history(seconds=2, nodes=2, seed=1, discovery="none")
    rules = {violation.partition(":")[0] for violation in played.verdict.violations}
    assert {"held", "agreement"} <= rules, rules


def test_a_rolling_restart_with_a_kill_9_loses_no_acknowledged_write() -> None:
    """Every deployment is one; and what dies meanwhile does not wait until it is over."""
    played = trio.run(partial(rolling.play, rounds=3, nodes=3, kill=True))
    assert played["clean"], str(played)
    assert played["kills"] == 1


def test_a_rolling_restart_loses_all_where_the_nodes_never_meet() -> None:
    """The restarts above prove something only if clients would see a loss."""
    played = trio.run(partial(rolling.play, rounds=2, nodes=2, discovery="none"))
    assert not played["clean"], played
    assert played["lost"] > 0, played


def test_growing_and_shrinking_to_one_loses_no_acknowledged_write() -> None:
    """An autoscaler does it every day, and takes away first what was there first."""
    played = trio.run(partial(grow.play, rounds=1, nodes=4))
    assert played["clean"], str(played)


def test_kill_9_of_all_workers_of_a_host_loses_no_acknowledged_write() -> None:
    """Two copies on one machine would be none."""
    played = trio.run(partial(host.play, rounds=1, nodes=6))
    assert played["clean"], str(played)
    assert played["confirmed"] >= host.SESSIONS, played


def test_kill_9_of_a_host_loses_sessions_where_host_labels_are_ignored() -> None:
    """The death above proves something only if two copies on one machine would be noticed."""
    played = trio.run(partial(host.play, rounds=1, nodes=6, ignore_hosts=True))
    assert not played["clean"], played
    assert played["confirmed_absent"] > host.SESSIONS / 60, played  # both copies were on that host for one in 15


def test_a_restart_in_place_moves_nothing_between_the_others() -> None:
    """A deployment restarts every process: if each had others fetch what it held, it would be mostly that."""
    played = trio.run(partial(in_place.play, rounds=2, nodes=4, sessions=1000))
    assert played["clean"], str(played)


def test_a_restart_under_another_name_moves_sessions() -> None:
    """The restarts above prove something only if a move would be seen."""
    played = trio.run(partial(in_place.play, rounds=1, nodes=4, sessions=1000, elsewhere=True))
    assert played["maps_changed"] == 4, played
    assert played["pulled_by_those_who_stayed"] > 0, played


@pytest.mark.parametrize(
    ("module", "line", "allowed"),
    [
        (rolling, "--rounds 0", "1 or more"),
        (rolling, "--rounds -1", "1 or more"),
        (rolling, "--nodes 0", "2 or more"),
        (rolling, "--nodes 1", "2 or more"),
        (rolling, "--nodes 2 --kill", "3 or more"),
        (rolling, "--seconds 0", "above 0"),
        (rolling, "--seconds nan", "above 0"),
        (rolling, "--discovery dns", "static"),
        (grow, "--rounds 0", "1 or more"),
        (grow, "--nodes 0", "2 or more"),
        (grow, "--nodes 1", "2 or more"),
        (host, "--rounds 0", "1 or more"),
        (host, "--nodes 0", "3 or more"),
        (host, "--nodes 2", "3 or more"),
        (host, "--nodes 3 --ignore-hosts", "4 or more"),
        (joiner, "--nodes 0", "2 or more"),
        (joiner, "--sessions 0", "1 or more"),
        (joiner, "--sessions -5", "1 or more"),
        (joiner, "--bytes -1", "1 to 262144"),
        (joiner, "--bytes 300000", "1 to 262144"),
        (joiner, "--bytes many", "1 to 262144"),
        (in_place, "--rounds 0", "1 or more"),
        (in_place, "--nodes 1", "2 or more"),
        (in_place, "--sessions 0", "1 or more"),
    ],
)
def test_arguments_that_would_prove_nothing_are_refused(
    module: ModuleType, line: str, allowed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run without a restart, a session or a survivor would end "clean", or in a traceback."""
    with pytest.raises(SystemExit) as ended:
        module.main(line.split())
    assert ended.value.code == 2
    [error] = capsys.readouterr().err.splitlines()[-1:]
    assert line.split()[0] in error, error
    assert allowed in error, error


def test_a_joiner_fills_up_though_its_donor_is_killed() -> None:
    """A full cluster must be able to take somebody in, and a joiner must not rely on one other."""
    played = trio.run(partial(joiner.play, nodes=3, sessions=6000, value_bytes=2000, kill_donor=True, before_s=2))
    assert played["clean"], str(played)


@pytest.mark.parametrize(
    ("seen", "stale", "counted"),
    [
        ("ab", False, {}),
        ("abd", False, {}),  # a write without an answer may have been carried out
        ("a", True, {"stale": 1}),
        ("ab", True, {"doubted": 1}),
        ("a", False, {"stale": 1, "untold": 1}),
        ("", False, {"absent": 1, "lost": 2}),
        ("d", False, {"absent": 1, "lost": 2}),
        ("abx", False, {"invented": 1}),
    ],
)
def test_shoppers_see_what_an_answer_lacks(seen: str, stale: bool, counted: dict[str, int]) -> None:
    """An answer that is never found wrong here would never be found wrong in a rollout either."""
    basket = Basket(acknowledged={"a": "a.v", "b": "b.v"}, in_doubt={"d": "d.v"})
    tally = Tally(acknowledged=2, baskets=[basket])
    lives = tally.judge(basket, "", {key: f"{key}.v" for key in seen}, stale=stale)
    figures = asdict(tally)
    assert {
        name: figures[name] for name in ("absent", "lost", "stale", "doubted", "untold", "invented") if figures[name]
    } == counted
    assert lives == ("absent" not in counted)
    assert tally.clean == (not counted)
    tally.hurt = True
    told = counted in ({"doubted": 1}, {"stale": 1})
    assert tally.clean == (not counted or told), "only then there may be nobody to ask, and the answer says so"


@pytest.mark.parametrize(
    ("shown", "lost", "hidden"), [(["ab", "ab"], 0, 0), (["ab", "a"], 0, 1), (["a", "a"], 1, 0), (["a", ""], 1, 1)]
)
def test_shoppers_tell_a_lost_write_from_one_that_some_node_hides(shown: list[str], lost: int, hidden: int) -> None:
    """The first is gone for good, the second shows a replica that did not catch up."""
    basket = Basket(acknowledged={"a": "a.v", "b": "b.v"})
    tally = Tally(acknowledged=2, baskets=[basket])
    tally.judge_end(basket, [{key: f"{key}.v" for key in keys} for keys in shown])
    assert (tally.lost, tally.hidden) == (lost, hidden)
    assert tally.clean == (not lost and not hidden)


async def test_an_answer_that_breaks_off_is_right_only_where_a_node_was_killed(nursery: trio.Nursery) -> None:
    """What a balancer has begun to pass on it cannot ask for again elsewhere."""
    (port,) = free_ports(1)

    async def dying(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")

    await nursery.start(partial(trio.serve_tcp, dying, port, host=LOOPBACK))
    with pytest.raises(BrokenOffError):
        await fetch(port, "GET", "/")
    asked, again = 0, trio.Event()

    async def ask(method: str, path: str, cookies: Mapping[str, str]) -> Answer:
        nonlocal asked
        asked += 1
        if asked == 2:
            again.set()
        return await fetch(port, method, path, cookies)

    async with open_shop(ask, random.Random(1), clients=1) as tally:
        await again.wait()
    assert tally.broken_off == tally.requests == 2
    tally.acknowledged = 1
    assert (tally.errors, tally.clean) == (0, False)
    tally.hurt = True
    assert tally.clean


async def test_the_balancer_repeats_reads_and_never_writes(nursery: trio.Nursery) -> None:
    """A write that went down with its node may have been carried out; repeated, it might be twice."""
    balancer_port, dying_port, serving_port, closed_port = free_ports(4)
    served: list[bytes] = []

    async def die(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.aclose()

    async def serve(stream: trio.SocketStream) -> None:
        served.append(await stream.receive_some())
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    await nursery.start(partial(trio.serve_tcp, die, dying_port, host=LOOPBACK))
    await nursery.start(partial(trio.serve_tcp, serve, serving_port, host=LOOPBACK))
    balancer = Balancer(balancer_port)
    await balancer.serve(nursery)
    for port in (closed_port, dying_port, serving_port):
        balancer.put_in(port)
    reads = [await fetch(balancer_port, "GET", "/") for _ in range(3)]
    writes = [await fetch(balancer_port, "POST", "/write") for _ in range(3)]
    assert [answer.status for answer in reads] == [200] * 3
    assert sorted((answer.status, answer.cut) for answer in writes) == [(200, False), (502, True), (502, True)]
    assert len(served) == 4
    balancer.take_out(dying_port)
    assert (await fetch(balancer_port, "POST", "/write")).status == 200
    nursery.cancel_scope.cancel()


CHAIN = "0.0"


def told(do: str, **what: Any) -> Told:
    """Return a request on session "old", answered by node 0."""
    keys = what.pop("seen", ())
    given: dict[str, Any] = {
        "chain": CHAIN,
        "do": do,
        "session": "old",
        "key": "",
        "needed": frozenset(),
        "node": 0,
        "start": 1,
    }
    given |= {"began_s": 1.0, "outcome": "read" if do == "read" else "Confirmed", "nodes": 1}
    given |= {"seen": {key: value_of(CHAIN, key) for key in keys}}
    return Told(**(given | what))


def absent(node: int, linked: tuple[int, ...] = (), start: int = 1) -> Told:
    """Return a late read that was told that there is no session "old"."""
    return told("read", outcome="absent", nodes=0, began_s=9.0, node=node, linked=linked, start=start)


LOGIN = told("login", session="", key="k1", new_session="old")
WROTE = told("write", key="k2", seen=["k1"], began_s=2.0)
BOTH = {"old": {key: value_of(CHAIN, key) for key in ("k1", "k2")}}
ONE = {"old": {"k1": value_of(CHAIN, "k1")}}
NONE: dict[str, None] = {"old": None}
ORIGIN_KILLED = Killed(node=0, start=1, at_s=5.0)
OTHER_KILLED = Killed(node=1, start=1, at_s=5.0)


@pytest.mark.parametrize(
    ("requests", "kills", "final", "broken"),
    [
        ([LOGIN, WROTE], [], [BOTH, BOTH], set()),
        ([LOGIN, WROTE], [], [BOTH, ONE], {"held", "agreement"}),
        ([LOGIN, WROTE], [ORIGIN_KILLED], [ONE, ONE], {"held"}),  # the one that acknowledged it still lives
        ([LOGIN, WROTE], [ORIGIN_KILLED, OTHER_KILLED], [ONE, ONE], set()),
        ([LOGIN, WROTE._replace(nodes=2)], [ORIGIN_KILLED, OTHER_KILLED], [ONE, ONE], {"held"}),
        ([LOGIN, WROTE._replace(outcome="unknown")], [], [ONE, ONE], set()),
        ([LOGIN, told("read", needed=frozenset({"k1"}))], [], [ONE, ONE], {"read your writes"}),
        ([LOGIN, told("read", needed=frozenset({"k1"}), stale=True)], [], [ONE, ONE], set()),
        ([LOGIN, told("read", seen=["k1", "k9"])], [], [ONE, ONE], {"nothing invented"}),
        ([LOGIN, told("read", chain="1.1", seen=["k1"])], [], [ONE, ONE], {"nothing invented"}),
        ([LOGIN, WROTE], [], [{"old": BOTH["old"] | {"k1": "else"}}] * 2, {"nothing invented"}),
        ([LOGIN, told("logout", seen=["k1"])], [], [NONE, NONE], set()),
        ([LOGIN, told("logout", seen=["k1"])], [], [ONE, ONE], {"logged out"}),
        ([LOGIN, told("logout", seen=["k1"])], [ORIGIN_KILLED, OTHER_KILLED], [ONE, ONE], set()),
        ([LOGIN, told("logout", seen=["k1"]), told("read", seen=["k1"])], [], [NONE, NONE], {"logged out"}),
        ([LOGIN, told("logout", seen=["k1"]), told("read", seen=["k1"], node=1)], [], [NONE, NONE], set()),
        ([LOGIN, told("write", key="k2", outcome="Gone")], [], [ONE, ONE], {"logged out"}),
        ([LOGIN, told("logout", outcome="unknown"), told("write", outcome="Gone")], [], [NONE, NONE], set()),
        ([LOGIN, absent(node=0)], [], [ONE, ONE], {"still logged in"}),  # it holds the session itself
        ([LOGIN, absent(node=1, linked=(0,))], [], [ONE, ONE], {"still logged in"}),
        ([LOGIN, absent(node=1)], [], [ONE, ONE], {"still logged in"}),  # one other node confirmed: there is but one
        ([LOGIN, absent(node=1)], [], [ONE, ONE, ONE], set()),  # the other one, cut off as the origin is
        ([LOGIN, absent(node=1, linked=(2,))], [], [ONE, ONE, ONE], {"still logged in"}),
        ([LOGIN, absent(node=2, start=2)], [], [ONE, ONE, ONE], set()),  # alone since it was started
        ([LOGIN, absent(node=1, linked=(0,))], [ORIGIN_KILLED, OTHER_KILLED], [NONE, NONE], set()),
        ([LOGIN, absent(node=0, linked=(1,))], [ORIGIN_KILLED], [ONE, ONE], {"still logged in"}),
        ([LOGIN, absent(node=0, linked=(1,))], [ORIGIN_KILLED._replace(at_s=50.0)], [ONE, ONE], {"still logged in"}),
        ([LOGIN, WROTE._replace(outcome="unknown"), absent(node=0)], [], [ONE, ONE], {"still logged in"}),
        ([LOGIN._replace(outcome="unknown"), absent(node=0, linked=(1,))], [], [NONE, NONE], set()),
        ([LOGIN, told("logout", seen=["k1"]), absent(node=0, linked=(1,))], [], [NONE, NONE], set()),
        ([LOGIN, told("logout", outcome="unknown"), absent(node=0, linked=(1,))], [], [NONE, NONE], set()),
        (
            [LOGIN, told("read", node=2, nodes=0, seen=["k1"], began_s=7.0), absent(node=1, linked=(2,))],
            [ORIGIN_KILLED, OTHER_KILLED],
            [ONE, ONE, ONE],
            {"still logged in"},
        ),
        (
            [LOGIN, WROTE, told("rotate", new_session="new", seen=["k1", "k2"])],
            [],
            [NONE | {"new": ONE["old"]}] * 2,
            {"held"},
        ),
        (
            [LOGIN, WROTE, told("rotate", new_session="new", seen=["k1", "k2"])],
            [],
            [NONE | {"new": BOTH["old"]}] * 2,
            set(),
        ),
    ],
)
def test_the_checker_tells_true_histories_from_untrue_ones(
    requests: list[Told], kills: list[Killed], final: list[dict[str, Any]], broken: set[str]
) -> None:
    """A rule that is never broken in these would never be broken by the cluster either."""
    verdict = check(requests, kills, final)
    assert {violation.partition(":")[0] for violation in verdict.violations} == broken, verdict.violations
