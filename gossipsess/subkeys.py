# Counters and sets of a session, as the application sees them: changes made at the same moment all stay.
#
# Of two requests that assign `session["visits"] = 8` one is lost; of two that add 1 none is. Why functions of the
# session give them, and not values under keys: an application's keys are its own, and no dict has such values.
# A view keeps nothing itself. What the request does waits in its draft for the commit, like everything else.
# Not here: how they merge (model/subkeys.py).

from collections.abc import Callable, Iterable, Iterator, MutableSet
from typing import Any

from gossipsess.draft import Draft
from gossipsess.errors import SessionTooLarge, UnreplicableValue
from gossipsess.model.subkeys import is_member_of, member_key
from gossipsess.wire.values import decode_value, encode_value

Used = Callable[[str | None], None]
"""Tells the session that it is used, and by which code it is about to be changed; it may refuse that."""


class SessionCounter:
    """A number to which requests add at the same moment, on any nodes, and none of it is lost.

    `session.counter_of("visits").add()`, and `.value` to read it. It is content of the session: a session with a
    counter that is not 0 is not empty. It moves with `rotate`, and ends with the session.
    """

    def __init__(self, draft: Draft, used: Used, name: str) -> None:
        self._draft = draft
        self._used = used
        self._name = name

    @property
    def value(self) -> int:
        """The sum of all that was added, as far as this node has heard, and by this request."""
        self._used(None)
        return self._draft.counted(self._name)

    def add(self, amount: int = 1) -> None:
        """Add to it with the next commit; a negative amount takes off.

        Raises:
            TypeError: the amount is no int.
            SessionTooLarge: the session has no room for another counter. The sum of what one node adds stays within
                64 bits, else the commit raises this.
        """
        if type(amount) is not int:
            raise TypeError(f"{self._path}.add({type(amount).__name__}): a counter counts whole numbers, int.")
        self._used(f"{self._path}.add(...)")
        self._draft.add(self._name, amount, self._path)

    def clear(self) -> None:
        """Take off what this request sees of it with the next commit; what others add meanwhile stays."""
        self._used(f"{self._path}.clear()")
        self._draft.zero(self._name)

    def __repr__(self) -> str:
        """Show the name only: values are secrets, and a repr ends up in logs."""
        return f"<{type(self).__name__} {self._name!r}>"

    @property
    def _path(self) -> str:
        return f"session.counter_of({self._name!r})"


class SessionSet(MutableSet[Any]):
    """A set whose members requests add and discard at the same moment, on any nodes; of one member the later stays.

    `session.set_of("books").add(7)`; otherwise it is used as a set is. Members are replicable values that can be
    hashed, and are the same if they are equal and of equal types: 1, 1.0 and True are three. It is content of the
    session: a session with a set that has members is not empty. Members count as keys of the session, discarded ones
    included: at most 1,024 altogether.
    """

    def __init__(self, draft: Draft, used: Used, name: str) -> None:
        self._draft = draft
        self._used = used
        self._name = name

    @classmethod
    def _from_iterable(cls, it: Iterable[Any]) -> set[Any]:  # what `|`, `&` and so on give
        return set(it)

    def add(self, value: Any) -> None:
        """Add a member with the next commit; nothing where it is one.

        Raises:
            TypeError: it cannot be hashed.
            UnreplicableValue: it cannot travel.
            SessionTooLarge: it is too large, or the session has no room for it.
        """
        self._used(f"{self._path}.add(...)")
        encoded = encode_value(value, self._path)
        hash(value)
        self._draft.assign(member_key(self._name, encoded), encoded, self._path)

    def discard(self, value: Any) -> None:
        """Take a member away with the next commit; nothing where it is none."""
        self._used(f"{self._path}.discard(...)")
        key = self._key_of(value)
        if key is not None and self._draft.get(key) is not None:
            self._draft.unassign(key)

    def clear(self) -> None:
        """Take away the members that this request sees with the next commit; those that others add meanwhile stay."""
        self._used(f"{self._path}.clear()")
        for key in self._keys():
            self._draft.unassign(key)

    def __contains__(self, value: object) -> bool:
        self._used(None)
        key = self._key_of(value)
        return key is not None and self._draft.get(key) is not None

    def __iter__(self) -> Iterator[Any]:
        self._used(None)
        for key in self._keys():
            encoded = self._draft.get(key)
            if encoded is not None:
                yield decode_value(encoded, self._path)

    def __len__(self) -> int:
        self._used(None)
        return len(self._keys())

    def __repr__(self) -> str:
        """Show the name only: values are secrets, and a repr ends up in logs."""
        return f"<{type(self).__name__} {self._name!r}>"

    def _keys(self) -> list[str]:
        return [key for key in self._draft.present() if is_member_of(key, self._name)]

    def _key_of(self, value: object) -> str | None:
        try:
            return member_key(self._name, encode_value(value, self._path))
        except (UnreplicableValue, SessionTooLarge):
            return None  # what cannot travel is no member

    @property
    def _path(self) -> str:
        return f"session.set_of({self._name!r})"
