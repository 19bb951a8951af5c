# The examples, made replicated, behind nginx: used by several visitors at once while one of three processes is killed.
#
# In:    docs/examples/<framework>: app.py, and replicated.diff, which `git apply` puts into a copy of it; or, with
#        `--by run`, app.py as it is, under `gossipsess run`.
# Out:   a line for each framework: what visitors were told, and what of it was wrong.
#
# Three processes, each served as is usual for its framework, and nginx that asks them in turn. First somebody logs in
# on one by its own port and is looked for on the others, for each of the three. Then visitors come, through nginx: each
# puts something into a cart, logs in, buys on, and looks after each step what the page shows; half of them log out. A
# round is one of the processes killed -9 in the midst of that, and later started again. In the end each of the three is
# asked, by its own port, for everybody who has been there.
#
# Every answer is checked. Clean is a run without any of these (the first four words as in tests/chaos/shoppers.py):
#   lost, hidden  what was answered 303 is not there in the end, on all processes or on some; or nothing of a session is
#                 there any more
#   stale         a page lacks what was answered 303 before
#   invented      a page shows what this visitor never bought: another one's cart, or something twice
#   undead        the cookies of somebody who has logged out show something: at once, or on any process in the end
#   unavailable   a 503
#   errors        any other answer of 400 and above, or none
# But for requests that were under way at the killed process: it had taken a POST, which nginx must not repeat and
# answers with 502; or nginx had begun to pass its answer on. These count as cut. A POST that was cut is not
# acknowledged, and perhaps carried out, so nothing is wrong whether it shows or not. If it was to log in or out, the
# browser does not know with which id to go on, and this visitor is not looked for any more. Any other GET nginx repeats
# at the next process, and so it does with everything that a process did not take since it was gone.
# gunicorn is run with --preload: else it opens the port before a worker has built the application, and what nginx sends
# there waits, for seconds on a busy machine.
#
# From the repository's root: python -m tests.e2e.examples --framework all

import argparse
import contextlib
import json
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from html import escape
from pathlib import Path
from typing import Any, Final, Literal, get_args

import httpx2
import trio

from ..chaos.balancer import Answer, CutError
from ..chaos.fleet import in_time, whole
from ..chaos.shoppers import Basket, Tally, audit
from ..ports import LOOPBACK, free_ports
from .harness import (
    CUT,
    DISCOVERIES,
    REQUEST_S,
    App,
    Discovery,
    Process,
    ScenarioError,
    Site,
    gunicorn_at,
    listening,
    uvicorn_at,
)

By = Literal["diff", "run"]
"""How an example is made replicated: by its lines, or by none."""

EXAMPLES: Final = Path(__file__).parents[2] / "docs" / "examples"
DIFF: Final = "replicated.diff"
REPLICAS: Final = 3
VISITORS: Final = 6
THINGS: Final = 6
"""What each visitor buys, the first of them before the login."""
THINK_S: Final = 0.1
SECONDS: Final = 9.0
"""Of one round: a third of it before the kill, at least a third until the next start, and a third after."""
END_S: Final = 60.0
"""For what comes after the rounds."""
DYING_S: Final = 0.5
"""Of a server of several processes one may be gone a little later than the one that started them."""
SLOW_S: Final = 4.0
"""Worth a note: less than what a write waits that nobody confirms (below)."""
SETTINGS: Final = {"GOSSIPSESS_CONFIRM_TIMEOUT_S": "5"}
"""Where the machine does much else, a process may get no turn for the default quarter of a second. Then a write is
answered with one copy, which the kill may take: promised, and not what is looked for here."""


def preloading_gunicorn_at(port: int) -> list[str]:
    """Return how gunicorn serves a WSGI application that its parent has built."""
    return [*gunicorn_at(port), "--preload"]


def hypercorn_at(port: int) -> list[str]:
    """Return how Hypercorn serves an ASGI application."""
    return [sys.executable, "-m", "hypercorn", "app:app", "--bind", f"{LOOPBACK}:{port}"]


