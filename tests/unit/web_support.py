"""What the tests of the web adapters share: real nodes without network, made to be where a test wants them."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from gossipsess.config import Config
from gossipsess.errors import MemoryFull
from gossipsess.model.member import Member, MemberState
from gossipsess.protocol.effects import Settle
from gossipsess.protocol.events import Fetch, LinkClosed, LinkOpened, Received, Tick
from gossipsess.protocol.fetch import FETCHES_MAX
from gossipsess.service import NodeService, lone_node
from gossipsess.wire.messages import Hello

UNKNOWN_ID = "0123456789abcdefghijklmnopqrstuv"
"""Has the form of a session id; nobody made it."""


class TestUser:
    """What applications put into sessions by mistake."""

    __test__ = False


@contextmanager
def node_that_misses_a_peer(config: Config | None = None) -> Iterator[NodeService]:
    """A driven node that knows of another live one and has no link to it, as in the first moment of a partition."""
    service = lone_node(config)
    _lose_a_peer(service)
    stopped = threading.Event()

    def drive() -> None:
        while not stopped.wait(0.005):
            service.node.submit(Tick())
            for effect in service.node.take()[0]:
                if isinstance(effect, Settle):
                    effect.waiter(effect.outcome)

    thread = threading.Thread(target=drive)
    thread.start()
    try:
        yield service
    finally:
        stopped.set()
        thread.join()


@contextmanager
def node_flooded_with_fetches() -> Iterator[NodeService]:
    """A node at which as many requests wait for the missing peer as may; the next one is refused at once."""
    service = lone_node()
    _lose_a_peer(service)
    for _ in range(FETCHES_MAX):
        service.node.submit(Fetch(os.urandom(16), (), lambda outcome: None))
    yield service


def fill(service: NodeService) -> None:
    """Store sessions until the node's memory limit is met; give it one of 1 MiB."""
    with suppress(MemoryFull):
        for _ in range(10):
            session = service.store.create()
            session["some"] = "x" * 200_000
            service.store.commit(session)


def _lose_a_peer(service: NodeService) -> None:
    """Let a node meet another one, whose link then ends."""
    member = Member(b"other--1", 0, MemberState.ALIVE, ("127.0.0.2", 7950), "other", "other")
    service.node.submit(LinkOpened(1, member.node, dialed=None))
    service.node.submit(Received(1, Hello(member, 0, ())))
    service.node.submit(LinkClosed(1))
    assert [other.name for other in service.status().members] == ["other"]


class HeldBackNode(NodeService):
    """A lone node whose start takes until `release` is set."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.release.set()
        super().__init__(lone_node().config, None)
        self.release.clear()

    def new_store(self, *arguments, **named):
        assert self.release.wait(5), "the start of the node holds up what should release it"
        return super().new_store(*arguments, **named)


def set_cookies(response) -> dict[str, str]:
    """Return the Set-Cookie headers of an httpx or werkzeug response by cookie name."""
    headers = response.headers
    lines = headers.get_list("set-cookie") if hasattr(headers, "get_list") else headers.getlist("Set-Cookie")
    return {line.partition("=")[0]: line for line in lines}
