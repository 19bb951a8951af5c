# Compiled: the simulator and the state machine in it as machine code, for campaigns that take hours else.
#
# In:    what `gossipsess simulate` takes, and a folder to build in.    Out: what it prints.
# How:   a copy of the package goes through mypyc, which comes with mypy: the same source, more than twice as fast. It
#        wants setuptools and a C compiler, and some minutes; a folder that was built is used again.
# Same?  Before the campaign the traces of some seeds are compared with those of the package as it is interpreted. A
#        trace hash covers each event, and each record at the end.
# Choice: constants of the machine are made plain variables in the copy. mypyc puts final ones into the code, where the
#        knobs (gossipsess/sim/knobs.py) could not turn them.
#
# From the repository's root: python -m tests.simulation.compiled --folder build/compiled --seeds 1000 --crowd --jobs 2

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
COMPILED: Final = ("model", "protocol", "sim")
INTERPRETED: Final = ("__main__.py", "__init__.py")
SEEDS_COMPARED: Final = 6
CONFIG: Final = """\
[tool.mypy]
strict = true
[[tool.mypy.overrides]]
module = ["cbor2.*"]
ignore_missing_imports = true
"""
PRINT_HASHES: Final = f"""\
from gossipsess.sim.run import simulate
print([simulate(seed, crowd=seed % 2 == 1, nodes=4).trace_hash for seed in range({SEEDS_COMPARED})])
"""


def main() -> int:
    """Build, compare, and run the campaign; return its exit status, 2 where there is nothing that could run."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation.compiled",
        description="Run `gossipsess simulate` with the package compiled by mypyc. All other arguments are its own.",
        epilog="Needs a C compiler, and `pip install setuptools`. The first time it builds for some minutes.",
    )
    parser.add_argument("--folder", type=Path, required=True, help="to build in; used again if it was built")
    options, arguments = parser.parse_known_args()
    folder: Path = options.folder.resolve()
    if not (folder / "built").exists():
        print(f"compiling in {folder}; that takes some minutes", file=sys.stderr)
        _build(folder)
    interpreted, compiled = _output(ROOT, "-c", PRINT_HASHES), _output(folder, "-c", PRINT_HASHES)
    if interpreted != compiled:
        print(f"other traces than the package's: {folder} was built from another state. Delete it.", file=sys.stderr)
        return 2
    return subprocess.run([sys.executable, "-m", "gossipsess.sim", *arguments], cwd=folder, check=False).returncode


def _build(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "gossipsess", folder / "gossipsess", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "pyproject.toml").write_text(CONFIG)
    for part in ("model", "protocol"):
        for file in (folder / "gossipsess" / part).glob("*.py"):
            file.write_text(re.sub(r"^([A-Z_]+): Final = ", r"\1 = ", file.read_text(), flags=re.MULTILINE))
    files = [file for part in COMPILED for file in sorted((folder / "gossipsess" / part).glob("*.py"))]
    files = [folder / "gossipsess" / "wire" / "messages.py", *[one for one in files if one.name not in INTERPRETED]]
    names = [str(file.relative_to(folder)) for file in files]
    # Little optimization: what is won is won by leaving out the interpreter, and more takes the compiler minutes.
    environ = {"MYPYC_OPT_LEVEL": "1"}
    _output(folder, "-m", "mypyc", *names, environ=environ)
    (folder / "built").touch()


def _output(folder: Path, *arguments: str, environ: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, env={**os.environ, **(environ or {})}
    )
    if done.returncode:
        sys.exit(f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
