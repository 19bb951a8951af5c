# Running: a framework's own tests, unmodified, with its stock sessions and with ours in their place; side by side.
#
# In:    which tests, which plugin puts ours in place, and which tests are excepted, each with its reason.
# Out:   what is printed, and an exit code: 0 where ours passes whatever stock passes, but for the exceptions, and each
#        of these does fail.
# Each run is a process of its own, with the framework's folder as its working directory and its own configuration.
# Not here: where the sources come from (sources.py), the nodes (swap.py).

import argparse
import os
import subprocess
import sys
import tempfile
import textwrap
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Final

from tests.suites.sources import NotFetched, source_of

HERE: Final = Path(__file__).parent
RUN_TIMEOUT_S: Final = 900.0
NODES: Final = "SUITE_NODES"
"""The variable that tells the plugin how many nodes there are to be."""


@dataclass(frozen=True, eq=False)
class Suite:
    """The tests of one framework that have to do with its sessions.

    Attributes:
        package: whose source distribution they are in, of the version that is installed.
        tests: files and folders in there.
        plugin: the module beside this one that puts our sessions in place of the framework's.
        needs: a module beside this one that the suite itself needs, with either sessions.
        exceptions: tests (``file::function``) that ours need not pass, each with the reason.
    """

    package: str
    tests: tuple[str, ...]
    plugin: str
    needs: str | None = None
    exceptions: Mapping[str, str] = field(default_factory=dict)


Outcomes = dict[str, str]
"""From ``file::function[parameters]`` to passed, failed or skipped."""


def outcomes(suite: Suite, nodes: int | None, tests: Sequence[str] = ()) -> tuple[Outcomes, str]:
    """Run a suite, with stock sessions (None) or ours on so many nodes; return what came out, and what pytest said.

    `tests`: only these of it.

    Raises:
        NotFetched: the sources cannot be had.
    """
    folder = source_of(suite.package)
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
        command += ["-p", suite.needs] if suite.needs else []
        command += ["-p", suite.plugin] if nodes else []
        environ = {name: value for name, value in os.environ.items() if not name.startswith("GOSSIPSESS_")}
        environ["PYTHONPATH"] = os.pathsep.join([str(HERE), str(HERE.parents[1])])
        if nodes:
            environ[NODES] = str(nodes)
        done = subprocess.run(
            [*command, *(tests or suite.tests)],
            cwd=folder,
            env=environ,
            capture_output=True,
            text=True,
            timeout=RUN_TIMEOUT_S,
        )
        if not report.exists():
            raise AssertionError(f"pytest came to nothing: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        found: Outcomes = {}
        for case in ElementTree.parse(report).iter("testcase"):
            state = next((kind for kind in ("failure", "error", "skipped") if case.find(kind) is not None), "passed")
            # One test may have two entries: its own, and an error in its teardown.
            name = f"{_place(folder, case.get('classname', ''))}::{case.get('name')}"
            state = {"failure": "failed", "error": "failed"}.get(state, state)
            found[name] = "failed" if "failed" in (state, found.get(name)) else state
        return found, done.stdout


def _place(folder: Path, dotted: str) -> str:
    """Return where a test is as pytest writes it, file and class, from the dotted name in its report."""
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        file = "/".join(parts[:count]) + ".py"
        if (folder / file).is_file():
            return "::".join([file, *parts[count:]])
    return "(a whole module)"  # one that skips itself while it is imported


def function_of(name: str) -> str:
    """Return a test's name without its parameters."""
    return name.partition("[")[0]


@dataclass(frozen=True)
class Verdict:
    """What a comparison comes to."""

    stock: Outcomes
    ours: Outcomes
    exceptions: Mapping[str, str]

    @property
    def lost(self) -> list[str]:
        """Tests that stock passes and ours does not, and that are not excepted."""
        return [name for name in self._failing if function_of(name) not in self.exceptions]

    @property
    def needless(self) -> list[str]:
        """Exceptions that are none: ours passes the test, or stock does not, or there is no such test."""
        failing = {function_of(name) for name in self._failing}
        return [name for name in self.exceptions if name not in failing]

    @property
    def _failing(self) -> list[str]:
        return [name for name, state in self.stock.items() if state == "passed" and self.ours.get(name) != "passed"]

    def text(self, version: str, nodes: int) -> str:
        """Return it for a reader: files, then exceptions with their reasons, then what is wrong."""
        files = Counter(name.partition("::")[0] for name in self.stock)
        passed = [
            Counter(n.partition("::")[0] for n, s in one.items() if s == "passed") for one in (self.stock, self.ours)
        ]
        where = "a lone node" if nodes == 1 else f"each operation on a random one of {nodes} nodes"
        lines = [f"{version}: its own tests, unmodified, with its sessions and with ours, {where}", ""]
        lines.append(f"{'':44}{'tests':>7}{'stock':>7}{'ours':>7}")
        for file, count in sorted(files.items()):
            lines.append(f"{file:44}{count:7}{passed[0][file]:7}{passed[1][file]:7}")
        lines.append(f"{'all':44}{len(self.stock):7}{passed[0].total():7}{passed[1].total():7}")
        for why in dict.fromkeys(self.exceptions.values()):
            lines += [""] + [f"excepted  {name}" for name, reason in self.exceptions.items() if reason == why]
            lines += textwrap.wrap(why, 110, initial_indent=" " * 10, subsequent_indent=" " * 10)
        lines += [""] + [f"LOST      {name}" for name in self.lost]
        lines += [f"NEEDLESS  exception of {name}" for name in self.needless]
        lines.append("as many as stock, but for the exceptions" if self.good else "not as many as stock")
        return "\n".join(lines)

    @property
    def good(self) -> bool:
        """Ours passes whatever stock passes, but for the exceptions, and there is none too many."""
        return "passed" in self.stock.values() and not self.lost and not self.needless


def _passed_by_file(found: Outcomes) -> Counter[str]:
    return Counter(name.partition("::")[0] for name, state in found.items() if state == "passed")


def compared(suite: Suite, nodes: int) -> tuple[Verdict, str]:
    """Run a suite with both; return the verdict, and what pytest said of ours.

    Raises:
        NotFetched: the sources cannot be had.
    """
    ours, said = outcomes(suite, nodes)
    verdict = Verdict(_stock_outcomes(suite), ours, suite.exceptions)
    if nodes > 1 and verdict.lost:
        # A node waits 150 ms for another and then says so, by a 503. On a busy machine that is the test's failure.
        again, said = outcomes(suite, nodes, verdict.lost)
        verdict = Verdict(verdict.stock, ours | again, suite.exceptions)
    return verdict, said


@cache
def _stock_outcomes(suite: Suite) -> Outcomes:
    return outcomes(suite, None)[0]


def main(suite: Suite, arguments: list[str] | None = None) -> int:
    """Run a suite from the command line; return the exit code, 3 where the sources cannot be had."""
    parser = argparse.ArgumentParser(
        description=f"{suite.package}'s own session tests, with its sessions and with ours"
    )
    parser.add_argument("--nodes", type=int, default=1, help="over how many nodes operations are scattered (1)")
    parser.add_argument("--verbose", action="store_true", help="show what pytest says of ours")
    given = parser.parse_args(arguments)
    try:
        verdict, said = compared(suite, given.nodes)
    except NotFetched as error:
        print(error, file=sys.stderr)
        return 3
    if given.verbose or verdict.lost:
        print(said)
    print(verdict.text(f"{suite.package} {version(suite.package)}", given.nodes))
    return 0 if verdict.good else 1
