# Session values as trees of what CBOR carries by itself: plain values, lists, maps, and tags for the rest.
#
# In:    a value.   Out: a tree that cbor2 writes as it is, and the other way round.
# Rule:  both walks know the same types and the same depth; what one makes, the other takes back.
# Why a walk at all, when cbor2 offers hooks for unknown types: those never see a type derived from str or
#        dict, which would go out silently and come back as its base.
# Not here: single values (value_scalars.py), registered types (value_types.py), what stands for a plain value
#        (value_standins.py), the bytes and their bound (values.py).

import io
from collections.abc import Sequence
from typing import Any

import cbor2

from gossipsess.errors import DecodeError
from gossipsess.model.record import VALUE_BYTES_MAX
from gossipsess.wire.value_refusal import Refused
from gossipsess.wire.value_scalars import Unreadable, checked_text, scalar_from_tag, scalar_to_tag
from gossipsess.wire.value_standins import is_lazy_text, stood_for
from gossipsess.wire.value_types import Registered, registered_as, registered_under

# One value, encoded. Protects the memory of every holder, and the time for which one value fills a link.
# Containers inside one another, the outermost included. Both walks recurse, so this protects the stack.
DEPTH_MAX = 32
# How far the size of a value over the bound is counted, so that the message can name it.
_COUNTED_BYTES_MAX = 16 * 1024 * 1024

# Types that CBOR carries as they are.
PLAIN: frozenset[type] = frozenset({str, int, float, bool, bytes, type(None)})

# Tags 60000 to 60009 stand for single values, see value_scalars.py. The tags from 60000 to 60014 begin so:
PRIVATE_TAG_HEAD = b"\xd9\xea"
_TAG_TUPLE, _TAG_SET, _TAG_FROZENSET, _TAG_PAIRS, _TAG_REGISTERED = 60010, 60011, 60012, 60013, 60014


class TooLarge(Exception):
    def __init__(self, size: int) -> None:
        self.size = size


class _CountedBytes(io.BytesIO):
    """Stops an encoding far over the bound: one long string may be listed a million times."""

    def write(self, chunk: Any) -> int:
        if self.tell() > _COUNTED_BYTES_MAX:
            raise TooLarge(self.tell())
        return super().write(chunk)


def dump_bounded(tree: object) -> bytes:
    """Return `tree` as CBOR; raises TooLarge in place of filling the memory."""
    stream = _CountedBytes()
    cbor2.dump(tree, stream)
    return stream.getvalue()


def _member_bytes(tree: object) -> bytes:
    return cbor2.dumps(tree) if type(tree) in PLAIN else dump_bounded(tree)


