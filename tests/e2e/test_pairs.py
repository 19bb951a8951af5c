# Read your writes behind a real nginx, with few pairs; pairs.py plays as many as one likes.

import pytest

from .harness import FRAMEWORKS, Framework, nginx_path
from .pairs import login_seen_on_the_other_port, play_pairs

pytestmark = pytest.mark.skipif(nginx_path() is None, reason="nginx is not installed: apt-get install nginx-light")


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_login_is_read_at_once_on_either_app(framework: Framework) -> None:
    """A plain round-robin balancer is enough: no sticky sessions are asked of anybody."""
    played = play_pairs(framework, pairs=200, clients=8)
    assert not played.broken, played


def test_stale_reads_are_counted_where_the_nodes_never_meet() -> None:
    """The pairs above prove something only if a stale read would be seen."""
    played = play_pairs("starlette", pairs=40, clients=4, discovery="none")
    assert played.stale >= played.crossed > 0, played


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_login_on_one_apps_port_holds_on_the_others(framework: Framework) -> None:
    """What a developer tries first: two terminals, two ports, one browser."""
    assert login_seen_on_the_other_port(framework)
