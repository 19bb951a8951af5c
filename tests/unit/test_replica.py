"""Who is let in over a link, who is turned away, and how a node that leaves is told from one that died."""

import pytest

from gossipsess.model.clock import AHEAD_MS_MAX
from gossipsess.model.member import MemberState
from gossipsess.model.rules import Rules
from gossipsess.protocol.discovery import RETRY_MAX_S
from gossipsess.protocol.effects import CloseLink, Dial, Warn
from gossipsess.protocol.events import LinkClosed, LinkOpened, Tick
from gossipsess.protocol.outcomes import Confirmed
from gossipsess.wire.messages import Bye, Hello
from tests.unit.machines import BOB, EPOCH_MS, Clocked, member, stamp

THERE = ("10.0.0.9", 7950)
AHEAD = Hello(member(BOB), stamp(AHEAD_MS_MAX + 1000), ())
"""From a node whose clock is further ahead than is let in, and which has written nothing yet."""


def state_of_bob(here: Clocked) -> MemberState | None:
    bob = here.replica.swim.view.get(BOB)
    return bob.state if bob is not None else None


def test_a_greeting_says_what_time_it_is_also_before_the_first_write():
    """Else a clock that is an hour off is let in, and refused only with the first push: confirmed by nobody."""
    here = Clocked()
    here.now_s += 5
    here.node.submit(LinkOpened(1, BOB, None))
    (hello,) = here.says()
    assert hello.clock == stamp(5000)


def test_a_node_whose_clock_is_far_ahead_is_turned_away_at_the_door_and_read_of_once():
    """As a member it would hold nothing of what it is sent; and it comes back, again and again."""
    here = Clocked()
    warnings = []
    for link in range(1, 5):
        here.node.submit(LinkOpened(link, BOB, None))
        here.hears(AHEAD, link)
        done = here.does()
        assert CloseLink(link) in done
        warnings += [effect.text for effect in done if isinstance(effect, Warn)]
        here.node.submit(LinkClosed(link))
    assert state_of_bob(here) is None
    (warning,) = warnings
    assert "11.0 s ahead" in warning
    assert "NTP" in warning


def test_a_seed_that_is_turned_away_is_dialed_later_and_later():
    """It answers each time: dialed again at once, the two would greet each other for as long as both live."""
    here = Clocked(seeds=(THERE,))
    dials = 0
    for _ in range(600):
        here.waits(0.1)
        if Dial(THERE) in here.does():
            dials += 1
            here.node.submit(LinkOpened(dials, BOB, THERE))
            here.hears(AHEAD, dials)
            here.node.submit(LinkClosed(dials))
    assert 60 / RETRY_MAX_S / 2 < dials < 2 * 60 / RETRY_MAX_S


def test_who_says_goodbye_has_left_whatever_becomes_of_its_datagrams():
    """Taken for a crash, every restart would start a repair, and commits would wait for who is gone."""
    here = Clocked().linked(BOB)
    here.hears(Bye())
    assert state_of_bob(here) is MemberState.LEFT
    here.node.submit(LinkClosed(1))
    assert state_of_bob(here) is MemberState.LEFT
    session = here.store.create()
    session["user"] = "kim"
    assert here.store.commit(session, "all") == Confirmed(0, 0)


@pytest.mark.parametrize(("off_ms", "says"), [(-3_000, "-3.0 s"), (-2_000, ""), (2_000, ""), (3_000, "3.0 s")])
def test_a_peer_whose_clock_differs_is_let_in_and_its_operator_told_once(off_ms, says):
    """Within ten seconds all is well but for the order of writes; who runs the machines should know."""
    here = Clocked()
    warnings = []
    for link in (1, 2):
        here.node.submit(LinkOpened(link, BOB, None))
        here.hears(Hello(member(BOB), stamp(off_ms), ()), link)
        warnings += [effect.text for effect in here.does() if isinstance(effect, Warn)]
        here.node.submit(LinkClosed(link))
    assert state_of_bob(here) is MemberState.ALIVE
    assert len(warnings) == bool(says)
    assert all(says in warning and "NTP" in warning for warning in warnings)


def test_a_machine_that_was_suspended_says_so_and_lets_its_peers_in():
    """Its monotonic clock stood still: the peer's clock is right, and so is the wall clock here."""
    here = Clocked()
    here.node.submit(Tick(EPOCH_MS + 30_000))
    here.node.submit(LinkOpened(1, BOB, None))
    here.hears(Hello(member(BOB), stamp(30_500), ()))
    (warning,) = [effect.text for effect in here.does() if isinstance(effect, Warn)]
    assert "stood still for 30.0 s" in warning
    assert state_of_bob(here) is MemberState.ALIVE
    here.now_s += 1
    assert here.node.time_ms() == EPOCH_MS + 31_000


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        (Rules(), ()),
        (Rules(all_to_all_below=2), ("GOSSIPSESS_ALL_TO_ALL_BELOW is 4 here and 2 there",)),
        (
            Rules(secondaries=2, count_by="host"),
            ("GOSSIPSESS_SECONDARIES is 1 here and 2 there", "GOSSIPSESS_COUNT_BY is node here and host there"),
        ),
    ],
)
def test_a_node_that_places_sessions_by_other_rules_is_let_in_and_warned_of_once(rules, says):
    """The two never compare what they hold; nothing else would show that a setting was forgotten on one of them."""
    here = Clocked()
    warnings = []
    for link in (1, 2):  # its link breaks, and comes up again
        here.node.submit(LinkOpened(link, BOB, None))
        here.hears(Hello(member(BOB), stamp(0), (), rules=rules), link)
        warnings += [effect.text for effect in here.does() if isinstance(effect, Warn)]
        here.node.submit(LinkClosed(link))
    assert state_of_bob(here) is MemberState.ALIVE
    assert len(warnings) == bool(says)
    assert all(difference in warning and "bob....." in warning for warning in warnings for difference in says)


def test_a_greeting_says_by_which_rules_this_node_places():
    """What a node does not say, no other can warn of."""
    here = Clocked(rules=Rules(count_by="host"))
    here.node.submit(LinkOpened(1, BOB, None))
    (hello,) = here.says()
    assert hello.rules == Rules(count_by="host")


def test_a_peer_that_dies_and_lives_while_it_is_linked_is_read_of_once():
    """A NetworkPolicy that lets TCP through and not UDP makes members come and go, and nothing else would say why."""
    here = Clocked().linked(BOB)
    warnings: list[str] = []

    def listen() -> None:
        told = [effect.text for effect in here.does() if isinstance(effect, Warn)]
        warnings.extend(text for text in told if "UDP" in text)

    for link in range(2, 5):
        for _ in range(200):
            here.waits(0.1)
            listen()
        assert state_of_bob(here) is MemberState.DEAD
        assert len(warnings) == (link > 2), "not before it lives: it may just have died"
        back = member(BOB)._replace(incarnation=2 * link)
        here.node.submit(LinkOpened(link, BOB, None))
        here.hears(Hello(back, stamp(0), ()), link)
        listen()
        assert state_of_bob(here) is MemberState.ALIVE
    (warning,) = warnings
    assert "TCP gets through to it and UDP does not" in warning


def test_of_a_process_that_was_killed_nobody_says_that_datagrams_are_blocked():
    """Its links end, and its machine refuses another: that is no riddle."""
    here = Clocked().linked(BOB)
    here.loses()
    assert state_of_bob(here) is MemberState.DEAD
    assert not [effect for effect in here.does() if isinstance(effect, Warn)]
