# Draft: what a request will commit, as entries over the record that it started from.
#
# In:    encoded values by key, and what is added to counters.    Out: what differs from the record, within the bounds.
# The session (session.py) and the views of counters and sets (subkeys.py) write into the same draft, so that one
# commit carries all of a request, and one account keeps all of it within bounds.
# Not here: values themselves, and their encoding (session.py).

from collections.abc import Iterator
from typing import Final

from gossipsess.errors import SessionTooLarge
from gossipsess.model.record import ABSOLUTE, CREATED, IDLE, SESSION_BYTES_MAX, Record, entry_bytes
from gossipsess.model.subkeys import COUNTER, Added, all_of, count, counter_key, counters_in

KEYS_MAX: Final = 1024
"""Keys of one session, deleted ones included: a deleted key must be remembered as long as the session lives."""

_REGISTERS_BYTES: Final = sum(entry_bytes(key, bytes(8)) for key in (CREATED, IDLE, ABSOLUTE))
_NOTHING: Final = Added(0)


class Draft:
    """One request's changes to a record.

    Attributes:
        record: what the request started from, or last committed.
        assigned: encoded values by key, reserved keys included; None: deleted.
        added: what is done to counters, by their names.
    """

    __slots__ = ("_bytes", "added", "assigned", "record")

    def __init__(self, record: Record) -> None:
        self.record = record
        self.assigned: dict[str, bytes | None] = {}
        self.added: dict[str, Added] = {}
        self._bytes: int | None = None  # of all values; counted at the first assignment

    def restart(self, record: Record) -> None:
        """Go on from another record, with no changes."""
        self.record = record
        self.assigned.clear()
        self.added.clear()
        self._bytes = None

    # --- keys ---------------------------------------------------------------------------------------------

    def get(self, key: str) -> bytes | None:
        """Return a key's encoded value; None where it has none. Reserved keys included."""
        if key in self.assigned:
            return self.assigned[key]
        entry = self.record.entries.get(key)
        return entry.value if entry is not None else None

    def present(self) -> Iterator[str]:
        """Yield every key that has a value, reserved ones included: those of the record come first."""
        assigned, entries = self.assigned, self.record.entries
        for key, entry in entries.items():
            if assigned.get(key, entry.value) is not None:
                yield key
        for key in list(assigned):
            if key not in entries:
                yield key

    def assign(self, key: str, encoded: bytes, path: str) -> None:
        """Give a key a value; `path` is what the application wrote, for the message of an error.

        Raises:
            SessionTooLarge: there is no room for it. Nothing has changed.
        """
        self._check_room(key, encoded, path)
        self.assigned[key] = encoded

    def unassign(self, key: str) -> None:
        """Delete a key that has a value."""
        if key in self.record.entries:
            self.assigned[key] = None
        else:
            del self.assigned[key]
        self._bytes = None

    def growth(self, key: str, encoded: bytes) -> int:
        """Return by how many bytes the session would grow with this value under a key."""
        if key in self.assigned:
            before = self.assigned[key]
        else:
            entry = self.record.entries.get(key)
            if entry is None:
                return entry_bytes(key, encoded)
            before = entry.value
        return len(encoded) - (len(before) if before else 0)

    def check_growth(self, grows_by: int, path: str) -> None:
        """Refuse a session over its bound.

        Raises:
            SessionTooLarge: with so much more it would be.
        """
        size = self._size() + grows_by
        if size > SESSION_BYTES_MAX:
            raise SessionTooLarge(
                f"{path} would make the session {size} bytes; at most {SESSION_BYTES_MAX} travel. "
                "Keep large data in the application's database and its key in the session."
            )

    # --- counters -----------------------------------------------------------------------------------------

    def counters(self) -> list[str]:
        """Return the names of all counters, those that stand at 0 included."""
        return list(dict.fromkeys([*counters_in(self.record.entries), *self.added]))

    def counted(self, name: str) -> int:
        """Return a counter's value."""
        return count(self.record.entries, self.added.get(name, _NOTHING), name)

    def add(self, name: str, amount: int, path: str) -> None:
        """Add to a counter.

        Raises:
            SessionTooLarge: the session has no room for another counter. Nothing has changed.
        """
        if name not in self.counters():
            self._check_room(counter_key(name, bytes(16)), bytes(8), path)
        added = self.added.get(name, _NOTHING)
        self.added[name] = added._replace(amount=added.amount + amount)

    def zero(self, name: str) -> None:
        """Take off a counter what is seen of it in the record, and what this request added."""
        self.added[name] = Added(0, all_of(self.record.entries, name))

    def additions(self) -> Iterator[tuple[str, Added]]:
        """Yield what is done to counters, as changes."""
        for name, added in self.added.items():
            if added != _NOTHING:
                yield COUNTER + name, added

    # --- inside -------------------------------------------------------------------------------------------

    def _check_room(self, key: str, encoded: bytes, path: str) -> None:
        entries = self.record.entries
        if key not in entries and key not in self.assigned:
            new_keys = sum(1 for name in self.assigned if name not in entries)
            if self.added:
                new_keys += len(self.counters()) - len(counters_in(entries))
            if len(entries) + new_keys >= KEYS_MAX:
                raise SessionTooLarge(
                    f"{path}: a session has at most {KEYS_MAX} keys, deleted ones included. "
                    "Keep many items in one value, or in the application's database."
                )
        grows_by = self.growth(key, encoded)
        if grows_by > 0:
            self.check_growth(grows_by, path)
        if self._bytes is not None:  # where nothing grows it need not even be known
            self._bytes += grows_by

    def _size(self) -> int:
        if self._bytes is None:
            entries = self.record.entries
            changed = (entry_bytes(key, value) for key, value in self.assigned.items())
            replaced = (self._stored_size(key) for key in self.assigned if key in entries)
            stored = self.record.size or _REGISTERS_BYTES  # a new session gets its registers with the first commit
            self._bytes = stored + sum(changed) - sum(replaced)
        return self._bytes

    def _stored_size(self, key: str) -> int:
        entry = self.record.entries.get(key)
        return entry_bytes(key, entry.value) if entry is not None else 0
