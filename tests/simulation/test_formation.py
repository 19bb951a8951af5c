"""Nodes that only a name service introduces to each other become one cluster, however wrong it is for a while."""

from math import inf

import pytest

from gossipsess.protocol.discovery import Discovery
from gossipsess.protocol.names import Names
from tests.simulation import formation


def test_nodes_that_start_together_form_one_cluster_by_a_name_service_alone() -> None:
    """Pods of one deployment do, before their records are right."""
    *_, every = formation.play(18)
    assert formation.is_sound(every), every


LATE = 7
"""A start whose records are empty for longer than a node waits."""


def test_a_node_that_asks_once_stays_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """The starts above prove something only if a split would be seen."""
    timeout = Names.timeout

    def once(self: Names, *, alone: bool, now_s: float) -> list:
        return timeout(self, alone=alone, now_s=now_s) if self.first_answer_is_due else []

    next_deadline = Names.next_deadline
    monkeypatch.setattr(Names, "timeout", once)
    monkeypatch.setattr(Names, "next_deadline", lambda self: next_deadline(self) if self.first_answer_is_due else None)
    apart = formation.start(LATE, "empty")
    assert apart.formed_s == inf
    assert not formation.is_sound(formation.figures("empty", [apart]))


def test_nodes_that_wait_for_each_other_to_be_ready_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each is named only once it is ready, they wait for ever: so a wait has an end, and it is checked."""
    assert formation.is_sound(formation.figures("empty", [formation.start(LATE, "empty")]))
    monkeypatch.setattr("gossipsess.protocol.replica.SEARCH_S", 10_000.0)
    monkeypatch.setattr(Discovery, "is_searching", True)
    assert not formation.is_sound(formation.figures("empty", [formation.start(LATE, "empty")]))
