# Visits: what it means how the nodes answered that were dialed and pinged.
#
# In:    visits.    Out: findings of each, and of all together: clocks, and whether they know each other.
# A refused connection says that the machine is there and nobody listens; silence, that a firewall swallows packets, or
# that no machine has the address any more. Both protocols are tried: firewalls are often opened for one of them.
# Whose clock is wrong no two clocks can say. Where several others agree with each other, it is ours.

from collections.abc import Callable
from statistics import median
from typing import Final

from gossipsess.cli.doctor.finding import Finding, shown
from gossipsess.cli.doctor.outpost import CONNECT_S, Visit
from gossipsess.config import Config
from gossipsess.model.clock import AGREE_MS, AHEAD_MS_MAX
from gossipsess.model.identity import short
from gossipsess.model.rules import Rules

AGREE_S: Final = AGREE_MS / 1000
REFUSED_S: Final = AHEAD_MS_MAX / 1000
"""Nodes refuse who is so far ahead of them."""
_OPEN: Final = (
    "Open the gossip ports (GOSSIPSESS_PORT and the GOSSIPSESS_PORT_RANGE - 1 after it), UDP and TCP, both ways, in "
    "firewalls, security groups and NetworkPolicies."
)
_SAME: Final = (
    "If it should be of this cluster: set the same GOSSIPSESS_CLUSTER and GOSSIPSESS_SECRET on both; `gossipsess "
    "doctor` there shows its key."
)
_NTP: Final = "Run NTP on both machines (timedatectl, chronyc tracking), then restart the node whose clock was wrong."


def check_visit(visit: Visit, config: Config) -> list[Finding]:
    """Say what came of one visit."""
    where = f"{shown(visit.address)} ({visit.told_by})"
    match visit.outcome:
        case "met":
            return _met(visit, config, where)
        case "stranger":
            return [Finding("node", "fail", f"{where} does not belong here: {visit.problem}", _SAME, "secret")]
        case "former":
            advice = "Add the new secret to GOSSIPSESS_SECRET_FALLBACKS of every node, before it is the first anywhere."
            return [Finding("node", "fail", f"{where} knows only a former secret of ours", advice, "secret")]
        case "no node":
            text = f"{where} takes connections, and is no node of any cluster: {visit.problem}"
            advice = "Another program has that port there, or a node stands still: see GOSSIPSESS_PORT on both sides."
            return [Finding("node", "fail", text, advice, "not-a-node")]
    if visit.udp_s is not None:
        how = "refused" if visit.outcome == "refused" else "gets no answer"
        text = f"{where}: UDP works, and TCP {how}: a firewall or NetworkPolicy lets only UDP through"
        return [Finding("node", "fail", text, _OPEN, "tcp-blocked")]
    if visit.outcome == "refused":
        text = f"{where}: the machine answers, and nobody listens there"
        advice = "Does the application run there, on this port? Or is the address out of date?"
        return [Finding("node", "warn", text, advice, "refused")]
    why = visit.problem or f"no answer to TCP within {CONNECT_S:g} s, nor to UDP"
    text = f"{where}: {why}: a firewall or NetworkPolicy drops packets, or no machine has that address"
    return [Finding("node", "fail", text, _OPEN, "tcp-blocked")]


def _met(visit: Visit, config: Config, where: str) -> list[Finding]:
    hello = visit.hello
    if hello is None:
        return [Finding("node", "warn", f"{where} is of this cluster, but {visit.problem}", "See its log.")]
    live = sum(told.member.is_live for told in hello.members)
    name = "" if hello.member.name == shown(visit.address) else f" {hello.member.name}"
    text = f"{where}:{name} sees {live} other{'' if live == 1 else 's'}; TCP {_ms(visit.connect_s)}"
    if visit.udp_s is None:
        text += ", and UDP gets no answer: a firewall or NetworkPolicy lets only TCP through"
        found = [Finding("node", "fail", text, _OPEN, "udp-blocked")]
    else:
        found = [Finding("node", "ok", f"{text}, UDP {_ms(visit.udp_s)}")]
    mine = Rules(config.all_to_all_below, config.secondaries, config.count_by)
    if differences := mine.differences(hello.rules):
        text = f"{where} places sessions by other rules: {differences}"
        found.append(Finding("node", "warn", text, "Set the same on every node.", "rules"))
    return found


def check_clocks(visits: list[Visit], is_mine: Callable[[str], bool]) -> list[Finding]:
    """Compare this machine's clock with those of the nodes that were met."""
    met = [visit for visit in visits if visit.hello is not None]
    if not met:
        return []
    off = [visit for visit in met if abs(visit.ahead_s) > AGREE_S]
    if not off:
        most = max(abs(visit.ahead_s) for visit in met)
        return [Finding("clock", "ok", f"{len(met)} clock{'s' if len(met) > 1 else ''} within {most:.1f} s of ours")]
    middle = median(visit.ahead_s for visit in met)
    agree = [visit for visit in met if abs(visit.ahead_s - middle) <= AGREE_S]
    if abs(middle) > AGREE_S and len(agree) > 1:
        return [_clock_off(f"this machine's clock is {_off(-middle)} those of {len(agree)} nodes", middle)]
    return [_clock_off(_of_one(visit, is_mine), visit.ahead_s) for visit in off]


def _of_one(visit: Visit, is_mine: Callable[[str], bool]) -> str:
    what = "the clock of the node at" if not is_mine(visit.address[0]) else "the clock of this machine's node at"
    return f"{what} {shown(visit.address)} is {_off(visit.ahead_s)} this machine's"


def _clock_off(text: str, ahead_s: float) -> Finding:
    if abs(ahead_s) > REFUSED_S:
        text += f": nodes refuse who is over {REFUSED_S:g} s ahead"
        return Finding("clock", "fail", text, _NTP, "clock")
    return Finding("clock", "warn", text, _NTP, "clock")


def _off(ahead_s: float) -> str:
    return f"{abs(ahead_s):.1f} s {'ahead of' if ahead_s > 0 else 'behind'}"


def check_links(visits: list[Visit]) -> list[Finding]:
    """Say which nodes do not know each other, of those that were met."""
    met = list({visit.node: visit for visit in visits if visit.hello is not None}.values())
    unknown = []
    for visit in met:
        assert visit.hello is not None
        known = {told.member.node for told in visit.hello.members if told.member.is_live} | {visit.node}
        lacking = [other for other in met if other.node not in known]
        if lacking:
            listed = ", ".join(shown(other.address) for other in lacking[:4]) + (", ..." if lacking[4:] else "")
            unknown.append(f"{shown(visit.address)} ({short(visit.node)}) does not see {listed}")
    if not unknown:
        return []
    text = f"nodes that are reached from here do not know each other: {'; '.join(unknown[:4])}"
    text += "; ..." if unknown[4:] else ""
    advice = (
        "Some seconds after a start this is nothing. Else one of them cannot reach the other: run `gossipsess doctor` "
        "there too, and see their logs."
    )
    return [Finding("cluster", "warn", text, advice, "unlinked")]


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.1f} ms"
