# Adoption: a session that a client has kept itself until now, in a cookie that its web framework signed
# or sealed. "Signature" stands for both here.
#
# In:    the cookie's name (its signature, by which it is known again), when it was signed, what it holds.
# Out:   the deltas of a session with that data, and of the mark that the cookie was adopted.
# Rule:  everything in them follows from the cookie: the stamp is the time of its signature, the origin a hash of its
#        name. So nodes to which the same cookie comes at the same moment make equal records of it, and what a request
#        writes afterwards is later than that on every node. A page with ten images, each asked of another node, is one
#        session, and no adoption undoes a write.
#        And a revocation of the user that came after the signature ends the session, as it does all that is older.
# The mark outlives the session, and any tombstone: as long as the cookie would be valid. Where it is and the session
#        is not, the session has ended; without it, whoever kept a copy of the cookie could log in once more.
# Why a hash of the name as origin and not this node's id: it claims nothing but this one write, wherever it is made.
#        (Nodes whose settings differ, in the midst of their change, may note other timeouts under one stamp.)
# Not here: the id of such a session, which only the cluster can compute (tokens.py); whether a cookie is authentic
#        (web/adoption.py).

from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

from gossipsess.model.clock import stamp_at
from gossipsess.model.delta import Delta
from gossipsess.model.identity import NODE_ID_BYTES, SID_BYTES, Sid

_PERSON: Final = b"gossipsess adopt"
_MARK: Final = b"mark"


def mark_sid(name: bytes) -> Sid:
    """Return the sid of the mark that the cookie of this name was adopted; no session has it."""
    return blake2b(name, digest_size=SID_BYTES - len(_MARK), person=_PERSON).digest() + _MARK


def is_mark_sid(sid: Sid) -> bool:
    """Say whether a sid is a mark's. True for one session in four billion too, which then is not told of."""
    return sid.endswith(_MARK)


def adopted(
    sid: Sid, changes: Iterable[tuple[str, bytes | None]], name: bytes, signed_ms: int, accessed_ms: int
) -> Delta:
    """Return what makes a record of a cookie; times are Unix milliseconds."""
    stamp, origin = stamp_at(signed_ms), blake2b(name, digest_size=NODE_ID_BYTES, person=_PERSON).digest()
    entries = tuple((key, stamp, origin, value) for key, value in changes)
    return Delta(sid, {}, 0, {origin: stamp}, 0, entries, accessed_ms=accessed_ms)
