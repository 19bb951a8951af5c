# Scale: what grows with the number of nodes, and what does not.
#
# In:    options (--help).   Out: a table, a line for each cluster; with --json all figures; with --plot a picture.
# Exit:  1 where a request failed, or where figures contradict what docs/SCALE.md says; these are shown all the same.
#        2 before anything is measured, where arguments or files are wrong.
# Two ways to measure one thing: clusters of up to 64 nodes in virtual time, which count exactly and tell no time, and
# clusters of a few processes on this machine, whose counts must agree with those and which show latency and memory.
# Not here: how it is measured (scale_simulated.py, scale_real.py), what is counted (scale_count.py),
# what must hold of it (scale_check.py), which clusters there can be (scale_options.py).

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import scale_real
import scale_simulated
from replicate import BenchError
from scale_check import contradicted
from scale_count import Cost, Figures, as_json
from scale_options import add_clusters, refuse_clusters, refuse_unwritable
from scale_plot import Curve, svg

SIMULATED: Final = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
REAL: Final = (4, 6, 8)
MIB: Final = 1024 * 1024
DESCRIPTION: Final = """
What a request costs in clusters of different sizes, in messages and in bytes before TCP/IP headers, of all nodes
together: one that creates a session of ten values of 100 bytes; one that replaces a value, on a node drawn at random
(any), on one that placement gives the session (holder), and on another, which has read it (copy); a read on a holder,
on a node that has nothing of the session (cold), and on one that keeps a copy.
And what a node holds, and what it says while nobody asks anything.

From four nodes on, where two sizes or more are measured, the cost of a write must not depend on how many nodes there
are: at most 2R+2 messages with R holders, and bytes within 10 % over all sizes, for each kind of write; and a create
must reach R nodes at most. Exit code 1: it is not so, or a request failed. Nothing of this with --all-to-all.
Exit code 2: arguments are wrong, or files cannot be read or written; nothing was measured.
"""
EPILOG: Final = """
examples:
  python bench/scale.py                                      everything: two to three minutes
  python bench/scale.py --simulated 4 16 64 --real           three clusters in virtual time, no processes
  python bench/scale.py --all-to-all --json all.json         every node holds every session, at any size
  python bench/scale.py --json two.json --before all.json --plot scale.svg
                                                             the picture of both, the former dashed
columns: `on` is how many nodes placement gives a session; `msgs`, `any`, `holder`, `cold` and `copy` are messages, and
`bytes` those of what stands left of it; the second `nodes` how many others a create reaches; `held` and `most` the
sessions on a node, on average and at most, `rested` the average after 90 quiet seconds, `KiB` what they take; `later B`
what is sent afterwards for a request; `idle B/s` what each node sends while nobody asks. A dash: there is no such
request, or it was not counted.
"""
HEADING: Final = (
    f"{'':20} | {'create':<18} | {'write':<36} | {'read':<23} | {'sessions':<22} |\n"
    f"{'':9}{'nodes':>6}{'on':>5} |{'msgs':>6}{'bytes':>7}{'nodes':>6} |{'any':>6}{'bytes':>7}{'holder':>7}{'bytes':>6}"
    f"{'copy':>5}{'bytes':>6} |{'holder':>7}{'cold':>6}{'bytes':>6}{'copy':>5} |{'held':>5}{'most':>5}{'rested':>7}"
    f"{'KiB':>6} |{'later B':>8}{'idle B/s':>9}"
)
PROCESSES_HEADING: Final = (
    f"\n{'':15} | {'resident':<13} | {'read, ms':<32} | write, ms\n"
    f"{'processes':9}{'nodes':>6} |{'RSS MiB':>8}{'grown':>6} |{'holder':>10}{'p99':>7}{'cold':>9}{'p99':>7} |"
    f"{'any':>9}{'p99':>7}{'holder':>9}{'p99':>7}{'copy':>8}{'p99':>7}"
)


def main() -> int:
    """Measure; return 1 where a request failed, nodes did not meet, or a write costs more than it must."""
    parser = argparse.ArgumentParser(
        prog="bench/scale.py",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_clusters(parser, simulated=SIMULATED, real=REAL, real_sessions=1000, idle_s=10.0)
    parser.add_argument("--all-to-all", action="store_true", help="every node holds every session")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures, those in no column too")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw the figures")
    parser.add_argument("--before", type=Path, metavar="FILE", help="an earlier --json, dashed in the plot")
    options = parser.parse_args()
    refuse_clusters(parser, options)
    if options.plot and options.plot in (options.json, options.before):
        parser.error(f"--plot would draw over the figures in {options.plot}")
    former = _former(parser, options.before) if options.before else []
    refuse_unwritable(parser, *[file for file in (options.json, options.plot) if file])
    measured: list[Figures] = []
    print(HEADING)
    try:
        for figures in _measured(options):
            if options.all_to_all and figures.holders < figures.nodes:
                raise BenchError(f"all-to-all, but {figures.nodes} nodes hold a session on {figures.holders:g}")
            print(_line(figures), flush=True)
            measured.append(figures)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    if options.real:
        print(PROCESSES_HEADING)
        print("\n".join([_processes_line(figures) for figures in measured if figures.where == "real"]))
    document = {"all_to_all": options.all_to_all, "clusters": [as_json(figures) for figures in measured]}
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    if options.plot:
        options.plot.write_text(svg([*former, *_curves(document, "#0969da")]))
    wrong = contradicted(measured)
    if wrong:
        print("\n".join(["", "Not as docs/SCALE.md says:", *wrong]), file=sys.stderr)
    return 1 if wrong else 0