SERVE: Final[Mapping[str, Callable[[int], list[str]]]] = {
    "starlette": uvicorn_at,
    "fastapi": uvicorn_at,
    "flask": preloading_gunicorn_at,
    "django": preloading_gunicorn_at,
    "quart": hypercorn_at,
    "litestar": uvicorn_at,
    "wsgi": preloading_gunicorn_at,
}
"""The examples, and how each is served."""
ADOPTED: Final = frozenset({"starlette", "fastapi", "flask", "django", "quart"})
"""Those whose visitors stay logged in by the change: what they have are signed cookies, and not an id of something that
was in the former process's memory."""
BY_DIFF_ONLY: Final = frozenset({"wsgi"})
"""`gossipsess run` knows the sessions of frameworks, and WSGI has none."""


@contextlib.contextmanager
def stock(framework: str) -> Iterator[str]:
    """Serve the example as it is; gives its address."""
    with tempfile.TemporaryDirectory(prefix="example-") as name:
        [port] = free_ports(1)
        environ = {name: value for name, value in os.environ.items() if not name.startswith("GOSSIPSESS_")}
        environ["PYTHONDONTWRITEBYTECODE"] = "1"
        process = Process("stock", SERVE[framework](port), environ, Path(name), EXAMPLES / framework)
        try:
            process.wait_for(lambda: listening(port), "serving")
            yield f"http://{LOOPBACK}:{port}"
        finally:
            process.stop()


@contextlib.contextmanager
def replicated(framework: str, by: By) -> Iterator[App]:
    """Give the example as it is served where it is replicated.

    Raises:
        ScenarioError: the diff does not fit.
    """
    with tempfile.TemporaryDirectory(prefix="example-") as name:
        folder = Path(name) / framework
        shutil.copytree(EXAMPLES / framework, folder, ignore=shutil.ignore_patterns("__pycache__"))
        serve = SERVE[framework]
        if by == "run":
            yield App(folder, lambda port: [sys.executable, "-m", "gossipsess", "run", "--", *serve(port)])
            return
        applied = subprocess.run(["git", "apply", DIFF], cwd=folder, capture_output=True, text=True, check=False)
        if applied.returncode:
            raise ScenarioError(f"{framework}/{DIFF} does not fit: {applied.stderr}")
        yield App(folder, serve)


@dataclass
class Told:
    """What visitors were told in one run."""

    rounds: int
    tally: Tally = field(default_factory=Tally)
    undead: int = 0
    answered: set[int] = field(default_factory=set)
    """Processes that answered."""
    dying_until_s: float = -math.inf
    """On Trio's clock; until then the last one killed may have taken requests that it does not answer."""
    ended: list[dict[str, str]] = field(default_factory=list)
    """Cookies of those who have logged out, as they were just before."""

    @property
    def clean(self) -> bool:
        """Nothing was wrong; and what had to happen did, else nothing is proved."""
        all_answered = len(self.answered) == REPLICAS + self.rounds
        return self.tally.clean and not self.undead and bool(self.ended) and all_answered

    def line(self) -> str:
        """Return it in one line."""
        names = ("acknowledged", "lost", "hidden", "stale", "invented", "unavailable", "errors", "cut")
        told = self.tally.figures()
        return (
            f"{'clean' if self.clean else 'BROKEN'}: {self.rounds} kills, {self.tally.requests} requests, "
            f"{', '.join(f'{told[name]} {name}' for name in names)}, {self.undead} undead of {len(self.ended)}; "
            f"p50 {told['p50_ms']} ms, p99 {told['p99_ms']} ms, at most {told['p100_ms']} ms"
        )


