# Shoppers: browsers that know what they wrote, and look for it in every answer.
#
# In:     how to ask the balancer.   Out: `Tally`, what they were told and what was missing.
# Client: opens a session with its first write, then reads and writes at random, one request at a time, and sends
#         the cookies of its last answers, version token included. After some twenty writes it opens another one and
#         leaves the first alone; what it wrote there must still be there in the end.
# Words:  acknowledged  a write was answered 200
#         stale         an answer lacked an acknowledged write
#         doubted       an answer lacked nothing, but said itself that it might
#         absent        an answer showed nothing at all of a session with acknowledged writes: the login is gone
#         lost          acknowledged writes that no node shows in the end, and all those of a session that was absent
#         hidden        acknowledged writes that some node does not show in the end, and another does
# Not here: what happens meanwhile to those who answer (the scripts).

import contextlib
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import trio

from .balancer import Answer, Ask, BrokenOffError, CutError
from .nodes import percentile

CLIENTS: Final = 8
THINK_S: Final = 0.05
WRITES_EACH: Final = 20
"""A session is left alone after so many writes."""
AUDITORS: Final = 8
TRIES: Final = 5
"""In the end, of a node that answers an error."""


@dataclass(eq=False)
class Basket:
    """One session, as the client knows it."""

    cookies: dict[str, str] = field(default_factory=dict)
    acknowledged: dict[str, str] = field(default_factory=dict)
    in_doubt: dict[str, str] = field(default_factory=dict)
    """Writes without an answer: they may be there, or not."""

    def missing(self, seen: Mapping[str, Any]) -> set[str]:
        """Return the acknowledged writes that an answer lacks."""
        return {key for key, value in self.acknowledged.items() if seen.get(key) != value}

    def keep_cookies(self, answer: Answer) -> None:
        """Do with Set-Cookie what a browser does."""
        for name, line in answer.headers:
            if name == "set-cookie":
                cookie, _, value = line.partition(";")[0].partition("=")
                self.cookies[cookie] = value


