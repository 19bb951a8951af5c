# A process with one node that does what it is asked over a Unix socket, until it is killed.
#
# In:     python node.py SOCKET, and GOSSIPSESS_*. One request a connection: a line of JSON, {"do": method, ...}.
# Out:    a line of JSON, {"answer": ...} or {"failure": traceback}.
# Choice: a connection for each request, and a thread for each connection. So a request to a paused process stays
#         in the kernel and is carried out after SIGCONT, as one that a load balancer had passed on would be.
# Not here: who is hurt when, and what must hold (the modules one folder up).

import contextlib
import json
import os
import socketserver
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from digests import digests

from gossipsess.config import Config
from gossipsess.errors import SessionUnavailable
from gossipsess.model.identity import sid_of
from gossipsess.model.record import ABSOLUTE, CREATED, IDLE, RESERVED
from gossipsess.model.table import register_value
from gossipsess.protocol.outcomes import Gone, Outcome
from gossipsess.protocol.placement import partition_of
from gossipsess.service import RunningNode
from gossipsess.session import Session
from gossipsess.waiting import blocking
from gossipsess.wire.values import decode_value, encode_value

LOOK_S = 0.002
"""How often a wait looks. A detection is measured no finer than this."""
HOUR_MS = 3_600_000
SPIN_S = 0.001
"""The end of a wait for an agreed moment is spent spinning: a sleep may end a millisecond late."""


