# Messages: what nodes say to each other, as plain data. codec.py makes bytes of them.
#
# Datagrams carry membership only; everything about sessions travels on the one TCP link of a pair, where it is
# ordered and flow-controlled. Nothing here depends on that order for its soundness: each message can be lost,
# doubled or overtaken, and the rules in protocol/ still hold.

from typing import NamedTuple, TypeGuard

from gossipsess.model.delta import Delta
from gossipsess.model.digest import EVERYTHING
from gossipsess.model.identity import NodeId, Sid
from gossipsess.model.member import Address, Member, Told
from gossipsess.model.rules import Rules

# --- membership, by UDP -----------------------------------------------------------------------------------


class Ping(NamedTuple):
    """Are you alive, and are you `target`? A node with another id at that address answers `WrongId`."""

    sequence: int
    target: NodeId
    updates: tuple[Member, ...] = ()
    view: int = 0
    """The tag of the sender's layout: 32 bits for its live members and where they place sessions."""
    digest: int = 0
    """The sender's settled sessions, as far as the receiver holds them too, as a sum of 48 bits."""


class ProbeAck(NamedTuple):
    """The answer to `Ping`, also relayed for a `PingRequest`."""

    sequence: int
    updates: tuple[Member, ...] = ()
    view: int = 0
    digest: int = 0


class PingRequest(NamedTuple):
    """Please ping `target` for me; answered by a relayed `ProbeAck`, or by `Nack` when it stays silent."""

    sequence: int
    target: NodeId
    address: Address
    updates: tuple[Member, ...] = ()


class Nack(NamedTuple):
    """I, the helper, am well, but your target did not answer me."""

    sequence: int


class WrongId(NamedTuple):
    """The node you asked for is not at this address any more; the sender is."""

    sequence: int
    asked: NodeId


class Gossip(NamedTuple):
    """Membership updates that found no probe to ride on."""

    updates: tuple[Member, ...]


class Beacon(NamedTuple):
    """I am here: the sender serves at `port` of the address this came from. A hint, never a membership."""

    port: int
    reply: bool
    """True in the unicast answer to a beacon, which is never answered itself."""


# --- sessions, by TCP -------------------------------------------------------------------------------------


class Hello(NamedTuple):
    """First on every link, both ways: who I am and whom I know."""

    member: Member
    clock: int
    """The sender's time as a stamp: a newcomer never writes in the past, and a clock far off is refused at the door."""
    members: tuple[Told, ...]
    since_ms: int = 0
    """When the lineage of the sender's data began, cluster time: tells a newcomer from one that was long apart."""
    rules: Rules = Rules()
    """By which the sender places sessions: nodes with different ones never hold the same."""


class Push(NamedTuple):
    """Deltas, pushed at once or sent for a `Pull`; acknowledged by `PushAck` under the same sequence."""

    sequence: int
    deltas: tuple[Delta, ...]


class Gap(NamedTuple):
    """A delta's base was missing here: please send what these claims and this hash do not cover."""

    sid: Sid
    claims: dict[NodeId, int] | None
    """None asks for the whole record."""
    state_hash: int


class PushAck(NamedTuple):
    """Every delta of that push is held here, but for the gaps and for sessions that are over by this node's time."""

    sequence: int
    gaps: tuple[Gap, ...] = ()
    over: tuple[Sid, ...] = ()


class Pull(NamedTuple):
    """Records wanted: by a request that waits (`request` > 0), or by a sync (`request` == 0)."""

    request: int
    wanted: tuple[Gap, ...]


class PullAnswer(NamedTuple):
    """What became of a waiting request's pull. The deltas themselves came before it, in a `Push`."""

    request: int
    held: bool
    """The session, or its tombstone, is held at the sender."""
    synced: bool
    """The sender had all of the session's partition when it answered. Of a holder, with `held` false, that is a no to
    rely on; without it, others may hold the session."""


class SyncAsk(NamedTuple):
    """In which groups of leaves do you hold other sessions than I do? Answered by `SyncSums`."""

    round: int
    """Counts the questions of one asker to one peer; an answer to an earlier one is not taken."""
    groups: tuple[int, ...]
    """The asker's sum of each group, 48 bits each, over the leaves in scope."""
    scope: int = EVERYTHING
    """The partitions that are compared, as bits (model/digest.py); the revocations always are."""


class SyncSums(NamedTuple):
    """The answerer's leaf sums in each group whose sums differ; none where all is equal."""

    round: int
    groups: tuple[tuple[int, tuple[int, ...]], ...]
    """(group, the sum of each of its leaves, in scope or not); all of them are 33 KB, which is one frame."""
    synced: bool
    """The sender has everything itself."""


class SyncList(NamedTuple):
    """Which sessions do you hold in these leaves? Answered by `SyncPage`."""

    round: int
    leaves: tuple[int, ...]
    """Bounded by the asker."""


class SyncPage(NamedTuple):
    """The answerer's sessions in the first leaves of a `SyncList`."""

    round: int
    answered: int
    """How many of the listed leaves; the rest is to be asked for again."""
    sessions: tuple[tuple[Sid, int], ...]
    """(sid, state hash, cut to 48 bits)"""
    synced: bool


class Have(NamedTuple):
    """I hold these sessions of one partition without being one of its holders: do you? Answered by `Held`."""

    round: int
    """Counts the questions of one asker; an answer to an earlier one is not taken."""
    partition: int
    records: tuple[Gap, ...]
    """What the asker holds. Claims as far as they cover the whole record, else None; empty ones are a tombstone's."""


class Held(NamedTuple):
    """Of these sessions I hold another state or none; all others that you named I hold as you do, or as dead."""

    round: int
    holder: bool
    """The answerer is a holder of the partition, as it sees the cluster."""
    lacking: tuple[Gap, ...]
    """What the answerer holds of them; nothing is empty claims with the hash 0."""


class Touch(NamedTuple):
    """Sessions that were used without being written; acknowledged by `TouchAck` under the same sequence."""

    sequence: int
    accesses: tuple[tuple[Sid, int], ...]
    """(sid, last access in milliseconds of cluster time, coarse)"""


class TouchAck(NamedTuple):
    """The accesses of that batch are noted, as far as the sessions are held here."""

    sequence: int


class Members(NamedTuple):
    """Everyone I know, myself included, and of those that ended the latest: for who sees other members than I do."""

    members: tuple[Told, ...]
    reply: bool
    """Please tell me the same; False in the answer, which is never answered itself."""


class Bye(NamedTuple):
    """I leave on purpose; what follows on this link is nothing."""

    incarnation: int = 0
    """The sender's last. Who knew an earlier one, and hears of this one by a detour, would take the sender for back."""


Datagram = Ping | ProbeAck | PingRequest | Nack | WrongId | Gossip | Beacon
SessionMessage = (
    Push | PushAck | Pull | PullAnswer | SyncAsk | SyncSums | SyncList | SyncPage | Have | Held | Touch | TouchAck
)
LinkMessage = Hello | SessionMessage | Members | Bye
Message = Datagram | LinkMessage


def is_datagram(message: Message) -> TypeGuard[Datagram]:
    """Say whether a message is one that travels by UDP."""
    return isinstance(message, Datagram)


def is_link_message(message: Message) -> TypeGuard[LinkMessage]:
    """Say whether a message is one that travels over a link."""
    return isinstance(message, LinkMessage)
