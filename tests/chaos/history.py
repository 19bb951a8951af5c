# History: clients go on while processes are killed and paused and links lose, delay, stall and reset.
#
# Clients: each logs in, writes, reads, rotates, and logs out or just stays away, at a random node each time, as
#         behind a round-robin balancer without health checks; it sends the cookie of its last answer, version
#         token included. Now and then it comes back with the cookie of a session that it has ended.
# Faults: one at a time or several at once; every process lives at its own address behind the lossy proxy. At most
#         one is killed at a time, and the next only some seconds after the last one was started again.
# End:    all links open, everyone runs. All holders must be equal in time; then every rule of checker.py must hold.
#
# The seed chooses what is done and to whom, but not how the machine schedules it: a run cannot be repeated exactly.
#
# From the repository's root: python -m tests.chaos.history --minutes 10 --nodes 5

import argparse
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple

from gossipsess.protocol.reads import UNTOKENED_S

from ..e2e.harness import Discovery, ScenarioError
from .checker import ANSWER_S, HELD, Killed, Told, Verdict, check, value_of
from .nodes import ChaosNode, Cluster, NoAnswerError, NotAskedError

CLIENTS: Final = 8
THINK_S: Final = 0.02
LAST_REQUESTS: Final = 50
"""A session is ended, left or rotated, each after about so many."""
EQUAL_S: Final = 19.0
"""How long after the last fault all nodes may take until they are equal: 2 (N-1) T + 15 s for five nodes."""
HURT_EVERY_S: Final = 1.5
SHOWN_S: Final = 60.0
"""For a node to show all sessions; some of them it must ask others for."""


class Played(NamedTuple):
    """How one run ended."""

    verdict: Verdict
    requests: int
    faults: Counter[str]
    equal_s: float
    """From the last fault's end until all were linked and equal."""


class _Client:
    """One browser. It makes one request at a time, and notes each."""

    def __init__(self, number: int, nodes: list[ChaosNode], rng: random.Random, note: Callable[[Told], None]) -> None:
        self._number = number
        self._nodes = nodes
        self._rng = rng
        self._note = note
        self._count = 0
        self._chain = ""
        self._cookie = ""
        self._needed: frozenset[str] = frozenset()
        self._old: list[tuple[str, str]] = []  # (chain, cookie) of sessions ended

    def run(self, stop: threading.Event) -> None:
        while not stop.wait(self._rng.uniform(0, 2 * THINK_S)):
            self.step()

    def step(self) -> None:
        """Make the next request."""
        if not self._cookie:
            self._chain, self._needed = f"{self._number}.{self._count}", frozenset()
            self._request("login", confirm=self._confirm())
            return
        if self._old and self._rng.random() < 0.1:
            chain, cookie = self._rng.choice(self._old)
            self._request("read", chain=chain, cookie=cookie)
            return
        chance = self._rng.random()
        if chance < 1 / LAST_REQUESTS:
            self._request("logout")
        elif chance < 2 / LAST_REQUESTS:
            self._cookie = ""  # closes the browser; what was written must still be there in the end
        elif chance < 3 / LAST_REQUESTS:
            self._request("rotate")
        elif chance < 0.5:
            self._request("read")
        else:
            self._request("write", confirm=self._confirm())

    def _confirm(self) -> int | str:
        choices: list[int | str] = [1, 1, 2, "all"]
        return self._rng.choice(choices)

    def _request(self, do: str, *, chain: str = "", cookie: str = "", **arguments: object) -> None:
        mine = not cookie
        cookie, chain = cookie or self._cookie, chain or self._chain
        node = self._rng.choice(self._nodes)
        key = ""
        if do in ("login", "write"):
            self._count += 1
            key = f"{self._number}-{self._count}"
            arguments |= {"key": key, "value": value_of(chain, key)}
        if do != "login":
            arguments["cookie"] = cookie
        needed = self._needed if mine else frozenset()
        began_s = time.monotonic()
        answer: dict[str, Any] = {"outcome": "unknown"}
        try:
            answer = node.ask(do, ANSWER_S, **arguments)
        except NotAskedError:
            return  # the balancer takes the next one
        except NoAnswerError:
            pass
        start = node.starts  # looked at now: nothing is started within half a second of a kill, and this is sooner
        new_cookie = answer.get("cookie", "")
        told = Told(
            chain, do, "" if do == "login" else _id(cookie), key, needed, node.index, start, began_s,
            answer["outcome"], answer.get("nodes", 0), _id(new_cookie) if do in ("login", "rotate") else "",
            answer.get("seen", {}), answer.get("stale", False), tuple(answer.get("linked", ())),
        )  # fmt: skip
        self._note(told)
        if mine:
            self._follow(told, cookie, new_cookie)

    def _follow(self, told: Told, cookie: str, new_cookie: str) -> None:
        held = told.outcome in HELD
        if told.do in ("login", "write", "rotate") and held:
            self._cookie = new_cookie
            self._needed = frozenset(told.seen) | ({told.key} if told.key else frozenset())
        if told.do in ("rotate", "logout") and held:
            self._old.append((told.chain, cookie))
        if told.outcome == "Gone" or (told.do in ("rotate", "logout") and told.outcome == "unknown"):
            self._cookie = ""  # nobody can tell whether it lives; begin anew
        if told.do == "logout" and held:
            self._cookie = ""


