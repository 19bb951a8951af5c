# Session: what the application sees, a mapping.
#
# It is one request's own copy: values are decoded when read, encoded when assigned, and never shared with another
# request. A value that cannot travel is refused where it is assigned. A value that can be changed in place (a
# list, say) is encoded once more when the request commits, and counts as changed if its bytes differ.
# What is to be committed waits in a draft (draft.py), which the views of counters and sets (subkeys.py) share.

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, Final, Self

from gossipsess.draft import Draft
from gossipsess.errors import SessionTooLarge, UnreadableValue, UnreplicableValue
from gossipsess.model.record import ABSOLUTE, CREATED, IDLE, KEY_CHARACTERS_MAX, RESERVED, USER, Record
from gossipsess.model.revocation import USER_CHARACTERS_MAX, user_entry, user_of, user_value
from gossipsess.model.subkeys import MEMBER, NAME_CHARACTERS_MAX, Change
from gossipsess.model.table import register, register_value
from gossipsess.protocol.events import Changes, Dot
from gossipsess.subkeys import SessionCounter, SessionSet
from gossipsess.wire.value_standins import is_lazy_text
from gossipsess.wire.values import as_read_here, decode_value, encode_value

LIMIT_S_MAX: Final = 10**10

_TEXT: Final = 3
"""CBOR's major type of text: the first three bits of what is encoded."""
_UNCHANGEABLE: Final = frozenset({str, int, float, bool, type(None), bytes})


