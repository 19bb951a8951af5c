# Session values as bytes: what an application may keep in a session, and how it travels.
#
# In:    one value, and the path it is assigned to (for messages).   Out: typed CBOR, and back.
# Rule:  what comes back is equal and of the same type, all the way down, or the value is refused where it
#        is assigned. Types derived from the known ones are refused too: they would come back as their base.
# Why CBOR with tags of our own and not pickle: a peer's bytes must never choose code to run; and not JSON,
#        which turns tuples into lists, int keys into strings, and knows neither bytes nor dates.
# Equal values of equal types, in the same insertion order, give the same bytes in every process (sets are
#        sorted by their members' bytes), so a change inside a value is noticed by encoding it again.
# Not here: which types there are (value_tree.py: containers; value_scalars.py: dates, decimals and so on;
#        value_types.py: those that the application registers; value_standins.py: lazy texts); the words and the
#        path of a refusal (value_refusal.py).

import io
from collections.abc import Callable
from typing import Any

from cbor2 import CBORDecoder, CBORError, CBORTag, dumps, loads

from gossipsess.errors import DecodeError, SessionTooLarge, UnreadableValue
from gossipsess.model.record import VALUE_BYTES_MAX
from gossipsess.wire.value_refusal import Refused, explain
from gossipsess.wire.value_scalars import Unreadable
from gossipsess.wire.value_tree import (
    DEPTH_MAX,
    PLAIN,
    PRIVATE_TAG_HEAD,
    TooLarge,
    TreeEncoder,
    dump_bounded,
    value_from_tree,
)

__all__ = ["DEPTH_MAX", "VALUE_BYTES_MAX", "as_read_here", "decode_value", "encode_value"]

# What CBOR itself counts: a container may be a tag around an array, an object a tag around an array around one of
# those, and a date adds three levels.
_CBOR_DEPTH_MAX = 4 * DEPTH_MAX + 4
_FIRST_BYTE_OF_LISTS = 0x80
_FEW = 16  # items; one long string may be each of them
# Whole numbers from 24: by the first byte the length of the whole, and the least that has this form.
_NUMBER_BY_FIRST_BYTE = {0x18: (2, 24), 0x19: (3, 1 << 8), 0x1A: (5, 1 << 16), 0x1B: (9, 1 << 32)}
# False, True, None, and a float of 64 bits: the first byte tells the length of the whole.
_BYTES_BY_FIRST_BYTE = {0xF4: 1, 0xF5: 1, 0xF6: 1, 0xFB: 9}


def encode_value(value: object, path: str) -> bytes:
    """Return `value` as CBOR, at most `VALUE_BYTES_MAX` bytes.

    Replicable are None, bool, int, float, str, bytes, list, tuple, dict, set, frozenset, datetime, date,
    time, timedelta, Decimal, UUID, markupsafe.Markup, Django's SafeString and the types given to `register_type`,
    but nothing derived from them, save what value_standins.py lists. Of a datetime's zone the UTC offset is kept, and
    a ZoneInfo's key. A lazy text becomes the str for which it stands now.

    `path` is where the value is assigned, as Python writes it: ``session['user']``.

    Raises:
        UnreplicableValue: something in the value is of another type, nested deeper than `DEPTH_MAX`,
            contains itself, or is text that UTF-8 cannot carry. The error names the innermost culprit.
        SessionTooLarge: the value takes more than `VALUE_BYTES_MAX` bytes.
    """
    try:
        is_simple = type(value) in PLAIN or _is_short_list(value)
        data = dumps(value) if is_simple else dump_bounded(TreeEncoder(PLAIN).tree(value, 0))
    except UnicodeEncodeError:
        # Rare enough to be found by a second walk: this one looks into each string on the way.
        raise explain(_first_refused(value, PLAIN - {str}), path, _first_refused) from None
    except Refused as refused:
        raise explain(refused, path, _first_refused) from None
    except TooLarge as over:
        raise _too_large(path, f"at least {over.size}") from None
    if len(data) > VALUE_BYTES_MAX:
        raise _too_large(path, str(len(data)))
    return data


