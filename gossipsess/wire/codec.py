# Codec: messages as bytes, and back.
#
# A message is one flat CBOR array: its kind, then its fields. Every field is checked for type and range before a
# message is made of it: the bytes are authenticated by then, but a peer may be of another version, or broken.
# Versions: a message of an unknown kind is none at all, and fields after the known ones are passed over. So a newer
# node may say more than an older one understands, while a cluster is being updated. What an older node must not
# misread, say a field that changes its meaning, comes with a new protocol version (crypto.py).
#
# Deltas have a form of their own (delta_codec.py), since there are thousands a second of them.

from collections.abc import Callable, Iterable, Iterator
from ipaddress import ip_address
from struct import Struct
from typing import Any, Final, NamedTuple, TypeVar

import cbor2

from gossipsess.errors import DecodeError
from gossipsess.model.digest import EVERYTHING, GROUPS, LEAVES, PARTITIONS, SUM_BYTES, leaves_in
from gossipsess.model.identity import NODE_ID_BYTES, SID_BYTES, NodeId, Sid
from gossipsess.model.member import Address, Member, MemberState, Told
from gossipsess.model.rules import Rules
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
    Have,
    Held,
    Hello,
    Members,
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
    SyncList,
    SyncPage,
    SyncSums,
    Touch,
    TouchAck,
    WrongId,
)

