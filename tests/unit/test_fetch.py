"""A request waits for a session: present, absent and unknown are never confused."""

import pytest

from gossipsess.model.delta import changes_since, not_covered
from gossipsess.model.record import Record, dead_record
from gossipsess.protocol import fetch, replication
from gossipsess.protocol.effects import Send
from gossipsess.protocol.events import Fetch, LinkClosed, LinkOpened, Tick, Watch, Write
from gossipsess.protocol.fetch import FETCH_TIMEOUT_S, HEDGE_S, Candidates, Fetches, Step
from gossipsess.protocol.outcomes import Found
from gossipsess.wire.messages import Bye, Gap, Hello, Pull, PullAnswer, Push
from tests.unit.machines import ALICE, BOB, CAROL, SID, Clocked, member, record, registers, stamp

LIVE = record((stamp(0), BOB, registers()))
AHEAD = record((stamp(0), BOB, registers()), (stamp(9), CAROL, {"a": b"1"}))
HERE = {SID: LIVE}
NOBODY: dict = {}
DAVE, ERIN = b"dave....", b"erin...."
NO, JOINING, YES = (False, True), (False, False), (True, True)
"""What an answer says: (held, synced)."""


class Asking:
    """One wait of a node without a clock or links of its own, and what came of it."""

    def __init__(
        self,
        holders: tuple[bytes, ...] = (BOB, CAROL),
        origins: tuple[bytes, ...] = (),
        others: tuple[bytes, ...] = (),
        *,
        dots=(),
        here: dict | None = None,
        linked: tuple[bytes, ...] | None = None,
        complete: bool = False,
        doubtful: bool = False,
        validate: bool = False,
    ) -> None:
        self.fetches = Fetches()
        self.here = {} if here is None else here
        self.found: Found | None = None
        self.validated: list[bytes] = []
        self.pulls: list[Pull] = []
        for node in (*holders, *origins, *others) if linked is None else linked:
            self.fetches.linked(node, self.here, 0.0)
        candidates = Candidates(holders, origins, others, complete)
        begun = self.fetches.start(SID, dots, print, candidates, self.here, 0.0, doubtful=doubtful, validate=validate)
        self.asked: list[bytes] = []
        """Who was asked first; then by each step."""
        if isinstance(begun, Found):
            self.found = begun
        else:
            self.asked = self._took(begun)

    def _took(self, step: Step) -> list[bytes]:
        for settle in step.settled:
            assert self.found is None, "a wait ends once"
            self.found = settle.outcome
        self.validated += step.validated
        self.pulls += [pull for _, pull in step.asks]
        return [node for node, _ in step.asks]

    def hears(self, node: bytes, says: tuple[bool, bool], now_s: float = 0.001, request: int = 1) -> list[bytes]:
        """Take an answer; return who is asked next."""
        return self._took(self.fetches.answered(node, PullAnswer(request, *says), self.here, now_s))

    def gets(self, got: Record) -> None:
        """Let a state of the session come in."""
        self.here[SID] = got
        for settle in self.fetches.merged(got):
            assert self.found is None, "a wait ends once"
            self.found = settle.outcome

    def at(self, now_s: float) -> list[bytes]:
        """Let a deadline come; return who is asked next."""
        return self._took(self.fetches.timeout(self.here, now_s))

    def links(self, node: bytes, now_s: float = 0.001) -> list[bytes]:
        """Let a link come up; return who is asked next."""
        return self._took(self.fetches.linked(node, self.here, now_s))

    def unlinks(self, node: bytes, now_s: float = 0.001) -> list[bytes]:
        """Let a link end; return who is asked next."""
        return self._took(self.fetches.unlinked(node, self.here, now_s))

    def loses(self, node: bytes, *, died: bool = False, now_s: float = 0.001) -> list[bytes]:
        """Let a member be no more; return who is asked next."""
        return self._took(self.fetches.holder_lost(node, self.here, now_s, died=died))


# --- whom to ask, and when --------------------------------------------------------------------------------


def test_a_session_costs_one_question_where_the_first_holder_has_it():
    """Each more that is asked would send all of it again, for every read that a balancer puts on a non-holder."""
    asking = Asking(origins=(DAVE,), others=(ERIN,))
    assert asking.asked == [BOB]
    asking.gets(LIVE)
    assert asking.found is Found.FRESH
    assert asking.hears(BOB, YES) == []
    assert asking.at(1.0) == []
    assert asking.fetches.next_deadline() is None


