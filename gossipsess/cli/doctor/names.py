# Names: what the name service says, as a node would hear it.
#
# In:    a name, what became of its lookup.    Out: findings.
# The system's resolver tells three failures apart, and each has another cure: the name does not exist, it has no
# address of the wanted kind, the server does not answer.

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gossipsess.cli.doctor.finding import Finding, Verdict
from gossipsess.config import SERVICE, Config
from gossipsess.discovery import Discovery
from gossipsess.model.member import Address, Name

SHOWN_MAX: Final = 6

_KUBERNETES: Final = (
    "In Kubernetes: is there a headless Service of that name in this namespace (clusterIP: None), with "
    "publishNotReadyAddresses, whose selector matches the pods? See: kubectl get endpointslices. Elsewhere: set "
    "GOSSIPSESS_DISCOVERY to where the other nodes are."
)
_SERVER: Final = (
    "See /etc/resolv.conf; may this machine reach that server at port 53, UDP and TCP (in Kubernetes: does a "
    "NetworkPolicy allow egress to cluster DNS)?"
)


@dataclass
class Answer:
    """What became of one lookup."""

    name: Name
    addresses: tuple[Address, ...] = ()
    error: OSError | None = None
    took_s: float = 0.0
    others: tuple[Address, ...] = ()
    """Addresses of the version of IP that the settings do not serve; looked up only where there is no other."""


def is_needed(config: Config, parts: Discovery, *, met_elsewhere: bool) -> bool:
    """Say whether a node depends on the names it asks for.

    Not so where they are asked for only while multicast brings nobody, and it has brought somebody, or nobody has set
    the name: outside Kubernetes there mostly is none.
    """
    return not parts.names_when_alone or (config.service != SERVICE and not met_elsewhere)


def check_name(answer: Answer, *, needed: bool, is_mine: Callable[[str], bool]) -> Finding:
    """Say what a name gave; `needed`: without it this node finds nobody, as far as the settings go."""
    took = f"{answer.took_s * 1000:.0f} ms"
    verdict: Verdict = "fail" if needed else "info"
    if answer.others and not answer.addresses:
        return Finding(
            "names",
            verdict,
            f"{answer.name} has addresses of another version of IP only: {_listed(answer.others)} ({took})",
            "Listen on both: GOSSIPSESS_BIND=:: (or a POD_IP of that version).",
            "dns",
        )
    if not answer.addresses:
        problem, advice = _problem(answer.error)
        return Finding("names", verdict, f"{answer.name}: {problem} ({took})", advice, "dns")
    hosts = sorted({host for host, _ in answer.addresses})
    if all(is_mine(host) for host in hosts):
        return Finding(
            "names",
            "warn" if needed else "info",
            f"{answer.name} names this machine alone: {_listed(answer.addresses)} ({took})",
            "If there should be more: do the others run, does the Service's selector match their pods, and does it "
            "have publishNotReadyAddresses: true? A record may come some seconds after a pod.",
            "dns-own",
        )
    return Finding("names", "ok", f"{answer.name} names {_listed(answer.addresses)} ({took})")


def _problem(error: OSError | None) -> tuple[str, str]:
    if isinstance(error, socket.gaierror):
        match error.errno:
            case socket.EAI_NONAME:
                return "no such name (NXDOMAIN)", _KUBERNETES
            case socket.EAI_AGAIN:
                return "the name server gives no answer", _SERVER
            case socket.EAI_NODATA:
                return "the name exists and has no address", _KUBERNETES
    if isinstance(error, TimeoutError):
        return f"the name server gives {error}", _SERVER
    return (str(error) or "no addresses") if error else "no addresses", _KUBERNETES


def _listed(addresses: tuple[Address, ...]) -> str:
    hosts = list(dict.fromkeys(host for host, _ in addresses))
    more = f" and {len(hosts) - SHOWN_MAX} more" if len(hosts) > SHOWN_MAX else ""
    return f"{', '.join(hosts[:SHOWN_MAX])}{more}"
