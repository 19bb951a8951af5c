# Outpost: the doctor's own place in the network, beside the node whose settings it has.
#
# In:    settings, keys.    Out: beacons heard and answered, pings answered, addresses visited.
# Rule:  it must never become a member. Nobody becomes one by a beacon, by a ping, or by a link without a Hello; so that
#        is all it sends. What it pings names a node that nobody is: the answer (WrongId) changes nothing over there.
# Node id: smaller than nearly all others, so that who hears its beacon answers by unicast and does not dial; by that
#        doctors also know each other, where two are called at once. Random beyond, since each id seals with nonces of
#        its own.
# Same parts as a node: sockets, seals, greetings and lookups are those of runtime/ and wire/, so what fails here would
#        fail there.
# Not here: what follows from what was met (visits.py, multicast.py).

import os
import random
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import trio

from gossipsess.config import Config
from gossipsess.errors import StrangerError, WireError
from gossipsess.model.clock import time_ms_of
from gossipsess.model.identity import NODE_ID_BYTES, NodeId
from gossipsess.model.member import Address, Name
from gossipsess.runtime.links import READ_BYTES, greet
from gossipsess.runtime.transport import Connection, Receiver
from gossipsess.service import listen
from gossipsess.wire.codec import decode_untrusted, encode
from gossipsess.wire.crypto import DatagramOpener, DatagramSealer, Link
from gossipsess.wire.keyring import Keyring
from gossipsess.wire.messages import Beacon, Datagram, Hello, Ping, ProbeAck, WrongId

CONNECT_S: Final = 2.0
GREETING_S: Final = 3.0
HELLO_S: Final = 3.0
PINGS: Final = 4
"""One answer in so many is enough: at 20 % loss each way all fail in one of sixty."""
PING_S: Final = 0.4
"""For each."""
LOOKUP_S: Final = 10.0
"""As long as the system's resolver takes with two name servers that are silent."""
HEARD_MAX: Final = 256
"""Addresses noted from beacons; more nodes than that on one network segment are not told one by one."""
BEACON_EVERY_S: Final = 0.8
_FAILED_PAUSE_S: Final = 0.1
_DOCTORS: Final = bytes(2)
"""How their node ids begin; one in 65,536 nodes' does too, and is met in other ways."""

Outcome = Literal["met", "stranger", "former", "no node", "refused", "silent", "unreachable"]
"""``former``: it takes only what is sealed with a former secret of ours."""
_TRY_FURTHER: Final = ("refused", "stranger", "no node")
"""As a node does: at the further ports of an address that was named, where the first is another's."""


@dataclass
class Heard:
    """Who said a beacon that opens with our key."""

    on_group: bool = False
    """On the group: multicast from there reaches us."""
    answered: bool = False
    """In answer to ours: multicast from us reaches it."""


@dataclass
class Visit:
    """What came of dialing one address, and of pinging it."""

    address: Address
    told_by: str
    """Who named it."""
    outcome: Outcome = "silent"
    problem: str = ""
    """Why nobody of this cluster was met, in the words of what failed."""
    connect_s: float | None = None
    node: NodeId = b""
    hello: Hello | None = None
    ahead_s: float = 0.0
    """The peer's clock, ahead of this machine's."""
    udp_s: float | None = None
    """How long the answer to a ping took; None: there was none."""


@dataclass
class Ears:
    """What was heard on the multicast group."""

    problem: str = ""
    """Why nothing could be sent."""
    own: bool = False
    """Our own beacon came back."""
    heard: dict[Address, Heard] = field(default_factory=dict)
    strangers: dict[str, str] = field(default_factory=dict)
    """By IP address: why their beacons do not open."""