def test_a_holder_is_told_what_is_held_here():
    """It answers with no more than what is missing; and the next one with what is missing by then."""
    asking = Asking(here=dict(HERE), dots=((DAVE, stamp(9)),))
    asking.gets(AHEAD)
    asking.hears(BOB, YES)
    assert asking.pulls == [
        Pull(1, (Gap(SID, LIVE.claims, LIVE.state_hash),)),
        Pull(1, (Gap(SID, AHEAD.claims, AHEAD.state_hash),)),
    ]


def test_a_holder_that_wrote_what_is_missing_is_asked_first():
    """It has the write for certain; the others may not have heard of it yet."""
    assert Asking((BOB, CAROL, DAVE), dots=((DAVE, stamp(9)),)).asked == [DAVE]
    assert Asking((BOB, CAROL), dots=((BOB, stamp(0)), (CAROL, stamp(9))), here=HERE).asked == [CAROL]


def test_the_next_holder_is_asked_when_the_first_is_slow():
    """A paused holder costs a read fifteen milliseconds, not its bound."""
    asking = Asking((BOB, CAROL, DAVE))
    assert asking.fetches.next_deadline() == HEDGE_S
    assert asking.at(HEDGE_S / 2) == []
    assert asking.at(HEDGE_S) == [CAROL]
    assert asking.fetches.next_deadline() == 2 * HEDGE_S
    assert asking.at(2 * HEDGE_S) == [DAVE]
    assert asking.at(3 * HEDGE_S) == []
    assert asking.fetches.next_deadline() == FETCH_TIMEOUT_S


def test_the_earliest_hedge_wakes_the_node_however_many_wait():
    """A wait that has moved on to its second holder must not hide that another's first one is slow."""
    fetches = Fetches()
    for node in (BOB, CAROL, DAVE):
        fetches.linked(node, NOBODY, 0.0)
    for now_s in (0.0, 0.001):
        fetches.start(SID, (), print, Candidates((BOB, CAROL, DAVE)), NOBODY, now_s)
    fetches.answered(BOB, PullAnswer(1, held=False, synced=True), NOBODY, 0.010)
    assert fetches.next_deadline() == 0.001 + HEDGE_S
    step = fetches.timeout(NOBODY, 0.001 + HEDGE_S)
    assert [(node, pull.request) for node, pull in step.asks] == [(CAROL, 2)]


@pytest.mark.parametrize("says", [NO, JOINING, YES], ids=["no", "joining", "held, not with this write"])
def test_an_answer_that_did_not_help_puts_the_next_question_at_once(says):
    """To wait for the hedge would only cost time: nothing more will come from there."""
    asking = Asking(here=dict(HERE), dots=((DAVE, stamp(9)),))
    assert asking.hears(BOB, says) == [CAROL]
    assert asking.found is None


def test_the_writers_of_a_token_are_asked_after_the_holders():
    """A write that reached no holder yet is at its writer; its own pushes are slower than a question."""
    asking = Asking(origins=(DAVE,), dots=((DAVE, stamp(9)),))
    assert asking.hears(BOB, NO) == [CAROL]
    assert asking.hears(CAROL, NO) == [DAVE]


def test_nobody_is_asked_twice():
    """Neither for an answer that comes twice, nor by a hedge, nor because a member is no more."""
    asking = Asking((BOB, CAROL, DAVE, ERIN))
    assert asking.at(HEDGE_S) == [CAROL]
    assert asking.hears(BOB, NO, HEDGE_S) == [DAVE]
    assert asking.hears(BOB, NO, HEDGE_S) == []
    assert asking.at(2 * HEDGE_S) == [ERIN]
    assert asking.at(5 * HEDGE_S) == []
    assert asking.links(BOB) == []
    assert asking.loses(CAROL) == []


def test_who_was_not_asked_is_not_believed():
    """An answer to another request, or of a stranger, says nothing."""
    asking = Asking((BOB,))
    asking.hears(b"stranger", YES)
    asking.hears(BOB, NO, request=2)
    assert asking.found is None
    asking.hears(BOB, NO)
    assert asking.found is Found.ABSENT


