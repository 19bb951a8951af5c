"""Bugs planted in who is there, and over which link. See mutants.py."""

from collections.abc import Callable
from typing import Any

import pytest

from gossipsess.protocol import suspicion
from gossipsess.protocol.graveyard import Graveyard
from gossipsess.protocol.links import Links
from gossipsess.protocol.membership import Membership
from gossipsess.protocol.replica import Replica
from gossipsess.protocol.swim import Swim
from gossipsess.protocol.views import Views
from gossipsess.sim import process
from gossipsess.sim.process import node_id

Plant = Callable[[pytest.MonkeyPatch], None]


def node_ids_are_reused(patch: pytest.MonkeyPatch) -> None:
    """A restart in place takes its old id again, having forgotten what others know it wrote."""
    patch.setattr(process, "node_id", lambda seed, slot, generation: node_id(seed, slot, 0))


def sleepers_judge(patch: pytest.MonkeyPatch) -> None:
    """A process that stood still holds the others responsible for the answers it did not hear."""
    patch.setattr(Swim, "_paused", lambda self, late_s, now_s: None)


def hearsay_kills(patch: pytest.MonkeyPatch) -> None:
    """A death in a peer's list is a death here, however old the list is."""

    def heard_members(self: Swim, members: Any, now_s: float) -> Any:
        return self._merge_all([told.member for told in members], now_s)

    patch.setattr(Swim, "heard_members", heard_members)


def the_dead_rest(patch: pytest.MonkeyPatch) -> None:
    """Nobody asks the dead again: what a partition has made of one cluster stays two."""
    patch.setattr(Graveyard, "due", lambda self, ended, taken, now_s: [])
    patch.setattr(Graveyard, "next_deadline", lambda self: None)


def views_are_not_compared(patch: pytest.MonkeyPatch) -> None:
    """Two nodes tell each other whom they know when they meet, and never again."""
    patch.setattr(Views, "heard", lambda self, peer, theirs, mine, now_s: False)
    patch.setattr(Views, "exchange", lambda self, peer, now_s: False)


def nobody_need_confirm(patch: pytest.MonkeyPatch) -> None:
    """One node's suspicion is as good as that of two."""
    patch.setattr(suspicion, "CONFIRMATIONS_WANTED", 0)


def a_set_decides(patch: pytest.MonkeyPatch) -> None:
    """The order of the members is that of a set. No seed shows it: another hash seed does."""
    real = Membership.live
    patch.setattr(Membership, "live", lambda self: tuple(set(real(self))))


def byes_are_dropped(patch: pytest.MonkeyPatch) -> None:
    """A node that leaves is not heard, and is looked for until it is declared dead."""
    patch.setattr(Replica, "_said_bye", lambda self, node, incarnation, now_s: None)


def each_side_keeps_the_link_it_dialed(patch: pytest.MonkeyPatch) -> None:
    """Of two links that come up at once both sides close the other's, and so both are gone."""
    patch.setattr(Links, "_dialed_by_smaller", lambda self, link: link.dialed is not None)


PLANTS: tuple[Plant, ...] = (
    node_ids_are_reused,
    sleepers_judge,
    hearsay_kills,
    the_dead_rest,
    views_are_not_compared,
    nobody_need_confirm,
    a_set_decides,
    byes_are_dropped,
    each_side_keeps_the_link_it_dialed,
)
