# Scenario "holders": where a session lives, and where it lives after its primary is killed, after a replica is drained,
# and after one more has joined. After each the login is looked for on every replica.
#
# In:    a running crew.    Out: events to the narrator, and what survived.
# Where it lives is what the replicas say: the scenario knows no rule of placement, and waits until all say the same.
# Not here: what every scenario has (scenario.py).

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any, Final

from gossipsess.cli.demo.browser import Browser
from gossipsess.cli.demo.crew import Crew
from gossipsess.cli.demo.narrator import Narrator, took_ms, where
from gossipsess.cli.demo.replica import Replica
from gossipsess.cli.demo.scenario import Result, ScenarioError, bought, catches_up, shop, tell_reload

ASK_EVERY_S: Final = 0.05


@dataclass
class _Tour:
    """What the steps share."""

    crew: Crew
    browser: Browser
    narrator: Narrator
    before: dict[str, Any]
    gone: set[str] = field(default_factory=set)
    """What some replica has lost at some step."""

    async def lives(self, when: str, since_s: float) -> tuple[str, ...]:
        """Wait until all replicas that are up agree where the session lives; tell it and return their names.

        Each of them is to show the login too.
        """
        while True:
            up = self.crew.up
            views = [await self.browser.session(replica.port) for replica in up]
            said = {tuple(view["holders"]) for view in views}
            if len(said) == 1 and set(views[0]["holders"]) <= {replica.name for replica in up}:
                break
            await asyncio.sleep(ASK_EVERY_S)
        [holders] = said
        self.narrator.say(
            "lives",
            f"{when}, the session lives {where(holders, len(up))}",
            holders=holders,
            everywhere=len(holders) == len(up),
            took_ms=took_ms(since_s),
        )
        for view in views:
            self.gone.update(tell_reload(self.narrator, self.before, view, since_s))
        return holders

    def replica(self, name: str) -> Replica:
        """Return the replica with that name."""
        return next(replica for replica in self.crew.replicas if replica.name == name)


async def follow(crew: Crew, browser: Browser, narrator: Narrator, result: Result) -> None:
    """Play scenario "holders"."""
    await shop(browser, narrator)
    tour = _Tour(crew, browser, narrator, bought(browser))
    holders = await tour.lives("Now", time.monotonic())

    since_s = time.monotonic()
    primary = tour.replica(holders[0])
    crew.kill(primary, comes_back=False)  # for its successor to be seen before it is back
    await primary.ended.wait()
    holders = await tour.lives(f"With replica {primary.number} killed", since_s)

    since_s = time.monotonic()
    drained = tour.replica(holders[-1])
    crew.drain(drained)
    await drained.ended.wait()
    await tour.lives(f"With replica {drained.number} drained", since_s)

    since_s = time.monotonic()
    crew.start(primary)
    newcomer = crew.join()
    if newcomer is None:
        raise ScenarioError("no port was left for one more replica")
    result["caught_up"] = all([await catches_up(one, browser, tour.before) for one in (primary, newcomer)])
    await tour.lives(f"With replica {newcomer.number} new and replica {primary.number} back", since_s)
    for what in ("login", "cart", "session_id"):
        result[what] = what not in tour.gone