def test_others_are_asked_all_at_once_after_a_holder_that_does_not_have_everything():
    """While a new holder fills up, the session may lie at any node that held it before."""
    asking = Asking(others=(DAVE, ERIN))
    assert asking.hears(BOB, JOINING) == [CAROL], "the other holder comes first: it nearly always has it"
    assert asking.hears(CAROL, NO) == [DAVE, ERIN]
    assert asking.fetches.next_deadline() == FETCH_TIMEOUT_S


def test_others_are_left_in_peace_where_the_holders_have_everything():
    """Else every made-up id would cost a message to each node of the cluster."""
    asking = Asking(others=(DAVE, ERIN))
    asking.hears(BOB, NO)
    assert asking.hears(CAROL, NO) == []
    assert asking.found is Found.ABSENT


def test_others_are_asked_where_no_holder_is_left():
    """All at once then, since any of them may be the next holder, or have a copy."""
    asking = Asking((BOB,), others=(DAVE, ERIN))
    assert asking.loses(BOB, died=True) == [DAVE, ERIN]
    assert Asking((BOB,), others=(DAVE,), linked=(DAVE,)).loses(BOB) == [DAVE], "also where it had no link"


# --- links ------------------------------------------------------------------------------------------------


def test_a_holder_without_a_link_is_passed_over():
    """A question to it would be lost, and its turn too."""
    asking = Asking(linked=(CAROL,))
    assert asking.asked == [CAROL]


def test_a_link_that_comes_up_is_used_at_once_where_everybody_before_has_failed():
    """In its first milliseconds a node has requests and no links."""
    asking = Asking(linked=())
    assert asking.asked == []
    assert asking.fetches.next_deadline() == FETCH_TIMEOUT_S
    assert asking.links(CAROL, 0.1) == [CAROL]
    assert asking.links(BOB, 0.101) == [], "the first one still has its time"
    assert asking.at(0.1 + HEDGE_S) == [BOB]


def test_a_link_that_breaks_ends_the_turn_of_who_was_asked_over_it():
    """A killed holder's kernel closes its link within a millisecond; its death is certain only later."""
    asking = Asking((BOB, CAROL, DAVE, ERIN))
    assert asking.unlinks(ERIN) == [], "it was not asked yet"
    assert asking.unlinks(BOB) == [CAROL]
    assert asking.unlinks(BOB) == []
    assert asking.links(BOB) == [BOB], "the old link has taken the question with it"


def test_a_holder_whose_link_is_replaced_is_asked_again():
    """Both of a pair dial when they meet, and requests come in the same millisecond: they would wait to their bound."""
    here, found = Clocked().alone().linked(BOB), []
    here.node.submit(Fetch(SID, (), found.append))
    here.node.submit(LinkClosed(1))
    here.does()
    here.linked(BOB, 2)
    (asked,) = [message for message in here.says() if isinstance(message, Pull)]
    here.hears(PullAnswer(asked.request, held=False, synced=True), 2)
    here.does()
    assert found == [Found.ABSENT]


def test_others_without_a_link_are_asked_when_it_comes_up():
    """Their turn has come for good."""
    asking = Asking((BOB,), others=(DAVE,), linked=(BOB,))
    assert asking.hears(BOB, JOINING) == []
    assert asking.links(DAVE) == [DAVE]


# --- how it ends ------------------------------------------------------------------------------------------


def test_the_first_state_with_every_write_in_it_ends_the_wait():
    """Nobody waits for the slowest node."""
    asking = Asking(dots=((BOB, stamp(0)),))
    asking.gets(record((stamp(1), CAROL, registers())))
    assert asking.found is None
    asking.gets(LIVE)
    assert asking.found is Found.FRESH


def test_absent_needs_every_holder_to_have_everything_and_not_this():
    """Absent replaces the user's cookie: one holder that was not heard, or is not up to date, forbids it."""
    asking = Asking()
    asking.hears(BOB, NO)
    assert asking.found is None
    asking.hears(CAROL, NO)
    assert asking.found is Found.ABSENT


