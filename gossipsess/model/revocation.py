# Revocation: all sessions of one user end, wherever they are.
#
# A session belongs to the user that its USER register names. A revocation is no new kind of state: it is the
# tombstone of the user's own sid, so it merges, syncs and is kept exactly as a logout is. One rule, applied by every
# node to what it holds:
#
#     a session whose login is not later than its user's tombstone is dead; its own tombstone has the login's stamp.
#
# That stamp is read from the session alone. So nodes that apply the rule, each in its own time and after whichever
# of several revocations, hold equal states without a message.
# The login is when the register was assigned, and not the stamp of its entry: a rotation writes each entry anew, and
# a session rotated by a node that had not heard of the revocation would look like a login after it.
# Not here: applying the rule (table.py), saying so (protocol/ends.py).

from hashlib import blake2b
from typing import Final, NamedTuple

from gossipsess.model.clock import Stamp
from gossipsess.model.identity import SID_BYTES, Sid
from gossipsess.model.record import USER, Entry, Record

USER_CHARACTERS_MAX: Final = 256

_PERSON: Final = b"gossipsess user"
USER_SID_END: Final = b"user"
"""How the sid of a user ends; see `is_user_sid`."""
_STAMP_BYTES: Final = 8


class Login(NamedTuple):
    """Whose a session is, and since when."""

    user: Sid
    stamp: Stamp


def user_sid(user: str) -> Sid:
    """Return the sid whose tombstone is the user's revocation.

    No session has it: a session's sid is hashed without the personalisation. It can be guessed from the user's
    name, as a session's cannot from its id, so it is neither logged nor told to subscribers.
    """
    return _sid_of_text(user.encode("utf-8"))


def is_user_sid(sid: Sid) -> bool:
    """Say whether a sid is a user's. True for one session in four billion too, which then is not counted or told of;
    whether a session lives never depends on it."""
    return sid.endswith(USER_SID_END)


def user_value(user: str) -> bytes:
    """Return the USER register's value for somebody who logs in by this very write."""
    return bytes(_STAMP_BYTES) + user.encode("utf-8")


def user_of(entry: Entry | None) -> str | None:
    """Return the name of the user that a register holds; None where it is missing or deleted."""
    return entry.value[_STAMP_BYTES:].decode("utf-8", "replace") if entry is not None and entry.value else None


def login_of(entry: Entry | None) -> Login | None:
    """Return the login that a register holds; None where it is missing or deleted.

    A login is never later than its entry, whatever the value says.
    """
    if entry is None or entry.value is None:
        return None
    stamp = int.from_bytes(entry.value[:_STAMP_BYTES], "big") or entry.stamp
    return Login(_sid_of_text(entry.value[_STAMP_BYTES:]), max(1, min(stamp, entry.stamp)))


def rotated_value(key: str, entry: Entry) -> bytes | None:
    """Return what a rotation writes for one of a session's entries: the value, and for USER the login's stamp in it."""
    if key != USER or entry.value is None or any(entry.value[:_STAMP_BYTES]):
        return entry.value
    return entry.stamp.to_bytes(_STAMP_BYTES, "big") + entry.value[_STAMP_BYTES:]


def _sid_of_text(text: bytes) -> Sid:
    return blake2b(text, digest_size=SID_BYTES - len(USER_SID_END), person=_PERSON).digest() + USER_SID_END


class Owners:
    """Whose the sessions of a table are: from a user's sid to the sids of the user's sessions."""

    def __init__(self) -> None:
        self._sessions: dict[Sid, dict[Sid, None]] = {}

    def changed(self, sid: Sid, old: Entry | None, new: Entry | None) -> None:
        """Note that a session's register changed; None where there is none."""
        before, after = login_of(old), login_of(new)
        if before is not None:
            sessions = self._sessions[before.user]
            del sessions[sid]
            if not sessions:
                del self._sessions[before.user]
        if after is not None:
            self._sessions.setdefault(after.user, {})[sid] = None

    def sessions_of(self, user: Sid) -> list[Sid]:
        """Return the sids of a user's sessions, in the order in which they became the user's."""
        return list(self._sessions.get(user, ()))


def user_entry(record: Record | None) -> Entry | None:
    """Return a record's USER register."""
    return record.entries.get(USER) if record is not None else None
