# The sessions API on asyncio. The node runs in a thread of its own: a slow handler on the application's loop must
# not stop the failure detector.

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gossipsess.config import Config
from gossipsess.face import RunningFace
from gossipsess.service import READY_S, RunningNode

__all__ = ["open_node"]


@asynccontextmanager
async def open_node(config: Config | None = None) -> AsyncIterator[RunningFace]:
    """Run a node for the length of an ``async with`` block, entered once it is synced, or alone for two seconds.

    None: the settings of the environment.

    Raises:
        ConfigError: a setting is wrong, or no port is free.
    """
    running = RunningNode(config or Config.from_env())
    try:
        await asyncio.to_thread(running.wait_ready, READY_S)
        yield RunningFace(running)
    finally:
        await asyncio.to_thread(running.close)
