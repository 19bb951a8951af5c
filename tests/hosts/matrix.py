# The host matrix: plays each cell with the real server, and prints the table that docs/HOSTS.md holds.
#
#     python -m tests.hosts.matrix [--only gunicorn] [--zero-code] [--group] [--json]
#
# Exit code 0: every cell is as it should be. 1: one is not. Cells whose server is not installed are said so.

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict

from tests.hosts.cells import CELLS, Cell
from tests.hosts.play import Failure, missing, play

HEADINGS = ("server", "worker", "workers come by", "one node in each", "the parent has", "what becomes of it")
_ENDS = {
    "serves": "leaves at SIGTERM",
    "reloads": "a reload keeps the login",
    "refused": "refused: ConfigError",
}


def row(cell: Cell) -> tuple[str, ...]:
    """Return what the table says of a cell."""
    if cell.expected == "refused":
        return (cell.server, _code(cell.worker), cell.start, "", "", _ENDS[cell.expected])
    nodes = f"{cell.workers} worker{'s' if cell.workers > 1 else ''}"
    return (cell.server, _code(cell.worker), cell.start, nodes, "none" if cell.parent else "", _ENDS[cell.expected])


def table(cells: Iterable[Cell] = CELLS) -> str:
    """Return the table, as Markdown."""
    lines = [HEADINGS, tuple("---" for _ in HEADINGS), *[row(cell) for cell in cells]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.hosts.matrix", description=__doc__)
    parser.add_argument("--only", default="", help="cells whose name has this in it")
    parser.add_argument("--zero-code", action="store_true", help="applications as they were, by `gossipsess run`")
    parser.add_argument("--group", action="store_true", help="SIGTERM to all processes at once, as systemd sends it")
    parser.add_argument("--json", action="store_true", help="what was seen, and no table")
    arguments = parser.parse_args()
    results = []
    for cell in CELLS:
        if arguments.only not in cell.name:
            continue
        cell = cell.zero_code if arguments.zero_code else cell
        lacking = missing(cell)
        result: dict[str, object] = {"cell": cell.name, "ok": True}
        if lacking:
            result["skipped"] = f"{lacking} is not installed"
        else:
            try:
                result |= asdict(play(cell, group=arguments.group))
            except Failure as failure:
                result |= {"ok": False, "why": str(failure)}
        results.append(result)
        if not arguments.json:
            said = "ok  " if result["ok"] and not lacking else "    " if lacking else "FAIL"
            print(said, cell.name, result.get("why", ""), result.get("skipped", ""), file=sys.stderr, flush=True)
    if arguments.json:
        print(json.dumps(results, indent=1))
    else:
        print(table(cell for cell in CELLS if arguments.only in cell.name))
    return 0 if all(result["ok"] for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
