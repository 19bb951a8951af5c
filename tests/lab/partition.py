# Partition: a cluster is cut in two, both sides go on, and when they meet again everything is as it should be.
#
# Five pods, {3,2}, a front for each side with the pods of that side only. Nothing passes between the sides for a
# minute; the fronts and the name server are reached from both, as where a network between two zones fails. Meanwhile
#
#   shoppers   use each side as if nothing had happened (see shoppers.py)
#   twins      browsers with the same cookies, one on each side: each writes keys of its own into one session
#   leavers    the same, and one of the two logs out. The other side cannot know, and goes on until they meet
#   sleepers   logged in before, and come back to both sides in the middle of it
#
# After the heal all must be linked and all holders equal within 20 s. Then, asked at every pod: nothing that was
# acknowledged on either side is missing, no session is gone that nobody ended, and who logged out is out.
#
# A session that was begun on one side may have its copies on the other. While those do not answer, or are taken for
# dead, nobody can say whether it exists: 503, with the cookie untouched (unavailable). That is no logout, and it ends
# with the partition; it is counted and told. (Who wants to log out there tries again.) Nor is an answer one that says
# itself that it may be old. Where nothing is cut (--no-cut), no answer may be either.
#
# From the repository's root: python -m tests.lab.partition --cut-seconds 60

import random
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import trio

from gossipsess.protocol.reads import UNTOKENED_S

from ..chaos.balancer import Answer, Ask, CutError
from ..chaos.fleet import NEVER_MEET, run_script, script_parser
from ..chaos.shoppers import Basket, audit, open_shop, seen_by
from ..e2e.harness import ScenarioError
from .form import add_shape
from .lab import open_lab, wait_equal, wait_linked
from .pod import App
from .pods import DISCOVERIES

PAIRS: Final = 16
"""Of twins, as many of leavers, half of which log out on each side, and as many of sleepers."""
CLIENTS: Final = 4
"""Shoppers on each side."""
THINK_S: Final = 1.5
"""Of a twin."""
CUT_S: Final = 60.0
EQUAL_S: Final = 20.0
BEFORE_S: Final = 2.0
TRY_EVERY_S: Final = 0.25


class Pair:
    """One session with a browser on each side.

    Attributes:
        session_id: what both sent at first; a browser whose session has ended gets another one.
        leaves_on: the side where somebody logs out; None: nobody does.
        ends: somebody is about to.
        ended: somebody has: the answer said so.
    """

    def __init__(self, number: int, leaves_on: int | None) -> None:
        self.number = number
        self.leaves_on = leaves_on
        self.baskets = (Basket(), Basket())
        self.session_id = ""
        self.ends = False
        self.ended = False

    @property
    def acknowledged(self) -> dict[str, str]:
        """All that was answered 200, on either side."""
        return self.baskets[0].acknowledged | self.baskets[1].acknowledged


