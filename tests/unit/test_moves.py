"""What the log says of where sessions live and of how they move; and that it never says much."""

from itertools import pairwise

import pytest

from gossipsess.model.digest import EVERYTHING, USERS_SCOPE
from gossipsess.model.member import Member, MemberState
from gossipsess.model.rules import Rules
from gossipsess.protocol.effects import Inform, Warn
from gossipsess.protocol.gains import Progress
from gossipsess.protocol.moves import LOOK_EVERY_S, SAME_KIND_S, Moves, Seen
from gossipsess.protocol.placement import Layout
from tests.unit.machines import ALICE, BOB, CAROL, member

DAVE = b"dave...."
FOUR = tuple([member(node) for node in (ALICE, BOB, CAROL, DAVE)])
ALL = Layout(FOUR[:3], Rules(), all_to_all=True)
SOME = Layout(FOUR, Rules(), all_to_all=False)
ALONE = Layout(FOUR[:1], Rules(), all_to_all=True)
SECOND = 0b0110 | USERS_SCOPE


def seen(
    layout: Layout = ALL,
    held: int = EVERYTHING,
    progress: Progress | None = None,
    counted: int = 3,
    pulled_bytes: int = 0,
    securing: int = 0,
) -> Seen:
    return Seen(layout, counted, held, progress, pulled_bytes, securing)


def progress(partitions: int, of: int, since_s: float, eta_s: float | None = None, come: int = 0) -> Progress:
    return Progress(partitions, of, since_s, eta_s, come)


def settled(held: int = EVERYTHING, layout: Layout = ALL) -> Moves:
    """Return the log of a node that has long been in this layout."""
    moves = Moves(Rules())
    for now_s in (-60.0, -50.0, -40.0):
        texts(moves, seen(layout, held), now_s)
    return moves


def texts(moves: Moves, what: Seen, now_s: float) -> list[str]:
    effects = moves.look(what, now_s)
    assert all(isinstance(effect, Inform) for effect in effects)
    return [effect.text for effect in effects]


def dead(of: Member) -> Member:
    return of._replace(state=MemberState.DEAD)


def test_a_change_of_mode_is_told_once_with_the_number_and_the_setting_behind_it():
    """Memory and traffic change with it, and an operator should not have to guess why."""
    moves = settled()
    assert texts(moves, seen(SOME, 0, counted=4), 0.0) == [
        "4 nodes, and GOSSIPSESS_ALL_TO_ALL_BELOW is 4: each session now lives on 2 of them"
    ]
    assert texts(moves, seen(SOME, 0, counted=4), 10.0) == []
    (back,) = texts(moves, seen(ALL, 0, counted=3), 20.0)
    assert back == "3 nodes, and GOSSIPSESS_ALL_TO_ALL_BELOW is 4: each session now lives on every node"


def test_where_hosts_are_counted_the_line_says_hosts():
    """Eight workers on three machines would else be told that they are three."""
    moves = Moves(Rules(count_by="host"))
    (line,) = texts(moves, seen(SOME, 0, counted=4), 0.0)
    assert line.startswith("4 hosts")
    assert line.endswith("lives on 2 nodes")


def test_a_gain_is_told_with_its_reason_its_progress_and_its_end():
    """While it lasts some sessions have one copy less; who restarts the next node should know."""
    moves = settled(held=0b0001)
    moves.member_changed(dead(FOUR[1]), MemberState.ALIVE)
    assert texts(moves, seen(held=0b0111, progress=progress(2, 2, 0.0)), 0.5) == [
        "this node is to hold 2 more partitions (bob..... died), and pulls what it lacks"
    ]
    told = []
    for tick in range(2, 24):  # each half second until 11.5 s
        going = seen(held=0b0111, progress=progress(2, 2, 0.0, 7.4, come=1), pulled_bytes=1_200_000)
        told += [(tick / 2, text) for text in texts(moves, going, tick / 2)]
    assert [at_s for at_s, _ in told] == [5.5, 10.5]
    assert told[0][1] == "this node holds 1 of 2 gained partitions, 1.2 MB pulled, about 7 s left"
    assert texts(moves, seen(held=0b0111, pulled_bytes=2_000_000), 12.0) == [
        "this node holds all of 2 gained partitions after 12.0 s, 2.0 MB pulled"
    ]
    assert texts(moves, seen(held=0b0111), 30.0) == []


def test_what_was_pulled_before_is_not_told_as_part_of_a_gain():
    """Else a day's repairs would be in the figure."""
    moves = settled(held=1)
    texts(moves, seen(held=1, pulled_bytes=5_000_000), 0.0)
    texts(moves, seen(held=3, progress=progress(1, 1, 1.0)), 1.0)
    (line,) = texts(moves, seen(held=3, pulled_bytes=5_500_000), 2.0)
    assert "0.5 MB pulled" in line