class Visitor:
    """Somebody with a browser, who remembers what was bought."""

    def __init__(self, name: str, site: Site, told: Told, *, tokens: bool) -> None:
        self._name = name
        self._site = site
        self._told = told
        self._tokens = tokens
        self._basket = Basket()
        self._browser = httpx2.AsyncClient(trust_env=False, timeout=REQUEST_S, verify=False)

    async def visit(self, rng: random.Random) -> None:
        """Buy, log in, buy on; then log out, or leave it at that."""
        async with self._browser:
            for number in range(THINGS):
                await trio.sleep(rng.uniform(0, 2 * THINK_S))
                if not await self._buy(f"{self._name}'s thing {number}") or not await self._look(self._site.url):
                    return
                if number == 0 and not (await self._log_in(self._site.url) and await self._look(self._site.url)):
                    return
            if rng.random() < 0.5:
                await self._log_out()

    async def visit_each(self, first: int) -> None:
        """Log in on one process, then look at the others, as long as there is something to look for."""
        urls = self._site.app_urls
        async with self._browser:
            there = await self._log_in(urls[first])
            for url in urls[first + 1 :] + urls[:first]:
                there = there and await self._look(url)
            if there:
                await self._look_as_people_do(urls[first])

    async def stay(self, former_url: str) -> None:
        """Log in where the example runs in its stock form; then be known on each process, and log out for good."""
        async with self._browser:
            there = await self._log_in(former_url)
            former = dict(self._browser.cookies)
            for url in self._site.app_urls:
                there = there and await self._look(url)
            if there:
                await self._log_out()
                for url in self._site.app_urls:
                    await look_for_undead(self._told, page(self._browser, url, self._told), former)

    async def _buy(self, thing: str) -> bool:
        self._basket.in_doubt[thing] = "1"
        if await self._post(f"{self._site.url}/cart", {"item": thing}):
            self._told.tally.acknowledge(self._basket, thing)
        return bool(self._basket.acknowledged)  # else there is no session yet, and another visit may begin one

    async def _log_in(self, url: str) -> bool:
        self._basket.in_doubt["user"] = self._name
        done = await self._post(f"{url}/login", {"user": self._name})
        if done:
            self._told.tally.acknowledge(self._basket, "user")
        else:
            self._forget()  # the old id may be dead, and the new one was in the answer
        return done

    async def _log_out(self) -> None:
        cookies = dict(self._browser.cookies)
        self._forget()
        if await self._post(f"{self._site.url}/logout", {}):
            self._told.ended.append(cookies)
            await self._look(self._site.url)  # as nobody
            await look_for_undead(self._told, page(self._browser, self._site.url, self._told), cookies)

    async def _look(self, url: str) -> bool:
        """Judge what a page shows; False where the session is gone."""
        answer = await self._request("GET", f"{url}/")
        if answer is None:
            return True  # counted already
        return self._told.tally.judge(self._basket, "", seen_in(answer, self._told), stale=False)

    async def _look_as_people_do(self, url: str) -> None:
        """Open the page as a browser does.

        Raises:
            ScenarioError: it does not show the user's name, escaped, and a form for each thing that one can do.
        """
        answer = await self._browser.get(f"{url}/", headers={"Accept": "text/html"})
        expected = [escape(self._name), *(f"action=/{path}>" for path in ("login", "cart", "logout"))]
        if answer.status_code != 200 or not all(text in answer.text for text in expected):
            raise ScenarioError(f"the page for people: {answer.status_code} {answer.text!r}")

    async def _post(self, url: str, form: Mapping[str, str]) -> bool:
        """Send a form; return whether it was carried out for sure."""
        return await self._request("POST", url, form) is not None

    async def _request(self, method: str, url: str, form: Mapping[str, str] | None = None) -> httpx2.Response | None:
        """Return the answer, None where it is not what it should be; that is counted."""
        tally = self._told.tally
        tally.requests += 1
        began_s = trio.current_time()
        try:
            answer = await self._browser.request(method, url, data=form, headers={"Accept": "application/json"})
        except httpx2.TransportError as error:
            if isinstance(error, httpx2.RemoteProtocolError) and began_s < self._told.dying_until_s:
                tally.cut += 1
            else:
                tally.errors += 1
                tally.note(f"{method} {url}: {error!r}")
            return None
        if not self._tokens:
            for name in [name for name in self._browser.cookies if name.endswith("-v")]:
                self._browser.cookies.delete(name)
        self._basket.cookies = dict(self._browser.cookies)
        took_s = trio.current_time() - began_s
        if took_s > SLOW_S:
            tally.note(f"slow: {method} {url} of {self._name}, {took_s:.1f} s, {answer.headers.get('X-Upstreams')}")
        if answer.status_code == {"GET": 200, "POST": 303}[method]:
            tally.took_s.append(took_s)
            return answer
        if method == "POST" and answer.headers.get(CUT) and began_s < self._told.dying_until_s:
            tally.cut += 1
        elif answer.status_code == 503:
            tally.unavailable += 1
        else:
            tally.errors += 1
            tally.note(f"{method} {url}: {answer.status_code} {answer.text[:200]!r}")
        return None

    def _forget(self) -> None:
        """Look for this session no more, and go on without one."""
        if self._basket in self._told.tally.baskets:
            self._told.tally.baskets.remove(self._basket)
        self._basket = Basket()


