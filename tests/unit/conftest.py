"""What the tests of the web adapters are given, unless a module has another of that name."""

import pytest

from gossipsess.service import NodeService, lone_node


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    """Each of the two kinds of loop an application may run on."""
    return request.param


@pytest.fixture
def node() -> NodeService:
    """A real node, without network."""
    return lone_node()
