# Dict facade: a session that is a dict, for frameworks that say so.
#
# Applications of Starlette and Litestar hand their session to json.dumps, or ask isinstance(..., dict). So what they
# get is one, filled when the session is loaded, and kept like it.
# Not here: which framework has which (starlette.py, litestar.py); what every facade does (facade.py).

from collections.abc import Callable
from typing import Any, ClassVar
from weakref import ref

from gossipsess.model.record import Record
from gossipsess.web.facade import Facade
from gossipsess.web.session import NO_DEFAULT, WebSession


class DictFacade(Facade, dict[str, Any]):  # type: ignore[misc]  # `|` gives a dict, as both say
    """A facade that is a dict too; `DictWebSession` keeps what is in the dict."""

    def __init__(self, session: "DictWebSession") -> None:
        super().__init__(session)
        dict.update(self, session._decoded())


class DictWebSession(WebSession):
    """A `WebSession` whose values the application has in a dict."""

    facade_class: ClassVar[type[DictFacade]] = DictFacade
    _shown: Callable[[], DictFacade | None] = staticmethod(lambda: None)  # weak: a cycle would be freed late

    def for_application(self) -> DictFacade:
        """Return the dict."""
        shown = self.facade_class(self)
        self._shown = ref(shown)
        return shown

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        shown = self._shown()
        if shown is not None:
            dict.__setitem__(shown, key, self[key])

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        shown = self._shown()
        if shown is not None:
            dict.pop(shown, key, None)  # one that cannot be read is not in there

    def pop(self, key: str, /, default: Any = NO_DEFAULT) -> Any:
        """Remove a key and return its value, as a dict does. One that is not there leaves `accessed` as it is."""
        used = self.accessed
        used = key in self or used  # asking counts as use, too
        try:
            return super().pop(key, default)
        finally:
            self.accessed = used  # `request.session` has said already that the session is in use

    def ended(self, record: Record) -> None:
        """Become empty: the session is no more."""
        super().ended(record)
        shown = self._shown()
        if shown is not None:
            dict.clear(shown)
