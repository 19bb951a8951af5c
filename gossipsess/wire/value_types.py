# Types that the application has registered: how their objects become plain values, and come back from them.
#
# In:    `register_type`, once for each class.   Out: what is registered, by class (to encode) and by name (to decode).
# Rule:  bytes carry the name that was registered, and never a path to code: whatever a peer sends can only choose
#        among the constructors that this process has registered itself.
# Why a name and not module and class: code moves between releases, and `python shop.py` calls a module `__main__`
#        that is `shop` under uvicorn. The class's own name is the default; who has two of them gives another.
# Both tables are replaced and never edited, so that looking something up takes no lock.
# Not here: tags and depth (value_tree.py).

import dataclasses
import inspect
import threading
from collections.abc import Callable
from enum import Enum, Flag
from typing import Any, Final, NamedTuple, TypeVar, overload

from gossipsess.errors import ConfigError
from gossipsess.wire.value_refusal import REPLICABLE_BASES

NAME_CHARACTERS_MAX: Final = 256

_T = TypeVar("_T")
_BUILT_IN: Final = frozenset({*REPLICABLE_BASES, bool, type(None), object, type})


class Registered(NamedTuple):
    """One registered type."""

    cls: type
    name: str
    from_value: Callable[[Any], object]
    to_value: Callable[[Any], object] | None
    """None for a dataclass that is told by its fields."""
    fields: tuple[str, ...] = ()


_by_class: dict[type, Registered] = {}
_by_name: dict[str, Registered] = {}
_registering = threading.Lock()


@overload
def register_type(
    cls: type[_T],
    *,
    name: str | None = None,
    to_value: Callable[[_T], object] | None = None,
    from_value: Callable[[Any], _T] | None = None,
) -> type[_T]: ...
@overload
def register_type(
    cls: None = None,
    *,
    name: str | None = None,
    to_value: Callable[[Any], object] | None = None,
    from_value: Callable[[Any], object] | None = None,
) -> Callable[[type[_T]], type[_T]]: ...
def register_type(
    cls: type[Any] | None = None,
    *,
    name: str | None = None,
    to_value: Callable[[Any], object] | None = None,
    from_value: Callable[[Any], object] | None = None,
) -> Any:
    """Let objects of a class travel in sessions; in every process that reads them, before it does. A decorator too.

    A dataclass needs nothing else: its fields travel by name. One that the stored object lacks takes its default, and
    one that this process's class does not have is dropped, so that two releases of an application can run side by
    side. Its constructor runs when it comes back, and `__post_init__` with it. Of an Enum the member's name travels,
    of a Flag the value. Objects of derived classes are refused, unless these are registered too.

    Args:
        cls: the class; None: return a decorator.
        name: what stands for it in the bytes, at most 256 characters; None: the class's name. It must stay the same
            for as long as sessions live that have such objects.
        to_value: returns the replicable value that stands for an object. It must not change the object.
        from_value: returns the object for such a value, which an older or newer release may have made.

    Raises:
        ConfigError: the class cannot be registered so, or the name is another class's.
    """
    if cls is None:
        return lambda decorated: register_type(decorated, name=name, to_value=to_value, from_value=from_value)
    if not isinstance(cls, type) or cls in _BUILT_IN:
        raise ConfigError(f"register_type({cls!r}): write a class of your own, which sessions do not know already.")
    name = cls.__name__ if name is None else name
    _check_name(name)
    if (to_value is None) != (from_value is None):
        raise ConfigError(f"register_type({cls.__name__}): give both to_value and from_value, or neither of them.")
    if to_value is not None and from_value is not None:
        registered = Registered(cls, name, from_value, to_value)
    elif issubclass(cls, Enum):
        registered = _enum(cls, name)
    elif "__dataclass_fields__" in vars(cls):
        registered = _dataclass(cls, name)
    else:
        raise ConfigError(
            f"register_type({cls.__name__}): it is neither a dataclass nor an Enum, so say how it travels: "
            f"register_type({cls.__name__}, to_value=..., from_value=...). (@register_type stands above @dataclass.)"
        )
    _register(registered)
    return cls


def registered_as(cls: type) -> Registered | None:
    """Return how objects of exactly this class travel; None where it is not registered."""
    return _by_class.get(cls)


def registered_under(name: str) -> Registered | None:
    """Return the type that has this name; None where there is none in this process."""
    return _by_name.get(name)


def _register(new: Registered) -> None:
    global _by_class, _by_name
    with _registering:
        old, other = _by_name.get(new.name), _by_class.get(new.cls)
        if old is not None and _path(old.cls) != _path(new.cls):
            raise ConfigError(
                f"register_type({new.cls.__name__}): {_path(old.cls)} is registered as {new.name!r} already. "
                f"Give {_path(new.cls)} another name=."
            )
        if other is not None and other.name != new.name:
            raise ConfigError(f"register_type({new.cls.__name__}): it is registered already, as {other.name!r}.")
        # The same path and another class: its module was loaded anew, and the new one takes the place.
        kept = {cls: one for cls, one in _by_class.items() if one is not old}
        _by_class = {**kept, new.cls: new}
        _by_name = {**_by_name, new.name: new}


def _path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _check_name(name: object) -> None:
    if isinstance(name, str) and 0 < len(name) <= NAME_CHARACTERS_MAX:
        try:
            name.encode("utf-8")
        except UnicodeEncodeError:
            pass
        else:
            return
    raise ConfigError(f"register_type(name={name!r}): a name is text of 1 to {NAME_CHARACTERS_MAX} characters.")


def _enum(cls: type[Enum], name: str) -> Registered:
    if issubclass(cls, Flag):  # a combination of members has no name of its own
        return Registered(cls, name, cls, lambda member: member._value_)
    return Registered(cls, name, lambda member_name: cls[member_name], lambda member: member._name_)


def _dataclass(cls: type[Any], name: str) -> Registered:
    fields = dataclasses.fields(cls)
    given = frozenset(field.name for field in fields if field.init)
    computed = tuple(field.name for field in fields if not field.init)
    _check_constructor(cls, given)

    def from_value(values: Any) -> object:
        made = cls(**{field: value for field, value in values.items() if field in given})
        for field in computed:
            if field in values:
                object.__setattr__(made, field, values[field])  # a frozen dataclass's own way
        return made

    return Registered(cls, name, from_value, None, tuple(field.name for field in fields))


def _check_constructor(cls: type[Any], given: frozenset[str]) -> None:
    """Refuse a dataclass that cannot be made from its fields: one with an InitVar, or another `__init__`."""
    parameters = inspect.signature(cls).parameters.values()
    taken = {one.name for one in parameters}
    needed = {one.name for one in parameters if one.default is one.empty and one.kind is not one.VAR_KEYWORD}
    takes_all = any(one.kind is one.VAR_KEYWORD for one in parameters)
    if not needed <= given or not (takes_all or given <= taken):
        raise ConfigError(
            f"register_type({cls.__name__}): its constructor takes other arguments than its fields, so say how it "
            f"travels: register_type({cls.__name__}, to_value=..., from_value=...)."
        )
