# Progress: one line on a terminal that says how far a campaign is; elsewhere a line now and then.

import sys
from time import monotonic
from typing import Final

WIDTH: Final = 30
EVERY_S: Final = 0.1
LINE_EVERY: Final = 100
"""Where nobody watches, a log gets one line for this many runs."""


class Progress:
    """Tells of `total` runs on standard error."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._begun_s = monotonic()
        self._told_s = 0.0
        self._bar = sys.stderr.isatty()

    def at(self, done: int, violations: int) -> None:
        """Tell how many runs are done."""
        now_s = monotonic()
        if not self._bar:
            if done % LINE_EVERY == 0:
                print(f"{done} of {self._total} seeds, {violations} violations", file=sys.stderr)
        elif now_s - self._told_s >= EVERY_S or done == self._total:
            self._told_s = now_s
            full = WIDTH * done // max(1, self._total)
            left_s = (now_s - self._begun_s) / done * (self._total - done)
            bar = "#" * full + "." * (WIDTH - full)
            print(
                f"\r[{bar}] {done} of {self._total} seeds, {violations} violations, {left_s:.0f} s left \033[K",
                end="\n" if done == self._total else "",
                file=sys.stderr,
                flush=True,
            )

    def line(self, text: str) -> None:
        """Print a line that stays."""
        print(f"\r\033[K{text}" if self._bar else text, file=sys.stderr)
