# Local: what the nodes of this machine say of themselves.
#
# In:    their answers at the Unix sockets (runtime/inquiry.py).    Out: findings, and whom they know.
# A node sees what no visitor does: to whom it is linked, and whether it has all that it is to hold.

from typing import Any

from gossipsess.cli.asking import why_unready
from gossipsess.cli.doctor.finding import Finding
from gossipsess.config import Config
from gossipsess.errors import ConfigError
from gossipsess.model.member import Address
from gossipsess.runtime import inquiry

SHOWN_MAX = 6


def ask_here() -> tuple[list[dict[str, Any]], list[str], str]:
    """Return what the nodes of this user answer, which processes do not, and why nobody could be asked. Blocks."""
    try:
        replies = list(inquiry.ask(inquiry.STATUS))
    except ConfigError as error:
        return [], [], str(error)
    answers = [reply.answer for reply in replies if reply.answer is not None]
    return answers, [reply.process for reply in replies if reply.answer is None], ""


def known_to(config: Config, answers: list[dict[str, Any]]) -> list[Address]:
    """Return the addresses of the live members that nodes of this cluster know."""
    nodes = [answer for answer in answers if answer["cluster"] == config.cluster]
    live = (member["address"] for answer in nodes for member in answer["members"] if _is_live(member))
    return [(str(host), int(port)) for host, port in live]


def check_local(
    config: Config, answers: list[dict[str, Any]], silent: list[str], problem: str, *, alone: bool
) -> list[Finding]:
    """Say how the nodes of this machine are, nothing where there are none; `alone`: none was met anywhere."""
    found = [_one(answer) for answer in answers if answer["cluster"] == config.cluster]
    for process in silent:
        text = f"the node in process {process} does not answer within {inquiry.ANSWER_S:g} s"
        found.append(Finding("here", "warn", text, "Is it stopped, or does it have no processor time? See its log."))
    others = sorted({str(answer["cluster"]) for answer in answers if answer["cluster"] != config.cluster})
    if others and not found and alone:
        text = f"nodes here are of cluster {', '.join(map(repr, others))}, and these settings of {config.cluster!r}"
        advice = "Run this with the application's own environment, or set GOSSIPSESS_CLUSTER as it does."
        found.append(Finding("here", "warn", text, advice, "secret"))
    if problem:
        found.append(Finding("here", "warn", f"the nodes here cannot be asked: {problem}"))
    return found


def _one(answer: dict[str, Any]) -> Finding:
    called = f"process {answer['process']}, {answer['name']} ({answer['node']})"
    if not answer["running"]:
        advice = "Its log says why. Restart the application."
        return Finding("here", "fail", f"{called}: replication has stopped", advice, "stopped")
    live = [member for member in answer["members"] if _is_live(member)]
    unlinked = [str(member["name"]) for member in live if not member["linked"]]
    text = f"{called}: {'ready' if answer['ready'] else f'not ready: it {why_unready(answer)}'}; sees {len(live)}"
    text += f" other{'' if len(live) == 1 else 's'}"
    if not unlinked:
        return Finding("here", "ok" if answer["ready"] else "info", text)
    shown = ", ".join(unlinked[:SHOWN_MAX]) + (", ..." if unlinked[SHOWN_MAX:] else "")
    advice = "Some seconds after a start this is nothing. Else TCP to them does not get through, in one direction."
    return Finding("here", "warn", f"{text}, and has no link to {shown}", advice, "unlinked")


def _is_live(member: dict[str, Any]) -> bool:
    return member["state"] in ("alive", "suspect")
