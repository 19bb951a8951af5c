# Service: settings in, running node and store out.
#
# RunningNode         a node in a background thread, for callers that are not Trio
# lone_node()         a node without network or thread: one process, for tests
# process_node()      the node that everything in this process shares, a new one after a fork
# leave_at_sigterm()  what servers see to that handle signals, for the others
#
# Nothing of a node survives a fork: its thread is gone, and with its id two processes would claim each other's
# writes and seal with the same nonces. So the child forgets it, and starts its own when it first asks.

import _thread
import atexit
import ipaddress
import logging
import os
import random
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING

from gossipsess.config import Config
from gossipsess.errors import ConfigError
from gossipsess.model.identity import NODE_ID_BYTES, is_session_id, sid_of
from gossipsess.model.member import Address, Member, MemberState
from gossipsess.node import Node
from gossipsess.protocol.effects import Notify
from gossipsess.protocol.events import Watch
from gossipsess.protocol.memory import MIB
from gossipsess.protocol.placement import partition_of
from gossipsess.protocol.replica import ALONE_S, Replica, Settings
from gossipsess.runtime import handover, localkey
from gossipsess.runtime.forks import unforked
from gossipsess.runtime.greenlets import refuse_greenlets
from gossipsess.runtime.sockets import Sockets, bind, is_local, route_address
from gossipsess.runtime.transport import Endpoint
from gossipsess.session import Session
from gossipsess.status import Status, snapshot
from gossipsess.store import ABSOLUTE_TIMEOUT_S, IDLE_TIMEOUT_S, SessionStore
from gossipsess.subscription import Subscription
from gossipsess.tokens import Tokens
from gossipsess.wire.keyring import Keyring

if TYPE_CHECKING:  # a process that serves nothing never pays for importing Trio
    from gossipsess.runtime.driver import Driver

log = logging.getLogger("gossipsess")

READY_S = 10.0
"""How long a start waits to be synced. Then it goes on: what is missing is pulled when it is asked for."""
READY_STEP_S = 0.01
SPARED_S = 0.1
"""How long a signal that ends this process may take to do so."""