def _measured(options: argparse.Namespace) -> Iterator[Figures]:
    for nodes in options.simulated:
        yield scale_simulated.measure(
            nodes, options.sessions, options.writes, options.seed, all_to_all=options.all_to_all
        )
    for nodes in options.real:
        yield scale_real.measure(
            nodes, options.real_sessions, options.idle, options.seed, all_to_all=options.all_to_all
        )


def _former(parser: argparse.ArgumentParser, file: Path) -> list[Curve]:
    """Return the curves of an earlier --json. They are drawn once here, so that what cannot be is refused now."""
    try:
        curves = _curves(json.loads(file.read_text()), "#999999", dashed=True)
        svg(curves)
    except OSError as error:
        parser.error(f"--before {file} cannot be read: {error.strerror}")
    except (ValueError, LookupError, TypeError, AttributeError):
        parser.error(f"--before {file} is no file that --json has written")
    return curves


def _curves(document: dict[str, Any], color: str, *, dashed: bool = False) -> list[Curve]:
    name = "all-to-all" if document["all_to_all"] else "placement by default"
    where = {kind: [row for row in document["clusters"] if row["where"] == kind] for kind in ("simulated", "real")}
    return [
        Curve(f"{name}, {'processes' if kind == 'real' else kind}", rows, color, kind == "real", dashed)
        for kind, rows in where.items()
        if rows
    ]


def _line(one: Figures) -> str:
    return (
        f"{one.where:9}{one.nodes:6}{one.holders:5.3g} |"
        f"{_of(one.create, 'messages', 6, 1)}{_of(one.create, 'bytes', 7)}{_of(one.create, 'nodes', 6, 1)} |"
        f"{_of(one.write, 'messages', 6, 1)}{_of(one.write, 'bytes', 7)}"
        f"{_of(one.write_holder, 'messages', 7, 1)}{_of(one.write_holder, 'bytes', 6)}"
        f"{_of(one.write_copy, 'messages', 5, 1)}{_of(one.write_copy, 'bytes', 6)} |"
        f"{_of(one.read_holder, 'messages', 7, 1)}{_of(one.read_cold, 'messages', 6, 1)}"
        f"{_of(one.read_cold, 'bytes', 6)}{_of(one.read_copy, 'messages', 5, 1)}"
        f" |{one.records_mean:5.0f}{one.records_max:5}{_number(one.rested_records_mean, 7)}"
        f"{one.table_bytes / 1024:6.0f} |{one.upkeep.bytes:8.0f}{one.idle.bytes:9.0f}"
    )


def _processes_line(one: Figures) -> str:
    assert one.rss_bytes is not None
    assert one.rss_grown_bytes is not None
    return (
        f"{'':9}{one.nodes:6} |{one.rss_bytes / MIB:8.1f}{one.rss_grown_bytes / MIB:6.1f} |"
        f"{_of(one.read_holder, 'p50_ms', 10, 3)}{_of(one.read_holder, 'p99_ms', 7, 3)}"
        f"{_of(one.read_cold, 'p50_ms', 9, 2)}{_of(one.read_cold, 'p99_ms', 7, 2)} |"
        f"{_of(one.write, 'p50_ms', 9, 2)}{_of(one.write, 'p99_ms', 7, 2)}"
        f"{_of(one.write_holder, 'p50_ms', 9, 2)}{_of(one.write_holder, 'p99_ms', 7, 2)}"
        f"{_of(one.write_copy, 'p50_ms', 8, 2)}{_of(one.write_copy, 'p99_ms', 7, 2)}"
    )


def _of(cost: Cost | None, figure: str, width: int, digits: int = 0) -> str:
    return _number(None if cost is None else getattr(cost, figure), width, digits)


def _number(value: float | None, width: int, digits: int = 0) -> str:
    return f"{'-':>{width}}" if value is None else f"{value:{width}.{digits}f}"


if __name__ == "__main__":
    sys.exit(main())
