# Gains: which partitions this node is to hold and may not hold in whole yet, and from whom to pull them next.
#
# In:    layouts, members and links that come and go, what a sync has shown.
# Out:   `unsynced`; `next_pull`: a member to sync with, and the scope. The caller starts the sync (sync.py) at once.
# Rule:  a partition is synced when every live member has shown all it holds of it since it was gained. Holders alone
#        are not enough: who has lost a partition, or was written to by somebody with another view, holds the newest.
#        Nor is one who has everything: nobody can tell who that is while others gain as well.
# One donor at a time, and all that is missing from each: the first one that holds a partition sends it, of the next
# the sums are equal then. Two at a time would send the same twice.
# Who dies before it has shown all may have passed some of it on to others, after these had been asked: they show it
# again, which costs sums where nothing came.
# What counts is what was asked for here. A sync that was begun for another reason, or before a partition was lost and
# gained again, may have passed it by long ago.
# Start: a node that meets only others as new as itself must not call what they hold everything. Until somebody has
# shown its part who is past its own start, or the caller has waited long enough, nothing is synced.
# Not here: how a sync asks, and its pace (sync.py); who holds what (placement.py).

from collections.abc import Iterable
from typing import Final, NamedTuple, Protocol

from gossipsess.model.digest import USERS_SCOPE
from gossipsess.model.identity import NodeId

GRACE_S: Final = 5.0
"""How long a partition that was gained because its holder died or leaves is not pulled in bulk: the holder may come
back in place, or hands over by itself. Shorter: a restart moves its sessions twice; longer: one copy for longer."""
TELLING: Final = 0.05
"""The part that must have come before it tells how long the rest will take."""
STALL_S: Final = 3.0
"""A donor of which nothing has come for this long does not keep the next one waiting. It is three questions long."""


class Holdings(Protocol):
    """What gains need of a layout (placement.py); it never changes."""

    def partitions_of(self, node: NodeId) -> int:
        """Return what a node holds, as a scope: bit p stands for partition p."""


class Progress(NamedTuple):
    """How far this node is with what it has gained since everything was synced last."""

    partitions: int
    """How many are not synced."""
    of: int
    since_s: float
    """When the first of them was gained."""
    eta_s: float | None
    """In how many seconds the data will have come, if it goes on as so far; None while hardly anything has."""
    come: int
    """Of how many a holder has shown everything; what others may have beyond that is looked for at last."""


class _Donor:
    """A live member as a source of what is missing."""

    __slots__ = ("asked", "heard_s", "met", "share", "stalls", "unshown")

    def __init__(self, unshown: int) -> None:
        self.unshown = unshown
        """Partitions of which it has not shown all since they were gained."""
        self.asked = 0
        """Those it was asked for over the present link; part of `unshown`."""
        self.met = False
        """There was a link to it."""
        self.stalls = False
        self.heard_s = 0.0
        self.share = 0.0


