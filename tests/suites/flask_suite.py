"""Flask's own tests, with its sessions and with ours: ``python -m tests.suites.flask_suite``."""

import sys

from tests.suites.running import Suite, main

UNSIGNED = (
    "It tests that Flask without the right SECRET_KEY has no session. Ours is named by a random id and kept by the "
    "nodes; no key of the application's has signed it, so it works without one, and goes on when the key changes."
)
SET_ONCE = (
    "It wants a Set-Cookie (and so Vary) on a response that changed nothing. Ours sets the id when it is new, and for "
    "a permanent session anew after a quarter of its life: a slow response that set it each time could put back the id "
    "that a login has retired meanwhile, and end that login."
)

SUITE = Suite(
    package="flask",
    tests=("tests",),
    plugin="swap_flask",
    needs="older_pytest",
    exceptions={
        "tests/test_basic.py::test_missing_session": UNSIGNED,
        "tests/test_testing.py::test_session_transactions_no_null_sessions": UNSIGNED,
        "tests/test_basic.py::test_session_secret_key_fallbacks": UNSIGNED,
        "tests/test_basic.py::test_session_using_samesite_attribute": SET_ONCE,
        "tests/test_basic.py::test_session_cookie_setting": SET_ONCE,
        "tests/test_basic.py::test_session_refresh_vary": SET_ONCE,
    },
)

if __name__ == "__main__":
    sys.exit(main(SUITE))
