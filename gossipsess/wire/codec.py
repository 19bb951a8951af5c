# Codec: messages as bytes, and back.
#
# A message is one flat CBOR array: its kind, then its fields. Every field is checked for type and range before a
# message is made of it: the bytes are authenticated by then, but a peer may be of another version, or broken.
# Unknown kinds and fields too many are refused; a new form comes with a new protocol version.
#
# Deltas have a form of their own (delta_codec.py), since there are thousands a second of them.

from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import Any, Final, NamedTuple, TypeVar

import cbor2

from gossipsess.errors import DecodeError
from gossipsess.model.digest import PARTITIONS
from gossipsess.model.identity import NODE_ID_BYTES, SID_BYTES, NodeId, Sid
from gossipsess.model.member import Address, Member, MemberState
from gossipsess.wire.delta_codec import (
    claims_from_untrusted,
    deltas_from_untrusted,
    flatten_deltas,
    packed_claims,
)
from gossipsess.wire.frame import MESSAGE_BYTES_MAX
from gossipsess.wire.messages import (
    Beacon,
    Bye,
    Gap,
    Gossip,
    Hello,
    Message,
    Nack,
    Ping,
    PingRequest,
    ProbeAck,
    Pull,
    PullAnswer,
    Push,
    PushAck,
    SyncAsk,
    SyncPage,
    Touch,
    TouchAck,
    WrongId,
)

TEXT_CHARACTERS_MAX: Final = 255
U16: Final = 2**16 - 1
U32: Final = 2**32 - 1
U64: Final = 2**64 - 1
HASH_BYTES: Final = 16
_NESTING_MAX: Final = 4

T = TypeVar("T")


class _Fields:
    """Takes a message's fields one after the other, each checked."""

    __slots__ = ("_items",)

    def __init__(self, items: Iterator[Any]) -> None:
        self._items = items

    def number(self, greatest: int) -> int:
        item = self._next()
        if type(item) is not int or not 0 <= item <= greatest:
            raise DecodeError("a number is missing or out of range")
        return item

    def flag(self) -> bool:
        item = self._next()
        if type(item) is not bool:
            raise DecodeError("a flag is missing")
        return item

    def octets(self, size: int) -> bytes:
        item = self._next()
        if type(item) is not bytes or len(item) != size:
            raise DecodeError(f"{size} bytes are missing")
        return item

    def text(self) -> str:
        item = self._next()
        if type(item) is not str or len(item) > TEXT_CHARACTERS_MAX:
            raise DecodeError("a text is missing or too long")
        return item

    def raw(self) -> Any:
        return self._next()

    def many(self, read: Callable[["_Fields"], T]) -> tuple[T, ...]:
        """Read a counted repetition: a count above what is there fails at the first missing field."""
        return tuple([read(self) for _ in range(self.number(U32))])

    def end(self) -> None:
        for _ in self._items:
            raise DecodeError("a message has fields too many")

    def _next(self) -> Any:
        for item in self._items:
            return item
        raise DecodeError("a message ends early")


class _Kind(NamedTuple):
    message: type[Any]
    flatten: Callable[[Any], list[Any]]
    read: Callable[[_Fields], Any]


def encode(message: Message) -> bytes:
    """Return a message as bytes."""
    number = _NUMBER_OF[type(message)]
    return cbor2.dumps([number, *_KINDS[number].flatten(message)])


def decode_untrusted(data: bytes) -> Message:
    """Return the message that authenticated bytes hold.

    Raises:
        DecodeError: they hold none, or one of an unknown kind, or a field is not what it should be.
    """
    if len(data) > MESSAGE_BYTES_MAX:
        raise DecodeError("a message is too long")
    try:
        items = cbor2.loads(data, max_depth=_NESTING_MAX)
    except Exception as error:  # cbor2 raises several kinds, all of them about these bytes
        raise DecodeError("a message is not CBOR") from error
    if type(items) is not list or not items or type(items[0]) is not int:
        raise DecodeError("a message has no kind")
    kind = _KINDS.get(items[0])
    if kind is None:
        raise DecodeError(f"unknown kind of message: {items[0]}")
    fields = _Fields(iter(items))
    fields.raw()
    message: Message = kind.read(fields)
    fields.end()
    return message


# --- parts of messages ------------------------------------------------------------------------------------


def _flat_address(address: Address) -> list[Any]:
    return [address[0], address[1]]


def _address(fields: _Fields) -> Address:
    host = fields.text()
    try:
        ip_address(host)
    except ValueError:  # the socket would look a name up, or refuse it in ways of its own
        raise DecodeError("an address is not an IP address") from None
    return (host, fields.number(U16))


def _flat_member(member: Member) -> list[Any]:
    return [
        member.node,
        member.incarnation,
        int(member.state),
        *_flat_address(member.address),
        member.name,
        member.host,
    ]


def _node(fields: _Fields) -> NodeId:
    return fields.octets(NODE_ID_BYTES)


def _member(fields: _Fields) -> Member:
    return Member(
        _node(fields),
        fields.number(U32),
        MemberState(fields.number(MemberState.LEFT)),
        _address(fields),
        fields.text(),
        fields.text(),
    )


