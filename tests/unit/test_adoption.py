"""Sessions that clients have kept themselves until now, taken in by one node or by several at once."""

import asyncio

import pytest

from gossipsess import Confirmed, Gone
from gossipsess.config import Config
from gossipsess.errors import MemoryFull
from gossipsess.model.adoption import mark_sid
from gossipsess.model.identity import sid_of
from gossipsess.model.table import TOMBSTONE_MS
from gossipsess.protocol.effects import Notify, Send
from gossipsess.protocol.events import Tick, Watch
from gossipsess.protocol.memory import MIB
from gossipsess.service import lone_node
from gossipsess.store import SessionStore
from gossipsess.tokens import Tokens
from gossipsess.waiting import steps_on_any_loop
from gossipsess.web.adoption import Former, adoption
from gossipsess.web.session import WebSession
from tests.unit.cluster import FIVE, Cluster
from tests.unit.machines import ALICE, BOB, EPOCH_MS, Clocked, exchange

NAME = b"signature"
SIGNED_AT = EPOCH_MS / 1000 - 600
DAYS_S = 24 * 3600


def adopt(here: Clocked, *, signed_at: float = SIGNED_AT, ends_at: float = SIGNED_AT + 14 * DAYS_S, **values):
    """Adopt a cookie that was signed ten minutes ago; return the session and its outcome."""
    session = here.store.create(NAME)
    session.update(values or {"cart": ["book"]})
    outcome = here.store.adopt(session, NAME, signed_at)
    here.store.put_mark(NAME, signed_at, ends_at)
    return session, outcome


def settle(one: Clocked, other: Clocked) -> None:
    """Let both drivers send what is owed, and carry it."""
    for _ in range(2):
        for here in (one, other):
            here.node.submit(Tick())
        exchange(one, other)


@pytest.fixture
def pair():
    """Two linked nodes that hold every session."""
    one, other = Clocked(ALICE).linked(BOB), Clocked(BOB).linked(ALICE)
    settle(one, other)
    return one.alone(), other.alone()


def test_an_adopted_session_is_there_for_everybody(pair):
    """And its data with it, on both nodes, though it was written before either of them was there."""
    one, other = pair
    session, outcome = adopt(one)
    settle(one, other)
    assert outcome.result(0) == Confirmed(1, 1)
    for here in pair:
        again = here.store.load(session.id)
        assert dict(again) == {"cart": ["book"]}
        assert again.created_at == SIGNED_AT


def test_two_nodes_that_adopt_one_cookie_at_once_have_one_session_and_no_write_is_lost(pair):
    """A page with ten images: its requests are served by all nodes before any of them has heard of the others."""
    one, other = pair
    session, _ = adopt(one, cart=["book"], seen=1)
    session["cart"].append("pen")
    one.store.commit(session)
    other.now_s += 5  # its clock is ahead, so that whatever it wrote now would win
    late, _ = adopt(other, cart=["book"], seen=1)
    late["seen"] = 2
    other.store.commit(late)
    settle(one, other)
    assert late.id == session.id
    for here in pair:
        assert dict(here.store.load(session.id)) == {"cart": ["book", "pen"], "seen": 2}
    assert [here.replica.sessions.table.overwrites for here in pair] == [0, 0]


def test_adopting_what_is_held_already_changes_nothing(pair):
    """The next image of that page, on the same node, after the first one has written."""
    one, _ = pair
    session, _ = adopt(one)
    session["cart"].append("pen")
    one.store.commit(session)
    again, outcome = adopt(one)
    assert outcome == Confirmed(0, 0)
    assert dict(again) == {"cart": ["book", "pen"]}


def test_what_has_ended_is_not_adopted_again_and_its_mark_outlives_the_tombstone():
    """Logged out stays logged out: who kept a copy of the cookie would come back when the tombstone is forgotten."""
    here = Clocked().alone()
    session, _ = adopt(here)
    here.store.invalidate(session)
    again, outcome = adopt(here)
    assert (outcome, dict(again)) == (Gone(), {})
    here.waits(TOMBSTONE_MS / 1000 + 1)
    assert sid_of(session.id) not in here.node.records
    assert here.store.mark(NAME) is not None
    here.waits(12 * DAYS_S)
    assert here.store.mark(NAME) is not None
    here.waits(1 * DAYS_S)
    assert here.store.mark(NAME) is None, "the cookie itself has ended"
    assert not here.node.records


def test_a_revocation_reaches_cookies_that_were_signed_before_it(pair):
    """Logged out everywhere, also in the browser that has not been here since the sessions moved."""
    one, other = pair
    session = one.store.create(NAME)
    one.store.revoke("kim")
    settle(one, other)
    session = other.store.create(NAME)
    session["user"] = session.user = "kim"
    outcome = other.store.adopt(session, NAME, SIGNED_AT)
    other.store.put_mark(NAME, SIGNED_AT, SIGNED_AT + DAYS_S)
    settle(one, other)
    assert outcome == Gone()
    assert other.store.load(session.id) is None
    assert sid_of(session.id) not in one.node.records
    assert one.store.mark(NAME) is not None


