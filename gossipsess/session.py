# Session: what the application sees, a mapping.
#
# It is one request's own copy: values are decoded when read, encoded when assigned, and never shared with another
# request. A value that cannot travel is refused where it is assigned. A value that can be changed in place (a
# list, say) is encoded once more when the request commits, and counts as changed if its bytes differ.

from collections.abc import Iterator, MutableMapping
from typing import Any, Final

from gossipsess.errors import SessionTooLarge, UnreplicableValue
from gossipsess.model.record import (
    ABSOLUTE,
    CREATED,
    IDLE,
    KEY_CHARACTERS_MAX,
    RESERVED,
    SESSION_BYTES_MAX,
    USER,
    Record,
    entry_bytes,
)
from gossipsess.model.revocation import USER_CHARACTERS_MAX, user_entry, user_of, user_value
from gossipsess.model.table import register, register_value
from gossipsess.protocol.events import Changes, Dot
from gossipsess.wire.values import decode_value, encode_value

KEYS_MAX: Final = 1024
"""Keys of one session, deleted ones included: a deleted key must be remembered as long as the session lives."""

LIMIT_S_MAX: Final = 10**10

_REGISTERS_BYTES: Final = sum(entry_bytes(key, bytes(8)) for key in (CREATED, IDLE, ABSOLUTE))
_UNCHANGEABLE: Final = frozenset({str, int, float, bool, type(None), bytes})


