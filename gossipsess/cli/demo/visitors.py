# Visitors: a few hundred people who log in, so that there is something to move between replicas.
#
# In:    the page's port, and replicas that serve.    Out: a session each, and one event for all of them.
# They come through the balancer, as everybody does, each with a browser of its own, a few at a time.
# What they click is not told one by one: the crew knows them by their name (page.py).

import asyncio
import http.client
import time
from typing import Final

from gossipsess.cli.demo.browser import Browser
from gossipsess.cli.demo.crew import DemoError
from gossipsess.cli.demo.narrator import Narrator, took_ms
from gossipsess.cli.demo.page import VISITOR

VISITORS: Final = 300
AT_A_TIME: Final = 4
TRIES: Final = 3
"""Of one visitor whose replica was killed at that moment: who reads that reloads."""


async def visit(port: int, narrator: Narrator) -> None:
    """Let them come, and tell how many sessions there are of theirs.

    Raises:
        DemoError, OSError, HTTPException: one of them was not served.
    """
    began_s = time.monotonic()
    numbers = iter(range(1, VISITORS + 1))

    async def serve() -> None:
        for number in numbers:
            for _ in range(TRIES):
                answer = await Browser(port).post("/login", {"user": f"{VISITOR} {number}"})
                if answer.status != http.client.BAD_GATEWAY:
                    break
            if answer.status != http.client.SEE_OTHER:
                raise DemoError(f"visitor {number} could not log in: {answer.status} {answer.body[:200]!r}")

    await asyncio.gather(*[serve() for _ in range(AT_A_TIME)])
    narrator.say(
        "visitors",
        f"{VISITORS} visitors have logged in through the balancer, so there are as many sessions",
        visitors=VISITORS,
        took_ms=took_ms(began_s),
    )