def test_a_gain_that_is_over_at_the_next_look_is_one_line():
    """With few sessions every gain is; three lines each would be noise."""
    moves = settled(held=0b0001)
    moves.member_changed(FOUR[1], MemberState.DEAD)
    assert texts(moves, seen(held=0b0011), 0.5) == ["this node holds 1 more partition (bob..... joined), 0.0 MB pulled"]


def test_a_gain_that_a_restart_in_place_takes_back_is_told_as_such():
    """ "Holds all of 0" would be no answer to what became of it."""
    moves = settled(held=0b0001)
    moves.member_changed(dead(FOUR[1]), MemberState.ALIVE)
    texts(moves, seen(held=0b0111, progress=progress(2, 2, 0.0)), 0.5)
    moves.member_changed(FOUR[1], None)
    (line,) = texts(moves, seen(held=0b0001), 2.0)
    assert line == "this node is to hold 2 partitions no longer (bob..... joined)"


def test_a_node_that_is_alone_tells_nothing_and_one_that_joins_says_that_it_has_just_started():
    """A developer's single process has nobody to share anything with."""
    moves = Moves(Rules())
    assert texts(moves, seen(ALONE, progress=progress(1024, 1024, 0.0), counted=1), 0.0) == []
    moves.member_changed(FOUR[1], None)
    (line,) = texts(moves, seen(progress=progress(1024, 1024, 0.0)), 0.5)
    assert line == "this node is to hold 1,024 more partitions (it has just started), and pulls what it lacks"


def test_who_was_alone_and_is_joined_gains_nothing():
    """It held everything before."""
    moves = Moves(Rules())
    assert texts(moves, seen(ALONE, counted=1), 0.0) == []
    moves.member_changed(FOUR[1], None)
    assert texts(moves, seen(), 1.0) == []


def test_however_many_nodes_restart_there_is_a_line_of_each_kind_a_second_at_most():
    """A log that floods while a cluster is restarted hides what matters in it."""
    moves = settled(held=0)
    told = []
    for look in range(200):
        held = 1 << look if look % 3 else (1 << look) - 1
        moves.member_changed(dead(member(b"%08d" % look)), MemberState.ALIVE)
        layout, counted = (SOME, 4) if look % 2 else (ALL, 3)
        going = seen(layout, held, progress(1, 9, 0.0), counted=counted)
        told += [(look * LOOK_EVERY_S, text) for text in texts(moves, going, look * LOOK_EVERY_S)]
    for part in ("ALL_TO_ALL_BELOW", "is to hold", " gained "):
        times = [at_s for at_s, text in told if part in text]
        assert times, part
        assert all(later - sooner >= SAME_KIND_S for sooner, later in pairwise(times))


def test_of_many_reasons_four_are_named():
    """A line as long as a cluster is large is read by nobody."""
    moves = settled(held=1)
    for number in range(9):
        moves.member_changed(dead(member(b"%08d" % number)), MemberState.ALIVE)
    (line,) = texts(moves, seen(held=3), 1.0)
    assert "00000003 died, and 5 more)" in line
    assert "00000004" not in line


@pytest.mark.parametrize("then", [0, 3])
def test_a_leave_tells_what_is_handed_over_how_far_it_is_and_how_it_ended(then):
    """It may take ten seconds, and an orchestrator kills what takes longer than it allows."""
    moves = settled()
    (begins,) = moves.drains(8, 0.0)
    assert begins == Inform("this node leaves, and hands over 8 partitions")
    told = [text for tick in range(1, 10) for text in texts(moves, seen(securing=5), tick / 2)]
    assert told == ["this node leaves, and has still to hand over 5 of 8 partitions"] * 2
    (ends,) = moves.ends(then, 5.0)
    if then:
        assert isinstance(ends, Warn)
        assert "3 partitions" in ends.text
    else:
        assert ends == Inform("this node has handed over 8 partitions in 5.0 s")


def test_the_end_of_handing_over_is_told_once():
    """A look may see it before the node leaves."""
    moves = settled()
    moves.drains(8, 0.0)
    assert texts(moves, seen(), 0.5) == ["this node has handed over 8 partitions in 0.5 s"]
    assert moves.ends(0, 0.6) == []


def test_a_node_that_leaves_with_nothing_to_hand_over_says_nothing():
    """Below four nodes the others have everything already."""
    moves = settled()
    assert moves.drains(0, 0.0) == []
    assert moves.ends(0, 0.1) == []
