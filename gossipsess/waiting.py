# Waiting: for an answer of the store, in whatever way the caller waits.
#
# In:    what the store returns: the answer itself, or a `concurrent.futures.Future` of it.   Out: the answer.
# What takes several answers, one after the other, is written once as a generator of them (`Steps`), and run in either
# way.
# Trio is imported only where it already runs: an asyncio or threaded application never pays for it here.
# Not here: what is asked (store.py), and the event loop of the node itself (runtime/).

import asyncio
import sys
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import closing, suppress
from typing import Any, TypeVar, overload

T = TypeVar("T")
Steps = Generator[Any, Any, T]
"""Yields what is to be waited for, and is sent the answers; returns the result."""


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


async def steps_on_any_loop(steps: Steps[T]) -> T:
    """Return what the steps come to, waiting on the loop that runs the caller.

    Raises:
        Exception: what one of the steps raised, or was given instead of an answer.
    """
    answer: object = None
    with closing(steps):  # at once, where this is cancelled
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as end:
                result: T = end.value
                return result
            answer = await on_any_loop(step)


def steps_blocking(steps: Steps[T]) -> T:
    """Return what the steps come to; the calling thread waits."""
    # The loop above once more. Only its `await` differs, which no function can be given as an argument; a helper for
    # the rest would return a step or the result, and say which.
    answer: object = None
    with closing(steps):  # at once, where this is interrupted
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as end:
                result: T = end.value
                return result
            answer = blocking(step)


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
