# Wires: the TCP links of a world: dials, what travels over a link, and how a link ends.
#
# In:    who dials whom, what is sent over which link, which ways open again.
# Out:   events for the processes at the ends, each at its time: opened, received, closed, or a dial that failed.
# A link is in order and loses nothing, but where the scenario's links lose too. What cannot get through at the moment
# is held up, in order; the end of a stream comes after what is in it.
# Not here: datagrams (cluster.py), delays and losses (network.py).

from collections.abc import Callable
from typing import Final

from gossipsess.model.member import Address
from gossipsess.protocol.events import DialFailed, Event, LinkClosed, LinkOpened, Received
from gossipsess.sim.process import Link, Process, Way
from gossipsess.sim.world import World
from gossipsess.wire.messages import Hello, LinkMessage

DIAL_TIMEOUT_S: Final = 0.5


class Wires:
    """The links of one world. `submit` hands an event to a process."""

    def __init__(self, world: World, submit: Callable[[Process, Event], object]) -> None:
        self._world = world
        self._submit = submit
        self._held_up: list[tuple[Link, int]] = []

    # --- a link begins ------------------------------------------------------------------------------------

    def dial(self, dialer: Process, address: Address) -> None:
        """Try to open a link, as the driver does: one try at a time for each address."""
        if address in dialer.dialing:
            return
        dialer.dialing[address] = None
        world = self._world
        fails, late, *_ = world.network.draw("dial", dialer.label, address[0])
        if fails < world.network.faults.dial_failure or address in world.silent:
            self._dial_ends_later(dialer, address)
        else:
            delay_s = world.network.faults.delay_s * (1 + 3 * late)
            world.after(delay_s, lambda: world.reach(dialer, lambda: self._connect(dialer, address)))

    def _connect(self, dialer: Process, address: Address) -> None:
        if not dialer.alive:
            return
        world = self._world
        acceptor = world.at.get(address)
        if acceptor is None:
            foreign = address in world.foreign
            self._dial_failed(dialer, address, refused=not foreign, stranger=foreign)
        elif acceptor is dialer:
            self._dial_failed(dialer, address, itself=True)
        elif acceptor.paused or self._is_apart(dialer, acceptor):
            self._dial_ends_later(dialer, address)
        else:
            del dialer.dialing[address]
            link = Link(dialer, acceptor, world.now_s)
            world.counts["links"] += 1
            life_s = world.network.faults.link_life_s
            if life_s:
                world.after(2 * life_s * world.luck("life", dialer.label), lambda: self._wear_out(link))
            self._submit(acceptor, LinkOpened(link.numbers[1], dialer.node, dialed=None))
            self._submit(dialer, LinkOpened(link.numbers[0], acceptor.node, dialed=address))

    def _is_apart(self, a: Process, b: Process) -> bool:
        return self._is_blocked((a.slot, b.slot)) or self._is_blocked((b.slot, a.slot))

    def _dial_ends_later(self, dialer: Process, address: Address) -> None:
        self._world.after(
            DIAL_TIMEOUT_S,
            lambda: self._world.reach(dialer, lambda: self._dial_failed(dialer, address)),
        )

    def _dial_failed(
        self,
        dialer: Process,
        address: Address,
        *,
        refused: bool = False,
        stranger: bool = False,
        itself: bool = False,
    ) -> None:
        if dialer.alive:
            del dialer.dialing[address]
            self._submit(dialer, DialFailed(address, refused, stranger, itself))

    # --- what travels -------------------------------------------------------------------------------------

    def send(self, sender: Process, number: int, message: LinkMessage) -> None:
        """Send a message over one of a process's links."""
        link = sender.links.get(number)
        if link is None:
            return
        world, network = self._world, self._world.network
        index = link.toward(sender)
        receiver = link.ends[index]
        if network.faults.lossy_links:
            hello = isinstance(message, Hello)
            delays = network.delays("tcp", sender.label, receiver.label, certain=hello)
            if not delays:
                world.counts[f"lost {type(message).__name__}"] += 1
        else:
            delay_s = network.ordered_delay("tcp", sender.label, receiver.label)
            link.free_at_s[index] = max(link.free_at_s[index], world.now_s + delay_s)
            delays = [link.free_at_s[index] - world.now_s]
        for delay_s in delays:
            world.after(delay_s, lambda: self._deliver(link, index, message))

    def let_through(self) -> None:
        """Ways have opened: what links have held up on them arrives now."""
        held_up, self._held_up = self._held_up, []
        for link, index in held_up:
            if self._is_blocked(link.way(index)):
                self._held_up.append((link, index))
                continue
            actions = link.held_up[index][:]
            link.held_up[index].clear()
            for action in actions:
                action()

    def _deliver(self, link: Link, index: int, message: LinkMessage) -> None:
        if self._waits(link, index, lambda: self._deliver(link, index, message)):
            return
        self._read(link.ends[index], lambda: self._delivered(link, index, message))

    def _delivered(self, link: Link, index: int, message: LinkMessage) -> None:
        receiver, number = link.ends[index], link.numbers[index]
        if not link.broken and receiver.alive and number in receiver.links:
            self._submit(receiver, Received(number, message))

    def _read(self, reader: Process, action: Callable[[], object]) -> None:
        """Have something reach a process that came over a link; a slow reader gets to it after all before it."""
        if reader.unread:
            reader.unread.append(action)
        elif reader.read_s:
            reader.unread.append(action)
            self._world.after(reader.read_s, lambda: self._read_on(reader))
        else:
            self._world.reach(reader, action)

    def _read_on(self, reader: Process) -> None:
        for _ in range(1 if reader.read_s else len(reader.unread)):
            self._world.reach(reader, reader.unread.pop(0))
        if reader.unread:
            self._world.after(reader.read_s, lambda: self._read_on(reader))

    def _waits(self, link: Link, index: int, action: Callable[[], object]) -> bool:
        """Say whether what goes to that end of a link does not get there now; then `action` comes later."""
        if not self._is_blocked(link.way(index)):
            return False
        if not link.held_up[index]:
            self._held_up.append((link, index))
        link.held_up[index].append(action)
        return True

    def _is_blocked(self, way: Way) -> bool:
        return self._world.is_shut("tcp", way) or self._world.clogged_for_s(way) > 0

    # --- a link ends --------------------------------------------------------------------------------------

    def break_across(self, ways: list[Way]) -> None:
        """Break every link that stands across these ways."""
        for process in self._world.live:
            for link in list(process.links.values()):
                if link.ends[0] is process and not link.broken and link.way(1) in ways:
                    self._break(link)

    def close(self, closer: Process, number: int) -> None:
        """End a link as one of its ends does: the other hears of it after what is on its way."""
        link = closer.links.get(number)
        if link is not None:
            other = link.toward(closer)
            self._close_end_later(link, 1 - other, 0.0, certain=True)
            self._close_end_later(link, other, 0.0)

    def close_all(self, ended: Process, notice_s: float) -> None:
        """End the links of a process that has ended; its peers notice after that long."""
        for link in list(ended.links.values()):
            self._close_end_later(link, link.toward(ended), notice_s)
        ended.links.clear()

    def _wear_out(self, link: Link) -> None:
        if self._world.network.faults.link_life_s:
            self._break(link)

    def _break(self, link: Link) -> None:
        """Both ends learn of it, each in its own time; nothing arrives any more."""
        link.broken = True
        self._world.counts["broken links"] += 1
        for index in (0, 1):
            self._close_end_later(link, index, self._world.luck("notice", link.ends[index].label), certain=True)

    def _close_end_later(self, link: Link, index: int, delay_s: float, *, certain: bool = False) -> None:
        """Have one end of a link end. `certain`: whatever lies between it and the other end."""
        behind_s = max(0.0, link.free_at_s[index] - self._world.now_s)  # the end of a stream comes after what is in it
        self._world.after(max(delay_s, behind_s), lambda: self._close_end(link, index, certain))

    def _close_end(self, link: Link, index: int, certain: bool) -> None:
        if certain:
            self._world.reach(link.ends[index], lambda: self._closed(link, index))
        elif not self._waits(link, index, lambda: self._close_end(link, index, certain)):
            self._read(link.ends[index], lambda: self._closed(link, index))

    def _closed(self, link: Link, index: int) -> None:
        process, number = link.ends[index], link.numbers[index]
        if process.alive and process.links.pop(number, None) is not None:
            self._submit(process, LinkClosed(number))
