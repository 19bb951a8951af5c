# Boot: whether zero code is at work in this process. Called when Python starts: by auto/boot/sitecustomize.py, which
# `gossipsess run` puts on the path, and by gossipsess.pth (gossipsess.start from Python 3.15 on), which are installed
# beside the package.
#
# In:    GOSSIPSESS_AUTO, and how this process was started.    Out: `import gossipsess.auto`, or nothing.
# Rule:  programs that serve nothing are left alone unless GOSSIPSESS_AUTO names them.
# Bound: whatever fails here is one sentence on stderr, and Python starts all the same, unless GOSSIPSESS_AUTO_STRICT=1.
#        Every Python of an application pays for this, so nothing is imported that a bare one has not.
# Not here: what the variables say (zero_code.py); what is hooked, and how (auto/).

import os
import sys

from gossipsess.zero_code import TOOLS, asked, is_strict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def boot() -> None:
    """Set the hooks where the environment asks for them and this process may serve."""
    names = asked(os.environ)
    if not names or TOOLS.intersection(started(sys.orig_argv)).difference(names):
        return
    try:
        import gossipsess.auto  # noqa: F401  # that is what sets them
    except Exception as error:
        fail(str(error))


def fail(why: str) -> None:
    """Say that zero code does not work in this process; with GOSSIPSESS_AUTO_STRICT, end it with exit code 1."""
    print(f"gossipsess: sessions are not replicated in process {os.getpid()}: {why}", file=sys.stderr, flush=True)
    if is_strict(os.environ):
        os._exit(1)  # nothing has begun; an exception would be told by thirty lines of what Python was about to do


def started(command: "Sequence[str]") -> tuple[str, str]:
    """Return what a Python was started to run: its name, a module's or a script's, and that with its first argument.

    Empty for code (``-c``), for none, and where Python is part of another program. The versions that some commands have
    in their names (pip3.11) are left out.

    Args:
        command: the whole command line, the interpreter first, as `sys.orig_argv` has it.
    """
    words = iter(command[1:])
    for word in words:
        if word.startswith("--"):
            if word == "--check-hash-based-pycs":
                next(words, "")
            continue
        name = word
        if word.startswith("-"):
            # Letters may share a dash, and the first that takes a value takes the rest of the word or the next one.
            at = min((word.find(letter) for letter in "cmWX" if letter in word), default=0)
            if not at:
                continue
            name = word[at + 1 :] or next(words, "")
            if word[at] == "c":
                break
            if word[at] != "m":
                continue
        name = os.path.basename(name).removesuffix(".exe").rstrip("0123456789.")
        return name, f"{name} {next(words, '')}"
    return "", ""
