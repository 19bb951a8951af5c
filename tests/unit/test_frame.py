# Frames: the bounds, and who is refused at which byte. Arbitrary cuts are in tests/property/test_sealing.py.

import pytest

from gossipsess.errors import DecodeError, SealError
from gossipsess.wire.frame import (
    FRAME_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    PIECE_BYTES_MAX,
    TAG_BYTES,
    FrameCutter,
    MessageJoiner,
    split,
)


def frame(length: int) -> bytes:
    return length.to_bytes(4, "big") + bytes(length)


@pytest.mark.parametrize(
    ("size", "frames"),
    [
        (0, 1),
        (1, 1),
        (PIECE_BYTES_MAX, 1),
        (PIECE_BYTES_MAX + 1, 2),
        (2 * PIECE_BYTES_MAX, 2),
        (2 * 1024 * 1024, 33),
    ],
)
def test_a_message_takes_as_few_frames_as_its_size_allows(size, frames):
    """The sizes around a boundary are where a piece gets lost or an empty one is sent."""
    message = bytes(range(256)) * (size // 256) + bytes(size % 256)
    bodies = list(split(message))
    assert len(bodies) == frames
    assert max(len(body) for body in bodies) + TAG_BYTES <= FRAME_BYTES_MAX
    joiner = MessageJoiner()
    assert [joiner.add_untrusted(body) for body in bodies] == [None] * (frames - 1) + [message]


def test_a_message_over_the_bound_is_never_sent():
    """Every peer would close the link on it, again and again; the mistake is the sender's."""
    with pytest.raises(AssertionError):
        list(split(bytes(MESSAGE_BYTES_MAX + 1)))


def test_a_peer_cannot_make_a_node_hold_more_than_one_largest_message():
    """A broken peer that never sends a last piece must not fill the memory of the application."""
    joiner = MessageJoiner()
    full, over = divmod(MESSAGE_BYTES_MAX, PIECE_BYTES_MAX)
    for _ in range(full):
        assert joiner.add_untrusted(b"\0" + bytes(PIECE_BYTES_MAX)) is None
    assert joiner.add_untrusted(b"\0" + bytes(over)) is None
    for mark in (b"\0", b"\1"):
        with pytest.raises(DecodeError):
            joiner.add_untrusted(mark + b"x")


@pytest.mark.parametrize("body", [b"", b"\2rest", b"\xff"])
def test_an_unknown_mark_is_refused(body):
    """A later version may give it a meaning; guessing one would join wrong messages."""
    with pytest.raises(DecodeError):
        MessageJoiner().add_untrusted(body)


@pytest.mark.parametrize("length", [0, TAG_BYTES, FRAME_BYTES_MAX + 1, 2**32 - 1])
def test_an_impossible_length_is_refused_with_its_fourth_byte(length):
    """Four bytes from a stranger must not reserve 4 GiB, nor keep a connection waiting for them."""
    prefix = length.to_bytes(4, "big")
    cutter = FrameCutter()
    for byte in prefix[:3]:
        assert cutter.feed_untrusted(bytes([byte])) == []
    with pytest.raises(SealError):
        cutter.feed_untrusted(prefix[3:])
    with pytest.raises(SealError):
        FrameCutter().feed_untrusted(frame(100) + prefix)


@pytest.mark.parametrize("length", [TAG_BYTES + 1, FRAME_BYTES_MAX])
def test_the_smallest_and_the_largest_frame_pass(length):
    """The bounds themselves are in use: an empty message, and every piece of a large one but the last."""
    assert FrameCutter().feed_untrusted(frame(length)) == [frame(length)]


def test_a_refused_stream_stays_refused():
    """A caller that reads on after the error gets it again, and no fault of the buffer."""
    cutter = FrameCutter()
    cutter.feed_untrusted(b"\xff")
    for _ in range(2):
        with pytest.raises(SealError):
            cutter.feed_untrusted(b"\xff\xff\xff")


def test_whole_frames_are_handed_on_without_a_copy():
    """The hot path is one read with whole frames: the views look into the very bytes that were read."""
    data = frame(100) + frame(200)
    assert all(view.obj is data for view in FrameCutter().feed_untrusted(data))
