# Driver: carries out what the state machine asks for, and tells it what happens. It decides nothing.
#
# One task takes effects and rings the deadlines; one receives datagrams; one accepts links; each link has a task
# that reads and one that writes. Everything runs in one Trio thread; other threads only ring the alarm.

import logging
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import suppress

import trio

from gossipsess.errors import DecodeError, SealError, VersionError, WireError
from gossipsess.model.identity import short
from gossipsess.model.member import Address, MemberState
from gossipsess.node import Node
from gossipsess.protocol.effects import (
    CloseLink,
    Dial,
    Effect,
    MemberChanged,
    Notify,
    Send,
    SendBeacon,
    SendDatagram,
    Settle,
    Warn,
)
from gossipsess.protocol.events import (
    Abandon,
    DialFailed,
    Event,
    Leave,
    LinkClosed,
    LinkOpened,
    Received,
    ReceivedDatagram,
    Tick,
)
from gossipsess.runtime.links import Link, connect, greet, opened_of, refused, tuned
from gossipsess.runtime.sockets import Sockets
from gossipsess.wire.codec import decode_untrusted, encode
from gossipsess.wire.crypto import DATAGRAM_BYTES_MAX, DatagramOpener, DatagramSealer
from gossipsess.wire.keyring import Keyring
from gossipsess.wire.messages import Datagram, Message, is_datagram, is_link_message

log = logging.getLogger("gossipsess")

DIAL_TIMEOUT_S = 3.0
HANDSHAKES_MAX = 64
"""Connections that have not proved the secret yet. Strangers can open them; beyond this they are closed unread."""
TURN_ROUNDS_MAX = 64
"""Rounds of effects and deadlines in one go. A flood of them must leave the other tasks their turn."""
WALL_MOVED_S = 0.5
"""When the wall clock has moved this much against the monotonic one, the node hears of it before anything else: its
machine was suspended, or somebody has set the time."""
LEAVE_S = 0.5
"""How long a leaving node waits for its last messages to go out."""


