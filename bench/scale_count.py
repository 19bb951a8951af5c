# Scale, the counting: which message belongs to what, what it weighs, and the figures of one cluster.
#
# Bytes are those that a message has sealed, as it is handed to UDP or TCP; IP and TCP headers are not in them, and do
# not depend on how many nodes there are.
# Groups:  membership (who is there: datagrams, greetings, member lists), requests (what creates, writes and reads cause
#          at once), upkeep (everything else about sessions: accesses told, syncs, copies offered or dropped).
# This file is also the one place where the benchmark knows placement: `placement_settings` and `holders`.
# Not here: clusters (scale_simulated.py, scale_real.py), output (scale.py, scale_plot.py).

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple

from gossipsess.model.identity import NodeId, Sid
from gossipsess.protocol.placement import partition_of
from gossipsess.protocol.replica import Replica
from gossipsess.wire.crypto import DATAGRAM_BODY_BYTES_MAX, DATAGRAM_BYTES_MAX
from gossipsess.wire.frame import LENGTH_BYTES, PIECE_BYTES_MAX, TAG_BYTES
from gossipsess.wire.messages import Bye, Hello, Members, Message, Pull, PullAnswer, Push, PushAck, is_datagram

ATTRIBUTES: Final = 10
VALUE_BYTES: Final = 100
"""A session has so many values of that size; a write replaces one of them."""
Group = Literal["membership", "requests", "upkeep"]
_MARK_BYTES: Final = 1

ALL_TO_ALL: Final[Mapping[str, int]] = {"all_to_all_below": 1000}
"""Settings, by their name in `Config` and in the simulator's `Scenario`, under which every node holds every session
however many nodes there are."""


def placement_settings(all_to_all: bool) -> dict[str, Any]:
    """Return the settings of placement for one pass; the defaults where not `all_to_all`."""
    return dict(ALL_TO_ALL) if all_to_all else {}


def holders(replica: Replica, sid: Sid) -> tuple[NodeId, ...]:
    """Return the nodes that a node's placement gives a session."""
    return tuple([member.node for member in replica.placement.layout.holders(partition_of(sid))])


def group_of(message: Message) -> Group:
    """Return what a message belongs to."""
    if is_datagram(message) or isinstance(message, Hello | Members | Bye):
        return "membership"
    return "requests" if isinstance(message, Push | PushAck | Pull | PullAnswer) else "upkeep"


