# Discovery: addresses where another node may be. Candidates only; who is a member, a link's Hello decides.
#
# In:    configured seeds, beacons heard, the fate of dials.    Out: Dial, SendBeacon, and answers to beacons.
# Rule:  seeds are dialed, for ever, while no link to them stands. Of two nodes that do not know each other
#        the smaller id dials, so that the pair gets one link; the other answers the beacon by unicast, so
#        that the smaller one learns of it even where multicast goes one way only.
# Why a beacon is no more than a hint: it may be old, repeated, or come from an address that is another's now.
# Not here: links to members (links.py), and name lookups, which the runtime does.

import random
from dataclasses import dataclass

from gossipsess.model.identity import NodeId
from gossipsess.model.member import Address
from gossipsess.protocol.effects import Dial, Effect, SendBeacon, SendDatagram
from gossipsess.wire.messages import Beacon

BEACON_FAST_S = 1.0
"""Between the first beacons, while nodes that were started together look for each other."""
BEACON_FAST_FOR_S = 10.0
BEACON_SLOW_S = 10.0
"""From then on: soon enough to heal a split, and no noise on a network that others use too."""
JITTER = 0.2
"""Every wait is stretched or shortened by up to this share, so that nodes do not stay in step."""
SEED_RETRY_S = 0.25
"""A seed that refuses is often a process that is still starting."""
HEARD_RETRY_S = 1.0
RETRY_MAX_S = 5.0
"""How long a node that is back may wait for its next chance."""
ATTEMPTS_PER_SECOND = 16
"""Over all addresses. A start of a hundred nodes must not become ten thousand dials in one second."""
HEARD_MAX = 256
"""Addresses remembered from beacons, some 50 KB. Who could fill it holds the cluster's secret, but may be a
crash loop, whose addresses are of no use a second later; so the oldest goes."""


@dataclass
class _Attempts:
    """What was tried at one address."""

    delay_s: float
    """Wait before the next attempt; doubles with each."""
    next_s: float
    open: bool = False
    """A dial is under way or stands as a link."""


class Discovery:
    """The candidates of one node.

    Events: heard_beacon(), dial_failed(), linked(), unlinked(), timeout().
    Each Dial must be answered by dial_failed() or linked(). Times are seconds on the caller's monotonic
    clock.
    """

    def __init__(
        self, *, seeds: tuple[Address, ...], beacons: bool, port: int, rng: random.Random, now_s: float
    ) -> None:
        self._rng = rng
        self._port = port
        self._seeds = {seed: _Attempts(SEED_RETRY_S, now_s) for seed in seeds}
        self._heard: dict[Address, _Attempts] = {}  # oldest first
        self._next_beacon_s = now_s if beacons else None
        self._fast_until_s = now_s + BEACON_FAST_FOR_S
        self._budget = float(ATTEMPTS_PER_SECOND)
        self._budget_at_s = now_s

    def heard_beacon(
        self,
        sender: NodeId,
        address: Address,
        *,
        reply: bool,
        known: bool,
        myself: NodeId,
        now_s: float,
    ) -> list[Effect]:
        """React to a beacon of `sender`, which serves at `address`; `known` says that it is a live member."""
        if known or sender == myself:
            return []
        dials = myself < sender
        if reply and not dials:
            return []  # an answered answer would go back and forth for ever
        attempts = self._seeds.get(address) or self._remembered(address, now_s)
        if attempts.open or attempts.next_s > now_s or not self._spend(now_s):
            return []
        if dials:
            attempts.open = True
            return [Dial(address)]
        self._postpone(attempts, now_s)
        return [SendDatagram(address, Beacon(self._port, reply=True))]

    def dial_failed(self, address: Address, now_s: float) -> None:
        """A dial to `address` came to nothing; it is tried again later, and each time later than before."""
        attempts = self._seeds.get(address) or self._heard.get(address)
        if attempts is not None:
            attempts.open = False
            self._postpone(attempts, now_s)

    def linked(self, address: Address) -> None:
        """A link to `address` stands: no more dials from here."""
        attempts = self._seeds.get(address)
        if attempts is not None:
            attempts.open = True
        self._heard.pop(address, None)

    def unlinked(self, address: Address, now_s: float) -> None:
        """The member at `address` is gone: another node may start there, so a seed is dialed again."""
        attempts = self._seeds.get(address)
        if attempts is not None:
            attempts.open = False
            attempts.delay_s = SEED_RETRY_S
            self._postpone(attempts, now_s)
        self._heard.pop(address, None)  # its next beacon is news again

    def next_deadline(self) -> float | None:
        """Return when timeout() wants to be called; None when there is nothing to send or dial by itself."""
        moments = [attempts.next_s for attempts in self._seeds.values() if not attempts.open]
        if self._next_beacon_s is not None:
            moments.append(self._next_beacon_s)
        return min(moments, default=None)

    def timeout(self, now_s: float) -> list[Effect]:
        """Send the beacon and dial the seeds that are due by `now_s`; harmless when nothing is."""
        effects: list[Effect] = []
        if self._next_beacon_s is not None and self._next_beacon_s <= now_s:
            interval_s = BEACON_FAST_S if now_s < self._fast_until_s else BEACON_SLOW_S
            self._next_beacon_s = now_s + self._jittered(interval_s)
            effects.append(SendBeacon(Beacon(self._port, reply=False)))
        for seed, attempts in self._seeds.items():
            if attempts.open or attempts.next_s > now_s:
                continue
            if self._spend(now_s):
                attempts.open = True
                effects.append(Dial(seed))
            else:
                attempts.next_s = now_s + self._jittered(1 / ATTEMPTS_PER_SECOND)
        return effects

    def _remembered(self, address: Address, now_s: float) -> _Attempts:
        attempts = self._heard.get(address)
        if attempts is None:
            attempts = self._heard[address] = _Attempts(HEARD_RETRY_S, now_s)
            if len(self._heard) > HEARD_MAX:
                del self._heard[next(iter(self._heard))]
        return attempts

    def _postpone(self, attempts: _Attempts, now_s: float) -> None:
        attempts.next_s = now_s + self._jittered(attempts.delay_s)
        attempts.delay_s = min(2 * attempts.delay_s, RETRY_MAX_S)

    def _spend(self, now_s: float) -> bool:
        earned = (now_s - self._budget_at_s) * ATTEMPTS_PER_SECOND
        self._budget = min(self._budget + earned, float(ATTEMPTS_PER_SECOND))
        self._budget_at_s = now_s
        if self._budget < 1:
            return False
        self._budget -= 1
        return True

    def _jittered(self, wait_s: float) -> float:
        return wait_s * self._rng.uniform(1 - JITTER, 1 + JITTER)
