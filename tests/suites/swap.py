# Swap: the node or nodes behind our sessions while a framework's own tests run; for the plugins swap_*.py.
#
# This runs in the framework's pytest, where `tests` is the framework's package and not this one.

import os
import sys
from contextlib import ExitStack
from pathlib import Path

import gossipsess.service
from gossipsess.service import NodeService

ROOT = str(Path(__file__).parents[2])


def nodes(stack: ExitStack) -> NodeService:
    """Return a lone node, or with SUITE_NODES=3 three behind one face, which end with the stack."""
    count = int(os.environ["SUITE_NODES"])
    if count == 1:
        return gossipsess.service.lone_node()
    theirs = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "tests"}
    for name in theirs:
        del sys.modules[name]
    sys.path.insert(0, ROOT)
    try:
        from tests.suites.scattered import scattered
    finally:
        sys.path.remove(ROOT)
        for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
            del sys.modules[name]
        sys.modules.update(theirs)
    return stack.enter_context(scattered(count))