def sealed_bytes(message: Message, encoded_bytes: int) -> int:
    """Return how long a message is on its way, given how long its codec makes it."""
    if is_datagram(message):
        return encoded_bytes + DATAGRAM_BYTES_MAX - DATAGRAM_BODY_BYTES_MAX
    pieces = max(1, -(-encoded_bytes // PIECE_BYTES_MAX))
    return encoded_bytes + pieces * (LENGTH_BYTES + _MARK_BYTES + TAG_BYTES)


class Sent(NamedTuple):
    """Messages and their bytes."""

    messages: float = 0
    bytes: float = 0

    def plus(self, other: "Sent") -> "Sent":
        """Return both together."""
        return Sent(self.messages + other.messages, self.bytes + other.bytes)

    def minus(self, other: "Sent") -> "Sent":
        """Return what was sent since `other` was all."""
        return Sent(self.messages - other.messages, self.bytes - other.bytes)

    def over(self, count: float) -> "Sent":
        """Return the share of each of so many."""
        return Sent(self.messages / count, self.bytes / count)


Traffic = dict[str, Sent]
"""Group and kind of message, as in ``requests Push`` -> what was sent of it."""


def add(traffic: Traffic, message: Message, encoded_bytes: int) -> None:
    """Count one message."""
    key = f"{group_of(message)} {type(message).__name__}"
    traffic[key] = traffic.get(key, Sent()).plus(Sent(1, sealed_bytes(message, encoded_bytes)))


def since(traffic: Traffic, before: Traffic) -> Traffic:
    """Return what came on top of an earlier state of the same counters."""
    grown = {key: sent.minus(before.get(key, Sent())) for key, sent in traffic.items()}
    return {key: sent for key, sent in grown.items() if sent.messages}


def joined(parts: Iterable[Traffic]) -> Traffic:
    """Return the sum of several nodes' counters."""
    whole: Traffic = {}
    for part in parts:
        for key, sent in part.items():
            whole[key] = whole.get(key, Sent()).plus(sent)
    return whole


def total(traffic: Traffic, *groups: Group) -> Sent:
    """Return what was sent in these groups together."""
    whole = Sent()
    for key, sent in traffic.items():
        if key.partition(" ")[0] in groups:
            whole = whole.plus(sent)
    return whole


class Cost(NamedTuple):
    """What one request of a kind costs on average. Messages and bytes are those of all nodes together."""

    requests: int
    """How many were measured."""
    messages: float
    bytes: float
    kinds: dict[str, Sent]
    """The same for each kind of message."""
    nodes: float | None = None
    """How many other nodes a message reached; None where that was not counted."""
    messages_max: float | None = None
    """Messages of the request that took most; None where requests were counted together."""
    nodes_max: float | None = None
    """Other nodes that the request reached that reached most."""
    p50_ms: float | None = None
    """Latency as the request sees it; None in virtual time, which would only show the delays that it was given."""
    p99_ms: float | None = None


def cost(requests: int, traffic: Traffic, took_ms: Iterable[float] = ()) -> Cost | None:
    """Sum up so many requests; None where there were none."""
    if not requests:
        return None
    each = total(traffic, "requests").over(requests)
    kinds = {key.partition(" ")[2]: sent.over(requests) for key, sent in traffic.items() if key.startswith("requests")}
    ordered = sorted(took_ms)
    p50_ms, p99_ms = (ordered[len(ordered) * part // 100] if ordered else None for part in (50, 99))
    return Cost(requests, each.messages, each.bytes, kinds, p50_ms=p50_ms, p99_ms=p99_ms)


class Figures(NamedTuple):
    """One cluster."""

    where: Literal["simulated", "real"]
    nodes: int
    sessions: int
    holders: float
    """Nodes that placement gives a session, on average over the sessions."""
    create: Cost | None
    write: Cost | None
    """One of a session's values, on a node drawn at random that has read it: the average over round robin."""
    write_holder: Cost | None
    """The same on a node that placement gives the session."""
    write_copy: Cost | None
    """The same on another node, which has a copy since it has read the session. None: there are no others."""
    read_holder: Cost | None
    """On a node that placement gives the session."""
    read_cold: Cost | None
    """On another node, which has nothing of it. None: there are no others."""
    read_copy: Cost | None
    """On another node, which has just used the session, and has all that the client's token names."""
    read_aged: Cost | None
    """The same where that was more than ten seconds ago, so that a holder is asked. Simulated only."""
    read_outdated: Cost | None
    """On one whose copy lacks what the token names. Simulated only."""
    upkeep: Sent
    """What is sent about sessions beyond what a request causes at once, up to the end of the rest; for each request."""
    idle: Sent
    """What one node sends a second while there are no requests."""
    idle_sessions: Sent
    """The part of it that is about sessions."""
    records_mean: float
    """Records a node holds, once the requests have ended."""
    records_max: int
    rested_records_mean: float | None
    """The same after a rest, in which copies that are no longer needed go; None where nobody rested."""
    rested_records_max: int | None
    table_bytes: float
    """What a node's records take in memory by its own account, on average, at the end."""
    rss_bytes: float | None
    """A process's resident memory at the end, on average; None for nodes that have no process of their own."""
    rss_grown_bytes: float | None
    """By how much it grew since before the first session."""
    took_s: float
    """How long the measurement took, of real time."""


def as_json(figures: Figures) -> dict[str, Any]:
    """Return figures as JSON types."""
    fields: dict[str, Any] = {
        name: value._asdict() if isinstance(value, Cost | Sent) else value for name, value in figures._asdict().items()
    }
    for value in fields.values():
        if isinstance(value, dict) and "kinds" in value:
            value["kinds"] = {kind: sent._asdict() for kind, sent in value["kinds"].items()}
    return fields
