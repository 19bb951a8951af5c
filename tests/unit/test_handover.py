"""What a node that nobody outlives leaves to the next process: read once, by one, soon, with the secret."""

import os
import resource
import threading
import time

import pytest

from gossipsess.config import Config
from gossipsess.model.identity import sid_of
from gossipsess.model.member import MemberState, Told
from gossipsess.model.revocation import is_user_sid
from gossipsess.runtime import handover
from gossipsess.service import NodeService, listen, lone_node
from gossipsess.waiting import blocking

CONFIG = Config(cluster="shop", secret="correct-horse-battery-staple")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """This user's folder, empty."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "gossipsess"


def committed(node, user=None, **values):
    session = node.store.create()
    session.update(values)
    if user is not None:
        session.user = user
    node.store.commit(session)
    return session


def leave(node):
    handover.leave(node.node, node.keyring)


def successor(config=CONFIG):
    node = lone_node(config)
    handover.inherit(node.node, node.keyring)
    return node


def file_of(folder):
    (path,) = folder.glob("*.handover")
    return path


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_the_next_process_serves_what_the_last_one_held(folder):
    """A developer who saves a file stays logged in."""
    before = lone_node(CONFIG)
    session = committed(before, user_id=42, cart=["book"])
    leave(before)
    assert file_of(folder).stat().st_mode & 0o777 == 0o600
    after = successor()
    assert dict(blocking(after.store.load(session.cookie))) == {"user_id": 42, "cart": ["book"]}
    assert after.node.records.keys() == before.node.records.keys()
    assert after.node.replica.sessions.table.sums.of_groups(-1) == before.node.replica.sessions.table.sums.of_groups(-1)
    assert not list(folder.glob("*.handover")), "read once"


def test_what_was_ended_stays_ended_and_a_revoked_user_logged_out(folder):
    """Somebody of the cluster may come back with the session later: a restart must not have forgotten the logout."""
    before = lone_node(CONFIG)
    ended, revoked = committed(before, a=1), committed(before, "42")
    copies = dict(before.node.records)
    before.store.invalidate(ended)
    before.store.revoke("42")
    leave(before)
    after = successor()
    for session in (ended, revoked):
        assert after.node.records[sid_of(session.id)].tombstone
        assert blocking(after.store.load(session.cookie)) is None
    assert any(is_user_sid(sid) for sid in after.node.records)
    late = lone_node(CONFIG)
    late.node.replica.sessions.table.merge(
        handover.not_covered(copies[sid_of(revoked.id)], {}), late.node.time_ms(), late.node.now()
    )
    leave(late)
    handover.inherit(after.node, after.keyring)
    assert blocking(after.store.load(revoked.cookie)) is None, "whichever of the two comes first"


def test_a_session_that_was_only_read_for_a_while_is_not_over(folder, monkeypatch):
    """Its last access is no part of the record, and is left with it."""
    before = lone_node(Config(cluster="shop", secret=CONFIG.secret, idle_timeout_s=600))
    session = committed(before, a=1)
    table = before.node.replica.sessions.table
    later_ms = before.node.time_ms() + 300_000
    assert table.touch(sid_of(session.id), later_ms)
    monkeypatch.setattr(before.node.replica.sessions.clock.__class__, "time_ms", lambda self, now_s: later_ms)
    leave(before)
    after = successor()
    life = after.node.replica.sessions.table.life(after.node.records[sid_of(session.id)])
    assert life.accessed_ms == later_ms


def test_a_node_that_has_nothing_leaves_nothing(folder):
    """Most processes of a test suite, say."""
    leave(lone_node(CONFIG))
    assert not folder.exists()


@pytest.mark.parametrize("alone", [True, False])
def test_a_successor_waits_for_nobody_where_nobody_ever_was(folder, alone):
    """A reload that takes two seconds more each time would be felt; but who had met others looks for them again."""
    before = lone_node(CONFIG)
    session = committed(before, a=1)
    if not alone:
        met = before.node.replica.swim.myself._replace(node=b"another!")
        before.node.replica.swim.heard_members((Told(met._replace(state=MemberState.LEFT)),), before.node.now())
    leave(before)
    config = Config(cluster="shop", secret=CONFIG.secret, bind="127.0.0.1", port=0, discovery="static://127.0.0.1:9")
    after = NodeService(config, listen(config))
    try:
        assert not after.synced
        handover.inherit(after.node, after.keyring)
        assert after.synced is alone
        assert sid_of(session.id) in after.node.records
    finally:
        after.sockets.close()


def test_of_many_successors_at_once_one_takes_it_over(folder, caplog):
    """Workers that start together; the others have it from that one."""
    before = lone_node(CONFIG)
    session = committed(before, a=1)
    leave(before)
    nodes = [lone_node(CONFIG) for _ in range(8)]
    gate = threading.Barrier(len(nodes))

    def start(node):
        gate.wait()
        handover.inherit(node.node, node.keyring)

    threads = [threading.Thread(target=start, args=(node,)) for node in nodes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(sid_of(session.id) in node.node.records for node in nodes) == 1
    assert warnings(caplog) == []


def test_a_file_of_another_secret_or_cluster_is_left_to_whom_it_is_for(folder, caplog):
    """Two applications of one user share the folder."""
    before = lone_node(CONFIG)
    session = committed(before, a=1)
    leave(before)
    for other in (Config(cluster="blog", secret=CONFIG.secret), Config(cluster="shop", secret="x" * 32)):
        assert not successor(other).node.records
    assert warnings(caplog) == []
    rolled = Config(cluster="shop", secret="y" * 32, secret_fallbacks=(CONFIG.secret,))
    assert blocking(successor(rolled).store.load(session.id)) is not None, "a former secret opens it"


def test_a_file_under_a_key_that_did_not_seal_it_is_refused(folder, caplog):
    """Its name is anybody's; the seal is not."""
    leave_of = lone_node(CONFIG)
    committed(leave_of, a=1)
    leave(leave_of)
    other = Config(cluster="shop", secret="x" * 32)
    path = file_of(folder)
    path.rename(path.with_name(lone_node(other).keyring.primary.key_id.hex() + path.name[8:]))
    assert not successor(other).node.records
    assert len(warnings(caplog)) == 1


