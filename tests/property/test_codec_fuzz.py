"""The codec: what is said is what is heard, and bytes that say nothing are a DecodeError in bounded memory."""

import tracemalloc
from typing import get_args

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossipsess.errors import DecodeError
from gossipsess.model.delta import Delta
from gossipsess.model.digest import EVERYTHING, GROUPS, LEAVES, PARTITIONS, SUM_MASK, leaves_in
from gossipsess.model.member import Member, MemberState, Told
from gossipsess.model.rules import CountBy, Rules
from gossipsess.wire.codec import OFFERED_MAX, U16, U32, U64, decode_untrusted, encode
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

nodes = st.binary(min_size=8, max_size=8)
sids = st.binary(min_size=16, max_size=16)
u16, u32, u64 = st.integers(0, U16), st.integers(0, U32), st.integers(0, U64)
u48 = st.integers(0, SUM_MASK)
hashes = st.integers(0, 2**128 - 1)
stamps = st.integers(1, U64)
claims = st.dictionaries(nodes, u64, max_size=16)
addresses = st.tuples(st.ip_addresses().map(str), u16)
texts = st.text(max_size=20)
members = st.builds(Member, nodes, u32, st.sampled_from(MemberState), addresses, texts, texts, texts, st.booleans())
lists = st.lists(st.builds(Told, members, u32, u32), max_size=4).map(tuple)
rules = st.builds(Rules, u32, u32, st.sampled_from(get_args(CountBy)))
gaps = st.builds(Gap, sids, st.none() | claims, hashes)
entries = st.lists(st.tuples(st.text(max_size=5), u64, nodes, st.none() | st.binary(max_size=20)), max_size=4).map(
    tuple
)
deltas = st.one_of(
    st.builds(lambda sid, base, after, h, e: Delta(sid, base, 0, after, h, e), sids, claims, claims, hashes, entries),
    st.builds(
        lambda sid, base, after, h, e: Delta(sid, None, base, after, h, e), sids, hashes, claims, hashes, entries
    ),
    st.builds(lambda sid, h, stamp: Delta(sid, {}, 0, {}, h, (), stamp), sids, hashes, stamps),
)

sums = st.lists(u48, min_size=3, max_size=3).map(lambda some: tuple(some) + (0,) * (GROUPS - 3))
group_sums = st.integers(0, GROUPS - 1).flatmap(
    lambda group: st.tuples(st.just(group), u48.map(lambda one: (one,) * leaves_in(group)))
)


def several(strategy):
    return st.lists(strategy, max_size=4).map(tuple)


KINDS = {
    Ping: st.builds(Ping, u32, nodes, several(members), u32, u64),
    ProbeAck: st.builds(ProbeAck, u32, several(members), u32, u64),
    PingRequest: st.builds(PingRequest, u32, nodes, addresses, several(members)),
    Nack: st.builds(Nack, u32),
    WrongId: st.builds(WrongId, u32, nodes),
    Gossip: st.builds(Gossip, several(members)),
    Beacon: st.builds(Beacon, u16, st.booleans()),
    Hello: st.builds(Hello, members, u64, lists, u64, rules),
    Members: st.builds(Members, lists, st.booleans()),
    Push: st.builds(Push, u64, several(deltas)),
    PushAck: st.builds(PushAck, u64, several(gaps), several(sids)),
    Pull: st.builds(Pull, u64, several(gaps)),
    PullAnswer: st.builds(PullAnswer, u64, st.booleans(), st.booleans()),
    SyncAsk: st.builds(SyncAsk, u32, sums, st.just(EVERYTHING) | st.integers(0, EVERYTHING)),
    SyncSums: st.builds(SyncSums, u32, several(group_sums), st.booleans()),
    SyncList: st.builds(SyncList, u32, several(st.integers(0, LEAVES - 1))),
    SyncPage: st.builds(SyncPage, u32, st.integers(0, LEAVES), several(st.tuples(sids, u48)), st.booleans()),
    Have: st.builds(Have, u32, st.integers(0, PARTITIONS - 1), several(gaps)),
    Held: st.builds(Held, u32, st.booleans(), several(gaps)),
    Touch: st.builds(Touch, u64, several(st.tuples(sids, u64))),
    TouchAck: st.builds(TouchAck, u64),
    Bye: st.builds(Bye, u32),
}
messages = st.one_of(*KINDS.values())


def message_or_decode_error(data: bytes) -> Message | None:
    try:
        return decode_untrusted(data)
    except DecodeError:
        return None


def kinds_of(union: object) -> list[type]:
    parts = get_args(union)
    return [kind for part in parts for kind in kinds_of(part)] if parts else [union]


