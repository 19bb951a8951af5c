# Workload: sends a scenario's requests to a cluster, as browsers behind a balancer would.
#
# A client keeps the session id it was given last, and the newest writes it was told of, as its token. A request
# goes to the slot that the scenario names, or to the next one that serves.
# Not here: what requests there are (scenario.py, swarm.py), whether the answers are right (checkers.py).

from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from typing import Any, Final

from gossipsess.model.identity import SID_BYTES, Sid
from gossipsess.model.record import ABSOLUTE, CREATED, IDLE, USER
from gossipsess.model.revocation import user_sid, user_value
from gossipsess.model.table import register_value
from gossipsess.protocol.events import Accessed, Changes, Dot, Fetch, Invalidate, Revoke, Rotate, Write
from gossipsess.protocol.outcomes import Found, Gone
from gossipsess.protocol.writes import Written
from gossipsess.session import Session
from gossipsess.sim.cluster import Cluster
from gossipsess.sim.cookies import Cookies
from gossipsess.sim.network import luck
from gossipsess.sim.process import EPOCH_MS, Process
from gossipsess.sim.scenario import SUBKEY_KINDS, Request

USERS: Final = 2
"""People who log in; each may do so in several browsers."""
MEMBERS: Final = 4
"""What sets are made of: few, so that one member is added and discarded at the same moment."""
THINKS_S: Final = 0.2
"""How long a request is under way, at most, between what it reads of a counter or a set and what it writes."""
ADDITIONS_MAX: Final = 60
"""Additions of one client that are told apart by their amounts, within 64 bits."""


class _Client:
    """A browser: the session id it was given last, the one before, and the newest two writes it was told of."""

    def __init__(self, seed: int, number: int) -> None:
        self._name = f"{seed} client {number}"
        self._ids = 0
        self.sid = self.old_sid = self.new_sid()
        self.dots: tuple[Dot, ...] = ()
        self.additions = 0

    def next_amount(self) -> int:
        """Return what it adds to a counter next: a power of two, so that a sum tells what is in it."""
        self.additions += 1
        return 1 << (self.additions - 1) % ADDITIONS_MAX

    def new_sid(self) -> Sid:
        self._ids += 1
        return blake2b(f"{self._name} {self._ids}".encode("ascii"), digest_size=SID_BYTES).digest()

    def goes_on_as(self, sid: Sid) -> None:
        """Take a new session's id, with nothing read of it yet."""
        self.old_sid, self.sid, self.dots = self.sid, sid, ()


