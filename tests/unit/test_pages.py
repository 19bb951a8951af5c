"""What pages of the documentation say of the tests is so."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("page", ["SECURITY.md"])
def test_each_test_that_a_page_names_exists(page):
    """A requirement whose test was renamed away is held by nothing."""
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs" / page).read_text())
    assert len(named) > 30
    for file, test in named:
        functions = {node.name for node in ast.walk(ast.parse((ROOT / file).read_text())) if hasattr(node, "name")}
        assert test in functions, f"{page} names {file}::{test}"


def test_the_exceptions_of_the_suites_are_those_that_the_page_explains():
    """Who reads the page is to know of each."""
    from tests.suites import flask_suite, starlette_suite

    text = (ROOT / "docs" / "SUITES.md").read_text()
    for suite in (flask_suite.SUITE, starlette_suite.SUITE):
        for name in suite.exceptions:
            assert f"`{name.rpartition('::')[2]}`" in text