class App:
    """One node. Public methods take and return what JSON can say."""

    def __init__(self) -> None:
        self._service = RunningNode(Config.from_env())
        self._store = self._service.store

    def status(self) -> dict[str, Any]:
        """Return what the node says of itself, and this process's id."""
        status = self._service.status()
        return {
            "pid": os.getpid(),
            "node": status.node,
            "synced": status.synced,
            "sessions": status.sessions,
            "unconfirmed": status.unconfirmed,
            "overwrites": status.overwrites,
            "states": {member.node: member.state for member in status.members},
            "linked": [member.node for member in status.members if member.linked],
        }

    def digests(self) -> dict[str, Any]:
        """See `digests.digests`."""
        return digests(self._service.node)

    def shown(self, ids: list[str]) -> list[dict[str, Any] | None]:
        """Return what this node has of these sessions; None for one that is ended.

        What it is to hold itself is looked up here alone, all else as a request would find it: by asking a holder.
        """
        layout, myself = self._service.node.replica.placement.layout, self._service.node.node_id
        return [
            self._values(one) if layout.holds(myself, partition_of(sid_of(one))) else self._served(one) for one in ids
        ]

    # --- what a request does --------------------------------------------------------------------------------

    def login(self, key: str, value: str, confirm: int | str) -> dict[str, Any]:
        """Begin a session with one value."""
        session = self._store.create()
        session[key] = value
        return self._committed(session, {}, confirm)

    def write(self, cookie: str, key: str, value: str, confirm: int | str) -> dict[str, Any]:
        """Load a session, look at all of it, and set one key."""
        session, missing = self._loaded(cookie)
        if session is None:
            return missing
        seen = dict(session)
        session[key] = value
        return self._committed(session, seen, confirm)

    def read(self, cookie: str) -> dict[str, Any]:
        """Load a session and look at all of it."""
        session, missing = self._loaded(cookie)
        if session is None:
            return missing
        return _told("read", 0, session, dict(session))

    def rotate(self, cookie: str) -> dict[str, Any]:
        """Give a session a new id."""
        session, missing = self._loaded(cookie)
        if session is None:
            return missing
        seen = dict(session)
        outcome = blocking(self._store.rotate(session))
        return _told(type(outcome).__name__, _nodes(outcome), session, seen)

    def logout(self, cookie: str) -> dict[str, Any]:
        """End a session."""
        session, missing = self._loaded(cookie)
        if session is None:
            return missing
        seen = dict(session)
        outcome = blocking(self._store.invalidate(session))
        return _told(type(outcome).__name__, _nodes(outcome), session, seen)

    # --- load -----------------------------------------------------------------------------------------------

    def create(self, sessions: int, value_bytes: int, confirm: int) -> list[str]:
        """Create sessions with one random value each; return their cookies."""
        cookies: list[str] = []
        for _ in range(sessions):
            session = self._store.create()
            session["data"] = os.urandom(value_bytes)
            blocking(self._store.commit(session, confirm))
            cookies.append(session.cookie)
        return cookies

    def write_behind(self, session_id: str, key: str, value_bytes: int) -> float:
        """Write one key, of a session that may be new, and tell no other node; return when that was."""
        sid, node = sid_of(session_id), self._service.node
        changes = [(key, encode_value(os.urandom(value_bytes), key))]
        with node.locked() as replica:
            sessions, now_s = replica.sessions, node.now()
            before = sessions.table.get(sid)
            time_ms = sessions.clock.time_ms(now_s)
            if not before.entries:
                registers = ((CREATED, time_ms), (IDLE, HOUR_MS), (ABSOLUTE, time_ms + HOUR_MS))
                changes += [(name, register_value(number)) for name, number in registers]
            sessions.table.write(sid, changes, sessions.clock.tick(now_s, before.newest), replica.node, now_s)
        return time.monotonic()

    def race(self, cookies: list[str], own: str, other: str, at_s: float, every_s: float) -> list[int]:
        """Set `own` and the key "same" in each session at its agreed moment.

        Returns the numbers of the sessions in which `other` was not to be seen at that moment.
        """
        blind: list[int] = []
        for number, cookie in enumerate(cookies):
            due_s = at_s + number * every_s
            time.sleep(max(0.0, due_s - SPIN_S - time.monotonic()))
            while time.monotonic() < due_s:
                pass
            session, _ = self._loaded(cookie)
            if session is None:
                continue  # found missing when all is compared
            if other not in session:
                blind.append(number)
            session[own] = number
            session["same"] = f"{own} {number}"
            blocking(self._store.commit(session, number % 2))
        return blind

    def hammer(self, cookie: str, own: str, updates: int, at_s: float) -> None:
        """From an agreed moment on write one session unpaced: a key of this node's, and one that all write."""
        time.sleep(max(0.0, at_s - time.monotonic()))
        for number in range(updates):
            session, _ = self._loaded(cookie)
            assert session is not None, "the session is held here"
            session[f"{own} {number % 10}"] = number
            session["same"] = f"{own} {number}"
            blocking(self._store.commit(session, 0))

    def load(self, cookies: list[str], writers: int, seconds: float, value_bytes: int) -> list[float]:
        """Write round-robin over the sessions with confirm=1, as fast as it goes.

        Returns the latency of every request, load to confirmation, in seconds.
        """
        end_s = time.monotonic() + seconds

        def work(writer: int) -> list[float]:
            took_s: list[float] = []
            number = writer
            while (began_s := time.monotonic()) < end_s:
                session, _ = self._loaded(cookies[number % len(cookies)])
                assert session is not None, "the session is held here"
                session["data"] = os.urandom(value_bytes)
                blocking(self._store.commit(session, 1))
                took_s.append(time.monotonic() - began_s)
                number += writers
            return took_s

        with ThreadPoolExecutor(writers) as threads:
            return [one_s for took_s in threads.map(work, range(writers)) for one_s in took_s]

    # --- waits ----------------------------------------------------------------------------------------------

    def wait_dead(self, node: str, within_s: float) -> dict[str, Any]:
        """Wait until a member is known to be dead.

        Returns when that was on the monotonic clock of the machine, None for not in time; and who else is
        taken for dead, or suspected, at that moment.
        """
        until_s = time.monotonic() + within_s
        while True:
            states = {member.node: member.state for member in self._service.status().members}
            now_s = time.monotonic()
            if states.get(node) == "dead" or now_s > until_s:
                dead = states.pop(node, "") == "dead"
                return {"at_s": now_s if dead else None, "others": states}
            time.sleep(LOOK_S)

    def wait_held(self, session_id: str, key: str, within_s: float) -> float | None:
        """Wait until this node holds a key; return when that was on the monotonic clock, None for not in time."""
        until_s = time.monotonic() + within_s
        while key not in (self._values(session_id) or ()):
            if time.monotonic() > until_s:
                return None
            time.sleep(LOOK_S)
        return time.monotonic()

    # --- inside ---------------------------------------------------------------------------------------------

    def _loaded(self, cookie: str) -> tuple[Session | None, dict[str, Any]]:
        before = self._linked()
        try:
            session = blocking(self._store.load(cookie))
        except SessionUnavailable:
            return None, {"outcome": "unavailable"}
        if session is not None:
            return session, {}
        return None, {"outcome": "absent", "linked": [index for index in self._linked() if index in before]}

    def _served(self, session_id: str) -> dict[str, Any] | None:
        session = blocking(self._store.load(session_id))
        return dict(session) if session is not None else None

    def _linked(self) -> list[int]:
        """Return the places of the nodes that this one is linked to: places are what nodes are named after."""
        return [int(member.name) for member in self._service.status().members if member.linked]

    def _committed(self, session: Session, seen: dict[str, Any], confirm: int | str) -> dict[str, Any]:
        stale = session.stale
        outcome = blocking(self._store.commit(session, "all" if isinstance(confirm, str) else confirm))
        return _told(type(outcome).__name__, _nodes(outcome), session, seen) | {"stale": stale}

    def _values(self, session_id: str) -> dict[str, Any] | None:
        record = self._service.node.records.get(sid_of(session_id))
        if record is None or record.tombstone:
            return None
        return {
            key: _shown(entry.value)
            for key, entry in record.entries.items()
            if entry.value is not None and key[:1] != RESERVED
        }


def _shown(encoded: bytes) -> Any:
    value = decode_value(encoded)
    return value.hex() if isinstance(value, bytes) else value


def _told(outcome: str, nodes: int, session: Session, seen: dict[str, Any]) -> dict[str, Any]:
    return {"outcome": outcome, "nodes": nodes, "cookie": session.cookie, "seen": seen, "stale": session.stale}


def _nodes(outcome: Outcome) -> int:
    return 0 if isinstance(outcome, Gone) else outcome.nodes


class _Requests(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        line = self.rfile.readline()
        if not line:
            return  # only looked whether somebody is here
        request: dict[str, Any] = json.loads(line)
        try:
            answer = {"answer": getattr(app, request.pop("do"))(**request)}
        except Exception:
            answer = {"failure": traceback.format_exc()}
        with contextlib.suppress(OSError):  # whoever asked has given up
            self.wfile.write(json.dumps(answer).encode() + b"\n")


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 256


if __name__ == "__main__":
    app = App()
    threading.Thread(target=_Server(sys.argv[1], _Requests).serve_forever, daemon=True).start()
    threading.Event().wait()
