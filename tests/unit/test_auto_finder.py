"""Hooks that run once after a module was imported: before anybody took a name from it, and never in its way."""

import importlib
import importlib.util
import sys

import pytest

from .auto_support import AfterImport

NAME = "hooked_module"


class AsksAll:
    """A finder that, as ours, has all others find a module; other tools bring such ones."""

    def find_spec(self, name, path=None, target=None):
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None:
                return spec
        return None


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of that name that can be imported, with a class in it."""
    file = tmp_path / f"{NAME}.py"
    file.write_text("class Stock: pass\nstate = 'complete'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a file written anew within a second would not be read
    yield file
    sys.modules.pop(NAME, None)


@pytest.fixture
def hooked(module, monkeypatch):
    """The modules that a finder has called the hook for."""
    called = []
    finder = AfterImport({NAME: called.append})
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    return called


def test_a_hook_replaces_a_class_before_its_importer_takes_it(module, monkeypatch):
    """``from starlette... import SessionMiddleware`` must bind ours: afterwards nobody could reach that name."""

    def replace(imported):
        assert imported.state == "complete"
        imported.Stock = "ours"

    monkeypatch.setattr(sys, "meta_path", [AfterImport({NAME: replace}), *sys.meta_path])
    taken = {}
    exec(f"from {NAME} import Stock", taken)
    assert taken["Stock"] == "ours"


def test_a_hook_is_called_once_though_the_module_is_loaded_again(hooked):
    """Patched twice, an application class would get its sessions twice."""
    imported = importlib.import_module(NAME)
    importlib.import_module(NAME)
    importlib.reload(imported)
    assert hooked == [imported]


def test_looking_for_a_module_neither_calls_its_hook_nor_uses_it_up(hooked, module):
    """Many programs only ask whether Flask is installed."""
    spec = importlib.util.find_spec(NAME)
    assert spec.origin == str(module)
    assert spec.loader.get_filename(NAME) == str(module)
    assert hooked == []
    importlib.import_module(NAME)
    assert len(hooked) == 1


def test_a_module_has_its_own_loader_while_it_runs_and_afterwards(hooked, module):
    """Resources, tracebacks and debuggers read the source through it."""
    module.write_text("loaders = (__loader__, __spec__.loader)\n")
    imported = importlib.import_module(NAME)
    plain = importlib.machinery.SourceFileLoader
    assert {type(loader) for loader in (*imported.loaders, imported.__loader__, imported.__spec__.loader)} == {plain}


def test_a_module_that_cannot_be_imported_fails_as_ever_and_keeps_its_hook(hooked, module):
    """An application may try once more, with what was missing."""
    good = module.read_text()
    module.write_text("raise ValueError('its own')")
    with pytest.raises(ValueError, match="its own"):
        importlib.import_module(NAME)
    assert NAME not in sys.modules
    module.write_text(good)
    importlib.invalidate_caches()
    importlib.import_module(NAME)
    assert len(hooked) == 1


def test_a_module_that_is_not_there_is_missing_as_ever(hooked, module):
    """The hook's finder asks for all modules, and must not find what is none."""
    module.unlink()
    importlib.invalidate_caches()
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(NAME)


@pytest.mark.parametrize("first", [True, False])
def test_two_finders_that_ask_all_others_do_not_ask_each_other_for_ever(hooked, monkeypatch, first):
    """Tracers hook imports in the same way, and either may come first."""
    other = AsksAll()
    rest = sys.meta_path[1:]
    monkeypatch.setattr(sys, "meta_path", [other, *sys.meta_path] if first else [sys.meta_path[0], other, *rest])
    importlib.import_module(NAME)
    assert len(hooked) == 1


def test_these_tests_leave_the_frameworks_as_they_are():
    """Those of the adapters compare with the frameworks' own sessions, in this very process."""
    assert not [finder for finder in sys.meta_path if isinstance(finder, AfterImport)]