def seen_in(answer: httpx2.Response, told: Told) -> dict[str, Any]:
    """Return what a page shows: the user's name, and how often each thing is in the cart."""
    shown = answer.json()
    told.answered.add(shown["replica"])
    user = {"user": shown["user"]} if shown["user"] else {}
    return user | {item: str(shown["cart"].count(item)) for item in shown["cart"]}


def page(client: httpx2.AsyncClient, base: str, told: Told) -> Callable[[str, str, Mapping[str, str]], Any]:
    """Return how to ask for the page there with given cookies, as `audit` wants it: what it shows is ``seen``."""

    async def ask(method: str, path: str, cookies: Mapping[str, str]) -> Answer:
        cookie = "; ".join(f"{name}={value}" for name, value in cookies.items())
        headers = {"Accept": "application/json", "Cookie": cookie}
        try:
            answer = await client.request(method, f"{base}{path}", headers=headers)
        except httpx2.TransportError as error:
            raise CutError(repr(error)) from error
        seen = seen_in(answer, told) if answer.status_code == 200 else {}
        return Answer(answer.status_code, [], json.dumps({"seen": seen}).encode())

    return ask


async def look_for_undead(told: Told, ask: Callable[..., Any], cookies: Mapping[str, str]) -> None:
    """Come with cookies of somebody who has logged out."""
    answer = await ask("GET", "/", cookies)
    shown = answer.json()["seen"]
    told.undead += bool(shown)
    told.tally.errors += answer.status != 200
    if shown or answer.status != 200:
        told.tally.note(f"logged out, and then {answer.status}, {shown}")


async def _use(site: Site, apps: list[Process], told: Told, seconds: float, seed: int, *, tokens: bool) -> None:
    rng = random.Random(seed)
    for index in range(REPLICAS):
        await Visitor(f"<early> visitor {index}", site, told, tokens=tokens).visit_each(index)
    closed = False

    async def come_and_go(number: int, rng: random.Random) -> None:
        visits = 0
        while not closed:
            visits += 1
            await Visitor(f"visitor {number}.{visits}", site, told, tokens=tokens).visit(rng)

    async with trio.open_nursery() as nursery:
        for number in range(VISITORS):
            nursery.start_soon(come_and_go, number, random.Random(rng.getrandbits(64)))
        for _ in range(told.rounds):
            await trio.sleep(seconds / 3)
            victim = rng.randrange(REPLICAS)
            apps[victim].kill()
            told.dying_until_s = trio.current_time() + DYING_S
            await trio.sleep(seconds / 3)
            apps[victim] = await trio.to_thread.run_sync(site.start_app, victim)
            await trio.sleep(seconds / 3)
        closed = True

    async with httpx2.AsyncClient(trust_env=False, timeout=REQUEST_S, verify=False) as client:
        pages = [page(client, url, told) for url in site.app_urls]
        await audit(told.tally, pages)
        for cookies in told.ended:
            for ask in pages:
                await look_for_undead(told, ask, cookies)