def test_every_kind_of_message_is_drawn_below():
    """A kind that no test draws is one whose form nobody checks."""
    assert set(kinds_of(Message)) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@given(data=st.data())
@settings(max_examples=40)
def test_what_is_said_is_what_is_heard(kind, data):
    """Field for field, and of the same kind: a swapped pair of numbers would be understood, wrongly."""
    message = data.draw(KINDS[kind])
    heard = decode_untrusted(encode(message))
    assert type(heard) is kind
    assert heard == message


@given(st.binary(max_size=300))
def test_random_bytes_are_a_decode_error(data):
    """Anything else that is raised ends the link's task, or the node."""
    message_or_decode_error(data)


@given(messages, st.data())
def test_a_damaged_message_is_another_message_or_a_decode_error(message, data):
    """A peer of another version is authenticated, and says things that are nearly right."""
    encoded = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    message_or_decode_error(bytes(encoded))


@given(messages, st.data())
def test_a_message_cut_short_is_a_decode_error(message, data):
    """Taken for complete, it would carry half a push, whose claims are then false."""
    encoded = encode(message)
    cut = data.draw(st.integers(0, len(encoded) - 1))
    assert message_or_decode_error(encoded[:cut]) is None


items = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.binary(max_size=40)
    | st.text(max_size=9),
    lambda children: st.lists(children, max_size=4),
    max_leaves=12,
)


@given(st.integers(0, 30), st.lists(items, max_size=12))
def test_fields_of_the_wrong_type_are_a_decode_error(number, fields):
    """Well-formed CBOR under a known kind gets past the parser; only the field checks stand behind it."""
    message = message_or_decode_error(cbor2.dumps([number, *fields]))
    if message is not None:
        assert message_or_decode_error(encode(message)) == message


leaves = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.binary(max_size=40) | st.text(max_size=9)


@given(messages, st.lists(leaves | st.lists(leaves), min_size=1, max_size=3))
def test_fields_after_the_known_ones_change_nothing(message, surplus):
    """What a newer version adds at the end of a message must neither refuse it nor shift into its other fields."""
    longer = cbor2.dumps([*cbor2.loads(encode(message)), *surplus])
    assert message_or_decode_error(longer) == message


@pytest.mark.parametrize("host", ["localhost", "shop.example", "a" * 64 + ".x", "1.2.3", "", "1.2.3.4\0"])
def test_a_member_elsewhere_than_at_an_ip_address_is_refused(host):
    """The socket would look a name up, which blocks, or refuse it with an error that nobody expects there."""
    member = Member(b"n" * 8, 0, MemberState.ALIVE, (host, 7950), "n", "h")
    assert message_or_decode_error(encode(Gossip((member,)))) is None


@pytest.mark.parametrize(
    "data",
    [
        b"\x9b" + b"\xff" * 8,  # an array said to hold 2**64 - 1 items
        b"\x82\x11\x9b\x00\x00\x00\x00\xff\xff\xff\xff",  # the same, as the deltas of a push
        b"\x82\x11\x5b\x00\x00\x00\x7f\xff\xff\xff\xff",  # a byte string of half a terabyte
        cbor2.dumps([6, U32]),  # a gossip of 4 billion members
        b"\x81" * 60_000,  # arrays in arrays
        b"\x82\x11\x99\xea\x60" + b"\x80" * 60_000,  # many tiny items
        b"\xd8\x1c" * 30_000 + b"\x00",  # tags on tags
    ],
    ids=["array", "deltas", "bytes", "count", "nested", "tiny", "tags"],
)
def test_sizes_that_are_only_claimed_cost_no_memory(data):
    """What a message may make a node hold is bounded by its length, not by the numbers in it."""
    tracemalloc.start()
    try:
        assert message_or_decode_error(data) is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * 1024 * 1024


def test_a_message_over_the_bound_is_refused_before_it_is_parsed():
    """The parse is what costs; a frame joiner that let more through must not be the only guard."""
    with pytest.raises(DecodeError, match="too long"):
        decode_untrusted(b"\x00" * (MESSAGE_BYTES_MAX + 1))


@pytest.mark.parametrize(
    "message",
    [
        Have(1, PARTITIONS - 1 + 1, ()),
        Have(1, 0, (Gap(b"s" * 16, {}, 0),) * (OFFERED_MAX + 1)),
        Held(1, True, (Gap(b"s" * 16, {}, 0),) * (OFFERED_MAX + 1)),
    ],
    ids=["no such partition", "too many named", "too many lacking"],
)
def test_an_offer_out_of_bounds_is_refused(message):
    """Each session named costs a look; and a partition that does not exist has no holders to ask placement for."""
    assert message_or_decode_error(encode(message)) is None
