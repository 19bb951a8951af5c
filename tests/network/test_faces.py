"""The three faces of one API: Trio, asyncio and plain threads, each over real nodes."""

import asyncio

import pytest
import trio

import gossipsess
from gossipsess import Confirmed, Gone, MemoryFull, aio, sync
from tests.network.nodes import settings, static

LONG_S = 10


def seeded(port: int):
    return settings(discovery=f"static://127.0.0.1:{port}")


def expect_confirmed(outcome) -> None:
    assert outcome == Confirmed(hosts=0, nodes=1), "both nodes are on one host, so nodes are counted"


async def one_round(here, there) -> None:
    """What an application does, in the order it does it: the same for Trio and for asyncio."""
    session = here.sessions.create()
    session["user"] = "kim"
    expect_confirmed(await here.sessions.commit(session))
    again = await there.sessions.load(session.cookie)
    assert dict(again) == {"user": "kim"}
    again["cart"] = ["book"]
    expect_confirmed(await there.sessions.commit(again))
    assert (await here.sessions.load(again.cookie))["cart"] == ["book"]
    old = again.cookie
    expect_confirmed(await there.sessions.rotate(again))
    assert dict(await here.sessions.load(again.cookie)) == {"user": "kim", "cart": ["book"]}
    assert await here.sessions.load(old) is None
    expect_confirmed(await here.sessions.invalidate(await here.sessions.load(again.cookie)))
    assert await there.sessions.load(again.cookie) is None
    again["late"] = 1
    assert await there.sessions.commit(again) == Gone()
    login = here.sessions.create()
    login.user = "kim"
    expect_confirmed(await here.sessions.commit(login))
    revoked = await there.sessions.revoke("kim")
    assert revoked.sessions == 1
    expect_confirmed(revoked.outcome)
    assert await here.sessions.load(login.cookie) is None


async def test_the_api_on_trio():
    """The node is a task of the caller's own loop."""
    with trio.fail_after(LONG_S):
        async with (
            gossipsess.open_node(settings()) as here,
            gossipsess.open_node(seeded(here.status().address[1])) as there,
        ):
            await one_round(here, there)


def test_the_api_on_asyncio():
    """The node has a thread of its own; the loop only waits for futures."""

    async def main() -> None:
        async with (
            asyncio.timeout(LONG_S),
            aio.open_node(settings()) as here,
            aio.open_node(seeded(here.status().address[1])) as there,
        ):
            await one_round(here, there)

    asyncio.run(main())


def test_the_api_on_plain_threads():
    """The calling thread waits."""
    with sync.open_node(settings()) as here, sync.open_node(seeded(here.status().address[1])) as there:
        session = here.sessions.create()
        session["user"] = "kim"
        expect_confirmed(here.sessions.commit(session))
        again = there.sessions.load(session.cookie)
        assert dict(again) == {"user": "kim"}
        old = again.cookie
        expect_confirmed(there.sessions.rotate(again))
        assert here.sessions.load(old) is None
        expect_confirmed(there.sessions.invalidate(again))
        assert here.sessions.load(again.cookie) is None
        login = here.sessions.create()
        login.user = "kim"
        expect_confirmed(here.sessions.commit(login))
        revoked = there.sessions.revoke("kim")
        assert revoked.sessions == 1
        expect_confirmed(revoked.outcome)
        assert here.sessions.load(login.cookie) is None


def grown(session):
    session["cart"] = "x" * 200_000
    return session


async def store_two_megabytes(sessions) -> None:
    for _ in range(10):
        await sessions.commit(grown(sessions.create()))


def store_two_megabytes_sync(sessions) -> None:
    for _ in range(10):
        sessions.commit(grown(sessions.create()))


def test_where_the_memory_limit_is_met_new_sessions_are_refused_and_others_go_on():
    """On each face the commit raises; and what another node still stores is taken all the same."""

    async def main() -> None:
        limited = settings(memory_limit_mb=1)
        async with (
            asyncio.timeout(LONG_S),
            aio.open_node(limited) as here,
            aio.open_node(seeded(here.status().address[1])) as there,
        ):
            session = here.sessions.create()
            session["user"] = "kim"
            expect_confirmed(await here.sessions.commit(session))
            with pytest.raises(MemoryFull, match="GOSSIPSESS_MEMORY_LIMIT_MB"):
                await store_two_megabytes(here.sessions)
            expect_confirmed(await here.sessions.commit(grown(session)))
            expect_confirmed(await here.sessions.rotate(session))
            taken = there.sessions.create()
            taken["user"] = "lee"
            expect_confirmed(await there.sessions.commit(taken))
            assert dict(await here.sessions.load(taken.cookie)) == {"user": "lee"}
            status = here.status()
            assert status.memory_bytes > status.memory_limit_bytes == 1024 * 1024

    asyncio.run(main())
    with sync.open_node(settings(memory_limit_mb=1)) as lone, pytest.raises(MemoryFull):
        store_two_megabytes_sync(lone.sessions)


async def test_a_cancelled_block_ends_the_node():
    """A server that is told to stop cancels its tasks; the node must not hold the loop."""
    with trio.fail_after(LONG_S), trio.CancelScope() as scope:
        async with gossipsess.open_node(settings()) as node:
            assert node.status().running
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert not node.status().running


def test_settings_that_cannot_work_are_refused_before_anything_runs(start):
    """And the sockets that were bound already are closed: no port stays taken."""
    taken = start()
    with pytest.raises(gossipsess.ConfigError), sync.open_node(settings(port=taken.sockets.port, port_range=1)):
        pass
    with pytest.raises(gossipsess.ConfigError), sync.open_node(settings(secret="short", discovery=static(taken))):
        pass
