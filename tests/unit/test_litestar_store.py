"""Litestar's key-value store over real nodes: one without network, or three of which each operation asks any."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from litestar import Litestar, Request, get
from litestar.middleware.session.server_side import ServerSideSessionConfig
from litestar.testing import TestClient

from gossipsess.config import Config
from gossipsess.errors import SessionTooLarge
from gossipsess.service import NodeService, lone_node
from gossipsess.web.litestar import Unavailable
from gossipsess.web.litestar_store import GossipStore
from tests.unit.adapters import patient_nodes
from tests.unit.web_support import fill, node_flooded_with_fetches


@pytest.fixture(scope="module")
def three_nodes() -> Iterator[NodeService]:
    with patient_nodes() as nodes:
        yield nodes


@pytest.fixture(params=["alone", "scattered"])
def store(request) -> GossipStore:
    node = lone_node() if request.param == "alone" else request.getfixturevalue("three_nodes")
    return GossipStore(request.node.name, node=node)


@pytest.fixture
def later(node):
    """A function that lets seconds pass."""

    def pass_by(seconds: float) -> None:
        node.node.replica.sessions.clock.offset_ms += round(seconds * 1000)

    return pass_by


async def test_a_value_is_had_until_it_is_deleted_and_may_be_set_again(store):
    """A key is not ended for good as a session is: Litestar keeps a client's id when its session is cleared."""
    assert await store.get("a") is None
    assert not await store.exists("a")
    for value in ("text", b"bytes", b"", "later"):
        await store.set("a", value)
        assert await store.get("a") == (value.encode() if isinstance(value, str) else value)
        assert await store.exists("a")
        await store.delete("a")
        assert await store.get("a") is None
        assert not await store.exists("a")
    await store.delete("never set")


async def test_what_a_node_found_missing_is_found_once_another_has_set_it():
    """Of five nodes three hold none of it. Each has looked, and knows that nobody had it a moment ago."""
    with patient_nodes(5) as nodes:
        stores = [GossipStore("orders", node=node) for node in nodes.nodes]
        for number in range(5):
            assert [await store.get(f"key {number}") for store in stores] == [None] * 5
            await stores[0].set(f"key {number}", b"v")
            assert [await store.get(f"key {number}") for store in stores] == [b"v"] * 5


async def test_keys_and_namespaces_do_not_meet(store):
    other = store.with_namespace("a")
    await store.set("a", b"1")
    await store.set("b", b"2")
    await other.set("b", b"3")
    await store.with_namespace("c").set("a", b"4")
    assert [await store.get("a"), await store.get("b"), await other.get("b")] == [b"1", b"2", b"3"]
    assert await other.get("a") is None
    await store.delete("b")
    assert await other.get("b") == b"3"


async def test_a_namespace_is_emptied_with_those_within_it_and_no_other(store):
    """And filled again at once."""
    child = store.with_namespace("child")
    grandchild = child.with_namespace("grandchild")
    beside = store.with_namespace("beside")
    for each in (store, child, grandchild, beside):
        await each.set("a", b"1")
    await child.delete_all()
    assert [await each.get("a") for each in (store, child, grandchild, beside)] == [b"1", None, None, b"1"]
    assert not await child.exists("a")
    assert await child.expires_in("a") is None
    for each in (child, grandchild):
        await each.set("a", b"2")
        assert await each.get("a") == b"2"
    await child.delete_all()
    assert await grandchild.get("a") is None


async def test_another_store_of_the_same_namespace_has_the_same_content(node):
    """Another process, that is."""
    await GossipStore("shop", node=node).set("a", b"1")
    assert await GossipStore("shop", node=node).get("a") == b"1"
    assert await GossipStore("other", node=node).get("a") is None