def test_age_counts_from_the_signature():
    """An absolute timeout says how old a session may be; it was not born with its adoption."""
    here = Clocked(idle_timeout_s=10 * DAYS_S, absolute_timeout_s=3600).alone()
    assert adopt(here, signed_at=EPOCH_MS / 1000 - 3601)[1] == Gone()
    session, outcome = adopt(here, signed_at=EPOCH_MS / 1000 - 3000)
    assert outcome == Confirmed(0, 0)
    here.waits(601)
    assert here.store.load(session.id) is None


def test_a_session_that_was_not_written_for_longer_than_it_may_idle_is_adopted():
    """When it was used last nobody knows; this request does use it."""
    here = Clocked(idle_timeout_s=60, absolute_timeout_s=DAYS_S).alone()
    session, outcome = adopt(here)
    assert outcome == Confirmed(0, 0)
    here.waits(30)
    assert here.store.load(session.id) is not None
    here.waits(70)
    assert here.store.load(session.id) is None


def test_a_session_for_which_there_is_no_room_is_not_adopted_and_may_be_later():
    """It counts like any new one; the cookie is not spent."""
    here = Clocked(memory_limit_bytes=MIB).alone()
    others = [here.store.create() for _ in range(2)]
    for one in others:
        one.update({str(key): "x" * 200_000 for key in range(5)})
        here.store.commit(one)
    with pytest.raises(MemoryFull):
        adopt(here)
    here.store.invalidate(others[0])
    assert here.store.mark(NAME) is None
    assert adopt(here)[1] == Confirmed(0, 0)


def test_the_id_is_the_clusters_secret():
    """Who has seen a cookie must not be able to tell the id that it becomes; every node must."""
    one, same, other = (lone_node(Config(secret=secret)) for secret in ("a" * 16, "a" * 16, "b" * 16))
    ids = [node.store.create(NAME).id for node in (one, same, other)]
    assert ids[0] == ids[1] != ids[2]
    assert one.store.create(b"another").id != ids[0]


def test_a_mark_is_no_session_that_subscribers_hear_of(pair):
    """They would look for the session that is said to be new."""
    one, other = pair
    for here in pair:
        here.node.submit(Watch(on=True))
    session, _ = adopt(one)
    one.node.submit(Tick())
    there = []
    while effects := one.does():
        for effect in effects:
            if isinstance(effect, Send):
                other.hears(effect.message)
            elif isinstance(effect, Notify):
                assert (effect.kind, effect.sid) == ("created", sid_of(session.id))
        there += [effect.sid for effect in other.does() if isinstance(effect, Notify)]
    assert there == [sid_of(session.id)]
    assert all(mark_sid(NAME) in here.node.records for here in pair)


def test_nodes_that_hold_nothing_of_it_adopt_one_cookie_at_once():
    """From four nodes on two hold a session; a request comes to any of five."""
    cluster = Cluster()
    session_id = cluster[FIVE[0]].store.create(NAME).id
    sid = sid_of(session_id)
    *holders, first, second = [*cluster.ranking(sid)[:2], *cluster.ranking(sid)[3:]]
    for node, key in ((first, "cart"), (second, "seen")):
        session, outcome = adopt(cluster[node], cart=["book"], seen=0)
        assert not isinstance(outcome, Gone)
        session[key] = [key]
        cluster[node].store.commit(session)
    cluster.passes(1)
    for node in holders:
        assert dict(cluster[node].store.load(session_id)) == {"cart": ["cart"], "seen": ["seen"]}
        assert {key for key in cluster[node].node.records if key == sid} == {sid}
    held = cluster[holders[0]].node.records[sid]
    assert held.state_hash == cluster[holders[1]].node.records[sid].state_hash
    cluster.passes(2)
    found = cluster[first].store.load(session_id)  # what the next request with the cookie does first
    cluster.carry()
    assert dict(found.result(0)) == {"cart": ["cart"], "seen": ["seen"]}


def test_a_request_that_is_cancelled_while_it_adopts_leaves_the_mark_all_the_same(pair):
    """Who has a copy of the cookie would else close the connection at the right moment, and be back after a logout."""
    one, other = pair
    store = SessionStore(one.node, Tokens((b"key",)), session_class=WebSession)
    former = Former(NAME, round(SIGNED_AT), round(SIGNED_AT + DAYS_S), {"cart": ["book"]})
    sid = sid_of(store.create(NAME).id)

    async def scenario() -> None:
        asking = asyncio.create_task(steps_on_any_loop(adoption(store, former)))
        while sid not in one.node.records:
            await asyncio.sleep(0)
            exchange(one, other)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    asyncio.run(scenario())
    assert mark_sid(NAME) not in one.node.records, "the other node has not confirmed the session yet"
    settle(one, other)
    settle(one, other)
    assert all(mark_sid(NAME) in here.node.records for here in pair)