def decode_value(data: bytes, path: str = "the value") -> object:
    """Return the value that `encode_value` made `data` from, sharing nothing with any other value.

    A ZoneInfo whose key this machine does not know comes back as its fixed offset; Markup and SafeString come back as
    str where their module is not installed. `path` is where it is kept, for the message of an error.

    Raises:
        DecodeError: not one whole value, over a bound, or of an unknown tag.
        UnreadableValue: it holds an object of a type that is not registered here, or could not be made, or a time of
            day in a zone that this machine does not know. Nothing else is raised, whatever the bytes.
    """
    if not 0 < len(data) <= VALUE_BYTES_MAX:
        raise DecodeError(f"a value has {len(data)} bytes, not between 1 and {VALUE_BYTES_MAX}")
    try:
        # The short ways. loads() ignores bytes left over at the end, so each way looks for them itself.
        first_byte = data[0]
        if 0x60 <= first_byte < 0x78 and len(data) == first_byte - 0x5F:  # text of up to 23 bytes
            return str(data[1:], "utf-8")
        if first_byte == 0x78 and len(data) > 25 and len(data) - 2 == data[1]:  # of up to 255
            return str(data[2:], "utf-8")
        if first_byte < 0x18 and len(data) == 1:
            return first_byte
        form = _NUMBER_BY_FIRST_BYTE.get(first_byte)
        if form is not None and len(data) == form[0]:
            number = int.from_bytes(data[1:], "big")
            if number >= form[1]:
                return number
        if first_byte < _FIRST_BYTE_OF_LISTS:  # int, bytes or str, each with one shortest encoding
            value: object = loads(data)
            if dumps(value) != data:
                raise DecodeError("a value is not in its shortest form, or bytes follow it")
            return value
        if _BYTES_BY_FIRST_BYTE.get(first_byte) == len(data):
            return loads(data)
        stream = io.BytesIO(data)
        tree = CBORDecoder(
            stream,
            semantic_decoders=_EVERY_TAG_KEPT,
            max_depth=_CBOR_DEPTH_MAX,
            allow_indefinite=False,
            allow_duplicate_keys=False,
        ).decode()
    except (CBORError, UnicodeDecodeError) as exc:
        raise DecodeError(f"a value is not CBOR: {exc}") from exc
    if stream.read(1):
        raise DecodeError("bytes follow a value")
    try:
        return value_from_tree(tree, 0)
    except Unreadable as unreadable:
        message = f"{path} cannot be read: {unreadable.type_name!r} {unreadable.problem}."
        raise UnreadableValue(message, path=path, type_name=unreadable.type_name) from unreadable.__cause__


def as_read_here(data: bytes) -> bytes:
    """Return the bytes of what reading `data` gives in this process.

    They are others than `data` where this process knows less or more than the one that wrote it: another release of
    a registered class, no zone data, no markupsafe.
    """
    return encode_value(decode_value(data), "") if PRIVATE_TAG_HEAD in data else data


def _is_short_list(value: Any) -> bool:
    """Say whether CBOR carries a list as it is, and in not much more memory than it takes: the usual ones."""
    return type(value) is list and len(value) <= _FEW and PLAIN.issuperset(map(type, value))


def _kept_tag(tag: int) -> Callable[[Any, bool], CBORTag]:
    return lambda content, immutable: CBORTag(tag, content)


class _EveryTagKept(dict[int, Callable[[Any, bool], CBORTag]]):
    """Keeps cbor2's own decoders away: regular expressions, shared references and e-mails are not wanted."""

    def __missing__(self, tag: int) -> Callable[[Any, bool], CBORTag]:
        return _kept_tag(tag)


_EVERY_TAG_KEPT = _EveryTagKept()


def _too_large(path: str, size: str) -> SessionTooLarge:
    return SessionTooLarge(
        f"{path} takes {size} bytes, and {VALUE_BYTES_MAX} are allowed for one value. "
        "Keep large data in a file, a database or a cache, and its id in the session."
    )


def _first_refused(value: object, plain: frozenset[type] = PLAIN) -> Refused | None:
    try:
        TreeEncoder(plain).tree(value, 0)
    except Refused as refused:
        return refused
    except TooLarge:
        pass  # too much to look through, and not what is being asked
    return None