async def _bounded(use: Callable[[], Awaitable[None]], rounds_s: float) -> None:
    with in_time("everything that visitors do", 3 * rounds_s + END_S):
        await use()


def play(
    framework: str,
    by: By = "diff",
    *,
    rounds: int = 1,
    seconds: float = SECONDS,
    discovery: Discovery = "static",
    seed: int = 1,
) -> Told:
    """Play so many rounds with one example; return what its visitors were told.

    With discovery "none" the nodes never meet, so nearly everything must be lost: that is the control. There browsers
    keep no version tokens: by these a node knows that there is another cluster, and answers 503.

    Raises:
        ScenarioError: the diff does not fit, a process did not come up, the nodes did not find each other, or it took
            too long.
    """
    told = Told(rounds)
    meet = discovery != "none"
    with replicated(framework, by) as app, Site(app, discovery, replicas=REPLICAS, environ=SETTINGS) as site:
        apps = site.start_all()
        for index in range(REPLICAS) if meet else ():
            site.wait_joined(index)
        trio.run(partial(_bounded, partial(_use, site, apps, told, seconds, seed, tokens=meet), rounds * seconds))
        if meet and not told.clean:
            site.print_logs()
    return told


def show_elsewhere(framework: str, by: By) -> Told:
    """Use two processes with nothing else going on; return what was told.

    Somebody logs in on each and is looked for on the other. And who has logged in at the stock form before, if that
    keeps its sessions in signed cookies, stays logged in, and does not come back by the former cookie after a logout.

    Raises:
        ScenarioError: as `play`; or the page for people is not as it should be.
    """
    told = Told(rounds=0)

    async def visit(site: Site, former_url: str) -> None:
        if framework in ADOPTED:
            await Visitor("former visitor", site, told, tokens=True).stay(former_url)
        for index in range(len(site.app_urls)):
            await Visitor(f"<visitor> {index}", site, told, tokens=True).visit_each(index)

    with stock(framework) as former_url, replicated(framework, by) as app, Site(app) as site:
        site.start_all()
        site.wait_joined(0)
        trio.run(visit, site, former_url)
    return told


def main(arguments: Sequence[str] | None = None) -> int:
    """Play what is asked for; return 1 if something was not clean."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.e2e.examples",
        description="Use the examples, made replicated, behind nginx, and kill -9 a process now and then.",
        epilog="--discovery none is the control: there everything must be lost.",
    )
    parser.add_argument("--framework", choices=[*SERVE, "all"], default="all")
    parser.add_argument(
        "--by", choices=get_args(By), default="diff", help="run: unchanged, by gossipsess run (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=whole(1), default=1, help="kills (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each round (default: %(default)s)")
    parser.add_argument("--discovery", choices=DISCOVERIES, default="static")
    parser.add_argument("--seed", type=int, default=1, help="who is killed, and what visitors do")
    options = parser.parse_args(arguments)
    if options.by == "run" and options.framework in BY_DIFF_ONLY:
        parser.error(f"{options.framework} has no sessions of its own that `gossipsess run` could replace; --by diff")
    how = {name: getattr(options, name) for name in ("by", "rounds", "seconds", "discovery", "seed")}
    possible = [framework for framework in SERVE if options.by == "diff" or framework not in BY_DIFF_ONLY]
    clean = True
    for framework in possible if options.framework == "all" else [options.framework]:
        told = play(framework, **how)
        print(f"{framework}, by {options.by}, {options.discovery}: {told.line()}", flush=True)
        for note in told.tally.notes:
            print(f"  {note}", flush=True)
        clean = clean and told.clean
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
