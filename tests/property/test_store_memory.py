"""What a store remembers of ids, tokens and records changes none of its answers: another over the same node agrees."""

from hypothesis import given
from hypothesis import strategies as st

from gossipsess.store import SessionStore
from gossipsess.wire.messages import Touch
from tests.unit.machines import BOB, Clocked

SESSIONS = 2
KINDS = ("write", "touch", "idle", "end at", "rotate", "invalidate", "tick")

steps = st.lists(
    st.tuples(
        st.sampled_from(KINDS),
        st.integers(0, SESSIONS - 1),
        st.sampled_from([1, 2, 60]),  # what is written, or a limit in seconds
        st.sampled_from([0, 1, 300, 2000, 4999, 5000, 65_001]),  # milliseconds that pass before
        st.sampled_from(["both", "load", "commit", "neither"]),  # what of it is done here, and not in another store
        st.booleans(),  # whether all are asked for
    ),
    min_size=8,
    max_size=25,
)


def fresh(here: Clocked) -> SessionStore:
    """Return a store over the same node, that remembers nothing."""
    return SessionStore(here.node, here.store._tokens, confirm=0, idle_timeout_s=60)


def check_alike(here: Clocked, cookies: list[str]) -> None:
    """Ask both for all that visitors have ever been given."""
    table = here.node.replica.sessions.table
    for cookie in cookies:
        name, _, token = cookie.partition(".")
        other = fresh(here)
        record = table.records.get(other._named_untrusted(name, token).sid)
        before = table.life(record) if record is not None else None
        mine, its = here.store.held(name, token), other.held(name, token)
        assert (mine is None) == (its is None), cookie
        if mine is None or its is None or before is None:
            continue
        assert (dict(mine), mine.token, mine.created_at) == (dict(its), its.token, its.created_at)
        assert 0 <= before.accessed_ms - mine.accessed_at * 1000 < max(before.grain_ms, 1)
        noted_ms = table.life(mine.record).accessed_ms
        assert here.node.time_ms() - noted_ms < max(before.grain_ms, 1), "a use is noted as soon as it is to be"


@given(steps)
def test_what_is_remembered_changes_no_answer(moves):
    """Others write, touch and end the same sessions, limits change, and time passes, noticed by the driver or not."""
    here = Clocked(idle_timeout_s=60, confirm=0).linked(BOB).waits(3.0)
    cookies: list[str] = []
    latest = [here.store.create().cookie for _ in range(SESSIONS)]
    touches = 0
    first = [("write", one, 0, 0, "both", False) for one in range(SESSIONS)]
    for what, which, number, passed_ms, here_is, looks in first + moves:
        here.now_s += passed_ms / 1000
        if looks:
            check_alike(
                here, latest + cookies + latest
            )  # asked for an older token, it forgets what it has of the latest
        name, _, token = latest[which].partition(".")
        loaded_by = here.store if here_is in ("both", "load") else fresh(here)
        store = here.store if here_is in ("both", "commit") else fresh(here)
        session = loaded_by.held(name, token) or store.create()
        match what:
            case "write":
                session["n"] = number
            case "idle":
                session.limit(idle_s=number)
            case "end at":
                session.limit(ends_at=here.node.time_ms() / 1000 + number)
            case "touch":
                touches += 1
                here.hears(Touch(touches, ((session.record.sid, here.node.time_ms()),)))
            case "tick":
                here.waits(0.0)
        if what == "rotate":
            store.rotate(session)
        elif what == "invalidate":
            store.invalidate(session)
        else:
            store.commit(session)
        here.does()
        latest[which] = session.cookie
        cookies.append(session.cookie)
    check_alike(here, latest + cookies + latest)
