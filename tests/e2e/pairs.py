# You read what you wrote, on any replica, with a plain round-robin balancer.
#
# A pair: log in through nginx, and read at once through nginx. Several browsers do that at the same time on two
# live apps; every second pair starts a brand-new session, the others log in again within an old one. A read is
# stale if it does not show the login just made, and flagged if the app was told that it may be stale.
# Pairs whose write and read were served by two different apps are counted: without them nothing is shown.
#
# From the repository's root: python -m tests.e2e.pairs --pairs 2000 --clients 8

import argparse
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

import httpx2

from .harness import APPS, DISCOVERIES, FRAMEWORKS, Discovery, Framework, Site
from .kill import answer_of

CROSSED_SHARE_MIN: Final = 0.25
"""With two apps and several browsers about half of the pairs cross; far fewer, and the balancer did not balance."""


class Pairs(NamedTuple):
    """What was seen in a number of pairs."""

    pairs: int
    crossed: int
    """The write and the read were served by different apps."""
    stale: int
    flagged: int

    @property
    def broken(self) -> bool:
        """A bound is broken: a stale or flagged read, or too few crossed pairs to tell."""
        return bool(self.stale or self.flagged or self.crossed < CROSSED_SHARE_MIN * self.pairs)


def play_pairs(framework: Framework, pairs: int, clients: int, discovery: Discovery = "static") -> Pairs:
    """Play `pairs` pairs with `clients` browsers at the same time.

    With discovery "none" the nodes never meet, so crossed reads are stale: that is the control. There browsers keep no
    version tokens: by these a node knows that there is another cluster, and answers 503.

    Raises:
        ScenarioError: a process did not come up, or the nodes did not find each other.
        HTTPStatusError: an app answered with an error.
    """
    with Site(APPS[framework], discovery) as site:
        site.start_all()
        if discovery != "none":
            site.wait_joined(0)
            site.wait_joined(1)
        with ThreadPoolExecutor(clients) as pool:
            shares = [range(start, pairs, clients) for start in range(clients)]
            played = [pool.submit(_play, site, share, tokens=discovery != "none") for share in shares]
            return Pairs(*(sum(figures) for figures in zip(*(one.result() for one in played), strict=True)))


def login_seen_on_the_other_port(framework: Framework, discovery: Discovery = "static") -> bool:
    """Log in on app 1's own port, open app 2's own port; return whether one is logged in there."""
    with Site(APPS[framework], discovery) as site, site.client() as browser:
        site.start_all()
        if discovery != "none":
            site.wait_joined(0)
        answer_of(browser.post(f"{site.app_urls[0]}/login", params={"user": "kim"}))
        return answer_of(browser.get(f"{site.app_urls[1]}/"))["user"] == "kim"


def _play(site: Site, numbers: Iterable[int], *, tokens: bool) -> Pairs:
    count = crossed = stale = flagged = 0
    with site.client() as regular:
        for number in numbers:
            count += 1
            if count % 2 == 0:  # a brand-new session
                with site.client() as newcomer:
                    written, read = _pair(newcomer, number, tokens=tokens)
            else:
                written, read = _pair(regular, number, tokens=tokens)
            crossed += written["replica"] != read["replica"]
            stale += read["user"] != f"user {number}"
            flagged += bool(read["stale"])
    return Pairs(count, crossed, stale, flagged)


def _pair(browser: httpx2.Client, number: int, *, tokens: bool) -> tuple[dict[str, object], dict[str, object]]:
    written = answer_of(browser.post("/login", params={"user": f"user {number}"}))
    for name in [] if tokens else [name for name in browser.cookies if name.endswith("-v")]:
        browser.cookies.delete(name)
    return written, answer_of(browser.get("/"))


def main() -> int:
    """Play the pairs asked for; return 1 if a bound is broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.pairs", description="login and read at once, pairs")
    parser.add_argument("--framework", choices=FRAMEWORKS, action="append", help="default: each of them")
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--discovery", choices=DISCOVERIES, default="static")
    options = parser.parse_args()
    broken = False
    for framework in options.framework or FRAMEWORKS:
        seen = login_seen_on_the_other_port(framework, options.discovery)
        print(f"{framework}: login on app 1's own port, app 2's own port: {'logged in' if seen else 'LOST'}")
        began_s = time.monotonic()
        played = play_pairs(framework, options.pairs, options.clients, options.discovery)
        broken = broken or played.broken or not seen
        print(
            f"{framework}, {options.discovery}: {played.pairs} pairs, {options.clients} clients, "
            f"{played.crossed} crossed, {played.stale} stale, {played.flagged} flagged stale, "
            f"{time.monotonic() - began_s:.0f} s"
        )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
