# Rolling: a Deployment is updated under load, pod by pod, and nobody notices.
#
# One round: every pod that lives is replaced by one with another name and another address, in the order in which they
# were started. `--order new-first` starts the new one before the old one is ended (maxSurge 1, maxUnavailable 0), and
# `--order old-first` the other way round (0 and 1). With --kill, once in each round a further pod is killed -9 with all
# that is in it while one is being replaced, and gets a substitute, as a Deployment does it.
#
# Clients go through the front, which takes a pod out before SIGTERM and puts it in once it serves; of a kill it gets to
# know afterwards. A GET under way there is repeated at the next pod, a write is cut off and may have been carried out.
# Multicast between pods is dropped, and records lag behind.
#
# Clean means: no acknowledged write lost or hidden, no answer stale, and no error. With --kill a write may be cut, and
# an answer may say itself that it may be old (see shoppers.py).
#
# From the repository's root: python -m tests.lab.rolling --rounds 1 --order old-first

import random
import sys
from collections.abc import Sequence
from typing import Any, Final, Literal, get_args

import trio

from ..chaos.fleet import NEVER_MEET, run_script, script_parser
from ..chaos.shoppers import audit, open_shop
from .form import add_drain, add_shape
from .lab import Deployment, open_lab
from .pod import App, Pod
from .pods import DISCOVERIES

Order = Literal["new-first", "old-first"]

BETWEEN_S: Final = 0.5
"""From one pod's replacement to the next."""
KILL_WITHIN_S: Final = 2.0
"""Somewhere within another pod's replacement."""
LAG_S: Final = 5.0
NODES_WITH_KILL_MIN: Final = 3
"""Of two, one dies while the other is away: all is lost, whatever the library does."""


async def play(
    rounds: int,
    nodes: int = 6,
    *,
    order: Order = "new-first",
    kill: bool = False,
    seed: int = 1,
    lag_s: float = LAG_S,
    discovery: str = "auto",
    drain_s: float | None = None,
    app: App = "starlette",
    version: Literal[4, 6] = 4,
) -> dict[str, Any]:
    """Update a deployment of so many pods as often; return the figures.

    With discovery "none" the pods never meet: that is the control, in which nearly everything is lost.

    Raises:
        ScenarioError: an application did not come up, or did not end.
    """
    rng = random.Random(seed)
    kills, serving_s = 0, []
    async with open_lab(version) as lab:
        lab.network.faults.multicast = False
        await lab.network.apply()
        front = await lab.new_front()
        shop = lab.new_deployment(front=front, app=app, environ={"GOSSIPSESS_DISCOVERY": discovery}, drain_s=drain_s)
        await shop.start(nodes)
        if discovery != "none":
            await shop.wait_linked()
        lab.dns.lag_s = lag_s
        async with open_shop(front.ask, rng) as tally:
            for _ in range(rounds):
                old = list(shop.pods)
                strike_at = rng.randrange(len(old) - 1)
                for number, pod in enumerate(old):
                    if not pod.running:
                        continue  # it was killed, and has its substitute
                    await trio.sleep(BETWEEN_S)
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(_replace, shop, pod, order)
                        if kill and number == strike_at:
                            victim = rng.choice(old[number + 1 :])
                            nursery.start_soon(_strike, shop, victim, rng.uniform(0, KILL_WITHIN_S))
                            kills += 1
                serving_s += [pod.started_s for pod in shop.pods]
            await trio.sleep(BETWEEN_S)
        tally.hurt = kills > 0
        await audit(tally, [pod.ask for pod in shop.pods])
        return {
            "order": order,
            "app": app,
            "ip": version,
            "nodes": nodes,
            "rollouts": rounds,
            "kills": kills,
            "lag_s": lag_s,
            "undrained": shop.undrained,
            **tally.figures(),
            "clean": tally.clean and (kill or not shop.undrained),
            "start_max_s": round(max(serving_s), 2),
        }


async def _replace(shop: Deployment, pod: Pod, order: Order) -> None:
    if order == "new-first":
        await shop.create()
        await shop.delete(pod)
    else:
        await shop.delete(pod)
        await shop.create()


async def _strike(shop: Deployment, pod: Pod, after_s: float) -> None:
    await trio.sleep(after_s)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shop.kill, pod)
        nursery.start_soon(shop.create)


def main(arguments: Sequence[str] | None = None) -> int:
    """Play it; return 1 if it was not clean."""
    parser = script_parser(
        "rolling",
        "Update a deployment pod by pod under load, behind a front that takes each out before SIGTERM and puts its "
        "successor in when it is ready. Prints one line of JSON; exit code 1 if an acknowledged write was lost or "
        "stale, or a request failed.",
        "--rounds 1 --order old-first --kill",
        control=NEVER_MEET,
        package="tests.lab",
        rounds=(1, "updates of the whole deployment"),
        nodes=(6, "pods"),
        seconds=900,
        seed="who is killed and when, and what clients ask",
    )
    add_shape(parser)
    parser.add_argument("--order", choices=get_args(Order), default="new-first", help="(%(default)s)")
    parser.add_argument(
        "--kill",
        action="store_true",
        help=f"kill -9 another pod once in each update; takes {NODES_WITH_KILL_MIN} --nodes or more",
    )
    parser.add_argument("--lag", type=float, default=LAG_S, help="seconds from a change to its record (%(default)s)")
    add_drain(parser)
    parser.add_argument("--discovery", choices=DISCOVERIES, default="auto", help="none: the control")
    options = parser.parse_args(arguments)
    if options.kill and options.nodes < NODES_WITH_KILL_MIN:
        parser.error(
            f"argument --nodes: with --kill {NODES_WITH_KILL_MIN} or more: one is killed while another is away"
        )
    return run_script(
        "rolling",
        options.seconds,
        lambda: play(
            options.rounds,
            options.nodes,
            order=options.order,
            kill=options.kill,
            seed=options.seed,
            lag_s=options.lag,
            discovery=options.discovery,
            drain_s=options.drain,
            app=options.app,
            version=options.ip,
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