class TreeEncoder:
    """One walk from a value to what cbor2 writes as it is: plain values, lists, maps, tags.

    Containers of plain values alone, the usual case, are handed on without a copy. `plain` says which types
    need no look inside: `PLAIN`, or `PLAIN` without str to find the one that is not UTF-8.
    """

    def __init__(self, plain: frozenset[type]) -> None:
        self._plain = plain
        # Each item takes a byte or more, so a walk past this many is over the size bound anyway. A list that
        # holds one list ten times, which holds one list ten times, would otherwise be walked for ever.
        self._items_left = VALUE_BYTES_MAX
        self._hashed = 0  # how many sets, or keys of dicts, this is within

    def tree(self, value: Any, depth: int) -> object:
        """Return the tree that stands for `value`, which sits inside `depth` containers.

        Raises:
            Refused: it cannot be replicated, or something in it.
            TooLarge: it is over the size bound.
        """
        kind = type(value)
        if kind in self._plain:
            return value
        if kind is dict:
            return self._dict(value, depth)
        if kind is list:
            return self._items(value, depth)
        if kind is tuple:
            return cbor2.CBORTag(_TAG_TUPLE, self._items(value, depth))
        if kind is set:
            return cbor2.CBORTag(_TAG_SET, self._members(value, depth))
        if kind is frozenset:
            return cbor2.CBORTag(_TAG_FROZENSET, self._members(value, depth))
        if kind is str:
            return checked_text(value)
        registered = registered_as(kind)
        if registered is not None:
            return self._object(value, registered, depth)
        tag = scalar_to_tag(value)
        return tag if tag is not None else self._stood_for(value, depth)

    def _stood_for(self, value: object, depth: int) -> object:
        if self._hashed and is_lazy_text(value):  # two that differ may stand for one text
            raise Refused(value, "is a lazy text in a set, or a dict's key", "Store the text: str(value).")
        plain = stood_for(value)
        if plain is None:
            raise Refused(value)
        return self.tree(plain, depth)

    def _object(self, value: object, registered: Registered, depth: int) -> object:
        if registered.to_value is None:
            return cbor2.CBORTag(_TAG_REGISTERED, [registered.name, self._fields(value, registered.fields, depth)])
        try:
            plain = registered.to_value(value)
        except Exception as error:
            problem = f"has a to_value that raised {type(error).__name__}"
            raise Refused(value, problem, "Let it return a replicable value.") from error
        if registered_as(type(plain)) is not None:
            raise Refused(value, "has a to_value that returns an object of a registered type", "Return a plain value.")
        try:
            tree = self.tree(plain, depth)
        except Refused as refused:
            refused.leave(value, "<to_value>")
            raise
        return cbor2.CBORTag(_TAG_REGISTERED, [registered.name, tree])

    def _fields(self, value: object, fields: tuple[str, ...], depth: int) -> dict[str, object]:
        if depth >= DEPTH_MAX:
            raise Refused.too_deep(value, DEPTH_MAX)
        self._items_left -= len(fields)
        if self._items_left < 0:
            raise TooLarge(VALUE_BYTES_MAX + 1)
        trees: dict[str, object] = {}
        for name in fields:
            try:
                field = getattr(value, name)
            except AttributeError:
                raise Refused(value, f"has no {name}, which is one of its fields", "Set it first.") from None
            try:
                trees[name] = self.tree(field, depth + 1)
            except Refused as refused:
                refused.leave(value, f".{name}")
                raise
        return trees

    def _enter(self, container: Any, depth: int) -> None:
        if depth >= DEPTH_MAX:
            raise Refused.too_deep(container, DEPTH_MAX)
        self._items_left -= len(container)
        if self._items_left < 0:
            raise TooLarge(VALUE_BYTES_MAX + 1)

    def _items(self, value: list[object] | tuple[object, ...], depth: int) -> Sequence[object]:
        self._enter(value, depth)
        plain = self._plain
        if plain.issuperset(map(type, value)):
            return value
        trees: list[object] = []
        try:
            for item in value:
                trees.append(item if type(item) in plain else self.tree(item, depth + 1))
        except Refused as refused:
            refused.leave(value, f"[{len(trees)}]")
            raise
        return trees

    def _members(self, value: set[object] | frozenset[object], depth: int) -> list[object]:
        self._enter(value, depth)
        self._hashed += 1
        try:
            trees = [self.tree(member, depth + 1) for member in value]
        except Refused as refused:
            refused.leave(value, "{...}")
            raise
        self._hashed -= 1
        # The order of a set differs from process to process; that of its members' bytes does not.
        trees.sort(key=_member_bytes)
        return trees

    def _dict(self, value: dict[Any, object], depth: int) -> object:
        self._enter(value, depth)
        plain = self._plain
        keys_are_plain = plain.issuperset(map(type, value))
        if keys_are_plain and plain.issuperset(map(type, value.values())):
            return value
        keys = list(value) if keys_are_plain else self._keys(value, depth)
        trees: list[object] = []
        for key, item in value.items():
            try:
                trees.append(item if type(item) in plain else self.tree(item, depth + 1))
            except Refused as refused:
                refused.leave_key(value, key)
                raise
        if keys_are_plain:
            return dict(zip(keys, trees, strict=True))
        # Not a map: two Decimal NaNs are two keys, and would be one as tags.
        return cbor2.CBORTag(_TAG_PAIRS, [part for pair in zip(keys, trees, strict=True) for part in pair])

    def _keys(self, value: dict[Any, object], depth: int) -> list[object]:
        self._hashed += 1
        try:
            keys = [self.tree(key, depth + 1) for key in value]
        except Refused as refused:
            refused.leave(value, ".keys(){...}")
            raise
        self._hashed -= 1
        return keys