def test_a_holder_that_is_not_synced_leaves_it_unknown():
    """A cleared cookie would be a logout. Until the bound its sync, or this node's, may bring the session."""
    for first, second in ((JOINING, NO), (NO, JOINING)):
        asking = Asking()
        asking.hears(BOB, first)
        asking.hears(CAROL, second)
        assert asking.found is None
        asking.at(FETCH_TIMEOUT_S)
        assert asking.found is Found.UNKNOWN


def test_absent_needs_the_writers_of_a_token_too():
    """A write that was answered in time is at its writer, even where no holder has heard of the session."""
    asking = Asking(origins=(DAVE,), dots=((DAVE, stamp(9)),))
    asking.hears(BOB, NO)
    asking.hears(CAROL, NO)
    assert asking.found is None
    asking.hears(DAVE, JOINING)
    assert asking.found is Found.ABSENT, "it speaks for its own writes, whatever else it lacks"


def test_a_writer_that_cannot_be_asked_leaves_it_unknown():
    """It is live, and may hold the write; it cannot say no."""
    asking = Asking(origins=(DAVE,), dots=((DAVE, stamp(9)),), linked=(BOB, CAROL))
    asking.hears(BOB, NO)
    assert asking.hears(CAROL, NO) == []
    asking.at(FETCH_TIMEOUT_S)
    assert asking.found is Found.UNKNOWN


def test_a_holder_that_cannot_be_asked_leaves_it_unknown():
    """It may have a session that the other one has lost a push of."""
    asking = Asking(linked=(BOB,))
    assert asking.hears(BOB, NO) == []
    assert asking.found is None
    asking.at(FETCH_TIMEOUT_S)
    assert asking.found is Found.UNKNOWN


@pytest.mark.parametrize(("complete", "found"), [(True, Found.ABSENT), (False, None)], ids=["met all", "not synced"])
def test_where_no_holder_can_tell_every_node_has_to_say_no(complete, found):
    """While a new holder fills up, ids that no session has would all be unknown. Only where this node has met
    everybody: else somebody may hold the session whom it does not know."""
    asking = Asking((BOB,), others=(DAVE, ERIN), complete=complete)
    asking.hears(BOB, JOINING)
    asking.hears(DAVE, JOINING)
    assert asking.found is None
    asking.hears(ERIN, NO)
    assert asking.found is found


def test_one_of_the_others_that_holds_it_is_believed():
    """Its record is on the way; nobody's no counts against it."""
    asking = Asking((BOB,), others=(DAVE, ERIN), complete=True)
    asking.hears(BOB, JOINING)
    asking.hears(DAVE, YES)
    asking.hears(ERIN, NO)
    assert asking.found is None
    asking.gets(LIVE)
    assert asking.found is Found.FRESH


def test_one_of_the_others_confirms_no_copy():
    """Its own may be as old: only who gets every write can tell."""
    asking = Asking((BOB,), others=(DAVE,), here=HERE, dots=((CAROL, stamp(9)),))
    asking.hears(BOB, JOINING)
    asking.hears(DAVE, YES)
    assert asking.validated == []


def test_held_elsewhere_and_not_come_is_never_absent():
    """The record may be behind other deltas of a full link."""
    asking = Asking()
    assert asking.hears(BOB, YES) == [CAROL], "or it was lost on the way"
    asking.hears(CAROL, NO)
    assert asking.found is None
    asking.loses(BOB)
    assert asking.found is None
    asking.at(FETCH_TIMEOUT_S)
    assert asking.found is Found.UNKNOWN


def test_a_holder_of_what_is_over_here_holds_nothing():
    """It looks for what is over once a second, or its clock lags. The next one may know of a later use."""
    asking = Asking()
    asking.fetches.refused(BOB, LIVE)
    assert asking.hears(BOB, YES) == [CAROL]
    asking.hears(CAROL, NO)
    assert asking.found is Found.ABSENT
    asking = Asking()
    asking.fetches.refused(BOB, LIVE)
    asking.hears(BOB, YES)
    asking.hears(CAROL, YES)
    assert asking.found is None, "what is in use there is on the way"
    asking.gets(LIVE)
    assert asking.found is Found.FRESH


def test_when_all_have_answered_what_is_here_is_the_best_there_is():
    """Stale, and said so, long before the timeout."""
    asking = Asking(here=HERE, dots=((CAROL, stamp(9)),))
    assert asking.hears(CAROL, YES) == [BOB]
    asking.hears(BOB, NO)
    assert asking.found is Found.STALE


