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
    drawn: bool = True
    """The swarm turns it, in half of the runs, one by one; else `PLACES`, and scenarios made by hand."""


KNOBS: Final = {
    # Longer than any two processes of a run are kept apart: within that bound no logout may be forgotten.
    "tombstone_ms": Knob("gossipsess.model.table", "TOMBSTONE_MS", 45_000, 60_000, whole=True),
    # A fence that any run could reach would end sessions of which the checkers know no end.
    "fence_ms": Knob("gossipsess.protocol.fence", "FENCE_MS", 5_000, 15_000, whole=True, drawn=False),
    "fence_inherit_ms": Knob("gossipsess.protocol.fence", "INHERIT_AFTER_MS", 1_000, 2_000, whole=True, drawn=False),
    "claim_age": Knob("gossipsess.model.record", "CLAIM_AGE", 1_000 << 16, 60_000 << 16, whole=True),
    "claims_max": Knob("gossipsess.model.record", "CLAIMS_MAX", 2, 5, whole=True),
    "settle_s": Knob("gossipsess.model.digest", "SETTLE_S", 0.05, 0.5),
    "repair_other_after_s": Knob("gossipsess.protocol.repair", "OTHER_AFTER_S", 0.5, 3.0),
    "repair_wait_s": Knob("gossipsess.protocol.repair", "WAIT_S", 0.05, 0.5),
    "repair_wait_max_s": Knob("gossipsess.protocol.repair", "WAIT_MAX_S", 0.5, 3.0),
    "sync_again_s": Knob("gossipsess.protocol.antientropy", "SYNC_AGAIN_S", 0.05, 0.5),
    "touch_every_s": Knob("gossipsess.protocol.expiry", "EVERY_S", 0.05, 0.3),
    "touch_again_s": Knob("gossipsess.protocol.expiry", "AGAIN_AFTER_S", 0.05, 0.3),
    "resend_after_s": Knob("gossipsess.protocol.replication", "RESEND_AFTER_S", 0.05, 0.3),
    "dial_again_s": Knob("gossipsess.protocol.links", "DIAL_AGAIN_S", 0.005, 0.02),
    "ask_dead_every_s": Knob("gossipsess.protocol.graveyard", "ASK_EVERY_S", 0.2, 2.0),
    "ask_old_every_s": Knob("gossipsess.protocol.graveyard", "ASK_OLD_EVERY_S", 1.0, 5.0),
    "died_lately_s": Knob("gossipsess.protocol.graveyard", "LATELY_S", 1.0, 10.0),
    "member_sync_every_s": Knob("gossipsess.protocol.views", "MEMBER_SYNC_EVERY_S", 0.5, 5.0),
    "member_sync_peer_s": Knob("gossipsess.protocol.views", "MEMBER_SYNC_PEER_S", 0.1, 1.0),
    "beacon_fast_for_s": Knob("gossipsess.protocol.discovery", "BEACON_FAST_FOR_S", 0.1, 2.0),
    "sessions_per_page": Knob("gossipsess.protocol.sync", "SESSIONS_PER_PAGE", 1, 2, whole=True),
    "in_flight_bytes": Knob("gossipsess.protocol.replication", "IN_FLIGHT_BYTES_MAX", 100, 4_000, whole=True),
    "leaves_per_list": Knob("gossipsess.protocol.sync", "LEAVES_PER_LIST", 1, 3, whole=True),
    "push_bytes": Knob("gossipsess.protocol.replication", "PUSH_BYTES", 1, 400, whole=True),
    "dirty_max": Knob("gossipsess.protocol.replication", "DIRTY_MAX", 2, 4, whole=True),
    "lag_max_s": Knob("gossipsess.protocol.replication", "LAG_MAX_S", 0.3, 2.0),
    "hot_sends": Knob("gossipsess.protocol.pace", "HOT_SENDS", 2, 3, whole=True),
    "linger_s": Knob("gossipsess.protocol.placement", "LINGER_S", 0.5, 4.0, drawn=False),
    "grace_s": Knob("gossipsess.protocol.gains", "GRACE_S", 0.2, 2.0, drawn=False),
    "secure_after_s": Knob("gossipsess.protocol.surplus", "SECURE_AFTER_S", 0.2, 3.0, drawn=False),
    # A drop is safe where the quiet is longer than answers are good for.
    "quiet_s": Knob("gossipsess.protocol.surplus", "QUIET_S", 1.5, 4.0, drawn=False),
    "fresh_s": Knob("gossipsess.protocol.surplus", "FRESH_S", 0.2, 1.0, drawn=False),
    "check_every_s": Knob("gossipsess.protocol.surplus", "CHECK_EVERY_S", 0.1, 0.5, drawn=False),
}
PLACES: Final = ("linger_s", "grace_s", "secure_after_s", "quiet_s", "fresh_s", "check_every_s")
"""Turned together, in runs of their own: the rules by which sessions change hands, which else rest for a minute."""


@contextmanager
def turned(knobs: tuple[tuple[str, float], ...]) -> Iterator[None]:
    """Have constants replaced.

    Raises:
        KeyError: no knob has such a name.
        AttributeError: the machine has that constant no more.
    """
    places = [(import_module(KNOBS[name].module), KNOBS[name], value) for name, value in knobs]
    before = [getattr(module, knob.constant) for module, knob, _ in places]
    for module, knob, value in places:
        if knob.whole:  # a whole number, also where a scenario file says 3.0
            setattr(module, knob.constant, round(value))
        else:
            setattr(module, knob.constant, value)
    try:
        yield
    finally:
        for (module, knob, _), old in zip(places, before, strict=True):
            setattr(module, knob.constant, old)
