"""Flask's own tests pass with our sessions as they do with Flask's, but for those that say why not."""

import pytest

from tests.suites.flask_suite import SUITE
from tests.suites.running import compared
from tests.suites.sources import NotFetched


@pytest.mark.parametrize("nodes", [1, 3])
def test_flasks_own_tests_pass_as_with_its_own_sessions(nodes):
    """The measure of a drop-in; on a lone node, and with each operation on a random one of three."""
    try:
        verdict, said = compared(SUITE, nodes)
    except NotFetched as error:
        pytest.skip(str(error))
    assert verdict.good, said + verdict.text("flask", nodes)
