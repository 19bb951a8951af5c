# Checker: was the cluster true to what it told its clients?
#
# In:     everything that clients asked and were told, when processes were killed, and what nodes hold at the end,
#         after all was healed.
# Out:    `Verdict`: violations, each in words, and figures.
# Rules:  nothing invented    what a session shows was written into it, by a request for this very session
#         read your writes    a read that is not stale shows all that the version token stands for
#         held                what an outcome says is held stays, if one who holds it never lost its memory
#         logged out          a session ended so is never served by the node that ended it, and at the end by nobody
#         still logged in     a session that nobody ended is not called absent by who can ask one that holds it
#         agreement           in the end all nodes show the same of every session
# Held:   the origin holds a write, and so do as many others as its outcome says, though not which. So it must
#         stay where the origin still runs, or where fewer others were killed since than held it.
# Absent: "absent" ends a login, so it may be told only where nobody is left to ask: all who surely held the session
#         were killed, or out of reach. Out of reach is legitimate: a node cannot tell a peer that is cut off for long
#         from a dead one, nor, having met nobody for two seconds, whether it is the first node of a cluster or was
#         born cut off. So a holder counts only where it answered itself, or was linked to who did before and after.
# Choice: every write has a key of its own, whose value is made from the key and from the client's first session;
#         so none hides behind a later one, and a value in the wrong session is seen.
# Not here: making histories (history.py).

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, NamedTuple

Values = Mapping[str, Any]

HELD: Final = ("Confirmed", "Degraded")
"""Outcomes of a write that stands. Degraded: held by fewer than asked for, but `nodes` of them."""


ANSWER_S: Final = 2.0
"""Clients give up after this. Every answer of a node that runs comes within a quarter of a second."""


class Told(NamedTuple):
    """One request of a client, and what it was told."""

    chain: str
    """The login that this session goes back to, over all rotations."""
    do: str
    """``login``, ``write``, ``read``, ``rotate`` or ``logout``."""
    session: str
    """Its id; of a login, and of a rotation, the id that went in: "" and the old one."""
    key: str
    """What was to be written; "" for nothing."""
    needed: frozenset[str]
    """Keys that the version token sent along stands for."""
    node: int
    start: int
    """Which process of that node."""
    began_s: float
    outcome: str
    """An outcome's name, ``read``, ``absent``, ``unavailable``, or ``unknown`` where no answer came."""
    nodes: int = 0
    new_session: str = ""
    """The id that came out of a login or a rotation."""
    seen: Values = MappingProxyType({})
    """What the session showed before anything was written."""
    stale: bool = False
    linked: tuple[int, ...] = ()
    """Of an absence: the nodes to which the one that answered was linked before it looked and after."""


class Killed(NamedTuple):
    """A process lost its memory."""

    node: int
    start: int
    at_s: float


@dataclass
class Verdict:
    """What came out."""

    violations: list[str] = field(default_factory=list)
    figures: Counter[str] = field(default_factory=Counter)


def value_of(chain: str, key: str) -> str:
    """Return the only value that a key may have."""
    return f"{key} of {chain}"


def check(history: Sequence[Told], kills: Sequence[Killed], final: Sequence[Mapping[str, Values | None]]) -> Verdict:
    """Judge a history. `final`: for each node, what it shows of every session id in the history, None for nothing:
    a holder what it has, any other what it serves.

    The requests of one chain stand in the order in which they were made; each ended before the next began.
    """
    verdict = Verdict()
    chains: dict[str, list[Told]] = {}
    for told in history:
        chains.setdefault(told.chain, []).append(told)
        verdict.figures[f"{told.do}s"] += 1
        verdict.figures[told.outcome] += 1
        verdict.figures["stale"] += told.stale
    for requests in chains.values():
        _Chain(requests, kills, final, verdict).check()
    return verdict


