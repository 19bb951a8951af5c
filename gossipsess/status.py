# Status: what a node can say of itself at one moment.

from dataclasses import dataclass
from typing import Final, Literal

from gossipsess.model.digest import USERS_SCOPE
from gossipsess.model.identity import NodeId, short
from gossipsess.model.member import Address, MemberState
from gossipsess.node import Node
from gossipsess.protocol.placement import EVERYWHERE, Layout

READY_AT_LATEST_S: Final = 60.0
"""Some 100,000 sessions of 2 KB come in half of this."""

Mode = Literal["all-to-all", "primary-secondary"]


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
    zone: str
    """What hosts share that may fail at once; empty where nobody said."""
    leaving: bool
    """It hands over what it holds, and will leave; no session is placed on it any more."""


@dataclass(frozen=True)
class GainStatus:
    """Partitions that this node is to hold since a while, and may not hold in whole yet."""

    partitions: int
    """How many these are now."""
    of: int
    """How many there were in all since everything was here last, those of the former included."""
    come: int
    """Of those, how many have been compared with one of their holders: nearly all there is of them is here."""
    for_s: float
    """How long ago the first of them was gained, seconds."""
    eta_s: float | None
    """In about how many seconds the data will be here; None while hardly any has come."""


@dataclass(frozen=True)
class Status:
    """A snapshot; nothing in it changes afterwards."""

    node: str
    name: str
    address: Address
    host: str
    synced: bool
    """Everything the live members held when this node met them is held here; true for a node that is alone."""
    up_s: float
    """For how long the node has been there, seconds."""
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
    zone: str
    """`Config.zone`; empty where it is not set."""
    leaving: bool
    """This node hands over what it holds, and then leaves."""
    mode: Mode
    """``all-to-all``: every node holds every session; ``primary-secondary``: `copies` nodes hold each."""
    copies: int
    """On how many nodes each session lives, or will when everything has moved."""
    primary_partitions: int
    """Sessions are placed by partition, of which there are 1,024: how many have their primary here. None in all-to-all,
    where no node is before another."""
    secondary_partitions: int
    """How many have a further copy here; in all-to-all each, 1,024."""
    gaining: GainStatus | None
    """What is still being moved here, at the start of a node everything; None when all that is to be here is here."""
    handing_over: int
    """Partitions with sessions here that the nodes which are to hold them are not known to hold."""
    surplus: int
    """Records here of which this node is no holder, among `sessions`: fetched for a request, tombstones, or left over
    and soon dropped."""
    pulled_bytes: int
    """Keys and values that were moved here since the start: gained, or found missing."""
    handed_over_bytes: int
    """Sizes of the sessions that this node gave to their new holders since the start, roughly."""
    members: tuple[MemberStatus, ...]
    """Everyone else, live ones first, then by name; of one name the life that ended last before those of before."""

    @property
    def ready(self) -> bool:
        """This process should be sent requests: the node runs, is not `leaving`, and is `synced`, or should be by now.

        Whether there are others does not matter: processes that wait for each other to be ready never would be. And
        what keeps one from being synced, a peer that refuses its clock, say, must not keep a whole deployment down:
        after a minute it serves what it has, and asks for the rest.
        """
        return self.running and not self.leaving and (self.synced or self.up_s >= READY_AT_LATEST_S)


def snapshot(node: Node) -> Status:
    """Return the status of a node; callable from any thread."""
    with node.locked() as replica:
        myself = replica.swim.myself
        layout = replica.placement.layout
        now_s = node.now()
        anti_entropy = replica.sessions.anti_entropy
        progress = anti_entropy.gains.progress(now_s)
        primary, secondary = _roles(layout, myself.node)
        linked = replica.linked
        view = replica.swim.view
        live = sorted(view.live(), key=lambda member: (member.name, member.node))
        ended = sorted((member for member, _ in view.ended_last()), key=lambda member: member.name)
        return Status(
            node=short(myself.node),
            name=myself.name,
            address=myself.address,
            host=myself.host,
            synced=replica.sessions.synced,
            up_s=node.up_s,
            running=node.is_driven,
            sessions=len(node.records) - replica.sessions.table.revocations,
            unconfirmed=replica.sessions.unacknowledged,
            overwrites=replica.sessions.table.overwrites,
            fenced=replica.sessions.fenced,
            memory_bytes=replica.sessions.table.bytes,
            memory_limit_bytes=replica.sessions.memory.limit_bytes,
            zone=myself.zone,
            leaving=myself.leaving,
            mode="all-to-all" if layout.all_to_all else "primary-secondary",
            copies=layout.copies,
            primary_partitions=primary,
            secondary_partitions=secondary,
            gaining=None
            if progress is None
            else GainStatus(progress.partitions, progress.of, progress.come, now_s - progress.since_s, progress.eta_s),
            handing_over=replica.sessions.securing,
            surplus=replica.sessions.table.count_beyond(layout.partitions_of(myself.node)),
            pulled_bytes=anti_entropy.pulled_bytes,
            handed_over_bytes=anti_entropy.handed_over_bytes,
            members=tuple(
                MemberStatus(
                    short(member.node),
                    member.name,
                    member.address,
                    member.host,
                    MemberState(member.state).name.lower(),
                    member.node in linked,
                    member.zone,
                    member.leaving,
                )
                for member in (*live, *ended)
            ),
        )


def _roles(layout: Layout, node: NodeId) -> tuple[int, int]:
    """Return of how many partitions a node is the primary, and of how many a further holder."""
    held = (layout.partitions_of(node) & ~USERS_SCOPE).bit_count()
    if layout.all_to_all:
        return 0, held
    primary = sum([layout.holders(partition)[0].node == node for partition in range(EVERYWHERE)])
    return primary, held - primary
