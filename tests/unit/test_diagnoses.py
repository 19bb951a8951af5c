"""What is wrong with other nodes is told once each, however many they are."""

import pytest

from gossipsess.protocol.diagnoses import NODES_MAX, Diagnoses

from .machines import BOB, member

MANY = [f"node{number:04}".encode() for number in range(NODES_MAX)]

FINDINGS = {
    "refused": lambda found, node: found.refused(node, "it spoke nonsense"),
    "clock": lambda found, node: found.clock_differs(node, 3000),
    "rules": lambda found, node: found.rules_differ(member(node), "secondaries is 2 there, 1 here"),
    "silent": lambda found, node: found.died_linked(node) or found.back(member(node)),
}


@pytest.mark.parametrize("finding", FINDINGS.values(), ids=FINDINGS)
def test_each_node_is_warned_of_once(finding):
    """A log that says the same with each message is read by nobody."""
    found = Diagnoses()
    assert [len(finding(found, node)) for node in (*MANY, *MANY)] == [1] * NODES_MAX + [0] * NODES_MAX


@pytest.mark.parametrize("finding", FINDINGS.values(), ids=FINDINGS)
def test_one_more_node_than_are_remembered_is_warned_of_too(finding):
    """Node ids are fresh at each start: who runs for months sees more of them than it remembers, and hears of each."""
    found = Diagnoses()
    for node in MANY:
        finding(found, node)
    assert len(finding(found, BOB)) == 1
    assert len(finding(found, BOB)) == 0
    assert len(finding(found, MANY[0])) == 1, "forgotten for it, and the oldest"


def test_a_node_that_died_without_a_link_is_no_riddle_when_it_is_back():
    """Its machine was away; that says nothing of a firewall."""
    assert Diagnoses().back(member(BOB)) == []
