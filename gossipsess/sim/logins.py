# Logins: who logged in where and when, and whose sessions were ended; the history that revocations are judged by.
#
# A login is the write that named the user. It is followed through rotations by what requests did, and never read
# from the stamp that the machine itself keeps in the register: that is what is on trial.
# Not here: what must hold (checkers.py).

from collections.abc import Mapping
from typing import NamedTuple

from gossipsess.model.clock import Stamp
from gossipsess.model.identity import Sid
from gossipsess.model.record import USER, Entry, Record
from gossipsess.model.revocation import user_of, user_sid
from gossipsess.protocol.events import Dot


class Login(NamedTuple):
    """One login."""

    user: Sid
    stamp: Stamp
    """Of the write that named the user; the rotations after it have other stamps."""


class Logins:
    """Every login of a run, and every revocation."""

    def __init__(self) -> None:
        self._logins: dict[Sid, dict[Dot, Login]] = {}  # of each write that set or moved a session's user
        self._revoked: dict[Sid, Stamp] = {}  # by user, the latest

    def wrote(self, sid: Sid, dot: Dot, changes: Mapping[str, bytes | None], moved: Login | None) -> None:
        """Note a write; `moved` is the login of the session whose data a rotation moved here."""
        origin, stamp = dot
        user = user_of(Entry(stamp, origin, changes.get(USER), 0))
        login = Login(user_sid(user), stamp) if user is not None else moved
        if login is not None:
            self._logins.setdefault(sid, {})[dot] = login

    def revoked(self, user: Sid, stamp: Stamp) -> None:
        """Note a revocation."""
        self._revoked[user] = max(stamp, self._revoked.get(user, 0))

    def of(self, record: Record) -> Login | None:
        """Return the login that a record shows; None where it is nobody's."""
        entry = record.entries.get(USER)
        return self._logins.get(record.sid, {}).get((entry.origin, entry.stamp)) if entry is not None else None

    def begun(self, sid: Sid) -> list[Stamp]:
        """Return the stamps of all logins into a session, those of before a rotation too."""
        return [login.stamp for login in self._logins.get(sid, {}).values()]

    def ended(self, sid: Sid, stamp: Stamp) -> bool:
        """Say whether a login of that stamp into a session was followed by a revocation of its user."""
        logins = self._logins.get(sid, {}).values()
        return any(login.stamp == stamp <= self._revoked.get(login.user, 0) for login in logins)


def content(key: str, value: bytes | None) -> bytes | str | None:
    """Return what a request wrote of an entry's value: of a user the name alone."""
    return user_of(Entry(0, b"", value, 0)) if key == USER else value
