"""Changes reach a reader in order, and a slow one loses the oldest and knows it."""

import asyncio
import threading

import pytest
import trio

from gossipsess import subscription
from gossipsess.protocol.effects import Notify
from gossipsess.subscription import Change, Subscription


def notify(number: int) -> Notify:
    return Notify("changed", number.to_bytes(16, "big"), remote=False)


def change(number: int) -> Change:
    return Change("changed", number.to_bytes(16, "big").hex(), remote=False)


def test_what_was_heard_before_the_reader_came_is_read_in_order():
    """Nothing is lost between subscribing and reading."""
    changes = Subscription(lambda one: None)
    for number in range(3):
        changes.heard(notify(number))
    changes.close()
    assert list(changes) == [change(0), change(1), change(2)]
    assert list(changes) == []


def test_a_thread_that_waits_is_woken_by_the_next_change_and_by_the_end():
    """A reader without a way out would hold up the end of its process."""
    changes = Subscription(lambda one: None)
    read: list[Change] = []
    got = threading.Event()

    def reader() -> None:
        for one in changes:
            read.append(one)
            got.set()

    thread = threading.Thread(target=reader)
    thread.start()
    changes.heard(notify(1))
    assert got.wait(5)
    changes.close()
    thread.join(5)
    assert not thread.is_alive()
    assert read == [change(1)]


async def test_a_reader_that_was_cancelled_loses_nothing():
    """A timeout around the read is the usual way to look now and then."""
    changes = Subscription(lambda one: None)
    with trio.move_on_after(0) as scope:
        await changes.__anext__()
    assert scope.cancelled_caught
    changes.heard(notify(1))
    changes.heard(notify(2))
    with trio.fail_after(5):
        assert [await changes.__anext__(), await changes.__anext__()] == [change(1), change(2)]


def test_a_reader_on_asyncio_that_was_cancelled_loses_nothing():
    """asyncio cancels futures; the one of the next change must survive that."""

    async def main() -> None:
        changes = Subscription(lambda one: None)
        reading = asyncio.ensure_future(changes.__anext__())
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        changes.heard(notify(1))
        changes.close()
        assert [one async for one in changes] == [change(1)]

    asyncio.run(main())


def test_a_slow_reader_loses_the_oldest_and_is_told_how_many(monkeypatch):
    """The node must not hold changes without end for a reader that hangs."""
    monkeypatch.setattr(subscription, "CHANGES_MAX", 3)
    changes = Subscription(lambda one: None)
    for number in range(5):
        changes.heard(notify(number))
    changes.close()
    assert list(changes) == [change(2), change(3), change(4)]
    assert changes.missed == 2


def test_leaving_the_block_ends_the_subscription():
    """The node stops telling when nobody listens any more."""
    ended = []
    with Subscription(ended.append) as changes:
        assert ended == []
    assert ended == [changes]
