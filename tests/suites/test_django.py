"""Django's own tests, unmodified, with our engine: on a lone node and on three."""

import pytest

from tests.suites.django_suite import EXCEPTIONS, differing, run, ways
from tests.suites.sources import NotFetched, source_of


@pytest.fixture(scope="module")
def folder():
    try:
        return source_of("django") / "tests"
    except NotFetched as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def stock(folder):
    outcomes = run(ways(1)[0], folder, [])
    assert len(outcomes) > 900
    assert set(outcomes.values()) <= {"passed", "skipped"}
    return outcomes


@pytest.mark.parametrize(("nodes", "way"), [(1, 2), (3, 1), (3, 2)])
def test_what_djangos_engine_passes_ours_does(folder, stock, nodes, way):
    """A project that changes one line must not find out by itself what Django's tests would have told."""
    expected = EXCEPTIONS.keys() & stock.keys()  # each version has its tests
    differs = differing(stock, run(ways(nodes)[way], folder, []))
    assert differs.keys() == expected, differs
