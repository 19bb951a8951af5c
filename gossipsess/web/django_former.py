# Django's former engine: its sessions begin ours, once, so that a project which changes its engine logs nobody out.
#
# In:    GOSSIPSESS_ADOPT, which names the former engine, and an id cookie that names no session of ours.
# Out:   what that engine holds under it; the steps to the session that it has become here.
# Rule:  it is looked up there, becomes a session under a new id, and is deleted there. What the client sent names it
#        from then on, too, until its cookie is replaced: the requests of one page come with the former cookie at the
#        same moment, to several processes. adoption.py says how all of them find one session, and why the cookie is
#        nothing once that has ended.
# Age:   the engine does not say when it was written: not longer ago than it lives. A revocation of its user is
#        remembered for a day, so it counts as written a day ago: a user who was logged out everywhere stays so. Its
#        absolute timeout begins now.
# Not here: which engines are replaced without a word in the settings (auto/).

import logging
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from gossipsess.errors import SessionUnavailable
from gossipsess.model.table import TOMBSTONE_MS
from gossipsess.web.adoption import FORMER_CHARACTERS_MAX, Former

log = logging.getLogger("gossipsess")

SETTING: Final = "GOSSIPSESS_ADOPT"
"""In Django's settings: the dotted name of the former engine. Not set: nothing is looked up."""
_NOT_DELETED: Final = "a session was adopted, and could not be deleted in the engine that %s names"
_WRITTEN_AGO_S: Final = TOMBSTONE_MS / 1000


class FormerSession:
    """What may be a session of the former engine, by the id that a client sent.

    Raises:
        ImproperlyConfigured: the setting names no engine.
    """

    def __init__(self, engine: str, key: str) -> None:
        try:
            self._session: Any = import_module(engine).SessionStore(key)
        except (ImportError, AttributeError) as error:
            raise ImproperlyConfigured(f"{SETTING} = {engine!r} names no session engine: {error}") from error
        self._key = key
        self.name = b"django " + key.encode()
        """What it is known by."""

    def values(self) -> Mapping[str, Any]:
        """Return what it holds; nothing where there is no such session.

        Raises:
            SessionUnavailable: the engine cannot be asked.
        """
        try:
            return dict(self._session.load())
        except Exception as error:
            raise _cannot_be_asked(error) from error

    async def avalues(self) -> Mapping[str, Any]:
        """See `values`."""
        try:
            return dict(await self._session.aload())
        except Exception as error:
            raise _cannot_be_asked(error) from error

    def delete(self) -> None:
        """Delete it there. Where that fails it is left; it has been adopted, and is not once more."""
        try:
            self._session.delete(self._key)
        except Exception:
            log.warning(_NOT_DELETED, SETTING)

    async def adelete(self) -> None:
        """See `delete`."""
        try:
            await self._session.adelete(self._key)
        except Exception:
            log.warning(_NOT_DELETED, SETTING)

    def as_found(self, values: Mapping[str, Any], now: float, lives_s: float) -> Former:
        """Return it as what is adopted, with what it holds, and how long its cookie would be valid from now on."""
        signed_at = round(now - min(lives_s, _WRITTEN_AGO_S))
        # Were its age counted from there, an absolute timeout of less would end it with what it writes first.
        return Former(self.name, signed_at, round(now + lives_s), values, created_at=round(now))


def former_session(key: str | None) -> FormerSession | None:
    """Return what a client may mean by an id that is none of ours; None where no engine was replaced."""
    engine = getattr(settings, SETTING, None)
    if not engine or not key or len(key) > FORMER_CHARACTERS_MAX:
        return None
    return FormerSession(engine, key)


def _cannot_be_asked(error: Exception) -> SessionUnavailable:
    # Not the error itself, which may quote the id.
    log.warning("the engine that %s names cannot be asked for a session: %s", SETTING, type(error).__name__)
    return SessionUnavailable(
        f"the session may be one of the engine that {SETTING} names, and that cannot be asked. Where it is needed no "
        f"more, delete {SETTING} from the settings."
    )