def _flat_members(members: tuple[Member, ...]) -> list[Any]:
    return [len(members), *[field for member in members for field in _flat_member(member)]]


def _hash_bytes(state_hash: int) -> bytes:
    return state_hash.to_bytes(HASH_BYTES, "big")


def _hash(fields: _Fields) -> int:
    return int.from_bytes(fields.octets(HASH_BYTES), "big")


def _sid(fields: _Fields) -> Sid:
    return fields.octets(SID_BYTES)


def _flat_gaps(gaps: tuple[Gap, ...]) -> list[Any]:
    flat: list[Any] = [len(gaps)]
    for gap in gaps:
        claims = None if gap.claims is None else packed_claims(gap.claims)
        flat += [gap.sid, claims, _hash_bytes(gap.state_hash)]
    return flat


def _gap(fields: _Fields) -> Gap:
    sid = _sid(fields)
    claims = fields.raw()
    return Gap(sid, None if claims is None else claims_from_untrusted(claims), _hash(fields))


# --- kinds ------------------------------------------------------------------------------------------------

_KINDS: Final[dict[int, _Kind]] = {
    1: _Kind(
        Ping,
        lambda m: [m.sequence, m.target, *_flat_members(m.updates), m.view, m.digest],
        lambda f: Ping(f.number(U32), _node(f), f.many(_member), f.number(U32), f.number(U64)),
    ),
    2: _Kind(
        ProbeAck,
        lambda m: [m.sequence, *_flat_members(m.updates), m.view, m.digest],
        lambda f: ProbeAck(f.number(U32), f.many(_member), f.number(U32), f.number(U64)),
    ),
    3: _Kind(
        PingRequest,
        lambda m: [m.sequence, m.target, *_flat_address(m.address), *_flat_members(m.updates)],
        lambda f: PingRequest(f.number(U32), _node(f), _address(f), f.many(_member)),
    ),
    4: _Kind(Nack, lambda m: [m.sequence], lambda f: Nack(f.number(U32))),
    5: _Kind(WrongId, lambda m: [m.sequence, m.asked], lambda f: WrongId(f.number(U32), _node(f))),
    6: _Kind(Gossip, lambda m: _flat_members(m.updates), lambda f: Gossip(f.many(_member))),
    7: _Kind(Beacon, lambda m: [m.port, m.reply], lambda f: Beacon(f.number(U16), f.flag())),
    16: _Kind(
        Hello,
        lambda m: [*_flat_member(m.member), m.clock, *_flat_members(m.members)],
        lambda f: Hello(_member(f), f.number(U64), f.many(_member)),
    ),
    17: _Kind(
        Push,
        lambda m: [m.sequence, flatten_deltas(m.deltas)],
        lambda f: Push(f.number(U64), deltas_from_untrusted(f.raw())),
    ),
    18: _Kind(
        PushAck,
        lambda m: [m.sequence, *_flat_gaps(m.gaps), len(m.over), *m.over],
        lambda f: PushAck(f.number(U64), f.many(_gap), f.many(_sid)),
    ),
    19: _Kind(
        Pull,
        lambda m: [m.request, *_flat_gaps(m.wanted)],
        lambda f: Pull(f.number(U64), f.many(_gap)),
    ),
    20: _Kind(
        PullAnswer,
        lambda m: [m.request, m.held, m.synced],
        lambda f: PullAnswer(f.number(U64), f.flag(), f.flag()),
    ),
    21: _Kind(
        SyncAsk,
        lambda m: [
            m.round,
            m.start,
            m.stop,
            len(m.sums),
            *[field for p, total in m.sums for field in (p, _hash_bytes(total))],
        ],
        lambda f: _sync_ask(f),
    ),
    22: _Kind(
        SyncPage,
        lambda m: [
            m.round,
            m.resume,
            m.synced,
            len(m.sessions),
            *[field for sid, state_hash in m.sessions for field in (sid, _hash_bytes(state_hash))],
        ],
        lambda f: _sync_page(f),
    ),
    23: _Kind(
        Touch,
        lambda m: [m.sequence, len(m.accesses), *[field for access in m.accesses for field in access]],
        lambda f: Touch(f.number(U64), f.many(lambda each: (_sid(each), each.number(U64)))),
    ),
    24: _Kind(Bye, lambda m: [], lambda f: Bye()),
    25: _Kind(TouchAck, lambda m: [m.sequence], lambda f: TouchAck(f.number(U64))),
}
_NUMBER_OF: Final = {kind.message: number for number, kind in _KINDS.items()}


def _sync_ask(fields: _Fields) -> SyncAsk:
    sync_round, start, stop = fields.number(U32), fields.number(PARTITIONS), fields.number(PARTITIONS)
    sums = fields.many(lambda each: (each.number(PARTITIONS - 1), _hash(each)))
    return SyncAsk(sync_round, start, sums, stop)


def _sync_page(fields: _Fields) -> SyncPage:
    sync_round, resume, synced = fields.number(U32), fields.number(PARTITIONS), fields.flag()
    sessions = fields.many(lambda each: (_sid(each), _hash(each)))
    return SyncPage(sync_round, resume, sessions, synced)
