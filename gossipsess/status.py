# Status: what a node can say of itself at one moment.

from dataclasses import dataclass

from gossipsess.model.identity import short
from gossipsess.model.member import Address, MemberState
from gossipsess.node import Node


@dataclass(frozen=True)
class MemberStatus:
    """Another node, as this one sees it."""

    node: str
    """The first 8 hexadecimal digits of its id, new at each start."""
    name: str
    address: Address
    host: str
    state: str
    """``alive``, ``suspect``, ``dead`` or ``left``."""
    linked: bool
    """A link to it is in use."""


@dataclass(frozen=True)
class Status:
    """A snapshot; nothing in it changes afterwards."""

    node: str
    name: str
    address: Address
    host: str
    synced: bool
    """Everything the live members held when this node met them is held here; true for a node that is alone."""
    running: bool
    """The replication thread runs. False: sessions are served from this process alone."""
    sessions: int
    """Records held, tombstones of ended sessions included, and revocations of users not."""
    unconfirmed: int
    """Session states that this node still has to send to a member, or that the member has not acknowledged. What a
    member that has just come is still pulling by itself is not counted."""
    overwrites: int
    """Concurrent overwrites of one key seen by this node: two nodes wrote it without knowing of each other, and the
    later write stands everywhere."""
    fenced: int
    """Sessions that this node ended since they came from a node it had not met for nearly a day: a logout of theirs may
    have been forgotten meanwhile."""
    memory_bytes: int
    """What all records take in memory, roughly; tombstones included."""
    memory_limit_bytes: int
    """Where new sessions are refused: `Config.memory_limit_mb`."""
    members: tuple[MemberStatus, ...]
    """Everyone else, live ones first, then by name."""


def snapshot(node: Node) -> Status:
    """Return the status of a node; callable from any thread."""
    with node.locked() as replica:
        myself = replica.swim.myself
        linked = replica.linked
        known = sorted(replica.swim.view.all(), key=lambda member: (not member.is_live, member.name, member.node))
        return Status(
            node=short(myself.node),
            name=myself.name,
            address=myself.address,
            host=myself.host,
            synced=replica.sessions.synced,
            running=node.is_driven,
            sessions=len(node.records) - replica.sessions.table.revocations,
            unconfirmed=replica.sessions.unacknowledged,
            overwrites=replica.sessions.table.overwrites,
            fenced=replica.sessions.fenced,
            memory_bytes=replica.sessions.table.bytes,
            memory_limit_bytes=replica.sessions.memory.limit_bytes,
            members=tuple(
                MemberStatus(
                    short(member.node),
                    member.name,
                    member.address,
                    member.host,
                    MemberState(member.state).name.lower(),
                    member.node in linked,
                )
                for member in known
            ),
        )
