# Why a session value was refused: where the culprit sits, what it is, what to store instead.
#
# In:    the Refused signal that the encoder raised, the path of the assignment.   Out: UnreplicableValue.
# Rule:  the message names the object that was refused and the innermost thing inside it that is to blame, so
#        that nobody has to search a user object for the one field that holds a lock.
# The path is collected while the signal unwinds, so a value that is accepted pays nothing for it.
# Looking into an object runs none of its code (no property, no __getattr__, no repr), and values are never
#        shown: they may be secrets. Keys are, since a path needs them.
# Not here: which types are accepted (values.py, value_scalars.py).

from collections.abc import Callable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any, Self
from uuid import UUID

from gossipsess.errors import UnreplicableValue

# Objects looked into, one inside the other, on the way to the innermost. A web of objects is larger than
# anybody wants to read.
_OBJECTS_DEEP_MAX = 16
_KEY_CHARS_MAX = 60

REPLICABLE_BASES: tuple[type, ...] = (
    *(str, int, float, bytes, dict, list, tuple, set, frozenset),
    *(datetime, date, time, timedelta, Decimal, UUID),
)


class Refused(Exception):
    """The encoder met `value`, which cannot be replicated; containers add their step as this unwinds.

    Attributes:
        value: the refused value.
        problem, remedy: what is wrong and what to do; without them its type says it.
        steps: the way to the value from the root, innermost first, as Python writes it: ``[0]``.
    """

    def __init__(self, value: object, problem: str = "", remedy: str = "") -> None:
        self.value = value
        self.problem = problem
        self.remedy = remedy
        self.steps: list[str] = []
        self._is_too_deep = False
        self._steps_around_cycle = 0

    @classmethod
    def too_deep(cls, container: object, depth_max: int) -> Self:
        refused = cls(
            container,
            f"sits inside {depth_max} other containers, and no more are allowed",
            "Store a flatter value.",
        )
        refused._is_too_deep = True
        return refused

    @classmethod
    def not_utf8(cls, text: str) -> Self:
        return cls(
            text,
            "holds a lone surrogate, which UTF-8 cannot carry",
            "Store bytes instead: text.encode('utf-8', 'surrogatepass').",
        )

    @classmethod
    def no_offset(cls, moment: datetime | time) -> Self:
        return cls(
            moment,
            "has a time zone that gives no UTC offset for it",
            "Store it without the zone, or with a zoneinfo.ZoneInfo.",
        )

    def leave(self, container: object, step: str) -> None:
        """Note that the signal passes `container`, in which `step` led on to the refused value."""
        self.steps.append(step)
        if not (self._is_too_deep and container is self.value):
            return
        # A cycle shows as endless depth. One way around it is enough for the path: later rounds are cut.
        if not self._steps_around_cycle:
            self._steps_around_cycle = len(self.steps)
            self.problem = "contains itself"
            self.remedy = "Store ids instead of references back."
        del self.steps[self._steps_around_cycle :]

    def leave_key(self, container: object, key: object) -> None:
        """Like `leave`, for a dict's key, which has been found replicable already."""
        try:
            text = repr(key)
        except Exception:  # an int of more digits than Python writes, or an object of a registered type
            text = f"<{_name(key)}>"
        self.leave(container, f"[{text if len(text) <= _KEY_CHARS_MAX else text[:_KEY_CHARS_MAX] + '...'}]")

    def path_below(self, path: str) -> str:
        return path + "".join(reversed(self.steps))


def explain(refused: Refused | None, path: str, first_refused: Callable[[object], Refused | None]) -> UnreplicableValue:
    """Return the error to raise for a value assigned to `path`.

    `first_refused` tells what the encoder would refuse in a value; objects are searched with it.
    """
    assert refused is not None, "a refused value is refused again when it is walked again"
    outer_path, outer = refused.path_below(path), refused.value
    if refused.problem:
        message = f"{outer_path}: {_name(outer)} {refused.problem}. {refused.remedy}"
        return UnreplicableValue(message, path=outer_path, type_name=_name(outer))
    inner_path, inner = _innermost(outer, outer_path, first_refused)
    message = f"{outer_path}: {_name(outer)} cannot be copied to other processes"
    if inner is not outer:
        message += f", nor can what it holds, {inner_path}: {_name(inner)}"
    return UnreplicableValue(f"{message}. {_remedy(type(outer))}", path=inner_path, type_name=_name(inner))


def _name(value: object) -> str:
    return type(value).__name__


def _remedy(kind: type) -> str:
    if issubclass(kind, Enum):
        return (
            "Store its .value, and look the member up again when you read it; or let it travel: "
            f"gossipsess.register_type({kind.__name__}), once, in every process."
        )
    if issubclass(kind, bytearray | memoryview):
        return "Use bytes: bytes(value)."
    for base in REPLICABLE_BASES:
        if issubclass(kind, base):
            return f"It derives from {base.__name__} and would come back as one: store a plain {base.__name__}."
    plain = "Store plain values: a dict of the fields you need, or an id with which to look it up again"
    if "__dataclass_fields__" in vars(kind):
        return f"{plain}; or let it travel: gossipsess.register_type({kind.__name__}), once, in every process."
    return f"{plain}; or say how it travels, by gossipsess.register_type."


def _innermost(value: object, path: str, first_refused: Callable[[object], Refused | None]) -> tuple[str, object]:
    """Follow refused fields inward, to an object whose own fields are all replicable."""
    seen = {id(value)}
    while len(seen) <= _OBJECTS_DEEP_MAX:
        for step, child in _fields(value):
            refused = first_refused(child)
            if refused is None or id(refused.value) in seen:
                continue
            path, value = refused.path_below(path + step), refused.value
            seen.add(id(value))
            if refused.problem:  # a plain value after all, with something wrong in it
                return path, value
            break
        else:
            break
    return path, value


def _fields(value: Any) -> Iterator[tuple[str, object]]:
    """Yield (path step, field) of an object, reading storage alone: no code of its class runs."""
    kind = type(value)
    if issubclass(kind, dict):
        yield "", dict.copy(value)
    elif issubclass(kind, list):
        yield "", list.copy(value)
    elif issubclass(kind, tuple):
        yield "", [*tuple.__iter__(value)]
    for cls in kind.__mro__:
        own = vars(cls)
        # Only the interpreter's own descriptors: a class may define a __dict__ or a slot that is code.
        if isinstance(storage := own.get("__dict__"), GetSetDescriptorType):
            attributes = storage.__get__(value)
            if type(attributes) is dict:  # of a class it is a mappingproxy: code, not data
                yield from (_step(name, field) for name, field in attributes.items() if _is_data(name))
        if "__slots__" in own:
            for name, slot in own.items():
                if isinstance(slot, MemberDescriptorType) and _is_data(name):
                    try:
                        yield _step(name, slot.__get__(value))
                    except AttributeError:
                        continue  # a slot that was never set


def _step(name: str, field: object) -> tuple[str, object]:
    return f".{name}", field


def _is_data(name: object) -> bool:
    return type(name) is str and not (name.startswith("__") and name.endswith("__"))
