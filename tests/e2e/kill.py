# A login survives kill -9, seen from a browser behind nginx.
#
# One round: app 1 is up, log in and put something in the cart; app 2 comes up and is given no request; kill -9
# app 1; reload. Kept means: the same session id, the same login, the same cart, not flagged stale, and served by
# app 2. Every round has apps, ports and nginx of its own.
#
# With ip_hash, app 1 is the one to which nginx sticks this browser, so that the reload must move.
#
# From the repository's root: python -m tests.e2e.kill --framework flask --rounds 50

import argparse
import sys
import time
from typing import NamedTuple

import httpx2

from .harness import APPS, BALANCES, DISCOVERIES, FRAMEWORKS, Balance, Discovery, Framework, Site


class Round(NamedTuple):
    """How one round ended."""

    lost: str
    """What the browser lost; "" for nothing."""
    joined_s: float
    """How long after app 2 was up app 1 counted its node as linked, seconds; 0 where it never does."""


def kill_round(framework: Framework, discovery: Discovery = "static", balance: Balance = "round_robin") -> Round:
    """Play one round. With discovery "none" the nodes never meet, so the login is lost: that is the control.

    Raises:
        ScenarioError: a process did not come up, or the nodes did not find each other.
    """
    with Site(APPS[framework], discovery, balance) as site, site.client() as browser:
        first = site.sticky_index() if balance == "ip_hash" else 0
        app = site.start_app(first)
        response = browser.post("/login", params={"user": "kim"})
        answer_of(response)
        if balance == "ip_hash":
            assert response.headers["X-Upstreams"] in site.app_urls[first], "nginx does not stick to app 1"
        before = answer_of(browser.post("/cart/add", params={"item": "book"}))
        before_ids = session_ids(browser)
        second = site.start_app(1 - first)
        joined_s = 0.0 if discovery == "none" else site.wait_joined(first)
        app.kill()
        assert second.running
        after = answer_of(browser.get("/"))
        lost = _lost(before, before_ids, after, session_ids(browser))
        if lost:
            site.print_logs()
        return Round(lost, joined_s)


def answer_of(response: httpx2.Response) -> dict[str, object]:
    """Return what an app answered: user, cart, stale, replica.

    Raises:
        HTTPStatusError: the answer is an error.
    """
    answer: dict[str, object] = response.raise_for_status().json()
    return answer


def session_ids(browser: httpx2.Client) -> list[str]:
    """Return the session ids among a browser's cookies: all but version tokens."""
    return [str(cookie.value) for cookie in browser.cookies.jar if not cookie.name.endswith("-v")]


def _lost(before: dict[str, object], before_ids: list[str], after: dict[str, object], after_ids: list[str]) -> str:
    assert len(before_ids) == 1, f"one session cookie, not {len(before_ids)}"
    assert (before["user"], before["cart"]) == ("kim", ["book"]), f"the round began wrongly: {before}"
    assert after["replica"] != before["replica"], f"the killed app answered: {after}"
    if after_ids != before_ids:
        return "another session id"
    if (after["user"], after["cart"]) != ("kim", ["book"]):
        return f"user is {after['user']!r}, cart is {after['cart']!r}"
    return "flagged stale" if after["stale"] else ""


def main() -> int:
    """Play the rounds asked for; return 1 if one of them lost something."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.kill", description="kill -9 rounds under nginx")
    parser.add_argument("--framework", choices=FRAMEWORKS, default="starlette")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--balance", choices=BALANCES, default="round_robin")
    parser.add_argument("--discovery", choices=DISCOVERIES, default="static")
    options = parser.parse_args()
    lost, joined_s, began_s = 0, 0.0, time.monotonic()
    for number in range(1, options.rounds + 1):
        played = kill_round(options.framework, options.discovery, options.balance)
        lost += bool(played.lost)
        joined_s = max(joined_s, played.joined_s)
        print(f"round {number}/{options.rounds}: {played.lost or 'kept'}, joined {played.joined_s:.2f} s after up")
    print(
        f"{options.framework}, {options.balance}, {options.discovery}: {options.rounds} rounds, {lost} lost, "
        f"joined at most {joined_s:.2f} s after up, {time.monotonic() - began_s:.0f} s in all"
    )
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
