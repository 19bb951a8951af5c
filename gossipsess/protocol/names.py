# Names: when the name service is asked where other nodes may be.
#
# In:    the configured names, what became of each lookup, whether this node is alone.
# Out:   LookUp; and what an operator should read where a name stays without an answer.
# Rule:  while alone every second at first, then every five; the same while somebody who was named has not answered;
#        else every thirty. One lookup of a name at a time, each wait jittered.
# Choice: how long a record may be kept (TTL) is left to the system's resolver, which is the one that caches.
# Not here: what is made of an answer (discovery.py), and the lookup itself, which the runtime does.

import random
from dataclasses import dataclass
from typing import Final

from gossipsess.model.member import Name
from gossipsess.protocol.effects import Effect, Inform, LookUp, Warn

FAST_S: Final = 1.0
"""Between the first lookups of a node that is alone: pods that start together come into the records one by one."""
FAST_FOR_S: Final = 10.0
UNSETTLED_S: Final = 5.0
SETTLED_S: Final = 30.0
"""As long as cluster DNS commonly keeps a record. A change is told by gossip long before; this heals splits."""
LONELY_S: Final = 3.0
"""For so long a node that has another way to find others tries that one alone."""
JITTER: Final = 0.2
PATIENCE_S: Final = 10.0
"""A name may be without records for so long, at a first start say, before a line in the log is worth it."""


@dataclass
class _Lookup:
    """The lookups of one name."""

    next_s: float
    failing_since_s: float
    under_way: bool = False
    ended: bool = False
    """At least one has come to an end."""
    warned: bool = False
    named: int = 0
    """How many addresses the last good answer had."""


class Names:
    """The rhythm in which one node asks the name service.

    Events: answered(), timeout(). Each LookUp must be answered once. Times are seconds on the caller's monotonic clock.
    """

    def __init__(self, names: tuple[Name, ...], *, when_alone: bool, rng: random.Random, now_s: float) -> None:
        """`when_alone`: only a node that has met nobody asks, and not at once."""
        self._rng = rng
        self._when_alone = when_alone
        first_s = now_s + self._jittered(LONELY_S) if when_alone and names else now_s
        self._lookups = {name: _Lookup(first_s, now_s) for name in names}
        self._fast_until_s = now_s + FAST_FOR_S

    @property
    def first_answer_is_due(self) -> bool:
        """A name has been asked for, and no lookup of it has ended yet, well or not."""
        return not self._when_alone and not all(one.ended for one in self._lookups.values())

    def answered(self, name: Name, addresses: int, problem: str, *, settled: bool, now_s: float) -> list[Effect]:
        """A lookup has ended, with so many addresses; `settled`: this node has met others, and all who were named
        have answered.
        """
        lookup = self._lookups[name]
        lookup.under_way, lookup.ended = False, True
        fast = not settled and now_s < self._fast_until_s
        lookup.next_s = now_s + self._jittered(FAST_S if fast else SETTLED_S if settled else UNSETTLED_S)
        if addresses:
            told: list[Effect] = (
                [Inform(f"{name} names {addresses} address{'es' if addresses > 1 else ''}.")]
                if addresses != lookup.named
                else []
            )
            lookup.named, lookup.failing_since_s, lookup.warned = addresses, now_s, False
            return told
        if lookup.warned or self._when_alone or now_s - lookup.failing_since_s < PATIENCE_S:
            return []
        lookup.warned = True
        kept = "What its last answer named is kept." if lookup.named else _ADVICE
        return [Warn(f"{name} has had no answer for {now_s - lookup.failing_since_s:.0f} s ({problem}). {kept}")]

    def next_deadline(self) -> float | None:
        """Return when timeout() has a lookup to make; None where none is due by itself."""
        return min([one.next_s for one in self._lookups.values() if not one.under_way], default=None)

    def timeout(self, *, alone: bool, now_s: float) -> list[Effect]:
        """Return the lookups that are due by `now_s`; `alone`: this node has a link to nobody."""
        effects: list[Effect] = []
        for name, lookup in self._lookups.items():
            if lookup.under_way or lookup.next_s > now_s:
                continue
            if self._when_alone and not alone:
                lookup.next_s = now_s + self._jittered(UNSETTLED_S)
                continue
            lookup.under_way = True
            effects.append(LookUp(name))
        return effects

    def _jittered(self, wait_s: float) -> float:
        return wait_s * self._rng.uniform(1 - JITTER, 1 + JITTER)


_ADVICE: Final = (
    "In Kubernetes: is there a headless Service of that name in this namespace, with publishNotReadyAddresses "
    "(kubectl get endpoints)? Elsewhere: set GOSSIPSESS_DISCOVERY to where the other nodes are."
)
