# Replica: one app process of the demo, as the process that runs it sees it.
#
# In:    what it says of itself (crew.py reads it).    Out: its state, and lines on its standard input.
# Not here: starting and ending it, and telling people of it (crew.py).

import asyncio
import os
import sys
from collections.abc import Mapping
from typing import Final

from gossipsess.cli.demo.page import Mate
from gossipsess.cli.demo.ports import LOOPBACK

PIPE_BYTES_MAX: Final = 65536
"""Waiting for a replica to read them. One that is stopped reads nothing, and needs only the last line anyway."""


class Replica:
    """One replica; the process behind it is another one after each start."""

    def __init__(self, number: int, port: int) -> None:
        self.number = number
        self.port = port
        self.process: asyncio.subprocess.Process | None = None
        self.wanted = asyncio.Event()
        """It is to run: it is started, and started again when it dies."""
        self.up = asyncio.Event()
        self.ended = asyncio.Event()
        """Its last process is gone, and no new one is up yet."""
        self.caught_up = asyncio.Event()
        """After a late or another start: it has synced, and is linked to all that are up."""
        self.away_since_s: float | None = None
        """When its last process ended, or when one more was asked for, monotonic clock; None for the first ones."""
        self.drains_since_s: float | None = None
        """When it was told to drain, monotonic clock; None where it was not."""
        self.peers: dict[str, str] = {}
        """Name to state, as this replica last said."""
        self.linked: frozenset[str] = frozenset()
        self.sessions = 0
        self.copies = 0
        """How many of these live on other replicas; a request has brought or left them here."""
        self.partitions = 0
        """Of how many it holds what there is."""
        self.share = 0
        """How many it is to hold."""
        self.synced = False
        self.handed_over: int | None = None
        """How many sessions others have from it, since it was told to drain; None where it has not said so."""

    @property
    def name(self) -> str:
        """Its node's name."""
        return f"replica-{self.number}"

    @property
    def pid(self) -> int:
        """Of the process that it is now, or last was."""
        assert self.process is not None, "it was started"
        return self.process.pid

    @property
    def mate(self) -> Mate:
        """What its page and the others' show of it."""
        if self.drains_since_s is not None:
            state = "drained" if self.ended.is_set() else "draining"
        elif self.up.is_set():
            state = "up"
        else:
            gone = self.process is not None and self.process.returncode is not None
            state = "killed" if gone else "starting"
        pid = self.process.pid if self.process is not None else 0
        return Mate(
            self.number,
            state,
            pid,
            self.port,
            self.sessions,
            self.copies,
            self.partitions,
            self.share,
            self.synced,
        )

    async def start(self, settings: Mapping[str, str]) -> asyncio.subprocess.Process:
        """Start a process and return it; `settings` are those of its node, but for its name."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("GOSSIPSESS_")}
        command = [sys.executable, "-m", "uvicorn", "gossipsess.cli.demo.app:app"]
        command += ["--host", LOOPBACK, "--port", str(self.port), "--log-level", "warning", "--no-access-log"]
        command += ["--header", "Connection:close"]  # so that each request is balanced anew
        command += ["--timeout-graceful-shutdown", "1"]
        self.process = await asyncio.create_subprocess_exec(
            *command,
            env=environ | {**settings, "GOSSIPSESS_NODE_NAME": self.name},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C on the terminal is for this process, which then ends the others
        )
        return self.process

    def hear(self, line: bytes) -> None:
        """Write a line to its standard input, unless it is gone or does not read."""
        if self.process is None or self.process.returncode is not None:
            return
        assert self.process.stdin is not None, "a pipe was asked for"
        pipe = self.process.stdin.transport
        if not pipe.is_closing() and pipe.get_write_buffer_size() < PIPE_BYTES_MAX:
            self.process.stdin.write(line)

    def end(self) -> None:
        """Note that the process behind it is gone."""
        self.up.clear()
        self.caught_up.clear()
        self.ended.set()
        self.peers, self.linked, self.sessions, self.copies, self.synced = {}, frozenset(), 0, 0, False
        self.partitions, self.share, self.handed_over = 0, 0, None
