# Ports: which of the range are free on this machine, and who has the others.
#
# In:    the settings; who was met at the taken ones.    Out: findings.
# A port is tried by binding it, UDP and TCP each, and given back at once. No packet is sent.
# Not here: meeting who is there (outpost.py).

import ipaddress
import socket
from dataclasses import dataclass
from typing import Final

from gossipsess.cli.doctor.finding import Finding
from gossipsess.cli.doctor.outpost import Visit
from gossipsess.config import Config
from gossipsess.model.member import Address

TAKEN_MAX: Final = 64
"""Of so many at most somebody is asked who they are."""
_HOW: Final = (
    "See who has them with: ss -lntup. Set another GOSSIPSESS_PORT (the same on every node), or a larger "
    "GOSSIPSESS_PORT_RANGE."
)


@dataclass(frozen=True)
class Taken:
    """A port that is not free."""

    port: int
    udp: bool
    tcp: bool

    def __str__(self) -> str:
        return f"{self.port}/{'UDP and TCP' if self.udp and self.tcp else 'UDP' if self.udp else 'TCP'}"


def taken_ports(config: Config) -> list[Taken]:
    """Return the ports of the range that somebody has, UDP or TCP."""
    if config.port == 0:
        return []
    taken = []
    for port in range(config.port, min(config.port + config.port_range, 65536)):
        tcp, udp = (not _is_free(config.bind_address, port, kind) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM))
        if tcp or udp:
            taken.append(Taken(port, udp, tcp))
    return taken


def own_address(config: Config, port: int) -> Address:
    """Return where this machine itself reaches a port of its own."""
    bound = ipaddress.ip_address(config.bind_address)
    if not bound.is_unspecified:
        return (config.bind_address, port)
    return ("::1" if bound.version == 6 else "127.0.0.1", port)


def check_ports(config: Config, taken: list[Taken], visits: dict[int, Visit]) -> list[Finding]:
    """Say how the range is used; `visits`: by port, who was met at those whose TCP is taken."""
    if config.port == 0:
        return [Finding("ports", "ok", "any free port is taken (GOSSIPSESS_PORT=0)")]
    tried = min(config.port_range, 65536 - config.port)
    span = f"{config.port}" if tried == 1 else f"{config.port} to {config.port + tried - 1}"
    nodes: list[Taken] = []
    strangers: list[Taken] = []
    others: list[Taken] = []
    for one in taken:
        outcome = visits[one.port].outcome if one.port in visits else ""
        kind = nodes if outcome == "met" else strangers if outcome in ("stranger", "former") else others
        kind.append(one)
    parts = [f"{tried - len(taken)} of {tried} free" if tried > 1 else "taken" if taken else "free"]
    for kind, who in (
        (nodes, "by nodes of this cluster"),
        (strangers, "by nodes of another secret or cluster"),
        (others, "by other programs"),
    ):
        if kind:
            shown = ", ".join(map(str, kind[:8])) + (", ..." if kind[8:] else "")
            parts.append(f"{shown} {who}")
    text = f"{span}: {'; '.join(parts)}"
    if len(taken) == tried and not nodes:
        return [Finding("ports", "fail", f"{text}: no node can start here", _HOW, "ports")]
    if len(taken) == tried:
        return [Finding("ports", "info", f"{text}: no further process can start here", _HOW, "ports")]
    if others and others[0].port == config.port:
        advice = f"Nodes here take the next free one, which others find more slowly. {_HOW}"
        return [Finding("ports", "warn", text, advice, "ports")]
    return [Finding("ports", "ok", text)]


def _is_free(address: str, port: int, kind: socket.SocketKind) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, kind) as probe:
        if kind == socket.SOCK_STREAM:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as a node does
        if family == socket.AF_INET6:
            only = not ipaddress.ip_address(address).is_unspecified
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True
