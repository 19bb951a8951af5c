# Pods: the pod that answered is deleted, and whoever logged in there is still logged in.
#
# One round: somebody logs in through the front, which sends each request to the next pod. The pod that answered is
# deleted (SIGTERM and grace; --kill: none), and at the same moment another one is started in its place, with another
# name and another address, as a Deployment does it. Then the page is loaded again and again: at once, and once the new
# pod serves by each pod in turn. Logins of earlier rounds are looked for in the end, on every pod.
#
# Multicast between pods is dropped, and the name server's records lag behind reality: a pod that is gone is told for
# so long, and a new one is not. So most of what a new pod is told is wrong. What is right is that a name tells of one
# living pod at least: where the deletions outran the records, the next one waits until these tell of two.
#
# Clean means: every answer showed the login, under the same id, and none was an error or stale. With --kill an answer
# that lacks nothing may say that it might.
#
# From the repository's root: python -m tests.lab.pods --rounds 50

import sys
import time
from collections.abc import Sequence
from typing import Any, Final, Literal

import trio

from ..chaos.balancer import Answer, CutError
from ..chaos.fleet import NEVER_MEET, run_script, script_parser, until
from ..chaos.nodes import percentile
from ..chaos.shoppers import Basket
from .form import add_drain, add_shape
from .front import Front
from .lab import Deployment, Lab, open_lab
from .pod import App, Pod

USER: Final = "user_id"
"""A login: under this key the session gets another id, as everybody expects of one."""
TOLD_LIVING_MIN: Final = 2
LAG_S: Final = 30.0
DISCOVERIES: Final = ("auto", "none")


class Reloads:
    """What the browsers saw."""

    def __init__(self) -> None:
        self.hurt = False
        """A holder was killed: an answer that lacks nothing may say that it might."""
        self.loads = 0
        self.lost = 0
        self.other_id = 0
        self.stale = 0
        self.doubted = 0
        self.errors = 0
        self.notes: list[str] = []

    @property
    def clean(self) -> bool:
        """Nobody noticed anything."""
        return (
            self.loads > 0
            and not (self.lost or self.other_id or self.stale or self.errors)
            and (self.hurt or not self.doubted)
        )

    def judge(self, basket: Basket, answer: Answer | Exception, when: str) -> None:
        """Count an answer to a reload."""
        self.loads += 1
        if isinstance(answer, Exception) or answer.status != 200:
            self.errors += 1
            said = answer if isinstance(answer, Exception) else (answer.status, answer.body[:100])
            self._note(f"{when}: {said!r}")
            return
        session_id = basket.cookies["session"]
        basket.keep_cookies(answer)
        told = answer.json()
        lost = basket.missing(told["seen"])
        self.lost += bool(lost)
        self.stale += told["stale"] and bool(lost)
        self.doubted += told["stale"] and not lost
        self.other_id += basket.cookies["session"] != session_id
        if lost or told["stale"] or basket.cookies["session"] != session_id:
            self._note(f"{when}: by {told['replica']}, lacks {sorted(lost)}, stale: {told['stale']}")

    def _note(self, what: str) -> None:
        if len(self.notes) < 10:
            self.notes.append(what)


