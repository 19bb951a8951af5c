# Hand-over: what a node that nobody outlives leaves to the process that follows it on this machine.
#
# A developer saves a file, and the reloader ends the only process there is: without this, that would be a logout.
#
#     file   = header, then frames as on a link: Push messages of whole records, and a Bye as the end
#     header = "GSHO" | version (1) | alone (1) | key id (4) | random (16) | left at (8) | lineage since (8)
#
# Integers are big endian, times Unix milliseconds. The frames' key is derived from the header with the cluster's
# secret, so a header that was altered opens nothing, and another cluster's nodes cannot read a word.
# In:    a table, at the end of a process.    Out: the same in another one's, before it meets anybody.
# Rule:  left by a node when no other stays, since the others have what it had. Of several that end at once each leaves
#        its own. Written whole, then renamed; whoever removes it may read it, and nobody a second time; void after
#        `VALID_S`, and then removed by whoever starts. Tombstones first: what was ended stays ended, should there be no
#        room for all.
# Why it is harmless: to the cluster it is a node that was cut off for a few seconds. It may come twice, late or not at
#        all; records merge as they always do. So whatever fails here costs one line in the log.
# Not here: the folder and who may enter it (folder.py).

import logging
import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from struct import Struct
from typing import Final, NamedTuple

from gossipsess.errors import ConfigError, DecodeError, SealError, VersionError, WireError
from gossipsess.model.delta import Delta, not_covered
from gossipsess.model.identity import short
from gossipsess.node import Node
from gossipsess.protocol.events import Inherit
from gossipsess.runtime.folder import check_private, folder_path, make_folder
from gossipsess.wire.codec import decode_untrusted, encode
from gossipsess.wire.crypto import FrameOpener, FrameSealer
from gossipsess.wire.keyring import KEY_ID_BYTES, ClusterKey, Keyring
from gossipsess.wire.messages import Bye, Push

log = logging.getLogger("gossipsess")

VALID_S: Final = 60.0
"""A restart takes seconds. What is older was meant for a process that never came, and sessions on a disk are a risk."""
FILE_BYTES_MAX: Final = 64 * 1024 * 1024
"""30,000 sessions of 2 KB. A process takes a second longer to end with so many, and its successor three to start."""
PUSH_BYTES: Final = 256 * 1024
"""Records in one message, about; one that is larger by itself has one of its own."""
ENDING: Final = ".handover"

_MAGIC: Final = b"GSHO"
_VERSION: Final = 1
_RANDOM_BYTES: Final = 16
_HEADER: Final = Struct(f">4sB?{KEY_ID_BYTES}s{_RANDOM_BYTES}sQQ")
_HEAD_BYTES: Final = 64
"""What a record takes beside its entries, about; all that a tombstone takes."""
_READ_BYTES: Final = 64 * 1024
_SEALS_BYTES: Final = 64 * 1024
"""Room for the seals of the last message's frames, and for the end."""


class Handover(NamedTuple):
    """The contents of one file."""

    left_ms: int
    """When it was left, Unix milliseconds."""
    since_ms: int
    alone: bool
    deltas: tuple[Delta, ...]


def leave(node: Node, keyring: Keyring) -> None:
    """Leave what this node holds in a file, unless somebody else stays. The node has ended. Never raises."""
    with node.locked() as replica:
        if any(not member.leaving for member in replica.swim.view.live()):
            return
        alone = not list(replica.swim.view.all())
        since_ms = replica.sessions.since_ms(node.now())
        table = replica.sessions.table
        records = list(table.records.values())
        accesses = dict(table.accesses)
    if not records:
        return
    records.sort(key=lambda record: (not record.tombstone, -record.newest))
    deltas = [not_covered(record, {})._replace(accessed_ms=accesses.get(record.sid, 0)) for record in records]
    handover = Handover(round(time.time() * 1000), since_ms, alone, tuple(deltas))
    try:
        folder = make_folder()
        name = f"{keyring.primary.key_id.hex()}-{short(node.node_id)}{ENDING}"
        left = _write(folder, name, handover, keyring.primary)
    except (ConfigError, OSError) as error:
        log.warning("%d sessions end with this process: they could not be left to the next. %s", len(records), error)
        return
    if left < len(records):
        log.warning("the %d sessions used last are left to the next process; there was no room for more", left)
    else:
        log.info("nobody else is here: %d sessions are left to the next process of this machine", left)


