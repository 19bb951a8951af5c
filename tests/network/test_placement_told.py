"""What four real nodes on loopback say of where sessions live: their status, and their logs."""

import logging
from contextlib import ExitStack, closing

import pytest

from gossipsess.service import RunningNode
from tests.network.nodes import all_linked, committed, eventually, loaded, settings, static

MODE = "4 nodes, and GOSSIPSESS_ALL_TO_ALL_BELOW is 4: each session now lives on 2 of them"


def four(stack: ExitStack, caplog: pytest.LogCaptureFixture) -> list[RunningNode]:
    """Return four nodes that have met, and have logged it; which they do within half a second."""
    caplog.set_level(logging.INFO, "gossipsess")
    nodes: list[RunningNode] = []
    for number in range(4):
        discovery = static(*nodes[:1]) if nodes else "none"
        nodes.append(RunningNode(settings(node_name=f"web-{number}", host=f"host-{number}", discovery=discovery)))
        stack.callback(nodes[-1].close)
    all_linked(*nodes)
    eventually(lambda: caplog.messages.count(MODE) == 4, "each has logged in which mode it is")
    return nodes


def test_a_fourth_node_changes_the_mode_and_each_says_so_in_status_and_log(caplog):
    """The same processes hold half as much from here on; who is not told takes the figures for a loss."""
    with ExitStack() as stack:
        nodes = four(stack, caplog)
        for node in nodes:
            status = node.status()
            assert (status.mode, status.copies) == ("primary-secondary", 2)
        assert sum(node.status().primary_partitions for node in nodes) == 1024


def test_a_node_that_leaves_tells_in_its_log_what_it_hands_over(caplog):
    """That is what an operator watches who shortens the time that a pod may take to end."""
    with ExitStack() as stack:
        goes, *stay = nodes = four(stack, caplog)
        sessions = [committed(node, user="kim") for node in nodes for _ in range(25)]
        goes.close()
        told = [message for message in caplog.messages if message.startswith("this node ")]
        assert any(message.startswith("this node leaves, and hands over") for message in told)
        assert any(message.startswith("this node has handed over") for message in told)
        leaving, left = (f"web-0 ({goes.status().node}) is {state}" for state in ("leaving", "left"))
        for said in (leaving, left):
            eventually(lambda said=said: caplog.messages.count(said) == len(stay), f"each of the others logs: {said}")
        assert caplog.messages.index(leaving) < caplog.messages.index(left)
        eventually(lambda: any("(web-0 le" in message for message in caplog.messages), "the others say what they gain")
        for session in sessions:
            assert loaded(stay[0], session.cookie)["user"] == "kim"
            assert session.id not in caplog.text


def test_nodes_with_other_rules_are_warned_of_on_both_sides_and_still_meet(caplog):
    """A setting that was changed on one node only; the warning says which one, and what each has."""
    caplog.set_level(logging.INFO, "gossipsess")
    with ExitStack() as stack:
        here = stack.enter_context(closing(RunningNode(settings(node_name="web-0"))))
        there = stack.enter_context(
            closing(RunningNode(settings(node_name="web-1", secondaries=2, discovery=static(here))))
        )
        all_linked(here, there)
        warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert sorted(warning.partition(" ")[0] for warning in warnings) == ["web-0", "web-1"]
    assert sum("GOSSIPSESS_SECONDARIES is 1 here and 2 there" in warning for warning in warnings) == 1
    assert sum("GOSSIPSESS_SECONDARIES is 2 here and 1 there" in warning for warning in warnings) == 1