@pytest.mark.parametrize(("here", "found"), [(HERE, Found.STALE), (NOBODY, Found.UNKNOWN)], ids=["held", "not held"])
def test_no_wait_passes_its_bound(here, found):
    """Whatever is still asked, linked or owed by then: a request waits no longer."""
    asking = Asking((BOB, CAROL), (DAVE,), (ERIN,), dots=((DAVE, stamp(9)),), here=here)
    for step in range(1, 10):
        asking.at(step * HEDGE_S)
    assert asking.found is None
    assert asking.fetches.next_deadline() == FETCH_TIMEOUT_S
    assert asking.at(FETCH_TIMEOUT_S) == []
    assert asking.found is found
    assert asking.fetches.next_deadline() is None


def test_a_holder_that_is_no_more_is_not_waited_for():
    """The others' answers are all there will be; and the next one's turn comes at once."""
    asking = Asking((BOB, CAROL, DAVE))
    assert asking.loses(DAVE) == [], "its turn had not come"
    assert asking.loses(BOB) == [CAROL]
    asking.hears(CAROL, NO)
    assert asking.found is Found.ABSENT
    candidates = Candidates((BOB, CAROL))
    again = asking.fetches.start(SID, (), print, candidates, NOBODY, 1.0)
    assert isinstance(again, Step)
    assert [node for node, _ in again.asks] == [CAROL], "its link is no more, too, until another comes up"


def test_alone_the_answer_depends_on_whether_the_others_were_ever_met():
    """In its first seconds a node knows nothing; later it knows everything there is."""
    assert Asking((), complete=True).found is Found.ABSENT
    assert Asking((), complete=True, doubtful=True).found is Found.UNKNOWN
    assert Asking(()).found is Found.UNKNOWN
    assert Asking((), here=HERE, dots=((CAROL, stamp(9)),)).found is Found.STALE


def test_doubt_makes_nobodys_no_an_absence():
    """Somebody who cannot be asked, as a writer that died, may hold it."""
    asking = Asking((BOB,), doubtful=True)
    asking.hears(BOB, NO)
    assert asking.found is Found.UNKNOWN


def test_waiting_requests_are_bounded(monkeypatch):
    """Anybody can send ids that nobody made."""
    monkeypatch.setattr(fetch, "FETCHES_MAX", 1)
    fetches = Asking().fetches
    assert fetches.start(SID, (), print, Candidates((BOB,)), NOBODY, 0.0) is Found.UNKNOWN
    assert fetches.start(SID, ((CAROL, stamp(9)),), print, Candidates((BOB,)), HERE, 0.0) is Found.STALE


@pytest.mark.parametrize(
    ("dots", "died", "complete", "found"),
    [
        (((BOB, stamp(9)),), True, True, Found.UNKNOWN),  # it may have told its write to nobody who is left
        (((BOB, stamp(9)),), False, True, Found.ABSENT),  # it left, and handed over what it had
        (((ALICE, stamp(9)),), True, True, Found.ABSENT),
        ((), True, False, Found.UNKNOWN),  # this node has met nobody else: what others hold it cannot tell
    ],
    ids=["writer died", "writer left", "another died", "not synced"],
)
def test_what_the_last_holders_end_says_depends_on_what_it_may_have_taken_along(dots, died, complete, found):
    """Absent ends a login; with the only node that may have held it gone, nobody can say so."""
    asking = Asking((BOB,), dots=dots, complete=complete)
    asking.loses(BOB, died=died)
    assert asking.found is found


@pytest.mark.parametrize(
    ("said", "died", "asked"),
    [(None, True, [DAVE]), (JOINING, True, [DAVE]), (NO, True, []), (None, False, [])],
    ids=["silent", "filling up", "said no", "left"],
)
def test_where_a_holder_dies_before_it_said_no_the_other_holders_no_is_not_enough(said, died, asked):
    """The writer, who has a copy, may have reached that one only; and in the layout that follows be a holder itself."""
    asking = Asking((BOB, CAROL), others=(DAVE,), complete=True)
    assert asking.asked == [BOB]
    if said is not None:
        asking.hears(BOB, said)
    asking.loses(BOB, died=died)
    assert asking.hears(CAROL, NO) == asked
    if asked:
        assert asking.found is None
        asking.hears(DAVE, NO)
    assert asking.found is Found.ABSENT


