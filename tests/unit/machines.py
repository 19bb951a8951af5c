"""What the tests of the session core share: records made by hand, and nodes whose time the test drives."""

import random

from gossipsess.model.clock import stamp_at
from gossipsess.model.identity import Sid
from gossipsess.model.member import Address, Member, MemberState
from gossipsess.model.record import ABSOLUTE, CREATED, IDLE, Record, empty_record
from gossipsess.model.rules import Rules
from gossipsess.model.table import register_value
from gossipsess.node import Node
from gossipsess.protocol.confirmation import Ticket
from gossipsess.protocol.effects import Send, Settle
from gossipsess.protocol.events import DialFailed, LinkClosed, LinkOpened, Received, Tick
from gossipsess.protocol.memory import MEMORY_LIMIT_MB, MIB
from gossipsess.protocol.replica import Replica, Settings
from gossipsess.protocol.replication import Outbound
from gossipsess.store import SessionStore
from gossipsess.tokens import Tokens
from gossipsess.wire.messages import Hello

EPOCH_MS = 1_700_000_000_000
SID = b"session-16-bytes"
DEFAULT_RULES = Rules()
ALICE, BOB, CAROL = b"alice...", b"bob.....", b"carol..."


def stamp(ms: int, counter: int = 0) -> int:
    """Return a stamp so many milliseconds after the epoch of these tests."""
    return (EPOCH_MS + ms) << 16 | counter


def record(*writes: tuple[int, bytes, dict[str, bytes | None]], sid: bytes = SID) -> Record:
    """Return the record that these writes (stamp, origin, changes) leave."""
    made = empty_record(sid)
    for at, origin, changes in writes:
        made = made.written(changes.items(), at, origin)
    return made


def registers(created_ms: int = 0, idle_ms: int = 60_000, absolute_ms: int = 3_600_000) -> dict[str, bytes]:
    """Return the registers of a session created so many milliseconds after the epoch."""
    return {
        CREATED: register_value(EPOCH_MS + created_ms),
        IDLE: register_value(idle_ms),
        ABSOLUTE: register_value(EPOCH_MS + created_ms + absolute_ms),
    }


def member(node: bytes, host: str = "", port: int = 7950) -> Member:
    """Return a live member; its host is its own where none is named."""
    return Member(node, 0, MemberState.ALIVE, ("10.0.0.1", port), node.decode(), host or node.decode())


class Clocked:
    """A node and its store, without network; `now_s` is what its clock shows, and moves only by hand."""

    def __init__(
        self,
        node: bytes = ALICE,
        seeds: tuple[Address, ...] = (),
        memory_limit_bytes: int = MEMORY_LIMIT_MB * MIB,
        me: Member | None = None,
        rules: Rules = DEFAULT_RULES,
        **settings,
    ) -> None:
        self.now_s = 100.0
        self.me = me or member(node)
        machine = Settings(seeds=seeds, memory_limit_bytes=memory_limit_bytes, **rules._asdict())
        self.replica = Replica(
            self.me, machine, clock_offset_ms=EPOCH_MS - 100_000, rng=random.Random(1), now_s=self.now_s
        )
        self.node = Node(self.replica, now=lambda: self.now_s)
        self.store = SessionStore(self.node, Tokens((b"key",)), **settings)

    def alone(self) -> "Clocked":
        """Let it have waited for others, in vain."""
        self.replica.sessions.waited_long_enough(self.now_s)
        return self

    def linked(self, peer: bytes, link: int = 1, host: str = "", since_ms: int = 0) -> "Clocked":
        """Let a peer's link come up, whose data began then."""
        self.node.submit(LinkOpened(link, peer, None))
        self.node.submit(Received(link, Hello(member(peer, host), stamp_at(self.node.time_ms()), (), since_ms)))
        return self

    def loses(self, link: int = 1) -> "Clocked":
        """Let a peer's link end, and its machine refuse another: it is dead."""
        self.node.submit(LinkClosed(link))
        self.node.submit(DialFailed(self.me.address, refused=True))
        return self

    def waits(self, seconds: float) -> "Clocked":
        """Let time pass, and its driver notice."""
        self.now_s += seconds
        self.node.submit(Tick())
        return self

    def hears(self, message, link: int = 1) -> None:
        """Let a message come in."""
        self.node.submit(Received(link, message))

    def does(self) -> list:
        """Return the effects since the last call, and carry out those that end waits."""
        effects, _ = self.node.take()
        for effect in effects:
            if isinstance(effect, Settle):
                effect.waiter(effect.outcome)
        return effects

    def says(self) -> list:
        """Return the messages sent over links since the last call."""
        return [effect.message for effect in self.does() if isinstance(effect, Send)]


def exchange(one: Clocked, other: Clocked, link: int = 1) -> None:
    """Carry what two nodes say to each other over a link that has this number at both, until both are silent."""
    said = True
    while said:
        said = [(other, message) for message in one.says()] + [(one, message) for message in other.says()]
        for hearer, message in said:
            hearer.hears(message, link)


def tickets_of(outbound: Outbound, sid: Sid) -> list[Ticket]:
    """Return the tickets of a session, whether its write is owed or in flight."""
    flights = outbound._flights.values()
    return [*outbound.waiting.get(sid, ()), *(ticket for flight in flights for ticket in flight.tickets.get(sid, ()))]
