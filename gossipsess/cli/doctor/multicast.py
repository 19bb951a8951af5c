# Multicast: whether beacons go out, come back, and come from others.
#
# In:    what was heard in some seconds.    Out: findings.
# Our own beacon comes back by the kernel of this machine, so it proves the group and the interface, not the network.
# Silence has two reasons that look the same from here: nobody else is there, or the network drops it. Who was reached
# in another way tells them apart.

import ipaddress
from collections.abc import Callable
from typing import Final

from gossipsess.cli.doctor.finding import Finding, Verdict, shown
from gossipsess.cli.doctor.outpost import Ears
from gossipsess.config import Config
from gossipsess.model.member import Address

SHOWN_MAX: Final = 6
_ELSE: Final = (
    "Most clouds and pod networks drop multicast: use a name (GOSSIPSESS_DISCOVERY=dns://NAME, or auto with "
    "GOSSIPSESS_SERVICE) or addresses (static://IP:PORT,IP:PORT)."
)


def check_multicast(
    config: Config, ears: Ears, group: Address, seconds: float, *, met_elsewhere: bool, is_mine: Callable[[str], bool]
) -> list[Finding]:
    """Say what was heard; `met_elsewhere`: a node of another machine was reached, in whatever way."""
    where = f"{group[0]}:{group[1]}"
    bad: Verdict = "warn" if met_elsewhere else "fail"
    if ears.problem and not ears.own:
        advice = f"This machine has no route for it, or no interface with multicast. {_ELSE}"
        text = f"{where}: beacons cannot be sent ({ears.problem})"
        return [Finding("multicast", bad, text, advice, "multicast-local")]
    if not ears.own:
        text = f"{where}: sent, and not even our own beacon came back within {seconds:g} s"
        advice = f"A firewall of this machine drops it, or the interface has no multicast. {_ELSE}"
        return [Finding("multicast", bad, text, advice, "multicast-local")]
    found = [
        Finding(
            "multicast",
            "info" if met_elsewhere else "warn",
            f"{where}: {host} sends beacons that do not open: {why}",
            "If it should be of this cluster: set the same GOSSIPSESS_CLUSTER and GOSSIPSESS_SECRET on both.",
            "secret",
        )
        for host, why in sorted(ears.strangers.items())[:SHOWN_MAX]
    ]
    here = [address for address in ears.heard if is_mine(address[0])]
    elsewhere = [address for address in ears.heard if not is_mine(address[0])]
    text = f"{where}: sent, our own heard"
    if here:
        text += f", {len(here)} node{'s' if len(here) > 1 else ''} of this machine"
    if elsewhere:
        listed = ", ".join(shown(address) for address in elsewhere[:SHOWN_MAX])
        more = f" and {len(elsewhere) - SHOWN_MAX} more" if len(elsewhere) > SHOWN_MAX else ""
        text = f"{text}, and {listed}{more}"
        if any(ears.heard[address].answered for address in elsewhere):
            return [*found, Finding("multicast", "ok", text)]
        text += "; but none of them answers ours: multicast goes one way here, or UDP does not reach us"
        return [*found, Finding("multicast", "info" if met_elsewhere else "warn", text, _ELSE, "multicast-dropped")]
    if ipaddress.ip_address(config.bind_address).is_loopback:
        return [*found, Finding("multicast", "ok" if here else "info", f"{text}{'' if here else ', nobody else'}")]
    text += f", nobody of another machine within {seconds:g} s"
    if met_elsewhere:
        why = "the network drops multicast; nodes elsewhere were reached without it"
        return [*found, Finding("multicast", "info", f"{text}: {why}", "", "multicast-dropped")]
    why = "no other machine runs a node, or the network drops multicast"
    return [*found, Finding("multicast", "warn", f"{text}: {why}", _ELSE, "multicast-dropped")]