class Gains:
    """The account of one node. Each event is followed by `next_pull`, and so is each deadline."""

    def __init__(self, myself: NodeId, holdings: Holdings, now_s: float) -> None:
        """Begin with nothing: all that is to be held is unsynced, and pulled without grace."""
        self.held = holdings.partitions_of(myself)
        """What this node is to hold."""
        self.unsynced = self.held
        """What of it may not be here in whole. A "not held" about these partitions says nothing."""
        self.started = False
        """All that those who could be met have shown was here once. From then on others wait for this node."""
        self._myself = myself
        self._holdings = holdings
        self._donors: dict[NodeId, _Donor] = {}
        self._patient = True
        self._met_started = False
        self._grace: list[tuple[float, int]] = []  # (until when, partitions), each partition once
        self._moving = self.held  # gained since everything was synced last
        self._come = 0  # of these, those that one of their holders has shown
        self._since_s = now_s

    # --- what happens -------------------------------------------------------------------------------------

    def layout_changed(self, holdings: Holdings, now_s: float, *, grace: bool) -> None:
        """Take over another layout. `grace`: it is another one because a member died or leaves."""
        self._holdings = holdings
        held = holdings.partitions_of(self._myself)
        gained = held & ~self.held
        self.unsynced |= gained  # first: other threads read both
        self.held = held
        for donor in self._donors.values():
            donor.unshown = donor.unshown & held | gained
            donor.asked &= held
        self._grace = [(until_s, scope & held) for until_s, scope in self._grace if scope & held]
        if grace and gained and self.started:
            self._grace.append((now_s + GRACE_S, gained))
        if not self._moving:
            self._since_s = now_s
        self._moving = self._moving & held | gained
        self._come &= held
        self._look()

    def peer_live(self, node: NodeId, *, again: bool = False) -> None:
        """A member is live; what is not synced by now, it must show too.

        `again`: it was taken for dead before, and may hold sessions that began where it was. All of them it must show.
        """
        if node not in self._donors:
            self._donors[node] = _Donor(self.held if again else self.unsynced)
            self._look()

    def peer_gone(self, node: NodeId) -> None:
        """A member died or left."""
        gone = self._donors.pop(node, None)
        if gone is not None:
            for donor in self._donors.values():
                donor.unshown |= gone.unshown
                donor.asked &= ~gone.unshown
            self._look()

    def link_up(self, node: NodeId) -> None:
        """A link is in use; what was asked over an earlier one is asked again."""
        donor = self._donors[node]
        donor.met = True
        donor.asked = 0
        self._look()

    def link_down(self, node: NodeId) -> None:
        """The link is lost."""
        donor = self._donors.get(node)
        if donor is not None:
            donor.asked = 0

    def advanced(self, node: NodeId, share: float, now_s: float) -> None:
        """Something came of what a member was asked for; `share` of it has been compared, 0 .. 1."""
        donor = self._donors.get(node)
        if donor is not None and donor.asked:
            donor.heard_s, donor.share, donor.stalls = now_s, share, False

    def shown(self, node: NodeId, scope: int, *, started: bool) -> None:
        """A sync has ended, and a member has shown what it holds of a scope. `started`: it is past its own start."""
        donor = self._donors.get(node)
        scope &= donor.asked if donor is not None else 0
        if donor is None or not scope:
            return
        donor.unshown &= ~scope
        donor.asked &= ~scope
        self._met_started = self._met_started or started
        self._come |= scope & self._holdings.partitions_of(node)
        self._look()

    def unshown(self, node: NodeId) -> int:
        """Return the partitions of which a live member has not shown yet what it holds."""
        donor = self._donors.get(node)
        return donor.unshown if donor is not None else 0

    def waited_long_enough(self) -> None:
        """Nobody who is past its start was met for as long as one waits: what can be had now is everything."""
        self._patient = False
        self._look()

    # --- what to do ---------------------------------------------------------------------------------------

    def next_pull(self, linked: Iterable[NodeId], now_s: float) -> tuple[NodeId, int] | None:
        """Return whom to sync with now, and the scope; None: nobody, or a donor is at it.

        Of the linked members that have something to show, it is the one that holds most of it; of equals the first.
        """
        self._grace = [(until_s, scope) for until_s, scope in self._grace if until_s > now_s]
        due = self.held
        for _, scope in self._grace:
            due &= ~scope
        best, best_count = None, -1
        for donor in self._donors.values():
            donor.stalls = now_s >= donor.heard_s + STALL_S  # of all: the next deadline goes by it
        if any(donor.asked and not donor.stalls for donor in self._donors.values()):
            return None
        for node in linked:
            donor = self._donors[node]
            scope = donor.unshown & ~donor.asked & due
            count = (scope & self._holdings.partitions_of(node)).bit_count()
            if scope and count > best_count:
                best, best_count = (node, scope), count
        if best is not None:
            donor = self._donors[best[0]]
            donor.asked |= best[1]
            donor.heard_s, donor.share, donor.stalls = now_s, 0.0, False
        return best

    def next_deadline(self) -> float | None:
        """Return when `next_pull` may have another answer though nothing has happened."""
        stalls = [donor.heard_s + STALL_S for donor in self._donors.values() if donor.asked and not donor.stalls]
        return min([*stalls, *[until_s for until_s, _ in self._grace]], default=None)

    def progress(self, now_s: float) -> Progress | None:
        """Return how far it is with the sessions; None when everything is synced.

        The revocations of users do not count: they are few, and compared at once.
        """
        unsynced, moving = self.unsynced & ~USERS_SCOPE, self._moving & ~USERS_SCOPE
        if not unsynced:
            return None
        come = moving & (self._come | ~unsynced)
        done = float(come.bit_count())
        for node, donor in self._donors.items():
            done += donor.share * (donor.asked & moving & ~come & self._holdings.partitions_of(node)).bit_count()
        of = moving.bit_count()
        eta_s = (now_s - self._since_s) * max(of / done - 1, 0.0) if done and done >= of * TELLING else None
        return Progress(unsynced.bit_count(), of, self._since_s, eta_s, come.bit_count())

    # --- inside -------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Work out anew what is synced."""
        if self._patient and not self._met_started:
            self.unsynced = self.held
            return
        unsynced = of_met = 0
        for node, donor in self._donors.items():
            missing = donor.unshown & ~self._excused(node, donor)
            unsynced |= missing
            of_met |= missing if donor.met or self._patient else 0
        self.unsynced = unsynced
        if not of_met:  # to wait for one that cannot be met would be for ever
            self.started = True
            self._patient = False
        if not unsynced:
            self._moving = self._come = 0

    def _excused(self, node: NodeId, donor: _Donor) -> int:
        """Return what a member need not show: it cannot be linked, and its "not held" is asked for by each fetch.

        That holds for holders only. Nobody asks another one for surplus copies, so it must be linked or die first.
        """
        return 0 if donor.met or self._patient else self._holdings.partitions_of(node)
