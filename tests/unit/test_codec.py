"""The codec's refusals, one by one, and what a message costs on the wire."""

import cbor2
import pytest

from gossipsess.errors import DecodeError
from gossipsess.model.delta import changes_since, not_covered
from gossipsess.model.digest import GROUPS, LEAVES, SUM_MASK, leaves_in
from gossipsess.model.record import CLAIMS_MAX, dead_record
from gossipsess.wire.codec import TEXT_CHARACTERS_MAX, U32, U64, decode_untrusted, encode
from gossipsess.wire.delta_codec import KEY_CHARACTERS_MAX, VALUE_BYTES_MAX, packed_claims
from gossipsess.wire.frame import PIECE_BYTES_MAX
from gossipsess.wire.messages import Bye, Gossip, Ping, Push, SyncAsk, SyncSums
from tests.unit.machines import ALICE, BOB, SID, member, record, registers, stamp

PING, GOSSIP, BEACON, PUSH, PUSH_ACK = 1, 6, 7, 17, 18
SYNC_ASK, SYNC_PAGE, SYNC_SUMS, SYNC_LIST = 21, 22, 25, 26
LIVE = record((stamp(0), ALICE, registers()))


def refused(*fields) -> str:
    with pytest.raises(DecodeError) as error:
        decode_untrusted(cbor2.dumps(list(fields)))
    return str(error.value)


@pytest.mark.parametrize(
    "data", [b"", b"\x00", b"\xff", cbor2.dumps({}), cbor2.dumps([]), cbor2.dumps(["x"]), cbor2.dumps([True])]
)
def test_what_is_not_a_list_with_a_kind_is_refused(data):
    """The first look, before any field."""
    with pytest.raises(DecodeError):
        decode_untrusted(data)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ((PING, 1, ALICE), "early"),
        ((PING, -1, ALICE, 0), "number"),
        ((PING, 2**32, ALICE, 0), "number"),
        ((PING, True, ALICE, 0), "number"),
        ((PING, 1.0, ALICE, 0), "number"),
        ((PING, 1, ALICE[:-1], 0), "8 bytes"),
        ((PING, 1, ALICE.decode(), 0), "8 bytes"),
        ((PING, 1, ALICE, 1), "early"),
        ((PING, 1, ALICE, 0), "early"),
        ((PING, 1, ALICE, 0, 2**32, 0), "number"),
        ((PING, 1, ALICE, 0, 0, 2**64), "number"),
        ((BEACON, 65536, False), "number"),
        ((BEACON, 1, 0), "flag"),
        ((GOSSIP, 1, ALICE, 0, 4, "10.0.0.1", 1, "n", "h"), "number"),
        ((GOSSIP, 1, ALICE, 0, 0, "10.0.0.1", 1, "n" * (TEXT_CHARACTERS_MAX + 1), "h"), "text"),
        ((GOSSIP, 1, ALICE, 0, 0, b"10.0.0.1", 1, "n", "h"), "text"),
        ((GOSSIP, 1, ALICE, 0, 0, "shop", 1, "n", "h"), "IP address"),
        ((GOSSIP, 1, ALICE, 0, 0, "fe80::1%\0", 1, "n", "h"), "IP address"),
        ((SYNC_ASK, 1, bytes(6 * GROUPS - 1)), "390 bytes"),
        ((SYNC_ASK, 1, bytes(6 * GROUPS)), "early"),
        ((SYNC_ASK, 1, bytes(6 * GROUPS), 0), "scope"),
        ((SYNC_ASK, 1, bytes(6 * GROUPS), ""), "scope"),
        ((SYNC_ASK, 1, bytes(6 * GROUPS), bytes(128)), "another size"),
        ((SYNC_ASK, 1, bytes(6 * GROUPS), bytes(130)), "another size"),
        ((SYNC_ASK, 1, bytes(6 * GROUPS), bytes(128) + b"\x02"), "do not exist"),
        ((SYNC_SUMS, 1, True, GROUPS + 1), "number"),
        ((SYNC_SUMS, 1, True, 1, GROUPS, bytes(384)), "number"),
        ((SYNC_SUMS, 1, True, 1, 0, bytes(378)), "384 bytes"),
        ((SYNC_LIST, 1, bytes(3)), "not whole"),
        ((SYNC_LIST, 1, bytes(2 * LEAVES + 2)), "too long"),
        ((SYNC_LIST, 1, LEAVES.to_bytes(2, "big")), "no such leaf"),
        ((SYNC_PAGE, 1, LEAVES + 1, True, b""), "number"),
        ((SYNC_PAGE, 1, 1, True, bytes(23)), "not whole"),
        ((SYNC_PAGE, 1, 1, True, []), "missing"),
        ((PUSH_ACK, 1, 1, SID, b"x", bytes(16)), "claims"),
        ((PUSH_ACK, 1, 1, SID, [], bytes(16)), "claims"),
        ((PUSH_ACK, 1, 1, SID, bytes(16 * (CLAIMS_MAX + 1)), bytes(16)), "claims"),
        ((PUSH, 1, {}), "no deltas"),
        ((PUSH, 1, ["x"]), "head"),
        ((PUSH, 1, [b"short"]), "head"),
    ],
)
def test_every_field_is_checked(fields, says):
    """The bytes are a member's by then, but it may be of another version, or broken."""
    assert says in refused(*fields)


