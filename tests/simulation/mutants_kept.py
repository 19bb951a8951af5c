"""Bugs planted in counters, sets and the adoption of former cookies. See mutants.py."""

from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from itertools import count
from typing import Any

import pytest

from gossipsess import draft as draft_module
from gossipsess import store as store_module
from gossipsess.model import subkeys
from gossipsess.model.adoption import is_mark_sid
from gossipsess.model.clock import Stamp
from gossipsess.model.delta import Delta
from gossipsess.model.identity import NodeId, Sid
from gossipsess.model.record import Entry
from gossipsess.model.subkeys import COUNTER, MEMBER, Added, Change, Taken
from gossipsess.protocol import writes
from gossipsess.store import SessionStore
from gossipsess.tokens import Tokens

Plant = Callable[[pytest.MonkeyPatch], None]


def a_counter_is_one_entry(patch: pytest.MonkeyPatch) -> None:
    """A counter is one number under one key, and the later whole value wins."""
    real = subkeys._slot_written

    def slot_written(
        name: str, added: Added, entries: Mapping[str, Entry], stamp: Stamp, origin: NodeId, *, behind: bool
    ) -> tuple[str, bytes]:
        return real(name, added, entries, 0, bytes(len(origin)), behind=False)

    patch.setattr(subkeys, "_slot_written", slot_written)


def clearing_takes_what_is_there_by_then(patch: pytest.MonkeyPatch) -> None:
    """A counter is cleared of all that is there when the request commits, and not of what it has seen."""
    real = subkeys.resolved

    def resolved(changes: Iterable[tuple[str, Change]], entries: Mapping[str, Entry], *args: Any, **kwargs: Any) -> Any:
        changes = [
            (key, change._replace(taken=subkeys.all_of(entries, key[len(COUNTER) :])))
            if isinstance(change, Added) and change.taken
            else (key, change)
            for key, change in changes
        ]
        return real(changes, entries, *args, **kwargs)

    patch.setattr("gossipsess.model.table.resolved", resolved)


def clearing_adds_what_takes_it_to_zero(patch: pytest.MonkeyPatch) -> None:
    """A counter is cleared by a negative addition: two who clear it at once take everything off twice."""

    def all_of(entries: Mapping[str, Entry], name: str) -> tuple[Taken, ...]:
        return (Taken(bytes(16), 1, subkeys.count(entries, Added(0), name)),)

    real = subkeys._slot_written

    def slot_written(name: str, added: Added, *args: Any, **kwargs: Any) -> tuple[str, bytes]:
        return real(name, Added(added.amount - sum(one.total for one in added.taken)), *args, **kwargs)

    patch.setattr(draft_module, "all_of", all_of)
    patch.setattr(subkeys, "_slot_written", slot_written)


def rotation_copies_slots(patch: pytest.MonkeyPatch) -> None:
    """A rotation moves the slot of the node that rotates, and forgets what was added elsewhere."""

    def rotated(entries: Mapping[str, Entry], changes: Iterable[tuple[str, Change]]) -> dict[str, Change]:
        kept = real(entries, changes)
        slots = [key for key in entries if key.startswith(COUNTER)]
        for key in slots[1:]:
            kept.pop(COUNTER + key[subkeys._NAME_AT :], None)
        return kept

    real = subkeys.rotated
    patch.setattr(writes, "rotated", rotated)


def rotation_leaves_members_behind(patch: pytest.MonkeyPatch) -> None:
    """A rotation moves keys and counters, and no sets."""

    def rotated(entries: Mapping[str, Entry], changes: Iterable[tuple[str, Change]]) -> dict[str, Change]:
        return {key: value for key, value in real(entries, changes).items() if not key.startswith(MEMBER)}

    real = subkeys.rotated
    patch.setattr(writes, "rotated", rotated)


def cookies_become_random_ids(patch: pytest.MonkeyPatch) -> None:
    """Each time that a cookie is shown it gets another id."""
    times = count()
    patch.setattr(Tokens, "derived", lambda self, name: (sha256(name + next(times).to_bytes(8, "big")).digest(),))


def marks_are_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    """A cookie is adopted whenever its session is not there."""
    patch.setattr(SessionStore, "mark", lambda self, name: None)


def marks_end_before_their_cookies(patch: pytest.MonkeyPatch) -> None:
    """A mark is kept for a minute, and not as long as the cookie is valid."""
    real = SessionStore.put_mark

    def put_mark(self: SessionStore, name: bytes, signed_at: float, ends_at: float) -> Any:
        return real(self, name, signed_at, signed_at + 60)

    patch.setattr(SessionStore, "put_mark", put_mark)


def adoptions_are_writes_of_now(patch: pytest.MonkeyPatch) -> None:
    """What is adopted is stamped when it is, by the node that does it: the later adoption undoes what was written."""
    real = store_module.adopted

    def adopted(
        sid: Sid, changes: tuple[tuple[str, bytes | None], ...], name: bytes, signed_ms: int, accessed_ms: int
    ) -> Delta:
        return real(sid, changes, name, signed_ms if is_mark_sid(sid) else accessed_ms, accessed_ms)

    patch.setattr(store_module, "adopted", adopted)


PLANTS: tuple[Plant, ...] = (
    a_counter_is_one_entry,
    clearing_takes_what_is_there_by_then,
    clearing_adds_what_takes_it_to_zero,
    rotation_copies_slots,
    rotation_leaves_members_behind,
    cookies_become_random_ids,
    marks_are_not_looked_at,
    marks_end_before_their_cookies,
    adoptions_are_writes_of_now,
)
