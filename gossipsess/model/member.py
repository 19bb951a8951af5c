# Member: what gossip knows of one node.
#
# Order of knowledge about one node: a higher incarnation wins; within one incarnation the later state in
# ALIVE < SUSPECT < DEAD < LEFT wins. Only the node itself raises its incarnation, to refute a suspicion.
# Source: SWIM, section 4.2; LEFT is the serf project's addition.

from enum import IntEnum
from typing import Literal, NamedTuple

from gossipsess.model.identity import NodeId

Address = tuple[str, int]
"""IP address as text, and the port that serves both UDP and TCP."""


class Name(NamedTuple):
    """A name under which a name service tells of nodes."""

    scheme: Literal["dns", "srv"]
    """``dns``: its addresses (A, AAAA); ``srv``: its SRV records, which tell the ports too."""
    host: str
    port: int
    """With ``dns`` the first port at each address on which a node may serve; else 0."""
    ports: int
    """How many ports from there on may be nodes': several workers share an address. 1 with ``srv``."""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}{f':{self.port}' if self.port else ''}"


class MemberState(IntEnum):
    """Ordered: within one incarnation the greater state wins."""

    ALIVE = 0
    SUSPECT = 1
    DEAD = 2
    LEFT = 3


class Member(NamedTuple):
    """One node as gossip describes it; replaced, never edited."""

    node: NodeId
    incarnation: int
    """Raised by the node itself only, 0 .. 2**32 - 1."""
    state: MemberState
    address: Address
    """Where it serves membership (UDP) and replication (TCP)."""
    name: str
    """Stable over restarts in place: the configured name, else ``ip:port``. Placement hashes this."""
    host: str
    """The machine or pod; copies on one host die together."""
    zone: str = ""
    """What hosts may share that fails at once, a rack or an availability zone; empty where nobody said."""
    leaving: bool = False
    """It is about to leave and holds nothing for others any more, but serves and acknowledges until it has left. Set
    by the node itself only, with a higher incarnation."""

    @property
    def rank(self) -> tuple[int, int]:
        """What decides between two descriptions of the node: the greater one holds."""
        return (self.incarnation, self.state)

    @property
    def is_live(self) -> bool:
        """Alive or suspect: a suspect keeps its place until it is declared dead."""
        return self.state <= MemberState.SUSPECT

    @property
    def is_eligible(self) -> bool:
        """Sessions may be placed on it."""
        return self.is_live and not self.leaving


class Told(NamedTuple):
    """A member as a list tells of it, with two ages, so that old news is not taken for young."""

    member: Member
    ended_s: int = 0
    """How long the teller has known that it died or left, seconds rounded up, below 2**32; 0 for live members."""
    apart_s: int = 0
    """How long ago the teller's sessions and the member's were last in touch, rounded up, below 2**32; 0 while they
    are. Never in touch is since 1970."""