class _Nemesis:
    """Hurts a cluster, and heals it."""

    def __init__(self, cluster: Cluster, rng: random.Random) -> None:
        self._cluster = cluster
        self._rng = rng
        self._killed: tuple[ChaosNode, float] | None = None
        self._resume: dict[ChaosNode, float] = {}
        self._open: list[tuple[float, Callable[[], None]]] = []
        self.kills: list[Killed] = []
        self.faults: Counter[str] = Counter()

    def run(self, until_s: float) -> None:
        """Hurt until then; every fault ends by itself."""
        menu = (self._kill, self._pause, self._lossy, self._slow, self._stall, self._reset, self._isolate)
        hurt_at_s = 0.0
        while (now_s := time.monotonic()) < until_s:
            self._end_faults(now_s)
            if now_s >= hurt_at_s:
                hurt_at_s = now_s + self._rng.expovariate(1 / HURT_EVERY_S)
                self._rng.choice(menu)(now_s)
            time.sleep(0.05)

    def heal(self) -> None:
        """End every fault; everyone runs when this returns."""
        self._cluster.proxy.heal()
        for node in self._cluster.nodes:
            node.resume()
            if not node.running:
                self._cluster.start(node)

    def _end_faults(self, now_s: float) -> None:
        for node, due_s in list(self._resume.items()):
            if due_s <= now_s:
                node.resume()
                del self._resume[node]
        for due_s, heal in list(self._open):
            if due_s <= now_s:
                heal()
                self._open.remove((due_s, heal))
        if self._killed is not None and self._killed[1] <= now_s:
            node, _ = self._killed
            if not node.running:
                self._cluster.start(node)
                self._killed = (node, now_s + self._rng.uniform(3, 8))  # until the next may be killed
            else:
                self._killed = None

    def _kill(self, now_s: float) -> None:
        node = self._rng.choice(self._cluster.nodes)
        if self._killed is None and node not in self._resume:
            at_s = node.kill()
            self.kills.append(Killed(node.index, node.starts, at_s))
            self._killed = (node, now_s + self._rng.uniform(0.5, 4))
            self.faults["kill"] += 1

    def _pause(self, now_s: float) -> None:
        node = self._rng.choice(self._cluster.nodes)
        if node.running and node not in self._resume:
            node.pause()
            self._resume[node] = now_s + self._rng.uniform(0.2, 8)
            self.faults["pause"] += 1

    def _lossy(self, now_s: float) -> None:
        loss = self._rng.uniform(0.05, 0.3)
        for a, b in self._pairs(6):
            self._for_a_while(a, b, now_s, loss=loss)
        self.faults["loss"] += 1

    def _slow(self, now_s: float) -> None:
        for a, b in self._pairs(4):
            self._for_a_while(a, b, now_s, delay_s=self._rng.uniform(0.002, 0.1))
        self.faults["delay"] += 1

    def _stall(self, now_s: float) -> None:
        for a, b in self._pairs(2):
            self._for_a_while(a, b, now_s, stalled=True)
        self.faults["stall"] += 1

    def _reset(self, now_s: float) -> None:
        for a, b in self._pairs(2):
            self._cluster.proxy.reset(a, b)
        self.faults["reset"] += 1

    def _isolate(self, now_s: float) -> None:
        index = self._rng.randrange(len(self._cluster.nodes))
        for other in range(len(self._cluster.nodes)):
            if other != index:
                for a, b in ((index, other), (other, index)):
                    self._for_a_while(a, b, now_s, stalled=True)
        self.faults["isolate"] += 1

    def _pairs(self, count: int) -> list[tuple[int, int]]:
        indices = range(len(self._cluster.nodes))
        pairs = [(a, b) for a in indices for b in indices if a != b]
        return self._rng.sample(pairs, min(count, len(pairs)))

    def _for_a_while(self, a: int, b: int, now_s: float, **what: float) -> None:
        way = self._cluster.proxy.way(a, b)

        def heal() -> None:
            for name in what:
                setattr(way, name, type(what[name])())

        for name, value in what.items():
            setattr(way, name, value)
        self._open.append((now_s + self._rng.uniform(0.5, 8), heal))