# --- a copy that is to be confirmed -----------------------------------------------------------------------


def test_a_copy_is_confirmed_by_the_first_holder_that_holds_the_session_too():
    """What that one had more came before its answer: the wait must not end before it is known."""
    asking = Asking(here=dict(HERE), dots=((BOB, stamp(0)),), validate=True)
    assert asking.asked == [BOB]
    asking.gets(AHEAD)
    assert asking.found is None
    asking.hears(BOB, YES)
    assert asking.found is Found.FRESH
    assert asking.validated == [SID]


def test_the_end_of_a_session_ends_the_wait_for_its_copys_confirmation():
    """Nothing that a holder could say would change it."""
    asking = Asking(here=dict(HERE), validate=True)
    asking.gets(dead_record(SID, stamp(5)))
    assert asking.found is Found.FRESH


@pytest.mark.parametrize("says", [NO, JOINING], ids=["no", "joining"])
@pytest.mark.parametrize("dots", [(), ((BOB, stamp(0)),)], ids=["no token", "token"])
def test_a_copy_that_no_holder_has_is_stale(dots, says):
    """Also with a token, whose writes are in it: whether somebody ended the session since, it does not tell. Nobody
    else is asked: a copy elsewhere could confirm nothing."""
    asking = Asking(origins=(DAVE,), others=(ERIN,), here=HERE, dots=dots, validate=True)
    assert asking.hears(BOB, says) == [CAROL]
    assert asking.hears(CAROL, says) == []
    assert asking.found is Found.STALE
    assert asking.validated == []


def test_a_copy_that_nobody_confirms_in_time_is_stale():
    """It is served all the same: an outage of its holders must not end requests."""
    asking = Asking(here=HERE, validate=True)
    assert asking.at(HEDGE_S) == [CAROL]
    asking.at(FETCH_TIMEOUT_S)
    assert asking.found is Found.STALE


@pytest.mark.parametrize("writer_says", [NO, None], ids=["no", "nothing"])
@pytest.mark.parametrize("validate", [True, False], ids=["to be confirmed", "behind"])
def test_a_copy_that_ends_while_others_are_asked_is_asked_for_as_if_it_had_not_been_here(validate, writer_says):
    """Only holders were asked for it, and not those who wrote what its token names; and who holds the same as was here
    has sent nothing. A visitor who comes at the end of a session must see the login page, and no error."""
    dots = ((DAVE, stamp(0)), *(() if validate else ((CAROL, stamp(9)),)))
    asking = Asking((BOB,), others=(DAVE,), here={SID: AHEAD if validate else LIVE}, dots=dots, validate=validate)
    del asking.here[SID]
    assert asking.hears(BOB, YES) == [BOB], "once more: it has sent nothing that was here"
    assert asking.pulls[-1] == Pull(1, (Gap(SID, {}, 0),))
    assert asking.hears(BOB, NO) == [DAVE]
    assert asking.found is None
    if writer_says is not None:
        asking.hears(DAVE, writer_says)
        assert asking.found is Found.ABSENT
    else:
        asking.at(FETCH_TIMEOUT_S)
        assert asking.found is Found.UNKNOWN


def test_a_copy_that_has_ended_here_and_is_in_use_elsewhere_is_found():
    """A later use of which this node had not heard comes with the record."""
    asking = Asking((BOB,), here=dict(HERE), validate=True)
    del asking.here[SID]
    asking.hears(BOB, YES)
    asking.gets(LIVE)
    assert asking.found is Found.FRESH


def test_a_holder_that_answers_a_read_has_confirmed_the_copy_it_left():
    """Else the next read would ask again at once."""
    asking = Asking(here=dict(HERE), dots=((DAVE, stamp(9)),))
    asking.hears(BOB, NO)
    assert asking.validated == []
    asking.hears(CAROL, YES)
    assert asking.validated == [SID]


# --- whole nodes ------------------------------------------------------------------------------------------


def waiting_node() -> tuple[Clocked, list]:
    """A node with a peer, and a request that waits for a session it does not hold; its outcomes go to the list."""
    here, outcomes = Clocked().linked(BOB), []
    here.node.submit(Watch(on=True))
    assert here.node.submit(Fetch(SID, (), outcomes.append)) is None
    return here, outcomes


