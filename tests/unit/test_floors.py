"""The architecture as a test: each floor imports only downward, and heavy libraries stay where they belong."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "gossipsess"

FLOORS = [
    ["errors", "zero_code"],
    ["model"],
    ["wire"],
    ["protocol"],
    ["config", "discovery"],
    ["node", "session", "subkeys", "draft", "status", "tokens"],
    ["store", "runtime"],
    ["waiting", "subscription", "service"],
    ["face", "aio", "sync", "inline", "web", "cli", "auto", "boot", "sim"],
    ["__init__", "__main__"],
]
FLOOR_OF = {name: number for number, names in enumerate(FLOORS) for name in names}
ONLY_IN = {
    "cbor2": {"wire"},
    "cryptography": {"wire", "web/litestar_former.py"},  # the latter opens what Litestar has sealed
    "trio": {"runtime", "service", "inline", "waiting", "cli"},
    "time": {"node", "store", "service", "runtime", "web", "cli", "sim", "sync", "aio", "inline"},
    "socket": {"runtime", "cli"},
    "_socket": {"runtime"},
}


def part_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            yield from ([f"gossipsess.{alias.name}" for alias in node.names] if node.module == "gossipsess" else ())
            yield node.module or ""


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_module_imports_only_from_its_own_floor_and_those_below(file: Path) -> None:
    """Data moves on one road only as long as nothing below knows of anything above."""
    floor = FLOOR_OF[part_of(file)]
    for name in imports(file):
        if name.startswith("gossipsess."):
            part = name.split(".")[1]
            if part in FLOOR_OF:
                assert FLOOR_OF[part] <= floor, f"{file.name} imports {name}, which stands above it"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_library_is_imported_only_where_it_belongs(file: Path) -> None:
    """The state machine is deterministic because no clock, no random source and no socket can reach it."""
    for name in imports(file):
        allowed = ONLY_IN.get(name.split(".")[0])
        here = {part_of(file), file.relative_to(PACKAGE).as_posix()}
        assert allowed is None or here & allowed, f"{file.name} imports {name}"


def test_no_two_modules_import_each_other() -> None:
    """A cycle means that a seam is in the wrong place."""
    graph: dict[str, list[str]] = {}
    for file in FILES:
        module = ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        graph[module] = [name for name in imports(file) if name.startswith("gossipsess.")]
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, f"import cycle: {' -> '.join((*above, module))}"
        if module not in done:
            for name in graph.get(module, ()):
                if name in graph and name != module:
                    visit(name, (*above, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("statement", ["import gossipsess", "import gossipsess.service, gossipsess.store"])
def test_importing_the_library_does_not_import_trio(statement: str) -> None:
    """Importing Trio costs a quarter of a second, which a process that serves nothing should not pay."""
    code = f"import sys; {statement}; assert 'trio' not in sys.modules, 'trio was imported'"
    subprocess.run([sys.executable, "-c", code], check=True)
