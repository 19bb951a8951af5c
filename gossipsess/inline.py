# The sessions API on Trio. The node runs as a task of the caller's own loop; no thread is started.

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from gossipsess.config import Config
from gossipsess.face import RunningFace
from gossipsess.service import READY_S, READY_STEP_S, NodeService, listen

__all__ = ["open_node"]


@asynccontextmanager
async def open_node(config: Config | None = None) -> AsyncIterator[RunningFace]:
    """Run a node for the length of an ``async with`` block, entered once it is synced, or alone for two seconds.

    None: the settings of the environment.

    Raises:
        ConfigError: a setting is wrong, or no port is free.
    """
    wanted = config or Config.from_env()
    service = NodeService(wanted, listen(wanted))
    driver = service.make_driver(answers=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        with trio.move_on_after(READY_S):
            while not service.synced:  # noqa: ASYNC110  # becomes true in the driver, on whatever path
                await trio.sleep(READY_STEP_S)
        try:
            yield RunningFace(service)
        finally:
            driver.leave()
