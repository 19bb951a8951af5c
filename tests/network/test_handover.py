"""Which of the nodes that end leave their sessions to the next process: real ones, on 127.0.0.1."""

import threading
from dataclasses import replace

import pytest

from gossipsess.service import RunningNode, process_node
from tests.network.nodes import SECRET, alive, all_linked, committed, eventually, loaded, settings, static


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """This user's folder, empty."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "gossipsess"


@pytest.fixture
def heir():
    """Start a node as a serving process has it."""
    started = []

    def one(**changes):
        started.append(RunningNode(settings(**({"discovery": "static://127.0.0.1:9"} | changes)), has_heirs=True))
        return started[-1]

    yield one
    for node in started:
        node.close()


def files(folder):
    return list(folder.glob("*.handover"))


def test_the_last_one_leaves_its_sessions_and_the_next_one_has_them_before_it_answers(heir, folder):
    """uvicorn --reload: one process after the other, and nobody else."""
    before = heir()
    assert before.wait_ready(10)
    session = committed(before, user="kim")
    before.close()
    before.close()
    assert len(files(folder)) == 1, "once, however often it is closed"
    after = heir()
    assert after.synced, "it waits for nobody: nobody was ever there"
    assert loaded(after, session.cookie)["user"] == "kim"


def test_who_leaves_others_behind_leaves_no_file(heir, folder):
    """They hold what it held, and a file would be a copy that nobody needs."""
    first = heir()
    second = heir(discovery=static(first))
    all_linked(first, second)
    session = committed(first, user="kim", confirm=1)
    first.close()
    assert files(folder) == []
    second.close()
    assert len(files(folder)) == 1
    assert loaded(heir(), session.cookie)["user"] == "kim"


def test_of_several_that_end_at_the_same_moment_nothing_is_lost(heir, folder):
    """All workers of a server get the signal at once, and none of them may be the one who outlives the others."""
    first = heir()
    nodes = [first, *[heir(discovery=static(first)) for _ in range(4)]]
    all_linked(*nodes)
    sessions = [committed(node, confirm=1, number=number) for number, node in enumerate(nodes * 4)]
    for node in nodes:
        node.leave_soon()
    threads = [threading.Thread(target=node.close) for node in nodes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = heir()
    for number, session in enumerate(sessions):
        assert loaded(after, session.cookie)["number"] == number
    assert files(folder) == []


def test_whoever_joins_has_it_from_the_one_that_took_it_over(heir, folder):
    """Workers that start together: one of them finds the file, and what it held is no worse for it than any session."""
    before = heir()
    session, ended = committed(before, user="kim"), committed(before, user="lee")
    before.store.invalidate(ended)
    before.close()
    after = heir()
    beside = heir(discovery=static(after))
    all_linked(after, beside)
    assert loaded(beside, session.cookie)["user"] == "kim"
    assert loaded(beside, ended.cookie) is None
    changed = loaded(beside, session.cookie)
    changed["cart"] = ["book"]
    beside.store.commit(changed, "all").result(10)
    assert loaded(after, session.cookie)["cart"] == ["book"]


def test_a_test_finds_nothing_of_the_one_before(folder, monkeypatch):
    """Suites start and stop an application for each test, in one process and with the settings it has anyway."""
    config = settings(discovery="static://127.0.0.1:9", cluster="suite")
    for leaves in (False, True):
        if leaves:
            monkeypatch.delenv("PYTEST_CURRENT_TEST")
        node = process_node(config)
        committed(node, user="kim")
        node.close()
        assert bool(files(folder)) is leaves


@pytest.mark.parametrize(
    ("without", "named", "found"),
    [
        ((), "auto", 0),
        (("PYTEST_CURRENT_TEST",), "auto", 0),  # while tests are collected
        (("PYTEST_CURRENT_TEST", "PYTEST_VERSION"), "auto", 1),
        ((), "static", 1),
    ],
)
def test_a_test_joins_nothing_that_runs_on_this_machine_unless_told_where(without, named, found, monkeypatch):
    """A developer's application runs beside, with the settings that the test has too: none at all."""
    config = settings(secret=None, cluster="developers", discovery="auto")
    beside = RunningNode(config)
    for variable in without:
        monkeypatch.delenv(variable)
    node = process_node(config if named == "auto" else replace(config, discovery=static(beside)))
    try:
        assert node.wait_ready(10)
        eventually(lambda: alive(node) == found, f"it knows {found} others")
        assert alive(node) == found
    finally:
        node.close()
        beside.close()


def test_a_node_of_another_secret_takes_nothing_over(heir, folder):
    """Nor does it throw away what is not its own."""
    before = heir()
    committed(before, user="kim")
    before.close()
    assert not heir(secret=SECRET[::-1]).node.records
    assert len(files(folder)) == 1
