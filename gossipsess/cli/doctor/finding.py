# Finding: one thing that the doctor found, good or bad; and how the bad ones are ordered.
#
# Rule:  each fault has a word of its own, for programs that read --json, and a rank: who has several cures first what
#        may be the cause of the others.
# Not here: what to look at (the modules of the checks), how it is shown (report.py).

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from gossipsess.model.member import Address

Verdict = Literal["ok", "info", "warn", "fail"]
"""``fail`` keeps nodes apart, or will; ``warn`` may; ``info`` is worth knowing."""

FAULTS: Final = {
    "settings": "the settings are refused, so that no node starts with them",
    "no-secret": "no secret is set, so that nodes talk to their own machine only",
    "auto": "zero code is asked for, and does not work in a process",
    "discovery-none": "the settings say to look for nobody",
    "stopped": "the node of this machine does not replicate any more",
    "ports": "no port of the range is free, or it is another program's",
    "secret": "a node has another secret, or is of another cluster",
    "tcp-blocked": "TCP gets no answer",
    "udp-blocked": "UDP gets no answer, while TCP does",
    "clock": "the clocks of two machines differ",
    "dns": "a name has no addresses, or the name server gives no answer",
    "dns-own": "a name has this machine's own address only",
    "multicast-local": "multicast does not work on this machine",
    "multicast-dropped": "multicast brings nobody else's beacons, or takes ours to nobody",
    "not-a-node": "something else than a node answers",
    "refused": "nobody listens at an address that was told",
    "unlinked": "nodes that can be reached do not know each other",
    "rules": "two nodes place sessions by different settings",
    "address": "the address to listen on, or that others are told, is not this machine's",
    "alone": "no other node of this cluster was found",
}
"""Each fault's word, and what it says; the most likely cause of others first."""
_RANKS: Final = {fault: rank for rank, fault in enumerate(FAULTS)}


@dataclass(frozen=True)
class Finding:
    """One thing found."""

    check: str
    """What was looked at: settings, address, ports, here (this machine's nodes), auto (zero code), names, multicast,
    node, clock, cluster."""
    verdict: Verdict
    text: str
    advice: str = ""
    """What to do; empty where there is nothing to do."""
    fault: str = ""
    """Which of `FAULTS` it is; empty where it is none."""

    def __post_init__(self) -> None:
        assert not self.fault or self.fault in FAULTS, self.fault


def shown(address: Address) -> str:
    """Return an address as people write it."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def reasons(findings: Iterable[Finding]) -> list[Finding]:
    """Return what is wrong or may be, the most likely cause first, each fault once."""
    wrong = [one for one in findings if one.verdict in ("warn", "fail")]
    # To be alone is what all the others come to, and no reason.
    wrong.sort(key=lambda one: (one.fault == "alone", one.verdict == "warn", _RANKS.get(one.fault, len(_RANKS))))
    return list({one.fault or one.text: one for one in reversed(wrong)}.values())[::-1]
