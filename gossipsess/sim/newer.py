# Newer: what a process of a later version of the protocol says, as far as this one can tell: bytes with more in them.
#
# In:    a message's bytes.    Out: the same with fields after those known here; and a message of an unknown kind.
# Bytes are put together by hand, since only wire/ knows CBOR, and an encoder that could say more than this version's
# messages would be a switch for the simulator alone.

from typing import Final

NEWER_KIND: Final = bytes((0x82, 0x18, 200, 0x63)) + b"new"
"""An array of two: kind 200, and a text."""
_SURPLUS: Final = (b"\x07", b"\x63new", b"\x81\xf5")
"""A number, a text, and an array with a flag."""
_COUNT_BYTES: Final = {24: 1, 25: 2}
"""Of an array's head: how many bytes follow the first, by its low five bits; below 24 they are the count itself."""
_ARRAY_16: Final = 0x99
"""First byte of an array's head whose count follows in 16 bits."""


def newer_form(data: bytes) -> bytes:
    """Return an encoded message as a newer version could send it: with fields after the known ones."""
    low = data[0] & 0x1F
    size = _COUNT_BYTES.get(low, 0)
    count = int.from_bytes(data[1 : 1 + size], "big") if size else low
    return bytes((_ARRAY_16,)) + (count + len(_SURPLUS)).to_bytes(2, "big") + data[1 + size :] + b"".join(_SURPLUS)