class Pairs:
    """All of them, and what they were told."""

    def __init__(self, sides: tuple[Ask, Ask], rng: random.Random) -> None:
        self.twins = [Pair(number, None) for number in range(PAIRS)]
        self.leavers = [Pair(number, number // 2 % 2) for number in range(PAIRS)]
        self.sleepers = [Pair(number, None) for number in range(PAIRS)]
        self.writes = 0
        self.returns = 0
        """Of sleepers, that were answered 200."""
        self.unavailable = 0
        self.errors = 0
        self.logged_out_early = 0
        """Answers that showed nothing of a session that its side had acknowledged writes of, and nobody had ended."""
        self.notes: list[str] = []
        self._sides = sides
        self._rng = rng

    async def begin(self) -> None:
        """Log each pair in, on one side or the other, and show the other browser its cookies."""
        for pair in [*self.twins, *self.leavers, *self.sleepers]:
            side = pair.number % 2
            if not await self._write(pair, side, "user_id"):
                raise ScenarioError("a login failed before anything was cut")
            one, other = pair.baskets[side], pair.baskets[1 - side]
            other.cookies |= one.cookies
            other.acknowledged |= one.acknowledged
            pair.session_id = one.cookies["session"]

    async def run(self) -> None:
        """Have both browsers of each pair write until cancelled; each request is ended."""
        async with trio.open_nursery() as nursery:
            for pair in [*self.twins, *self.leavers]:
                for side in (0, 1):
                    nursery.start_soon(self._go_on, pair, side)

    async def leave(self, pair: Pair) -> None:
        """Log out one of the leavers, however often that takes: its holders may be out of reach."""
        assert pair.leaves_on is not None
        pair.ends = True
        while not pair.ended:
            answer = await self._asked(pair.leaves_on, "POST", "/logout", pair.baskets[pair.leaves_on])
            if answer is None or answer.status != 200:
                await trio.sleep(TRY_EVERY_S)
                continue
            pair.ended = True
            if not any(name == "set-cookie" and line.startswith("session=") for name, line in answer.headers):
                self.logged_out_early += 1
                self.note(f"pair {pair.number}: a logout on side {pair.leaves_on} found no session to end")

    async def wait_left(self, timeout_s: float) -> int:
        """Wait until all leavers are logged out, but not longer; return how many are not."""
        with trio.move_on_after(timeout_s):
            while not all(pair.ended for pair in self.leavers):  # noqa: ASYNC110  # whoever comes last
                await trio.sleep(TRY_EVERY_S)
        return sum(not pair.ended for pair in self.leavers)

    async def come_back(self) -> None:
        """Have each sleeper load a page on both sides."""
        for pair in self.sleepers:
            for side in (0, 1):
                answer = await self._asked(side, "GET", "/", pair.baskets[side])
                if answer is not None and answer.status == 200:
                    self.returns += 1
                    self._judge(pair, side, answer.json()["seen"])

    async def audit(self, pods: Sequence[Ask]) -> dict[str, int]:
        """Ask every pod for every session; return what was found wrong."""
        found = {"twins_gone": 0, "twins_lack": 0, "resurrected": 0}
        for pair in [*self.twins, *self.leavers, *self.sleepers]:
            for ask in pods:
                seen = await seen_by(ask, {"session": pair.session_id})
                if pair.ends:
                    found["resurrected"] += bool(seen)
                    continue
                lacks = {key for key, value in pair.acknowledged.items() if seen.get(key) != value}
                found["twins_gone"] += not seen
                found["twins_lack"] += len(lacks)
                if lacks:
                    self.note(f"pair {pair.number} lacks {sorted(lacks)[:5]} of {len(pair.acknowledged)}")
        return found

    def note(self, what: str) -> None:
        """Remember what went wrong, if it is among the first."""
        if len(self.notes) < 10:
            self.notes.append(what)

    async def _go_on(self, pair: Pair, side: int) -> None:
        count = 0
        while True:
            await trio.sleep(self._rng.uniform(0, 2 * THINK_S))
            if pair.ends and side == pair.leaves_on:
                return  # this browser is logged out
            count += 1
            with trio.CancelScope(shield=True):
                await self._write(pair, side, f"side{side}.{count}")

    async def _write(self, pair: Pair, side: int, key: str) -> bool:
        basket = pair.baskets[side]
        answer = await self._asked(side, "POST", f"/write?key={key}&value={key}.v", basket)
        if answer is None or answer.status != 200:
            return False
        self.writes += 1
        self._judge(pair, side, answer.json()["seen"])
        basket.acknowledged[key] = f"{key}.v"
        return True

    def _judge(self, pair: Pair, side: int, seen: Mapping[str, Any]) -> None:
        before = pair.baskets[side].acknowledged
        if before and not pair.ends and all(seen.get(name) != value for name, value in before.items()):
            self.logged_out_early += 1
            self.note(f"pair {pair.number}: an answer on side {side} shows {sorted(seen)} of {len(before)} keys")

    async def _asked(self, side: int, method: str, path: str, basket: Basket) -> Answer | None:
        try:
            answer = await self._sides[side](method, path, basket.cookies)
        except (OSError, CutError) as error:
            self.errors += 1
            self.note(f"{method} on side {side}: {error!r}")
            return None
        if answer.status == 503:
            self.unavailable += 1
        elif answer.status != 200:
            self.errors += 1
            self.note(f"{method} on side {side}: {answer.status} {answer.body[:100]!r}")
        elif path != "/logout":
            basket.keep_cookies(answer)
        return answer


async def play(
    cut_s: float = CUT_S,
    sizes: tuple[int, int] = (3, 2),
    *,
    cut: bool = True,
    before_s: float = BEFORE_S,
    seed: int = 1,
    discovery: str = "auto",
    app: App = "starlette",
    version: Literal[4, 6] = 4,
) -> dict[str, Any]:
    """Cut a cluster in two for so long under load; return the figures.

    With discovery "none" the pods never meet: that is the control, in which nearly everything is missing on the other
    side. Without `cut` nobody may notice anything at all.

    Raises:
        ScenarioError: an application did not come up, or the nodes were not equal in time.
    """
    rng = random.Random(seed)
    async with open_lab(version) as lab:
        lab.network.faults.multicast = False
        await lab.network.apply()
        shop = lab.new_deployment(app=app, environ={"GOSSIPSESS_DISCOVERY": discovery})
        pods = await shop.start(sum(sizes))
        sides = pods[: sizes[0]], pods[sizes[0] :]
        fronts = [await lab.new_front(name) for name in ("left", "right")]
        for front, side in zip(fronts, sides, strict=True):
            for pod in side:
                await front.put_in(pod.address)
        if discovery != "none":
            await shop.wait_linked()
        pairs = Pairs((fronts[0].ask, fronts[1].ask), rng)
        await pairs.begin()
        async with (
            open_shop(fronts[0].ask, rng, CLIENTS) as left,
            open_shop(fronts[1].ask, rng, CLIENTS) as right,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(pairs.run)
            await trio.sleep(before_s)
            if cut:
                await lab.network.part(*([pod.address for pod in side] for side in sides))
            began_s = time.monotonic()
            half = len(pairs.leavers) // 2
            for pair in pairs.leavers[:half]:  # while nobody knows yet that the others are out of reach
                nursery.start_soon(pairs.leave, pair)
            await trio.sleep(max(0.0, began_s + cut_s / 2 - time.monotonic()))
            await pairs.come_back()
            for pair in pairs.leavers[half:]:
                nursery.start_soon(pairs.leave, pair)
            await trio.sleep(max(0.0, began_s + cut_s - time.monotonic()))
            await lab.network.heal()
            healed_s = time.monotonic()
            if discovery != "none":
                await wait_linked(pods, EQUAL_S)
            linked_s = time.monotonic() - healed_s
            refused = await pairs.wait_left(EQUAL_S if discovery != "none" else 0.0)
            nursery.cancel_scope.cancel()
        if discovery != "none":
            await wait_equal(pods, max(0.1, EQUAL_S - (time.monotonic() - healed_s)))
        equal_s = time.monotonic() - healed_s
        await trio.sleep(UNTOKENED_S)  # for so long a copy is served without asking a holder
        found = await pairs.audit([pod.ask for pod in pods])
        tallies = {"left": left, "right": right}
        for tally in tallies.values():
            tally.hurt = cut
            await audit(tally, [pod.ask for pod in pods])
        kept = not any(found.values()) and not refused and not pairs.logged_out_early and not pairs.errors
        return {
            "clean": kept and (cut or not pairs.unavailable) and all(tally.clean for tally in tallies.values()),
            "app": app,
            "ip": version,
            "sides": list(sizes),
            "cut_s": cut_s if cut else 0,
            "linked_s": round(linked_s, 1),
            "equal_s": round(equal_s, 1),
            "twins": len(pairs.twins),
            "leavers": len(pairs.leavers),
            "writes": pairs.writes,
            "returns": pairs.returns,
            **found,
            "logouts_refused": refused,
            "logged_out_early": pairs.logged_out_early,
            "unavailable": pairs.unavailable,
            "errors": pairs.errors,
            "notes": pairs.notes,
            **{side: tally.figures() for side, tally in tallies.items()},
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Play it; return 1 if it was not clean."""
    parser = script_parser(
        "partition",
        "Cut a cluster in two under load on both sides, heal it, and look for every write, every login and every "
        "logout of either side. Prints one line of JSON; exit code 1 if one was missing, or undone.",
        "--cut-seconds 60",
        control=NEVER_MEET,
        package="tests.lab",
        nodes=(5, "pods; the smaller half on one side"),
        nodes_min=4,
        seconds=600,
        seed="what clients ask",
    )
    add_shape(parser)
    parser.add_argument("--cut-seconds", type=float, default=CUT_S, help="(default: %(default)s)")
    parser.add_argument(
        "--before-seconds",
        type=float,
        default=BEFORE_S,
        help="how long sleepers have rested when the cut comes; after a minute only holders have them (%(default)s)",
    )
    parser.add_argument("--no-cut", action="store_true", help="only look at the clients, while nothing is wrong")
    parser.add_argument("--discovery", choices=DISCOVERIES, default="auto", help="none: the control")
    options = parser.parse_args(arguments)
    return run_script(
        "partition",
        options.seconds,
        lambda: play(
            options.cut_seconds,
            (options.nodes - options.nodes // 2, options.nodes // 2),
            cut=not options.no_cut,
            before_s=options.before_seconds,
            seed=options.seed,
            discovery=options.discovery,
            app=options.app,
            version=options.ip,
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
