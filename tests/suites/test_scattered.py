"""What the framework suites stand on: a cluster that looks like one node, and the frameworks' own sources."""

from gossipsess.waiting import blocking
from tests.suites.scattered import scattered


def test_what_one_node_wrote_any_other_reads_and_all_are_asked():
    """Else a suite on three nodes would be one on a single node."""
    with scattered(seed=7) as node:
        store = node.store
        for number in range(40):
            session = store.create()
            session["number"] = number
            blocking(store.commit(session))
            again = blocking(store.load(session.cookie))
            assert again is not None
            assert again["number"] == number
            again["more"] = True
            blocking(store.rotate(again, confirm="all"))  # the old id comes without a token of its end
            assert blocking(store.load(session.id)) is None
            blocking(store.invalidate(again))
            assert blocking(store.load(again.cookie)) is None
        assert min(node.asked[number] for number in range(3)) > 40
