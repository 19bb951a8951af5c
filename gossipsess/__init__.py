"""Web sessions replicated between app processes, peer to peer, with no server to run.

async with gossipsess.open_node(config) as node:       # on Trio; gossipsess.aio and gossipsess.sync: same names
    session = node.sessions.create()
    session["user"] = "kim"
    outcome = await node.sessions.commit(session)
    again = await node.sessions.load(session.cookie)
"""

from typing import TYPE_CHECKING, Any

from gossipsess.config import Config
from gossipsess.errors import (
    ConfigError,
    GossipsessError,
    MemoryFull,
    SessionTooLarge,
    SessionUnavailable,
    UnreplicableValue,
)
from gossipsess.protocol.outcomes import Confirmed, Degraded, Gone, Outcome, Revoked
from gossipsess.session import Session
from gossipsess.status import GainStatus, MemberStatus, Status
from gossipsess.subscription import Change, Subscription

if TYPE_CHECKING:
    from gossipsess.inline import open_node

__all__ = [
    "Change",
    "Config",
    "ConfigError",
    "Confirmed",
    "Degraded",
    "GainStatus",
    "Gone",
    "GossipsessError",
    "MemberStatus",
    "MemoryFull",
    "Outcome",
    "Revoked",
    "Session",
    "SessionTooLarge",
    "SessionUnavailable",
    "Status",
    "Subscription",
    "UnreplicableValue",
    "open_node",
]


def __getattr__(name: str) -> Any:
    # Only a Trio application pays for importing Trio.
    if name == "open_node":
        from gossipsess.inline import open_node

        return open_node
    raise AttributeError(f"module 'gossipsess' has no attribute {name!r}")
