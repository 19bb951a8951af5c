"""What a node makes of a machine whose network is not a developer's: one interface, no route beyond it, or nothing."""

import os
import subprocess
import sys

import pytest

from tests.chaos.nodes import can_have_own_network
from tests.network.nodes import SECRET

START = """\
import logging
logging.basicConfig(format="%(message)s")
from gossipsess.config import Config
from gossipsess.errors import ConfigError
from gossipsess.service import RunningNode
try:
    node = RunningNode(Config.from_env())
except ConfigError as error:
    print("refused:", error)
else:
    print(node.status().address[0], "hears" if node.sockets.beacon is not None else "is deaf")
    node.close()
"""

pytestmark = pytest.mark.skipif(
    not can_have_own_network(),
    reason="makes a network of its own: needs root, unshare and Debian's iproute2",
)


def started(*, with_interface: bool = True, **environ: str) -> str:
    """Start a node in an empty network, with one interface that leads to nobody; return what it says."""
    interface = (
        "ip link add pod type veth peer name end && ip addr add 10.9.0.2/24 dev pod && "
        "ip link set pod up && ip link set end up && "
    )
    command = f'ip link set lo up && {interface if with_interface else ""}exec "$0" -c "$1"'
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", command, sys.executable, START],
        env={**os.environ, "GOSSIPSESS_SECRET": SECRET, **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_a_pod_without_a_default_route_hears_multicast_at_its_own_address():
    """Some pod networks have none; the interface is the one of the pod's address."""
    assert started(POD_IP="10.9.0.2").startswith("10.9.0.2 hears")


def test_a_group_that_cannot_be_joined_ends_no_start_where_there_is_a_name_to_look_up():
    """The default tries both ways, and one of them must be enough."""
    says = started(GOSSIPSESS_ADVERTISE="10.77.0.1")
    assert "10.77.0.1 is deaf" in says
    assert "cannot be joined" in says
    assert "goes on without it" in says


def test_a_group_that_was_asked_for_must_be_joined():
    """A node that looks for nobody would serve, alone, and nobody would know."""
    says = started(GOSSIPSESS_ADVERTISE="10.77.0.1", GOSSIPSESS_DISCOVERY="multicast://239.255.79.50:7949")
    assert says.startswith("refused: multicast group")
    assert "static://" in says


@pytest.mark.parametrize("with_interface", [True, False], ids=["no route", "loopback alone"])
def test_loopback_is_not_advertised_to_other_machines(with_interface):
    """Each would dial itself: so ancestors of this failed in containers."""
    says = started(with_interface=with_interface)
    assert says.startswith("refused: this machine has no address but loopback's")
    assert "GOSSIPSESS_ADVERTISE" in says
