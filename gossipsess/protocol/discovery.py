# Discovery: addresses where another node may be. Candidates only; who is a member, a link's Hello decides.
#
# In:    configured seeds, answers of the name service, beacons heard, the fate of dials.
# Out:   Dial, LookUp, SendBeacon, and answers to beacons.
# Rule:  seeds are dialed, for ever, while no link to them stands. Of two nodes that do not know each other
#        the smaller id dials, so that the pair gets one link; the other answers the beacon by unicast, so
#        that the smaller one learns of it even where multicast goes one way only.
# Names: an address that the name service has told is dialed like a seed, at the first port: who serves there knows the
#        other workers of that address. Where nobody of this cluster does, the further ports are tried, at leisure; at
#        this node's own address they are tried at once. An answer adds addresses and takes none away: it may be old,
#        cached, in part or empty. One that answers have not named for ten minutes is forgotten; where there are no
#        answers, none is.
# Siblings: where other workers of this machine may serve, whom no seed, record or beacon names. Dialed at leisure.
# Why a beacon and a record are no more than hints: they may be old, or name an address that is another's now.
# Not here: links to members (links.py), the rhythm of lookups (names.py).

import math
import random
from dataclasses import dataclass

from gossipsess.model.identity import NodeId
from gossipsess.model.member import Address, Name
from gossipsess.protocol.effects import Dial, Effect, SendBeacon, SendDatagram, Warn
from gossipsess.protocol.names import PATIENCE_S, Names
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
LEISURE_RETRY_MAX_S = 60.0
"""The same where hardly anybody is: at further ports, and at the address of a stranger. Who starts there dials too."""
NAMED_FOR_S = 600.0
"""For how long an address is tried that the name service does not name any more: an answer may be in part."""
NAMED_MAX = 512
"""Addresses kept from the name service, some 100 KB. More nodes than that find each other by gossip."""
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
    linked: bool = False
    """It does stand as a link."""
    delay_max_s: float = RETRY_MAX_S
    at_leisure: bool = False
    """Dialed only from what of the budget the others leave."""
    until_s: float = math.inf
    """When it is forgotten, unless it is named again; of what no answer has told, never."""
    tried: bool = True
    """It has answered or not, once at least; of a seed nobody asks."""
    name: Name | None = None
    """Who told of it, where that was the name service."""
    mine: bool = False
    """This node itself answered there last: it has one address for each version of IP, say."""


