# Sealing under arbitrary input: streams cut anywhere, bytes of anyone, the replay window against a plain set.

from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from gossipsess.errors import WireError
from gossipsess.wire.crypto import (
    GREETING_BYTES,
    REPLAY_WINDOW,
    DatagramOpener,
    DatagramSealer,
    FrameOpener,
    FrameSealer,
    LinkHandshake,
    ReplayWindow,
)
from gossipsess.wire.frame import PIECE_BYTES_MAX
from gossipsess.wire.keyring import Keyring

RING = Keyring.from_secrets("shop", "the-secret-of-the-shop")
KEY = bytes(32)

messages = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.integers(PIECE_BYTES_MAX - 2, PIECE_BYTES_MAX + 2).map(bytes),
        st.integers(2 * PIECE_BYTES_MAX, 2 * PIECE_BYTES_MAX + 1).map(bytes),
    ),
    max_size=5,
)
# Small steps around the newest counter, the window's edge, and leaps that empty it.
steps = st.one_of(
    st.integers(-3, 3),
    st.integers(-REPLAY_WINDOW - 2, -REPLAY_WINDOW + 2),
    st.integers(REPLAY_WINDOW - 2, REPLAY_WINDOW + 2),
    st.integers(-2 * REPLAY_WINDOW, 2 * REPLAY_WINDOW),
    st.just(2**40),
)


@given(st.lists(steps, max_size=60))
@settings(deadline=None)
def test_the_replay_window_answers_as_a_set_of_all_counters_would(moves):
    """The bitmap is the fast version; the set is the one that is obviously right."""
    window, seen, newest = ReplayWindow(), set(), 0
    for move in moves:
        counter = max(0, newest + move)
        expected = counter not in seen and counter > max(seen, default=-1) - REPLAY_WINDOW
        assert window.take(counter) is expected
        if expected:
            seen.add(counter)
        newest = max(newest, counter)


@given(messages, st.data())
@settings(deadline=None)
def test_messages_come_out_whole_and_in_order_however_the_stream_is_cut(sent, data):
    """TCP keeps the order of bytes and nothing else."""
    sealer, opener = FrameSealer(KEY), FrameOpener(KEY)
    stream = b"".join(sealer.seal(message) for message in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20), label="cuts"))
    received = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        received += opener.feed_untrusted(stream[start:end])
    assert received == sent


@given(st.lists(st.binary(max_size=40), max_size=5))
@settings(deadline=None)
def test_messages_come_out_with_their_last_byte_when_bytes_come_one_by_one(sent):
    """The slowest possible sender; and no message waits for a byte that belongs to the next."""
    sealer, opener = FrameSealer(KEY), FrameOpener(KEY)
    for message in sent:
        stream = sealer.seal(message)
        for byte in stream[:-1]:
            assert opener.feed_untrusted(bytes([byte])) == []
        assert opener.feed_untrusted(stream[-1:]) == [message]


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=10), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_datagrams_open_in_any_order_and_once(bodies, rng):
    """UDP promises neither order nor uniqueness."""
    sealer, opener = DatagramSealer(RING.primary, b"sender.."), DatagramOpener(RING)
    arriving = [(sealer.seal(body), body) for body in bodies] * 2
    rng.shuffle(arriving)
    opened = []
    for data, _ in arriving:
        try:
            opened.append(opener.open_untrusted(data)[1])
        except WireError:
            continue
    assert sorted(opened) == sorted(bodies)


@given(st.binary(max_size=1300), st.booleans())
@settings(deadline=None)
def test_bytes_from_anyone_raise_nothing_but_wire_errors(data, looks_right):
    """The receive loops catch WireError and nothing else: any other exception would stop the node."""
    if looks_right:  # far enough to reach what lies behind version, magic and key id
        datagram = b"\1" + RING.primary.key_id + data
        greeting = (b"GSES\1\1" + RING.primary.key_id + data).ljust(GREETING_BYTES, b"\0")[:GREETING_BYTES]
        stream = len(data).to_bytes(4, "big") + data
    else:
        datagram = greeting = stream = data
    with suppress(WireError):
        assert not DatagramOpener(RING).open_untrusted(datagram)
    with suppress(WireError):
        assert not FrameOpener(KEY).feed_untrusted(stream)
    for dialer in (True, False):
        with suppress(WireError):
            LinkHandshake(RING, b"me......", bytes(16), dialer=dialer).receive_untrusted(greeting)
