# The doctor, with most of the planted faults once; the script plays all.

import pytest

from .doctor import play
from .lab import needs_lab

pytestmark = needs_lab

FAULTS = [
    *("nothing", "no-dns", "wrong-secret", "udp-blocked", "tcp-blocked", "multicast"),
    *("clock-ahead", "ports", "loopback"),
]


@pytest.mark.parametrize("name", FAULTS)
async def test_the_doctor_names_what_is_wrong_first(name: str) -> None:
    """Whoever calls it has looked for an hour already; what is not the reason must not stand first."""
    played = await play(name)
    assert played["named"], played
