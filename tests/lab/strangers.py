# Strangers: two applications on one network, and under one DNS name, never mix; and each of them says so once.
#
# One round: two deployments start at the same moment, find each other by the same means, and differ in one thing:
#
#   cluster    the name of the cluster (GOSSIPSESS_CLUSTER), under the same secret, as two applications of one team do
#   secret     the secret, under the same name
#   nothing    the control: those are one cluster
#
# `--by` is as in form.py. Each is to become a cluster of its own pods, and to stay one; a session of one is none at the
# other; and each application says in its log, once in each process, that there is a stranger and what to do if that is
# not meant. Then a pod of one gets the address that a pod of the other has had: its former peers must not take it in.
#
# Clean means: nobody ever counted a stranger as a peer, no session was shown by the other application, and each log
# says it once.
#
# From the repository's root: python -m tests.lab.strangers --differ secret --by dns

import sys
from collections.abc import Sequence
from typing import Any, Final, Literal, get_args

import trio

from ..chaos.balancer import CutError
from ..chaos.fleet import run_script, script_parser
from ..chaos.shoppers import seen_by
from ..e2e.harness import START_S, ScenarioError
from .form import By, add_shape
from .lab import Deployment, open_lab
from .pod import App

Differ = Literal["cluster", "secret", "nothing"]

WATCH_S: Final = 15.0
"""For so long both are watched, twice; lookups, beacons and dials come several times within."""
LOOK_S: Final = 0.5
SAYS: Final = "has another secret or is of another cluster"
SERVICE: Final = "gossipsess"
"""Of both: two applications in one namespace that were given the same one."""


async def play(
    differ: Differ,
    by: By = "dns",
    nodes: int = 2,
    *,
    app: App = "starlette",
    version: Literal[4, 6] = 4,
    watch_s: float = WATCH_S,
) -> dict[str, Any]:
    """Start two deployments of so many pods each on one network; return the figures.

    Raises:
        ScenarioError: an application did not come up, or did not meet its own.
    """
    async with open_lab(version) as lab:
        lab.network.faults.multicast = by != "dns"
        await lab.network.apply()
        has_records = by in ("dns", "both")
        shop = lab.new_deployment("shop", service=SERVICE, has_records=has_records, app=app)
        blog = lab.new_deployment(
            "blog",
            service=SERVICE,
            has_records=has_records,
            app=app,
            secret="another" if differ == "secret" else "shared",
            environ={} if differ == "cluster" else {"GOSSIPSESS_CLUSTER": "shop"},
        )
        both = (shop, blog)
        async with trio.open_nursery() as nursery:
            for one in both:
                nursery.start_soon(one.start, nodes)
        for one in both:
            if differ != "nothing":
                await one.wait_linked(START_S)
        mixed = await _watched(both, watch_s)
        shown = await _shown_by_the_other(shop, blog)
        # An address goes from one application to the other, while its former peers still ask for it.
        heir_of = blog.pods[-1].address
        await blog.kill(blog.pods[-1])
        await shop.create(heir_of)
        mixed += await _watched(both, watch_s)
        if differ != "nothing":
            await shop.wait_linked(START_S)
        said = {pod.name: pod.says(SAYS) for one in both for pod in one.pods}
        once = all(count == pod.nodes for one in both for pod in one.pods for count in [pod.says(SAYS)])
        return {
            "clean": not mixed and not shown and once,
            "differ": differ,
            "by": by,
            "app": app,
            "ip": version,
            "nodes": nodes,
            "mixed": mixed,
            "shown_by_the_other": shown,
            "said": said,
        }


async def _watched(both: Sequence[Deployment], seconds: float) -> int:
    """Look for so long at whom each node counts as a peer; return how often that was a pod of the other deployment."""
    mixed = 0
    with trio.move_on_after(seconds):
        while True:
            for one in both:
                for pod in one.pods:
                    try:
                        peers = (await pod.status())["peers"]
                    except (OSError, CutError) as error:
                        raise ScenarioError(f"{pod.name} gives no answer") from error
                    mixed += not all(peer.startswith(f"{one.name}-") for peer in peers)
            await trio.sleep(LOOK_S)
    return mixed


async def _shown_by_the_other(one: Deployment, other: Deployment) -> int:
    answer = await one.pods[0].ask("POST", "/write?key=user_id&value=kim", {})
    cookies = {
        name: value
        for header, line in answer.headers
        if header == "set-cookie"
        for name, _, value in [line.partition(";")[0].partition("=")]
    }
    return sum([bool(await seen_by(pod.ask, cookies)) for pod in other.pods])


def main(arguments: Sequence[str] | None = None) -> int:
    """Play it; return 1 if it was not clean."""
    parser = script_parser(
        "strangers",
        "Start two applications on one network that differ in the cluster's name or the secret, and see that they "
        "never mix. Prints one line of JSON; exit code 1 if they did, or did not say so once.",
        "--differ secret --by dns",
        control="With --differ nothing they are one cluster.",
        package="tests.lab",
        nodes=(2, "pods of each"),
        seconds=300,
    )
    add_shape(parser)
    parser.add_argument("--differ", choices=get_args(Differ), default="cluster", help="in what (%(default)s)")
    parser.add_argument("--by", choices=("dns", "multicast", "both"), default="dns", help="what the network offers")
    options = parser.parse_args(arguments)
    return run_script(
        "strangers",
        options.seconds,
        lambda: play(options.differ, options.by, options.nodes, app=options.app, version=options.ip),
    )


if __name__ == "__main__":
    sys.exit(main())
