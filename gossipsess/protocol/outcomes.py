# Outcomes: how a request's wait ended.
#
# Dataclasses, and not named tuples as events and effects are: those compare by their fields alone, and an application
# that compares what it got with Confirmed(0, 0) would take Degraded(0, 0) for it.

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class Confirmed:
    """As many other hosts as asked for, or as there are, hold the write."""

    hosts: int
    """Other hosts known to hold it."""
    nodes: int
    """Other nodes known to hold it."""


@dataclass(frozen=True, slots=True)
class Degraded:
    """The write stands here and is on its way, but fewer than asked for confirmed it in time."""

    hosts: int
    nodes: int


@dataclass(frozen=True, slots=True)
class Gone:
    """The session was invalidated or rotated meanwhile; the write is not in it."""


Outcome = Confirmed | Degraded | Gone


@dataclass(frozen=True, slots=True)
class Revoked:
    """A user's sessions have ended: here at once, and on each other node when it hears of it."""

    sessions: int
    """Those that this node held."""
    outcome: Confirmed | Degraded
    """How many others have ended theirs."""


class Found(Enum):
    """How a fetch ended."""

    FRESH = "fresh"
    """The record is here, with every write that was asked for."""
    STALE = "stale"
    """The record is here; a write that was asked for is not, and nobody in reach has it. Or nothing is missing, but
    the copy here was to be confirmed, and no holder in reach did."""
    ABSENT = "absent"
    """Every holder has everything, and not this session; or nobody at all holds it."""
    UNKNOWN = "unknown"
    """Somebody who may hold it did not answer."""