async def play(
    rounds: int,
    nodes: int = 3,
    *,
    lag_s: float = LAG_S,
    kill: bool = False,
    sticky: bool = False,
    discovery: str = "auto",
    drain_s: float | None = None,
    app: App = "starlette",
    version: Literal[4, 6] = 4,
) -> dict[str, Any]:
    """Delete so many pods, each time the one that has answered a login; return the figures.

    With discovery "none" the pods never meet: that is the control, in which logins are lost.

    Raises:
        ScenarioError: an application did not come up, or did not end.
    """
    reloads = Reloads()
    reloads.hurt = kill
    baskets: list[Basket] = []
    replaced_s: list[float] = []
    waited_s = 0.0
    async with open_lab(version) as lab:
        lab.network.faults.multicast = False
        await lab.network.apply()
        front = await lab.new_front(sticky=sticky)
        shop = lab.new_deployment(front=front, app=app, environ={"GOSSIPSESS_DISCOVERY": discovery}, drain_s=drain_s)
        await shop.start(nodes)
        if discovery != "none":
            await shop.wait_linked()
        lab.dns.lag_s = lag_s
        for number in range(rounds):
            began_s = time.monotonic()
            await _records_name_living(lab, shop, lag_s)
            waited_s += time.monotonic() - began_s
            basket = Basket(acknowledged={USER: f"user{number}"})
            answer = await front.ask("POST", f"/write?key={USER}&value=user{number}", {})
            basket.keep_cookies(answer)
            baskets.append(basket)
            [victim] = [pod for pod in shop.pods if pod.name == answer.json()["replica"]]
            began_s = time.monotonic()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(shop.create)
                await (shop.kill(victim) if kill else shop.delete(victim))
                reloads.judge(basket, await _loaded(front, basket), f"round {number}, at once")
            replaced_s.append(time.monotonic() - began_s)
            for _ in shop.pods:
                reloads.judge(basket, await _loaded(front, basket), f"round {number}, replaced")
        for pod in shop.pods:
            for number, basket in enumerate(baskets):
                reloads.judge(basket, await _loaded(pod, basket), f"in the end, of round {number}")
        return {
            "clean": reloads.clean and not shop.undrained,
            "app": app,
            "ip": version,
            "nodes": nodes,
            "deleted": rounds,
            "grace": not kill,
            "sticky": sticky,
            "lag_s": lag_s,
            "loads": reloads.loads,
            "lost": reloads.lost,
            "other_id": reloads.other_id,
            "stale": reloads.stale,
            "doubted": reloads.doubted,
            "errors": reloads.errors,
            "undrained": shop.undrained,
            "notes": reloads.notes,
            "replaced_p50_s": round(percentile(replaced_s, 50), 2),
            "replaced_max_s": round(max(replaced_s), 2),
            "waited_for_records_s": round(waited_s, 1),
        }


async def _loaded(asked: Front | Pod, basket: Basket) -> Answer | Exception:
    try:
        return await asked.ask("GET", "/", basket.cookies)
    except (OSError, CutError) as error:
        return error


async def _records_name_living(lab: Lab, shop: Deployment, lag_s: float) -> None:
    """Wait until the name service tells of enough living pods that one is left when one of them is deleted."""

    async def enough() -> bool:
        living = {pod.address for pod in shop.pods}
        return len(living & set(lab.dns.addresses(shop.service))) >= min(TOLD_LIVING_MIN, len(living))

    await until(enough, "records tell of living pods", lag_s + 5)


def main(arguments: Sequence[str] | None = None) -> int:
    """Play it; return 1 if it was not clean."""
    parser = script_parser(
        "pods",
        "Log in through the front, delete the pod that answered, and load the page again; pods come and go under "
        "records that lag behind. Prints one line of JSON; exit code 1 if a login was lost, got another id, or a load "
        "failed.",
        "--rounds 50",
        control=NEVER_MEET,
        package="tests.lab",
        rounds=(50, "pods deleted, each replaced"),
        nodes=(3, "pods at a time"),
        seconds=3000,
    )
    add_shape(parser)
    parser.add_argument("--kill", action="store_true", help="delete without grace: kill -9")
    parser.add_argument("--sticky", action="store_true", help="the front sends one client to one pod while it lives")
    parser.add_argument("--lag", type=float, default=LAG_S, help="seconds from a change to its record (%(default)s)")
    add_drain(parser)
    parser.add_argument("--discovery", choices=DISCOVERIES, default="auto", help="none: the control")
    options = parser.parse_args(arguments)
    return run_script(
        "pods",
        options.seconds,
        lambda: play(
            options.rounds,
            options.nodes,
            lag_s=options.lag,
            kill=options.kill,
            sticky=options.sticky,
            discovery=options.discovery,
            drain_s=options.drain,
            app=options.app,
            version=options.ip,
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
