# Sub-keys: counters and sets of a session, kept as entries of their own, so that changes made at the same moment on
# two nodes all stay. To a record and its merges they are entries like any other; the rules here say what they mean.
#
# Set      one entry for each member, under a hash of its bytes: of adding and discarding one member the later wins.
# Counter  slots: an entry for each node that has added to it, with all that was added there in sum. Only its node
#          writes a slot again, under its lock, so the later state of a slot contains the earlier ones.
# Clearing a counter takes off what was seen: the slot of the node that clears notes of each slot how far it had come,
#          as (stamp, total). Of two such notes on one slot the later one contains the earlier. So nothing that was
#          added elsewhere meanwhile is lost, and nothing is taken off twice.
# Why not delete the slots: a node that has not heard of it adds to its slot, is later, and brings all of it back.
# A slot is named by its node and the stamp of its first write, and not by the node alone: a node whose copy is older
#          than one that it dropped must not add to a total of which it has lost a part. It begins another slot.
# Rotation writes one slot with the whole value: in the new session nobody has added yet.
# Not here: what the application sees (gossipsess/subkeys.py).

from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from struct import Struct
from typing import Final, NamedTuple

from gossipsess.errors import SessionTooLarge
from gossipsess.model.clock import Stamp
from gossipsess.model.identity import NodeId
from gossipsess.model.record import CREATED, KEY_CHARACTERS_MAX, RESERVED, Entry
from gossipsess.model.revocation import rotated_value

COUNTER: Final = RESERVED + "n"
MEMBER: Final = RESERVED + "e"
_ID_BYTES: Final = 16
_NAME_AT: Final = len(COUNTER) + 2 * _ID_BYTES
NAME_CHARACTERS_MAX: Final = KEY_CHARACTERS_MAX - _NAME_AT
TOTAL_MAX: Final = 2**63 - 1

_TOTAL: Final = Struct(">q")
_TAKEN: Final = Struct(f">{_ID_BYTES}sQq")
_SLOT: Final = Struct(">8sQ")

SlotId = bytes
"""The node, 8 bytes, and the stamp of its first write to the slot."""


class Taken(NamedTuple):
    """How far a slot had come when somebody cleared the counter."""

    slot: SlotId
    stamp: Stamp
    total: int


class Added(NamedTuple):
    """What a request did to a counter; which entry that makes is known under the lock only."""

    amount: int
    taken: tuple[Taken, ...] = ()


Change = bytes | None | Added
"""An encoded value; None to delete; or what is added to a counter, under `COUNTER` and its name."""


class Slot(NamedTuple):
    """One node's part of a counter."""

    total: int
    taken: tuple[Taken, ...] = ()


# --- sets ---------------------------------------------------------------------------------------------------


def member_key(name: str, encoded: bytes) -> str:
    """Return the key of a member of a set, given its encoded value."""
    return f"{MEMBER}{blake2b(encoded, digest_size=_ID_BYTES).hexdigest()}{name}"


def is_member_of(key: str, name: str) -> bool:
    """Say whether a key is that of a member of this set."""
    return key[: len(MEMBER)] == MEMBER and key[_NAME_AT:] == name


# --- counters -----------------------------------------------------------------------------------------------


def counter_key(name: str, slot: SlotId) -> str:
    """Return the key of a slot of a counter."""
    return f"{COUNTER}{slot.hex()}{name}"


def counters_in(entries: Mapping[str, Entry]) -> list[str]:
    """Return the names of the counters that have slots."""
    return list({key[_NAME_AT:]: None for key in entries if key[: len(COUNTER)] == COUNTER})


def count(entries: Mapping[str, Entry], added: Added, name: str) -> int:
    """Return a counter's value, with what a request that started from these entries did to it."""
    slots = dict(_slots(entries, name))
    taken = _latest([*added.taken, *(one for _, slot in slots.values() for one in slot.taken)])
    value = added.amount
    for slot_id, (stamp, slot) in slots.items():
        gone = taken.get(slot_id)
        if gone is None or gone.stamp < stamp:  # else all that is here of it was seen by who cleared
            value += slot.total - (gone.total if gone is not None else 0)
    return value


