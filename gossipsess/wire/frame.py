# Frames: messages cut into pieces for a link's byte stream, the stream cut back, the pieces joined.
#
#     stream = frame*    frame = length (4 bytes, big endian) | AEAD(mark | piece) | tag (16)
#
# The mark is one byte inside the seal: 0 = more pieces of this message follow, 1 = this is the last.
# Why frames of 64 KiB and not one for each message: a piece is authenticated before the next one is kept, so
#       a stranger makes a node hold one frame at most; only who knows the secret makes it hold a message.
# Why no message number in a piece: a link carries one message after the other.
# Not here: sealing and opening (crypto.py), what a message says (codec.py).

import struct
from collections.abc import Iterator
from typing import Final

from gossipsess.errors import DecodeError, SealError

LENGTH_BYTES: Final = 4
TAG_BYTES: Final = 16

FRAME_BYTES_MAX: Final = 64 * 1024
"""Largest frame, with its tag, without its length: what a stranger's connection can make a node hold."""

MESSAGE_BYTES_MAX: Final = 24 * 1024 * 1024
"""Largest message: the largest record that merging may make, and what surrounds it; also what the link of a peer
that has proved the secret can make a node hold."""

PIECE_BYTES_MAX: Final = FRAME_BYTES_MAX - TAG_BYTES - 1

_FRAME_BYTES_MIN = TAG_BYTES + 1  # an empty message is still a mark and a tag
_MORE = b"\0"
_LAST = b"\1"
_LENGTH = struct.Struct(">I")


def split(message: bytes) -> Iterator[bytes]:
    """Yield the frame bodies, mark and piece, that carry a message of at most MESSAGE_BYTES_MAX."""
    assert len(message) <= MESSAGE_BYTES_MAX, f"a message of {len(message)} bytes; senders cut theirs smaller"
    if len(message) <= PIECE_BYTES_MAX:
        yield _LAST + message
        return
    view = memoryview(message)
    while len(view) > PIECE_BYTES_MAX:
        yield b"".join((_MORE, view[:PIECE_BYTES_MAX]))
        view = view[PIECE_BYTES_MAX:]
    yield b"".join((_LAST, view))


class MessageJoiner:
    """Opened frame bodies in, whole messages out. Holds at most MESSAGE_BYTES_MAX."""

    def __init__(self) -> None:
        self._joined = bytearray()

    def add_untrusted(self, body: bytes) -> bytes | None:
        """Take the next frame body; return the message that it completes, or None.

        Raises:
            DecodeError: an unknown mark, or a message over MESSAGE_BYTES_MAX. The link is to be closed.
        """
        mark = body[:1]
        if mark not in (_MORE, _LAST):
            raise DecodeError(f"frame mark {mark.hex() or 'missing'}")
        if mark == _LAST and not self._joined:
            return body[1:]  # nearly every message; it passes with this one copy
        if len(self._joined) + len(body) - 1 > MESSAGE_BYTES_MAX:
            raise DecodeError(f"a message of more than {MESSAGE_BYTES_MAX} bytes")
        self._joined += memoryview(body)[1:]
        if mark == _MORE:
            return None
        message = bytes(self._joined)
        self._joined = bytearray()
        return message


class FrameCutter:
    """A byte stream in, sealed frames out, however the network has cut the stream up.

    Holds less than one frame between calls. Each byte is copied twice at most, and not at all when frames
    begin and end with the data: a read of one or several whole frames is only looked at.
    """

    def __init__(self) -> None:
        self._rest = bytearray()  # the beginning of a frame whose end has not come yet

    def feed_untrusted(self, data: bytes) -> list[memoryview]:
        """Take what was read; return the frames now complete, each with its length prefix.

        Raises:
            SealError: a length no frame has, refused before the frame is there. The link is to be closed.
        """
        stream: bytes | bytearray = data
        if self._rest:
            self._rest += data
            stream = self._rest
        bounds = []
        start = 0
        while len(stream) - start >= LENGTH_BYTES:
            (length,) = _LENGTH.unpack_from(stream, start)
            if not _FRAME_BYTES_MIN <= length <= FRAME_BYTES_MAX:
                raise SealError(f"a frame of {length} bytes")
            end = start + LENGTH_BYTES + length
            if end > len(stream):
                break
            bounds.append((start, end))
            start = end
        if not bounds and stream is self._rest:
            return []  # grown in place: a new copy for every byte of a slow sender would cost the square
        view = memoryview(stream)
        self._rest = bytearray(view[start:])
        return [view[start:end] for start, end in bounds]
