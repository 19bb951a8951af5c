# Links: which TCP link carries what is said to a peer, and when to dial one that has none.
#
# One link a pair. Both sides may dial at the same moment; then both must keep the same one: the link that the
# smaller node id dialed. A link that is offered later replaces the old one instead, which is then one that its
# other end has already lost.

from typing import Final

from gossipsess.model.identity import NodeId
from gossipsess.model.member import Address, Member

SAME_MOMENT_S: Final = 2.0
"""Two links to one peer that come up within this are taken for simultaneous dials."""
YOUNG_S: Final = 1.0
"""A link that ended sooner was refused by one side after the greeting: dialing at once would go round and round."""
YOUNG_DELAY_S: Final = 0.25
DIAL_AGAIN_S: Final = 0.03
"""A process that is being killed may accept for a moment yet; soon after, its machine refuses: it is known dead."""
DIAL_AGAIN_MAX_S: Final = 5.0
GREATER_ID_WAITS_S: Final = 1.0
"""The greater node id leaves the first dial to the smaller, to spare the pair a second link."""


class _Link:
    __slots__ = ("dialed", "node", "opened_at_s")

    def __init__(self, node: NodeId, dialed: Address | None, opened_at_s: float) -> None:
        self.node = node
        self.dialed = dialed
        self.opened_at_s = opened_at_s


class Links:
    """This node's links, and the dials it owes."""

    def __init__(self, myself: NodeId) -> None:
        self._myself = myself
        self._open: dict[int, _Link] = {}
        self._of_node: dict[NodeId, int] = {}  # the link in use, once its Hello came
        self._delays: dict[NodeId, float] = {}  # after links that ended young
        self._dials: dict[NodeId, tuple[float, float]] = {}  # live members without a link: (due, next delay)

    def opened(self, link: int, node: NodeId, dialed: Address | None, now_s: float) -> None:
        """A link stands; it is in use from its Hello on."""
        self._open[link] = _Link(node, dialed, now_s)

    def node_of(self, link: int) -> NodeId | None:
        """Return who is at the other end."""
        opened = self._open.get(link)
        return opened.node if opened is not None else None

    def opened_at_s(self, link: int, now_s: float) -> float:
        """Return since when a link stands."""
        opened = self._open.get(link)
        return opened.opened_at_s if opened is not None else now_s

    def dialed_of(self, link: int) -> Address | None:
        """Return the address this side dialed for a link."""
        opened = self._open.get(link)
        return opened.dialed if opened is not None else None

    def of(self, node: NodeId) -> int | None:
        """Return the link in use to a node."""
        return self._of_node.get(node)

    def in_use(self) -> dict[NodeId, int]:
        """Return the links in use, by node."""
        return dict(self._of_node)

    def established(self, link: int, now_s: float) -> int | None:
        """Take a link into use; return the one to close where the pair has two, which may be this one."""
        new = self._open[link]
        self._dials.pop(new.node, None)
        current = self._of_node.get(new.node)
        if current is None or current == link:
            self._of_node[new.node] = link
            return None
        simultaneous = now_s - self._open[current].opened_at_s < SAME_MOMENT_S
        if simultaneous and not self._dialed_by_smaller(new):
            return link
        self._of_node[new.node] = link
        return current

    def closed(self, link: int) -> NodeId | None:
        """Forget a link; return its node if it was the one in use."""
        opened = self._open.pop(link, None)
        if opened is None or self._of_node.get(opened.node) != link:
            return None
        del self._of_node[opened.node]
        return opened.node

    def wanted(self, node: NodeId, now_s: float, *, at_once: bool = False) -> None:
        """A live member has no link: dial it, at once or when the smaller id has had its chance."""
        if node not in self._of_node and (at_once or node not in self._dials):
            waits = 0.0 if at_once or self._myself < node else GREATER_ID_WAITS_S
            self._dials[node] = (now_s + waits, DIAL_AGAIN_S)

    def lost(self, node: NodeId, opened_at_s: float, now_s: float) -> None:
        """The link in use ended: dial at once, but one that ended young, as a refused Hello's does, later and later."""
        if now_s - opened_at_s >= YOUNG_S:
            self._delays.pop(node, None)
            self.wanted(node, now_s, at_once=True)
            return
        delay_s = self._delays.get(node, 0.0)  # the first time at once: its process may just have died
        self._delays[node] = min(max(2 * delay_s, YOUNG_DELAY_S), DIAL_AGAIN_MAX_S)
        self._dials[node] = (now_s + delay_s, max(delay_s, DIAL_AGAIN_S))

    def unwanted(self, node: NodeId) -> int | None:
        """A member is no more; return the link to close, if there is one."""
        self._dials.pop(node, None)
        self._delays.pop(node, None)
        return self._of_node.pop(node, None)

    def due(self, members: dict[NodeId, Member], now_s: float) -> list[Address]:
        """Return the addresses to dial now; each is due again, later and later, until a link stands."""
        addresses: list[Address] = []
        for node, (due_s, delay_s) in self._dials.items():
            if due_s <= now_s and node in members:
                self._dials[node] = (now_s + delay_s, min(2 * delay_s, DIAL_AGAIN_MAX_S))
                addresses.append(members[node].address)
        return addresses

    def next_deadline(self) -> float | None:
        """Return when the next dial is due."""
        return min((due_s for due_s, _ in self._dials.values()), default=None)

    def _dialed_by_smaller(self, link: _Link) -> bool:
        return (link.dialed is not None) == (self._myself < link.node)
