# Crew: the app processes: started, listened to, started again when they die, drained, and ended with this one.
#
# In:    ports; what the replicas print (app.py), which includes what people order on the page.
# Out:   events to the narrator: up, started, members, sees, holds, gains, killed, drained, restarted, joined and
#        caught_up, and with `tells_clicks` what people clicked. To the replicas: what the page shows of all of them.
# Choice: a replica holds one end of a pipe to this process and ends when the other end closes, so nothing is left
#         behind even where this process gets no chance to clean up.
# Not here: what is played on them (scenario.py).

import asyncio
import contextlib
import json
import secrets
import signal
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from gossipsess.cli.demo.narrator import Narrator, held, partitions, things, took_ms
from gossipsess.cli.demo.page import VISITOR
from gossipsess.cli.demo.ports import LOOPBACK
from gossipsess.cli.demo.replica import Replica

RESTART_AFTER_S: Final = 2.0
"""Long enough to reload the page while the replica is missing."""
LOOK_EVERY_S: Final = 0.05
HOLDS_EVERY_S: Final = 1.0
"""How often a replica's number of sessions is told at most: while there are visitors it is another one at each look."""
FORM_S: Final = 15.0
"""How long the replicas may take until each is linked to each; one second is usual."""


class DemoError(Exception):
    """The demo cannot go on; the message says why."""


