# Crew: the three app processes: started, listened to, started again when they die, and ended with this one.
#
# In:    ports; what the replicas print (app.py).
# Out:   events to the narrator: up, started, members, sees, holds, killed, restarted, caught_up; with
#        `tells_clicks` also what people clicked.
# Choice: a replica holds one end of a pipe to this process and ends when the other end closes, so nothing is left
#         behind even where this process gets no chance to clean up.
# Not here: what is played on them (scenario.py).

import asyncio
import contextlib
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

from gossipsess.cli.demo.narrator import Narrator, things, took_ms
from gossipsess.cli.demo.ports import LOOPBACK

RESTART_AFTER_S: Final = 2.0
"""Long enough to reload the page while the replica is missing."""
LOOK_EVERY_S: Final = 0.05
FORM_S: Final = 15.0
"""How long the replicas may take until each is linked to each; one second is usual."""


class DemoError(Exception):
    """The demo cannot go on; the message says why."""


class Replica:
    """One replica; the process behind it is another one after each restart."""

    def __init__(self, number: int, port: int) -> None:
        self.number = number
        self.port = port
        self.process: asyncio.subprocess.Process | None = None
        self.up = asyncio.Event()
        self.ended = asyncio.Event()
        """Its last process is gone, and no new one is up yet."""
        self.caught_up = asyncio.Event()
        """After a restart: it holds as many sessions as any other replica."""
        self.died_at_s: float | None = None
        """When its last process ended, monotonic clock; None for the first process."""
        self.peers: dict[str, str] = {}
        """Name to state, as this replica last said."""
        self.linked: frozenset[str] = frozenset()
        self.sessions = 0

    @property
    def name(self) -> str:
        """Its node's name."""
        return f"replica-{self.number}"

    @property
    def pid(self) -> int:
        """Of the process that it is now, or last was."""
        assert self.process is not None, "it was started"
        return self.process.pid

    def end(self) -> None:
        """Note that the process behind it is gone."""
        self.up.clear()
        self.caught_up.clear()
        self.ended.set()
        self.peers, self.linked, self.sessions = {}, frozenset(), 0


class Crew:
    """The replicas, one for each of `ports`."""

    def __init__(self, ports: Sequence[int], narrator: Narrator, *, tells_clicks: bool) -> None:
        self.replicas = [Replica(number, port) for number, port in enumerate(ports, 1)]
        self._formed = asyncio.Event()  # every replica has once been linked to every other
        self._narrator = narrator
        self._tells_clicks = tells_clicks
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
        keeping = [asyncio.create_task(self._keep(replica)) for replica in self.replicas]
        try:
            await asyncio.gather(*keeping)
        finally:
            for task in keeping:
                task.cancel()
            await self._end_all()

    # --- inside -------------------------------------------------------------------------------------------

    async def _keep(self, replica: Replica) -> None:
        while True:
            process = replica.process = await self._start(replica)
            assert process.stdout is not None, "a pipe was asked for"
            opening = asyncio.create_task(self._tell_when_up(replica))
            async for line in process.stdout:
                self._heard(replica, json.loads(line))
            opening.cancel()
            self._tell_end(replica, await process.wait())
            await asyncio.sleep(RESTART_AFTER_S)

    async def _start(self, replica: Replica) -> asyncio.subprocess.Process:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("GOSSIPSESS_")}
        command = [sys.executable, "-m", "uvicorn", "gossipsess.cli.demo.app:app"]
        command += ["--host", LOOPBACK, "--port", str(replica.port), "--log-level", "warning", "--no-access-log"]
        command += ["--header", "Connection:close"]  # so that each request is balanced anew
        command += ["--timeout-graceful-shutdown", "1"]
        return await asyncio.create_subprocess_exec(
            *command,
            env=environ | self._settings | {"GOSSIPSESS_NODE_NAME": replica.name},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C on the terminal is for this process, which then ends the others
        )

    async def _tell_when_up(self, replica: Replica) -> None:
        await _opened(replica.port)
        where = f"http://{LOOPBACK}:{replica.port}"
        facts = {"replica": replica.number, "pid": replica.pid, "port": replica.port}
        if replica.died_at_s is None:
            self._narrator.say("up", f"replica {replica.number} (pid {replica.pid}) is up on {where}", **facts)
        else:
            self._narrator.say(
                "restarted",
                f"replica {replica.number} is up again on {where}, with the new pid {replica.pid}",
                **facts,
                took_ms=took_ms(replica.died_at_s),
            )
        replica.ended.clear()
        replica.up.set()
        self._tell_if_caught_up(replica)

    def _tell_end(self, replica: Replica, code: int) -> None:
        if not replica.up.is_set():
            raise DemoError(f"replica {replica.number} ended with exit code {code} before it was up")
        replica.died_at_s = time.monotonic()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self._narrator.say(
            "killed",
            f"replica {replica.number} (pid {replica.pid}) was killed ({how}); it comes back in {RESTART_AFTER_S:g} s",
            replica=replica.number,
            pid=replica.pid,
            how=how,
        )
        replica.end()
        self._told.clear()  # what the others show from now on is news

    def _heard(self, replica: Replica, said: dict[str, Any]) -> None:
        if said["kind"] == "knows":
            self._heard_knows(replica, said)
        elif self._tells_clicks:
            self._tell_click(replica, said)

    def _heard_knows(self, replica: Replica, said: dict[str, Any]) -> None:
        for name, state in said["peers"].items():
            if replica.peers.get(name) != state:
                self._narrator.say(
                    "sees",
                    f"replica {replica.number} sees {name.replace('-', ' ')}: {state}",
                    replica=replica.number,
                    peer=name,
                    state=state,
                )
        if said["sessions"] != replica.sessions:
            self._narrator.say(
                "holds",
                f"replica {replica.number} holds {things(said['sessions'], 'session')}",
                replica=replica.number,
                sessions=said["sessions"],
            )
        replica.peers, replica.linked = said["peers"], frozenset(said["linked"])
        replica.sessions = said["sessions"]
        self._tell_if_caught_up(replica)
        if all(len(one.linked) == len(self.replicas) - 1 for one in self.replicas):
            self._formed.set()

    def _tell_if_caught_up(self, replica: Replica) -> None:
        if replica.died_at_s is None or not replica.up.is_set() or replica.caught_up.is_set():
            return
        if replica.linked and replica.sessions >= max(one.sessions for one in self.replicas):
            self._narrator.say(
                "caught_up",
                f"replica {replica.number} caught up: {things(replica.sessions, 'session')}",
                replica=replica.number,
                sessions=replica.sessions,
                took_ms=took_ms(replica.died_at_s),
            )
            replica.caught_up.set()

    def _tell_click(self, replica: Replica, said: dict[str, Any]) -> None:
        what, session, shown = said["what"], said["session"], (said["user"], said["items"])
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
        running = [one.process for one in self.replicas if one.process is not None and one.process.returncode is None]
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