class Driver:
    """Runs one node on the current Trio loop."""

    def __init__(
        self,
        node: Node,
        keyring: Keyring,
        sockets: Sockets,
        group: Address | None,
        notify: Callable[[Notify], None],
        ended: Callable[[], None],
    ) -> None:
        self.node = node
        self.rejected: Counter[str] = Counter()
        """Datagrams and links refused, by the kind of refusal; of those that no accident explains the first is logged,
        and no more, so that a flood stays cheap."""
        self._notify = notify
        self._ended = ended
        self._keyring = keyring
        self._sockets = sockets
        self._group = group
        self._sealer = DatagramSealer(keyring.primary, node.node_id)
        self._opener = DatagramOpener(keyring)
        self._links: dict[int, Link] = {}
        self._link_count = 0
        self._handshakes = 0
        self._greeting: dict[trio.SocketStream, None] = {}  # connections that are no links yet
        self._dialing: dict[Address, None] = {}
        self._taken: deque[Effect] = deque()  # from the node, not carried out yet
        self._turning = False
        self._due_s = self._asleep_until_s = math.inf  # the node's next deadline, and how long the pump sleeps
        self._alarm = trio.Event()  # ends that sleep
        self._failure: Exception | None = None  # of a turn outside any task
        self._leaving = trio.Event()
        self._wall_ahead_s = time.time() - node.now()  # of the monotonic clock, when the node last heard of it

    async def run(self, started: Callable[[], None] = lambda: None) -> None:
        """Run until `leave` is called. The sockets are closed at the end, and no wait is left open."""
        token = trio.lowlevel.current_trio_token()
        thread = threading.get_ident()

        def wake() -> None:
            if threading.get_ident() == thread:
                if not self._turning:
                    self._alarm.set()
            else:
                with suppress(trio.RunFinishedError):  # ended between the last look and now: `Abandon` settles
                    token.run_sync_soon(self._ring)

        udp = trio.socket.from_stdlib_socket(self._sockets.udp)
        tcp = trio.socket.from_stdlib_socket(self._sockets.tcp)
        try:
            with udp, tcp:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    self.node.driven_by(wake)
                    nursery.start_soon(self._receive_datagrams, udp)
                    nursery.start_soon(self._accept, tcp)
                    if self._sockets.beacon is not None:
                        beacon = trio.socket.from_stdlib_socket(self._sockets.beacon)
                        nursery.start_soon(self._receive_datagrams, beacon)
                    nursery.start_soon(self._pump)
                    started()
                    await self._leaving.wait()
                    # Who has heard of the leave closes the link, and takes in no more of what is on its way.
                    with trio.move_on_after(LEAVE_S):
                        while self._unacknowledged():  # noqa: ASYNC110  # as below
                            await trio.sleep(0.005)
                    self.node.submit(Leave())
                    with trio.move_on_after(LEAVE_S):
                        while self._has_unsent():  # noqa: ASYNC110  # not worth an event for the last half second
                            await trio.sleep(0.005)
                    nursery.cancel_scope.cancel()
        finally:
            self.node.driven_by(None)
            self._sockets.close()
            self.node.submit(Abandon())
            effects, _ = self.node.take()
            for effect in (*self._taken, *effects):
                if isinstance(effect, Settle):
                    effect.waiter(effect.outcome)
            self._ended()

    def _has_unsent(self) -> bool:
        return self.node.has_effects or any(not link.is_idle for link in self._links.values())

    def _unacknowledged(self) -> int:
        with self.node.locked() as replica:
            return replica.sessions.unacknowledged

    def close_sockets(self) -> None:
        """Close every socket without a word; for a child process, whose copies they are."""
        self._sockets.close()
        for link in self._links.values():
            link.close_socket()
        for stream in self._greeting:
            opened_of(stream).close()

    def leave(self) -> None:
        """End `run`, after telling the peers. In the Trio thread."""
        self._leaving.set()

    def _ring(self) -> None:
        try:
            self._tell(())
        except Exception as error:  # raised here it would end the whole loop, and no wait would be settled
            self._failure = error
            self._alarm.set()

    # --- effects ------------------------------------------------------------------------------------------

    async def _pump(self) -> None:
        while True:
            self._turn()
            self._asleep_until_s = self._due_s
            with trio.move_on_after(max(0.0, self._due_s - self.node.now())):
                await self._alarm.wait()
            self._alarm = trio.Event()
            if self._failure is not None:
                raise self._failure

    def _turn(self) -> None:
        """Carry out effects and ring deadlines until nothing is left to do now; then let every link send.

        All in one go and without a pass of the loop in between: a commit that waits pays for each of those.
        """
        if self._turning:
            return  # called from within: the turn under way goes on
        self._turning = True
        try:
            for _ in range(TURN_ROUNDS_MAX):
                effects, self._due_s = self.node.take()
                self._taken.extend(effects)
                while self._taken:
                    self._perform(self._taken.popleft())
                if not effects:
                    if self._due_s > self.node.now():
                        break
                    self.node.submit(self._tick())
            else:
                self._alarm.set()  # go on after the other tasks have had theirs
        finally:
            self._turning = False
        for link in self._links.values():
            link.flush()

    def _tell(self, events: Iterable[Event]) -> None:
        """Take what happened in the Trio thread, and carry out what follows."""
        self._turning = True  # so that the node does not ring for each
        try:
            if abs(time.time() - self.node.now() - self._wall_ahead_s) > WALL_MOVED_S:
                self.node.submit(self._tick())
            for event in events:
                self.node.submit(event)
        finally:
            self._turning = False
        self._turn()
        if self._due_s < self._asleep_until_s:
            self._alarm.set()

    def _tick(self) -> Tick:
        wall_s = time.time()
        self._wall_ahead_s = wall_s - self.node.now()
        return Tick(round(wall_s * 1000))

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Send(number, message):
                link = self._links.get(number)
                if link is not None:
                    link.send(message)
            case Settle(waiter, outcome):
                waiter(outcome)
            case SendDatagram(address, message):
                self._send_datagram(address, message)
            case SendBeacon(message):
                if self._group is not None:
                    self._send_datagram(self._group, message)
            case Dial(address):
                if address not in self._dialing:
                    self._dialing[address] = None
                    self._nursery.start_soon(self._dial, address)
            case CloseLink(number):
                link = self._links.get(number)
                if link is not None:
                    link.close_soon()
            case Notify():
                self._notify(effect)
            case MemberChanged(member, before):
                if before is None or member.state is not MemberState.SUSPECT:
                    log.info("%s (%s) is %s", member.name, short(member.node), member.state.name.lower())
            case Warn(text):
                log.warning("%s", text)

    def _send_datagram(self, address: Address, message: Datagram) -> None:
        data = self._sealer.seal(encode(message))
        try:
            self._sockets.udp.sendto(data, address)
        except OSError:
            self.rejected["unsent"] += 1  # full buffer, no route: as lost on the way, and treated as such

    # --- datagrams ----------------------------------------------------------------------------------------

    async def _receive_datagrams(self, sock: trio.socket.SocketType) -> None:
        with sock:
            while True:
                try:
                    data, address = await sock.recvfrom(DATAGRAM_BYTES_MAX + 1)
                except ConnectionError:
                    continue  # an earlier datagram of ours was refused where it went
                try:
                    sender, body = self._opener.open_untrusted(data)
                    if sender == self.node.node_id:
                        continue  # multicast brings our own beacons back
                    message = decode_untrusted(body)
                except WireError as error:
                    self._reject(error)
                    continue
                if is_datagram(message):
                    self._tell([ReceivedDatagram(sender, (address[0], address[1]), message)])

    # --- links --------------------------------------------------------------------------------------------

    async def _accept(self, tcp: trio.socket.SocketType) -> None:
        while True:
            try:
                sock, _ = await tcp.accept()
            except OSError:
                await trio.sleep(0.1)  # out of descriptors, say: later is soon enough
                continue
            if self._handshakes >= HANDSHAKES_MAX:
                self.rejected["busy"] += 1
                sock.close()
            else:
                self._handshakes += 1  # here and not in the task, which starts only after the next one is accepted
                self._nursery.start_soon(self._serve_stranger, sock)

    async def _serve_stranger(self, sock: trio.socket.SocketType) -> None:
        try:
            stream = tuned(sock)
        except OSError:  # it has gone already
            self._handshakes -= 1
            sock.close()
        else:
            await self._serve(stream, None)

    async def _dial(self, address: Address) -> None:
        stream: trio.SocketStream | None = None
        was_refused = False
        try:
            with trio.move_on_after(DIAL_TIMEOUT_S):
                stream = await connect(*address)
        except OSError as error:
            was_refused = refused(error)
        del self._dialing[address]
        if stream is None:
            self._tell([DialFailed(address, was_refused)])
        else:
            await self._serve(stream, address)

    async def _serve(self, stream: trio.SocketStream, dialed: Address | None) -> None:
        keys = None
        self._greeting[stream] = None
        try:
            keys = await greet(stream, self._keyring, self.node.node_id, dialer=dialed is not None)
        except (WireError, trio.BrokenResourceError) as error:
            self._reject(error)
            if dialed is not None:
                self._tell([DialFailed(dialed, refused=False)])
            return
        finally:
            del self._greeting[stream]
            if dialed is None:
                self._handshakes -= 1
            if keys is None:  # refused, or this node ends meanwhile
                stream.socket.close()
        self._link_count += 1
        link = Link(self._link_count, opened_of(stream), keys)
        self._links[link.number] = link
        self._tell([LinkOpened(link.number, link.peer, dialed)])
        try:
            await link.run(lambda messages: self._received(link, messages))
        except* WireError as group:
            self._reject(group.exceptions[0])
        finally:
            del self._links[link.number]
            self._tell([LinkClosed(link.number)])

    def _received(self, link: Link, messages: list[Message]) -> None:
        self._tell([Received(link.number, message) for message in messages if is_link_message(message)])

    def _reject(self, error: BaseException) -> None:
        kind = type(error).__name__
        if kind not in self.rejected and isinstance(error, SealError | DecodeError | VersionError):
            log.warning("refused, and from now on only counted: %s (%s)", error, kind)
        self.rejected[kind] += 1