def all_of(entries: Mapping[str, Entry], name: str) -> tuple[Taken, ...]:
    """Return what clearing a counter takes off: its slots as they are now."""
    return tuple([Taken(slot_id, stamp, slot.total) for slot_id, (stamp, slot) in _slots(entries, name)])


def resolved(
    changes: Iterable[tuple[str, Change]],
    entries: Mapping[str, Entry],
    stamp: Stamp,
    origin: NodeId,
    *,
    behind: bool,
) -> list[tuple[str, bytes | None]]:
    """Return the changes with what is added to counters made entries of the node that writes them.

    `behind`: these entries may lack earlier writes of the node.

    Raises:
        SessionTooLarge: a counter would leave the range of 64 bits.
    """
    written: list[tuple[str, bytes | None]] = []
    for key, change in changes:
        if isinstance(change, Added):
            written.append(_slot_written(key[len(COUNTER) :], change, entries, stamp, origin, behind=behind))
        else:
            written.append((key, change))
    return written


def rotated(entries: Mapping[str, Entry], changes: Iterable[tuple[str, Change]]) -> dict[str, Change]:
    """Return what the first write of a session is that takes the place of one with these entries."""
    # The register of the creation comes first: it is what makes a write a beginning.
    kept: dict[str, Change] = {CREATED: None}
    for key, entry in entries.items():
        if entry.value is not None and key[: len(COUNTER)] != COUNTER:
            kept[key] = rotated_value(key, entry)
    kept.update(changes)
    for name in counters_in(entries):
        added = kept.get(COUNTER + name)
        kept[COUNTER + name] = Added(count(entries, added if isinstance(added, Added) else Added(0), name))
    return {key: change for key, change in kept.items() if change != Added(0)}


def _slot_written(
    name: str, added: Added, entries: Mapping[str, Entry], stamp: Stamp, origin: NodeId, *, behind: bool
) -> tuple[str, bytes]:
    slot_id, slot = _SLOT.pack(origin, stamp), Slot(0)
    if not behind:
        for its_id, (_, its) in _slots(entries, name):
            if its_id.startswith(origin):
                slot_id, slot = its_id, its
    total = slot.total + added.amount
    if abs(total) > TOTAL_MAX:
        raise SessionTooLarge(f"session.counter_of({name!r}) would leave the range of 64 bits. Nothing is stored.")
    taken = _latest([*slot.taken, *added.taken]).values()
    return counter_key(name, slot_id), b"".join([_TOTAL.pack(total), *(_TAKEN.pack(*one) for one in taken)])


def _slots(entries: Mapping[str, Entry], name: str) -> Iterator[tuple[SlotId, tuple[Stamp, Slot]]]:
    for key, entry in entries.items():
        if key[: len(COUNTER)] == COUNTER and key[_NAME_AT:] == name:
            try:
                slot_id = bytes.fromhex(key[len(COUNTER) : _NAME_AT])
            except ValueError:
                continue  # no node makes such a key
            yield slot_id, (entry.stamp, _slot_of(entry.value or b""))


def _slot_of(value: bytes) -> Slot:
    if len(value) < _TOTAL.size or (len(value) - _TOTAL.size) % _TAKEN.size:
        return Slot(0)  # no node makes that
    (total,) = _TOTAL.unpack_from(value)
    return Slot(total, tuple([Taken(*one) for one in _TAKEN.iter_unpack(value[_TOTAL.size :])]))


def _latest(taken: Iterable[Taken]) -> dict[SlotId, Taken]:
    latest: dict[SlotId, Taken] = {}
    for one in taken:
        if one.slot not in latest or latest[one.slot].stamp < one.stamp:
            latest[one.slot] = one
    return latest
