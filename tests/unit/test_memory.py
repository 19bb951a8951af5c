"""The memory limit: it refuses new sessions and nothing else, and says so once."""

from contextlib import suppress

import pytest

from gossipsess.config import Config
from gossipsess.errors import MemoryFull, SessionUnavailable
from gossipsess.model.delta import not_covered
from gossipsess.model.identity import sid_of
from gossipsess.protocol.effects import Warn
from gossipsess.protocol.events import Write
from gossipsess.protocol.memory import LEFT_BELOW_PERCENT
from gossipsess.protocol.outcomes import Confirmed, Gone
from gossipsess.service import lone_node
from gossipsess.session import Session
from gossipsess.status import snapshot
from gossipsess.wire.messages import Push
from tests.unit.machines import BOB, SID, Clocked, record, registers, stamp

LIMIT = 200_000


def node_with_a_limit() -> Clocked:
    return Clocked(memory_limit_bytes=LIMIT, idle_timeout_s=60, absolute_timeout_s=3600).alone()


def fill(here: Clocked) -> list[Session]:
    """Store sessions until one is refused; return those that were not."""
    stored = []
    with suppress(MemoryFull):
        while held(here) < 2 * LIMIT:
            session = here.store.create()
            session["user"] = "kim"
            here.store.commit(session)
            stored.append(session)
    return stored


def warnings(here: Clocked) -> list[str]:
    return [effect.text for effect in here.does() if isinstance(effect, Warn)]


@pytest.fixture
def full() -> Clocked:
    return node_with_a_limit()


def held(here: Clocked) -> int:
    return here.replica.sessions.table.bytes


def test_a_new_session_is_refused_where_the_limit_is_met_and_the_message_says_what_to_do(full):
    """Else the process would be killed for its memory, and all sessions of a lone node with it."""
    stored = fill(full)
    assert LIMIT <= held(full) < LIMIT + 3000, "refused too early or too late"
    assert len(stored) > 50
    late = full.store.create()
    late["user"] = "kim"
    before = dict(full.node.records)
    with pytest.raises(
        MemoryFull, match=r"GOSSIPSESS_MEMORY_LIMIT_MB.* or shorten GOSSIPSESS_IDLE_TIMEOUT_S"
    ) as refused:
        full.store.commit(late)
    assert isinstance(refused.value, SessionUnavailable)
    assert full.node.records == before
    assert late.is_new
    assert late.modified, "it can be committed later"


def test_sessions_that_exist_go_on_where_the_limit_is_met(full):
    """To refuse their writes would break pages of users who are logged in."""
    session = fill(full)[0]
    session["cart"] = ["book"] * 100
    assert full.store.commit(session) == Confirmed(0, 0)
    assert full.store.load(session.cookie)["cart"] == ["book"] * 100


def test_a_login_works_where_the_limit_is_met(full):
    """A rotation stores a record under a new id; it is no new session."""
    session = fill(full)[0]
    old = session.id
    assert full.store.rotate(session) == Confirmed(0, 0)
    assert dict(full.store.load(session.cookie)) == {"user": "kim"}
    assert full.store.load(old) is None


def test_logouts_and_revocations_work_where_the_limit_is_met(full):
    """They are what frees memory, and must hold whatever it costs; also for sessions that are held elsewhere."""
    session, other = fill(full)[:2]
    other.user = "kim"
    full.store.commit(other)
    assert full.store.invalidate(session) == Confirmed(0, 0)
    assert full.store.revoke("kim").sessions == 1
    assert full.store.load(session.cookie) is None
    assert full.store.load(other.cookie) is None


def test_what_peers_send_is_taken_where_the_limit_is_met(full):
    """They confirmed it to their users, and count on this node to hold it."""
    full.linked(BOB)
    fill(full)
    theirs = record((stamp(0), BOB, registers()))
    full.hears(Push(1, (not_covered(theirs, {}),)))
    assert full.node.records[SID].state_hash == theirs.state_hash


def test_an_id_that_had_a_session_is_gone_and_not_refused_for_memory(full):
    """The one may be tried again, and the other never."""
    session = fill(full)[0]
    full.store.invalidate(session)
    fill(full)
    again = Write(sid_of(session.id), tuple(registers().items()), 0, lambda outcome: None)
    assert full.node.submit(again).outcome == Gone()


def test_new_sessions_are_stored_as_soon_as_others_have_ended(full):
    """Also where no driver ticks any more: after its end the process serves on."""
    first = len(fill(full))
    full.now_s += 3600
    assert len(fill(full)) == first


def test_the_limit_is_warned_of_once(full):
    """A flood of visitors must not become a flood in the log."""
    fill(full)
    for _ in range(3):
        fill(full)
        full.waits(1.0)
    [text] = warnings(full)
    assert "the limit" in text


def test_the_limit_is_warned_of_also_where_peers_have_filled_it():
    """It is for the operator to act before the first visitor is turned away."""
    here = node_with_a_limit().linked(BOB)
    huge = record((stamp(0), BOB, registers() | {"some": bytes(LIMIT)}))
    here.hears(Push(1, (not_covered(huge, {}),)))
    here.waits(1.0)
    assert len(warnings(here)) == 1


@pytest.mark.parametrize(("ended_percent", "warned"), [(2, 0), (30, 1)])
def test_the_limit_is_warned_of_again_only_after_it_was_left(full, ended_percent, warned):
    """At the limit a session ends every moment, and the next one meets it again."""
    stored = fill(full)
    warnings(full)
    for session in stored[: len(stored) * ended_percent // 100]:
        full.store.invalidate(session)
    assert held(full) < LIMIT
    assert (100 * held(full) < LEFT_BELOW_PERCENT * LIMIT) == bool(warned), "else the test shows nothing"
    full.waits(1.0)
    assert warnings(full) == []
    assert fill(full), "there is room for new ones again"
    assert len(warnings(full)) == warned


def test_the_status_says_how_much_is_held_and_how_much_may_be(full):
    """What an operator watches to raise the limit in time."""
    assert snapshot(full.node).memory_bytes == 0
    fill(full)
    status = snapshot(full.node)
    assert (status.memory_bytes, status.memory_limit_bytes) == (held(full), LIMIT)


def test_the_setting_is_what_the_machine_goes_by():
    """In MiB outside, in bytes inside."""
    assert lone_node(Config(memory_limit_mb=3)).status().memory_limit_bytes == 3 * 1024 * 1024
