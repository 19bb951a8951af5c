# Scale, the report: the figures and the picture of docs/SCALE.md, from both placements.
#
# In:    a folder with SCALE.md, and options that scale.py takes, for both passes.
# Out:   the text between the two marks of SCALE.md, and scale.svg beside it. All other text there stays as it is.
# The passes are commands of their own, as the document names them: who doubts a figure repeats that one.
# Not here: measuring and drawing (scale.py).

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

SCRIPT: Final = Path(__file__).with_name("scale.py")
DOCS: Final = Path(__file__).parents[1] / "docs"
BEGIN: Final = "<!-- figures: written by bench/scale_report.py -->\n"
END: Final = "<!-- end of figures -->\n"
MIB: Final = 1024 * 1024

Row = dict[str, Any]
Column = tuple[str, Callable[[Row], str]]


def main(docs: Path, options: Sequence[str]) -> int:
    """Measure both placements, and write the figures down; return scale.py's exit code where it failed."""
    page = docs / "SCALE.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        print(f"{page} has no marks between which figures go", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        all_to_all, default = Path(folder) / "all.json", Path(folder) / "default.json"
        passes = (
            ["--all-to-all", "--json", str(all_to_all)],
            ["--json", str(default), "--before", str(all_to_all), "--plot", str(docs / "scale.svg")],
        )
        for arguments in passes:
            code = subprocess.run([sys.executable, str(SCRIPT), *options, *arguments], check=False).returncode
            if code:
                return code
        rows = {file: json.loads(file.read_text())["clusters"] for file in (default, all_to_all)}
    figures = _figures(rows[default], rows[all_to_all], options)
    page.write_text(f"{before}{BEGIN}{figures}{END}{after}", encoding="utf-8")
    return 0


def _figures(default: list[Row], all_to_all: list[Row], options: Sequence[str]) -> str:
    parts = []
    for where, title, columns in (
        ("simulated", "In virtual time", COLUMNS),
        ("real", "Processes on one machine", PROCESS_COLUMNS),
    ):
        for rows, name, option in ((default, "by default", ()), (all_to_all, "all-to-all", ("--all-to-all",))):
            shown = [row for row in rows if row["where"] == where]
            if shown:
                command = " ".join(["python bench/scale.py", *options, *option])
                parts.append(f"{title}, {name}: `{command}`\n\n{_table(columns, shown)}")
    return "\n" + "\n".join(parts) + "\n"


def _table(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    lines = [[name for name, _ in columns], ["--:"] * len(columns)]
    lines += [[value(row) for _, value in columns] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cost(kind: str, figure: str, digits: int) -> Callable[[Row], str]:
    return lambda row: f"{row[kind][figure]:,.{digits}f}" if row[kind] and row[kind][figure] is not None else ""


def _rested(row: Row) -> str:
    return f"{100 * row['rested_records_mean'] / row['sessions']:.1f}"


COLUMNS: Final[Sequence[Column]] = (
    ("nodes", lambda row: f"{row['nodes']}"),
    ("create: messages", _cost("create", "messages", 1)),
    ("to nodes", _cost("create", "nodes", 1)),
    ("write, any node: messages", _cost("write", "messages", 1)),
    ("bytes", _cost("write", "bytes", 0)),
    ("write, holder: messages", _cost("write_holder", "messages", 1)),
    ("bytes", _cost("write_holder", "bytes", 0)),
    ("write, copy: messages", _cost("write_copy", "messages", 1)),
    ("bytes", _cost("write_copy", "bytes", 0)),
    ("read, holder: messages", _cost("read_holder", "messages", 1)),
    ("cold", _cost("read_cold", "messages", 1)),
    ("bytes", _cost("read_cold", "bytes", 0)),
    ("copy", _cost("read_copy", "messages", 1)),
    ("upkeep a request: bytes", lambda row: f"{row['upkeep']['bytes']:.0f}"),
    ("sessions held, %", _rested),
    ("idle, bytes/s a node", lambda row: f"{row['idle']['bytes']:.0f}"),
    ("of it for sessions", lambda row: f"{row['idle_sessions']['bytes']:.0f}"),
)
PROCESS_COLUMNS: Final[Sequence[Column]] = (
    ("nodes", lambda row: f"{row['nodes']}"),
    ("write, any node: messages", _cost("write", "messages", 1)),
    ("p50, ms", _cost("write", "p50_ms", 2)),
    ("p99, ms", _cost("write", "p99_ms", 1)),
    ("write, holder: messages", _cost("write_holder", "messages", 1)),
    ("bytes", _cost("write_holder", "bytes", 0)),
    ("p50, ms", _cost("write_holder", "p50_ms", 2)),
    ("write, copy: messages", _cost("write_copy", "messages", 1)),
    ("bytes", _cost("write_copy", "bytes", 0)),
    ("p50, ms", _cost("write_copy", "p50_ms", 2)),
    ("read, holder: p50, ms", _cost("read_holder", "p50_ms", 3)),
    ("cold: messages", _cost("read_cold", "messages", 1)),
    ("p50, ms", _cost("read_cold", "p50_ms", 2)),
    ("p99, ms", _cost("read_cold", "p99_ms", 1)),
    ("copy: p50, ms", _cost("read_copy", "p50_ms", 3)),
    ("idle, bytes/s a node", lambda row: f"{row['idle']['bytes']:.0f}"),
    ("resident, MiB", lambda row: f"{row['rss_bytes'] / MIB:.0f}"),
)

if __name__ == "__main__":
    sys.exit(main(DOCS, sys.argv[1:]))