def play(seconds: float, nodes: int, seed: int, discovery: Discovery = "static") -> Played:
    """Run clients and faults for `seconds` seconds, heal, and judge.

    With discovery "none" the nodes never meet: that is the control, in which next to every rule is broken.

    Raises:
        ScenarioError: a process did not come up, or the nodes were not equal in time after the heal.
    """
    rng = random.Random(seed)
    history: list[Told] = []
    stop = threading.Event()
    with Cluster(nodes, discovery=discovery, proxied=True) as cluster:
        nemesis = _Nemesis(cluster, random.Random(rng.getrandbits(64)))
        clients = [
            # list.append is atomic, and only the order within one client counts.
            _Client(number, cluster.nodes, random.Random(rng.getrandbits(64)), history.append)
            for number in range(CLIENTS)
        ]
        with ThreadPoolExecutor(CLIENTS) as threads:
            running = [threads.submit(client.run, stop) for client in clients]
            try:
                nemesis.run(time.monotonic() + seconds)
                nemesis.heal()
                healed_s = time.monotonic()
            finally:
                stop.set()
            for one in running:
                one.result()
        if discovery != "none":
            cluster.wait_linked(EQUAL_S)
            cluster.wait_equal(max(0.1, EQUAL_S - (time.monotonic() - healed_s)))
        equal_s = time.monotonic() - healed_s
        for client in clients:
            for _ in range(nodes):
                client.step()  # who comes back after the storm must find all of it
        if discovery != "none":
            cluster.wait_equal(EQUAL_S)
            time.sleep(UNTOKENED_S)  # for so long a copy is served without asking a holder
        ids = sorted({told.new_session or told.session for told in history} - {""})
        final = [dict(zip(ids, held, strict=True)) for held in cluster.ask_all("shown", SHOWN_S, ids=ids)]
        return Played(check(history, nemesis.kills, final), len(history), nemesis.faults, equal_s)


def _id(cookie: str) -> str:
    return cookie.partition(".")[0]


def main() -> int:
    """Play it; return 1 if a rule is broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.history", description="clients amid faults")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--nodes", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--discovery", choices=("static", "none"), default="static", help="none: the control")
    options = parser.parse_args()
    try:
        played = play(options.minutes * 60, options.nodes, options.seed, options.discovery)
    except ScenarioError as error:
        print(f"broken: {error}")
        return 1
    for violation in played.verdict.violations[:20]:
        print(f"broken: {violation}")
    print(f"faults: {dict(played.faults)}")
    print(f"told: {dict(sorted(played.verdict.figures.items()))}")
    print(
        f"seed {options.seed}: {options.minutes:g} minutes, {options.nodes} nodes, {played.requests} requests, "
        f"{len(played.verdict.violations)} violations, linked and equal {played.equal_s:.1f} s after the heal "
        f"(bound {EQUAL_S:g})"
    )
    return 1 if played.verdict.violations else 0


if __name__ == "__main__":
    sys.exit(main())
