# Scenario "holders": where a session lives, and where it lives after its primary is killed, after a replica is drained,
# and after one more has joined. After each step the login is looked for where it lives, in the end on every replica.
#
# Before, visitors log in, so that there is more than one session to move.
#
# In:    a running crew.    Out: events to the narrator, and what survived.
# Where it lives is what the replicas say: the scenario knows no rule of placement. It waits until all say the same, and
# until those who are to hold the session do: one that were killed in between could be the last that has it.
# Nobody else is asked for the session before the end, since who is asked fetches a copy that might save it.
# Not here: what every scenario has (scenario.py).

import asyncio
import time
from typing import Any, Final

from gossipsess.cli.demo.browser import Browser
from gossipsess.cli.demo.crew import Crew
from gossipsess.cli.demo.narrator import Narrator, took_ms, where
from gossipsess.cli.demo.page import COOKIE
from gossipsess.cli.demo.replica import Replica
from gossipsess.cli.demo.scenario import Result, ScenarioError, bought, catches_up, shop, tell_reload
from gossipsess.cli.demo.visitors import visit
from gossipsess.protocol.gains import GRACE_S

ASK_EVERY_S: Final = 0.05


async def follow(crew: Crew, browser: Browser, narrator: Narrator, result: Result) -> None:
    """Play scenario "holders"."""
    await visit(browser.port, narrator)
    await shop(browser, narrator)
    journey = _Journey(crew, browser, narrator)
    holders = await journey.lives("Now", time.monotonic())

    since_s = time.monotonic()
    primary = holders[0]
    crew.kill(primary, comes_back=False)  # for its successor to be seen before it is back
    await primary.ended.wait()
    narrator.say(
        "grace",
        f"a process that dies may be back at once, so its sessions get another replica after {GRACE_S:g} s only",
        grace_s=GRACE_S,
    )
    holders = await journey.lives(f"With replica {primary.number} killed", since_s)

    since_s = time.monotonic()
    drained = holders[-1]
    crew.drain(drained)
    await drained.ended.wait()
    await journey.lives(f"With replica {drained.number} drained", since_s)

    since_s = time.monotonic()
    crew.start(primary)
    newcomer = crew.join()
    if newcomer is None:
        raise ScenarioError("no port was left for one more replica")
    result["caught_up"] = all([await catches_up(one, browser, journey.before) for one in (primary, newcomer)])
    await journey.lives(f"With replica {newcomer.number} new and replica {primary.number} back", since_s)
    await journey.look(crew.up, since_s)
    for what in ("login", "cart", "session_id"):
        result[what] = what not in journey.lost


class _Journey:
    """Of one session from replica to replica."""

    def __init__(self, crew: Crew, browser: Browser, narrator: Narrator) -> None:
        self._crew = crew
        self._browser = browser
        self._narrator = narrator
        self.before: dict[str, Any] = bought(browser)
        self.lost: set[str] = set()
        """What some replica has lost at some step."""

    async def lives(self, when: str, since_s: float) -> list[Replica]:
        """Wait until all replicas agree where the session lives, tell it, and return these replicas.

        Then wait until each of these holds it, and look for the login there.
        """
        holders = await self._agreed()
        names = [replica.name for replica in holders]
        live = len(self._crew.up)
        self._narrator.say(
            "lives",
            f"{when}, the session is to live {where(names, live)}",
            holders=names,
            everywhere=len(names) == live,
            took_ms=took_ms(since_s),
        )
        lacking = list(holders)
        while lacking:
            if (await self._asked(lacking[0]))[1]:
                del lacking[0]
            else:
                await asyncio.sleep(ASK_EVERY_S)
        self._narrator.say("held", f"each of these holds it, after {took_ms(since_s)} ms", took_ms=took_ms(since_s))
        await self.look(holders, since_s)
        return holders

    async def look(self, replicas: list[Replica], since_s: float) -> None:
        """Read the session on these replicas, tell what they show, and note what is lost."""
        for replica in replicas:
            after = await self._browser.session(replica.port)
            self.lost.update(tell_reload(self._narrator, self.before, after, since_s))

    async def _agreed(self) -> list[Replica]:
        while True:
            up = {replica.name: replica for replica in self._crew.up}
            said = {(await self._asked(replica))[0] for replica in up.values()}
            names = said.pop()
            if not said and names and set(names) <= set(up):
                return [up[name] for name in names]
            await asyncio.sleep(ASK_EVERY_S)

    async def _asked(self, replica: Replica) -> tuple[tuple[str, ...], bool]:
        return await self._browser.holders(replica.port, self._browser.cookies[COOKIE])
