# Digests: what a node is to hold, short enough to be compared with what others do.
#
# Not of the product's own state hashes: those are one of the things under test.

from hashlib import blake2b
from typing import Any

from gossipsess.node import Node
from gossipsess.protocol.placement import EVERYWHERE, partition_of


def digests(node: Node) -> dict[str, Any]:
    """Return digests of all that this node is to hold, by partition: ids, keys, values, and who wrote them when.

    And the tag of its layout: nodes with equal tags agree on what each is to hold.
    """
    with node.locked() as replica:
        layout = replica.placement.layout
        scope = layout.partitions_of(replica.node)
        records = sorted(node.records.items())
    summaries = {partition: blake2b(digest_size=16) for partition in range(EVERYWHERE + 1) if scope >> partition & 1}
    for sid, record in records:
        summary = summaries.get(partition_of(sid))
        if summary is not None:
            entries = [(key, entry.stamp, entry.origin, entry.value) for key, entry in sorted(record.entries.items())]
            summary.update(repr((sid, record.tombstone, entries)).encode())
    return {"layout": layout.tag, "of": {partition: one.hexdigest() for partition, one in summaries.items()}}
