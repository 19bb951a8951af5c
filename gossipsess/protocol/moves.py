# Moves: what the log says of where sessions live, and of how they move when that changes.
#
# In:    what one look at the node sees, members that come and go.
# Out:   `Inform` and `Warn`, some of a second later than what they tell.
# Looked at is twice a second, at ticks that come anyway. What is over by then is one line instead of three, and what
# has come and gone again is none: however many nodes restart at once, there is a line of each kind a second at most.
# Why a look and not a word from each part: gains, offers and placement need not know that there is a log.
# Not here: how they move (gains.py, surplus.py); that members come and go, which the driver logs by itself.

import math
from typing import Final, NamedTuple

from gossipsess.model.digest import USERS_SCOPE
from gossipsess.model.member import Member, MemberState
from gossipsess.model.rules import Rules
from gossipsess.protocol.effects import Effect, Inform, Warn
from gossipsess.protocol.gains import Progress
from gossipsess.protocol.placement import Layout

LOOK_EVERY_S: Final = 0.5
SAME_KIND_S: Final = 1.0
"""Between two lines of one kind: a layout that changes with every restart of many must not flood the log."""
GAINING_EVERY_S: Final = 5.0
LEAVING_EVERY_S: Final = 2.0
NEWS_MAX: Final = 64
"""Members remembered between two looks as reasons; more come in a crash loop only."""
NAMED_MAX: Final = 4
MB: Final = 1_000_000


class Seen(NamedTuple):
    """What one look sees of a node."""

    layout: Layout
    counted: int
    """Names or hosts, by which the mode goes: `Placement.counted`."""
    held: int
    """The partitions that this node is to hold, as bits."""
    progress: Progress | None
    """How far it is with those it has gained; None: everything is here."""
    pulled_bytes: int
    securing: int
    """Partitions with sessions that their holders are not known to hold."""


class _Gain:
    """Partitions gained, from the line that begins it to the one that ends it."""

    def __init__(self, since_s: float, pulled_bytes: int, now_s: float) -> None:
        self.partitions = 0
        self.since_s = since_s
        self.pulled_bytes = pulled_bytes  # before it began
        self.tell_at_s = now_s + GAINING_EVERY_S


