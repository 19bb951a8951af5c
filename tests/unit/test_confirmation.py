"""When a write's response may leave: the table of who counts."""

import pytest

from gossipsess.protocol.confirmation import Confirmations
from gossipsess.protocol.effects import Settle
from gossipsess.protocol.outcomes import Confirmed, Degraded, Gone
from tests.unit.machines import SID, member

HERE = "here"
NAMES = {"a": HERE, "b": HERE, "x": "hx", "y": "hx", "z": "hz"}
"""Other nodes and their hosts: a and b are in this node's own machine, x and y share one."""


def node(name: str):
    return member(name.encode() * 8, NAMES[name])


def others(names: str):
    return tuple(node(name) for name in names)


def changes(confirmations: Confirmations, live: str, holders: str | None = None) -> list[Settle]:
    """Let these be the live members, and the holders of every session; all of them where these are not named."""
    return confirmations.view_changed(others(live), lambda sid: others(live if holders is None else holders))


def waiting(live: str) -> Confirmations:
    """Return the waits of a node that sees these members."""
    confirmations = Confirmations(HERE, 0.25)
    changes(confirmations, live)
    return confirmations


@pytest.mark.parametrize(
    ("confirm", "live", "acks", "settles_at"),
    [
        (1, "x", "x", 1),
        (1, "xz", "x", 1),
        (2, "xz", "xz", 2),
        (2, "xyz", "xyz", 3),  # y is in x's machine
        (9, "xz", "xz", 2),  # as many as there are
        (1, "ax", "ax", 2),  # a is in this machine, and another is live
        (1, "ab", "a", 1),  # only this machine is: nodes count
        (2, "ab", "ab", 2),
        (9, "ab", "ab", 2),
        ("all", "axz", "axz", 3),
        ("all", "xz", "zx", 2),
    ],
)
def test_a_wait_ends_with_the_holder_that_makes_it_enough(confirm, live, acks, settles_at):
    """Two copies in one machine die together, so hosts count; and nobody waits for hosts that do not exist."""
    confirmations = waiting(live)
    ticket = confirmations.open(SID, print, confirm, 0.0)
    for number, name in enumerate(acks, start=1):
        settled = confirmations.held_by(ticket, node(name), others(live))
        assert bool(settled) == (number == settles_at), name
    hosts = {NAMES[name] for name in acks} - {HERE}
    assert settled == [Settle(print, Confirmed(len(hosts), len(acks)))]


def test_one_holder_that_says_it_twice_is_one():
    """Pushes are sent again."""
    confirmations = waiting("xz")
    ticket = confirmations.open(SID, print, 2, 0.0)
    assert not confirmations.held_by(ticket, node("x"), others("xz"))
    assert not confirmations.held_by(ticket, node("x"), others("xz"))


def test_a_wait_ends_at_its_deadline_and_says_how_many_hold_it():
    """The write stands; only its confirmation is missing."""
    confirmations = waiting("xz")
    ticket = confirmations.open(SID, print, 2, 10.0)
    confirmations.held_by(ticket, node("x"), others("xz"))
    assert confirmations.next_deadline() == 10.25
    assert confirmations.timeout(10.24) == []
    assert confirmations.timeout(10.25) == [Settle(print, Degraded(1, 1))]
    assert confirmations.timeout(99.0) == []
    assert confirmations.next_deadline() is None


def test_a_wait_ends_once_whatever_comes_after():
    """The waiter is a future; a second outcome would be an error in the node's thread."""
    confirmations = waiting("xz")
    ticket = confirmations.open(SID, print, 1, 0.0)
    assert confirmations.held_by(ticket, node("x"), others("xz"))
    assert confirmations.held_by(ticket, node("z"), others("xz")) == []
    assert confirmations.gone(SID) == []
    assert changes(confirmations, "x") == []
    assert confirmations.timeout(99.0) == []


