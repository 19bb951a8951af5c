"""When the middleware starts its node, and what waits for it."""

import asyncio

import pytest
import trio
import trio.testing
from starlette.testclient import TestClient

from gossipsess.config import Config
from gossipsess.errors import ConfigError
from gossipsess.web.asgi import SessionMiddleware
from tests.unit.asgi_support import serving
from tests.unit.web_support import HeldBackNode


def lifespan_app(started):
    async def app(scope, receive, send):
        assert (await receive())["type"] == "lifespan.startup"
        started()
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        await send({"type": "lifespan.shutdown.complete"})

    return app


async def test_startup_completes_only_when_the_node_can_answer():
    """An open port means ready: a request that comes before the first sync would find nobody logged in."""
    node = HeldBackNode()
    to_app, from_app = trio.open_memory_channel(2), trio.open_memory_channel(9)
    app_started = trio.Event()
    middleware = SessionMiddleware(lifespan_app(app_started.set), node=node)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(middleware, {"type": "lifespan"}, to_app[1].receive, from_app[0].send)
        await to_app[0].send({"type": "lifespan.startup"})
        await app_started.wait()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.WouldBlock):
            from_app[1].receive_nowait()
        node.release.set()
        assert (await from_app[1].receive())["type"] == "lifespan.startup.complete"
        await to_app[0].send({"type": "lifespan.shutdown"})
        assert (await from_app[1].receive())["type"] == "lifespan.shutdown.complete"


async def test_an_application_without_lifespan_is_not_served_before_the_node_can_answer():
    """The server opens its port when the application's call ends, however it ends."""
    node = HeldBackNode()
    ended = trio.Event()

    async def serve():
        with pytest.raises(AssertionError, match="http"):
            await SessionMiddleware(serving(len), node=node)({"type": "lifespan"}, None, None)
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await trio.testing.wait_all_tasks_blocked()
        assert not ended.is_set()
        node.release.set()


def test_a_lifespan_works_on_both_loops(node, backend):
    started = []
    with TestClient(SessionMiddleware(lifespan_app(lambda: started.append(1)), node=node), backend=backend):
        assert started == [1]


@pytest.mark.parametrize("app", [lifespan_app(lambda: None), serving(len)], ids=["lifespan", "no lifespan"])
async def test_a_node_that_cannot_start_stops_the_server_from_starting(app):
    """A server that comes up without sessions would log everybody out, and look healthy."""
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "lifespan.startup"}

    middleware = SessionMiddleware(app, config=Config(bind="192.0.2.1", secret="s" * 16))
    with pytest.raises(ConfigError):
        await middleware({"type": "lifespan"}, receive, send)
    assert [message["type"] for message in sent] == ["lifespan.startup.failed"]
    assert "192.0.2.1" in sent[0]["message"]


async def test_the_first_request_starts_the_node_and_the_loop_goes_on_meanwhile():
    """Where no lifespan runs; a start that blocked the loop would stop every other request for seconds."""
    node = HeldBackNode()
    sent = []

    async def send(message):
        sent.append(message["type"])

    scope = {"type": "http", "headers": []}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(SessionMiddleware(serving(len), node=node), scope, None, send)
        await trio.testing.wait_all_tasks_blocked()
        assert sent == []
        node.release.set()
    assert sent == ["http.response.start", "http.response.body"]


def test_the_loop_of_asyncio_goes_on_while_the_first_request_starts_the_node():
    node = HeldBackNode()

    async def send(message):
        pass

    async def main():
        middleware = SessionMiddleware(serving(len), node=node)
        request = asyncio.create_task(middleware({"type": "http", "headers": []}, None, send))
        await asyncio.sleep(0)
        assert not request.done()
        node.release.set()
        await request

    asyncio.run(main())


def test_other_kinds_of_scope_pass_through(node):
    passed = []

    async def app(scope, receive, send):
        passed.append((scope, receive, send))

    asyncio.run(SessionMiddleware(app, node=node)({"type": "pubsub"}, 1, 2))
    assert passed == [({"type": "pubsub"}, 1, 2)]
