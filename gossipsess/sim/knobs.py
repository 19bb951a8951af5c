# Knobs: constants of the machine that a run replaces, so that rules which rest for hours fire within seconds.
#
# Why constants are replaced from outside, and are no settings: nobody who runs a cluster should turn them. The
# product has no switch for the simulator; a constant is read where it is defined, and this sets it for a while.
# One process runs one simulation at a time, so that setting a module's constant is safe here.

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Final, NamedTuple


class Knob(NamedTuple):
    """Where a constant lives, and between which values it is drawn."""

    module: str
    constant: str
    least: float
    greatest: float
    whole: bool = False


KNOBS: Final = {
    # Longer than any two processes of a run are kept apart: within that bound no logout may be forgotten.
    "tombstone_ms": Knob("gossipsess.model.table", "TOMBSTONE_MS", 45_000, 60_000, whole=True),
    "claim_age": Knob("gossipsess.model.record", "CLAIM_AGE", 1_000 << 16, 60_000 << 16, whole=True),
    "claims_max": Knob("gossipsess.model.record", "CLAIMS_MAX", 2, 5, whole=True),
    "sync_every_s": Knob("gossipsess.protocol.sync", "SYNC_EVERY_S", 0.5, 3.0),
    "sync_again_s": Knob("gossipsess.protocol.sessions", "SYNC_AGAIN_S", 0.05, 0.5),
    "touch_every_s": Knob("gossipsess.protocol.expiry", "EVERY_S", 0.05, 0.3),
    "resend_after_s": Knob("gossipsess.protocol.replication", "RESEND_AFTER_S", 0.05, 0.3),
    "dial_again_s": Knob("gossipsess.protocol.links", "DIAL_AGAIN_S", 0.005, 0.02),
    "beacon_fast_for_s": Knob("gossipsess.protocol.discovery", "BEACON_FAST_FOR_S", 0.1, 2.0),
    "sessions_per_page": Knob("gossipsess.protocol.sync", "SESSIONS_PER_PAGE", 1, 2, whole=True),
    "push_bytes": Knob("gossipsess.protocol.replication", "PUSH_BYTES", 1, 400, whole=True),
    "in_flight_bytes_max": Knob("gossipsess.protocol.replication", "IN_FLIGHT_BYTES_MAX", 1, 600, whole=True),
    "dirty_max": Knob("gossipsess.protocol.replication", "DIRTY_MAX", 2, 4, whole=True),
    "lag_max_s": Knob("gossipsess.protocol.replication", "LAG_MAX_S", 0.3, 2.0),
    "hot_sends": Knob("gossipsess.protocol.pace", "HOT_SENDS", 2, 3, whole=True),
}


@contextmanager
def turned(knobs: tuple[tuple[str, float], ...]) -> Iterator[None]:
    """Have constants replaced.

    Raises:
        KeyError: no knob has such a name.
        AttributeError: the machine has that constant no more.
    """
    places = [(import_module(KNOBS[name].module), KNOBS[name].constant, value) for name, value in knobs]
    before = [getattr(module, constant) for module, constant, _ in places]
    for module, constant, value in places:
        setattr(module, constant, value)
    try:
        yield
    finally:
        for (module, constant, _), old in zip(places, before, strict=True):
            setattr(module, constant, old)
