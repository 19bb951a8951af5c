# Probes: whom to ask next whether it lives, and which questions are still open.
#
# In:    pings sent, answers, time.    Out: open questions that need help, or that nobody answered.
# Rule:  shuffled round robin, so that every member is asked within two rounds at the latest, whatever the
#        luck (SWIM, section 4.3). One open question a target. A question has two moments: when its direct
#        answer is overdue and helpers are asked, and when the verdict falls.
# A relay is the other side of an indirect probe: a question asked for somebody else.
# Not here: what a verdict means, and all sending (swim.py).

import random
from dataclasses import dataclass, field
from typing import NamedTuple

from gossipsess.model.identity import NodeId
from gossipsess.model.member import Address, Member

_SEQUENCES = 2**32
# Open questions asked for others. Three helpers a probe and one probe an interval make a handful in the worst
# honest case; more would let one member use this node to flood another.
RELAYS_MAX = 64


class ProbeOrder:
    """Shuffled round robin over the members."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._round: list[NodeId] = []  # asked from the end

    def joined(self, node: NodeId) -> None:
        """Put a new member at a random place of the running round, where it waits one round at most."""
        self._round.insert(self._rng.randint(0, len(self._round)), node)

    def next(self, candidates: dict[NodeId, Member]) -> Member | None:
        """Return the next of `candidates` (in a fixed order), or None when there is none."""
        if not candidates:
            return None
        for _ in range(2):  # what is left of this round, then a whole one
            while self._round:
                member = candidates.get(self._round.pop())
                if member is not None:
                    return member
            self._round = list(candidates)
            self._rng.shuffle(self._round)
        return None


@dataclass
class Probe:
    """An open question to one member."""

    sequence: int
    target: Member
    """As known when asked: an answer or its lack concerns this incarnation."""
    help_due_s: float
    verdict_s: float
    helpers: tuple[NodeId, ...] | None = None
    """Who was asked to help; None until then."""
    nacks: list[NodeId] = field(default_factory=list)
    """Helpers that got no answer either, in the order they said so."""


class Relay(NamedTuple):
    """A question asked for somebody else."""

    sequence: int
    """The requester's; the answer goes back under it."""
    requester: NodeId
    address: Address
    """The requester's."""
    target: NodeId
    due_s: float
    """When the requester is told that the target stays silent."""


class Probes:
    """The open questions, this node's own and those of others, under one count of sequence numbers."""

    def __init__(self, first_sequence: int) -> None:
        self._sequence = first_sequence
        self._open: dict[NodeId, Probe] = {}
        self._relays: dict[int, Relay] = {}

    def next_sequence(self) -> int:
        """Return a number for one ping, 0 .. 2**32 - 1."""
        self._sequence = (self._sequence + 1) % _SEQUENCES
        return self._sequence

    def start(self, target: Member, *, help_due_s: float, verdict_s: float) -> Probe:
        """Open a question, in place of an older one to the same target."""
        probe = Probe(self.next_sequence(), target, help_due_s, verdict_s)
        self._open[target.node] = probe
        return probe

    def is_open(self, node: NodeId) -> bool:
        """Say whether `node` is being asked."""
        return node in self._open

    def answered(self, sequence: int, sender: NodeId) -> bool:
        """Close the question that the target itself, or a helper for it, answered; False if none was open."""
        for probe in self._open.values():
            if probe.sequence == sequence and (
                sender == probe.target.node or (probe.helpers is not None and sender in probe.helpers)
            ):
                del self._open[probe.target.node]
                return True
        return False

    def nacked(self, sequence: int, sender: NodeId) -> None:
        """Note that a helper got no answer; from others, or twice, it means nothing."""
        for probe in self._open.values():
            if probe.sequence == sequence and sender in (probe.helpers or ()) and sender not in probe.nacks:
                probe.nacks.append(sender)

    def disowned(self, sequence: int, asked: NodeId) -> bool:
        """Close the question that another node answered with "I am not `asked`"; False if none was open."""
        probe = self._open.get(asked)
        if probe is None or probe.sequence != sequence:
            return False
        del self._open[asked]
        return True

    def close(self, node: NodeId) -> None:
        """Drop the question to a node that is known to be gone."""
        self._open.pop(node, None)

    def clear(self) -> None:
        """Drop everything open; answers that still come in find nothing."""
        self._open.clear()
        self._relays.clear()

    def relay(self, relay: Relay) -> int | None:
        """Open a question for somebody else and return its number here; None when there are too many."""
        if len(self._relays) >= RELAYS_MAX:
            return None
        sequence = self.next_sequence()
        self._relays[sequence] = relay
        return sequence

    def relay_done(self, sequence: int, target: NodeId) -> Relay | None:
        """Close and return the relay that waits for `target` under this number."""
        relay = self._relays.get(sequence)
        if relay is None or relay.target != target:
            return None
        return self._relays.pop(sequence)

    def due_for_help(self, now_s: float) -> list[Probe]:
        """Return the probes without a direct answer in time whose helpers have not been asked."""
        return [probe for probe in self._open.values() if probe.helpers is None and probe.help_due_s <= now_s]

    def take_failed(self, now_s: float) -> list[Probe]:
        """Close and return the probes whose verdict falls now."""
        failed = [probe for probe in self._open.values() if probe.verdict_s <= now_s]
        for probe in failed:
            del self._open[probe.target.node]
        return failed

    def take_silent(self, now_s: float) -> list[Relay]:
        """Close and return the relays whose target did not answer in time."""
        silent = [sequence for sequence, relay in self._relays.items() if relay.due_s <= now_s]
        return [self._relays.pop(sequence) for sequence in silent]

    def next_deadline(self) -> float | None:
        """Return when the next of the three calls above has something to return."""
        probes = (probe.help_due_s if probe.helpers is None else probe.verdict_s for probe in self._open.values())
        relays = (relay.due_s for relay in self._relays.values())
        return min([*probes, *relays], default=None)
