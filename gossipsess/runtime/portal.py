# Portal: a driver in a daemon thread of its own, beside whatever the process itself runs on.
#
# A thread and not a guest of the process's own loop: a slow request handler must not stop the failure detector.

import logging
import threading
from collections.abc import Callable
from contextlib import suppress

import trio

from gossipsess.runtime.driver import DRAIN_S, LEAVE_S, Driver

log = logging.getLogger("gossipsess")

CLOSE_S = DRAIN_S + 2 * LEAVE_S + 1.0
"""How long the process waits at its end for the thread to say goodbye."""


class Portal:
    """A running thread."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self._started = threading.Event()
        self._token: trio.lowlevel.TrioToken | None = None
        self._thread = threading.Thread(target=self._run, name="gossipsess", daemon=True)
        self._thread.start()
        self._started.wait()

    def leave_soon(self) -> None:
        """Let the node begin to leave."""
        self.run_soon(self.driver.leave)

    def close(self) -> None:
        """Let the node leave, and wait for the thread to end, at most `CLOSE_S`."""
        self.leave_soon()
        self._thread.join(CLOSE_S)

    def run_soon(self, function: Callable[[], object]) -> None:
        """Call a function in the Trio thread; nothing happens where that has ended."""
        if self._token is not None:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(function)

    def _run(self) -> None:
        try:
            try:
                trio.run(self._main)
            finally:
                self.driver.end()  # also where no loop came up
        except BaseException:
            log.exception("replication stopped: this process goes on with its own sessions, and nobody hears of them")
        finally:
            self._started.set()

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        await self.driver.run(self._started.set)