class Session(MutableMapping[str, Any]):
    """One session, as one request sees it.

    Attributes:
        id: 32 characters base36; changes when the session rotates.
        created_at: Unix time, seconds.
        accessed_at: Unix time, seconds; coarse, and the last use before this one.
        is_new: nothing of it has been stored yet.
        stale: a write that the client's version token names was not found in time, and what is here is older; or this
            node is no holder of the session, and no holder could say in time whether its copy is the newest.
        token: the version token, to be sent back with the id by the next request; "" where nothing was written.
        accessed: anything of it was read or written by this request.
        unmet: the writes that the version token names and that are not in here.
        unavailable: this stands in for a session that cannot be had; never so but in web adapters (web/session.py).
        user: whose it is, by which `revoke` finds it; None: nobody's.
    """

    # Most requests leave these as they are, and do not pay for setting them.
    accessed = False
    unavailable = False
    _new_user: tuple[str | None] | None = None  # None: not changed by this request
    _created_at: float | None = None  # None: as the record says
    unmet: tuple[Dot, ...] = ()
    _stale = False

    def __init__(
        self,
        session_id: str,
        record: Record,
        accessed_at: float,
        token: str = "",
        *,
        created_at: float | None = None,
        unmet: tuple[Dot, ...] = (),
        stale: bool = False,
    ) -> None:
        self.id = session_id
        self.accessed_at = accessed_at
        self.token = token
        self._draft = Draft(record)
        self._live: dict[str, Any] = {}  # values decoded or assigned by this request
        self._limits: dict[str, bytes] = {}  # registers set by this request
        if created_at is not None:
            self._created_at = created_at
        if unmet or stale:
            self.unmet, self._stale = unmet, True

    @property
    def sid(self) -> str:
        """The one-way hash of the id under which the session is replicated, 32 hexadecimal digits; safe to log."""
        return self.record.sid.hex()

    @property
    def created_at(self) -> float:
        """When it was created, Unix time, seconds."""
        if self._created_at is None:
            self._created_at = register(self.record, CREATED) / 1000
        return self._created_at

    @property
    def is_new(self) -> bool:
        """Nothing of it has been stored yet."""
        return not self._draft.record.entries

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
        return self._new_user[0] if self._new_user is not None else user_of(user_entry(self.record))

    @user.setter
    def user(self, user: str | None) -> None:
        self.accessed = True
        self._changing("session.user = ...")
        if user is not None:
            check_user(user)
        self._new_user = None if user == user_of(user_entry(self.record)) else (user,)

    def limit(self, *, idle_s: float | None = None, ends_at: float | None = None) -> None:
        """Set when this session ends by time, in place of the store's settings; kept with the next commit.

        Args:
            idle_s: seconds without use after which it ends; None: as it is.
            ends_at: Unix time, seconds, at which it ends, used or not; None: as it is.

        Raises:
            ValueError: not a number, negative, or over 10**10: some centuries.
        """
        self._changing("session.limit(...)")
        for key, seconds in ((IDLE, idle_s), (ABSOLUTE, ends_at)):
            if seconds is not None:
                if not 0 <= seconds <= LIMIT_S_MAX:
                    raise ValueError(f"a session's limit of {seconds!r} seconds; allowed are 0 to {LIMIT_S_MAX}.")
                number = register_value(round(seconds * 1000))
                stored = self.record.entries.get(key)
                if stored is None or stored.value != number:
                    self.accessed = True  # what is not accessed is not saved
                    self._limits[key] = number
                else:
                    self._limits.pop(key, None)

    def counter_of(self, name: str) -> SessionCounter:
        """Return a counter of this session, 0 where nobody has added to it; see `SessionCounter`.

        Its name has at most 222 characters, and has nothing to do with a key of the same name.

        Raises:
            UnreplicableValue: the name is no text, or none that UTF-8 can carry.
            SessionTooLarge: it is too long.
        """
        _check_name(f"session.counter_of({name!r})", name)
        return SessionCounter(self._draft, self._used, name)

    def set_of(self, name: str) -> SessionSet:
        """Return a set of this session, empty where nobody has added to it; see `SessionSet`.

        Its name has at most 222 characters, and has nothing to do with a key of the same name.

        Raises:
            UnreplicableValue: the name is no text, or none that UTF-8 can carry.
            SessionTooLarge: it is too long.
        """
        _check_name(f"session.set_of({name!r})", name)
        return SessionSet(self._draft, self._used, name)

    @property
    def is_empty(self) -> bool:
        """There is nothing in it: no key, no counter that is not 0, no member of a set."""
        draft = self._draft
        for encoded in draft.assigned.values():
            if encoded is not None:  # a key or a member; most writes are known by that
                return False
        has_keys = any(key[:1] != RESERVED or key.startswith(MEMBER) for key in draft.present())
        return not has_keys and not any(draft.counted(name) for name in draft.counters())

    @property
    def modified(self) -> bool:
        """There is something to commit, changes inside values included."""
        return bool(self.changes())

    @property
    def assigned(self) -> bool:
        """This request has assigned, deleted or limited something. What it changed inside a value is not looked at."""
        return bool(self._draft.assigned or self._draft.added or self._new_user or self._limits)

    @property
    def is_untouched(self) -> bool:
        """This request has changed nothing, nor read what it could have changed in place: `changes` would be empty."""
        draft = self._draft
        if draft.assigned or draft.added or self._new_user or self._limits:
            return False
        for value in self._live.values():
            if type(value) not in _UNCHANGEABLE:
                return False
        return True

    @property
    def cookie(self) -> str:
        """Id and version token in one opaque string, for `load`."""
        return f"{self.id}.{self.token}" if self.token else self.id

    def __getitem__(self, key: str) -> Any:
        self.accessed = True
        if key in self._live:
            return self._live[key]
        encoded = self._draft.get(key)
        if encoded is None or key[:1] == RESERVED:
            raise KeyError(key)
        try:
            value = decode_value(encoded)
        except UnreadableValue:
            value = decode_value(encoded, f"session[{key!r}]")  # once more, to say which
        self._live[key] = value
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        self.accessed = True
        if self.unavailable:
            self._changing(f"session[{key!r}] = ...")
        self._check_key(key)
        path = f"session[{key!r}]"
        encoded = encode_value(value, path)
        self._draft.assign(key, encoded, path)
        # Of a lazy text the str is kept, so that it stays what it was when it was assigned.
        is_lazy = encoded[0] >> 5 == _TEXT and type(value) is not str and is_lazy_text(value)
        self._live[key] = decode_value(encoded) if is_lazy else value

    def __delitem__(self, key: str) -> None:
        self.accessed = True
        self._changing(f"del session[{key!r}]")
        if key not in self:
            raise KeyError(key)
        self._live.pop(key, None)
        self._draft.unassign(key)

    def __ior__(self, other: Any) -> Self:
        self.update(other)
        return self

    def __or__(self, other: Any) -> dict[str, Any]:
        return self.copy() | dict(other) if isinstance(other, Mapping) else NotImplemented

    def __ror__(self, other: Any) -> dict[str, Any]:
        return dict(other) | self.copy() if isinstance(other, Mapping) else NotImplemented

    def __iter__(self) -> Iterator[str]:
        self.accessed = True
        return (key for key in self._draft.present() if key[:1] != RESERVED)

    def __len__(self) -> int:
        self.accessed = True
        return len([key for key in self._draft.present() if key[:1] != RESERVED])

    def __bool__(self) -> bool:
        for _ in self:  # without counting the others
            return True
        return False

    def __contains__(self, key: object) -> bool:
        self.accessed = True
        return isinstance(key, str) and key[:1] != RESERVED and self._draft.get(key) is not None

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
        """Remove every key, as a dict does, and what counters and sets hold; a stored session then ends as it is saved.

        Values are not read, so that one which cannot be read here keeps nobody logged in.
        """
        self._changing("session.clear()")
        for key in list(self):
            del self[key]
        for key in [key for key in self._draft.present() if key.startswith(MEMBER)]:
            self._draft.unassign(key)
        for name in self._draft.counters():
            self._draft.zero(name)

    def copy(self) -> dict[str, Any]:
        """Return the values as a plain dict."""
        return dict(self)

    def changes(self) -> Changes:
        """Return what this request changed: (key, encoded value, None where deleted, or what was added to a counter).

        Raises:
            UnreplicableValue: something put inside a list, say, cannot travel.
            SessionTooLarge: values have grown over a bound in place.
        """
        changed: dict[str, Change] = {}
        if self._new_user is not None:
            (user,) = self._new_user
            changed[USER] = None if user is None else user_value(user)
        grown_by = 0
        draft, entries = self._draft, self._draft.record.entries
        for key, encoded in draft.assigned.items():
            entry = entries.get(key)
            if entry is None or entry.value != encoded:
                changed[key] = encoded
        for key, value in self._live.items():
            if type(value) in _UNCHANGEABLE:
                continue
            path = f"session[{key!r}]"
            encoded = encode_value(value, path)
            if self._is_stored(key, encoded):
                changed.pop(key, None)
                continue
            changed[key] = encoded
            grown_by += draft.growth(key, encoded)
            if grown_by > 0:
                draft.check_growth(grown_by, path)
        if draft.added:
            changed.update(draft.additions())
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
        return self._draft.record

    def _decoded(self) -> dict[str, Any]:
        """Return every value by its key, as loaded; for a subclass that holds them all itself. Counts as no access."""
        live = self._live
        for key, entry in self.record.entries.items():
            if entry.value is not None and key[:1] != RESERVED:
                try:  # noqa: SIM105 # Starlette's requests come by here for each key: suppress() costs as much again
                    live[key] = decode_value(entry.value)
                except UnreadableValue:
                    pass  # whoever asks for it is told; all others need not know
        return live

    def committed(self, record: Record, token: str, changes: Changes) -> None:
        """Go on from the state that a commit of `changes` left."""
        # What another request has changed meanwhile is in that state. A value read before it would differ from
        # it, count as changed in place, and undo the other's change with the next commit.
        mine = dict(changes)  # what was added to counters is no value of a key
        old, new = self._draft.record.entries, record.entries
        for key in list(self._live):
            known = mine[key] if key in mine else old[key].value
            if key not in new or new[key].value != known:
                del self._live[key]
        self._draft.restart(record)
        self._limits.clear()
        self._new_user = None
        self.token = token

    def moved(self, session_id: str, record: Record) -> None:
        """Go on under a new id."""
        self.id = session_id
        self._draft.record = record
        self.unmet = ()  # writes to the old id; what of them was missing here stays behind with it

    def ended(self, record: Record) -> None:
        """Become empty: the session is no more."""
        self._created_at = self.created_at  # the record will say it no longer
        self._draft.restart(record)
        self._live.clear()
        self._limits.clear()
        self._new_user = None
        self.token = ""

    def _changing(self, how: str) -> None:
        """Called before the application changes something, with the code that it wrote; a subclass may raise.

        An assignment to a key calls it only where the session is `unavailable`: each write would pay for it.
        """

    def _used(self, how: str | None = None) -> None:
        """Called by the views where they are read or, with the code, changed."""
        self.accessed = True
        if how is not None:
            self._changing(how)

    def _is_stored(self, key: str, encoded: bytes) -> bool:
        """Say whether this encoding of a value in use is what is stored, or what that was when it was read here."""
        entry = self.record.entries.get(key)
        if entry is None or entry.value is None:
            return False
        # Read by another release of a class, or without zone data, it is not quite what it was. That is no change of
        # this request's: written back, what the other release had stored would be lost by a mere look at it.
        return entry.value == encoded or (key not in self._draft.assigned and as_read_here(entry.value) == encoded)

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


def _check_name(path: str, name: object) -> None:
    if not isinstance(name, str) or not _is_unicode(name):
        raise UnreplicableValue(
            f"{path}: the name of a counter or a set is text that UTF-8 can carry.",
            path=path,
            type_name=type(name).__name__,
        )
    if len(name) > NAME_CHARACTERS_MAX:
        raise SessionTooLarge(f"{path[:60]}...: a name has at most {NAME_CHARACTERS_MAX} characters, not {len(name)}.")


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
