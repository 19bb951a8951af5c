# The doctor, with each planted fault once; the script plays the same.

import pytest

from .doctor import FAULTS, faketime_library, play
from .lab import needs_lab

pytestmark = needs_lab


@pytest.mark.parametrize("name", FAULTS)
async def test_the_doctor_names_what_is_wrong_first(name: str) -> None:
    """Whoever calls it has looked for an hour already; what is not the reason must not stand first."""
    if "clock" in name and not faketime_library():
        pytest.skip("needs a shifted clock: faketime is not installed")
    played = await play(name)
    assert played["named"], played
