# Stand-ins: objects of frameworks that applications put into sessions, and that stand for a plain value.
#
# In:    an object of a type that is not replicable.   Out: what it stands for; None for all others.
# What JSON writes as its base is taken as its base, since frameworks' own sessions are JSON and applications rely on
# it: enumerations of texts and numbers (`class Plan(str, Enum)`, Django's TextChoices), named tuples, the standard
# library's dicts, and the multi-dicts of requests, of which the values count that indexing gives.
# Lazy texts are those of `gettext_lazy` and its like: `flash(_("Saved"))` is in every translated application. The
# text is told where it is stored, in the language of that request, as the frameworks' own JSON does; there it comes
# back as the str that it was shown as. The tokens of OAuth clients are dicts with methods, and come back as dicts.
# Why a table and no rule: any other object that "looks like text" would have to be asked, which runs its code; and
#        other types derived from dict or str have a meaning that would be lost.
# Looked up and not imported: an object can be one of these only where somebody has imported its module already.

import sys
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterator
from enum import Enum
from typing import Any, Final

from gossipsess.wire.value_refusal import Refused

_LAZY_TEXTS: Final = (
    ("django.utils.functional", "Promise"),  # the base of what each `lazy()` makes, gettext_lazy and reverse_lazy
    ("flask_babel.speaklater", "LazyString"),
    ("quart_babel.speaklater", "LazyString"),
    ("babel.support", "LazyProxy"),
    ("speaklater", "_LazyString"),
)
_DICTS: Final = (
    ("authlib.oauth2.rfc6749.wrappers", "OAuth2Token"),
    ("oauthlib.oauth2.rfc6749.tokens", "OAuth2Token"),
)

_MULTI_DICTS: Final = (
    ("werkzeug.datastructures", "MultiDict"),
    ("django.utils.datastructures", "MultiValueDict"),
)
_STANDARD_DICTS: Final = (OrderedDict, defaultdict, Counter)

_attributes_of = type.__dict__["__dict__"].__get__
_bases_of = type.__dict__["__mro__"].__get__  # a metaclass may have its own idea of `__mro__`


def is_lazy_text(value: object) -> bool:
    """Say whether a value is a lazy text; runs none of its code."""
    return _is_one(value, _LAZY_TEXTS)


def stood_for(value: Any) -> object | None:
    """Return the plain value for which an object stands; None where it is no stand-in.

    Raises:
        Refused: it is a lazy text, and cannot be told now.
    """
    if is_lazy_text(value):
        try:
            return str.__str__(str(value))  # a plain str, also of a lazy SafeString
        except Exception as error:
            problem = f"is a lazy text that cannot be told here ({type(error).__name__})"
            raise Refused(value, problem, "Store the text: str(value), within a request.") from error
    kind = type(value)
    if issubclass(kind, Enum):
        return str.__str__(value) if issubclass(kind, str) else int.__int__(value) if issubclass(kind, int) else None
    if issubclass(kind, tuple):
        return tuple(tuple.__iter__(value)) if type(_attributes_of(kind).get("_fields")) is tuple else None
    if any(kind is known for known in _STANDARD_DICTS) or _is_one(value, _DICTS):
        return {key: dict.__getitem__(value, key) for key in dict.__iter__(value)}
    return dict(value.items()) if _is_one(value, _MULTI_DICTS) else None


def _is_one(value: object, table: tuple[tuple[str, str], ...]) -> bool:
    bases = _bases_of(type(value))
    return any(base is known for known in _imported(table) for base in bases)


def _imported(table: tuple[tuple[str, str], ...]) -> Iterator[type]:
    for module, name in table:
        if (found := sys.modules.get(module)) is not None and (known := vars(found).get(name)) is not None:
            yield known