@pytest.mark.parametrize("expires_in", [10, timedelta(seconds=10)])
async def test_a_value_ends_by_itself_and_may_be_set_again(node, later, expires_in):
    store = GossipStore(node=node)
    await store.set("a", b"1", expires_in=expires_in)
    assert await store.expires_in("a") in (9, 10)
    later(8)
    assert await store.get("a") == b"1"
    later(3)
    assert await store.get("a") is None
    assert await store.expires_in("a") is None
    await store.set("a", b"2", expires_in=10)
    assert await store.get("a") == b"2"


@pytest.mark.parametrize("renew_for", [20, timedelta(seconds=20)])
async def test_a_value_that_would_end_is_renewed_by_who_asks_for_that(node, later, renew_for):
    store = GossipStore(node=node)
    await store.set("a", b"1", expires_in=10)
    await store.set("for ever", b"1")
    for _ in range(3):
        later(9)
        assert await store.get("a", renew_for=renew_for) == b"1"
    assert await store.expires_in("a") in (19, 20)
    assert await store.get("for ever", renew_for=1) == b"1"
    assert await store.expires_in("for ever") is None, "it had no time to renew"


async def test_a_value_without_an_end_outlasts_the_timeouts_of_sessions(later, node):
    store = GossipStore(node=node)
    await store.set("a", b"1")
    later(365 * 24 * 3600)
    assert await store.get("a") == b"1"


async def test_what_was_deleted_leaves_the_memory(node, later):
    """Rate limits and caches make many keys."""
    store = GossipStore(node=node)
    await store.set("a", b"x" * 1000)
    await store.delete("a")
    later(120)
    assert await store.get("a") is None
    session = node.store.create(b"litestar key ('litestar', 'a')")
    assert node.store.load(session.id) is None


async def test_a_value_too_large_is_refused_by_name(store):
    with pytest.raises(SessionTooLarge, match="value"):
        await store.set("a", b"x" * 1_000_000)


async def test_where_it_is_not_known_whether_a_key_is_set_nobody_is_told_that_it_is_not():
    """Litestar answers 503."""
    with node_flooded_with_fetches() as node:
        store = GossipStore(node=node)
        for asked in (store.get("a"), store.exists("a"), store.set("a", b"1"), store.delete("a"), store.delete_all()):
            with pytest.raises(Unavailable) as refused:
                await asked
            assert refused.value.status_code == 503


async def test_there_is_no_room_for_another_key():
    full = lone_node(Config(memory_limit_mb=1))
    store = GossipStore(node=full)
    await store.set("a", b"1")
    fill(full)
    with pytest.raises(Unavailable):
        await store.set("b", b"1")
    await store.set("a", b"2")
    assert await store.get("a") == b"2"


def test_litestars_own_sessions_live_on_it(node, backend):
    """Also when the client's id is one that was cleared: Litestar goes on with it."""

    @get("/append")
    async def append(request: Request[Any, Any, Any]) -> int:
        request.session["cart"] = [*request.session.get("cart", []), "book"]
        return len(request.session["cart"])

    @get("/clear")
    async def clear(request: Request[Any, Any, Any]) -> None:
        request.clear_session()

    def client():
        app = Litestar(
            [append, clear],
            middleware=[ServerSideSessionConfig().middleware],
            stores={"sessions": GossipStore(node=node)},
            logging_config=None,
            openapi_config=None,
        )
        return TestClient(app, backend=backend)

    with client() as one, client() as other:
        assert one.get("/append").json() == 1
        cookies = dict(one.cookies)
        other.cookies.update(cookies)
        assert other.get("/append").json() == 2
        one.get("/clear")
        assert other.get("/append").json() == 1
        other.cookies.update(cookies)
        assert other.get("/append").json() == 2


def test_the_application_starts_the_node_of_its_stores(node, monkeypatch):
    """A replica that nobody has asked yet may be the only one left when its first request comes."""
    made = []
    new_store = node.new_store
    monkeypatch.setattr(node, "new_store", lambda *given: made.append(1) or new_store(*given))
    with TestClient(Litestar([], stores={"sessions": GossipStore(node=node)}, logging_config=None)):
        assert made == [1]