def test_whatever_is_altered_nothing_is_taken_over_and_one_line_says_so(folder, caplog):
    """Every byte of it, the header's too: nothing is parsed that was not sealed with the secret."""
    before = lone_node(CONFIG)
    committed(before, a=1)
    leave(before)
    path = file_of(folder)
    whole = path.read_bytes()
    for position in range(len(whole)):
        caplog.clear()
        altered = bytearray(whole)
        altered[position] ^= 1
        path.write_bytes(altered)
        assert not successor().node.records, position
        assert len(warnings(caplog)) == 1, (position, warnings(caplog))
        assert not path.exists()
        path.touch(mode=0o600)


def test_a_file_that_is_not_whole_is_refused(folder, caplog):
    """Cut anywhere, also between two messages; and so is one with something after its end."""
    before = lone_node(CONFIG)
    for number in range(3):
        committed(before, blob=bytes(200_000), number=number)
    leave(before)
    path = file_of(folder)
    whole = path.read_bytes()
    for wrong in (b"", whole[:20], *[whole[:-cut] for cut in (1, 30, 1000, 200_000)], whole + whole[-22:]):
        caplog.clear()
        path.write_bytes(wrong)
        assert not successor().node.records, len(wrong)
        assert len(warnings(caplog)) == 1
        path.touch(mode=0o600)


def test_what_others_could_have_written_is_refused(folder, caplog):
    """Also what only points to another place."""
    before = lone_node(CONFIG)
    committed(before, a=1)
    leave(before)
    path = file_of(folder)
    path.chmod(0o644)
    assert not successor().node.records
    elsewhere = folder / "elsewhere"
    elsewhere.write_bytes(b"")
    path.symlink_to(elsewhere)
    assert not successor().node.records
    assert len(warnings(caplog)) == 2
    assert elsewhere.exists()


