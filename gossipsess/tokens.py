# Version token: what a client has seen of its session, so that any replica can serve it no less.
#
# Text:  dot... | mac in hexadecimal, a dot being origin (8 bytes) and stamp (8 bytes), one or two of them.
# It is bound to the session and authenticated: unsigned, anybody could make replicas search for writes that never
# were. A token that is damaged, too old or another session's counts as none; it never refuses a request.
# At most two dots: what the request still missed, then what it wrote. Ten minutes is as long as claims live.

from binascii import unhexlify
from hashlib import blake2b
from hmac import compare_digest
from struct import Struct
from typing import Final

from gossipsess.model.clock import COUNTER_BITS, Stamp, time_ms_of
from gossipsess.model.identity import Sid
from gossipsess.protocol.events import Dot

TOKEN_AGE_MS: Final = 600_000
DOTS_MAX: Final = 2
_MAC_BYTES: Final = 8
_DOT = Struct(">8sQ")
_CHARACTERS: Final = (48, 80)  # of a token of one dot, and of two
TOKEN_CHARACTERS_MAX: Final = max(_CHARACTERS)


class Tokens:
    """Makes and reads version tokens under one cluster's key (and reads those of former keys)."""

    def __init__(self, keys: tuple[bytes, ...]) -> None:
        self._keys = keys
        # Each has taken in its key: a copy of it costs half of what keying one anew does.
        self._keyed = tuple([blake2b(key=key, digest_size=_MAC_BYTES) for key in keys])

    def make(self, sid: Sid, dots: tuple[Dot, ...]) -> str:
        """Return the token that names these writes; the last `DOTS_MAX` of them."""
        # One dot is what nearly all have, and each write asks.
        body = _DOT.pack(*dots[0]) if len(dots) == 1 else b"".join([_DOT.pack(*dot) for dot in dots[-DOTS_MAX:]])
        return (body + _mac(self._keyed[0], sid, body)).hex()

    def read_untrusted(self, sid: Sid, token: str) -> tuple[Dot, ...]:
        """Return the writes that a client's token names, however old; none for a token that proves nothing."""
        if len(token) not in _CHARACTERS:
            return ()
        try:
            data = unhexlify(token)
        except ValueError:
            return ()
        body, mac = data[:-_MAC_BYTES], data[-_MAC_BYTES:]
        for keyed in self._keyed:
            if compare_digest(mac, _mac(keyed, sid, body)):
                return tuple(_DOT.iter_unpack(body))
        return ()

    def derived(self, name: bytes) -> tuple[bytes, ...]:
        """Return 32 bytes that follow from `name`, and that only a node of the cluster can compute; under each key."""
        return tuple([blake2b(name, key=key, person=b"gossipsess name", digest_size=32).digest() for key in self._keys])


def recent(dots: tuple[Dot, ...], time_ms: int) -> tuple[Dot, ...]:
    """Return those of a token's writes that are young enough to ask for, now being cluster time `time_ms`."""
    oldest = (time_ms - TOKEN_AGE_MS) << COUNTER_BITS
    for _, stamp in dots:  # each request asks, and seldom is any too old
        if stamp <= oldest:
            return tuple([dot for dot in dots if dot[1] > oldest])
    return dots


def too_old_ms(stamp: Stamp) -> int:
    """Return from when on `recent` leaves out the write of this stamp, cluster time, milliseconds."""
    return time_ms_of(stamp) + TOKEN_AGE_MS + 1


def _mac(keyed: blake2b, sid: Sid, body: bytes) -> bytes:
    mac = keyed.copy()
    mac.update(sid + body)
    return mac.digest()
