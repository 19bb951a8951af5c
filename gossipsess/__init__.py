"""Web sessions replicated between app processes, peer to peer, with no server to run.

async with gossipsess.open_node(config) as node:       # on Trio; gossipsess.aio and gossipsess.sync: same names
    session = node.sessions.create()
    session["user"] = "kim"
    outcome = await node.sessions.commit(session)
    again = await node.sessions.load(session.cookie)
"""

# Names come from their modules when they are asked for. `gossipsess ready` is run every few seconds and imports this
# file, as every command does: with all that stands behind the names it would take half a second.
TYPE_CHECKING = False  # importing typing for it would cost a fifth of a bare start of Python
if TYPE_CHECKING:
    from gossipsess.config import Config
    from gossipsess.errors import (
        ConfigError,
        GossipsessError,
        MemoryFull,
        SessionTooLarge,
        SessionUnavailable,
        UnreadableValue,
        UnreplicableValue,
    )
    from gossipsess.inline import open_node
    from gossipsess.protocol.outcomes import Confirmed, Degraded, Gone, Outcome, Revoked
    from gossipsess.session import Session
    from gossipsess.status import GainStatus, MemberStatus, Status
    from gossipsess.subscription import Change, Subscription
    from gossipsess.wire.value_types import register_type

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
    "UnreadableValue",
    "UnreplicableValue",
    "open_node",
    "register_type",
]


_MODULES = {
    "config": ("Config",),
    "errors": (
        "ConfigError",
        "GossipsessError",
        "MemoryFull",
        "SessionTooLarge",
        "SessionUnavailable",
        "UnreadableValue",
        "UnreplicableValue",
    ),
    "inline": ("open_node",),  # only a Trio application pays for importing Trio
    "protocol.outcomes": ("Confirmed", "Degraded", "Gone", "Outcome", "Revoked"),
    "session": ("Session",),
    "status": ("GainStatus", "MemberStatus", "Status"),
    "subscription": ("Change", "Subscription"),
    "wire.value_types": ("register_type",),
}


def __getattr__(name: str) -> object:
    for module, names in _MODULES.items():
        if name in names:
            from importlib import import_module

            globals()[name] = value = getattr(import_module(f"gossipsess.{module}"), name)
            return value
    raise AttributeError(f"module 'gossipsess' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
