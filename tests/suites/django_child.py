"""Django's own tests in this process, with one session engine: ``python -m tests.suites.django_child FOLDER ...``.

A process for each engine, since Django has its settings once in a process. The tests are run by Django's `runtests.py`,
as Django's developers run them, in the settings that come with it; the outcome of each is printed as JSON.
"""

import argparse
import json
import os
import sys
import tempfile
import unittest
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

OURS = "gossipsess.web.django"
BACKEND = "tests.suites.django_backend"
LABELS = (
    BACKEND,
    "sessions_tests.tests.SessionMiddlewareTests",
    "messages_tests",
    "auth_tests.test_auth_backends",
    "auth_tests.test_basic",
    "auth_tests.test_context_processors",
    "auth_tests.test_decorators",
    "auth_tests.test_login",
    "auth_tests.test_middleware",
    "auth_tests.test_mixins",
    "auth_tests.test_models",
    "auth_tests.test_remote_user",
    "auth_tests.test_signals",
    "auth_tests.test_views",
    "csrf_tests",
    "test_client",
    "test_client_regress",
)
"""Everything of Django's that uses sessions, but for its admin, whose tests use them as the views of auth_tests do."""


class Outcomes(unittest.TextTestResult):
    """What came of each test."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.outcomes: dict[str, str] = {}

    def startTest(self, test: unittest.TestCase) -> None:  # noqa: N802
        super().startTest(test)
        self.outcomes[test.id()] = "passed"

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:  # noqa: N802
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.outcomes[test.id()] = _last_line(err)

    def addError(self, test: unittest.TestCase, err: Any) -> None:  # noqa: N802
        super().addError(test, err)
        self.outcomes[test.id()] = _last_line(err)

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:  # noqa: N802
        super().addFailure(test, err)
        self.outcomes[test.id()] = _last_line(err)

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:  # noqa: N802
        super().addSkip(test, reason)
        self.outcomes[test.id()] = "skipped"


def _last_line(err: Any) -> str:
    return f"{err[0].__name__}: {err[1]}".strip()


@contextmanager
def engine(name: str, *, middleware: bool, nodes: int) -> Iterator[None]:
    """Make this Django's engine, ours on a lone node or on several; with `middleware` ours instead of Django's."""
    from django.conf import settings

    settings.SESSION_ENGINE = name
    os.environ["SUITE_ENGINE"] = name
    with ExitStack() as stack:
        if name == OURS:
            import django.contrib.sessions.middleware

            from gossipsess.service import lone_node
            from gossipsess.web import django as ours
            from tests.suites.scattered import scattered

            # Django's tests look at a session without the token that the answer has set, so each node must have it.
            several = nodes > 1
            ours.configure(node=stack.enter_context(scattered(nodes, confirm="all")) if several else lone_node())
            if middleware:
                django.contrib.sessions.middleware.SessionMiddleware = ours.SessionMiddleware
        yield


def run(labels: list[str]) -> dict[str, str]:
    """Run these of Django's tests, and return what came of each."""
    import runtests
    from django.test.runner import DiscoverRunner

    class Runner(DiscoverRunner):  # type: ignore[misc]
        def get_resultclass(self) -> type[Outcomes]:
            return Outcomes

    test_labels, state = runtests.setup_run_tests(0, None, None, labels)
    runner = Runner(verbosity=0, interactive=False)
    runner.setup_test_environment()
    suite = runner.build_suite(test_labels)
    databases = runner.setup_databases(aliases=runner.get_databases(suite))
    result = runner.run_suite(suite)
    runner.teardown_databases(databases)
    runner.teardown_test_environment()
    runtests.teardown_run_tests(state)
    return dict(result.outcomes)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="Django's tests")
    parser.add_argument("--engine", required=True)
    parser.add_argument("--middleware", action="store_true")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--label", action="append", dest="labels")
    asked = parser.parse_args()
    os.environ["DJANGO_SETTINGS_MODULE"] = "test_sqlite"
    sys.path.insert(0, str(asked.folder))
    os.chdir(asked.folder)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TMPDIR"] = tempfile.tempdir = folder
        with engine(asked.engine, middleware=asked.middleware, nodes=asked.nodes):
            outcomes = run(asked.labels or list(LABELS))
    asked.into.write_text(json.dumps(outcomes, indent=1))


if __name__ == "__main__":
    main()