def test_a_file_is_void_after_a_minute_and_then_removed(folder, monkeypatch, caplog):
    """Sessions on a disk are a risk, so they do not stay there; and a copy put back later revives nothing."""
    before = lone_node(CONFIG)
    committed(before, a=1)
    leave(before)
    path = file_of(folder)
    saved = path.read_bytes()
    old = time.time() - handover.VALID_S - 1
    os.utime(path, (old, old))
    assert not successor(Config(cluster="blog", secret="x" * 32)).node.records
    assert not path.exists(), "whoever starts removes it"
    draft = folder / f".{path.name}"
    draft.write_bytes(saved)
    os.utime(draft, (old, old))
    successor()
    assert not draft.exists(), "what a crash has left half written goes the same way"
    path.write_bytes(saved)
    path.chmod(0o600)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + handover.VALID_S + 1)
    os.utime(path, (now + handover.VALID_S, now + handover.VALID_S))
    assert not successor().node.records
    assert "s old" in warnings(caplog)[-1]


def test_a_crash_while_it_is_written_leaves_nothing_to_read(folder, monkeypatch, caplog):
    """It has its name only when it is whole."""
    before = lone_node(CONFIG)
    committed(before, a=1)
    leave(before)
    path = file_of(folder)
    path.rename(folder / f".{path.name}")  # as a process leaves it that is killed just before the end
    assert not successor().node.records
    assert warnings(caplog) == []


def test_a_full_disk_costs_one_line(folder, caplog):
    """The process ends all the same, and half a file does not stay."""
    before = lone_node(CONFIG)
    committed(before, blob=bytes(100_000))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        leave(before)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(folder.iterdir()) == []
    assert len(warnings(caplog)) == 1


def test_a_folder_that_others_may_enter_costs_one_line(folder, caplog):
    """As everywhere: nothing is put there, and nothing taken from it."""
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    before = lone_node(CONFIG)
    committed(before, a=1)
    leave(before)
    successor()
    assert len(warnings(caplog)) == 2
    assert list(folder.iterdir()) == []


def test_where_there_is_no_room_for_all_the_ended_go_first_and_then_the_last_used(folder, monkeypatch, caplog):
    """A logout that is forgotten is worse than a login that is."""
    before = lone_node(CONFIG)
    ended = committed(before, a=1)
    first, *_, last = [committed(before, blob=bytes(100_000)) for _ in range(8)]
    before.store.invalidate(ended)
    monkeypatch.setattr(handover, "FILE_BYTES_MAX", 600_000)
    leave(before)
    assert file_of(folder).stat().st_size < 600_000
    after = successor()
    assert after.node.records[sid_of(ended.id)].tombstone
    assert blocking(after.store.load(last.id)) is not None
    assert sid_of(first.id) not in after.node.records
    assert len(warnings(caplog)) == 1


def test_a_day_of_logouts_goes_in_messages_of_the_usual_size(folder, monkeypatch):
    """A message has a bound, and half a million of them in one passed it: nothing was left, the sessions neither."""
    before = lone_node(CONFIG)
    for number in range(100):
        before.store.invalidate(committed(before, number=number))
    sizes = []
    encode = handover.encode
    monkeypatch.setattr(handover, "encode", lambda said: sizes.append(len(encode(said))) or encode(said))
    monkeypatch.setattr(handover, "PUSH_BYTES", 1024)
    leave(before)
    assert sum(sizes) > 5000
    assert max(sizes) < 1100


def test_the_age_of_the_data_is_taken_over_with_it(folder):
    """A node that had been cut off for a day is not young because its process was restarted (protocol/fence.py)."""
    before = lone_node(CONFIG)
    committed(before, a=1)
    since_ms = before.node.replica.sessions.since_ms(before.node.now())
    leave(before)
    after = successor()
    assert after.node.replica.sessions.since_ms(after.node.now()) == since_ms
