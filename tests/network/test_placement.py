"""From four nodes on a session is on two of them: what a client may notice of that, which is nothing."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gossipsess import SessionUnavailable
from gossipsess.protocol import fetch, gains, placement, surplus
from gossipsess.runtime.driver import DRAIN_S
from gossipsess.service import RunningNode
from gossipsess.session import Session
from gossipsess.waiting import blocking
from tests.network.nodes import all_linked, committed, driver_of, eventually, loaded, state_of, static


def spread(nodes: list[RunningNode], count: int, confirm=1) -> list[Session]:
    """Return so many sessions, written at all nodes in turn."""
    return [committed(nodes[number % len(nodes)], confirm, number=number) for number in range(count)]


def having(nodes: list[RunningNode], session: Session) -> list[str]:
    """Return the names of those that have a session, holders or not."""
    return [node.status().name for node in nodes if session.record.sid in node.node.records]


def holders(nodes: list[RunningNode], session: Session) -> list[RunningNode]:
    """Return the holders of a session, the primary first, as each of the nodes sees them: else none."""
    [names, *others] = [node.holders_of(session.cookie) for node in nodes]
    by_name = {node.status().name: node for node in nodes}
    if any(one != names for one in others) or any(name not in by_name for name in names):
        return []
    return [by_name[name] for name in names]


def are_held(nodes: list[RunningNode], sessions: list[Session], copies: int = 2) -> bool:
    """Say whether all nodes agree on the holders of each session, which are so many, and each of them has it."""
    for session in sessions:
        placed = holders(nodes, session)
        if len(placed) != copies or any(session.record.sid not in node.node.records for node in placed):
            return False
    return True


def kill(*nodes: RunningNode) -> None:
    """Let nodes end without a word, as the kernel ends a process that is killed: it closes the sockets."""
    for node in nodes:
        driver = driver_of(node)
        node._portal.run_soon(driver._nursery.cancel_scope.cancel)
    for node in nodes:
        eventually(lambda node=node: not node.status().running, "it has ended")


def all_read(nodes: list[RunningNode], sessions: list[Session]) -> bool:
    """Read each session at each node, with and without the token; say whether all were there, fresh."""
    for number, session in enumerate(sessions):
        for node in nodes:
            for cookie in (session.cookie, session.id):
                seen = loaded(node, cookie)
                if seen is None or seen["number"] != number or seen.stale:
                    return False
    return True


@contextmanager
def clients(nodes: list[RunningNode], sessions: list[Session]) -> Iterator[list[str]]:
    """Read and write the sessions at the nodes in turn meanwhile; give what went wrong, in words."""
    wrong: list[str] = []
    stop = threading.Event()
    served = [0]

    def work(first: int) -> None:
        written: dict[int, tuple[str, int]] = {}
        turn = first
        while not stop.wait(0.001):
            turn += 1
            index, node = (2 * turn + first) % len(sessions), nodes[turn % len(nodes)]
            cookie, value = written.get(index, (sessions[index].cookie, 0))
            try:
                session = loaded(node, cookie)
            except SessionUnavailable:
                wrong.append(f"{index}: unavailable")
                continue
            if session is None or session.stale or session.get("count", 0) != value:
                wrong.append(f"{index}: {session!r} instead of {value}")
                continue
            session["count"] = value + 1
            blocking(node.store.commit(session))
            written[index] = session.cookie, value + 1
            served[0] += 1

    # Each client has the sessions of one parity for its own: nobody else writes them.
    threads = [threading.Thread(target=work, args=(first,)) for first in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield wrong
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert served[0] > 20, "the clients had a chance to notice something"


@pytest.fixture(autouse=True)
def patient(monkeypatch) -> None:
    """Let reads wait for longer: all nodes and clients share one interpreter, and a busy machine would make them late.

    That no read waits for longer than it may is held in virtual time (tests/unit/test_fetch.py).
    """
    monkeypatch.setattr(fetch, "FETCH_TIMEOUT_S", 3.0)


@pytest.fixture
def soon(monkeypatch) -> None:
    """Let a test see in seconds what else takes a minute."""
    monkeypatch.setattr(surplus, "QUIET_S", 1.5)
    monkeypatch.setattr(surplus, "FRESH_S", 0.5)
    monkeypatch.setattr(surplus, "CHECK_EVERY_S", 0.1)
    monkeypatch.setattr(surplus, "SECURE_AFTER_S", 0.5)
    monkeypatch.setattr(gains, "GRACE_S", 0.5)
    monkeypatch.setattr(placement, "LINGER_S", 1.5)


@pytest.mark.parametrize("count", [4, 5, 6])
def test_what_is_written_anywhere_is_read_everywhere(cluster, count):
    """Behind a round-robin balancer the next request comes to any node."""
    nodes = cluster(count)
    sessions = spread(nodes, 10 * count)
    assert all_read(nodes, sessions)


def test_a_session_ends_up_on_its_two_holders_and_nowhere_else(cluster, soon):
    """What is written elsewhere, or copied for a read, must not stay for ever: memory is why there are only two."""
    nodes = cluster(5)
    sessions = spread(nodes, 50)
    for session in sessions[:20]:
        assert all(loaded(node, session.cookie) is not None for node in nodes)
        assert len(having(nodes, session)) == 5
    eventually(lambda: all(len(having(nodes, session)) == 2 for session in sessions), "only two have it")
    assert are_held(nodes, sessions)
    assert all_read(nodes, sessions)


def test_where_a_holder_is_killed_its_sessions_are_read_and_the_next_one_takes_its_place(cluster, soon):
    """The whole point: a process dies, nobody is logged out, and soon there are two copies again."""
    nodes = cluster(5)
    sessions = spread(nodes, 50)
    victim, *_ = holders(nodes, sessions[0])
    rest = [node for node in nodes if node is not victim]
    kill(victim)
    assert all_read(rest, sessions)
    eventually(lambda: are_held(rest, sessions), "two of the others hold each session")
    assert all(state_of(node, victim) == "dead" for node in rest)


def test_two_nodes_of_one_host_killed_at_once_take_no_session_with_them(start, soon):
    """Two copies in one machine die together. One secondary must be enough for the death of a whole machine."""
    nodes = [start(host="host-0")]
    for number in range(1, 6):
        nodes.append(start(host=f"host-{number // 2}", discovery=static(nodes[0])))
    all_linked(*nodes)
    sessions = spread(nodes, 60)
    # Not by grace of further copies, which a commit makes on other hosts where placement does not.
    eventually(lambda: all(len(having(nodes, session)) == 2 for session in sessions), "only two have it")
    kill(*nodes[:2])
    rest = nodes[2:]
    assert all_read(rest, sessions)
    eventually(lambda: are_held(rest, sessions), "two of the others hold each session")


def test_a_node_that_drains_leaves_nothing_behind_and_nobody_notices(cluster):
    """A rolling update drains every node. Its sessions must be with the others before it has gone."""
    nodes = cluster(5)
    sessions = spread(nodes, 200)
    goes, *stay = nodes
    at_stake = [session for session in sessions if goes in holders(nodes, session)]
    assert len(at_stake) > 40
    with clients(stay, sessions) as wrong:
        time.sleep(0.2)
        started_s = time.monotonic()
        goes.close()
        assert time.monotonic() < started_s + DRAIN_S / 2, "it is done, and did not only wait as long as it may"
        assert are_held(stay, sessions), "each has two holders, which have it, when the one that leaves has ended"
    assert not wrong


def test_a_node_that_joins_takes_its_share_and_nobody_notices(cluster, start):
    """Scaling out under load: what the newcomer gets to hold is asked of it before it has everything."""
    nodes = cluster(4)
    sessions = spread(nodes, 200)
    with clients(nodes, sessions) as wrong:
        joiner = start(host="new", discovery=static(nodes[0]))
        all_linked(*nodes, joiner)
        nodes.append(joiner)
        eventually(lambda: are_held(nodes, sessions), "the newcomer holds its part, and the others theirs")
    assert not wrong
    assert all(len(holders(nodes, session)) == 2 for session in sessions)
    assert any(joiner in holders(nodes, session) for session in sessions)


def test_from_three_nodes_to_four_and_back_nothing_is_lost(cluster, start, soon):
    """The fourth node changes where everything is, and so does its end."""
    three = cluster(3)
    sessions = spread(three, 60)
    assert are_held(three, sessions, copies=3)
    with clients(three, sessions) as wrong:
        fourth = start(host="new", discovery=static(three[0]))
        four = [*three, fourth]
        all_linked(*four)
        eventually(lambda: are_held(four, sessions), "two of four hold each session")
        more = spread(four, 40)
        fourth.close()
        assert are_held(three, more), "its name still counts: it may only be restarted"
        eventually(lambda: are_held(three, [*sessions, *more], copies=3), "all three hold everything again")
    assert not wrong
    assert all_read(three, more)


@pytest.mark.parametrize("end", ["invalidate", "rotate", "revoke"])
def test_a_logout_at_one_node_ends_the_copies_of_all(cluster, end):
    """A copy that was fetched for a read must not outlive the session: not by the seconds for which it is trusted."""
    nodes = cluster(5)
    for number in range(20):
        session = nodes[0].store.create()
        session.user = f"user {number}"
        blocking(nodes[0].store.commit(session))
        old = session.cookie
        assert all(loaded(node, old) is not None for node in nodes)
        ending = nodes[number % 5]
        if end == "revoke":
            blocking(ending.store.revoke(f"user {number}"))
        else:
            blocking(getattr(ending.store, end)(loaded(ending, old), "all"))
        for node in nodes:
            eventually(lambda node=node, old=old: loaded(node, old) is None, "it is over", within_s=1.0)


def test_a_session_is_unavailable_only_while_no_holder_answers(cluster, monkeypatch):
    """A paused holder costs some milliseconds; only without both of them nobody can tell whether there is a session."""
    monkeypatch.setattr(fetch, "FETCH_TIMEOUT_S", 0.5)  # and not so long that a paused node is taken for dead
    nodes = cluster(5)
    session = committed(nodes[0], "all", user="kim")
    primary, secondary = holders(nodes, session)
    reader, other = [node for node in nodes if session.record.sid not in node.node.records][:2]
    with primary.node.locked():  # it answers nobody; its kernel takes what comes, as that of a paused process does
        assert loaded(reader, session.id)["user"] == "kim"
        with secondary.node.locked(), pytest.raises(SessionUnavailable):
            loaded(other, session.id)
    assert loaded(other, session.id)["user"] == "kim"
