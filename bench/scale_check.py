# Scale, the check: what docs/SCALE.md says does not grow, held against the figures.
#
# In:    figures of clusters of several sizes.    Out: a sentence for each claim that they contradict.
# Held to it are clusters in which a session lives on some of the nodes only: small ones and all-to-all do grow.
# Messages and nodes are those of the request that took most, where requests were counted one by one; the average else.
# Not here: measuring (scale_simulated.py, scale_real.py), and what reads cost.

from collections.abc import Sequence
from typing import Final, Literal

from scale_count import Cost, Figures

FLAT: Final = 1.1
"""Bytes of a write in the cluster where it takes most, over those where it takes least: at most."""
Written = Literal["write_holder", "write_copy"]
WRITES: Final[Sequence[tuple[Written, str]]] = (
    ("write_holder", "a write on a holder"),
    ("write_copy", "a write elsewhere"),
)


def contradicted(measured: Sequence[Figures]) -> list[str]:
    """Return what does not hold of these clusters, as sentences; nothing where fewer than two have other nodes."""
    placed = [one for one in measured if one.holders < one.nodes]
    if len({one.nodes for one in placed}) < 2:
        return []
    sentences = [sentence for one in placed for sentence in _too_many(one)]
    for where in ("simulated", "real"):
        clusters = [one for one in placed if one.where == where]
        sentences += [sentence for kind, name in WRITES for sentence in _uneven(clusters, kind, name)]
    return sentences


def _too_many(one: Figures) -> list[str]:
    """Check one cluster: messages of each kind of write, and how many nodes a create reaches."""
    cluster = f"with {one.nodes} nodes ({one.where})"
    limit = 2 * one.holders + 2
    sentences = []
    for kind, name in WRITES:
        written: Cost | None = getattr(one, kind)
        if written is None:
            sentences.append(f"{cluster} nobody measured {name}: its cost is not known")
        elif (messages := _most(written.messages_max, written.messages)) > limit:
            sentences.append(f"{cluster} {name} took {messages:.3g} messages, more than 2R+2 = {limit:g}")
    if one.create is not None and one.create.nodes is not None:
        nodes = _most(one.create.nodes_max, one.create.nodes)
        if nodes > one.holders:
            sentences.append(f"{cluster} a create reached {nodes:.3g} nodes, more than R = {one.holders:g}")
    return sentences


def _uneven(clusters: Sequence[Figures], kind: Written, name: str) -> list[str]:
    """Check that one kind of write takes as many bytes in all these clusters."""
    sizes = [(written.bytes, one.nodes) for one in clusters if (written := getattr(one, kind)) is not None]
    if not sizes:
        return []
    (least, few), (most, many) = min(sizes), max(sizes)
    if most <= FLAT * least:
        return []
    return [
        f"{name} takes {least:.0f} bytes with {few} nodes and {most:.0f} with {many} ({clusters[0].where}): "
        f"more than {FLAT - 1:.0%} apart"
    ]


def _most(most: float | None, average: float) -> float:
    return average if most is None else most
