# History: what requests were told, and how a checker says that something is wrong.
#
# A write is known by the process that took it, its stamp and its values, so that whether a record holds it can be
# judged by entries alone, never by claims.

from typing import NamedTuple

from gossipsess.model.clock import Stamp
from gossipsess.model.identity import NodeId, Sid, short
from gossipsess.model.record import Record
from gossipsess.sim.process import Process


class Violation(Exception):
    """Something that must always hold does not. `rule` is its message without names and numbers."""

    def __init__(self, text: str, rule: str) -> None:
        super().__init__(text)
        self.rule = rule


class Wrote(NamedTuple):
    """One write or invalidation that a process accepted."""

    sid: Sid
    origin: NodeId
    stamp: Stamp
    values: dict[str, bytes | None] | None
    """What was written; None for an invalidation."""

    def __str__(self) -> str:
        what = "invalidation" if self.values is None else f"write of {', '.join(map(repr, self.values))}"
        return f"{what} {short(self.origin)}@{self.stamp} in session {short(self.sid)}"


def holds(record: Record | None, wrote: Wrote) -> bool:
    """Say whether a record has a write or what replaced it, looking at entries only."""
    if record is None:
        return False
    if wrote.values is None:
        return record.tombstone >= wrote.stamp
    if record.tombstone:
        return True
    place = (wrote.stamp, wrote.origin)
    entries = record.entries
    return all(key in entries and (entries[key].stamp, entries[key].origin) >= place for key in wrote.values)


def contains(record: Record | None, other: Record) -> bool:
    """Say whether a record has all that another one has, or what replaced it, looking at entries only."""
    if record is None:
        return False
    if record.tombstone or other.tombstone:
        return record.tombstone >= other.tombstone
    mine = record.entries
    return all(
        key in mine and (mine[key].stamp, mine[key].origin) >= (entry.stamp, entry.origin)
        for key, entry in other.entries.items()
    )


def must(holds_so: bool, message: str, *parts: object) -> None:
    """Raise `Violation` with a message, its places filled with `parts`, unless something holds."""
    if not holds_so:
        texts = [
            part.label if isinstance(part, Process) else short(part) if isinstance(part, bytes) else f"{part}"
            for part in parts
        ]
        raise Violation(message.format(*texts), message)
