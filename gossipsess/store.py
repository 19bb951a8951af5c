# Store: the sessions API in its plainest form, callable from any thread.
#
# What can be answered at once is returned at once; what must wait for other nodes is returned as a
# `concurrent.futures.Future`. gossipsess.sync, gossipsess.aio and gossipsess.open_node differ only in how they
# wait for one.
#
# A load of a session that is held here, with every write in it that the client has seen, is a lookup and touches
# no lock and no network.

import os
import threading
from concurrent.futures import Future
from typing import Final

from gossipsess.errors import SessionUnavailable
from gossipsess.model.adoption import adopted, mark_sid
from gossipsess.model.clock import time_ms_of
from gossipsess.model.identity import ENTROPY_BYTES, Sid, is_session_id, session_id, sid_of
from gossipsess.model.record import ABSOLUTE, CREATED, IDLE, Record, dead_record, empty_record
from gossipsess.model.revocation import user_sid
from gossipsess.model.subkeys import Added
from gossipsess.model.table import Life, register_value
from gossipsess.node import Node
from gossipsess.protocol.events import (
    Accessed,
    Adopt,
    Changes,
    Confirm,
    Dot,
    Fetch,
    Invalidate,
    Revoke,
    Rotate,
    Write,
)
from gossipsess.protocol.outcomes import Confirmed, Found, Gone, Outcome, Revoked
from gossipsess.protocol.placement import partition_of
from gossipsess.protocol.writes import Written
from gossipsess.session import Session, check_user
from gossipsess.tokens import TOKEN_CHARACTERS_MAX, Tokens, recent, too_old_ms

IDLE_TIMEOUT_S: Final = 30 * 60.0
ABSOLUTE_TIMEOUT_S: Final = 12 * 3600.0
"""When a session ends by time where neither settings nor a framework say otherwise."""
ABSENT_FOR_S: Final = 5.0
"""How long an id that nobody knew is not asked for again."""
ABSENT_MAX: Final = 4096
"""Such ids remembered, some 500 KB. A client that sends made-up ids fills it; then the oldest are asked again."""

NAMED_MAX: Final = 1024
"""Ids of which is remembered what they come to, each with one token, a megabyte at most: most requests show the one
that was last shown, or made here."""

_Answer = tuple[int, int, float, str]
"""What a record says to those who name it so: the hash of its state; until when it says so, cluster time in ms, which
is when the session ends, its access is to be noted, or the token is too old; when it was last used; and the token, ""
where that proves nothing. Not the record itself, which may be large, and be over."""
_NO_ANSWER: Final[_Answer] = (-1, 0, 0.0, "")


class _Named:
    """What an id comes to, and a token: the session, and the writes that the client has seen."""

    __slots__ = ("answer", "dots", "partition", "sid", "token")

    def __init__(self, sid: Sid, token: str, dots: tuple[Dot, ...]) -> None:
        self.sid, self.token, self.dots = sid, token, dots
        self.partition = partition_of(sid)
        self.answer = _NO_ANSWER  # the last; replaced as a whole, by requests on any thread