class Discovery:
    """The candidates of one node, which serves at `myself`.

    Events: heard_beacon(), looked_up(), dial_failed(), linked(), unlinked(), timeout().
    Each Dial must be answered by dial_failed() or linked(), each LookUp by looked_up(). Times are seconds on the
    caller's monotonic clock.
    """

    def __init__(
        self,
        *,
        myself: Address,
        seeds: tuple[Address, ...] = (),
        siblings: tuple[Address, ...] = (),
        beacons: bool = False,
        names: tuple[Name, ...] = (),
        names_when_alone: bool = False,
        rng: random.Random,
        now_s: float,
    ) -> None:
        """`beacons`: say on the multicast group that this node is here. `names_when_alone`: ask only when alone."""
        self._rng = rng
        self._myself = myself
        self._seeds = {seed: _Attempts(SEED_RETRY_S, now_s) for seed in seeds}
        for sibling in siblings:
            if sibling != myself and sibling not in self._seeds:
                self._seeds[sibling] = _Attempts(SEED_RETRY_S, now_s, delay_max_s=LEISURE_RETRY_MAX_S, at_leisure=True)
        self._names = Names(names, when_alone=names_when_alone, rng=rng, now_s=now_s)
        for name in [one for one in names if one.scheme == "dns"]:
            self._try_ports((myself[0], name.port), name, now_s)  # other workers of this machine or pod
        self._heard: dict[Address, _Attempts] = {}  # oldest first
        self._unreached_since_s = math.inf  # others are named and none is linked; minus infinity: that has been said
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
        return [SendDatagram(address, Beacon(self._myself[1], reply=True))]

    def looked_up(
        self, name: Name, addresses: tuple[Address, ...], problem: str, *, alone: bool, now_s: float
    ) -> list[Effect]:
        """React to an answer of the name service, or to its lack; `alone`: this node has a link to nobody."""
        named = {host for host, _ in addresses} | {self._myself[0]}
        for (host, port), attempts in list(self._seeds.items()):
            if attempts.name is None:
                continue
            if host in named or (attempts.name == name and not addresses):
                attempts.until_s = now_s + NAMED_FOR_S
            elif attempts.until_s <= now_s and not attempts.open:
                del self._seeds[host, port]
        new = [address for address in addresses if address != self._myself and address not in self._seeds]
        self._make_room(len(new), named)
        for address in new:
            if len(self._seeds) < NAMED_MAX:
                self._seeds[address] = _Attempts(
                    SEED_RETRY_S, now_s, until_s=now_s + NAMED_FOR_S, tried=False, name=name
                )
        # Not for who answers and is of no use, a stranger or this node itself: that may stay so for ever.
        waited_for = [one for one in self._seeds.values() if one.name and one.delay_max_s < LEISURE_RETRY_MAX_S]
        settled = not alone and all(one.linked for one in waited_for)
        effects = self._names.answered(name, len(addresses), problem, settled=settled, now_s=now_s)
        mine = {host for (host, _), one in self._seeds.items() if one.mine} | {self._myself[0]}
        others = len({host for host, _ in addresses} - mine)
        if not (alone and others):
            self._unreached_since_s = math.inf
        elif self._unreached_since_s == math.inf:
            self._unreached_since_s = now_s
        elif 0 <= self._unreached_since_s <= now_s - PATIENCE_S:
            self._unreached_since_s = -math.inf  # said, until a link stands
            effects.append(
                Warn(
                    f"{name} names {others} other address{'es' if others > 1 else ''}, and this node is linked to "
                    "nobody there: do firewalls or a NetworkPolicy let UDP and TCP through to the nodes' ports "
                    f"({name.port or 'as in the records'}), and have all nodes the same secret and cluster name?"
                )
            )
        return effects

    @property
    def is_searching(self) -> bool:
        """The name service has not answered yet, or somebody whom it named has not been tried."""
        return self._names.first_answer_is_due or not all(one.tried for one in self._seeds.values())

    def dial_failed(
        self,
        address: Address,
        now_s: float,
        *,
        refused: bool = False,
        stranger: bool = False,
        itself: bool = False,
    ) -> None:
        """A dial to `address` came to nothing; it is tried again later, and each time later than before.

        `refused`: nobody listens there. `stranger`: somebody does who is no node of this cluster. `itself`: this node
        does.
        """
        attempts = self._seeds.get(address) or self._heard.get(address)
        if attempts is None:
            return
        attempts.open, attempts.linked, attempts.tried, attempts.mine = False, False, True, itself
        if (stranger or itself) and attempts.name is not None:
            attempts.delay_max_s = LEISURE_RETRY_MAX_S
        if (refused or stranger) and attempts.name is not None and not attempts.at_leisure:
            self._try_ports(address, attempts.name, now_s, until_s=attempts.until_s)
        self._postpone(attempts, now_s)

    def linked(self, address: Address) -> None:
        """A link to `address` stands: no more dials from here."""
        attempts = self._seeds.get(address)
        if attempts is not None:
            attempts.open, attempts.linked, attempts.tried, attempts.mine = True, True, True, False
            if not attempts.at_leisure:
                attempts.delay_max_s = RETRY_MAX_S  # no stranger's any more
        if address[0] != self._myself[0]:
            for beside in [one for one in self._spare() if one[0] == address[0] and self._seeds[one].at_leisure]:
                del self._seeds[beside]  # who is linked knows the other workers there
        self._heard.pop(address, None)

    def unlinked(self, address: Address, now_s: float) -> None:
        """The member at `address` is gone: another node may start there, so a seed is dialed again."""
        attempts = self._seeds.get(address)
        if attempts is not None:
            attempts.open = attempts.linked = False
            attempts.delay_s = SEED_RETRY_S
            self._postpone(attempts, now_s)
        self._heard.pop(address, None)  # its next beacon is news again

    def next_deadline(self) -> float | None:
        """Return when timeout() wants to be called; None when there is nothing to send or dial by itself."""
        moments = [attempts.next_s for attempts in self._seeds.values() if not attempts.open]
        if self._next_beacon_s is not None:
            moments.append(self._next_beacon_s)
        next_lookup_s = self._names.next_deadline()
        if next_lookup_s is not None:
            moments.append(next_lookup_s)
        return min(moments, default=None)

    def timeout(self, now_s: float, *, alone: bool = False) -> list[Effect]:
        """Send the beacon, look up the names and dial the seeds that are due by `now_s`; harmless when nothing is."""
        effects = self._names.timeout(alone=alone, now_s=now_s)
        if self._next_beacon_s is not None and self._next_beacon_s <= now_s:
            interval_s = BEACON_FAST_S if now_s < self._fast_until_s else BEACON_SLOW_S
            self._next_beacon_s = now_s + self._jittered(interval_s)
            effects.append(SendBeacon(Beacon(self._myself[1], reply=False)))
        for seed, attempts in self._seeds.items():
            if attempts.open or attempts.next_s > now_s:
                continue
            if self._spend(now_s, leave=ATTEMPTS_PER_SECOND / 2 if attempts.at_leisure else 0.0):
                attempts.open = True
                effects.append(Dial(seed))
            else:
                attempts.next_s = now_s + self._jittered(1 / ATTEMPTS_PER_SECOND)
        return effects

    def _spare(self) -> list[Address]:
        """Return what the name service has told and is not being dialed or linked."""
        return [address for address, one in self._seeds.items() if one.name is not None and not one.open]

    def _make_room(self, wanted: int, named: set[str]) -> None:
        """Let go of further ports, then of who is not named any more, so that `wanted` addresses find room.

        Else the ports of thirty machines where nobody serves would keep out whom the name service tells of now.
        """
        lacking = len(self._seeds) + wanted - NAMED_MAX
        if lacking > 0:
            further = {address: self._seeds[address].at_leisure for address in self._spare()}
            spare = [
                address
                for address, is_further in further.items()
                if address[0] not in named or (is_further and address[0] != self._myself[0])
            ]
            spare.sort(key=lambda address: (not further[address], self._seeds[address].until_s))
            for address in spare[:lacking]:
                del self._seeds[address]

    def _try_ports(self, address: Address, name: Name, now_s: float, until_s: float = math.inf) -> None:
        """Take the further ports at an address for candidates, from the one that was named on."""
        host, first = address
        for port in range(first, min(first + name.ports, 65536)):
            beside = (host, port)
            if beside != self._myself and beside not in self._seeds and len(self._seeds) < NAMED_MAX:
                self._seeds[beside] = _Attempts(
                    SEED_RETRY_S,
                    now_s,
                    delay_max_s=LEISURE_RETRY_MAX_S,
                    at_leisure=True,
                    until_s=until_s,
                    name=name,
                )

    def _remembered(self, address: Address, now_s: float) -> _Attempts:
        attempts = self._heard.get(address)
        if attempts is None:
            attempts = self._heard[address] = _Attempts(HEARD_RETRY_S, now_s)
            if len(self._heard) > HEARD_MAX:
                del self._heard[next(iter(self._heard))]
        return attempts

    def _postpone(self, attempts: _Attempts, now_s: float) -> None:
        attempts.next_s = now_s + self._jittered(attempts.delay_s)
        attempts.delay_s = min(2 * attempts.delay_s, attempts.delay_max_s)

    def _spend(self, now_s: float, leave: float = 0.0) -> bool:
        """Take one attempt from the budget, where that leaves so many."""
        earned = (now_s - self._budget_at_s) * ATTEMPTS_PER_SECOND
        self._budget = min(self._budget + earned, float(ATTEMPTS_PER_SECOND))
        self._budget_at_s = now_s
        if self._budget < 1 + leave:
            return False
        self._budget -= 1
        return True

    def _jittered(self, wait_s: float) -> float:
        return wait_s * self._rng.uniform(1 - JITTER, 1 + JITTER)