def _with_large_keys(tree: dict[Any, object], depth: int) -> dict[object, object]:
    # CBOR itself knows integers of 64 bits; a larger one comes as a tag, also where it is a key.
    keys = [key if type(key) in PLAIN else value_from_tree(key, depth + 1) for key in tree]
    if not PLAIN.issuperset(map(type, keys)):
        raise DecodeError("a map in a value has a key that is not plain")
    large = dict(zip(keys, tree.values(), strict=True))
    if len(large) < len(tree):
        raise DecodeError("a map in a value has one key twice")
    return large


def value_from_tree(tree: Any, depth: int) -> object:
    """Return the value that `tree` stands for; lists and dicts in it are used up.

    Raises:
        DecodeError: the tree is none that `TreeEncoder` makes.
        Unreadable: an object in it is of a type that is not registered here, or cannot be made here.
    """
    kind = type(tree)
    if kind in PLAIN:
        return tree
    if kind is list:
        return _values(tree, depth)
    if kind is dict:
        _check_depth(depth)
        if not PLAIN.issuperset(map(type, tree)):
            tree = _with_large_keys(tree, depth)
        if not PLAIN.issuperset(map(type, tree.values())):
            for key, item in tree.items():
                tree[key] = value_from_tree(item, depth + 1)
        return tree
    if kind is not cbor2.CBORTag:
        raise DecodeError(f"a value holds {kind.__name__}, which no session value becomes")
    if tree.tag == _TAG_TUPLE:
        return tuple(_values(tree.value, depth))
    if tree.tag == _TAG_SET:
        return set(_distinct(_values(tree.value, depth)))
    if tree.tag == _TAG_FROZENSET:
        return frozenset(_distinct(_values(tree.value, depth)))
    if tree.tag == _TAG_PAIRS:
        return _pairs(_values(tree.value, depth))
    if tree.tag == _TAG_REGISTERED:
        return _object(tree.value, depth)
    return scalar_from_tag(tree.tag, tree.value)


def _check_depth(depth: int) -> None:
    if depth >= DEPTH_MAX:
        raise DecodeError(f"a value is nested deeper than {DEPTH_MAX} containers")


def _values(trees: Any, depth: int) -> list[object]:
    _check_depth(depth)
    if type(trees) is not list:
        raise DecodeError("a tag in a value needs an array")
    if PLAIN.issuperset(map(type, trees)):
        return trees
    return [value_from_tree(item, depth + 1) for item in trees]


def _object(content: Any, depth: int) -> object:
    if type(content) is not list or len(content) != 2 or type(content[0]) is not str:
        raise DecodeError("an object in a value needs a name and a value")
    name, plain = content
    if type(plain) is cbor2.CBORTag and plain.tag == _TAG_REGISTERED:
        raise DecodeError("an object in a value stands for another")
    registered = registered_under(name)
    if registered is None:
        raise Unreadable(
            name,
            "is not registered in this process. Call gossipsess.register_type for it, under that name, where this "
            "process starts. The stored value stays as it is",
        )
    value = value_from_tree(plain, depth)
    try:
        made = registered.from_value(value)
    except Exception as error:
        raise Unreadable(
            name,
            f"could not be made from what is stored: {type(error).__name__}, see above. Let its from_value, or its "
            "fields' defaults, take what other releases have stored",
        ) from error
    if type(made) is not registered.cls:
        raise Unreadable(name, f"has a from_value that returned {type(made).__name__}. Let it return the class")
    return made


def _distinct(members: list[object]) -> dict[object, None]:
    try:
        distinct = dict.fromkeys(members)
    except Exception as exc:  # a registered type's own hash may raise anything
        raise DecodeError("a set or a dict in a value has a member that cannot be hashed") from exc
    if len(distinct) != len(members):
        raise DecodeError("a set or a dict in a value has the same member twice")
    return distinct


def _pairs(parts: list[object]) -> dict[object, object]:
    if len(parts) % 2:
        raise DecodeError("a dict in a value has a key without a value")
    return dict(zip(_distinct(parts[::2]), parts[1::2], strict=True))