def test_a_read_asks_one_of_its_peers_and_the_next_when_that_ones_link_breaks():
    """What the machine sends is what was counted above; a killed holder delays a read by no hedge."""
    here = Clocked().linked(BOB).linked(CAROL, 2)
    here.says()
    here.node.submit(Fetch(SID, (), print))
    asked = [effect for effect in here.does() if isinstance(effect, Send) and isinstance(effect.message, Pull)]
    assert [effect.link for effect in asked] == [1]
    here.node.submit(LinkClosed(1))
    asked = [effect for effect in here.does() if isinstance(effect, Send) and isinstance(effect.message, Pull)]
    assert [effect.link for effect in asked] == [2]


def test_a_delta_whose_base_is_not_held_ends_no_wait():
    """A push of somebody's next change comes in while the request waits for the session itself: taken for the
    session, it would be called absent, and the login lost."""
    here, outcomes = waiting_node()
    after = LIVE.written([("a", b"1")], stamp(1), BOB)
    here.hears(Push(1, (changes_since(after, LIVE),)))
    said = here.does()
    assert outcomes == []
    assert not [effect for effect in said if type(effect).__name__ == "Notify"]
    here.hears(Push(2, (not_covered(after, {}),)))
    here.does()
    assert outcomes == [Found.FRESH]


def test_a_session_that_has_expired_on_the_way_ends_no_wait_and_is_told_to_nobody():
    """It is not held afterwards, so it is neither found nor created."""
    here, outcomes = waiting_node()
    here.now_s += 3600
    here.hears(Push(1, (not_covered(LIVE, {}),)))
    said = here.does()
    assert SID not in here.node.records
    assert outcomes == []
    assert not [effect for effect in said if type(effect).__name__ == "Notify"]
    here.node.submit(Tick())
    here.does()
    assert outcomes == [Found.UNKNOWN]


def test_a_tombstone_ends_a_wait():
    """The session is no more: that is an answer, and a sure one."""
    here, outcomes = waiting_node()
    there = Clocked(BOB)
    there.replica.sessions.table.kill(SID, stamp(0), 0.0)
    here.hears(Push(1, (not_covered(there.node.records[SID], {}),)))
    here.does()
    assert outcomes == [Found.FRESH]
    assert here.node.records[SID].tombstone == stamp(0)


def test_a_pull_is_answered_after_the_records_it_asked_for():
    """The verdict must not come before what it speaks of."""
    here = Clocked().alone().linked(BOB)
    here.replica.sessions.table.records[SID] = record((stamp(0), ALICE, registers()))
    here.says()
    here.hears(Pull(7, (Gap(SID, {}, 0),)))
    push, verdict = here.says()
    assert isinstance(push, Push)
    assert [delta.sid for delta in push.deltas] == [SID]
    assert verdict == PullAnswer(7, held=True, synced=True)
    here.hears(Pull(8, (Gap(CAROL * 2, {}, 0),)))
    assert here.says() == [PullAnswer(8, held=False, synced=True)]


def test_a_token_that_names_a_write_of_a_dead_node_leaves_it_unknown():
    """Out of reach is not dead: it may be back with the session in a moment."""
    here = Clocked().alone().linked(BOB).loses()
    assert here.node.submit(Fetch(SID, ((BOB, stamp(0)),), print)) is Found.UNKNOWN
    assert here.node.submit(Fetch(SID, ((CAROL, stamp(-1)),), print)) is Found.ABSENT
    here.node.submit(LinkOpened(2, BOB, None))
    here.hears(Hello(member(BOB)._replace(incarnation=1), 0, ()), 2)
    here.hears(Bye(), 2)
    assert here.node.submit(Fetch(SID, ((BOB, stamp(0)),), print)) is Found.ABSENT, "it came back, and left in order"


def test_a_request_that_waits_for_a_node_without_a_link_wakes_the_driver():
    """Nothing is sent, so nothing else would: its bound would pass unnoticed until the next probe."""
    here, rings = Clocked().linked(BOB), []
    here.node.submit(LinkClosed(1))
    here.does()
    here.node.driven_by(lambda: rings.append(None))
    assert here.node.submit(Fetch(SID, (), print)) is None
    assert rings


