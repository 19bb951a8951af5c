# Single values that CBOR does not carry by itself, each as one tag: dates, times, decimals, UUIDs, marked-safe text.
#
# In:    a value, or a tag's number and content.   Out: a CBORTag, or the value.
# Why tags of our own and not the registered ones: those know no naive datetime, no zone and no fold, and lose
#        a Decimal's trailing zeros. Only gossipsess reads these bytes. Big ints alone use the registered
#        tags, since cbor2 writes them by itself.
# Not here: containers, bounds (values.py).

import sys
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from functools import partial
from importlib import import_module
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from cbor2 import CBORTag

from gossipsess.errors import DecodeError
from gossipsess.wire.value_refusal import Refused

# The registered tags of ints outside 64 bits.
_TAG_BIG_POSITIVE, _TAG_BIG_NEGATIVE = 2, 3
_TAG_DATETIME, _TAG_DATE, _TAG_TIME, _TAG_TIMEDELTA = 60000, 60001, 60002, 60003
_TAG_DECIMAL, _TAG_UUID, _TAG_MARKUP, _TAG_SAFE_STRING = 60004, 60005, 60006, 60007

_MICROSECOND = timedelta(microseconds=1)


class Unreadable(Exception):
    """A value holds an object that this process cannot make, and another may; a session knows the path."""

    def __init__(self, type_name: str, problem: str) -> None:
        self.type_name = type_name
        self.problem = problem


def scalar_to_tag(value: Any) -> CBORTag | None:
    """Return the tag that stands for `value`; None where its type is not one of those listed here.

    Raises:
        Refused: its zone gives no UTC offset, or it is no UTF-8.
    """
    kind = type(value)
    if kind in _TO_TAG:
        return _TO_TAG[kind](value)
    # Looked up and not imported: a value can be one of these only where somebody has imported it already.
    for tag, (module, name) in _SAFE_TEXTS.items():
        if kind is getattr(sys.modules.get(module), name, None):
            return CBORTag(tag, checked_text(str.__str__(value)))
    return None


def checked_text(text: str) -> str:
    """Return `text`, or raise Refused if UTF-8 cannot carry it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Refused.not_utf8(text) from None
    return text


def scalar_from_tag(tag: int, content: Any) -> object:
    """Return the value that a tag stands for.

    Raises:
        DecodeError: the tag is unknown, or its content is not what `scalar_to_tag` makes.
        Unreadable: it is a time of day in a zone that this machine does not know.
    """
    from_content = _FROM_CONTENT.get(tag)
    if from_content is None:
        raise DecodeError(f"a value holds the unknown tag {tag}")
    try:
        return from_content(content)
    except (TypeError, ValueError, ArithmeticError) as exc:
        raise DecodeError(f"a value holds tag {tag} with content that does not fit it") from exc


def _typed(content: Any, kind: type) -> Any:
    if type(content) is not kind:
        raise TypeError(f"{kind.__name__} expected")
    return content


def _ints(content: Any, count: int) -> list[int]:
    if type(content) is not list or [type(item) for item in content] != [int] * count:
        raise TypeError(f"{count} ints expected")
    return content


def _zone_to_content(value: datetime | time) -> object:
    zone = value.tzinfo
    if zone is None:
        return None
    offset = value.utcoffset()
    offset_us = None if offset is None else offset // _MICROSECOND
    if type(zone) is ZoneInfo and zone.key is not None:
        return [zone.key, offset_us]
    if offset_us is None:
        raise Refused.no_offset(value)
    return offset_us


def _zone_from_content(content: Any, *, of_moment: bool) -> tzinfo | None:
    if content is None:
        return None
    if type(content) is int:
        return timezone(timedelta(microseconds=content))
    key, offset_us = _typed(content, list)
    try:
        return ZoneInfo(_typed(key, str))
    except (LookupError, OSError):
        # This machine's zone data lacks the key. The moment is still known; its future rules are not needed.
        if offset_us is None and not of_moment:  # but a time of day has no offset without them
            raise Unreadable("time", f"has the zone {key[:60]!r}, which is not known here. Install tzdata") from None
        return timezone(timedelta(microseconds=_typed(offset_us, int)))


def _datetime_to_tag(value: datetime) -> CBORTag:
    parts = [value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond]
    return CBORTag(_TAG_DATETIME, [*parts, value.fold, _zone_to_content(value)])


def _datetime_from_content(content: Any) -> datetime:
    year, month, day, hour, minute, second, microsecond, fold = _ints(_typed(content, list)[:-1], 8)
    zone = _zone_from_content(content[-1], of_moment=True)
    return datetime(year, month, day, hour, minute, second, microsecond, zone, fold=fold)


def _time_to_tag(value: time) -> CBORTag:
    parts = [value.hour, value.minute, value.second, value.microsecond, value.fold]
    return CBORTag(_TAG_TIME, [*parts, _zone_to_content(value)])


def _time_from_content(content: Any) -> time:
    hour, minute, second, microsecond, fold = _ints(_typed(content, list)[:-1], 5)
    zone = _zone_from_content(content[-1], of_moment=False)
    return time(hour, minute, second, microsecond, zone, fold=fold)


def _safe_text(tag: int, content: Any) -> str:
    module, name = _SAFE_TEXTS[tag]
    text: str = _typed(content, str)
    try:
        marked: str = getattr(import_module(module), name)(text)  # it was one where the application assigned it
    except ImportError:
        return text
    return marked


# Text marked as safe for HTML.
_SAFE_TEXTS = {
    _TAG_MARKUP: ("markupsafe", "Markup"),
    _TAG_SAFE_STRING: ("django.utils.safestring", "SafeString"),
}


_TO_TAG: dict[type, Callable[[Any], CBORTag]] = {
    datetime: _datetime_to_tag,
    date: lambda value: CBORTag(_TAG_DATE, value.toordinal()),
    time: _time_to_tag,
    timedelta: lambda value: CBORTag(_TAG_TIMEDELTA, [value.days, value.seconds, value.microseconds]),
    # In capitals, since str() writes 1e9 or 1E9 as the thread's decimal context says.
    Decimal: lambda value: CBORTag(_TAG_DECIMAL, str(value).upper()),
    UUID: lambda value: CBORTag(_TAG_UUID, value.bytes),
}

_FROM_CONTENT: dict[int, Callable[[Any], object]] = {
    _TAG_BIG_POSITIVE: lambda content: int.from_bytes(_typed(content, bytes), "big"),
    _TAG_BIG_NEGATIVE: lambda content: -1 - int.from_bytes(_typed(content, bytes), "big"),
    _TAG_DATETIME: _datetime_from_content,
    _TAG_DATE: lambda content: date.fromordinal(_typed(content, int)),
    _TAG_TIME: _time_from_content,
    _TAG_TIMEDELTA: lambda content: timedelta(*_ints(content, 3)),
    _TAG_DECIMAL: lambda content: Decimal(_typed(content, str)),
    _TAG_UUID: lambda content: UUID(bytes=_typed(content, bytes)),
    _TAG_MARKUP: partial(_safe_text, _TAG_MARKUP),
    _TAG_SAFE_STRING: partial(_safe_text, _TAG_SAFE_STRING),
}
