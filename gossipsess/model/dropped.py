# Dropped: how far the copies had come that this node dropped, of sessions to which it may have written.
#
# A claim says that everything is here that its origin wrote. A node that dropped a copy with its own writes, gets an
# older one from a holder that is itself behind, and writes to that, would claim what it has lost. So of a dropped copy
# the place (stamp and origin) of each key is kept, without its value; until a copy here has reached all of them, its
# writes are not claimed (`Record.written`).
# Why not the stamp of this node's last write, to be compared with the copy's claim of it: claims are dropped after ten
# minutes. Without one nothing would tell an older copy from the same one, and nothing here could be claimed again.
# Not here: what is dropped (protocol/surplus.py).

from collections.abc import Mapping
from hashlib import blake2b
from struct import Struct
from typing import Final, NamedTuple

from gossipsess.model.clock import Stamp, stamp_at
from gossipsess.model.identity import NodeId, Sid
from gossipsess.model.record import CLAIM_AGE, Entry, Record

BYTES_MAX: Final = 32 * 1024 * 1024
"""What all this may cost: some 70,000 sessions of six keys. Beyond it the one dropped first is forgotten. Who then gets
an older copy of that one and writes to it claims too much; the state hashes will differ, and a sync repairs it."""
OVERHEAD_BYTES: Final = 300
"""What one costs beside its places."""

_PLACE: Final = Struct(">8sQ8s")
"""A key's hash, stamp and origin."""
_NOWHERE: Final = (0, b"")


class Copy(NamedTuple):
    """What is remembered of one copy."""

    places: bytes
    wrote: Stamp
    """This node's newest write known to be in it; 0 where others have replaced them all."""


class Dropped:
    """The dropped copies of one node that are not known to be replaced by others as good."""

    def __init__(self) -> None:
        self.copies: dict[Sid, Copy] = {}
        """The one dropped first comes first."""
        self._bytes = 0

    def note(self, record: Record, myself: NodeId) -> None:
        """Remember a copy that is about to be dropped, together with what the copy here lacked already."""
        before = self.copies.get(record.sid)
        if record.tombstone or (before is None and not record.may_contain_writes_of(myself)):
            return
        places = _places(record.entries)
        wrote = record.claims.get(myself, 0)
        for entry in record.entries.values():
            if entry.origin == myself and entry.stamp > wrote:
                wrote = entry.stamp
        if before is not None:
            wrote = max(wrote, before.wrote)
            for name, stamp, origin in _PLACE.iter_unpack(before.places):
                places[name] = max(places.get(name, _NOWHERE), (stamp, origin))
        self.forget(record.sid)
        packed = b"".join([_PLACE.pack(name, *place) for name, place in places.items()])
        self.copies[record.sid] = Copy(packed, wrote)
        self._bytes += OVERHEAD_BYTES + len(packed)
        while self._bytes > BYTES_MAX:
            self.forget(next(iter(self.copies)))

    def forget(self, sid: Sid) -> None:
        """A copy as good is here again, or the session is dead."""
        copy = self.copies.pop(sid, None)
        if copy is not None:
            self._bytes -= OVERHEAD_BYTES + len(copy.places)

    def is_ahead_of(self, record: Record) -> bool:
        """Say whether a copy that was dropped had anything that this record lacks: a write, or what replaced it."""
        copy = self.copies.get(record.sid)
        if copy is None or record.tombstone:
            return False
        here = _places(record.entries)
        return any(
            here.get(name, _NOWHERE) < (stamp, origin) for name, stamp, origin in _PLACE.iter_unpack(copy.places)
        )

    def wrote(self, sid: Sid, time_ms: int) -> Stamp:
        """Return this node's newest write to a copy that it dropped; 0 where none is known, or claims of it may be
        forgotten everywhere, so that to ask for it proves nothing."""
        copy = self.copies.get(sid)
        return copy.wrote if copy is not None and copy.wrote > stamp_at(time_ms) - CLAIM_AGE else 0


def _places(entries: Mapping[str, Entry]) -> dict[bytes, tuple[Stamp, NodeId]]:
    return {
        blake2b(key.encode("utf-8"), digest_size=8).digest(): (entry.stamp, entry.origin)
        for key, entry in entries.items()
    }
