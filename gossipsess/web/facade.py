# Facade: what an application has of its session where ours take the place of a framework's own.
#
# Templates look for an attribute before they look for a key: ``{{ session.user }}`` in Jinja2. A `WebSession` has an
# attribute of that name, and others, so that it would hide what the application keeps there; and ``{{ session.id }}``
# would put what the HttpOnly cookie guards into the page. So the application gets the mapping and no more than the
# framework's own sessions have; a name of ours is looked for last, and none that belongs in the cookie.
# Rule:  the mapping's methods, the framework's attributes, the keys, then `OURS`. `user` can be assigned, not read: a
#        template takes what there is for a login of the application's.
# Not here: raw ASGI and WSGI, where a `WebSession` is the documented interface; and Django's, which is a facade of its
# own (its templates look for keys first).

from collections.abc import Iterator, MutableMapping
from typing import Any, Final, Self

from gossipsess.web.session import NO_DEFAULT, WebSession

OURS: Final = frozenset(
    {
        "accessed_at",
        "counter_of",
        "created_at",
        "is_new",
        "limit",
        "rotate",
        "set_of",
        "sid",
        "stale",
        "unavailable",
    }
)
"""What a facade hands on of a `WebSession` where the application has no key of that name."""


class Facade(MutableMapping[str, Any]):
    """A session as an application sees it that was written for its framework's own.

    Attributes:
        gossipsess: the session itself, with all that `WebSession` has: ``session.gossipsess.user``.
    """

    def __init__(self, session: WebSession) -> None:
        self.gossipsess = session

    def __getattr__(self, name: str) -> Any:
        if name in OURS and name not in self.gossipsess:
            return getattr(self.gossipsess, name)
        raise AttributeError(
            f"{type(self).__name__!r} object has no attribute {name!r}; a session's own are those of its `gossipsess`.",
            name=name,
            obj=self,
        )

    def _assign_user(self, user: str | None) -> None:
        self.gossipsess.user = user

    user = property(fset=_assign_user, doc="To be assigned only: whose session this is, by which `revoke` finds it.")

    def __getitem__(self, key: str) -> Any:
        return self.gossipsess[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.gossipsess[key] = value

    def __delitem__(self, key: str) -> None:
        del self.gossipsess[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.gossipsess)

    def __len__(self) -> int:
        return len(self.gossipsess)

    def __bool__(self) -> bool:
        return bool(self.gossipsess)

    def __contains__(self, key: object) -> bool:
        return key in self.gossipsess

    def __reversed__(self) -> Iterator[str]:
        return reversed(self.gossipsess)

    def __ior__(self, other: Any) -> Self:
        self.update(other)
        return self

    def __or__(self, other: Any) -> dict[str, Any]:
        return self.gossipsess.__or__(other)

    def __ror__(self, other: Any) -> dict[str, Any]:
        return self.gossipsess.__ror__(other)

    def __repr__(self) -> str:
        """Show the keys only, as the session does."""
        return f"<{type(self).__name__} {self.gossipsess.sid[:8]} keys={list(self)}>"

    def pop(self, key: str, /, default: Any = NO_DEFAULT) -> Any:
        """Remove a key and return its value, as a dict does."""
        return self.gossipsess.pop(key, default)

    def popitem(self) -> tuple[str, Any]:
        """Remove and return the last (key, value), as a dict does."""
        return self.gossipsess.popitem()

    def clear(self) -> None:
        """Remove every key; see `Session.clear`."""
        self.gossipsess.clear()

    def copy(self) -> dict[str, Any]:
        """Return the values as a plain dict."""
        return self.gossipsess.copy()


class NotingFacade(Facade):
    """One for a framework whose sessions note that they are used, as Flask's and Starlette's do."""

    @property
    def accessed(self) -> bool:
        """This request has read or written something of it."""
        return self.gossipsess.accessed

    @accessed.setter
    def accessed(self, value: bool) -> None:
        self.gossipsess.accessed = value

    @property
    def modified(self) -> bool:
        """This request has changed something, inside values included. Assigning to it is harmless."""
        return self.gossipsess.modified

    @modified.setter
    def modified(self, value: bool) -> None:
        pass  # what applications say by ``session.modified = True`` is noticed anyway
