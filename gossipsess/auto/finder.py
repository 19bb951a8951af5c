# Finder: calls a hook once, right after a named module was imported in whole, and before its importer goes on.
#
# In:    names of modules, and a hook for each.    Out: each hook's call, with the module.
# How:   a finder before all others on `sys.meta_path`, which has them find the module, and comes between its loader and
#        the import system for the moment of its execution. What others see of the module is its own loader.
# Not here: what hooks do (hooks.py, patches.py).

import sys
from _thread import get_ident

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

    Hook = Callable[[ModuleType], None]


class AfterImport:
    """A meta path finder for those of `hooks` that are still to be called."""

    def __init__(self, hooks: "dict[str, Hook]") -> None:
        self._hooks = hooks
        self._finding: set[tuple[str, int]] = set()

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        """Return what the other finders find, with the hook tied to it; None for a module that has none."""
        key = (name, get_ident())
        if name not in self._hooks or key in self._finding:
            return None  # the latter: another finder that, as this one, asks all
        self._finding.add(key)
        try:
            for finder in sys.meta_path:
                find = None if finder is self else getattr(finder, "find_spec", None)
                spec: ModuleSpec | None = find(name, path, target) if find is not None else None
                if spec is not None:
                    if spec.loader is not None:
                        spec.loader = _Hooked(spec.loader, self)  # type: ignore[assignment]
                    return spec
            return None
        finally:
            self._finding.discard(key)

    def imported(self, module: "ModuleType") -> None:
        """Call the hook of a module, if it was not yet."""
        hook = self._hooks.get(module.__name__)
        if hook is not None:
            hook(module)
            del self._hooks[module.__name__]  # only now: where it raises, the import fails, and so must the next one


class _Hooked:
    """A loader that tells the finder when its module is complete."""

    def __init__(self, loader: "Loader", finder: AfterImport) -> None:
        self._loader = loader
        self._finder = finder

    def __getattr__(self, name: str) -> "Any":
        return getattr(self._loader, name)  # for those who only look for a module: its file, its source

    def create_module(self, spec: "ModuleSpec") -> "ModuleType | None":
        return self._loader.create_module(spec)

    def exec_module(self, module: "ModuleType") -> None:
        assert module.__spec__ is not None, "it is being imported"
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._finder.imported(module)
