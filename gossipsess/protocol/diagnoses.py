# Diagnoses: what is wrong with another node, for whoever runs both: each is told once.
#
# In:    what the replica finds out about a node.    Out: warnings.
# Why once: what is wrong shows again with each message or link, and it is a person who mends it. Which nodes were
#        warned of is forgotten, oldest first, where very many come and go.
# Not here: what follows for the node (replica.py), a clock of this node's own that stood still (replica.py).

from typing import Final

from gossipsess.model.identity import NodeId, short
from gossipsess.model.member import Member
from gossipsess.protocol.effects import Effect, Warn

NODES_MAX: Final = 256
"""Nodes remembered of each diagnosis."""


class _Nodes:
    """The nodes that were noted last."""

    def __init__(self) -> None:
        self._noted: dict[NodeId, None] = {}  # oldest first

    def __contains__(self, node: NodeId) -> bool:
        return node in self._noted

    def note(self, node: NodeId) -> bool:
        """Note a node; return whether that is new."""
        if node in self._noted:
            return False
        if len(self._noted) >= NODES_MAX:
            del self._noted[next(iter(self._noted))]
        self._noted[node] = None
        return True


class Diagnoses:
    """What one node has found wrong with others."""

    def __init__(self) -> None:
        self._refused = _Nodes()
        self._off = _Nodes()
        self._unlike = _Nodes()
        self._linked_dead = _Nodes()  # nodes that died while they were linked
        self._silent = _Nodes()  # those of them that turned out to live

    def refused(self, node: NodeId, why: str) -> list[Effect]:
        """A node's link was ended for what it said."""
        return _once(self._refused, node, f"node {short(node)} is refused: {why}.")

    def clock_differs(self, node: NodeId, off_ms: int) -> list[Effect]:
        """A node's clock is so far ahead of this one's; negative: behind."""
        off = f"the clock of node {short(node)} differs by {off_ms / 1000:.1f} s"
        return _once(self._off, node, f"{off}: run NTP on both machines.")

    def rules_differ(self, member: Member, differences: str) -> list[Effect]:
        """A node places sessions otherwise."""
        return _once(
            self._unlike,
            member.node,
            f"{member.name} ({short(member.node)}) places sessions by other rules: {differences}. Neither of the "
            "two finds out what the other lacks, and copies may be too few: set the same on every node.",
        )

    def died_linked(self, node: NodeId) -> None:
        """A node was declared dead while a link to it stood: most likely it is, but not if it comes back."""
        self._linked_dead.note(node)

    def back(self, member: Member) -> list[Effect]:
        """A node that was dead lives."""
        if member.node not in self._linked_dead:
            return []
        return _once(
            self._silent,
            member.node,
            f"{member.name} ({short(member.node)}) was taken for dead though a link to it stood, and lives: it "
            "was paused, or TCP gets through to it and UDP does not (a firewall, a NetworkPolicy).",
        )


def _once(warned: _Nodes, node: NodeId, text: str) -> list[Effect]:
    return [Warn(text)] if warned.note(node) else []
