# Form: pods that are started at the same moment become one cluster, whatever the network has to offer.
#
# One round: a network, a name server, and pods that all start at once as the manifests say; so discovery is `auto`, and
# their environment tells that they are in Kubernetes. What is there to find each other by:
#
#   dns        multicast between pods is dropped, as a cloud does; the headless Service's name has their addresses
#   multicast  the name does not exist; multicast passes
#   silent     the name server answers nothing at all; multicast passes
#   both       both are there
#   neither    the control: nothing is there, and nobody must meet anybody
#
# The time counts from the first pod's start until every node is linked to every other and synced; the part of it that
# passed until the last application answered is told apart, since Python's own start is most of it.
#
# Clean means: in every round with something to find each other by, all met all in time; and in the others nobody did.
#
# From the repository's root: python -m tests.lab.form --rounds 3

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any, Final, Literal, get_args

import trio

from ..chaos.fleet import run_script, script_parser
from ..chaos.nodes import percentile
from ..e2e.harness import START_S
from .lab import open_lab
from .pod import App

By = Literal["dns", "multicast", "silent", "both", "neither"]

APART_S: Final = 15.0
"""For so long nobody may meet anybody in the control: beacons and lookups come several times within."""


async def play(
    by: By,
    rounds: int = 1,
    nodes: int = 5,
    *,
    app: App = "starlette",
    version: Literal[4, 6] = 4,
    lag_s: float = 0.0,
    loss: float = 0.0,
    apart_s: float = APART_S,
) -> dict[str, Any]:
    """Start so many pods at once, as often; return the figures.

    `version` is of IP; `lag_s` is how long a pod has been there when its record is, `loss` the share of
    packets between pods that is dropped, `apart_s` for how long nobody may meet anybody in the control.

    Raises:
        ScenarioError: an application did not come up.
    """
    met_s, serving_s, queries = [], [], 0
    for _ in range(rounds):
        async with open_lab(version) as lab:
            lab.network.faults.multicast = by not in ("dns", "neither")
            lab.network.faults.loss = loss
            await lab.network.apply()
            lab.dns.lag_s = lag_s
            if by == "silent":
                lab.dns.pause()
            shop = lab.new_deployment(has_records=by in ("dns", "both"), app=app)
            began_s = time.monotonic()
            await shop.start(nodes)
            serving_s.append(time.monotonic() - began_s)
            if by == "neither":
                await trio.sleep(apart_s)
                peers = [(await pod.status())["peers"] for pod in shop.pods]
                met_s += [0.0] if any(peers) else []
            else:
                await shop.wait_linked(START_S + lag_s)
                met_s.append(time.monotonic() - began_s)
            queries += lab.dns.queries(shop.service)
    times = {"met_p50_s": percentile(met_s, 50), "met_max_s": max(met_s)} if met_s else {}
    return {
        "clean": len(met_s) == (0 if by == "neither" else rounds),
        "by": by,
        "app": app,
        "ip": version,
        "nodes": nodes,
        "lag_s": lag_s,
        "loss": loss,
        "rounds": rounds,
        "met": len(met_s),
        **{name: round(value, 2) for name, value in times.items()},
        "serving_max_s": round(max(serving_s), 2),
        "dns_queries": queries,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Play it; return 1 if it was not clean."""
    parser = script_parser(
        "form",
        "Start pods at the same moment, and see whether all meet all by what the network offers. Prints one line of "
        "JSON; exit code 1 if they did not.",
        "--by dns --rounds 3",
        control="With --by neither nobody may meet anybody.",
        package="tests.lab",
        rounds=(3, "networks, each with pods of its own"),
        nodes=(5, "pods"),
        seconds=600,
    )
    add_shape(parser)
    parser.add_argument("--by", choices=get_args(By), default="dns", help="what the network offers")
    parser.add_argument("--lag", type=float, default=0.0, help="seconds from a pod's start to its record")
    parser.add_argument("--loss", type=float, default=0.0, help="share of packets between pods that is dropped")
    options = parser.parse_args(arguments)
    return run_script(
        "form",
        options.seconds,
        lambda: play(
            options.by,
            options.rounds,
            options.nodes,
            app=options.app,
            version=options.ip,
            lag_s=options.lag,
            loss=options.loss,
        ),
    )


def add_shape(parser: argparse.ArgumentParser) -> None:
    """Add what every script of the lab takes: which application, and which IP."""
    parser.add_argument("--app", choices=get_args(App), default="starlette", help="flask: gunicorn with two workers")
    parser.add_argument("--ip", type=int, choices=(4, 6), default=4, help="version of all addresses")


def add_drain(parser: argparse.ArgumentParser) -> None:
    """Add how pods are ended in order."""
    parser.add_argument(
        "--drain",
        type=float,
        help="seconds that the preStop hook takes at least; 0: none, SIGTERM alone (default: what the manifests say)",
    )


if __name__ == "__main__":
    sys.exit(main())
