# Web session: a Session whose id changes when somebody logs in.
#
# An attacker who makes a visitor use an id that the attacker knows would share the visitor's login, if the login
# kept the id (session fixation). So a new value under a key that the user is kept in moves a stored session to a new
# id; an application with other names for its user sets `login_keys`, or asks for that by `rotate`.
# Why in the adapters and not in the store: only an answer that can set a cookie may retire the id it came with.
# The same keys say whose the session is, so that `revoke` finds it; what an application assigns to `user` itself
# stands until a login key changes again.
# A session that may exist and cannot be had in time has a stand-in: empty, and whatever would change it raises.
# Dropped in silence, a login would be lost that its user saw succeed, and a logout that its user relies on.
# Not here: the move itself (store.py), and the cookies that follow from it (adapter.py).

from collections.abc import MutableMapping
from typing import Any, ClassVar, Final

from gossipsess.config import LOGIN_KEYS
from gossipsess.errors import SessionUnavailable
from gossipsess.model.revocation import USER_CHARACTERS_MAX
from gossipsess.session import Session

NO_DEFAULT: Final[Any] = object()


class WebSession(Session):
    """A `Session` of a web request.

    Attributes:
        unavailable: this is an empty stand-in: whether the session exists that the client names cannot be known now.
            Reading finds nothing, and whatever would change it raises `SessionUnavailable`.
        adopted: the client named it by a cookie of the framework's own, and does not have ours yet.
        login_keys: the keys that hold the user; `Config.login_keys` says what follows.
        asked_to_rotate: by `rotate`; stays set, since at most one save of a request may do so.
    """

    login_keys: ClassVar[tuple[str, ...]] = LOGIN_KEYS
    adopted = False
    asked_to_rotate = False

    def for_application(self) -> MutableMapping[str, Any]:
        """Return what the application gets: the session itself, or what a framework's adapter puts before it."""
        return self

    def rotate(self) -> None:
        """Give the session a new id when this request's changes are saved; its data stays, the old id ends.

        For a login that puts the user under a key that is not watched; one that assigns a new value to one of
        `login_keys` or to `user` rotates by itself. On a websocket it counts before the
        accept: afterwards a client cannot be told of a new id.
        """
        self.accessed = True
        self._changing("session.rotate()")
        self.asked_to_rotate = True

    def __setitem__(self, key: str, value: Any) -> None:
        Session.__setitem__(self, key, value)  # each write pays for a super()
        if key in self.login_keys:
            self.user = user_text(value)

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        if key in self.login_keys:
            left = [user_text(self[name]) for name in self.login_keys if name in self]
            self.user = left[0] if left else None

    def pop(self, key: str, /, default: Any = NO_DEFAULT) -> Any:
        """Remove a key and return its value, as a dict does."""
        self._changing(f"session.pop({key!r})")  # for the stand-in too, where the key is not found
        return super().pop(key) if default is NO_DEFAULT else super().pop(key, default)

    def _changing(self, how: str) -> None:
        if self.unavailable:
            raise SessionUnavailable(
                f"{how}: whether this visitor has a session cannot be known just now, so what is changed here "
                "would be lost. Let this pass, and the answer is 503 and the cookie stays; or ask session.unavailable "
                "first, and tell the visitor to try again."
            )

    @property
    def needs_no_save(self) -> bool:
        """A save would store nothing, without looking for changes inside values. So it is with most requests."""
        return self.is_untouched and not self.adopted and not self.asked_to_rotate

    @property
    def rotates(self) -> bool:
        """A save moves what is stored to a new id."""
        if not self._draft.record.entries:
            return False  # it is new: nobody else knows its id
        logs_in = self._new_user is not None and self._new_user[0] is not None
        if self.asked_to_rotate or logs_in:
            return True
        for key in self.login_keys:  # each write asks
            if key in self._draft.assigned and self._has_new(key):
                return True
        return False

    def _has_new(self, key: str) -> bool:
        assigned = self._draft.assigned.get(key)
        stored = self.record.entries.get(key)
        return assigned is not None and (stored is None or stored.value != assigned)


def user_text(value: object) -> str | None:
    """Return the name of the user whom a login key holds: the value's text; None where that names nobody.

    Text beyond 256 characters names nobody: an application with such users assigns `Session.user` itself.
    """
    text = "" if value is None else str(value)
    return text if 0 < len(text) <= USER_CHARACTERS_MAX else None
