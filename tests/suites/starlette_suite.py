"""Starlette's own session tests, with its sessions and with ours: ``python -m tests.suites.starlette_suite``."""

import sys

from tests.suites.running import Suite, main

SUITE = Suite(
    package="starlette",
    tests=("tests/middleware/test_session.py",),
    plugin="swap_starlette",
    exceptions={},
)

if __name__ == "__main__":
    sys.exit(main(SUITE))
