# Events: everything that can happen to a node. `Replica.handle` is their only consumer.
#
# `waiter` is called with the outcome by whoever carries out the `Settle` effect that ends the wait; the machine
# never calls it.

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from gossipsess.model.clock import Stamp
from gossipsess.model.delta import Delta
from gossipsess.model.identity import NodeId, Sid
from gossipsess.model.member import Address, Name
from gossipsess.model.record import Record
from gossipsess.model.subkeys import Change
from gossipsess.wire.messages import Datagram, LinkMessage

Changes = tuple[tuple[str, Change], ...]
"""(key, encoded value, None to delete, or what is added to a counter), each key once."""

Dot = tuple[NodeId, Stamp]
"""One write: who made it, and when."""

Confirm = int | Literal["all"]
"""How many other hosts must hold a write before the caller goes on; "all": every holder."""

Waiter = Callable[[Any], None]
"""Takes the outcome of a wait. Called at most once; not at all where the outcome was known at once."""


# --- from the application ---------------------------------------------------------------------------------


class Write(NamedTuple):
    """Change one session. The first write of a new one begins with the register of its creation."""

    sid: Sid
    changes: Changes
    confirm: Confirm
    waiter: Waiter
    base: Record | None = None
    """What the request has read. Should that copy have been dropped since, it is this state that is changed."""


class Invalidate(NamedTuple):
    """End a session for good, everywhere, also one that this node has never seen."""

    sid: Sid
    confirm: Confirm
    waiter: Waiter


class Rotate(NamedTuple):
    """Move a session's data, with `changes`, to a new sid, and end the old one in the same step."""

    sid: Sid
    new_sid: Sid
    changes: Changes
    confirm: Confirm
    waiter: Waiter


class Revoke(NamedTuple):
    """End every session of a user, also those that this node does not hold."""

    sid: Sid
    """The user's (`model/revocation.py`)."""
    confirm: Confirm
    waiter: Waiter


class Adopt(NamedTuple):
    """Take in what a client has kept until now (`model/adoption.py`), unless it is held already, or has ended."""

    delta: Delta
    confirm: Confirm
    waiter: Waiter


class Fetch(NamedTuple):
    """A request wants a session that is not held here, or not with these writes in it."""

    sid: Sid
    dots: tuple[Dot, ...]
    waiter: Waiter


class Accessed(NamedTuple):
    """A request used a session."""

    sid: Sid


class Watch(NamedTuple):
    """Tell (or stop telling) of changes to sessions by `Notify`."""

    on: bool


class Inherit(NamedTuple):
    """Before anybody is met: what a node before this one held, which nobody has outlived."""

    deltas: tuple[Delta, ...]
    """Whole records."""
    since_ms: int
    """When the lineage of that data began, cluster time."""
    alone: bool
    """That node had never met anybody: there is nobody to wait for."""


# --- from the world ---------------------------------------------------------------------------------------


class LinkOpened(NamedTuple):
    """A link to an authenticated node stands; `link` is this node's own number for it."""

    link: int
    node: NodeId
    dialed: Address | None
    """The address this side dialed; None where the other side did."""


class LinkClosed(NamedTuple):
    """A link ended, for whatever reason."""

    link: int


class DialFailed(NamedTuple):
    """A `Dial` came to nothing."""

    address: Address
    refused: bool
    """The machine answered that nobody listens there: that process is gone."""
    stranger: bool = False
    """Somebody answered who is no node of this cluster: one of another cluster, or another service."""
    itself: bool = False
    """This node answered, by another of its addresses."""


class LookedUp(NamedTuple):
    """A `LookUp` has ended."""

    name: Name
    addresses: tuple[Address, ...]
    """What the name service said; none where it said nothing."""
    problem: str = ""
    """Why there are none, in its own words."""


class Received(NamedTuple):
    """A message came over a link."""

    link: int
    message: LinkMessage


class ReceivedDatagram(NamedTuple):
    """A membership message came by UDP, authenticated as `sender`'s."""

    sender: NodeId
    address: Address
    message: Datagram


class Tick(NamedTuple):
    """A deadline has come, or effects are wanted now."""

    wall_ms: int | None = None
    """What the machine's wall clock says, Unix milliseconds; None where nobody looked."""


class Drain(NamedTuple):
    """This node will leave: from now on it holds nothing, and hands over what only it has."""


class Leave(NamedTuple):
    """This node is about to stop: tell the others."""


class Abandon(NamedTuple):
    """Nobody drives this node any more: from now on it is alone, and no wait is left open."""


Event = (
    Write
    | Inherit
    | Invalidate
    | Rotate
    | Revoke
    | Adopt
    | Fetch
    | Accessed
    | Watch
    | LinkOpened
    | LinkClosed
    | DialFailed
    | LookedUp
    | Received
    | ReceivedDatagram
    | Tick
    | Drain
    | Leave
    | Abandon
)
