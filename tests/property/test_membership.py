"""Merging member records is a maximum: order, repetition and detours of gossip do not matter."""

from hypothesis import given
from hypothesis import strategies as st

from gossipsess.model.member import Member, MemberState
from gossipsess.protocol.membership import Membership


def record(number: int, incarnation: int, state: MemberState) -> Member:
    return Member(bytes([number] * 8), incarnation, state, (f"10.0.0.{number}", 7950), f"n{number}", host="h")


records = st.builds(record, st.integers(0, 3), st.integers(0, 3), st.sampled_from(MemberState))


def view_after(updates: list[Member]) -> Membership:
    view = Membership()
    for now, update in enumerate(updates):
        view.merge(update, float(now))
    return view


@given(st.lists(records), st.data())
def test_any_order_and_any_repetition_gives_the_same_view(updates, data):
    """Otherwise two nodes that heard the same things would place sessions differently, for ever."""
    again = data.draw(st.permutations(updates + data.draw(st.lists(st.sampled_from(updates or [None])))))
    again = [update for update in again if update is not None]
    one, other = view_after(updates), view_after(again)
    assert one.all() == other.all()
    assert one.live() == other.live()


@given(st.lists(records))
def test_the_view_is_the_greatest_record_of_each_node(updates):
    """The fast table against the plain statement of the rule."""
    greatest: dict[bytes, Member] = {}
    for update in sorted(updates, key=lambda update: update.rank):
        greatest[update.node] = update
    view = view_after(updates)
    assert view.all() == tuple(greatest[node] for node in sorted(greatest))
    assert view.live() == tuple(known for known in view.all() if known.is_live)


@given(st.lists(records))
def test_a_record_never_goes_back(updates):
    """Each change is told on; a step back would be gossiped, and come back as news."""
    view = Membership()
    for now, update in enumerate(updates):
        before = view.get(update.node)
        change = view.merge(update, float(now))
        after = view.get(update.node)
        assert after is not None
        assert before is None or after.rank >= before.rank
        assert (change is None) == (after == before)
