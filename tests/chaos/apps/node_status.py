# What a shop says of the node in its process.

from typing import Any

from gossipsess.service import process_node


def node_status() -> dict[str, Any]:
    """Return what scripts ask for; `peers` are the hosts of those that this node is linked to, one for each node."""
    told = process_node().status()
    peers = sorted(member.host for member in told.members if member.linked)
    names = ("node", "synced", "sessions", "unconfirmed", "pulled_bytes")
    return {"linked": len(peers), "peers": peers} | {name: getattr(told, name) for name in names}
