"""Django's ASGI application under a server that tells it when serving begins and ends; tests/hosts has real servers."""

import asyncio

from gossipsess.config import Config
from gossipsess.service import process_node
from gossipsess.web.adapter import NodeSessions
from gossipsess.web.django_lifespan import _live
from gossipsess.web.session import WebSession
from tests.network.nodes import settings


def told(config, *kinds):
    """Tell it these; return what it answers each time, and whether the process has a node then."""
    sessions, waiting, answers = NodeSessions(WebSession, config, None, None), list(kinds), []

    async def receive():
        return {"type": f"lifespan.{waiting.pop(0)}"}

    async def send(message):
        answers.append((message["type"].removeprefix("lifespan."), sessions.store is not None, message.get("message")))

    asyncio.run(_live(sessions, receive, send))
    return answers


def test_the_node_is_there_before_the_port_opens_and_leaves_before_the_process_ends():
    config = settings(cluster="lifespan")
    assert told(config, "startup", "shutdown") == [("startup.complete", True, None), ("shutdown.complete", False, None)]
    again = process_node(config)
    assert not again.node.records
    again.close()


def test_a_node_that_cannot_start_stops_the_server_from_starting():
    """A server that comes up without sessions would log everybody out, and look healthy."""
    [(answer, has_node, why)] = told(Config(bind="192.0.2.1", secret="s" * 16), "startup")
    assert (answer, has_node) == ("startup.failed", False)
    assert "192.0.2.1" in why
