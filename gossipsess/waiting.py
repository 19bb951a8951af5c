# Waiting: for an answer of the store, in whatever way the caller waits.
#
# In:    what the store returns: the answer itself, or a `concurrent.futures.Future` of it.   Out: the answer.
# Trio is imported only where it already runs: an asyncio or threaded application never pays for it here.
# Not here: what is asked (store.py), and the event loop of the node itself (runtime/).

import asyncio
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeVar, overload

T = TypeVar("T")


async def on_any_loop(answer: T | Future[T]) -> T:
    """Return the answer on the loop that runs the caller, asyncio's or Trio's.

    Raises:
        Exception: what the Future was given instead of an answer.
    """
    return await (on_trio(answer) if _in_trio() else on_asyncio(answer))


async def on_asyncio(answer: T | Future[T]) -> T:
    """Return the answer; the asyncio loop goes on meanwhile."""
    if not isinstance(answer, Future):
        return answer
    return answer.result() if answer.done() else await asyncio.wrap_future(answer)


async def on_trio(answer: T | Future[T]) -> T:
    """Return the answer; the Trio loop goes on meanwhile."""
    if not isinstance(answer, Future):
        return answer
    if not answer.done():
        import trio

        settled = trio.Event()
        token = trio.lowlevel.current_trio_token()

        def wake(_: Future[T]) -> None:
            with suppress(trio.RunFinishedError):  # the waiting task was cancelled and its loop has ended
                token.run_sync_soon(settled.set)

        answer.add_done_callback(wake)
        await settled.wait()
    return answer.result()


@overload
def blocking(answer: Future[T]) -> T: ...
@overload
def blocking(answer: T) -> T: ...
def blocking(answer: T | Future[T]) -> T:
    """Return the answer; the calling thread waits."""
    return answer.result() if isinstance(answer, Future) else answer


def in_thread(function: Callable[[], T]) -> Future[T]:
    """Call a blocking function in a daemon thread of its own; the Future takes what it returns or raises."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # from here on nobody can cancel it, and it is set exactly once

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="gossipsess-wait", daemon=True).start()
    return future


def _in_trio() -> bool:
    # The node's thread may be importing Trio at this moment; a half-imported Trio runs no task.
    in_trio_task = getattr(sys.modules.get("trio.lowlevel"), "in_trio_task", None)
    return in_trio_task is not None and bool(in_trio_task())