class Crew:
    """The replicas: `count` of them, and one for each further port once somebody wants one more."""

    def __init__(self, ports: Sequence[int], count: int, narrator: Narrator, *, tells_clicks: bool) -> None:
        self._slots = [Replica(number, port) for number, port in enumerate(ports, 1)]
        self.replicas = self._slots[:count]
        for replica in self.replicas:
            replica.wanted.set()
        self._shared = b""  # what the replicas were last told of all of them
        self._formed = asyncio.Event()  # every replica has once been linked to every other
        self._narrator = narrator
        self._tells_clicks = tells_clicks
        self._ending = False
        self._telling_holds: set[int] = set()  # replicas of which it is told in a moment
        self._told: dict[tuple[int, str], tuple[str, int]] = {}  # (replica, session) -> what a person was shown of it
        self._settings = {
            "GOSSIPSESS_CLUSTER": f"demo-{secrets.token_hex(4)}",  # two demos on one machine do not meet
            "GOSSIPSESS_SECRET": secrets.token_hex(16),
            "GOSSIPSESS_BIND": LOOPBACK,
            "GOSSIPSESS_PORT": "0",
            "GOSSIPSESS_DISCOVERY": "auto",
        }

    def replica(self, number: int) -> Replica:
        """Return the replica with that number, from 1 on."""
        return self.replicas[number - 1]

    @property
    def up(self) -> list[Replica]:
        """Those that answer requests, and are to go on."""
        return [replica for replica in self.replicas if replica.up.is_set() and replica.wanted.is_set()]

    @property
    def ports(self) -> list[int]:
        """Where a balancer sends requests: the dead are in it, since no balancer knows at once, the drained are not."""
        return [replica.port for replica in self.replicas if replica.wanted.is_set()]

    def kill(self, replica: Replica, *, comes_back: bool = True) -> None:
        """Kill a replica that is up. It is started again after `RESTART_AFTER_S`, or by `start` only."""
        assert replica.process is not None, "it is up"
        if not comes_back:
            replica.wanted.clear()
        replica.process.kill()

    def drain(self, replica: Replica) -> None:
        """Let a replica that is up leave in order: no new requests, then SIGTERM. Only `start` brings it back."""
        assert replica.process is not None, "it is up"
        replica.wanted.clear()
        replica.drains_since_s = time.monotonic()
        replica.process.terminate()
        self._share()

    def start(self, replica: Replica) -> None:
        """Start a replica again that stays away."""
        replica.drains_since_s = None
        replica.wanted.set()

    def join(self) -> Replica | None:
        """Start one more, and return it; None where there are as many as may be."""
        if len(self.replicas) == len(self._slots):
            return None
        replica = self._slots[len(self.replicas)]
        self.replicas.append(replica)
        replica.away_since_s = time.monotonic()
        replica.wanted.set()
        return replica

    async def tell_ready(self, page_port: int) -> None:
        """Wait until every replica answers requests, and each is linked to each; tell both.

        Raises:
            DemoError: they did not find each other.
        """
        page = f"http://{LOOPBACK}:{page_port}"
        for replica in self.replicas:
            await replica.up.wait()
        self._narrator.say(
            "started",
            f"the page is up on {page}, {len(self.replicas)} replicas behind it",
            page=page,
            replicas=[{"replica": one.number, "pid": one.pid, "port": one.port} for one in self.replicas],
        )
        try:
            await asyncio.wait_for(self._formed.wait(), FORM_S)
        except TimeoutError:
            raise DemoError(
                f"the replicas did not find each other within {FORM_S:g} s; they look by multicast on {LOOPBACK}"
            ) from None
        self._narrator.say(
            "members",
            f"each of the {len(self.replicas)} replicas is linked to the others",
            members=[one.name for one in self.replicas],
        )

    async def run(self) -> None:
        """Keep the replicas running until cancelled; then end them.

        Raises:
            DemoError: one ended before it was up.
        """
        keeping = [asyncio.create_task(self._keep(replica)) for replica in self._slots]
        try:
            await asyncio.gather(*keeping)
        finally:
            self._ending = True
            for task in keeping:
                task.cancel()
            await self._end_all()

    # --- inside -------------------------------------------------------------------------------------------

    async def _keep(self, replica: Replica) -> None:
        while True:
            await replica.wanted.wait()
            process = await replica.start(self._settings)
            self._share()
            assert process.stdout is not None, "a pipe was asked for"
            opening = asyncio.create_task(self._tell_when_up(replica))
            async for line in process.stdout:
                self._heard(replica, json.loads(line))
            opening.cancel()
            self._tell_end(replica, await process.wait())
            if replica.wanted.is_set():
                await asyncio.sleep(RESTART_AFTER_S)

    async def _tell_when_up(self, replica: Replica) -> None:
        await _opened(replica.port)
        where = f"http://{LOOPBACK}:{replica.port}"
        facts = {"replica": replica.number, "pid": replica.pid, "port": replica.port}
        if replica.away_since_s is None:
            self._narrator.say("up", f"replica {replica.number} (pid {replica.pid}) is up on {where}", **facts)
        else:
            again = replica.ended.is_set()
            how = f"is up again on {where}, with the new pid" if again else f"joined on {where}, pid"
            self._narrator.say(
                "restarted" if again else "joined",
                f"replica {replica.number} {how} {replica.pid}",
                **facts,
                took_ms=took_ms(replica.away_since_s),
            )
        replica.ended.clear()
        replica.up.set()
        self._share()
        self._tell_if_caught_up(replica)

    def _tell_end(self, replica: Replica, code: int) -> None:
        if not replica.up.is_set():
            raise DemoError(f"replica {replica.number} ended with exit code {code} before it was up")
        replica.away_since_s = time.monotonic()
        who = f"replica {replica.number} (pid {replica.pid})"
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        facts = {"replica": replica.number, "pid": replica.pid, "how": how}
        if replica.drains_since_s is not None:
            drained_ms = took_ms(replica.drains_since_s)
            handed = "" if replica.handed_over is None else f"; it handed over {things(replica.handed_over, 'session')}"
            self._narrator.say(
                "drained",
                f"{who} was drained and left after {drained_ms} ms{handed}",
                **facts,
                sessions=replica.handed_over,
                took_ms=drained_ms,
            )
        else:
            back = f"it comes back in {RESTART_AFTER_S:g} s" if replica.wanted.is_set() else "it stays away"
            self._narrator.say("killed", f"{who} was killed ({how}); {back}", **facts)
        replica.end()
        self._told.clear()  # what the others show from now on is news
        self._share()

    def _heard(self, replica: Replica, said: dict[str, Any]) -> None:
        if said["kind"] == "knows":
            self._heard_knows(replica, said)
        elif said["kind"] == "handed_over":
            replica.handed_over = said["sessions"]
        elif said["kind"] == "order":
            self._obey(said["order"], said["replica"])
        elif self._tells_clicks:
            self._tell_click(replica, said)

    def _obey(self, order: str, number: int) -> None:
        """Do what somebody ordered on the page. It may be out of date: then nothing is done."""
        if order == "join":
            self.join()
            return
        for replica in self.replicas:
            match order, replica.mate.state:
                case _ if replica.number != number:
                    continue
                case "kill", "up":
                    self.kill(replica)
                case "drain", "up":
                    self.drain(replica)
                case "start", "drained":
                    self.start(replica)

    def _share(self) -> None:
        """Tell all replicas what the page shows of each, where that has changed."""
        line = json.dumps([asdict(replica.mate) for replica in self.replicas]).encode() + b"\n"
        if line != self._shared:
            self._shared = line
            for replica in self.replicas:
                replica.hear(line)

    def _heard_knows(self, replica: Replica, said: dict[str, Any]) -> None:
        news: dict[str, list[str]] = {}
        for name, state in said["peers"].items():
            if replica.peers.get(name) != state:
                news.setdefault(state, []).append(name)
        for state, names in news.items():
            peers = ", ".join(name.replace("-", " ") for name in names)
            told = f"replica {replica.number} sees {peers}: {state}"
            self._narrator.say("sees", told, replica=replica.number, peers=names, state=state)
        changed = (said["sessions"], said["copies"]) != (replica.sessions, replica.copies)
        gained = (said["partitions"], said["share"]) != (replica.partitions, replica.share)
        replica.peers, replica.linked = said["peers"], frozenset(said["linked"])
        replica.sessions, replica.copies, replica.synced = said["sessions"], said["copies"], said["synced"]
        replica.partitions, replica.share = said["partitions"], said["share"]
        if (changed or gained) and replica.away_since_s is not None and not replica.caught_up.is_set():
            self._narrator.say(
                "gains",
                f"replica {replica.number} has {partitions(replica.partitions, replica.share)}, "
                f"{things(replica.sessions, 'session')}",
                replica=replica.number,
                partitions=replica.partitions,
                of=replica.share,
                sessions=replica.sessions,
            )
        elif changed:
            self._tell_holds_soon(replica)
        self._share()
        for one in self.replicas:
            self._tell_if_caught_up(one)
        if all(len(one.linked) == len(self.replicas) - 1 for one in self.replicas):
            self._formed.set()

    def _tell_holds_soon(self, replica: Replica) -> None:
        if replica.number not in self._telling_holds:
            self._telling_holds.add(replica.number)
            asyncio.get_running_loop().call_later(HOLDS_EVERY_S, self._tell_holds, replica)

    def _tell_holds(self, replica: Replica) -> None:
        self._telling_holds.discard(replica.number)
        if self._ending or replica.ended.is_set():
            return
        self._narrator.say(
            "holds",
            f"replica {replica.number} holds {held(replica.sessions, replica.copies)}",
            replica=replica.number,
            sessions=replica.sessions,
            copies=replica.copies,
        )

    def _tell_if_caught_up(self, replica: Replica) -> None:
        if replica.away_since_s is None or not replica.up.is_set() or replica.caught_up.is_set():
            return
        if replica.synced and all(one.name in replica.linked for one in self.up if one is not replica):
            self._narrator.say(
                "caught_up",
                f"replica {replica.number} caught up: {partitions(replica.partitions, replica.share)}, "
                f"{held(replica.sessions, replica.copies)}",
                replica=replica.number,
                partitions=replica.partitions,
                sessions=replica.sessions,
                copies=replica.copies,
                took_ms=took_ms(replica.away_since_s),
            )
            replica.caught_up.set()

    def _tell_click(self, replica: Replica, said: dict[str, Any]) -> None:
        what, session, shown = said["what"], said["session"], (said["user"], said["items"])
        if (said["user"] or "").startswith(VISITOR):
            return
        if session is None or (what == "view" and self._told.get((replica.number, session)) == shown):
            return  # a reload that shows what this replica has shown before
        who, cart = said["user"] or "somebody", f"cart {things(said['items'], 'item')}"
        match what:
            case "login":
                sentence = f"login as {who} answered by replica {replica.number}"
            case "logout":
                sentence = f"logout of {who} answered by replica {replica.number}"
            case "cart":
                sentence = f"replica {replica.number} put something in the cart of {who}: {cart}"
            case _:
                stale = ", but an older state" if said["stale"] else ""
                sentence = f"replica {replica.number} shows session {session}…: {who}, {cart}{stale}"
        self._told[replica.number, session] = shown
        fields = {name: said[name] for name in ("user", "items", "session", "stale")}
        self._narrator.say(what, sentence, replica=replica.number, **fields)

    async def _end_all(self) -> None:
        running = [one.process for one in self._slots if one.process is not None and one.process.returncode is None]
        for process in running:
            process.kill()  # all of them end, so there is nobody to hand anything to
        for process in running:
            await process.wait()


async def _opened(port: int) -> None:
    """Wait until somebody listens."""
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(LOOPBACK, port)
            writer.close()
            return
        await asyncio.sleep(LOOK_EVERY_S)
