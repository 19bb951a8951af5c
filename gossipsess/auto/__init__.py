"""Zero code: ``import gossipsess.auto`` replaces the sessions of web frameworks by replicated ones.

As the first import of an application it does what ``gossipsess run`` and ``GOSSIPSESS_AUTO=1`` do without any. Nothing
is imported of a framework that the application does not import itself, and no node starts before something is served.
"""

# What each hook did, or why it did nothing, is noted (zero_code.py) and logged. Where it did nothing, the framework
# keeps its own sessions: one that runs unreplicated is better than none, unless GOSSIPSESS_AUTO_STRICT is set.
# Not here: what is hooked (hooks.py, patches.py), how (finder.py), and whether this process is to be (boot.py).

import os
import sys

from gossipsess.auto.finder import AfterImport
from gossipsess.auto.hooks import ALIASES, HOOKS, Hook
from gossipsess.errors import ConfigError, GossipsessError
from gossipsess.zero_code import AUTO, LEFT_ALONE, TOOLS, asked, is_strict, note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType


def wanted() -> list[Hook]:
    """Return the hooks that GOSSIPSESS_AUTO asks for.

    All but those `by_name` where it is not set (an import asked), or names tools only.

    Raises:
        ConfigError: it has a name that is none.
    """
    names = {ALIASES.get(name, name) for name in asked(os.environ)} if AUTO in os.environ else {"all"}
    frameworks = [hook.name for hook in HOOKS]
    for name in sorted(names.difference(TOOLS, frameworks, ["all"])):
        raise ConfigError(f"{AUTO}: {name!r} is none of 1, off, {', '.join(frameworks)}")
    everything = "all" in names or (names and names <= TOOLS)
    return [hook for hook in HOOKS if hook.name in names or (everything and not hook.by_name)]


def install() -> None:
    """Tie each hook to its module, or call it now where that was imported before.

    Raises:
        ConfigError: as `wanted`.
        GossipsessError: a hook did nothing, and GOSSIPSESS_AUTO_STRICT is set.
    """
    hooks = wanted()
    if not hooks:
        return
    note(f"{AUTO}={os.environ[AUTO]}" if AUTO in os.environ else "import gossipsess.auto")
    finder = AfterImport({hook.module: _call(hook) for hook in hooks})
    sys.meta_path.insert(0, finder)
    for hook in hooks:
        module = sys.modules.get(hook.module)
        if module is not None:
            finder.imported(module)
            note(f"{LEFT_ALONE}what was made of {hook.module} before gossipsess.auto was imported")


def _call(hook: Hook) -> "Callable[[ModuleType], None]":
    def call(module: "ModuleType") -> None:
        import logging
        from importlib.metadata import version

        from gossipsess.auto import patches

        log = logging.getLogger("gossipsess")
        try:
            found = version(hook.package)
            if not hook.takes(found):
                raise GossipsessError(f"version {found} is not among those that were tried, {hook.versions}")
            sentence = f"{hook.name} {found}: {getattr(patches, hook.name)(module)}"
        except Exception as error:
            sentence = f"{LEFT_ALONE}{hook.name}: {error}"
            note(sentence)
            if is_strict(os.environ):
                raise GossipsessError(sentence) from error
            log.warning("%s", sentence)
        else:
            note(sentence)
            log.info("%s", sentence)

    return call


install()