class SessionStore:
    """The sessions of one node.

    Every method may be called from any thread; a `Session` belongs to one request.
    """

    def __init__(
        self,
        node: Node,
        tokens: Tokens,
        *,
        confirm: Confirm = 1,
        idle_timeout_s: float = IDLE_TIMEOUT_S,
        absolute_timeout_s: float = ABSOLUTE_TIMEOUT_S,
        session_class: type[Session] = Session,
    ) -> None:
        self._node = node
        sessions = node.replica.sessions
        self._table, self._records, self._clock = sessions.table, node.records, sessions.clock
        self._is_synced, self._is_current = sessions.anti_entropy.is_synced, sessions.is_current
        self._now, self._origin = node.now, node.node_id
        self._named: dict[str, _Named] = {}
        self._tokens = tokens
        self._confirm: Confirm = confirm
        self._idle_ms = round(idle_timeout_s * 1000)
        self._absolute_ms = round(absolute_timeout_s * 1000)
        self._session_class = session_class
        self._absent: dict[Sid, float] = {}  # sid -> until when nobody is asked; oldest first
        self._waits: list[Future[Outcome]] = []  # those that nothing was waited for with, to be used again
        self._noting = threading.Lock()  # requests and the driver note absences

    def create(self, name: bytes | None = None) -> Session:
        """Return a new, empty session under an id made here. Nothing is stored until something is committed.

        With the `name` of a cookie that is to be adopted the id is the same each time, on every node.
        """
        new_id = session_id(os.urandom(ENTROPY_BYTES) if name is None else self._tokens.derived(name)[0])
        now = self._node.time_ms() / 1000
        return self._session_class(new_id, empty_record(sid_of(new_id)), created_at=now, accessed_at=now)

    def load(self, cookie: str) -> Session | Future[Session | None] | None:
        """Return the session that a client's cookie names: ``id`` or ``id.token``.

        None: there is no such session; give the client a new one under a new id. A Future where other nodes are
        asked, for at most 150 ms; it may raise `SessionUnavailable`, or give a session that is `stale`.
        """
        name, _, token = cookie.partition(".")
        if not is_session_id(name):
            return None
        return self.load_named(name, token if len(token) <= TOKEN_CHARACTERS_MAX else "")

    def load_named(self, name: str, token: str) -> Session | Future[Session | None] | None:
        """Return the same for an id of which the caller knows that it has the form of one, and a token or "".

        Both are remembered for a while: the token must have no more than `TOKEN_CHARACTERS_MAX` characters.
        """
        session = self.held(name, token)
        if session is not None:
            return session
        named = self._named_untrusted(name, token)
        return self._load(name, named.sid, token, named.dots)

    def held(self, name: str, token: str) -> Session | None:
        """Return the same where that is at once known to be a session; else None, and `load_named` says what it is."""
        named = self._named.get(name)
        if named is None or named.token != token:
            named = self._named_untrusted(name, token)
        record = self._records.get(named.sid)
        if record is None:
            return None
        now_s = self._now()
        time_ms = self._clock.time_ms(now_s)
        state_hash, until_ms, accessed_at, proof = named.answer
        if state_hash != record.state_hash or until_ms <= time_ms:
            answer = self._answer(named, record, time_ms)
            if answer is None:
                return None
            _, until_ms, accessed_at, proof = answer
        # The first of the two is what the second asks first: most reads need no more.
        if not (self._is_synced(named.partition) or self._is_current(named.sid, tokened=proof != "", now_s=now_s)):
            return None
        if until_ms <= time_ms:
            self._node.submit(Accessed(named.sid))
        return self._session_class(name, record, accessed_at, proof)

    def commit(self, session: Session, confirm: Confirm | None = None) -> Outcome | Future[Outcome]:
        """Store what the request changed; visible at once here, and on its way to the other holders.

        `confirm` is how many other hosts must hold it (default: the node's setting); a Future where that is
        waited for. Never rolled back: `Degraded` says that fewer confirmed in time, `Gone` that the session was
        ended meanwhile.

        Raises:
            UnreplicableValue: a value was changed in place into something that cannot travel. Nothing is stored.
            SessionTooLarge: with what others wrote meanwhile it is over its bound. Nothing is stored.
            MemoryFull: it is a new session, and there is no room for it. Nothing is stored.
        """
        changes = session.changes()
        if not changes:
            return Confirmed(0, 0)
        record = session.record
        if not record.entries and not record.tombstone:
            time_ms = self._node.time_ms()
            held = {**dict(self._registers(time_ms)), **dict(changes)}
            changes, idle, ends = tuple(held.items()), held[IDLE], held[ABSOLUTE]
            if idle == register_value(0) or (isinstance(ends, bytes) and ends <= register_value(time_ms)):
                confirm = 0  # nobody takes in what is over as it begins
        wait, confirm = self._new_wait(), self._confirm if confirm is None else confirm
        written = self._node.submit(Write(record.sid, changes, confirm, wait.set_result, record))
        if not isinstance(written.outcome, Gone):
            session.committed(written.record, self._token_after(session, written), changes)
        return self._outcome(written, wait)

    def rotate(self, session: Session, confirm: Confirm | None = None) -> Outcome | Future[Outcome]:
        """Give the session a new id with the same data, changes of this request included; end the old id.

        A session that was never stored only changes its id.
        """
        new_id = session_id(os.urandom(ENTROPY_BYTES))
        new_sid = sid_of(new_id)
        if session.is_new:
            session.moved(new_id, empty_record(new_sid))
            return Confirmed(0, 0)
        changes = session.changes()
        wait, confirm = self._new_wait(), self._confirm if confirm is None else confirm
        written = self._node.submit(Rotate(session.record.sid, new_sid, changes, confirm, wait.set_result))
        if not isinstance(written.outcome, Gone):
            session.moved(
                new_id, session.record
            )  # first: what the old id's token still missed is no write of the new id
            session.committed(written.record, self._token_after(session, written), changes)
        return self._outcome(written, wait)

    def invalidate(self, session: Session, confirm: Confirm | None = None) -> Outcome | Future[Outcome]:
        """End the session for good, on every node. By default all live holders are waited for.

        The `Session` is empty afterwards, and a commit of it answers `Gone`.
        """
        if session.is_new:
            session.ended(dead_record(session.record.sid, 1))  # nobody else has heard of it
            return Confirmed(0, 0)
        wait, confirm = self._new_wait(), "all" if confirm is None else confirm
        written = self._node.submit(Invalidate(session.record.sid, confirm, wait.set_result))
        session.ended(written.record)
        return self._outcome(written, wait)

    def former_ids(self, name: bytes) -> list[str]:
        """Return the ids that `create(name)` gave under the cluster's former secrets, while they are still known."""
        return [session_id(derived) for derived in self._tokens.derived(name)[1:]]

    def mark(self, name: bytes) -> Session | Future[Session | None] | None:
        """Return what says that the cookie of this name was adopted; None where it was not. Waits as `load` does.

        Others are asked each time: since they last had no mark it may have been adopted, and its session have ended.
        """
        return self._load("", mark_sid(name), "", (), anew=True)

    def load_derived(self, session_id: str) -> Session | Future[Session | None] | None:
        """Return what `load` does for an id that `create(name)` or `former_ids` gave.

        Others are asked each time: unlike an id that was drawn, it may have come to be since nobody knew it.
        """
        return self._load(session_id, sid_of(session_id), "", (), anew=True)

    def adopt(
        self, session: Session, name: bytes, signed_at: float, created_at: float | None = None
    ) -> Outcome | Future[Outcome]:
        """Store a session made by `create(name)`, as it was when its cookie was signed (Unix time, seconds).

        `Gone`, and it is empty, where it has ended, also since its user was revoked after the signature, or would have
        ended by time: its age counts from there, or from `created_at`, which is to follow from the cookie too.

        Raises:
            MemoryFull: there is no room for it. Nothing is stored.
        """
        signed_ms = round(signed_at * 1000)
        created_ms = signed_ms if created_at is None else round(created_at * 1000)
        held = {**dict(self._registers(created_ms)), **dict(session.changes())}
        changes = tuple([(key, value) for key, value in held.items() if not isinstance(value, Added)])  # no counters
        wait, written = self._adopted(session.record.sid, changes, name, signed_ms)
        if isinstance(written.outcome, Gone):
            session.ended(written.record)
        else:
            session.committed(written.record, "", changes)
        return self._outcome(written, wait)

    def put_mark(self, name: bytes, signed_at: float, ends_at: float) -> Outcome | Future[Outcome]:
        """Note that the cookie of this name was adopted; kept for as long as it would be valid (Unix time, seconds).

        To be called when the session is stored elsewhere too: who finds the mark and not that takes it for ended.
        """
        signed_ms, ends_ms = round(signed_at * 1000), round(ends_at * 1000)
        life = ((CREATED, signed_ms), (IDLE, ends_ms - signed_ms), (ABSOLUTE, ends_ms))
        registers = tuple([(key, register_value(number)) for key, number in life])
        wait, written = self._adopted(mark_sid(name), registers, name, signed_ms)
        return self._outcome(written, wait)

    def revoke(self, user: str, confirm: Confirm | None = None) -> Revoked | Future[Revoked]:
        """End every session of a user (`Session.user`) for good: here, and on each other node once it hears of it.

        Sessions that this node does not hold end too, and those on nodes out of reach when they are back. A login
        made later lives. By default all live holders are waited for.

        Raises:
            UnreplicableValue, SessionTooLarge: no session can have such a user.
        """
        check_user(user)
        wait, confirm = self._new_wait(), "all" if confirm is None else confirm
        written = self._node.submit(Revoke(user_sid(user), confirm, wait.set_result))
        outcome = self._outcome(written, wait)
        if not isinstance(outcome, Future):
            return _revoked(written.ended, outcome)
        future: Future[Revoked] = Future()
        future.set_running_or_notify_cancel()  # nobody can cancel it, and it is set exactly once
        outcome.add_done_callback(lambda settled: future.set_result(_revoked(written.ended, settled.result())))
        return future

    def time(self) -> float:
        """Return the cluster's time, by which sessions end: Unix time, seconds."""
        return self._node.time_ms() / 1000

    # --- inside -------------------------------------------------------------------------------------------

    def _named_untrusted(self, name: str, token: str) -> _Named:
        named = self._named.get(name)
        if named is None or named.token != token:
            sid = sid_of(name)
            named = self._remembered(name, _Named(sid, token, self._tokens.read_untrusted(sid, token)))
        return named

    def _remembered(self, name: str, named: _Named) -> _Named:
        if len(self._named) >= NAMED_MAX:
            self._named.clear()  # costs as much as to let the oldest go, one by one, while others add to it
        self._named[name] = named
        return named

    def _answer(self, named: _Named, record: Record, time_ms: int) -> _Answer | None:
        """Return what a record says to those who name it so; None where it is no session, or lacks their writes."""
        accessed_ms, grain_ms, until_ms = self._table.life(record)
        if record.tombstone or until_ms <= time_ms:
            return None  # over as far as is known here: another node may know of a later access
        if accessed_ms + grain_ms < until_ms:
            until_ms = accessed_ms + grain_ms
        dots, claims = recent(named.dots, time_ms), record.claims
        for origin, stamp in dots:
            if claims.get(origin, 0) < stamp and not record.contains(origin, stamp):  # a call only where in doubt
                return None
            if too_old_ms(stamp) < until_ms:
                until_ms = too_old_ms(stamp)
        named.answer = answer = record.state_hash, until_ms, accessed_ms / 1000, named.token if dots else ""
        return answer

    def _load(
        self, name: str, sid: Sid, token: str, dots: tuple[Dot, ...], *, anew: bool = False
    ) -> Session | Future[Session | None] | None:
        record = self._records.get(sid)
        if record is not None and record.tombstone:
            return None  # for good: no holder could say otherwise
        dots = recent(dots, self._node.time_ms())
        if record is None and not dots and not anew and self._known_absent(sid):
            return None
        return self._fetched(name, sid, token if dots else "", dots)

    def _opened(
        self,
        name: str,
        record: Record,
        life: Life,
        token: str,
        time_ms: int,
        unmet: tuple[Dot, ...] = (),
        *,
        stale: bool = False,
    ) -> Session:
        if time_ms - life.accessed_ms >= life.grain_ms:
            self._node.submit(Accessed(record.sid))
        accessed_at = life.accessed_ms / 1000
        if unmet or stale:
            return self._session_class(name, record, accessed_at, token, unmet=unmet, stale=stale)
        return self._session_class(name, record, accessed_at, token)  # most requests

    def _fetched(
        self, name: str, sid: Sid, token: str, dots: tuple[Dot, ...]
    ) -> Session | Future[Session | None] | None:
        future: Future[Session | None] = Future()
        future.set_running_or_notify_cancel()  # from here on nobody can cancel it, and it is set exactly once

        def settle(found: Found) -> None:
            try:
                session = self._found(name, sid, token, dots, found)
            except Exception as error:  # whoever waits is told of any
                future.set_exception(error)
            else:
                future.set_result(session)

        found = self._node.submit(Fetch(sid, dots, settle))
        return future if found is None else self._found(name, sid, token, dots, found)

    def _found(self, name: str, sid: Sid, token: str, dots: tuple[Dot, ...], found: Found) -> Session | None:
        record = self._records.get(sid)
        if record is None:
            if found is Found.UNKNOWN:
                raise SessionUnavailable(
                    "a node that may hold this session did not answer in time. Keep the cookie, and try again."
                )
            self._note_absent(sid)
            return None
        life, time_ms = self._table.life(record), self._node.time_ms()
        if record.tombstone or life.ends_ms <= time_ms:
            return None
        unmet = tuple([dot for dot in dots if not record.contains(*dot)])
        return self._opened(name, record, life, token, time_ms, unmet, stale=found is Found.STALE)

    def _adopted(
        self, sid: Sid, changes: tuple[tuple[str, bytes | None], ...], name: bytes, signed_ms: int
    ) -> tuple[Future[Outcome], Written]:
        wait = self._new_wait()
        delta = adopted(sid, changes, name, signed_ms, self._node.time_ms())
        return wait, self._node.submit(Adopt(delta, self._confirm, wait.set_result))

    def _registers(self, time_ms: int) -> Changes:
        return (
            (CREATED, register_value(time_ms)),
            (IDLE, register_value(self._idle_ms)),
            (ABSOLUTE, register_value(time_ms + self._absolute_ms)),
        )

    def _token_after(self, session: Session, written: Written) -> str:
        record, _, _, stamp = written
        unmet, wrote = session.unmet, (self._origin, stamp)
        dots = (unmet[0], wrote) if unmet else (wrote,)
        token = self._tokens.make(record.sid, dots)
        named, before = _Named(record.sid, token, dots), session.record
        known = self._named.get(session.id)
        state_hash, until_ms, _, _ = _NO_ANSWER if known is None else known.answer
        if state_hash == before.state_hash and not unmet and _ends_alike(before, record):
            # What was answered before holds on, since a write makes no session end sooner.
            named.answer = record.state_hash, until_ms, time_ms_of(stamp) / 1000, token
        self._remembered(session.id, named)  # a visitor's next request shows it, most often here
        return token

    def _new_wait(self) -> Future[Outcome]:
        """Return what `Settle` is to set. One that nothing was waited for with will do: making one costs some 5 us."""
        try:
            return self._waits.pop()
        except IndexError:
            wait: Future[Outcome] = Future()
            wait.set_running_or_notify_cancel()  # nobody can cancel it, and it is set exactly once
            return wait

    def _outcome(self, written: Written, wait: Future[Outcome]) -> Outcome | Future[Outcome]:
        """Return what is known at once, or the Future of it."""
        if written.outcome is None:
            return wait
        self._waits.append(wait)  # the node has let go of it
        return written.outcome

    def _known_absent(self, sid: Sid) -> bool:
        until_s = self._absent.get(sid)
        return until_s is not None and self._node.now() < until_s

    def _note_absent(self, sid: Sid) -> None:
        with self._noting:
            self._absent.pop(sid, None)
            if len(self._absent) >= ABSENT_MAX:
                del self._absent[next(iter(self._absent))]
            self._absent[sid] = self._node.now() + ABSENT_FOR_S


def _ends_alike(one: Record, other: Record) -> bool:
    mine, its = one.entries, other.entries
    return mine.get(IDLE) is its.get(IDLE) and mine.get(ABSOLUTE) is its.get(ABSOLUTE)


def _revoked(ended: int, outcome: Outcome) -> Revoked:
    assert not isinstance(outcome, Gone), "what ends sessions does not end itself"
    return Revoked(ended, outcome)