class Session(MutableMapping[str, Any]):
    """One session, as one request sees it.

    Attributes:
        id: 32 characters base36; changes when the session rotates.
        created_at, accessed_at: Unix time, seconds. `accessed_at` is coarse, and is the last use before this one.
        is_new: nothing of it has been stored yet.
        stale: a write that the client's version token names was not found in time, and what is here is older; or this
            node is no holder of the session, and no holder could say in time whether its copy is the newest.
        token: the version token, to be sent back with the id by the next request; "" where nothing was written.
        accessed: anything of it was read or written by this request.
        user: whose it is, by which `revoke` finds it; None: nobody's.
    """

    # Most requests leave these as they are, and do not pay for setting them.
    accessed = False
    _bytes: int | None = None  # of all values; counted at the first assignment
    _new_user: tuple[str | None] | None = None  # None: not changed by this request

    def __init__(
        self,
        session_id: str,
        record: Record,
        *,
        created_at: float,
        accessed_at: float,
        token: str = "",
        unmet: tuple[Dot, ...] = (),
        stale: bool = False,
    ) -> None:
        self.id = session_id
        self.created_at = created_at
        self.accessed_at = accessed_at
        self.token = token
        self._record = record
        self._unmet = unmet
        self._stale = stale or bool(unmet)
        self._live: dict[str, Any] = {}  # values decoded or assigned by this request
        self._assigned: dict[str, bytes | None] = {}  # encoded; None: deleted
        self._limits: dict[str, bytes] = {}  # registers set by this request

    @property
    def sid(self) -> str:
        """The one-way hash of the id under which the session is replicated, 32 hexadecimal digits; safe to log."""
        return self._record.sid.hex()

    @property
    def is_new(self) -> bool:
        """Nothing of it has been stored yet."""
        return not self._record.entries

    @property
    def stale(self) -> bool:
        """A write that the version token names was not in here when it was loaded."""
        return self._stale

    @property
    def user(self) -> str | None:
        """Whose session this is: at most 256 characters of text, by which `revoke` finds it; None: nobody's.

        Assigning another user is a login, and a revocation ends the sessions whose login came before it. To assign
        the user that it has already is no login, and changes nothing.
        """
        self.accessed = True
        return self._new_user[0] if self._new_user is not None else user_of(user_entry(self._record))

    @user.setter
    def user(self, user: str | None) -> None:
        self.accessed = True
        self._changing("session.user = ...")
        if user is not None:
            check_user(user)
        self._new_user = None if user == user_of(user_entry(self._record)) else (user,)

    def limit(self, *, idle_s: float | None = None, ends_at: float | None = None) -> None:
        """Set when this session ends by time, in place of the store's settings; kept with the next commit.

        Args:
            idle_s: seconds without use after which it ends; None: as it is.
            ends_at: Unix time, seconds, at which it ends, used or not; None: as it is.

        Raises:
            ValueError: not a number, negative, or over 10**10: some centuries.
        """
        for key, seconds in ((IDLE, idle_s), (ABSOLUTE, ends_at)):
            if seconds is not None:
                if not 0 <= seconds <= LIMIT_S_MAX:
                    raise ValueError(f"a session's limit of {seconds!r} seconds; allowed are 0 to {LIMIT_S_MAX}.")
                self._limits[key] = register_value(round(seconds * 1000))

    @property
    def modified(self) -> bool:
        """There is something to commit, changes inside values included."""
        return bool(self.changes())

    @property
    def assigned(self) -> bool:
        """This request has assigned, deleted or limited something. What it changed inside a value is not looked at."""
        return bool(self._assigned or self._new_user or self._limits)

    @property
    def cookie(self) -> str:
        """Id and version token in one opaque string, for `load`."""
        return f"{self.id}.{self.token}" if self.token else self.id

    def __getitem__(self, key: str) -> Any:
        self.accessed = True
        if key in self._live:
            return self._live[key]
        if key in self._assigned:
            raise KeyError(key)  # deleted by this request
        entry = self._record.entries.get(key)
        if entry is None or entry.value is None or key[:1] == RESERVED:
            raise KeyError(key)
        value = self._live[key] = decode_value(entry.value)
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        self.accessed = True
        self._changing(f"session[{key!r}] = ...")
        self._check_key(key)
        encoded = encode_value(value, f"session[{key!r}]")
        self._check_room(key, encoded)
        self._assigned[key] = encoded
        self._live[key] = value

    def __delitem__(self, key: str) -> None:
        self.accessed = True
        self._changing(f"del session[{key!r}]")
        if key not in self:
            raise KeyError(key)
        self._live.pop(key, None)
        if key in self._record.entries:
            self._assigned[key] = None
        else:
            del self._assigned[key]
        self._bytes = None

    def __iter__(self) -> Iterator[str]:
        self.accessed = True
        assigned = self._assigned
        for key, entry in self._record.entries.items():
            if key not in assigned:
                if entry.value is not None and key[:1] != RESERVED:
                    yield key
            elif assigned[key] is not None:
                yield key
        for key in list(assigned):
            if key not in self._record.entries:
                yield key

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        for _ in self:  # without counting the others
            return True
        return False

    def __contains__(self, key: object) -> bool:
        self.accessed = True
        if key in self._assigned:
            return self._assigned[key] is not None
        if not isinstance(key, str) or key[:1] == RESERVED:
            return False
        entry = self._record.entries.get(key)
        return entry is not None and entry.value is not None

    def __reversed__(self) -> Iterator[str]:
        return reversed(list(self))

    def __repr__(self) -> str:
        """Show the keys only: values are secrets, and a repr ends up in logs."""
        return f"<{type(self).__name__} {self.sid[:8]} keys={list(self)}>"

    def popitem(self) -> tuple[str, Any]:
        """Remove and return the last (key, value), as a dict does."""
        self._changing("session.popitem()")
        for key in reversed(self):
            return key, self.pop(key)
        raise KeyError("the session is empty")

    def clear(self) -> None:
        """Remove every key, as a dict does; a stored session then ends with the request."""
        self._changing("session.clear()")
        super().clear()

    def copy(self) -> dict[str, Any]:
        """Return the values as a plain dict."""
        return dict(self)

    def changes(self) -> Changes:
        """Return what this request changed: (key, encoded value or None where deleted).

        Raises:
            UnreplicableValue: something put inside a list, say, cannot travel.
            SessionTooLarge: values have grown over a bound in place.
        """
        changed: dict[str, bytes | None] = {}
        if self._new_user is not None:
            (user,) = self._new_user
            changed[USER] = None if user is None else user_value(user)
        grown_by = 0
        entries = self._record.entries
        for key, encoded in self._assigned.items():
            entry = entries.get(key)
            if entry is None or entry.value != encoded:
                changed[key] = encoded
        for key, value in self._live.items():
            if type(value) in _UNCHANGEABLE:
                continue
            encoded = encode_value(value, f"session[{key!r}]")
            entry = entries.get(key)
            if entry is None or entry.value != encoded:
                changed[key] = encoded
                grown_by += entry_bytes(key, encoded) - self._size_of(key)
                if grown_by > 0:
                    self._check_size(key, self._size() + grown_by)
            else:
                changed.pop(key, None)
        if self._limits and (changed or entries):  # by themselves they make no session
            for key, number in self._limits.items():
                entry = entries.get(key)
                if entry is None or entry.value != number:
                    changed[key] = number
        return tuple(changed.items())

    # --- for the store --------------------------------------------------------------------------------------

    @property
    def record(self) -> Record:
        """The replicated state that this request started from, or last committed."""
        return self._record

    @property
    def unmet(self) -> tuple[Dot, ...]:
        """The writes that the version token names and that are not in here."""
        return self._unmet

    def _decoded(self) -> dict[str, Any]:
        """Return every value by its key, as loaded; for a subclass that holds them all itself. Counts as no access."""
        live = self._live
        for key, entry in self._record.entries.items():
            if entry.value is not None and key[:1] != RESERVED:
                live[key] = decode_value(entry.value)
        return live

    def committed(self, record: Record, token: str, changes: Changes) -> None:
        """Go on from the state that a commit of `changes` left."""
        # What another request has changed meanwhile is in that state. A value read before it would differ from
        # it, count as changed in place, and undo the other's change with the next commit.
        mine = dict(changes)
        old, new = self._record.entries, record.entries
        for key in list(self._live):
            known = mine[key] if key in mine else old[key].value
            if key not in new or new[key].value != known:
                del self._live[key]
        self._record = record
        self._assigned.clear()
        self._limits.clear()
        self._new_user = None
        self._bytes = None
        self.token = token

    def moved(self, session_id: str, record: Record) -> None:
        """Go on under a new id."""
        self.id = session_id
        self._record = record
        self._unmet = ()  # writes to the old id; what of them was missing here stays behind with it

    def ended(self, record: Record) -> None:
        """Become empty: the session is no more."""
        self._record = record
        self._assigned.clear()
        self._live.clear()
        self._limits.clear()
        self._new_user = None
        self._bytes = None
        self.token = ""

    def _changing(self, how: str) -> None:
        """Called before the application changes something, with the code that it wrote; a subclass may raise."""

    def _check_key(self, key: str) -> None:
        if not isinstance(key, str):
            raise UnreplicableValue(
                f"session[{key!r}]: a key is a str, not {type(key).__name__}. Write session[{str(key)!r}].",
                path=f"session[{key!r}]",
                type_name=type(key).__name__,
            )
        if key.startswith(RESERVED):
            raise UnreplicableValue(
                f"session[{key!r}]: keys that begin with NUL belong to gossipsess. Choose another name.",
                path=f"session[{key!r}]",
                type_name="str",
            )
        if not key.isascii() and not _is_unicode(key):
            raise UnreplicableValue(
                f"session[{key!r}]: the key holds a lone surrogate, which UTF-8 cannot carry. Choose another name.",
                path=f"session[{key!r}]",
                type_name="str",
            )
        if len(key) > KEY_CHARACTERS_MAX:
            raise SessionTooLarge(
                f"session[{key[:20]!r}...]: a key has at most {KEY_CHARACTERS_MAX} characters, not {len(key)}."
            )

    def _check_room(self, key: str, encoded: bytes) -> None:
        entries = self._record.entries
        if key not in entries and key not in self._assigned:
            new_keys = sum(1 for name in self._assigned if name not in entries)
            if len(entries) + new_keys >= KEYS_MAX:
                raise SessionTooLarge(
                    f"session[{key!r}]: a session has at most {KEYS_MAX} keys, deleted ones included. "
                    "Keep many items in one value, or in the application's database."
                )
        grows_by = entry_bytes(key, encoded) - self._size_of(key)
        if grows_by > 0:
            self._check_size(key, self._size() + grows_by)
        if self._bytes is not None:  # where nothing grows it need not even be known
            self._bytes += grows_by

    def _check_size(self, key: str, size: int) -> None:
        if size > SESSION_BYTES_MAX:
            raise SessionTooLarge(
                f"session[{key!r}] would make the session {size} bytes; at most {SESSION_BYTES_MAX} travel. "
                "Keep large data in the application's database and its key in the session."
            )

    def _size(self) -> int:
        if self._bytes is None:
            entries = self._record.entries
            changed = (entry_bytes(key, value) for key, value in self._assigned.items())
            replaced = (self._stored_size(key) for key in self._assigned if key in entries)
            stored = self._record.size or _REGISTERS_BYTES  # a new session gets its registers with the first commit
            self._bytes = stored + sum(changed) - sum(replaced)
        return self._bytes

    def _size_of(self, key: str) -> int:
        return entry_bytes(key, self._assigned[key]) if key in self._assigned else self._stored_size(key)

    def _stored_size(self, key: str) -> int:
        entry = self._record.entries.get(key)
        return entry_bytes(key, entry.value) if entry is not None else 0


def check_user(user: str) -> None:
    """Refuse what cannot name a user.

    Raises:
        UnreplicableValue: not text, empty, or text that UTF-8 cannot carry.
        SessionTooLarge: longer than 256 characters.
    """
    if not isinstance(user, str) or not user or not _is_unicode(user):
        raise UnreplicableValue(
            f"session.user = {user!r}: a user is named by text, and nobody by None. Write session.user = str(user.id).",
            path="session.user",
            type_name=type(user).__name__,
        )
    if len(user) > USER_CHARACTERS_MAX:
        raise SessionTooLarge(
            f"session.user = {user[:20]!r}...: a user's name has at most {USER_CHARACTERS_MAX} characters, "
            f"not {len(user)}. Use the user's id."
        )


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def created_at(record: Record) -> float:
    """Return when a session was created, Unix time in seconds."""
    return register(record, CREATED) / 1000
