# Driver: carries out what the state machine asks for, and tells it what happens. It decides nothing.
#
# One task takes effects and rings the deadlines; one receives datagrams; one accepts links; each link has a task
# that reads and one that writes. Everything runs in one Trio thread; other threads only ring the alarm.
#
# What fails: a failure of the machine, or of what it asks for, ends the node, whichever task met it, and every wait
#             with it. What a peer's bytes or a link's task make fail ends that link, or drops that datagram.

import logging
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import suppress

import trio

from gossipsess.errors import DecodeError, SealError, SelfReached, StrangerError, VersionError, WireError
from gossipsess.model.identity import short
from gossipsess.model.member import Address, MemberState, Name
from gossipsess.node import Node
from gossipsess.protocol.effects import (
    CloseLink,
    Dial,
    Effect,
    Inform,
    LookUp,
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
    Drain,
    Event,
    Leave,
    LinkClosed,
    LinkOpened,
    LookedUp,
    Received,
    ReceivedDatagram,
    Tick,
)
from gossipsess.protocol.sessions import SessionProtocol
from gossipsess.runtime.admin import Admin
from gossipsess.runtime.links import Link, greet
from gossipsess.runtime.transport import Connection, Receiver, Transport
from gossipsess.wire.codec import decode_untrusted, encode
from gossipsess.wire.crypto import DatagramOpener, DatagramSealer
from gossipsess.wire.keyring import Keyring
from gossipsess.wire.messages import Datagram, Message, is_datagram, is_link_message

log = logging.getLogger("gossipsess")

DIAL_TIMEOUT_S = 3.0
HANDSHAKES_MAX = 64
"""Connections that have not proved the secret yet. Strangers can open them; beyond this they are closed unread."""
TURN_ROUNDS_MAX = 64
"""Rounds of effects and deadlines in one go. A flood of them must leave the other tasks their turn."""
UNKNOWN_KIND = "unknown kind"
"""Counted under this: messages of a newer version, which a rolling update brings. Nothing is wrong with them."""
WALL_MOVED_S = 0.5
"""When the wall clock has moved this much against the monotonic one, the node hears of it before anything else: its
machine was suspended, or somebody has set the time."""
STOOD_STILL_S = 0.02
"""A deadline that rings so late waits for one look at what has come in: this process stood still, in a collection of
garbage say or on a busy machine, and what was waited for may be there."""
DRAIN_S = 10.0
"""How long a leaving node hands over, at most, what the others do not hold yet."""
LEAVE_S = 0.5
"""How long it then waits for what it has sent to be acknowledged, and for its last messages to go out."""
NOT_SENT = (OSError, ValueError)
"""What sending to an address raises. The second where Python refuses it: IDNA takes no scope of over 63 letters."""
FAILED_PAUSE_S = 0.1
"""After a socket failed, out of descriptors or of network, say: later is soon enough."""


