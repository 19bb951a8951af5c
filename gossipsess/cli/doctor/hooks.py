# Hooks: whether zero code works in the processes of this machine that have a node.
#
# In:    their answers, with what the hooks noted there; the doctor's environment, which is the application's.
# Out:   a finding for each process in which hooks are, or should be.
# Not here: what hooks do and note (auto/).

import os
from collections.abc import Mapping
from typing import Any

from gossipsess.cli.doctor.finding import Finding
from gossipsess.config import Config
from gossipsess.zero_code import AUTO, LEFT_ALONE, asked

STRICTLY = "Start the application with GOSSIPSESS_AUTO_STRICT=1 once: it then ends where a hook fails, and says why."


def check_hooks(
    config: Config, answers: list[dict[str, Any]], environ: Mapping[str, str], packages: str
) -> list[Finding]:
    """Say what zero code did in each process with a node of this cluster, and whether it is missing somewhere.

    `packages` is the folder that this Python installs to, where a file starts zero code.
    """
    here = [answer for answer in answers if answer["cluster"] == config.cluster]
    is_asked = bool(asked(environ))
    found = []
    for answer in here:
        notes = [str(note) for note in answer.get("auto", ())]  # older nodes say nothing of it
        if notes:
            found.append(_noted(answer["process"], notes))
        elif is_asked:
            text = f"{AUTO} is set here, and process {answer['process']} has a node without it, of its own code"
            found.append(Finding("auto", "warn", text, "Is the variable set for the application, too?", "auto"))
    if is_asked and not here:
        text, advice = f"{AUTO} is set, and no hook has started a node on this machine", STRICTLY
        if not os.path.exists(os.path.join(packages, "gossipsess.pth")):
            text += f": there is no gossipsess.pth in {packages}"
            advice = "Install gossipsess there with pip, or put `gossipsess run --` before the application's command."
        found.append(Finding("auto", "warn", text, advice, "auto"))
    return found


def _noted(process: object, notes: list[str]) -> Finding:
    text = f"process {process}: {'; '.join(notes)}"
    if any(note.startswith(LEFT_ALONE) for note in notes):
        advice = "What is left alone keeps its own sessions, in this process. docs/RUN.md says what can be done."
        return Finding("auto", "warn", text, advice, "auto")
    if len(notes) == 1:
        return Finding("auto", "info", f"{text}; no hook has fired: the application starts its node by itself")
    return Finding("auto", "ok", text)
