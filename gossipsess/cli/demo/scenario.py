# Scenario "kill": a login, a full cart, kill -9 of the replica that took it, and what is left of it. And what every
# scenario has: its limit, its steps as a browser, its verdict.
#
# In:    a running crew and the page's port.    Out: events to the narrator, and whether everything survived.
# It acts as a browser does: through the balancer, with cookies. The replica is killed at once when its answer is
# here: from that moment on a person takes for granted what the page showed.
# Not here: noticing the death and starting again (crew.py), as for a person's kill.

import asyncio
import http.client
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from gossipsess.cli.demo.browser import Answer, Browser
from gossipsess.cli.demo.crew import Crew, DemoError
from gossipsess.cli.demo.narrator import Narrator, took_ms
from gossipsess.cli.demo.page import COOKIE
from gossipsess.cli.demo.replica import Replica
from gossipsess.model.identity import short, sid_of

SCENARIO_S: Final = 7.0
PER_REPLICA_S: Final = 6.0
"""Limit for all of it, from the first process on, and what it grows by with each replica; a third of it is usual."""
RELOADS_MAX: Final = 20
"""Within so many, round robin has reached every replica that is left."""
USER: Final = "kim"
ITEMS: Final = ("tea", "book")


Result = dict[str, bool]
"""What is to survive or to come about, and whether it did."""
Scenario = Callable[[Crew, Browser, Narrator, Result], Awaitable[None]]
"""Plays its steps, and puts what it finds into the result; what it does not get to is missing there."""


class ScenarioError(Exception):
    """A step could not be done; the message says which."""


def lost(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return what a session lost: `before` and `after` have the keys user, cart, session; empty: nothing."""
    differences = {
        "login": before["user"] != after["user"],
        "cart": before["cart"] != after["cart"],
        "session_id": before["session"] != after["session"],
    }
    return [what for what, differs in differences.items() if differs]


async def play(scenario: Scenario, crew: Crew, port: int, narrator: Narrator) -> bool:
    """Play a scenario; return whether login, cart and session id survived everywhere. Never raises for a loss."""
    began_s = time.monotonic()
    result: Result = {"login": False, "cart": False, "session_id": False, "caught_up": False}
    why = ""
    limit_s = SCENARIO_S + PER_REPLICA_S * len(crew.replicas)
    try:
        async with asyncio.timeout(limit_s):
            await crew.tell_ready(port)
            await scenario(crew, Browser(port), narrator, result)
    except TimeoutError:
        why = f"not done within {limit_s:g} s"
    except (DemoError, ScenarioError, OSError, ValueError, http.client.HTTPException) as error:
        why = f"{type(error).__name__}: {error}"
    missing = [what for what, kept in result.items() if not kept]
    ok = not missing and not why
    sentence = "login, cart and session id survived" if ok else f"LOST: {', '.join(missing) or 'nothing'}. {why}"
    narrator.say("verdict", sentence, ok=ok, **result, why=why, took_ms=took_ms(began_s))
    return ok


async def kill(crew: Crew, browser: Browser, narrator: Narrator, result: Result) -> None:
    """Play scenario "kill"."""
    victim_number = await shop(browser, narrator)
    victim = crew.replica(victim_number)
    session_id = browser.cookies[COOKIE]
    before = bought(browser)
    killed_at_s = time.monotonic()
    crew.kill(victim)
    await victim.ended.wait()
    gone: set[str] = set()
    left = {replica.number for replica in crew.replicas} - {victim_number}
    for _ in range(RELOADS_MAX):
        after = await browser.session()
        number = after["replica"]["number"]
        if number in left:
            left.remove(number)
            gone.update(tell_reload(narrator, before, after, killed_at_s))
        if not left:
            break
    else:
        raise ScenarioError(f"replica {min(left)} never answered")
    result["login"] = "login" not in gone
    result["cart"] = "cart" not in gone
    result["session_id"] = "session_id" not in gone and browser.cookies[COOKIE] == session_id

    result["caught_up"] = await catches_up(victim, browser, before)


def bought(browser: Browser) -> dict[str, Any]:
    """Return what the session is to be after `shop`."""
    return {"user": USER, "cart": list(ITEMS), "session": short(sid_of(browser.cookies[COOKIE]))}


async def catches_up(replica: Replica, browser: Browser, before: dict[str, Any]) -> bool:
    """Wait until a replica has caught up; return whether it holds the session, if it is to, and shows all of it."""
    await replica.caught_up.wait()
    # Asked without cookies, it cannot have fetched the session for this very question.
    held = (await browser.session(replica.port, with_cookies=False))["replica"]["held"]
    own = await browser.session(replica.port)
    return (before["session"] in held or replica.name not in own["holders"]) and not lost(before, own)


async def shop(browser: Browser, narrator: Narrator) -> int:
    """Log in and fill the cart; return the number of the replica that answered last."""
    began_s = time.monotonic()
    answer = await _post(browser, "/login", {"user": USER})
    narrator.say(
        "login",
        f"login as {USER} answered by replica {answer.replica}",
        replica=answer.replica,
        user=USER,
        took_ms=took_ms(began_s),
    )
    for count, item in enumerate(ITEMS, 1):
        began_s = time.monotonic()
        answer = await _post(browser, "/cart", {"item": item})
        narrator.say(
            "cart",
            f"{item} put in the cart by replica {answer.replica}: {count} of {len(ITEMS)}",
            replica=answer.replica,
            items=count,
            took_ms=took_ms(began_s),
        )
    return answer.replica


async def _post(browser: Browser, path: str, form: dict[str, str]) -> Answer:
    answer = await browser.post(path, form)
    if answer.status != http.client.SEE_OTHER:
        raise ScenarioError(f"POST {path} answered {answer.status}: {answer.body[:200]!r}")
    return answer


def tell_reload(narrator: Narrator, before: dict[str, Any], after: dict[str, Any], since_s: float) -> list[str]:
    """Tell what a replica shows of a session; return what of it is lost. `since_s`: of the event that it survived."""
    missing = lost(before, after)
    number = after["replica"]["number"]
    kept = f"session still there, {after['user']} logged in, cart {len(after['cart'])} items, same id"
    narrator.say(
        "lost" if missing else "survived",
        f"replica {number}: {'LOST ' + ', '.join(missing) if missing else kept}",
        replica=number,
        user=after["user"],
        items=len(after["cart"]),
        session=after["session"],
        lost=missing,
        took_ms=took_ms(since_s),
    )
    return missing