class Driver:
    """Runs one node on the current Trio loop."""

    def __init__(
        self,
        node: Node,
        keyring: Keyring,
        transport: Transport,
        group: Address | None,
        notify: Callable[[Notify], None],
        ended: Callable[[], None],
        admin: Admin | None = None,
    ) -> None:
        self.node = node
        self.rejected: Counter[str] = Counter()
        """Datagrams and links refused, by the kind of refusal; of those that no accident explains the first is logged,
        and no more, so that a flood stays cheap."""
        self._notify = notify
        self._ended = ended
        self._keyring = keyring
        self._transport = transport
        self._admin = admin
        self._group = group
        self._sealer = DatagramSealer(keyring.primary, node.node_id)
        self._opener = DatagramOpener(keyring)
        self._links: dict[int, Link] = {}
        self._link_count = 0
        self._handshakes = 0
        self._dialing: dict[Address, None] = {}  # until a link stands, or the dial has failed
        self._taken: deque[Effect] = deque()  # from the node, not carried out yet
        self._turning = False
        self._due_s = self._asleep_until_s = math.inf  # the node's next deadline, and how long the pump sleeps
        self._alarm = trio.Event()  # ends that sleep
        self._is_late = False  # a deadline is overdue, and waits for what has come in
        self._failure: Exception | None = None  # of a turn; ends the pump, and the node with it
        self._leaving = trio.Event()
        self._over = False
        self._wall_ahead_s = time.time() - node.now()  # of the monotonic clock, when the node last heard of it

    async def run(self, started: Callable[[], None] = lambda: None) -> None:
        """Run until `leave` is called. At the end everything is closed, and no wait is left open."""
        token = trio.lowlevel.current_trio_token()
        thread = threading.get_ident()

        def wake() -> None:
            if threading.get_ident() == thread:
                if not self._turning:
                    self._alarm.set()
            else:
                with suppress(trio.RunFinishedError):  # ended between the last look and now: `Abandon` settles
                    token.run_sync_soon(self._tell, ())

        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self.node.driven_by(wake)
                for receiver in self._transport.receivers:
                    nursery.start_soon(self._receive_datagrams, receiver)
                nursery.start_soon(self._accept)
                nursery.start_soon(self._pump)
                if self._admin is not None:
                    self._admin.open()
                    nursery.start_soon(self._admin.serve, self.drain)
                started()
                await self._leaving.wait()
                self.drain()
                # Who has heard of the leave closes the link, and takes in no more of what is on its way.
                with trio.move_on_after(DRAIN_S):
                    while self._left_to(lambda sessions: sessions.securing):  # noqa: ASYNC110  # as below
                        await trio.sleep(0.01)
                with trio.move_on_after(LEAVE_S):
                    while self._left_to(lambda sessions: sessions.unacknowledged):  # noqa: ASYNC110  # as below
                        await trio.sleep(0.005)
                self._tell([Leave()])
                with trio.move_on_after(LEAVE_S):
                    while self._has_unsent():  # noqa: ASYNC110  # not worth an event for the last half second
                        await trio.sleep(0.005)
                nursery.cancel_scope.cancel()
            if self._failure is not None:
                raise self._failure
        finally:
            self.end()

    def end(self) -> None:
        """Close everything and end every wait. `run` ends so; for where it could not even begin."""
        if self._over:
            return
        self._over = True
        self.node.driven_by(None)
        self._transport.close()
        if self._admin is not None:
            self._admin.close()
        try:
            self.node.submit(Abandon())
        finally:
            effects, _ = self.node.take()
            for effect in (*self._taken, *effects):
                if isinstance(effect, Settle):
                    self._settle(effect)
            self._ended()

    def _has_unsent(self) -> bool:
        return self.node.has_effects or any(not link.is_idle for link in self._links.values())

    def _left_to(self, count: Callable[[SessionProtocol], int]) -> int:
        with self.node.locked() as replica:
            return count(replica.sessions)

    def close_sockets(self) -> None:
        """Close everything without a word; for a child process, whose copies they are."""
        self._transport.close()
        if self._admin is not None:
            self._admin.forget()

    def drain(self) -> None:
        """Begin to hand over what only this node holds, and go on; `leave` does it too. In the Trio thread.

        From now on the node is not ready, and nothing is placed on it. Harmless when it drains already.
        """
        self._tell([Drain()])

    def leave(self) -> None:
        """End `run`, after telling the peers. In the Trio thread."""
        self._leaving.set()

    # --- effects ------------------------------------------------------------------------------------------

    async def _pump(self) -> None:
        while self._failure is None:
            self._asleep_until_s = -math.inf
            self._tell(())
            if self._is_late:
                for _ in range(2):  # in the first pass this task may come before those that have something to read
                    await trio.lowlevel.checkpoint()
                self._tell((), late=True)
            self._asleep_until_s = self._due_s
            with trio.move_on_after(max(0.0, self._due_s - self.node.now())):
                await self._alarm.wait()
            self._alarm = trio.Event()
        self._nursery.cancel_scope.cancel()

    def _tell(self, events: Iterable[Event], *, late: bool = False) -> None:
        """Take what happened in the Trio thread, carry out what follows, then let every link send.

        `late`: ring deadlines also that are long overdue.

        Never raises: here it would end a link's task, or the whole loop, and no wait would be settled.
        """
        if self._over or self._failure is not None:
            return
        self._turning = True  # so that the node does not ring for each
        try:
            if abs(time.time() - self.node.now() - self._wall_ahead_s) > WALL_MOVED_S:
                self.node.submit(self._tick())
            for event in events:
                self.node.submit(event)
            self._turn(late=late)
            for link in self._links.values():
                link.flush()
        except Exception as error:
            self._failure = error
            self._alarm.set()
        finally:
            self._turning = False
        if self._due_s < self._asleep_until_s:
            self._alarm.set()

    def _turn(self, *, late: bool) -> None:
        """Carry out effects and ring deadlines until nothing is left to do now.

        All in one go and without a pass of the loop in between: a commit that waits pays for each of those.
        """
        for _ in range(TURN_ROUNDS_MAX):
            effects, self._due_s = self.node.take()
            self._taken.extend(effects)
            while self._taken:
                self._perform(self._taken.popleft())
            if not effects:
                overdue_s = self.node.now() - self._due_s
                if overdue_s < 0:
                    return
                self._is_late = overdue_s > STOOD_STILL_S and not late
                if self._is_late:
                    break
                self.node.submit(self._tick())
        self._alarm.set()  # go on after the other tasks have had theirs

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
            case Settle():
                self._settle(effect)
            case SendDatagram(address, message):
                self._send_datagram(address, message)
            case SendBeacon(message):
                if self._group is not None:
                    self._send_datagram(self._group, message)
            case Dial(address):
                if address not in self._dialing:
                    self._dialing[address] = None
                    self._nursery.start_soon(self._dial, address)
            case LookUp(name):
                self._nursery.start_soon(self._look_up, name)
            case CloseLink(number):
                link = self._links.get(number)
                if link is not None:
                    link.close_soon()
            case Notify():
                self._notify(effect)
            case MemberChanged(member, before):
                if before is None or member.state is not MemberState.SUSPECT:
                    state = "leaving" if member.is_live and member.leaving else member.state.name.lower()
                    log.info("%s (%s) is %s", member.name, short(member.node), state)
            case Warn(text):
                log.warning("%s", text)
            case Inform(text):
                log.info("%s", text)

    def _settle(self, settle: Settle) -> None:
        try:
            settle.waiter(settle.outcome)
        except Exception:  # of one request; all others go on
            log.exception("the outcome of a request's wait could not be handed over")

    def _send_datagram(self, address: Address, message: Datagram) -> None:
        data = self._sealer.seal(encode(message))
        try:
            self._transport.send_to(data, address)
        except NOT_SENT:
            self.rejected["unsent"] += 1  # full buffer, no route: as lost on the way, and treated as such

    # --- datagrams ----------------------------------------------------------------------------------------

    async def _receive_datagrams(self, receive: Receiver) -> None:
        while True:
            try:
                data, address = await receive()
            except ConnectionError:
                continue  # an earlier datagram of ours was refused where it went
            except OSError:
                await trio.sleep(FAILED_PAUSE_S)
                continue
            try:
                sender, body = self._opener.open_untrusted(data)
                if sender == self.node.node_id:
                    continue  # multicast brings our own beacons back
                message = decode_untrusted(body)
            except Exception as error:
                self._reject(error, address[0])
                continue
            if message is None:
                self.rejected[UNKNOWN_KIND] += 1
            elif is_datagram(message):
                self._tell([ReceivedDatagram(sender, address, message)])

    # --- names --------------------------------------------------------------------------------------------

    async def _look_up(self, name: Name) -> None:
        try:
            addresses, problem = await self._transport.look_up(name), "no addresses"
        except OSError as error:
            addresses, problem = (), error.strerror or str(error)
        except Exception as error:  # no thread to be had for it, say: that must not end the node
            addresses, problem = (), str(error) or type(error).__name__
            self._reject(error)
        self._tell([LookedUp(name, addresses, problem)])

    # --- links --------------------------------------------------------------------------------------------

    async def _accept(self) -> None:
        while True:
            try:
                connection = await self._transport.accept()
            except OSError:
                await trio.sleep(FAILED_PAUSE_S)
                continue
            if self._handshakes >= HANDSHAKES_MAX:
                self.rejected["busy"] += 1
                connection.close()
            else:
                self._handshakes += 1  # here and not in the task, which starts only after the next one is accepted
                self._nursery.start_soon(self._serve_stranger, connection)

    async def _serve_stranger(self, connection: Connection) -> None:
        link: Link | None = None
        host = connection.host
        try:
            link = await self._greeted(connection, dialer=False)
        except Exception as error:
            self._reject(error, host)
        finally:
            self._handshakes -= 1
        if link is not None:
            await self._carry(link, None)

    async def _dial(self, address: Address) -> None:
        link: Link | None = None
        is_refused = is_stranger = is_itself = False
        try:
            with trio.move_on_after(DIAL_TIMEOUT_S):
                connection = await self._transport.connect(address)
                link = await self._greeted(connection, dialer=True)
        except NOT_SENT as error:
            is_refused = isinstance(error, ConnectionRefusedError)
            if not is_refused:
                self._reject(error)
        except Exception as error:
            is_itself = isinstance(error, SelfReached)
            # Not where it ended without a word, as a node of ours does that has all the handshakes it can take.
            is_stranger = isinstance(error, SealError | VersionError) and not is_itself
            self._reject(error, address[0])
        # Only now: a peer that is paused accepts and says nothing, and would find one connection for each dial.
        del self._dialing[address]
        if link is None:
            self._tell([DialFailed(address, is_refused, is_stranger, is_itself)])
        else:
            await self._carry(link, address)

    async def _greeted(self, connection: Connection, *, dialer: bool) -> Link:
        keys = None
        try:
            keys = await greet(connection, self._keyring, self.node.node_id, dialer=dialer)
        finally:
            if keys is None:  # refused, or this node ends meanwhile
                connection.close()
        self._link_count += 1
        return Link(self._link_count, connection, keys)

    async def _carry(self, link: Link, dialed: Address | None) -> None:
        self._links[link.number] = link
        self._tell([LinkOpened(link.number, link.peer, dialed)])
        try:
            await link.run(lambda messages: self._received(link, messages))
        except* Exception as group:
            self._reject(group)
        finally:
            del self._links[link.number]
            self._tell([LinkClosed(link.number)])

    def _received(self, link: Link, messages: list[Message | None]) -> None:
        events: list[Event] = []
        for message in messages:
            if message is None:
                self.rejected[UNKNOWN_KIND] += 1
            elif is_link_message(message):
                events.append(Received(link.number, message))
        self._tell(events)

    def _reject(self, error: Exception, host: str = "") -> None:
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        kind = type(error).__name__
        if kind not in self.rejected:
            if isinstance(error, StrangerError):
                log.warning(
                    "a node at %s has another secret or is of another cluster: the two never mix, and this is said "
                    "once. If they should: set the same GOSSIPSESS_CLUSTER and GOSSIPSESS_SECRET on both (%s)",
                    host,
                    error,
                )
            elif isinstance(error, SelfReached):
                pass  # an address of this machine's that it does not advertise: only counted
            elif isinstance(error, SealError | DecodeError | VersionError):
                log.warning("refused, and from now on only counted: %s (%s)", error, kind)
            elif not isinstance(error, WireError | OSError):
                log.error("this should not happen; from now on only counted", exc_info=error)
        self.rejected[kind] += 1