class Moves:
    """What one node's log has been told. Times are seconds on the caller's monotonic clock."""

    def __init__(self, rules: Rules) -> None:
        self.look_at_s = -math.inf
        """When the next look is due; a later one only tells later."""
        self._rules = rules
        self._copies: int | None = None  # None: every node holds every session
        self._mode_at_s = -math.inf  # from when on the next line of its kind may come
        self._held = 0
        self._started = False
        self._gain: _Gain | None = None
        self._gain_at_s = -math.inf
        self._pulled_bytes = 0  # while nothing was being gained
        self._news: dict[str, str] = {}  # name -> what became of it since the last look
        self._leaving: tuple[float, int] | None = None  # since when, and partitions then
        self._leaving_at_s = 0.0

    def member_changed(self, member: Member, before: MemberState | None) -> None:
        """Note why partitions may be gained soon."""
        if not member.is_live:
            what = "died" if member.state is MemberState.DEAD else "left"
        elif member.leaving:
            what = "leaves"
        elif before is None or before > MemberState.SUSPECT:
            what = "joined"
        else:
            return
        if len(self._news) < NEWS_MAX:
            self._news[member.name] = what

    def look(self, seen: Seen, now_s: float) -> list[Effect]:
        """Return the lines that are due."""
        self.look_at_s = now_s + LOOK_EVERY_S
        lines = [self._mode(seen, now_s), self._gained(seen, now_s), self._handed_over(seen.securing, now_s)]
        return [Inform(line) for line in lines if line is not None]

    def drains(self, securing: int, now_s: float) -> list[Effect]:
        """Tell what this node hands over from now on, since it leaves."""
        if not securing or self._leaving is not None:
            return []
        self._leaving = (now_s, securing)
        self._leaving_at_s = now_s + LEAVING_EVERY_S
        return [Inform(f"this node leaves, and hands over {_partitions(securing)}")]

    def ends(self, securing: int, now_s: float) -> list[Effect]:
        """Tell how that went: it leaves now."""
        if securing:
            return [
                Warn(
                    f"this node leaves, and of {_partitions(securing)} it is not known that the others hold all that "
                    "is here: they could not be reached, or it was too much. If this node alone held some of it, "
                    "that is lost."
                )
            ]
        line = self._handed_over(0, now_s)
        return [] if line is None else [Inform(line)]

    def _mode(self, seen: Seen, now_s: float) -> str | None:
        layout = seen.layout
        copies = None if layout.all_to_all else layout.copies
        if copies == self._copies or now_s < self._mode_at_s:
            return None
        self._copies = copies
        self._mode_at_s = now_s + SAME_KIND_S
        by_node = self._rules.count_by == "node"
        count = f"{seen.counted} {'node' if by_node else 'host'}{'' if seen.counted == 1 else 's'}"
        where = "every node" if copies is None else f"{copies} {'of them' if by_node else 'nodes'}"
        bound = f"GOSSIPSESS_ALL_TO_ALL_BELOW is {self._rules.all_to_all_below}"
        leaving = sum(member.leaving for member in layout.live)
        but = f" ({leaving} of {len(layout.live)} {'leaves' if leaving == 1 else 'leave'})" if leaving else ""
        return f"{count}{but}, and {bound}: each session now lives on {where}"

    def _gained(self, seen: Seen, now_s: float) -> str | None:
        gain, progress = self._gain, seen.progress
        alone = len(seen.layout.live) == 1
        if alone and gain is None:
            if progress is None:
                self._held = seen.held
                self._started = True
            self._news.clear()
            return None  # there is nobody to pull from
        new = seen.held & ~self._held & ~USERS_SCOPE
        waits = new and now_s < self._gain_at_s
        why = self._why()
        if not waits:
            self._held = seen.held
            self._news.clear()
        if new and not waits:
            self._gain_at_s = now_s + SAME_KIND_S
            if gain is None:
                since_s = now_s if progress is None else progress.since_s
                gain = self._gain = _Gain(since_s, self._pulled_bytes, now_s)
            gain.partitions |= new
            count = _partitions(new.bit_count(), "more ")
            if progress is not None:
                return f"this node is to hold {count} ({why}), and pulls what it lacks"
            if gain.partitions == new:
                self._end_gain(seen)
                return f"this node holds {count} ({why}), {_mb(seen.pulled_bytes - gain.pulled_bytes)} pulled"
        if gain is not None:
            return self._goes_on(gain, seen, why, now_s)
        if not waits:
            self._pulled_bytes = seen.pulled_bytes
        return None

    def _goes_on(self, gain: _Gain, seen: Seen, why: str, now_s: float) -> str | None:
        progress = seen.progress
        pulled = _mb(seen.pulled_bytes - gain.pulled_bytes)
        if progress is None:
            self._end_gain(seen)
            kept = gain.partitions & seen.held
            if not kept:
                return f"this node is to hold {_partitions(gain.partitions.bit_count())} no longer ({why})"
            took = f"after {now_s - gain.since_s:.1f} s, {pulled} pulled"
            return f"this node holds all of {_partitions(kept.bit_count(), 'gained ')} {took}"
        if now_s < gain.tell_at_s:
            return None
        gain.tell_at_s = now_s + GAINING_EVERY_S
        left = "" if progress.eta_s is None else f", about {progress.eta_s:.0f} s left"
        return f"this node holds {progress.come:,} of {_partitions(progress.of, 'gained ')}, {pulled} pulled{left}"

    def _end_gain(self, seen: Seen) -> None:
        self._gain = None
        self._started = True
        self._pulled_bytes = seen.pulled_bytes

    def _why(self) -> str:
        told = [f"{name} {what}" for name, what in self._news.items()]
        if not self._started:
            return "it has just started"
        more = [f"and {len(told) - NAMED_MAX} more"] if len(told) > NAMED_MAX else []
        return ", ".join(told[:NAMED_MAX] + more) or "sessions are placed otherwise"

    def _handed_over(self, securing: int, now_s: float) -> str | None:
        if self._leaving is None:
            return None
        since_s, count = self._leaving
        if not securing:
            self._leaving = None
            return f"this node has handed over {_partitions(count)} in {now_s - since_s:.1f} s"
        if now_s < self._leaving_at_s:
            return None
        self._leaving_at_s = now_s + LEAVING_EVERY_S
        return f"this node leaves, and has still to hand over {securing:,} of {_partitions(count)}"


def _partitions(count: int, which: str = "") -> str:
    return f"{count:,} {which}partition{'' if count == 1 else 's'}"


def _mb(size: int) -> str:
    return f"{size / MB:.1f} MB"