class Workload:
    """Sends a scenario's requests to a cluster."""

    def __init__(self, cluster: Cluster, cookies: Cookies) -> None:
        self._cluster = cluster
        self._cookies = cookies
        self._clients: dict[int, _Client] = {}
        for request in cluster.scenario.requests:
            cluster.after(request.at_s, partial(self._arrive, request))

    def _arrive(self, request: Request) -> None:
        serving = [process for process in self._cluster.live if process.serves]
        if not serving:
            return
        process = next((one for one in serving if one.slot >= request.slot), serving[0])
        client = self._clients.setdefault(request.client, _Client(self._cluster.seed, request.client))
        sid, dots = client.sid, client.dots
        match request.kind:
            case "log in":
                client.goes_on_as(client.new_sid())
                self._create(process, client, request)
            case "log in as" if request.key == "cart":  # in a new session; else in the one that there is
                client.goes_on_as(client.new_sid())
                self._create(process, client, request, _login(request))
            case "revoke":
                user = user_sid(_user(request))
                self._cluster.submit(process, Revoke(user, request.confirm, Waiter()))
            case "invalidate":
                self._cluster.submit(process, Invalidate(sid, request.confirm, Waiter()))
            case "access":
                self._cluster.submit(process, Accessed(sid))
            case "adopt":
                self._cookies.show(process, request.client, partial(self._adopted, process, client, request))
            case "old cookie":
                self._cluster.submit(process, Fetch(client.old_sid, (), Waiter()))
            case "write" if process.records.get(sid) is None and not dots:
                self._create(process, client, request)
            case "write" | "delete" | "rotate" | "log in as":
                self._change(process, client, request, sid)
            case _:
                waiter = Waiter(partial(self._found, process, client, request, sid))
                found = self._cluster.submit(process, Fetch(sid, dots, waiter))
                if isinstance(found, Found):
                    self._found(process, client, request, sid, found)

    def _found(self, process: Process, client: _Client, request: Request, sid: Sid, found: Found) -> None:
        if found not in (Found.FRESH, Found.STALE) or not process.serves:
            return
        self._cluster.submit(process, Accessed(sid))
        if request.kind == "read and write":
            self._change(process, client, request, sid)
        elif request.kind in SUBKEY_KINDS:
            self._use(process, client, request, sid)

    def _use(self, process: Process, client: _Client, request: Request, sid: Sid) -> None:
        """Do what a request does with a counter or a set of the session that it has read; it commits a moment later."""
        record = process.records.get(sid)
        if record is None or record.tombstone:
            return
        session, member = Session("", record, self._cluster.now_s), request.number % MEMBERS
        match request.kind:
            case "count":
                session.counter_of(request.key).add(client.next_amount())
            case "clear counter":
                session.counter_of(request.key).clear()
            case "collect":
                session.set_of(request.key).add(member)
            case _:
                session.set_of(request.key).discard(member)
        changes = session.changes()
        if changes:
            write = Write(sid, changes, request.confirm, Waiter(), record)
            after_s = THINKS_S * luck(self._cluster.seed, "thinks", request.number)[0] ** 2
            self._cluster.after(after_s, partial(self._commit, process, client, write))

    def _commit(self, process: Process, client: _Client, write: Write) -> None:
        if process.serves:
            self._told(process, client, write.sid, self._cluster.submit(process, write))

    def _adopted(self, process: Process, client: _Client, request: Request, session: Session | None) -> None:
        if session is None:
            return
        sid = session.record.sid
        if sid != client.sid:
            client.goes_on_as(sid)
        if process.serves:
            self._change(process, client, request, sid)

    def _create(self, process: Process, client: _Client, request: Request, login: Changes = ()) -> None:
        time_ms = EPOCH_MS + round(self._cluster.now_s * 1000)
        changes: Changes = (
            (CREATED, register_value(time_ms)),
            (IDLE, register_value(self._cluster.scenario.idle_ms)),
            (ABSOLUTE, register_value(time_ms + self._cluster.scenario.absolute_ms)),
            (request.key, _value(request)),
            *login,
        )
        write = Write(client.sid, changes, request.confirm, Waiter())
        self._told(process, client, client.sid, self._cluster.submit(process, write))

    def _change(self, process: Process, client: _Client, request: Request, sid: Sid) -> None:
        changes: Changes = ((request.key, None if request.kind == "delete" else _value(request)),)
        event: Write | Rotate
        if request.kind == "log in as":
            changes += _login(request)
        if request.kind == "rotate" or (request.kind == "log in as" and request.key == "user"):
            event = Rotate(sid, client.new_sid(), changes, request.confirm, Waiter())
        else:
            event = Write(sid, changes, request.confirm, Waiter())
        written = self._cluster.submit(process, event)
        if isinstance(event, Rotate) and isinstance(written, Written) and not isinstance(written.outcome, Gone):
            sid = event.new_sid
            client.goes_on_as(sid)
        self._told(process, client, sid, written)

    def _told(self, process: Process, client: _Client, sid: Sid, written: Written | Found | None) -> None:
        if isinstance(written, Written) and not isinstance(written.outcome, Gone) and sid == client.sid:
            client.dots = (*client.dots, (process.node, written.stamp))[-2:]


class Waiter:
    """Called with the outcome of one wait; each is an object of its own, by which the checker knows the wait."""

    def __init__(self, then: Callable[[Found], None] | None = None) -> None:
        self._then = then

    def __call__(self, outcome: Any) -> None:
        if self._then is not None:
            self._then(outcome)


def _user(request: Request) -> str:
    return f"user {request.client % USERS}"


def _login(request: Request) -> Changes:
    return ((USER, user_value(_user(request))),)


def _value(request: Request) -> bytes:
    return f"request {request.number}".encode("ascii").ljust(request.value_bytes, b".")
