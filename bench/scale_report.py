# Scale, the report: the figures and the picture of docs/SCALE.md, from both placements.
#
# In:    a folder with SCALE.md, and options that say which clusters are measured, for both passes (--help).
# Out:   the text between the two marks of SCALE.md, and scale.svg beside it. All other text there stays as it is.
# Exit:  2 before anything is measured, where arguments or files are wrong; scale.py's exit code where a pass failed.
#        Nothing is written then: tables and picture are always of the same passes.
# The passes are commands of their own, as the document names them: who doubts a figure repeats that one.
# Not here: measuring and drawing (scale.py).

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from scale_options import add_clusters, clusters_of, refuse_clusters, refuse_unwritable

SCRIPT: Final = Path(__file__).with_name("scale.py")
DOCS: Final = Path(__file__).parents[1] / "docs"
BEGIN: Final = "<!-- figures: written by bench/scale_report.py -->\n"
END: Final = "<!-- end of figures -->\n"
MIB: Final = 1024 * 1024
DESCRIPTION: Final = """
Runs bench/scale.py twice, for all-to-all and for placement by default, and writes what it measured into this clone: the
tables of docs/SCALE.md, between two marks, and the picture docs/scale.svg. It takes some minutes, on a quiet machine:
whatever else runs is in the latencies. Nothing is written unless both passes end well.
"""
EPILOG: Final = """
examples:
  python bench/scale_report.py                               everything, as the page has it
  python bench/scale_report.py --simulated 4 8 --real        a quick look: git diff docs shows it
exit codes: 2 where arguments or files are wrong, and nothing was measured; where a pass failed that of scale.py, 1.
"""

Row = dict[str, Any]
Column = tuple[str, Callable[[Row], str]]


def main(docs: Path, arguments: Sequence[str]) -> int:
    """Measure both placements, and write the figures down; return scale.py's exit code where it failed."""
    parser = argparse.ArgumentParser(
        prog="bench/scale_report.py",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_clusters(parser, simulated=(3, 4, 8, 16, 32, 64), real=(4, 6, 8), real_sessions=300, idle_s=5.0)
    options = parser.parse_args(arguments)
    refuse_clusters(parser, options)
    page, picture = docs / "SCALE.md", docs / "scale.svg"
    refuse_unwritable(parser, page, picture)
    before, begun, rest = page.read_text(encoding="utf-8").partition(BEGIN) if page.exists() else ("", "", "")
    _, ended, after = rest.partition(END)
    if not begun or not ended:
        parser.error(f"{page} has no marks between which figures go")
    clusters = clusters_of(options)
    with tempfile.TemporaryDirectory() as folder:
        all_to_all, default, drawn = (Path(folder) / name for name in ("all.json", "default.json", "scale.svg"))
        passes = (
            (all_to_all, ["--all-to-all"]),
            (default, ["--before", str(all_to_all), "--plot", str(drawn)]),
        )
        rows: dict[Path, list[Row]] = {}
        for file, more in passes:
            command = [sys.executable, str(SCRIPT), *clusters, "--json", str(file), *more]
            code = subprocess.run(command, check=False).returncode
            if code:
                return code
            try:
                rows[file] = json.loads(file.read_text())["clusters"]
            except (OSError, ValueError):
                print(f"{SCRIPT} ended well, and wrote no figures", file=sys.stderr)
                return 1
        if not drawn.exists():
            print(f"{SCRIPT} ended well, and drew nothing", file=sys.stderr)
            return 1
        figures = _figures(rows[default], rows[all_to_all], clusters)
        picture.write_bytes(drawn.read_bytes())
    page.write_text(f"{before}{BEGIN}{figures}{END}{after}", encoding="utf-8")
    return 0


def _figures(default: list[Row], all_to_all: list[Row], clusters: Sequence[str]) -> str:
    parts = []
    for where, title, columns in (
        ("simulated", "In virtual time", COLUMNS),
        ("real", "Processes on one machine", PROCESS_COLUMNS),
    ):
        for rows, name, option in ((default, "by default", ()), (all_to_all, "all-to-all", ("--all-to-all",))):
            shown = [row for row in rows if row["where"] == where]
            if shown:
                command = " ".join(["python bench/scale.py", *clusters, *option])
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
    ("bytes", _cost("create", "bytes", 0)),
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
    ("grown, MiB", lambda row: f"{row['rss_grown_bytes'] / MIB:.1f}"),
    ("table, KiB", lambda row: f"{row['table_bytes'] / 1024:,.0f}"),
)

if __name__ == "__main__":
    sys.exit(main(DOCS, sys.argv[1:]))