def test_a_pulls_verdict_comes_after_its_record_however_much_is_owed_before_it(monkeypatch):
    """Before it, the verdict says that no more will come: a read would miss a write that is on its way."""
    monkeypatch.setattr(replication, "PUSH_BYTES", 1)
    here = Clocked().alone().linked(BOB)
    here.says()
    sids = [bytes([number]) * 16 for number in range(5)]
    for sid in sids:
        here.node.submit(Write(sid, tuple(registers().items()), 0, print))
    here.hears(Pull(7, (Gap(sids[-1], {}, 0),)))
    *pushes, verdict = here.says()
    assert [delta.sid for push in pushes for delta in push.deltas] == sids
    assert verdict == PullAnswer(7, held=True, synced=True)


@pytest.mark.parametrize(("written_ms", "found"), [(-1, Found.ABSENT), (0, Found.UNKNOWN)])
def test_a_writer_of_which_nobody_has_heard_is_doubted_if_it_wrote_in_this_clusters_time(written_ms, found):
    """Two clusters that have not met yet: a login at the other one must not be taken for gone, and its cookie be
    replaced. Of a cluster that is no more nobody can know: there the user logs in again, and waits for nobody."""
    here = Clocked().alone().linked(BOB)
    outcomes: list[object] = []
    here.node.submit(Fetch(SID, ((CAROL, stamp(written_ms)),), outcomes.append))
    here.hears(PullAnswer(1, held=False, synced=True))
    here.waits(FETCH_TIMEOUT_S + 0.1)
    here.node.submit(Tick())
    here.says()
    assert outcomes == [found]


def test_a_peer_that_collapses_by_what_it_asks_for_is_given_no_answer(monkeypatch):
    """Its record is given up with all else that was owed; the answer alone would confirm what may have ended."""
    here = Clocked().alone().linked(BOB)
    for sid in (SID, CAROL * 2):
        here.node.submit(Write(sid, tuple(registers().items()), 0, print))
        here.replica.sessions.peers[BOB].outbound.forget(sid)
    here.says()
    monkeypatch.setattr(replication, "DIRTY_MAX", 0)
    monkeypatch.setattr(replication, "ASKED_MAX", 1)
    monkeypatch.setattr(replication, "IN_FLIGHT_BYTES_MAX", 0)
    here.hears(Pull(7, (Gap(SID, {}, 0),)))
    here.hears(Pull(8, (Gap(CAROL * 2, {}, 0),)))
    assert here.replica.sessions.peers[BOB].outbound.collapsed
    assert not [one for one in here.says() if isinstance(one, PullAnswer)]


@pytest.mark.parametrize(("written_ms", "found"), [(500, Found.UNKNOWN), (1500, Found.ABSENT)])
def test_what_was_written_before_a_member_died_is_doubted_though_its_writer_lives(written_ms, found):
    """A partition: both copies of a login may be on the other side, and its writer on this one. Taken for gone, it
    would be replaced by the application's next write, and stay so when the sides meet. Tokens end after ten minutes."""
    here = Clocked().alone().linked(BOB).linked(CAROL, link=2)
    here.waits(1.0)
    here.loses(2)
    here.waits(1.0)
    here.says()
    outcomes: list[object] = []
    here.node.submit(Fetch(SID, ((BOB, stamp(written_ms)),), outcomes.append))
    asked = [message.request for message in here.says() if isinstance(message, Pull)]
    assert asked
    for request in asked:
        here.hears(PullAnswer(request, held=False, synced=True))
    here.waits(FETCH_TIMEOUT_S + 0.1)
    here.says()
    assert outcomes == [found]


def test_what_lacks_the_tokens_write_and_is_over_says_nothing_of_what_its_sender_holds():
    """It was on its way when the client wrote. The write comes as a delta over a copy that has ended here, is asked for
    in whole, and until then only the answer says that the session lives."""
    asking = Asking((BOB,), dots=((CAROL, stamp(9)),), here=dict(HERE))
    del asking.here[SID]  # it ends while the answer is on its way
    asking.fetches.refused(BOB, LIVE)
    asking.hears(BOB, YES)
    assert asking.found is None
    asking.gets(AHEAD)
    assert asking.found is Found.FRESH
