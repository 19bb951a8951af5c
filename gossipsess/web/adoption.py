# Adoption: what a web framework's own sessions have left in a browser, a signed or sealed cookie, begins a session of
# ours, once.
#
# In:    cookie values; the framework's key, or its serializer.   Out: a `Former`; then the steps to its session.
# So switching on logs nobody out. Nothing is parsed before its signature and age are checked, by itsdangerous as the
# framework itself did it. Litestar's are sealed: litestar_former.py reads them.
# The signature's bytes are the cookie's name. They are unguessable, and the same however the text is varied: base64 has
# several spellings of the same bytes, and all of them verify.
# Once: the new session's id follows from the name, so that requests which come at the same moment, to whichever nodes,
# find the same one; and a mark outlives it, so that the cookie is nothing once the session has ended.
# Not here: why concurrent adoptions make one session (model/adoption.py); how to wait (waiting.py).

import binascii
import json
import logging
import math
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from datetime import datetime
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

from gossipsess.errors import SessionTooLarge, UnreplicableValue
from gossipsess.model.identity import is_session_id
from gossipsess.protocol.outcomes import Gone
from gossipsess.session import Session
from gossipsess.store import SessionStore
from gossipsess.waiting import Steps
from gossipsess.web.session import WebSession

log = logging.getLogger("gossipsess")

FORMER_CHARACTERS_MAX: Final = 16 * 1024
"""Browsers keep cookies of 4 KiB; a longer value is looked at by nobody."""
FORMER_AGE_MAX_S: Final = 31 * 24 * 3600
"""Where a framework's cookies are valid for ever, they are adopted until they are this old: a mark is kept as long."""


class Former(NamedTuple):
    """An authentic session cookie of a framework's own."""

    name: bytes
    """Its signature, or what is as hard to guess, by which it is known again."""
    signed_at: int
    """When it was made, Unix time, seconds."""
    ends_at: int
    """When it ceases to be valid, Unix time, seconds."""
    values: Mapping[str, Any]
    created_at: int | None = None
    """From when its age counts, Unix time, seconds; None: from its signature."""


class TimedSerializer(Protocol):
    """What is used of `itsdangerous.URLSafeTimedSerializer`."""

    def loads(self, s: str, max_age: int | None = None, return_timestamp: bool = False) -> Any:
        """Return (data, when it was signed)."""


class Base64Json:
    """The form of Starlette's cookies: base64 of JSON, signed with a timestamp."""

    def __init__(self, secret_key: object) -> None:
        from itsdangerous import TimestampSigner  # whoever has such cookies has it

        self._signer = TimestampSigner(str(secret_key))

    def loads(self, s: str, max_age: int | None = None, return_timestamp: bool = False) -> Any:
        """Return (data, when it was signed); the arguments are a serializer's.

        Raises:
            BadData: it is not authentic, or too old.
            ValueError: it is authentic, and no session.
        """
        data, signed_at = self._signer.unsign(s.encode("ascii"), max_age=max_age, return_timestamp=True)
        return json.loads(binascii.a2b_base64(data)), signed_at


def former_of_untrusted(
    values: Iterable[str], serializer: TimedSerializer | None, max_age_s: int | None
) -> Former | None:
    """Return the framework's own session among the values that a client sent under the cookie's name.

    None where there is none, where there are several, and where one has the form of an id of ours. `serializer` None:
    the framework has no key. `max_age_s`: for how long it is valid; None: for ever.
    """
    candidates = set(values)
    if serializer is None or len(candidates) != 1:
        return None
    [value] = candidates
    if is_session_id(value) or len(value) > FORMER_CHARACTERS_MAX or not value.isascii():
        return None
    from itsdangerous import BadData  # the serializer is of this package
    from itsdangerous.encoding import base64_decode

    valid_s = FORMER_AGE_MAX_S if max_age_s is None else max_age_s
    try:
        data, signed = serializer.loads(value, max_age=valid_s, return_timestamp=True)
    except (BadData, ValueError, RecursionError):  # the latter two: signed by the same key, but not as a session
        return None
    if not isinstance(data, dict) or not data or not isinstance(signed, datetime):
        return None
    signed_at = math.floor(signed.timestamp())
    return Former(base64_decode(value.rpartition(".")[2]), signed_at, signed_at + valid_s, data)


def adoption(
    store: SessionStore, former: Former, idle_s: float | None = None, ends_at: float | None = None
) -> Steps[WebSession | None]:
    """Return the steps to the session that a cookie has become, or becomes now.

    They come to None where that has ended, or would have by now: the cookie is none. `idle_s` and `ends_at` are limits
    of this session's own (`Session.limit`).

    Raises, while it runs:
        SessionUnavailable: whether it was adopted before is not known.
        MemoryFull: there is no room for it.
    """
    fresh = store.create(former.name)
    # First the mark, which is made last: where it is, the session was made, and is found if it has not ended. The other
    # way round both might come between the two questions, and the session be taken for an ended one.
    spent = (yield store.mark(former.name)) is not None
    session: Session | None = yield from adopted_before(store, former.name, fresh)
    if session is None and not spent:
        _fill(fresh, former.values)
        fresh.limit(idle_s=idle_s, ends_at=ends_at)
        adopting = store.adopt(fresh, former.name, former.signed_at, former.created_at)
        put_mark = partial(store.put_mark, former.name, former.signed_at, former.ends_at)
        try:
            outcome = yield adopting
        except GeneratorExit:  # the request was cancelled; without a mark the cookie would outlive the session
            if isinstance(adopting, Future):
                adopting.add_done_callback(lambda _: put_mark())
            raise
        yield put_mark()
        session = None if isinstance(outcome, Gone) else fresh
    if session is None:
        return None
    assert isinstance(session, WebSession), "the store was made for this class"
    session.adopted = True
    session.accessed = False  # by us, and not by the application
    return session


def adopted_before(store: SessionStore, name: bytes, fresh: Session) -> Steps[Session | None]:
    """Return the steps to the session that a cookie has become, `fresh` being a new one; None: there is none."""
    for session_id in (fresh.id, *store.former_ids(name)):
        session: Session | None = yield store.load_derived(session_id)
        if session is not None:
            return session
    return None


def _fill(session: Session, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        try:
            session[key] = value
        except (UnreplicableValue, SessionTooLarge) as refused:
            why = (
                f"a {refused.type_name} cannot travel" if isinstance(refused, UnreplicableValue) else "it is too large"
            )
            log.warning("a former session is adopted without session[%.40r]: %s", key, why)
