"""Workers of one pod: they find each other at once, and count as one host. Pods are addresses of 127.0.0.0/8 here."""

import threading
import time

import pytest

from gossipsess import Confirmed, Degraded
from gossipsess.waiting import blocking
from tests.network.nodes import alive, all_linked, committed, eventually, loaded
from tests.ports import free_range


@pytest.fixture
def worker(start):
    """Start one more worker of a pod: each takes the next free port of the range that all pods have."""
    port = free_range(4)

    def one(pod, **changes):
        changes = {"bind": pod, "port": port, "port_range": 4, "discovery": f"static://127.0.0.7:{port}"} | changes
        return start(**changes)

    one.port = port
    return one


def stands_still(node, for_s):
    """Have a node do nothing for so long, from now on."""
    began = threading.Event()

    def stand() -> None:
        began.set()
        time.sleep(for_s)

    node._portal.run_soon(stand)
    assert began.wait(10), "its thread runs"


def test_workers_whom_nobody_names_find_each_other_at_once(worker):
    """The seed is another machine, and down: a login at one worker must be there at the next all the same."""
    nodes = [worker("127.0.0.1") for _ in range(3)]
    for node in nodes:
        eventually(lambda node=node: alive(node) == 2, "it knows the others", within_s=1.5)
    assert {node.status().host for node in nodes} == {"127.0.0.1"}


def test_a_worker_that_starts_later_is_ready_as_soon_as_it_has_met_the_others(worker):
    """A crashed worker is replaced while the others serve."""
    first = worker("127.0.0.1")
    assert first.wait_ready(10)
    session = committed(first, user="kim")
    started_s = time.monotonic()
    later = worker("127.0.0.1")
    assert later.wait_ready(10)
    assert time.monotonic() - started_s < 1.5
    assert loaded(later, session.cookie)["user"] == "kim"


def test_a_write_is_confirmed_by_another_pod_and_not_by_the_worker_beside(worker):
    """Two copies in one pod die together."""
    seeds = f"static://127.0.0.1:{worker.port},127.0.0.2:{worker.port}"
    pods = ("127.0.0.1", "127.0.0.1", "127.0.0.2", "127.0.0.2")
    here, beside, there, there_too = [worker(pod, discovery=seeds, confirm_timeout_s=0.5) for pod in pods]
    all_linked(here, beside, there, there_too)
    session = here.store.create()
    session["user"] = "kim"
    outcome = blocking(here.store.commit(session, 1))
    assert isinstance(outcome, Confirmed)
    assert outcome.hosts == 1, "there is one other pod, however many workers it has"
    for node in (there, there_too):
        stands_still(node, 1.5)
    session["user"] = "lee"
    outcome = blocking(here.store.commit(session, 1))
    assert outcome == Degraded(0, outcome.nodes), "the worker beside does not count"
