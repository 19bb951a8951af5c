"""What is read at one node after it was written at another."""

import pytest

from gossipsess import SessionUnavailable
from gossipsess.model.digest import leaf_of
from gossipsess.protocol import sync
from gossipsess.waiting import blocking
from tests.network.nodes import all_linked, committed, eventually, loaded, static


def test_you_read_what_you_wrote_whichever_node_serves_you_next(cluster):
    """A plain round-robin balancer sends the next request elsewhere before an unconfirmed write has left."""
    nodes = cluster(3)
    session = committed(nodes[0], confirm=0, count=0)
    cookie = session.cookie
    pulled = 0
    for number in range(1, 100):
        node = nodes[number % 3]
        held = node.node.records.get(session.record.sid)
        again = loaded(node, cookie)
        pulled += held is None or held is not again.record
        assert again["count"] == number - 1
        assert not again.stale
        again["count"] = number
        blocking(node.store.commit(again, 0))
        cookie = again.cookie
    assert pulled > 50, "most loads came before the push, so the token made the difference"


def test_two_requests_that_change_different_keys_both_keep_their_change(cluster):
    """Parallel requests of one page, at two nodes, from one state."""
    here, there = cluster(2)
    session = committed(here, confirm="all", user="kim")
    one, other = loaded(here, session.cookie), loaded(there, session.cookie)
    one["cart"], other["theme"] = ["book"], "dark"
    waits = here.store.commit(one, "all"), there.store.commit(other, "all")
    for wait in waits:
        blocking(wait)
    for node in (here, there):
        assert dict(loaded(node, session.cookie)) == {"user": "kim", "cart": ["book"], "theme": "dark"}


def test_a_joiner_has_every_session_when_it_is_ready_and_serves_misses_before(start, monkeypatch):
    """An open port means ready; and a balancer that does not wait for it must not log anybody out."""
    monkeypatch.setattr(sync, "LEAVES_PER_LIST", 16)  # a slow join: there is time to look at it
    holder = start()
    sessions = [committed(holder, confirm=0, number=number) for number in range(5_000)]
    last = max(sessions, key=lambda session: leaf_of(session.record.sid))
    sid = last.record.sid

    joiner = start(discovery=static(holder))
    served_early = False
    while not joiner.synced:
        held_before = sid in joiner.node.records
        try:
            again = loaded(joiner, last.id)
        except SessionUnavailable:
            continue  # not linked yet: unknown, and never absent
        assert again is not None, "a session is never called absent while the joiner has not seen all"
        served_early |= not held_before and not joiner.synced
    assert len(joiner.node.records) == 5_000
    assert served_early, "a miss was pulled while the rest was still coming in"
    for session in sessions[::100]:
        assert loaded(joiner, session.cookie)["number"] == session["number"]


def test_an_id_that_nobody_made_is_absent_everywhere_and_never_adopted(cluster):
    """An id out of a client's hands must not become a session: that is how sessions are fixed on a victim."""
    here, there = cluster(2)
    foreign = "f" * 32
    assert loaded(here, foreign) is None
    assert loaded(there, foreign) is None
    assert not here.node.records


@pytest.mark.parametrize("end", ["invalidate", "rotate"])
def test_the_old_id_is_dead_everywhere_when_the_response_leaves(cluster, end):
    """A stolen cookie must not live on at another node after logout, or after the login's rotation."""
    nodes = cluster(3)
    session = committed(nodes[0], confirm="all", user="kim")
    old = session.cookie
    blocking(getattr(nodes[1].store, end)(loaded(nodes[1], old), "all"))
    assert all(loaded(node, old) is None for node in nodes)


def test_a_write_after_the_end_of_its_session_is_refused_and_brings_nothing_back(cluster):
    """A slow request that comes in after the logout."""
    here, there = cluster(2)
    session = committed(here, confirm="all", user="kim")
    slow = loaded(there, session.cookie)
    blocking(here.store.invalidate(session))
    slow["cart"] = ["book"]
    assert type(blocking(there.store.commit(slow))).__name__ == "Gone"
    assert loaded(here, session.id) is None
    assert loaded(there, session.id) is None


def test_nodes_that_wrote_apart_agree_once_they_meet(start):
    """Two halves of a network, each with its own sessions and its own logouts."""
    left = start()
    right = start()
    eventually(lambda: left.synced and right.synced, "both have waited for others")
    of_left = [committed(left, number=number) for number in range(50)]
    of_right = [committed(right, number=number) for number in range(50)]
    blocking(left.store.invalidate(of_left[0]))
    bridge = start(discovery=static(left, right))
    all_linked(left, right, bridge)
    for node in (left, right, bridge):
        eventually(lambda node=node: len(node.node.records) == 100, "all hold all")
        assert loaded(node, of_left[0].id) is None
        assert loaded(node, of_right[7].id)["number"] == 7
        assert loaded(node, of_left[7].id)["number"] == 7