@dataclass
class Tally:
    """What all clients were told; see the head of this module for the words."""

    acknowledged: int = 0
    lost: int = 0
    hidden: int = 0
    absent: int = 0
    stale: int = 0
    untold: int = 0
    """Of the stale answers, those that did not say so themselves."""
    doubted: int = 0
    """Nobody could say in time whether a copy is the newest: right where a holder was killed, and nowhere else."""
    hurt: bool = False
    """A holder was killed meanwhile, or out of reach."""
    invented: int = 0
    """Answers that showed what nobody wrote into that session."""
    errors: int = 0
    """Answers of 500 and above that a node gave, and requests that found nobody."""
    unavailable: int = 0
    """503: the node could not find out in time whether the session exists."""
    cut: int = 0
    """Writes under way at a node that died: not acknowledged, and perhaps carried out."""
    broken_off: int = 0
    """Answers that ended in the midst: right where a node was killed that was giving one, and nowhere else."""
    requests: int = 0
    took_s: list[float] = field(default_factory=list)
    """Of every request that was answered 200."""
    baskets: list[Basket] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What went wrong, in words, the first few."""

    @property
    def clean(self) -> bool:
        """Nothing was missing, made up or refused.

        Where a holder was away, writes cut off with it are nobody's fault, and an answer may say itself that it may be
        old, or that nobody can tell in time: that is what is promised for a holder that does not answer.
        """
        wrong = (self.lost, self.hidden, self.absent, self.untold, self.invented, self.errors)
        doubts = (self.stale, self.doubted, self.unavailable, self.broken_off)
        return self.acknowledged > 0 and not any(wrong) and (self.hurt or not any(doubts))

    def judge(self, basket: Basket, key: str, seen: Mapping[str, Any], *, stale: bool) -> bool:
        """Count an answer of 200 by what it shows; `key` was written by its request, "" for none.

        Returns False where it shows that the session is gone. Then the client can only begin another one.
        """
        missing = basket.missing(seen)
        if missing and len(missing) == len(basket.acknowledged):
            self.absent += 1
            self.lost += len(missing)
            self.note(f"absent: {sorted(missing)}, shown {sorted(seen)}")
            self.baskets.remove(basket)
            return False
        if missing:
            self.stale += 1
            self.untold += not stale
            self.note(f"stale: without {sorted(missing)}, flagged: {stale}")
        elif stale:
            self.doubted += 1
        wrote = basket.acknowledged | basket.in_doubt
        if any(wrote.get(name) != value for name, value in seen.items()):
            self.invented += 1
            self.note(f"invented: {seen}")
        if key:
            self.acknowledge(basket, key)
        return True

    def acknowledge(self, basket: Basket, key: str) -> None:
        """Count a write that was answered: from here on it must be there."""
        if not basket.acknowledged:
            self.baskets.append(basket)
        basket.acknowledged[key] = basket.in_doubt.pop(key)
        self.acknowledged += 1

    def judge_end(self, basket: Basket, shown: Sequence[Mapping[str, Any]]) -> None:
        """Count what is missing in the end; `shown` is what each node shows of the session."""
        missing = [basket.missing(seen) for seen in shown]
        lost = set.intersection(*missing)
        hidden = set.union(*missing) - lost
        self.lost += len(lost)
        self.hidden += len(hidden)
        if lost or hidden:
            self.note(f"in the end: lost {sorted(lost)}, hidden {sorted(hidden)}")

    def note(self, what: str) -> None:
        """Remember what went wrong, if it is among the first."""
        if len(self.notes) < 10:
            self.notes.append(what)

    def figures(self) -> dict[str, object]:
        """Return what is worth printing; times in milliseconds."""
        names = ("acknowledged", "lost", "hidden", "absent", "stale", "untold", "invented", "errors", "unavailable")
        return {
            "clean": self.clean,
            **{name: getattr(self, name) for name in (*names, "doubted", "cut", "broken_off", "requests")},
            "sessions": len(self.baskets),
            **milliseconds(self.took_s),
            "notes": self.notes,
        }


def milliseconds(took_s: Sequence[float]) -> dict[str, float]:
    """Return the middle, the 99th percentile and the greatest of some times."""
    return {f"p{percent}_ms": round(percentile(took_s, percent) * 1e3, 1) for percent in (50, 99, 100)}


class Shopper:
    """One client."""

    def __init__(self, number: int, ask: Ask, tally: Tally, think_s: float, rng: random.Random) -> None:
        self._number = number
        self._ask = ask
        self._tally = tally
        self._think_s = think_s
        self._rng = rng
        self._basket = Basket()
        self._writes = 0

    async def run(self) -> None:
        """Make requests until cancelled."""
        while True:
            await trio.sleep(self._rng.uniform(0, 2 * self._think_s))
            with trio.CancelScope(shield=True):  # else the last write of each would be in doubt
                await self._step()

    async def _step(self) -> None:
        if len(self._basket.acknowledged) >= WRITES_EACH:
            self._basket = Basket()
        if not self._basket.cookies or self._rng.random() < 0.5:
            self._writes += 1
            key = f"k{self._number}.{self._writes}"
            await self._request("POST", f"/write?key={key}&value={key}.v", key)
        else:
            await self._request("GET", "/", "")

    async def _request(self, method: str, path: str, key: str) -> None:
        tally, basket = self._tally, self._basket
        tally.requests += 1
        began_s = trio.current_time()
        if key:
            basket.in_doubt[key] = f"{key}.v"
        try:
            answer = await self._ask(method, path, basket.cookies)
        except BrokenOffError:
            tally.broken_off += 1
            return
        except (OSError, CutError) as error:
            tally.errors += 1
            tally.note(f"{method}: {error!r}")
            return
        if answer.status == 200:
            tally.took_s.append(trio.current_time() - began_s)
            told = answer.json()
            basket.keep_cookies(answer)
            if not tally.judge(basket, key, told["seen"], stale=told["stale"]):
                self._basket = Basket()
        elif answer.cut:
            tally.cut += 1
        elif answer.status == 503:
            tally.unavailable += 1
        else:
            tally.errors += 1
            tally.note(f"{method}: {answer.status} {answer.body[:200]!r}")


@contextlib.asynccontextmanager
async def open_shop(ask: Ask, rng: random.Random, clients: int = CLIENTS) -> AsyncIterator[Tally]:
    """Have so many clients ask there as long as the block runs; what they were told is in the tally."""
    tally = Tally()
    async with trio.open_nursery() as nursery:
        for number in range(clients):
            nursery.start_soon(Shopper(number, ask, tally, THINK_S, random.Random(rng.getrandbits(64))).run)
        yield tally
        nursery.cancel_scope.cancel()


async def audit(tally: Tally, nodes: Sequence[Ask]) -> None:
    """Look for every acknowledged write on every node, once nobody writes any more."""
    ahead = iter(tally.baskets)

    async def work() -> None:
        for basket in ahead:
            tally.judge_end(basket, [await seen_by(ask, basket.cookies) for ask in nodes])

    async with trio.open_nursery() as nursery:
        for _ in range(AUDITORS):
            nursery.start_soon(work)


async def seen_by(ask: Ask, cookies: Mapping[str, str]) -> dict[str, Any]:
    """Return what an answer shows of a session; after a few errors, nothing."""
    for _ in range(TRIES):
        try:
            answer = await ask("GET", "/", cookies)
        except (OSError, CutError):
            continue
        if answer.status == 200:
            seen: dict[str, Any] = answer.json()["seen"]
            return seen
        await trio.sleep(0.2)
    return {}
