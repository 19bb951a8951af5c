"""What a subscriber hears, and when sessions end by themselves."""

import time
from concurrent.futures import Future
from threading import Thread

import pytest

import gossipsess
from gossipsess import Change
from gossipsess.waiting import blocking
from tests.network.nodes import committed, eventually, loaded, settings

IDLE_S = 1.5


def heard(subscription, count: int, within_s: float = 10.0) -> list[Change]:
    """Return the next changes; the reader waits in a thread, so that a missing one is a failure and no hang."""
    future: Future = Future()
    changes = []

    def read() -> None:
        for change in subscription:
            changes.append(change)
            if len(changes) == count:
                break
        future.set_result(changes)

    Thread(target=read, daemon=True).start()
    try:
        return future.result(within_s)
    except TimeoutError:
        pytest.fail(f"heard only {changes}")


def test_a_subscriber_hears_what_happens_here_and_elsewhere(cluster):
    """Carts are mailed and devices are listed from this; a change that only its own node tells is of no use."""
    here, there = cluster(2)
    with here.subscribe() as near, there.subscribe() as far:
        session = committed(here, confirm="all", user="kim")
        session["cart"] = ["book"]
        blocking(here.store.commit(session, "all"))
        blocking(here.store.invalidate(session))
        for subscription, remote in ((near, False), (far, True)):
            assert heard(subscription, 3) == [
                Change("created", session.sid, remote),
                Change("changed", session.sid, remote),
                Change("invalidated", session.sid, remote),
            ]


def test_a_rotation_is_heard_as_an_end_and_a_beginning_on_every_node(cluster):
    """The same step must read the same wherever one listens."""
    here, there = cluster(2)
    session = committed(here, confirm="all", user="kim")
    old = session.sid
    with here.subscribe() as near, there.subscribe() as far:
        blocking(here.store.rotate(session, "all"))
        for subscription, remote in ((near, False), (far, True)):
            assert set(heard(subscription, 2)) == {
                Change("invalidated", old, remote),
                Change("created", session.sid, remote),
            }


def test_a_session_used_at_another_node_lives_and_ends_everywhere_when_nobody_uses_it(cluster):
    """Reads are not writes, and yet whoever holds a session must know that it is in use."""
    holder, used_at = cluster(2, idle_timeout_s=IDLE_S)
    session = committed(holder, confirm="all", user="kim")
    unused = committed(holder, confirm="all", user="sam")
    sid = session.record.sid
    until_s = time.monotonic() + 2.2 * IDLE_S
    with holder.subscribe() as near, used_at.subscribe() as far:
        while (now_s := time.monotonic()) < until_s:
            used_s = now_s
            assert loaded(used_at, session.cookie) is not None
            assert sid in holder.node.records, "the holder dropped a session that is in use elsewhere"
            time.sleep(0.05)
        assert unused.record.sid not in holder.node.records, "an idle session ends meanwhile"
        eventually(lambda: sid not in holder.node.records and sid not in used_at.node.records, "both drop it")
        assert time.monotonic() - used_s > IDLE_S - 0.01, "it ended too early"
        at_each = [heard(subscription, 2) for subscription in (near, far)]
        for number, ended in enumerate((unused, session)):
            told = [changes[number] for changes in at_each]
            assert [(change.kind, change.sid) for change in told] == 2 * [("expired", ended.sid)]
            assert sorted(change.remote for change in told) == [False, True], "one of them announces it"
    assert loaded(holder, session.cookie) is None
    assert loaded(used_at, session.cookie) is None


async def test_a_subscriber_on_trio_hears_too():
    """The same iterator, awaited."""
    async with gossipsess.open_node(settings()) as node:
        with node.sessions.subscribe() as changes:
            session = node.sessions.create()
            session["user"] = "kim"
            await node.sessions.commit(session)
            async for change in changes:
                assert change == Change("created", session.sid, remote=False)
                break