class NodeService:
    """One node and the stores over it; what runs it is the caller's, or a `RunningNode`'s.

    Attributes:
        closed: of a `RunningNode`, that it has left, or is leaving, or runs in the process of which this is a fork.
    """

    closed = False

    def __init__(
        self,
        config: Config,
        sockets: Endpoint | None,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Make a node that nobody drives yet.

        Args:
            config: its settings.
            sockets: what it listens on, closed with it; None for a lone node.
            now: its clock, seconds that never go back; asked from any thread.
            wall: Unix time, seconds; asked once, here.
        """
        self.config = config
        self.sockets = sockets
        try:
            self.keyring = self._keyring()
        except ConfigError:
            if sockets is not None:
                sockets.close()
            raise
        self.node = Node(self._replica(now(), wall()), now)
        self.store = self.new_store()
        self._subscriptions: dict[Subscription, None] = {}
        self._watching = threading.Lock()  # so that of two threads, the one that goes does not silence the other

    def new_store(
        self,
        session_class: type[Session] = Session,
        idle_timeout_s: float | None = None,
        absolute_timeout_s: float | None = None,
    ) -> SessionStore:
        """Return a store over this node that makes sessions of that class.

        Where a timeout and its setting are both given, sessions end by the sooner; where neither is, by
        `IDLE_TIMEOUT_S` and `ABSOLUTE_TIMEOUT_S`.
        """
        keys = (self.keyring.primary, *self.keyring.fallbacks)
        return SessionStore(
            self.node,
            Tokens(tuple(key.token_key for key in keys)),
            confirm=self.config.confirm,
            idle_timeout_s=_sooner(self.config.idle_timeout_s, idle_timeout_s, IDLE_TIMEOUT_S),
            absolute_timeout_s=_sooner(self.config.absolute_timeout_s, absolute_timeout_s, ABSOLUTE_TIMEOUT_S),
            session_class=session_class,
        )

    def status(self) -> Status:
        """Return what the node can say of itself now."""
        return snapshot(self.node)

    def holders_of(self, cookie: str) -> tuple[str, ...]:
        """Return the names of the nodes that are to hold the session a client's cookie names, the primary first.

        By this node's view of the members; whether such a session exists is not looked at. Empty for what has not the
        form of a cookie of ours.
        """
        name = cookie.partition(".")[0]
        if not is_session_id(name):
            return ()
        with self.node.locked() as replica:
            return tuple(member.name for member in replica.placement.layout.holders(partition_of(sid_of(name))))

    def subscribe(self) -> Subscription:
        """Return an iterator over changes to sessions from now on, made here or elsewhere.

        It comes to its end when the node does.

        Each node tells its subscribers of an expiry once. Of those that hold the session one tells it with `remote`
        false: that is where to clean up after it. After a partition, or a death at that very moment, it may be none or
        two; and a session that ended on one side of a partition may turn out to be in use on the other, and is back.
        """
        assert self.sockets is not None, "a lone node has no driver to tell of changes"
        subscription = Subscription(self._unsubscribe)
        with self._watching:
            self._subscriptions[subscription] = None
            self.node.submit(Watch(on=True))
        if not self.node.is_driven:
            subscription.close()  # nobody would tell it of anything
        return subscription

    @property
    def synced(self) -> bool:
        """The node has what the live members had when it met them, or has waited long enough alone."""
        return self.node.replica.sessions.synced

    def make_driver(self, *, answers: bool = False) -> "Driver":
        """Return what runs the node on a Trio loop; `answers`: it can be asked from outside its process."""
        from gossipsess.runtime.admin import Admin
        from gossipsess.runtime.driver import Driver

        assert self.sockets is not None, "a lone node has nothing to drive"
        group = self.config.discovery_parts().multicast
        admin = Admin(self.node, self.config.cluster) if answers else None
        return Driver(self.node, self.keyring, self.sockets.transport(), group, self._notify, self._ended, admin)

    def _notify(self, notify: Notify) -> None:
        for subscription in list(self._subscriptions):
            subscription.heard(notify)

    def _ended(self) -> None:
        for subscription in list(self._subscriptions):
            subscription.close()

    def _unsubscribe(self, subscription: Subscription) -> None:
        with self._watching:
            self._subscriptions.pop(subscription, None)
            if not self._subscriptions:
                self.node.submit(Watch(on=False))

    def _keyring(self) -> Keyring:
        secret = self.config.secret
        if secret is None:
            secret, path = localkey.local_secret()
            if self.sockets is not None:
                log.info("no secret is set: loopback only, sealed with the key in %s", path)
        return Keyring.from_secrets(self.config.cluster, secret, self.config.secret_fallbacks)

    def _replica(self, now_s: float, wall_s: float) -> Replica:
        config = self.config
        parts = config.discovery_parts()
        address = self._address()
        myself = Member(
            node=os.urandom(NODE_ID_BYTES),
            incarnation=0,
            state=MemberState.ALIVE,
            address=address,
            name=config.node_name or f"{address[0]}:{address[1]}",
            host=config.host or address[0],
            zone=config.zone or "",
        )
        seeds = tuple(seed for seed in parts.seeds if seed != address)
        looks_for_others = bool(seeds or parts.names) or parts.multicast is not None
        settings = Settings(
            confirm_timeout_s=config.confirm_timeout_s,
            seeds=seeds,
            siblings=self._siblings(address) if seeds or parts.names else (),
            beacons=parts.multicast is not None,
            names=parts.names,
            names_when_alone=parts.names_when_alone,
            alone_s=ALONE_S if looks_for_others else 0.0,
            memory_limit_bytes=config.memory_limit_mb * MIB,
            all_to_all_below=config.all_to_all_below,
            secondaries=config.secondaries,
            count_by=config.count_by,
        )
        replica = Replica(
            myself,
            settings,
            clock_offset_ms=round((wall_s - now_s) * 1000),
            rng=random.Random(os.urandom(16)),  # noqa: S311  # spreads probes and retries; ids come from os.urandom
            now_s=now_s,
        )
        if self.sockets is None:
            replica.sessions.waited_long_enough(now_s)
        return replica

    def _siblings(self, address: Address) -> tuple[Address, ...]:
        """Return where other workers of this machine serve, if there are any.

        Beacons tell of them; but seeds and records name other machines, or a pod once for all its workers.
        """
        first = self.config.port
        ports = range(first, min(first + self.config.port_range, 65536)) if first else ()
        return tuple([(address[0], port) for port in ports if port != address[1]])

    def _address(self) -> Address:
        if self.sockets is None:
            return (self.config.advertise or self.config.bind_address, 0)
        return (advertised_host(self.config), self.sockets.port)


_running: "weakref.WeakSet[RunningNode]" = weakref.WeakSet()  # iterated only to close each; order is no matter


class RunningNode(NodeService):
    """A node in a background thread of this process."""

    def __init__(self, config: Config, *, has_heirs: bool = False) -> None:
        """Start it. `has_heirs`: it takes over what those before it have left, and leaves its own (`handover.py`)."""
        refuse_greenlets()
        from gossipsess.runtime.portal import Portal

        self._closing = threading.Lock()  # whoever closes it too waits until it has left
        self._hands_over = has_heirs
        with unforked:  # a child must find what it is to let go of
            super().__init__(config, listen(config))
            self._driver = self.make_driver(answers=True)
            _running.add(self)
        if has_heirs:
            handover.inherit(self.node, self.keyring)
        self._portal = Portal(self._driver)

    def wait_ready(self, timeout_s: float) -> bool:
        """Block until the node is synced, or alone for two seconds; False when `timeout_s` ran out first."""
        until_s = time.monotonic() + timeout_s
        while not self.synced and time.monotonic() < until_s:
            time.sleep(READY_STEP_S)
        return self.synced

    def orphaned(self) -> None:
        """Let go, after a fork, of what is the parent's: its peers would not notice that it died."""
        self.closed = True
        self._driver.close_sockets()
        self.node.orphaned()

    def leave_soon(self) -> None:
        """Begin what `close` waits for."""
        self.closed = True
        self._portal.leave_soon()

    def close(self) -> None:
        """Tell the others, and stop. Sessions stay readable in this process."""
        self.closed = True
        with self._closing:
            self._portal.close()
            if self._hands_over:
                self._hands_over = False
                handover.leave(self.node, self.keyring)


def _sooner(set_to: float | None, frameworks: float | None, default: float) -> float:
    return min((seconds for seconds in (set_to, frameworks) if seconds is not None), default=default)


def advertised_host(config: Config) -> str:
    """Return the IP address at which a node with these settings tells others to reach it, as sockets write it.

    Raises:
        ConfigError: this machine has none but loopback's, and listens for others.
    """
    if config.advertise is not None:
        return str(ipaddress.ip_address(config.advertise))
    bound = ipaddress.ip_address(config.bind_address)
    if bound.is_unspecified:
        return route_address(config.discovery_parts().multicast, dual=bound.version == 6)
    return str(bound)


def listen(config: Config) -> Sockets:
    """Bind what a node with these settings listens on.

    Raises:
        ConfigError: no port is free, or the address is not this machine's.
    """
    parts = config.discovery_parts()
    return bind(
        config.bind_address,
        config.port,
        config.port_range,
        parts.multicast,
        interface=_multicast_interface(config),
        can_do_without=parts.can_do_without_multicast,
    )


def _multicast_interface(config: Config) -> str | None:
    """Return the address to advertise, where that tells more than the one to listen on.

    A pod may have no default route, by which one would be chosen else.
    """
    bound = ipaddress.ip_address(config.bind_address)
    if bound.is_unspecified and config.advertise is not None and is_local(config.advertise):
        return config.advertise
    return None


def lone_node(config: Config | None = None) -> NodeService:
    """Return a node without network or thread. Commits never wait; nothing survives the process."""
    return NodeService(config or Config(), None)


_lock = threading.Lock()
_of_process: dict[Config, RunningNode] = {}
_ending = False
"""This process ends. What requests come still are its nodes', which have all the sessions: a new one would be empty,
and would end without a word to the others."""


def process_node(config: Config | None = None) -> RunningNode:
    """Return the node that everything in this process with these settings shares; the first call starts it.

    It leaves the cluster when the process ends; and where nobody else is there, its sessions to the process that
    follows on this machine, unless it looks for nobody (`discovery` ``none``) or runs in a test of pytest's. Where
    pytest runs, it looks for nobody unless the settings say where: a test is no member of what a developer has running.
    None: the settings of the environment.

    Raises:
        ConfigError: a setting is wrong, no port is free, or gevent or eventlet has replaced this process's threads.
    """
    wanted = config or Config.from_env()
    if wanted.discovery == "auto" and _is_tested():
        wanted = replace(wanted, discovery="none")
    with _lock:
        running = _of_process.get(wanted)
        if running is None or (running.closed and not _ending):
            # A test that starts and stops an application must not find the sessions of the one before.
            has_heirs = wanted.discovery_parts().looks_for_others and "PYTEST_CURRENT_TEST" not in os.environ
            running = _of_process[wanted] = RunningNode(wanted, has_heirs=has_heirs)
        return running


def _is_tested() -> bool:
    # Servers that a test has started are processes of their own. The first variable is there from pytest 8.2 on.
    return "pytest" in sys.modules and ("PYTEST_VERSION" in os.environ or "PYTEST_CURRENT_TEST" in os.environ)


def _leave_all() -> None:
    global _ending
    _ending = True
    all_running = list(_of_process.values())
    for running in all_running:
        running.leave_soon()  # all at once: each may take its time
    for running in all_running:
        running.close()


def leave_at_sigterm() -> None:
    """Let the nodes of `process_node` leave before SIGTERM ends this process, where nobody else handles that signal.

    A server that handles it is not touched, be its handler set before or after this. The process still ends by the
    signal, and serves on until the nodes have left: for milliseconds, or as long as there is something to hand over.
    Does nothing off the main thread, where Python lets nobody handle signals.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _leave_and_end)


def _leave_and_end(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)  # a second one ends it at once
    # The code that this interrupts may hold any lock: a node's, for which its thread would wait, or one of threading's.
    _thread.start_new_thread(_end_by, (number,))


def _end_by(number: int) -> None:
    try:
        _leave_all()
    finally:
        os.kill(os.getpid(), number)
        # A container's first process is spared the signals that it sends itself. It has no node any more.
        time.sleep(SPARED_S)
        os._exit(128 + number)


def _forget_in_child() -> None:
    global _lock, _ending
    _lock = threading.Lock()  # the parent's may have been held at the moment of the fork
    _ending = False
    _of_process.clear()
    for running in list(_running):
        running.orphaned()
    if signal.getsignal(signal.SIGTERM) is _leave_and_end:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # it has no node to wait for


atexit.register(_leave_all)
os.register_at_fork(after_in_child=_forget_in_child)
