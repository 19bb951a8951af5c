"""Bugs planted in copies that a node need not hold: how they are offered, and when they go. See mutants.py."""

from collections.abc import Callable, Iterable
from math import inf
from typing import Any

import pytest

from gossipsess.model.identity import NodeId, Sid
from gossipsess.model.table import Table
from gossipsess.protocol import surplus
from gossipsess.protocol.antientropy import AntiEntropy
from gossipsess.protocol.offers import Offers
from gossipsess.protocol.reads import Reads
from gossipsess.protocol.sessions import SessionProtocol
from gossipsess.protocol.surplus import Surplus
from gossipsess.wire.messages import Held

Plant = Callable[[pytest.MonkeyPatch], None]


def one_answer_lets_a_copy_go(patch: pytest.MonkeyPatch) -> None:
    """A copy goes when the first of its holders has it, and not when all do."""
    real = Surplus._checked

    def checked(self: Surplus, node: NodeId, check: Any, *args: Any) -> tuple[Sid, ...]:
        check.waiting.clear()
        return real(self, node, check, *args)

    patch.setattr(Surplus, "_checked", checked)


def anybody_lets_a_copy_go(patch: pytest.MonkeyPatch) -> None:
    """The word of a node that is no holder by its own layout, and gives its copy up as well, is good enough."""
    real = Surplus._checked

    def checked(self: Surplus, node: NodeId, check: Any, message: Held, *args: Any) -> tuple[Sid, ...]:
        return real(self, node, check, message._replace(holder=True), *args)

    patch.setattr(Surplus, "_checked", checked)


def copies_go_without_quiet(patch: pytest.MonkeyPatch) -> None:
    """A copy goes as soon as its holders have it, though they may see another layout in the next moment."""
    real = Surplus.layout_changed

    def layout_changed(self: Surplus, before: Any, after: Any, table: Table, now_s: float, **how: bool) -> None:
        real(self, before, after, table, now_s, **how)
        self._check_at_s, self._changed_at_s = now_s, -inf

    patch.setattr(Surplus, "layout_changed", layout_changed)


def copies_in_use_go(patch: pytest.MonkeyPatch) -> None:
    """A copy goes though a request has just read or written it."""
    patch.setattr(Surplus, "_is_idle", lambda self, sid, now_s: True)


def old_answers_let_a_copy_go(patch: pytest.MonkeyPatch) -> None:
    """What a holder has said once is true for ever, also over a link that is gone."""
    real_init, real_lost = surplus._Check.__init__, Surplus.link_down

    def init(self: Any, *args: Any) -> None:
        real_init(self, *args)
        self.until_s = inf

    def link_down(self: Surplus, node: NodeId, now_s: float) -> None:
        check = self._check
        real_lost(self, node, now_s)
        self._check = check

    patch.setattr(surplus._Check, "__init__", init)
    patch.setattr(Surplus, "link_down", link_down)


def changed_copies_go(patch: pytest.MonkeyPatch) -> None:
    """What its holders have is the state that was asked about, and what goes is the one there is by then."""

    def may_go(self: Surplus, sid: Sid, state: int, table: Table, now_s: float) -> bool:
        return sid in table.records and self._is_idle(sid, now_s)

    patch.setattr(Surplus, "_may_go", may_go)


def lacking_copies_go(patch: pytest.MonkeyPatch) -> None:
    """An answer is a yes, whatever it says is lacking."""
    real = Surplus._checked

    def checked(self: Surplus, node: NodeId, check: Any, message: Held, *args: Any) -> tuple[Sid, ...]:
        return real(self, node, check, message._replace(lacking=()), *args)

    patch.setattr(Surplus, "_checked", checked)


def nothing_is_secured(patch: pytest.MonkeyPatch) -> None:
    """What a node holds no longer it offers to nobody."""

    def offer_all(self: Offers, partition: int, due_s: float) -> None:
        pass

    patch.setattr(Offers, "offer_all", offer_all)


def pushed_copies_are_not_offered(patch: pytest.MonkeyPatch) -> None:
    """What comes from a node with another view stays where it came, and its holders do not hear of it."""

    def offer(self: Offers, partition: int, sids: Iterable[Sid], due_s: float) -> None:
        pass

    patch.setattr(Offers, "offer", offer)


def who_leaves_hands_nothing_over(patch: pytest.MonkeyPatch) -> None:
    """A node that drains goes at once, with what it alone holds."""
    patch.setattr(SessionProtocol, "securing", property(lambda self: 0))


def the_ends_of_the_dead_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    """A tombstone that a node told to some before it died comes to the holders from nobody."""
    real = AntiEntropy.peer_lost

    def peer_lost(self: AntiEntropy, node: NodeId, now_s: float) -> None:
        self._heard_end_from.clear()
        real(self, node, now_s)

    patch.setattr(AntiEntropy, "peer_lost", peer_lost)


def copies_are_served_unasked(patch: pytest.MonkeyPatch) -> None:
    """A copy that was fetched once is served for ever, whatever its holders have by then."""

    def is_current(self: Reads, sid: Sid, *, tokened: bool, now_s: float) -> bool:
        return True

    patch.setattr(Reads, "is_current", is_current)


PLANTS: tuple[Plant, ...] = (
    one_answer_lets_a_copy_go,
    anybody_lets_a_copy_go,
    copies_go_without_quiet,
    copies_in_use_go,
    old_answers_let_a_copy_go,
    changed_copies_go,
    lacking_copies_go,
    nothing_is_secured,
    pushed_copies_are_not_offered,
    who_leaves_hands_nothing_over,
    the_ends_of_the_dead_are_forgotten,
    copies_are_served_unasked,
)