class Outpost:
    """A pair of ports of its own, and membership of the multicast group."""

    def __init__(self, config: Config, keyring: Keyring, group: Address | None) -> None:
        """Bind.

        Raises:
            ConfigError: no port is to be had, or `group` cannot be joined.
        """
        self.ears = Ears()
        self._group = group
        self._keyring = keyring
        self._node = _DOCTORS + os.urandom(NODE_ID_BYTES - len(_DOCTORS))
        self._sealer = DatagramSealer(keyring.primary, self._node)
        self._opener = DatagramOpener(keyring)
        discovery = f"multicast://{group[0]}:{group[1]}" if group is not None else "none"
        sockets = listen(replace(config, discovery=discovery, port=0, port_range=1))
        self._port = sockets.port
        self._transport = sockets.transport()
        self._sequence = random.getrandbits(31)  # tells our pings apart, and hides nothing
        self._pings: dict[int, trio.Event] = {}

    async def serve(self) -> None:
        """Take in what comes, until cancelled."""
        async with trio.open_nursery() as nursery:
            for number, receiver in enumerate(self._transport.receivers):
                nursery.start_soon(self._receive, receiver, number == 1)

    def close(self) -> None:
        """Give the ports back."""
        self._transport.close()

    # --- names --------------------------------------------------------------------------------------------

    async def look_up(self, name: Name) -> tuple[Address, ...]:
        """Ask the name service as a node does.

        Raises:
            OSError: no answer, or none in time.
        """
        with trio.move_on_after(LOOKUP_S):
            return await self._transport.look_up(name)
        raise TimeoutError(f"no answer within {LOOKUP_S:.0f} s")

    # --- datagrams ----------------------------------------------------------------------------------------

    async def beacon(self, seconds: float) -> None:
        """Say beacons for so long; what is heard meanwhile stands in `ears`."""
        assert self._group is not None
        until_s = trio.current_time() + seconds
        while (left_s := until_s - trio.current_time()) > 0:
            try:
                self._send(self._group, Beacon(self._port, reply=False))
            except OSError as error:
                self.ears.problem = error.strerror or str(error)
            await trio.sleep(min(BEACON_EVERY_S, left_s))

    async def ping(self, address: Address) -> float | None:
        """Ping until there is an answer; return how long that one took, seconds, or None."""
        for _ in range(PINGS):
            self._sequence = (self._sequence + 1) & 0xFFFFFFFF
            sequence, answered = self._sequence, trio.Event()
            self._pings[sequence] = answered
            began_s = trio.current_time()
            with suppress(OSError):
                self._send(address, Ping(sequence, self._node))
            with trio.move_on_after(PING_S):
                await answered.wait()
            if answered.is_set():
                return trio.current_time() - began_s
        return None

    def _send(self, address: Address, message: Datagram) -> None:
        self._transport.send_to(self._sealer.seal(encode(message)), address)

    async def _receive(self, receive: Receiver, on_group: bool) -> None:
        while True:
            try:
                data, address = await receive()
            except OSError:
                await trio.sleep(0 if on_group else _FAILED_PAUSE_S)
                continue
            try:
                sender, body = self._opener.open_untrusted(data)
                message = decode_untrusted(body)
            except StrangerError as error:
                if on_group and len(self.ears.strangers) < HEARD_MAX:
                    self.ears.strangers[address[0]] = str(error)
                continue
            except WireError:
                continue  # a copy of what came, or no message of ours at all
            match message:
                case Beacon() if sender == self._node:
                    self.ears.own = True
                case Beacon(port, reply) if not sender.startswith(_DOCTORS):
                    self._heard((address[0], port), on_group=on_group, reply=reply)
                case ProbeAck(sequence) | WrongId(sequence) if sequence in self._pings:
                    self._pings.pop(sequence).set()

    def _heard(self, address: Address, *, on_group: bool, reply: bool) -> None:
        if address not in self.ears.heard and len(self.ears.heard) >= HEARD_MAX:
            return
        heard = self.ears.heard.setdefault(address, Heard())
        heard.on_group |= on_group
        heard.answered |= reply

    # --- links --------------------------------------------------------------------------------------------

    async def visit(self, address: Address, told_by: str, ports: int = 1) -> Visit:
        """Return what came of visiting an address; where that is nobody of this cluster, and somebody is met at one of
        the further ports, up to so many, return what came of that one.
        """
        host, port = address
        first = await self._visit(address, told_by, thorough=True)
        if first.outcome in _TRY_FURTHER:
            for further in range(port + 1, min(port + ports, 65536)):
                visit = await self._visit((host, further), told_by, thorough=False)
                if visit.outcome == "met":
                    return visit
        return first

    async def _visit(self, address: Address, told_by: str, *, thorough: bool) -> Visit:
        """Dial, greet, hear the other's Hello, hang up, ping; `thorough`: also ping who takes no connection."""
        visit = Visit(address, told_by)
        connection: Connection | None = None
        began_s = trio.current_time()
        try:
            with trio.move_on_after(CONNECT_S):
                connection = await self._transport.connect(address)
        except ConnectionRefusedError:
            visit.outcome = "refused"
        except (OSError, ValueError) as error:
            visit.outcome, visit.problem = "unreachable", getattr(error, "strerror", None) or str(error)
        if connection is not None:
            visit.connect_s = trio.current_time() - began_s
            try:
                await self._greet(connection, visit)
            finally:
                connection.close()
        if visit.outcome == "no node" and await self._takes_former(address):
            visit.outcome = "former"
        if visit.outcome == "met" or (thorough and visit.outcome in ("refused", "silent", "unreachable")):
            visit.udp_s = await self.ping(address)
        return visit

    async def _greet(self, connection: Connection, visit: Visit) -> None:
        visit.outcome, visit.problem = "no node", f"no greeting within {GREETING_S:.0f} s"
        try:
            with trio.move_on_after(GREETING_S):
                keys = await greet(connection, self._keyring, self._node, dialer=True)
                visit.node, visit.outcome, visit.problem = keys.peer, "met", ""
            if visit.outcome == "met":
                await self._hear_hello(connection, keys, visit)
        except StrangerError as error:
            visit.outcome, visit.problem = "stranger", str(error)
        except (WireError, OSError) as error:
            visit.problem = str(error)

    async def _hear_hello(self, connection: Connection, keys: Link, visit: Visit) -> None:
        visit.problem = f"it greeted, and said nothing for {HELLO_S:.0f} s"
        with trio.move_on_after(HELLO_S):
            while True:
                await connection.readable()
                try:
                    data = connection.receive(READ_BYTES)
                except BlockingIOError:
                    continue
                if not data:
                    visit.problem = "it greeted, and hung up"
                    return
                for body in keys.opener.feed_untrusted(data):
                    message = decode_untrusted(body)
                    if isinstance(message, Hello):
                        visit.hello, visit.problem = message, ""
                        visit.ahead_s = time_ms_of(message.clock) / 1000 - time.time()
                        return

    async def _takes_former(self, address: Address) -> bool:
        """Say whether somebody there is greeted well with a former secret, as in a rotation that has gone wrong."""
        for key in self._keyring.fallbacks:
            with suppress(WireError, OSError), trio.move_on_after(GREETING_S):
                connection = await self._transport.connect(address)
                try:
                    await greet(connection, Keyring(key), self._node, dialer=True)
                finally:
                    connection.close()
                return True
        return False
