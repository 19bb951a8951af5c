# Network: what becomes of each message, drawn from the seed and from nothing else.
#
# In:    who sends to whom.    Out: the delays of the copies that arrive; none where the message is lost.
# Rule:  the fate of message i from a to b is a hash of (seed, a, b, i). A generator that is drawn from in turn
#        would be faster, but taking one fault or one request out would reshuffle all others, and the failure that
#        was to be made smaller would be gone.
# Reordering needs no draw of its own: delays differ, and one message in twenty is very late.
# Not here: who listens where, and links (cluster.py).

from hashlib import blake2b
from struct import Struct
from typing import Final, NamedTuple

TAIL: Final = 0.05
"""Share of messages that are late."""
TAIL_TIMES: Final = 15
"""How many times later than others."""
RESENT_S: Final = 0.2
"""How much later a lost segment comes over a link that loses nothing."""

_FRACTIONS = Struct(">8Q").unpack


class Faults(NamedTuple):
    """How bad the network is at the moment. The default is a good one."""

    loss: float = 0.0
    """Share of messages lost, 0 .. 1."""
    duplicate: float = 0.0
    """Share of messages that arrive twice, 0 .. 1."""
    delay_s: float = 0.001
    """Mean time under way, without the late ones."""
    lossy_links: bool = False
    """Links lose, double and reorder too, as no TCP does: the protocol claims to be sound even then. Hello is
    spared the loss, since a link whose Hello is lost is one that broke."""
    link_life_s: float = 0.0
    """Links break after this long on average; 0: never."""
    dial_failure: float = 0.0
    """Share of dials that come to nothing, 0 .. 1."""
    beacon_loss: float = 0.0
    """Share of beacons that a receiver never hears, beyond `loss`: some switches are bad at multicast. 0 .. 1."""


def latest_s(faults: Faults) -> float:
    """Return how long a message is under way at most, over a link that loses nothing."""
    return faults.delay_s * 1.5 * TAIL_TIMES + (RESENT_S if faults.loss else 0.0)


def luck(*key: object) -> tuple[float, ...]:
    """Return 8 numbers in [0, 1) that depend on the key alone; its parts must have a stable repr."""
    digest = blake2b(repr(key).encode("ascii")).digest()
    return tuple([fraction / 2**64 for fraction in _FRACTIONS(digest)])


class Network:
    """The fates of one run's messages. `faults` may be replaced at any time."""

    def __init__(self, seed: int, faults: Faults) -> None:
        self.seed = seed
        self.faults = faults
        self._sent: dict[tuple[str, str, str], int] = {}

    def draw(self, channel: str, a: str, b: str) -> tuple[float, ...]:
        """Return the luck of the next happening between `a` and `b` on a channel."""
        way = (channel, a, b)
        number = self._sent[way] = self._sent.get(way, 0) + 1
        return luck(self.seed, channel, a, b, number)

    def delays(self, channel: str, a: str, b: str, *, certain: bool = False) -> list[float]:
        """Return the delay of each copy of the next message from `a` to `b`, seconds; at least one if `certain`."""
        loss, late, tail, twice, late_2, tail_2, *_ = self.draw(channel, a, b)
        faults = self.faults
        if loss < faults.loss and not certain:
            return []
        delays = [self._delay_s(late, tail)]
        if twice < faults.duplicate:
            delays.append(self._delay_s(late_2, tail_2))
        return delays

    def ordered_delay(self, channel: str, a: str, b: str) -> float:
        """Return the delay of the next message on a link that loses nothing: a lost segment is only late."""
        loss, late, tail, *_ = self.draw(channel, a, b)
        delay_s = self._delay_s(late, tail)
        return delay_s + (RESENT_S if loss < self.faults.loss else 0.0)

    def _delay_s(self, late: float, tail: float) -> float:
        return self.faults.delay_s * (0.5 + late) * (TAIL_TIMES if tail < TAIL else 1)
