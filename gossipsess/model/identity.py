# Identity: node ids and session ids.
#
# A node id is fresh at each start and after a fork: a reused id would let a node that lost its memory claim
# writes it no longer holds. A session id is made only here, never taken from a client, and leaves the process
# only inside the user's cookie: nodes replicate, log and compare the sid, a one-way hash of it.

import re
from hashlib import blake2b

NodeId = bytes
"""8 random bytes, new at each start of a node; also the `origin` of every write that node makes."""

Sid = bytes
"""16 bytes: BLAKE2b-128 of a session id. The id has 165 random bits, so the hash needs no key."""

NODE_ID_BYTES = 8
SID_BYTES = 16

ID_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
ID_CHARACTERS = 32
_ID_VALUES = len(ID_ALPHABET) ** ID_CHARACTERS
ENTROPY_BYTES = 32
"""Random bytes that `session_id` wants: enough above 165 bits that the modulo's bias is below 2**-90."""


def session_id(entropy: bytes) -> str:
    """Return a session id, 32 characters base36, from `ENTROPY_BYTES` bytes of the system's random source."""
    assert len(entropy) == ENTROPY_BYTES
    number = int.from_bytes(entropy, "big") % _ID_VALUES
    characters = []
    for _ in range(ID_CHARACTERS):
        number, digit = divmod(number, 36)
        characters.append(ID_ALPHABET[digit])
    return "".join(characters)


_ID_FORM = re.compile(r"[0-9a-z]{32}")


def is_session_id(text: str) -> bool:
    """Say whether `text`, which a client sent, has the form of a session id."""
    return _ID_FORM.fullmatch(text) is not None


_BLANK = blake2b(digest_size=SID_BYTES)  # each request asks: a copy costs half of what a new one does


def sid_of(session_id: str) -> Sid:
    """Return the name under which a session is replicated and logged."""
    digest = _BLANK.copy()
    digest.update(session_id.encode("ascii"))
    return digest.digest()


def short(identity: bytes) -> str:
    """Return the first 8 hexadecimal digits of a node id or sid, for logs and pages."""
    return identity[:4].hex()