TEXT_CHARACTERS_MAX: Final = 255
OFFERED_MAX: Final = 1024
"""Sessions named in one `Have` or `Held`. Each costs the answerer a look; askers of this version name 256."""
U16: Final = 2**16 - 1
U32: Final = 2**32 - 1
U64: Final = 2**64 - 1
HASH_BYTES: Final = 16
SCOPE_BYTES: Final = -(-EVERYTHING.bit_length() // 8)
_LEAF: Final = Struct(">H")
_LISTED: Final = Struct(f">{SID_BYTES}s{SUM_BYTES}s")
_NESTING_MAX: Final = 4
"""Arrays in arrays, fields of newer versions included."""

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

    def many(self, read: Callable[["_Fields"], T], most: int = U32) -> tuple[T, ...]:
        """Read a counted repetition: a count above what is there fails at the first missing field."""
        return tuple([read(self) for _ in range(self.number(most))])

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


def decode_untrusted(data: bytes) -> Message | None:
    """Return the message that authenticated bytes hold; None where it is of a kind that only newer versions know.

    Raises:
        DecodeError: they hold none, or a field is not what it should be.
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
        return None
    fields = _Fields(iter(items))
    fields.raw()
    message: Message = kind.read(fields)
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
    if not host.isprintable():  # the scope of an IPv6 address may be any text, for ip_address
        raise DecodeError("an address is not an IP address")
    return (host, fields.number(U16))


def _flat_member(member: Member) -> list[Any]:
    return [
        member.node,
        member.incarnation,
        int(member.state),
        *_flat_address(member.address),
        member.name,
        member.host,
        member.zone,
        member.leaving,
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
        fields.text(),
        fields.flag(),
    )


def _flat_members(members: tuple[Member, ...]) -> list[Any]:
    return [len(members), *[field for member in members for field in _flat_member(member)]]


def _told(fields: _Fields) -> Told:
    return Told(_member(fields), fields.number(U32), fields.number(U32))


def _flat_list(members: tuple[Told, ...]) -> list[Any]:
    fields = [field for one in members for field in (*_flat_member(one.member), one.ended_s, one.apart_s)]
    return [len(members), *fields]


def _flat_rules(rules: Rules) -> list[Any]:
    return [rules.all_to_all_below, rules.secondaries, rules.count_by == "host"]


def _rules(fields: _Fields) -> Rules:
    return Rules(fields.number(U32), fields.number(U32), "host" if fields.flag() else "node")


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


def _packed_sums(sums: Iterable[int]) -> bytes:
    return b"".join([total.to_bytes(SUM_BYTES, "big") for total in sums])


def _sums(fields: _Fields, count: int) -> tuple[int, ...]:
    packed = fields.octets(count * SUM_BYTES)
    return tuple([int.from_bytes(packed[at : at + SUM_BYTES], "big") for at in range(0, len(packed), SUM_BYTES)])


def _packed_scope(scope: int) -> bytes:
    return b"" if scope == EVERYTHING else scope.to_bytes(SCOPE_BYTES, "little")


def _scope(fields: _Fields) -> int:
    packed = fields.raw()
    if packed == b"":
        return EVERYTHING
    if type(packed) is not bytes or len(packed) != SCOPE_BYTES:
        raise DecodeError("a scope is missing or of another size")
    scope = int.from_bytes(packed, "little")
    if scope > EVERYTHING:
        raise DecodeError("a scope has partitions that do not exist")
    return scope


def _packed(form: Struct, rows: Iterable[tuple[Any, ...]]) -> bytes:
    return b"".join([form.pack(*row) for row in rows])


def _unpacked(fields: _Fields, form: Struct, most: int) -> Iterator[tuple[Any, ...]]:
    packed = fields.raw()
    if type(packed) is not bytes or len(packed) % form.size or len(packed) > most * form.size:
        raise DecodeError("a packed list is missing, not whole, or too long")
    return form.iter_unpack(packed)


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
        lambda m: [*_flat_member(m.member), m.clock, *_flat_list(m.members), m.since_ms, *_flat_rules(m.rules)],
        lambda f: Hello(_member(f), f.number(U64), f.many(_told), f.number(U64), _rules(f)),
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
        lambda m: [m.round, _packed_sums(m.groups), _packed_scope(m.scope)],
        lambda f: SyncAsk(f.number(U32), _sums(f, GROUPS), _scope(f)),
    ),
    22: _Kind(
        SyncPage,
        lambda m: [
            m.round,
            m.answered,
            m.synced,
            _packed(_LISTED, [(sid, state_hash.to_bytes(SUM_BYTES, "big")) for sid, state_hash in m.sessions]),
        ],
        lambda f: _sync_page(f),
    ),
    23: _Kind(
        Touch,
        lambda m: [m.sequence, len(m.accesses), *[field for access in m.accesses for field in access]],
        lambda f: Touch(f.number(U64), f.many(lambda each: (_sid(each), each.number(U64)))),
    ),
    24: _Kind(Bye, lambda m: [m.incarnation], lambda f: Bye(f.number(U32))),
    25: _Kind(
        SyncSums,
        lambda m: [
            m.round,
            m.synced,
            len(m.groups),
            *[field for group, sums in m.groups for field in (group, _packed_sums(sums))],
        ],
        lambda f: _sync_sums(f),
    ),
    26: _Kind(
        SyncList,
        lambda m: [m.round, _packed(_LEAF, [(leaf,) for leaf in m.leaves])],
        lambda f: _sync_list(f),
    ),
    27: _Kind(TouchAck, lambda m: [m.sequence], lambda f: TouchAck(f.number(U64))),
    28: _Kind(
        Have,
        lambda m: [m.round, m.partition, *_flat_gaps(m.records)],
        lambda f: Have(f.number(U32), f.number(PARTITIONS - 1), f.many(_gap, OFFERED_MAX)),
    ),
    29: _Kind(
        Held,
        lambda m: [m.round, m.holder, *_flat_gaps(m.lacking)],
        lambda f: Held(f.number(U32), f.flag(), f.many(_gap, OFFERED_MAX)),
    ),
    30: _Kind(
        Members,
        lambda m: [*_flat_list(m.members), m.reply],
        lambda f: Members(f.many(_told), f.flag()),
    ),
}
_NUMBER_OF: Final = {kind.message: number for number, kind in _KINDS.items()}


def _sync_sums(fields: _Fields) -> SyncSums:
    sync_round, synced = fields.number(U32), fields.flag()
    return SyncSums(sync_round, fields.many(_group_sums, most=GROUPS), synced)


def _group_sums(fields: _Fields) -> tuple[int, tuple[int, ...]]:
    group = fields.number(GROUPS - 1)
    return group, _sums(fields, leaves_in(group))


def _sync_list(fields: _Fields) -> SyncList:
    sync_round = fields.number(U32)
    leaves = tuple([leaf for (leaf,) in _unpacked(fields, _LEAF, LEAVES)])
    if any(leaf >= LEAVES for leaf in leaves):
        raise DecodeError("there is no such leaf")
    return SyncList(sync_round, leaves)


def _sync_page(fields: _Fields) -> SyncPage:
    sync_round, answered, synced = fields.number(U32), fields.number(LEAVES), fields.flag()
    listed = _unpacked(fields, _LISTED, MESSAGE_BYTES_MAX)
    sessions = tuple([(sid, int.from_bytes(state_hash, "big")) for sid, state_hash in listed])
    return SyncPage(sync_round, answered, sessions, synced)
