# Request: what sessions add to a request, in each framework, beside what the framework's users have without us.
#
# The application is called as its server would call it, in this process (callers.py). Its node is alone, so that
# nothing is waited for.
#
# In:    options (--help).   Out: a table, or with --json an object for each row.
# Columns:  what a request costs above the same application without sessions, microseconds
#             unused   a request of a logged-in visitor, whose view does not look at the session
#             read     the view reads one key
#             write    the view assigns one key a value that it did not have
# Method:   a batch is one request of each of some visitors, timed as a whole; what their answers set goes into the next
#           requests' cookies, outside the timed part, as do all checks. In each round every row does a batch of each
#           kind, so that rows meet the same noise, after an untimed one: else it bears what the row before has left in
#           the caches. A figure is the median over rounds of the difference to the batch without sessions in the same
#           round.
# Clock:    the wall clock, since a stock backend may wait for its server; --cpu takes this thread's processor time,
#           which counts neither who else uses the machine, nor the server that is waited for.
# Not here: the applications (request_apps.py), and what keeps their sessions (request_rows.py).
#           Nor bounds: whoever runs this judges; tests/e2e/test_bench.py sees that it works.

import argparse
import asyncio
import gc
import json
import sys
import time
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script, with or without install

from bench.callers import Clock
from bench.redis_server import redis_server
from bench.request_apps import USER, django_set_up
from bench.request_rows import ROWS, WITHOUT, Row, say_left_out
from gossipsess.config import Config
from gossipsess.service import lone_node

KINDS: Final = ("unused", "read", "write")


class BenchError(Exception):
    """An application did not answer as it should; the message says which and how."""


class Visitors:
    """The visitors of one application, each with the cookies that its answers have set."""

    def __init__(self, row: Row, number: int, clock: Clock) -> None:
        self._row = row
        self._clock = clock
        self._jars: list[dict[str, str]] = [{} for _ in range(number)]

    def ask(self, kind: str) -> float:
        """Send one request of each visitor; return the seconds for each.

        Raises:
            BenchError: an answer is not what the view says.
        """
        cookies = ["; ".join(f"{name}={value}" for name, value in jar.items()) for jar in self._jars]
        took_s, answers = self._row.call.batch(f"/{kind}", cookies, self._clock)
        for jar, answer in zip(self._jars, answers, strict=True):
            if answer.status != 200 or answer.body != str(USER).encode("ascii"):
                raise BenchError(f"{self._row.framework}, {self._row.sessions}, {kind}: {answer}")
            _keep_cookies(jar, answer.headers)
        return took_s / len(self._jars)


def _keep_cookies(jar: dict[str, str], headers: list[tuple[str, str]]) -> None:
    for name, line in headers:
        if name == "set-cookie":
            key, _, value = line.partition(";")[0].partition("=")
            jar[key] = value


class Figures(NamedTuple):
    """One row of the table, microseconds a request: of the row without sessions the cost itself, else what is added."""

    framework: str
    sessions: str
    unused: float
    read: float
    write: float


def measure(rows: list[Row], rounds: int, visitors: int, clock: Clock) -> list[Figures]:
    """Return the figures of the rows of one framework, of which the first is that without sessions."""
    crowds = [Visitors(row, visitors, clock) for row in rows]
    for crowd in crowds:
        crowd.ask("login")
        for kind in KINDS:
            crowd.ask(kind)  # imports, caches
    taken_s: list[dict[str, list[float]]] = [{kind: [] for kind in KINDS} for _ in rows]
    for _ in range(rounds):
        for kind in KINDS:
            gc.collect()  # what one row leaves behind is not counted to the next
            for crowd, taken in zip(crowds, taken_s, strict=True):
                crowd.ask(kind)
                taken[kind].append(crowd.ask(kind))
    without = taken_s[0]
    figures = [Figures(*rows[0][:2], *(median(without[kind]) * 1e6 for kind in KINDS))]
    for row, taken in zip(rows[1:], taken_s[1:], strict=True):
        added = (
            median(took - base for took, base in zip(taken[kind], without[kind], strict=True)) * 1e6 for kind in KINDS
        )
        figures.append(Figures(*row[:2], *added))
    return figures


def print_table(figures: list[Figures]) -> None:
    """Print the figures of one framework."""
    for line in figures:
        costs = "".join(f"{cost:{'' if line.sessions == WITHOUT else '+'}.1f}".rjust(10) for cost in line[2:])
        print(f"{line.framework:<11}{line.sessions:<26}{costs}", flush=True)


def main() -> int:
    """Measure what the options say."""
    parser = argparse.ArgumentParser(
        prog="python bench/request.py", description="what sessions add to a request, microseconds"
    )
    parser.add_argument("--framework", choices=ROWS, action="append", help="default: each that is installed")
    parser.add_argument("--rounds", type=int, default=200, help="default: 200")
    parser.add_argument("--visitors", type=int, default=20, help="requests in a batch; default: 20")
    parser.add_argument("--cpu", action="store_true", help="processor time of this thread in place of time")
    parser.add_argument("--json", action="store_true", help="an object for each row")
    options = parser.parse_args()
    clock = time.thread_time if options.cpu else time.perf_counter
    if not options.json:
        print(" " * 37 + "".join(kind.rjust(10) for kind in KINDS))
    with ExitStack() as stack:
        loop = asyncio.new_event_loop()
        stack.callback(loop.close)
        node = lone_node(Config(discovery="none"))
        redis_port = stack.enter_context(redis_server())
        for name in options.framework or ROWS:
            if name not in ("asgi", "wsgi") and find_spec(name) is None:
                say_left_out(name, f"pip install {name}")
                continue
            if name == "django":
                stack.enter_context(django_set_up())
            rows = list(ROWS[name](node, loop, redis_port))
            figures = measure(rows, options.rounds, options.visitors, clock)
            if options.json:
                for line in figures:
                    print(json.dumps(line._asdict()), flush=True)
            else:
                print_table(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
