"""One link a pair, whoever dialed, and dials that are tried later and later."""

import pytest

from gossipsess.protocol.links import (
    DIAL_AGAIN_MAX_S,
    DIAL_AGAIN_S,
    GREATER_ID_WAITS_S,
    SAME_MOMENT_S,
    YOUNG_DELAY_S,
    YOUNG_S,
    Links,
)
from tests.unit.machines import ALICE, BOB, member

DIALED = ("10.0.0.1", 7950)
MEMBERS = {BOB: member(BOB), ALICE: member(ALICE)}


def linked(myself: bytes, peer: bytes, *, dialed: bool) -> Links:
    links = Links(myself)
    links.opened(1, peer, DIALED if dialed else None, 0.0)
    assert links.established(1, 0.0) is None
    return links


@pytest.mark.parametrize("first_by_smaller", [True, False])
def test_of_two_links_dialed_at_the_same_moment_both_sides_keep_the_same(first_by_smaller):
    """If each kept its own, each would close the other's: no link at all, and both dial again."""
    kept = {}
    for myself, peer in ((ALICE, BOB), (BOB, ALICE)):
        smaller = myself < peer
        links = linked(myself, peer, dialed=first_by_smaller == smaller)
        links.opened(2, peer, None if first_by_smaller == smaller else DIALED, 0.5)
        surplus = links.established(2, 0.5)
        kept[myself] = links.of(peer)
        assert {surplus, kept[myself]} == {1, 2}
    assert kept[ALICE] == kept[BOB] == (1 if first_by_smaller else 2)


def test_a_link_that_comes_later_replaces_the_old_one():
    """Its other end has lost that one already, and just does not hear so."""
    links = linked(ALICE, BOB, dialed=True)
    links.opened(2, BOB, None, SAME_MOMENT_S)
    assert links.established(2, SAME_MOMENT_S) == 1
    assert links.of(BOB) == 2
    assert links.closed(1) is None, "the old one's end is no loss"
    assert links.closed(2) == BOB
    assert links.of(BOB) is None


def test_a_link_is_in_use_from_its_hello_on():
    """Before that nobody knows which member it leads to."""
    links = Links(ALICE)
    links.opened(1, BOB, DIALED, 0.0)
    assert links.node_of(1) == BOB
    assert links.dialed_of(1) == DIALED
    assert links.of(BOB) is None
    assert links.in_use() == {}
    links.established(1, 0.0)
    assert links.in_use() == {BOB: 1}
    assert links.node_of(9) is None


def test_the_smaller_id_dials_first_and_the_greater_after_a_while():
    """To spare the pair a second link; but where only one side can reach the other, that side must dial."""
    smaller, greater = Links(ALICE), Links(BOB)
    smaller.wanted(BOB, 0.0)
    greater.wanted(ALICE, 0.0)
    assert smaller.due(MEMBERS, 0.0) == [MEMBERS[BOB].address]
    assert greater.due(MEMBERS, 0.0) == []
    assert greater.due(MEMBERS, GREATER_ID_WAITS_S) == [MEMBERS[ALICE].address]


def test_a_dial_is_repeated_later_and_later_until_a_link_stands():
    """A peer behind a firewall that opens one day is found then."""
    links = Links(ALICE)
    links.wanted(BOB, 0.0)
    waits = []
    for _ in range(12):
        now_s = links.next_deadline()
        assert links.due(MEMBERS, now_s - 0.001) == []
        assert links.due(MEMBERS, now_s) == [MEMBERS[BOB].address]
        waits.append(links.next_deadline() - now_s)
    assert waits[0] == DIAL_AGAIN_S
    assert waits == sorted(waits)
    assert waits[-1] == DIAL_AGAIN_MAX_S
    links.opened(1, BOB, DIALED, 100.0)
    links.established(1, 100.0)
    assert links.next_deadline() is None


def test_a_lost_link_is_dialed_again_at_once_and_a_gone_member_never():
    """A crash is told from a cut by whether the dial is refused."""
    links = linked(BOB, ALICE, dialed=False)
    links.closed(1)
    links.wanted(ALICE, 5.0, at_once=True)
    assert links.due(MEMBERS, 5.0) == [MEMBERS[ALICE].address]
    assert links.unwanted(ALICE) is None
    assert links.due(MEMBERS, 99.0) == []
    assert linked(BOB, ALICE, dialed=False).unwanted(ALICE) == 1


def test_a_linked_member_is_not_dialed():
    """It would only replace a link that works."""
    links = linked(ALICE, BOB, dialed=True)
    links.wanted(BOB, 0.0, at_once=True)
    assert links.next_deadline() is None


def test_a_link_that_ends_young_is_dialed_again_later_and_later():
    """Its other end refuses what the greeting says: dialed at once, the two would spin for as long as both live."""
    links, now_s, waits = Links(ALICE), 0.0, []
    for number in range(9):
        links.opened(number, BOB, DIALED, now_s)
        links.established(number, now_s)
        links.closed(number)
        links.lost(BOB, now_s, now_s + 0.01)
        waits.append(round(links.next_deadline() - now_s - 0.01, 6))
        now_s = links.next_deadline()
        assert links.due(MEMBERS, now_s - 0.001) == []
        assert links.due(MEMBERS, now_s) == [MEMBERS[BOB].address]
    assert waits[:2] == [0, YOUNG_DELAY_S], "the first time at once: its process may just have died"
    assert waits == sorted(waits)
    assert waits[-1] == DIAL_AGAIN_MAX_S

    links.opened(9, BOB, DIALED, now_s)
    links.established(9, now_s)
    links.closed(9)
    links.lost(BOB, now_s, now_s + YOUNG_S)
    assert links.due(MEMBERS, now_s + YOUNG_S) == [MEMBERS[BOB].address], "one that lasted is dialed again at once"