def test_a_holder_that_dies_is_not_waited_for():
    """Nor must it end a wait that others still can."""
    confirmations = waiting("xz")
    both = confirmations.open(SID, "both".__len__, 2, 0.0)
    every = confirmations.open(SID, "every".__len__, "all", 0.0)
    confirmations.held_by(both, node("x"), others("xz"))
    assert changes(confirmations, "xz") == []
    assert changes(confirmations, "x") == [Settle(both.waiter, Confirmed(1, 1))]
    assert changes(confirmations, "") == [Settle(every.waiter, Confirmed(0, 0))]


def test_a_wait_for_a_dead_session_ends_as_gone():
    """The logout came between the write and its confirmation."""
    confirmations = waiting("x")
    ticket = confirmations.open(SID, print, 1, 0.0)
    assert confirmations.gone(SID) == [Settle(print, Gone())]
    assert confirmations.held_by(ticket, node("x"), others("x")) == []


def test_only_the_waits_of_that_session_end_as_gone():
    """Also one of whose write no peer is owed anything any more: confirmed by some, given up for the others."""
    confirmations = waiting("xz")
    confirmations.open(SID, "one".__len__, "all", 0.0)
    other = confirmations.open(b"another-16-bytes", "other".__len__, "all", 0.0)
    (settled,) = confirmations.gone(SID)
    assert settled.outcome == Gone()
    assert not other.settled


def test_a_holder_that_has_died_since_holds_nothing():
    """Counted, it would stand for the one holder that is left, which has acknowledged nothing."""
    for mine, live, dead, left in ((HERE, "xz", "x", "z"), (HERE, "ab", "a", "b")):
        confirmations = Confirmations(mine, 0.25)
        changes(confirmations, live)
        ticket = confirmations.open(SID, print, 2, 0.0)
        assert confirmations.held_by(ticket, node(dead), others(live)) == []
        assert changes(confirmations, left) == []
        assert confirmations.held_by(ticket, node(left), others(left)) != []


def test_waits_are_hedged_after_a_fifth_of_their_time_each_once_and_none_that_has_ended():
    """A wait that goes on must not have those behind it hedged that have ended: each write would be sent to three."""
    confirmations = waiting("xz")
    slow = confirmations.open(SID, print, 1, 10.0, hedge=True)
    ended = confirmations.open(SID, print, 1, 10.0, hedge=True)
    confirmations.open(SID, print, 1, 10.0)  # of which everybody was sent
    late = confirmations.open(SID, print, 1, 10.1, hedge=True)
    confirmations.held_by(ended, node("x"), others("xz"))
    assert confirmations.next_deadline() == 10.05
    assert confirmations.hedges(10.04) == []
    assert confirmations.hedges(10.05) == [slow]
    assert confirmations.hedges(10.05) == []
    assert confirmations.next_deadline() == 10.1 + 0.05
    assert confirmations.hedges(10.2) == [late]
    assert confirmations.next_deadline() == 10.25, "the first of them ends"


def test_outcomes_of_two_kinds_are_never_equal():
    """An application compares what it got; by the numbers alone a degraded commit would pass for a confirmed one."""
    assert Confirmed(0, 0) != Degraded(0, 0)
    assert Confirmed(1, 1) == Confirmed(1, 1) != Confirmed(1, 2)


@pytest.mark.parametrize(
    ("confirm", "acks", "outcome"), [(2, "", Degraded(0, 0)), (2, "yz", Confirmed(2, 2)), (3, "z", Degraded(1, 1))]
)
def test_an_outcome_counts_nobody_who_has_died(confirm, acks, outcome):
    """Whoever reads it takes it for the number of copies there are."""
    confirmations = waiting("xyz")
    ticket = confirmations.open(SID, print, confirm, 0.0)
    confirmations.held_by(ticket, node("x"), others("xyz"))
    changes(confirmations, "yz")
    settled = [one for name in acks for one in confirmations.held_by(ticket, node(name), others("yz"))]
    settled += confirmations.timeout(0.25)
    assert settled == [Settle(print, outcome)]