def inherit(node: Node, keyring: Keyring) -> None:
    """Take over what nodes of this cluster have left on this machine, and remove what is too old. Never raises."""
    folder = folder_path()
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(ENDING))
        check_private(folder)
    except OSError:
        return  # none was ever left
    except ConfigError as error:
        log.warning("what earlier processes have left is not taken over: %s", error)
        return
    for name in names:
        path = os.path.join(folder, name)
        try:
            if time.time() - os.lstat(path).st_mtime > VALID_S:
                os.unlink(path)
            elif keys := [key for key in (keyring.primary, *keyring.fallbacks) if name.startswith(key.key_id.hex())]:
                _take_over(node, path, keys[0])
        except FileNotFoundError:
            pass  # another process was quicker
        except (ConfigError, OSError, WireError) as error:
            log.warning("what an earlier process has left is not taken over: %s", error)


def _take_over(node: Node, path: str, key: ClusterKey) -> None:
    handover = _read_untrusted(path, key)
    age_s = time.time() - handover.left_ms / 1000
    if not -VALID_S < age_s < VALID_S:
        raise SealError(f"it is {age_s:.0f} s old")
    node.submit(Inherit(handover.deltas, handover.since_ms, handover.alone))
    log.info("%d sessions are taken over from a process that ended %.1f s ago", len(handover.deltas), age_s)


def _write(folder: str, name: str, handover: Handover, key: ClusterKey) -> int:
    """Write a file whole, then give it its name; return how many records found room.

    Raises:
        OSError: nothing is left behind.
    """
    draft = os.path.join(folder, f".{name}")
    header = _HEADER.pack(
        _MAGIC,
        _VERSION,
        handover.alone,
        key.key_id,
        os.urandom(_RANDOM_BYTES),
        handover.left_ms,
        handover.since_ms,
    )
    sealer = FrameSealer(key.handover_key(header))
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(header)
            count = 0
            for number, deltas in enumerate(_cut(handover.deltas)):
                message = encode(Push(number, deltas))
                if file.tell() + len(message) > FILE_BYTES_MAX - _SEALS_BYTES:
                    break
                file.write(sealer.seal(message))
                count += len(deltas)
            file.write(sealer.seal(encode(Bye())))
        os.rename(draft, os.path.join(folder, name))
    except BaseException:
        with suppress(OSError):
            os.unlink(draft)
        raise
    return count


def _cut(deltas: tuple[Delta, ...]) -> Iterator[tuple[Delta, ...]]:
    batch: list[Delta] = []
    size = 0
    for delta in deltas:
        delta_bytes = _HEAD_BYTES + sum([len(key) + len(value or b"") for key, _, _, value in delta.entries])
        if batch and size + delta_bytes > PUSH_BYTES:
            yield tuple(batch)
            batch, size = [], 0
        batch.append(delta)
        size += delta_bytes
    if batch:
        yield tuple(batch)


def _read_untrusted(path: str, key: ClusterKey) -> Handover:
    """Remove a file and return what it says: whoever removes it is the one who may.

    Raises:
        FileNotFoundError: somebody else has removed it.
        OSError: it cannot be read.
        ConfigError: others than this user may have written it.
        WireError: it is none of ours, altered, or not whole.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with open(descriptor, "rb") as file:
        os.unlink(path)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
            raise ConfigError(f"{path} was not this user's alone")
        if status.st_size > FILE_BYTES_MAX:
            raise DecodeError(f"a file of {status.st_size} bytes")
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size or not header.startswith(_MAGIC):
            raise DecodeError("not a file of ours")
        _, version, alone, key_id, _, left_ms, since_ms = _HEADER.unpack(header)
        if version != _VERSION:
            raise VersionError(f"a file of version {version}; this node reads {_VERSION}")
        if key_id != key.key_id:
            raise SealError("its name and its key differ")
        opener = FrameOpener(key.handover_key(header))
        deltas: list[Delta] = []
        whole = False
        while data := file.read(_READ_BYTES):
            for message in opener.feed_untrusted(data):
                said = decode_untrusted(message)
                if whole or not isinstance(said, Push | Bye):
                    raise DecodeError("something else than records, or after the end")
                if isinstance(said, Push):
                    deltas += said.deltas
                else:
                    whole = True
        if not whole:
            raise DecodeError("it is not whole")
    return Handover(left_ms, since_ms, alone, tuple(deltas))
