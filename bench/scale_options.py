# Scale, the options: which clusters are measured, said alike to scale.py and scale_report.py.
#
# In:    a parser, and what was given.    Out: options that can be measured, or exit code 2 with a sentence.
# Everything is refused before the first cluster runs: who hears of a wrong path after minutes has lost the figures.
# Not here: measuring (scale.py), and what becomes of the figures.

import argparse
import math
import os
from collections.abc import Sequence
from pathlib import Path

NODES_MIN = 2


def add_clusters(
    parser: argparse.ArgumentParser,
    *,
    simulated: Sequence[int],
    real: Sequence[int],
    real_sessions: int,
    idle_s: float,
) -> None:
    """Have a parser take what `clusters_of` returns, with these defaults."""
    add = parser.add_argument
    sizes, counts = _text(simulated), _text(real)
    add(
        "--simulated",
        type=_nodes,
        nargs="*",
        default=simulated,
        metavar="N",
        help=f"sizes in virtual time ({sizes}); none: skip",
    )
    add(
        "--real", type=_nodes, nargs="*", default=real, metavar="N", help=f"numbers of processes ({counts}); none: skip"
    )
    add("--sessions", type=int, default=32, help="in a simulated cluster (%(default)s)")
    add("--writes", type=int, default=2, help="of each kind to each of them (%(default)s)")
    add("--real-sessions", type=int, default=real_sessions, help="in a cluster of processes (%(default)s)")
    add("--idle", type=float, default=idle_s, help=f"seconds for which idle processes are counted ({idle_s:g})")
    add("--seed", type=int, default=1, help="of what is drawn: values, and where requests go (%(default)s)")


def refuse_clusters(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End with exit code 2 where nothing can be measured of what the options say."""
    if not options.simulated and not options.real:
        parser.error("--simulated and --real both name no size: there is nothing to measure")
    if min(options.sessions, options.writes, options.real_sessions) < 1 or not 0 < options.idle < math.inf:
        parser.error("--sessions, --writes, --real-sessions and --idle are positive")


def clusters_of(options: argparse.Namespace) -> list[str]:
    """Return the arguments that say the same, each of them: a default that changes later changes nothing for them."""
    words = ["--simulated", *options.simulated, "--sessions", options.sessions, "--writes", options.writes]
    words += ["--real", *options.real, "--real-sessions", options.real_sessions, "--idle", f"{options.idle:g}"]
    return [str(word) for word in (*words, "--seed", options.seed)]


def refuse_unwritable(parser: argparse.ArgumentParser, *files: Path) -> None:
    """End with exit code 2 where one of these files cannot be written. What is in them stays, and no new one does."""
    for file in files:
        is_new = not os.path.lexists(file)
        try:
            file.open("a").close()
            if is_new:
                file.unlink()
        except OSError as error:
            parser.error(f"{file} cannot be written: {error.strerror}")


def _nodes(text: str) -> int:
    try:
        nodes = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of nodes, such as 4") from None
    if nodes < NODES_MIN:
        raise argparse.ArgumentTypeError(f"{nodes} nodes replicate nothing; two or more do")
    return nodes


def _text(sizes: Sequence[int]) -> str:
    return " ".join(map(str, sizes))
