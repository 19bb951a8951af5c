# Suspicion: how long an accused member may refute before it is declared dead.
#
# In:    when it began, how many members there are, which helpers could not reach the suspect either.
# Out:   whom to ask again, and whom to convict.
# Rule:  nobody else's word: wait the longest. Each helper that probed the suspect itself and got no answer
#        (its Nack) is a confirmation and shortens the wait, down to the minimum.
# Why Nacks and not repeated gossip: a rumour that comes in twice may have one source. A Nack is a second
#        measurement, made on another path, and needs no accuser's name in the update.
# Source: SWIM, section 4.2; Lifeguard, section IV-B.

from collections.abc import Iterable
from math import log, log10

from gossipsess.model.identity import NodeId
from gossipsess.model.member import Member

# Accusation and refutation each need about log10(N) gossip rounds and, under loss, several tries. Smaller:
# live members thrown out after a pause; larger: a real crash is noticed later.
TIMEOUT_MIN_ROUNDS = 4
# How much longer an accuser waits that stands alone: likely it is the one that is cut off.
TIMEOUT_MAX_FACTOR = 6
# Independent measurements that make an accusation as good as it gets; small clusters have fewer helpers.
CONFIRMATIONS_WANTED = 2


def suspicion_timeout_s(member_count: int, probe_interval_s: float, confirmations: int) -> float:
    """Return how long a suspect may refute, in seconds, with that many confirmations (0 or more).

    `member_count` includes this node. Falls with the logarithm of the confirmations from
    `TIMEOUT_MAX_FACTOR` times the minimum to the minimum itself. Two members alone have no helper that could
    confirm, so there the minimum holds.
    """
    minimum_s = TIMEOUT_MIN_ROUNDS * max(1.0, log10(member_count)) * probe_interval_s
    wanted = min(CONFIRMATIONS_WANTED, member_count - 2)
    if confirmations >= wanted:
        return minimum_s
    maximum_s = TIMEOUT_MAX_FACTOR * minimum_s
    return maximum_s - (maximum_s - minimum_s) * log(confirmations + 1) / log(wanted + 1)


class Suspicion:
    """One accused incarnation of one member, as this node sees it."""

    def __init__(self, member: Member, *, member_count: int, probe_interval_s: float, now_s: float) -> None:
        self.member = member
        self._member_count = member_count
        self._probe_interval_s = probe_interval_s
        self._began_s = now_s
        self._confirmed_by: dict[NodeId, None] = {}
        self.due_s = now_s + self._timeout_s()
        """When it is to be declared dead, unless it refutes first."""
        self.next_probe_s = now_s
        """When this node asks the suspect again: at once, and every probe interval from then on."""

    def confirm(self, helper: NodeId, now_s: float) -> None:
        """`helper` could not reach the suspect either; a helper counts once."""
        self._confirmed_by[helper] = None
        # Never in the past: a deadline that was missed by a second means a paused process (swim.py).
        self.due_s = min(self.due_s, max(now_s, self._began_s + self._timeout_s()))

    def extend(self, by_s: float) -> None:
        """This node was not running for `by_s` seconds, and could not have heard a refutation."""
        self._began_s += by_s
        self.due_s += by_s

    def _timeout_s(self) -> float:
        return suspicion_timeout_s(self._member_count, self._probe_interval_s, len(self._confirmed_by))


class Suspicions:
    """Every suspicion that this node holds. Times are seconds on the caller's monotonic clock."""

    def __init__(self, probe_interval_s: float, now_s: float) -> None:
        self._probe_interval_s = probe_interval_s
        self._held: dict[NodeId, Suspicion] = {}
        self._convict_from_s = now_s

    def begin(self, accused: Member, member_count: int, now_s: float) -> None:
        """Suspect a member, in place of what was held against it before."""
        self._held[accused.node] = Suspicion(
            accused, member_count=member_count, probe_interval_s=self._probe_interval_s, now_s=now_s
        )

    def end(self, node: NodeId) -> None:
        """Hold nothing against a member any more: it refuted, or is gone."""
        self._held.pop(node, None)

    def clear(self) -> None:
        """Judge nobody any more."""
        self._held.clear()

    def confirm(self, node: NodeId, helpers: Iterable[NodeId], now_s: float) -> None:
        """`helpers` could not reach a suspect either."""
        suspicion = self._held.get(node)
        if suspicion is not None:
            for helper in helpers:
                suspicion.confirm(helper, now_s)

    def paused(self, late_s: float, now_s: float) -> None:
        """Give every suspect the time back in which this node did not run, and two intervals in any case."""
        for suspicion in self._held.values():
            suspicion.extend(late_s)
        self._convict_from_s = now_s + 2 * self._probe_interval_s

    def next_deadline(self) -> float | None:
        """Return when one of the next two calls has something to return."""
        moments = [max(suspicion.due_s, self._convict_from_s) for suspicion in self._held.values()]
        moments += [suspicion.next_probe_s for suspicion in self._held.values()]
        return min(moments, default=None)

    def convicted(self, now_s: float) -> list[Member]:
        """Return who had its time to refute; still held until `end`."""
        if self._convict_from_s > now_s:
            return []
        return [suspicion.member for suspicion in self._held.values() if suspicion.due_s <= now_s]

    def take_unasked(self, now_s: float) -> list[Member]:
        """Return who is to be asked again, each once an interval."""
        unasked = [suspicion for suspicion in self._held.values() if suspicion.next_probe_s <= now_s]
        for suspicion in unasked:
            suspicion.next_probe_s = now_s + self._probe_interval_s
        return [suspicion.member for suspicion in unasked]
