# Delta codec: the hot part of the wire.
#
# A push is one flat CBOR list: for each delta a packed head, then key, value, key, value, ... of its entries.
#
#   head:  sid 16 | after hash 16 | last access 8 | form 1 | base claims 1 | after claims 1 | entries 4 | body
#   form:  0 base is claims    body: claims..., claims..., dots...
#          1 base is a hash    body: hash 16, claims..., dots...
#          2 a tombstone       body: stamp 8
#   claim, dot:  origin 8 | stamp 8
#
# One struct and few CBOR items a delta: an array for each part made encoding three times as slow.

from struct import Struct
from typing import Any

from gossipsess.errors import DecodeError
from gossipsess.model.delta import Delta, DeltaEntry
from gossipsess.model.identity import NodeId
from gossipsess.model.record import CLAIMS_MAX, KEY_CHARACTERS_MAX, VALUE_BYTES_MAX, Claims

_HEAD = Struct(">16s16sQBBBI")
_DOT = Struct(">8sQ")
_STAMP = Struct(">Q")
_FROM_CLAIMS, _FROM_HASH, _TOMBSTONE = 0, 1, 2
_pack_dot = _DOT.pack
_pack_head = _HEAD.pack


def packed_claims(claims: Claims) -> bytes:
    """Return claims as 16 bytes each."""
    return b"".join([_pack_dot(origin, stamp) for origin, stamp in claims.items()])


def claims_from_untrusted(data: object) -> dict[NodeId, int]:
    """Return what `packed_claims` packed.

    Raises:
        DecodeError: not claims, or more than a record ever has.
    """
    if type(data) is not bytes or len(data) % _DOT.size or len(data) > CLAIMS_MAX * _DOT.size:
        raise DecodeError("claims are malformed")
    return dict(_DOT.iter_unpack(data))


def flatten_deltas(deltas: tuple[Delta, ...]) -> list[Any]:
    """Return deltas as the flat list that travels."""
    flat: list[Any] = []
    append = flat.append
    for sid, base, base_hash, after, after_hash, entries, tombstone, accessed_ms in deltas:
        after_bytes = after_hash.to_bytes(16, "big")
        if tombstone:
            append(_pack_head(sid, after_bytes, 0, _TOMBSTONE, 0, 0, 0) + _STAMP.pack(tombstone))
            continue
        if base is None:
            head = _pack_head(sid, after_bytes, accessed_ms, _FROM_HASH, 0, len(after), len(entries))
            parts = [head, base_hash.to_bytes(16, "big")]
        else:
            parts = [_pack_head(sid, after_bytes, accessed_ms, _FROM_CLAIMS, len(base), len(after), len(entries))]
            for origin, stamp in base.items():
                parts.append(_pack_dot(origin, stamp))
        for origin, stamp in after.items():
            parts.append(_pack_dot(origin, stamp))
        for entry in entries:
            parts.append(_pack_dot(entry[2], entry[1]))
        append(b"".join(parts))
        for entry in entries:
            append(entry[0])
            append(entry[3])
    return flat


def deltas_from_untrusted(flat: object) -> tuple[Delta, ...]:
    """Return the deltas of a flat list.

    Raises:
        DecodeError: it is not one.
    """
    if type(flat) is not list:
        raise DecodeError("a push has no deltas")
    deltas: list[Delta] = []
    position, end = 0, len(flat)
    head_size = _HEAD.size
    while position < end:
        head = flat[position]
        position += 1
        if type(head) is not bytes or len(head) < head_size:
            raise DecodeError("a delta has no head")
        sid, after_bytes, accessed_ms, form, base_count, after_count, entry_count = _HEAD.unpack_from(head)
        if position + 2 * entry_count > end or base_count > CLAIMS_MAX or after_count > CLAIMS_MAX:
            raise DecodeError("a delta ends early, or claims too much")
        size = 16 * (base_count + after_count + entry_count) + (16 if form == _FROM_HASH else 0)
        if form == _TOMBSTONE:
            size = 8
        if len(head) != head_size + size or form > _TOMBSTONE or (form and base_count):
            raise DecodeError("a delta's head is malformed")
        after_hash = int.from_bytes(after_bytes, "big")
        if form == _TOMBSTONE:
            (tombstone,) = _STAMP.unpack_from(head, head_size)
            if not tombstone or after_count or entry_count:
                raise DecodeError("a tombstone is malformed")
            deltas.append(Delta(sid, {}, 0, {}, after_hash, (), tombstone))
            continue
        base: dict[NodeId, int] | None = None
        base_hash = 0
        start = head_size
        if form == _FROM_HASH:
            base_hash = int.from_bytes(head[start : start + 16], "big")
            start += 16
        dots = list(_DOT.iter_unpack(head[start:]))
        if form == _FROM_CLAIMS:
            base = dict(dots[:base_count])
        after = dict(dots[base_count : base_count + after_count])
        entries: list[DeltaEntry] = []
        for origin, stamp in dots[base_count + after_count :]:
            key, value = flat[position], flat[position + 1]
            position += 2
            if type(key) is not str or len(key) > KEY_CHARACTERS_MAX:
                raise DecodeError("a key is malformed")
            if value is not None and (type(value) is not bytes or len(value) > VALUE_BYTES_MAX):
                raise DecodeError("a value is malformed")
            entries.append((key, stamp, origin, value))
        deltas.append(Delta(sid, base, base_hash, after, after_hash, tuple(entries), 0, accessed_ms))
    return tuple(deltas)