@pytest.mark.parametrize("number", [0, 8, 99, -1, 2**64])
def test_a_message_of_an_unknown_kind_is_none(number):
    """A newer node may say what this one does not know; refused, it would part a cluster that is being updated."""
    assert decode_untrusted(cbor2.dumps([number, "whatever", [1, 2]])) is None


@pytest.mark.parametrize("message", [Bye(), Ping(1, ALICE), Gossip((member(ALICE),)), Push(1, ())])
def test_fields_of_a_newer_version_are_passed_over(message):
    """They stand after all those that this version knows, and say nothing about them."""
    longer = [*cbor2.loads(encode(message)), 7, "new", [b"x"]]
    assert decode_untrusted(cbor2.dumps(longer)) == message


def flat_push(made=LIVE) -> list:
    return cbor2.loads(encode(Push(1, (not_covered(made, {}),))))


def spoiled(position: int, change) -> list:
    message = flat_push()
    message[2][position] = change(message[2][position])
    return message


FORM, BASE, AFTER, COUNT = 40, 41, 42, 46


def byte(position: int, value: int):
    return lambda head: head[:position] + bytes([value]) + head[position + 1 :]


@pytest.mark.parametrize(
    ("position", "change"),
    [
        pytest.param(0, lambda head: head + b"x", id="longer head"),
        pytest.param(0, lambda head: head[:-1], id="shorter head"),
        pytest.param(0, byte(FORM, 1), id="form: hash"),
        pytest.param(0, byte(FORM, 2), id="form: tombstone"),
        pytest.param(0, byte(FORM, 3), id="unknown form"),
        pytest.param(0, byte(BASE, 1), id="more base claims"),
        pytest.param(0, byte(AFTER, CLAIMS_MAX + 1), id="too many claims"),
        pytest.param(0, byte(COUNT, 99), id="more entries"),
        pytest.param(1, lambda key: b"k", id="key of bytes"),
        pytest.param(1, lambda key: "k" * (KEY_CHARACTERS_MAX + 1), id="long key"),
        pytest.param(2, lambda value: "v", id="value of text"),
        pytest.param(2, lambda value: bytes(VALUE_BYTES_MAX + 1), id="large value"),
    ],
)
def test_a_delta_that_is_not_whole_is_refused(position, change):
    """Half a delta would bring claims to writes that it does not carry."""
    refused(*spoiled(position, change))


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_a_delta_whose_last_entries_are_missing_is_refused(missing):
    """Its head is whole, and says how many there are."""
    message = flat_push()
    del message[2][-missing:]
    refused(*message)


def test_a_tombstone_without_a_stamp_is_refused():
    """Stamp 0 means alive."""
    message = cbor2.loads(encode(Push(1, (not_covered(dead_record(SID, stamp(1)), {}),))))
    message[2][0] = message[2][0][:-8] + bytes(8)
    assert "tombstone" in refused(*message)


def test_a_delta_over_a_hash_comes_back_as_one():
    """The form that is taken where claims were dropped."""
    delta = changes_since(LIVE.written([("a", b"1")], stamp(1), ALICE), LIVE)
    by_hash = delta._replace(base_claims=None, base_hash=LIVE.state_hash)
    assert decode_untrusted(encode(Push(1, (by_hash, delta)))) == Push(1, (by_hash, delta))


def test_a_small_change_is_a_small_message():
    """The usual write: one value of 32 bytes, in a session that two nodes have written."""
    base = LIVE.written([("b", b"2")], stamp(1), BOB)
    delta = changes_since(base.written([("cart", bytes(32))], stamp(2), ALICE), base)
    assert len(encode(Push(1, (delta,)))) <= 190
    assert len(encode(Ping(1, ALICE, view=U32, digest=U64))) <= 28
    assert len(encode(Gossip((member(ALICE),)))) <= 50


def test_the_sums_of_everything_fit_one_frame():
    """A joiner's first answer; in two frames it would stand in the way of more deltas than one push does."""
    groups = tuple((group, (SUM_MASK,) * leaves_in(group)) for group in range(GROUPS))
    assert len(encode(SyncSums(U32, groups, True))) <= PIECE_BYTES_MAX


def test_a_scope_costs_129_bytes_and_everything_costs_none():
    """Every link that comes up begins with one; in a small cluster it is always everything."""
    sums = (SUM_MASK,) * GROUPS
    whole, part = SyncAsk(U32, sums), SyncAsk(U32, sums, 1)
    assert len(encode(part)) == len(encode(whole)) + 129 + 1
    assert [decode_untrusted(encode(ask)) for ask in (whole, part)] == [whole, part]


def test_claims_are_packed_tight():
    """Sixteen bytes each, in every acknowledgement of a gap."""
    assert len(packed_claims({ALICE: 1, BOB: U64})) == 32