class _Chain:
    def __init__(
        self,
        requests: list[Told],
        kills: Sequence[Killed],
        final: Sequence[Mapping[str, Values | None]],
        verdict: Verdict,
    ) -> None:
        self._requests = requests
        self._kills = kills
        self._final = final
        self._verdict = verdict
        self._attempted: set[str] = set()
        self._ended: dict[str, Told] = {}  # ids, and the request that ended them
        self._in_doubt: set[str] = set()  # ids that may have been ended by a request without an answer
        self._holds: dict[str, list[Told]] = {}  # ids, and the requests whose node held them
        self._kept: dict[str, Told] = {}  # keys that the current id must have in the end
        self._current = ""

    def check(self) -> None:
        for told in self._requests:
            if told.key:
                self._attempted.add(told.key)
            self._check_seen(told)
            self._check_life(told)
            self._follow(told)
        self._check_end()

    def _check_seen(self, told: Told) -> None:
        self._check_invented(told.seen, told)
        if told.outcome in ("read", *HELD) and told.do != "login" and not told.stale:
            missing = told.needed - told.seen.keys()
            if missing:
                self._violated("read your writes", told, f"fresh, and without {sorted(missing)}")

    def _check_life(self, told: Told) -> None:
        ender = self._ended.get(told.session)
        served = told.outcome in ("read", *HELD)
        if ender is not None and served:
            self._verdict.figures["served after its end, elsewhere"] += 1
            if (told.node, told.start) == (ender.node, ender.start):
                self._violated("logged out", told, f"served by the node that ended it with a {ender.do}")
        if ender is None and told.session not in self._in_doubt:
            if told.outcome == "Gone":
                self._violated("logged out", told, "Gone, and nobody ended it")
            if told.outcome == "absent":
                self._verdict.figures["absent while it lives"] += 1
                if any(self._was_in_reach(held, told) for held in self._holds.get(told.session, ())):
                    self._violated("still logged in", told, "absent, with a holder in reach")

    def _follow(self, told: Told) -> None:
        ends = told.do in ("rotate", "logout")
        if told.outcome == "unknown" and ends:
            self._in_doubt.add(told.session)
        if told.outcome in ("read", *HELD):
            self._holds.setdefault(told.new_session or told.session, []).append(told)
        if told.outcome not in HELD:
            return
        if told.do in ("login", "rotate"):
            self._kept = dict.fromkeys(told.seen, told)
            self._current = told.new_session
        if ends:
            self._ended[told.session] = told
        if told.do == "logout":
            self._current = ""
        elif told.key and told.session in ("", self._current):
            self._kept[told.key] = told

    def _check_end(self) -> None:
        for session, ender in self._ended.items():
            live = [index for index, held in enumerate(self._final) if held[session] is not None]
            if live and self._is_held(ender):
                self._violated("logged out", ender, f"{session} lives on nodes {live} in the end")
            elif live:
                self._verdict.figures["ended, and back with the last who knew of the end killed"] += 1
        for session in {told.new_session or told.session for told in self._requests} - {""}:
            states = [held[session] for held in self._final]
            if any(state != states[0] for state in states):
                self._verdict.violations.append(f"agreement: nodes differ about {session}: {states}")
            for state in states:
                self._check_invented(state or {}, self._requests[-1])
        if self._current and self._current not in self._in_doubt:
            self._check_kept()

    def _check_kept(self) -> None:
        for key, told in self._kept.items():
            without = [index for index, held in enumerate(self._final) if key not in (held[self._current] or {})]
            must = self._is_held(told)
            self._verdict.figures["writes that had to stay"] += must
            if without and must:
                self._violated("held", told, f"{key} is not in {self._current} on nodes {without} in the end")
            elif without:
                self._verdict.figures["writes lost with all who held them"] += 1

    def _check_invented(self, values: Values, told: Told) -> None:
        for key, value in values.items():
            if key not in self._attempted or value != value_of(told.chain, key):
                self._violated("nothing invented", told, f"shows {key!r} as {value!r}")

    def _is_held(self, told: Told) -> bool:
        since = [kill for kill in self._kills if kill.at_s >= told.began_s]
        if (told.node, told.start) not in [(kill.node, kill.start) for kill in since]:
            return True
        return told.nodes > sum(kill.node != told.node for kill in since)

    def _was_in_reach(self, held: Told, absent: Told) -> bool:
        """Say whether one that held the session still had its memory, and could be asked by who called it absent."""
        until_s = absent.began_s + ANSWER_S
        lost = {(kill.node, kill.start) for kill in self._kills if held.began_s <= kill.at_s <= until_s}
        reached = {absent.node, *absent.linked}
        if held.node in reached and (held.node, held.start) not in lost:
            return True
        elsewhere = {node for node, _ in lost} | (set(range(len(self._final))) - reached)
        return held.nodes > len(elsewhere - {held.node})

    def _violated(self, rule: str, told: Told, what: str) -> None:
        self._verdict.violations.append(f"{rule}: {what}; {told}")
