"""How long a suspect may refute."""

import pytest

from gossipsess.model.member import Member, MemberState
from gossipsess.protocol.awareness import SCORE_MAX, Awareness
from gossipsess.protocol.suspicion import Suspicion, suspicion_timeout_s

SUSPECT = Member(b"suspect!", 3, MemberState.SUSPECT, ("10.0.0.1", 7950), "n1", host="h1")


@pytest.mark.parametrize(
    ("members", "confirmations", "timeout_s"),
    [
        (2, 0, 2.0),  # nobody there who could confirm
        (3, 0, 12.0),
        (3, 1, 2.0),
        (4, 0, 12.0),
        (4, 1, 5.69),
        (4, 2, 2.0),
        (10, 2, 2.0),
        (10, 9, 2.0),
        (100, 0, 24.0),
        (100, 2, 4.0),
    ],
)
def test_the_time_to_refute_grows_with_the_cluster_and_falls_with_confirmations(members, confirmations, timeout_s):
    assert suspicion_timeout_s(members, 0.5, confirmations) == pytest.approx(timeout_s, abs=0.01)


def test_a_helper_confirms_only_once():
    """One helper on a broken path, asked again and again, is still one opinion."""
    suspicion = Suspicion(SUSPECT, member_count=4, probe_interval_s=0.5, now_s=100.0)
    assert suspicion.due_s == pytest.approx(112.0)
    suspicion.confirm(b"helper-b", 100.0)
    after_one_s = suspicion.due_s
    suspicion.confirm(b"helper-b", 100.5)
    assert suspicion.due_s == after_one_s == pytest.approx(105.69, abs=0.01)
    suspicion.confirm(b"helper-c", 101.0)
    assert suspicion.due_s == pytest.approx(102.0)


def test_a_late_confirmation_makes_it_due_now_and_not_in_the_past():
    """A deadline in the past would be taken for a pause of this process, and the verdict put off."""
    suspicion = Suspicion(SUSPECT, member_count=3, probe_interval_s=0.5, now_s=100.0)
    suspicion.confirm(b"helper-b", 109.0)
    assert suspicion.due_s == 109.0


def test_an_extension_counts_for_later_confirmations_too():
    suspicion = Suspicion(SUSPECT, member_count=3, probe_interval_s=0.5, now_s=100.0)
    suspicion.extend(5.0)
    assert suspicion.due_s == pytest.approx(117.0)
    suspicion.confirm(b"helper-b", 106.0)
    assert suspicion.due_s == pytest.approx(107.0)


def test_awareness_stays_within_its_bounds():
    """Without an upper bound a node that was ill for long would take as long to become watchful again."""
    awareness = Awareness()
    awareness.better()
    assert awareness.factor == 1
    awareness.worse(3)
    awareness.better()
    assert awareness.factor == 3
    awareness.worse(100)
    assert awareness.factor == 1 + SCORE_MAX
