# kill -9 behind a real nginx, a few rounds of each kind; kill.py plays as many as one likes.

import pytest

from .harness import FRAMEWORKS, Balance, Discovery, Framework, nginx_path
from .kill import kill_round

pytestmark = pytest.mark.skipif(nginx_path() is None, reason="nginx is not installed: apt-get install nginx-light")


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(("balance", "discovery"), [("round_robin", "static"), ("ip_hash", "multicast")])
def test_a_login_survives_kill_9_of_the_app_that_took_it(
    framework: Framework, balance: Balance, discovery: Discovery
) -> None:
    """The promise the whole library is for, seen from a browser."""
    assert kill_round(framework, discovery, balance).lost == ""


def test_a_login_is_reported_lost_where_the_nodes_never_meet() -> None:
    """The rounds above prove something only if a loss would be seen."""
    assert kill_round("starlette", "none").lost != ""
