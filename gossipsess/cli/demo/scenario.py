# Scenario "kill": a login, a full cart, kill -9 of the replica that took it, and what is left of it.
#
# In:    a running crew and the page's port.    Out: events to the narrator, and whether everything survived.
# It acts as a browser does: through the balancer, with cookies. The replica is killed at once when its answer is
# here: from that moment on a person takes for granted what the page showed.
# Not here: noticing the death and starting again (crew.py), as for a person's kill.

import asyncio
import http.client
import time
from typing import Any, Final

from gossipsess.cli.demo.browser import Answer, Browser
from gossipsess.cli.demo.crew import Crew, DemoError
from gossipsess.cli.demo.narrator import Narrator, took_ms
from gossipsess.cli.demo.page import COOKIE
from gossipsess.model.identity import short, sid_of

SCENARIO_S: Final = 25.0
"""Limit for all of it, from the first process on; seven seconds are usual."""
RELOADS_MAX: Final = 20
"""Within so many, round robin has reached every replica that is left."""
USER: Final = "kim"
ITEMS: Final = ("tea", "book")


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


async def play_kill(crew: Crew, port: int, narrator: Narrator) -> bool:
    """Play the scenario; return whether login, cart and session id survived everywhere. Never raises for a loss."""
    began_s = time.monotonic()
    result: dict[str, Any] = {"login": False, "cart": False, "session_id": False, "caught_up": False}
    why = ""
    try:
        async with asyncio.timeout(SCENARIO_S):
            await crew.tell_ready(port)
            await _play(crew, Browser(port), narrator, result)
    except TimeoutError:
        why = f"not done within {SCENARIO_S:g} s"
    except (DemoError, ScenarioError, OSError, ValueError, http.client.HTTPException) as error:
        why = f"{type(error).__name__}: {error}"
    missing = [what for what, kept in result.items() if not kept]
    ok = not missing and not why
    sentence = "login, cart and session id survived" if ok else f"LOST: {', '.join(missing) or 'nothing'}. {why}"
    narrator.say("verdict", sentence, ok=ok, **result, why=why, took_ms=took_ms(began_s))
    return ok


async def _play(crew: Crew, browser: Browser, narrator: Narrator, result: dict[str, Any]) -> None:
    victim_number = await _shop(browser, narrator)
    victim = crew.replica(victim_number)
    assert victim.process is not None, "it has just answered"
    session_id = browser.cookies[COOKIE]
    before = {"user": USER, "cart": list(ITEMS), "session": short(sid_of(session_id))}
    killed_at_s = time.monotonic()
    victim.process.kill()
    await victim.ended.wait()
    gone: set[str] = set()
    left = {replica.number for replica in crew.replicas} - {victim_number}
    for _ in range(RELOADS_MAX):
        after = await browser.session()
        number = after["replica"]["number"]
        if number in left:
            left.remove(number)
            gone.update(_tell_reload(narrator, before, after, killed_at_s))
        if not left:
            break
    else:
        raise ScenarioError(f"replica {min(left)} never answered")
    result["login"] = "login" not in gone
    result["cart"] = "cart" not in gone
    result["session_id"] = "session_id" not in gone and browser.cookies[COOKIE] == session_id

    await victim.caught_up.wait()
    # Asked without cookies, it cannot have fetched the session for this very question.
    held = (await browser.session(victim.port, with_cookies=False))["replica"]["held"]
    own = await browser.session(victim.port)
    result["caught_up"] = before["session"] in held and not lost(before, own)


async def _shop(browser: Browser, narrator: Narrator) -> int:
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


def _tell_reload(narrator: Narrator, before: dict[str, Any], after: dict[str, Any], killed_at_s: float) -> list[str]:
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
        took_ms=took_ms(killed_at_s),
    )
    return missing
