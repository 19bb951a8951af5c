# Effects: everything the state machine wants done, in the order it wants it. The driver is their only consumer.

from typing import Literal, NamedTuple

from gossipsess.model.identity import Sid
from gossipsess.model.member import Address, Member, MemberState, Name
from gossipsess.protocol.events import Waiter
from gossipsess.protocol.outcomes import Found, Outcome
from gossipsess.wire.messages import Datagram, LinkMessage

ChangeKind = Literal["created", "changed", "invalidated", "expired"]


class SendDatagram(NamedTuple):
    """Send one membership message by UDP."""

    address: Address
    message: Datagram


class SendBeacon(NamedTuple):
    """Say on the multicast group that this node is here."""

    message: Datagram


class Dial(NamedTuple):
    """Open a link to `address`; the outcome comes back as `LinkOpened` or `DialFailed`."""

    address: Address


class LookUp(NamedTuple):
    """Ask the name service for the addresses of a name; the outcome comes back as `LookedUp`."""

    name: Name


class Send(NamedTuple):
    """Send one message on a link."""

    link: int
    message: LinkMessage


class CloseLink(NamedTuple):
    """Close a link after what is queued on it has left."""

    link: int


class MemberChanged(NamedTuple):
    """What gossip knows of a node changed. `before` is None for a node not known until now."""

    member: Member
    before: MemberState | None


class Settle(NamedTuple):
    """A request's wait is over: hand `outcome` to whoever waits behind `waiter`."""

    waiter: Waiter
    outcome: Outcome | Found


class Notify(NamedTuple):
    """A session changed; only while somebody watches."""

    kind: ChangeKind
    sid: Sid
    remote: bool
    """Another node did it, or announces it."""


class Warn(NamedTuple):
    """Something an operator should read once."""

    text: str


class Inform(NamedTuple):
    """Something that an operator who looks for it finds in the log; nothing is wrong."""

    text: str


Effect = SendDatagram | SendBeacon | Dial | LookUp | Send | CloseLink | MemberChanged | Settle | Notify | Warn | Inform
"""Any of them."""
