"""What must not leak: ids and secrets into logs, a machine's key to other users, packets to other interfaces."""

import json
import logging
import shutil
import stat
import subprocess
import sys
import textwrap

import pytest

from gossipsess.errors import ConfigError
from gossipsess.waiting import blocking
from tests.network.nodes import (
    CLUSTER,
    SECRET,
    all_linked,
    committed,
    eventually,
    loaded,
    rejected,
    settings,
    static,
)
from tests.network.test_ends import crash, is_push


@pytest.fixture
def runtime_folder(tmp_path, monkeypatch):
    """A user's runtime folder of the test's own."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "gossipsess"


def test_without_a_secret_nodes_of_one_user_share_a_key_that_only_this_user_can_read(start, runtime_folder):
    """No setting at all, and still nobody else on the machine can join or read."""
    here = start(secret=None, bind=None)
    there = start(secret=None, bind=None, discovery=static(here))
    all_linked(here, there)
    key = runtime_folder / "local.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(runtime_folder.stat().st_mode) == 0o700
    assert [path.name for path in runtime_folder.iterdir() if path.suffix != ".sock"] == ["local.key"], (
        "no draft is left"
    )
    assert here.config.bind_address == "127.0.0.1"


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_key_file_that_others_can_read_is_refused(start, runtime_folder, mode):
    """A key that was readable once is known; going on with it would only look safe."""
    start(secret=None)
    (runtime_folder / "local.key").chmod(mode)
    with pytest.raises(ConfigError, match=r"local\.key"):
        start(secret=None)


def test_a_key_folder_that_others_can_write_is_refused(start, runtime_folder):
    """Whoever can write there puts a key of their own."""
    runtime_folder.mkdir(mode=0o700)
    runtime_folder.chmod(0o777)
    with pytest.raises(ConfigError, match="chmod"):
        start(secret=None)


def test_a_key_that_is_a_link_is_refused(start, runtime_folder, tmp_path):
    """It may lead to a file that somebody else chose."""
    (tmp_path / "chosen").write_text("0" * 43)
    (tmp_path / "chosen").chmod(0o600)
    runtime_folder.mkdir(mode=0o700)
    (runtime_folder / "local.key").symlink_to(tmp_path / "chosen")
    with pytest.raises(ConfigError, match="link"):
        start(secret=None)


@pytest.mark.parametrize("bind", ["0.0.0.0", "192.0.2.7", "::"])
def test_without_a_secret_only_loopback_is_served(bind):
    """An open port of sessions is a port at which they are stolen."""
    with pytest.raises(ConfigError, match="needs a secret"):
        settings(secret=None, bind=bind)


def test_no_session_id_token_or_secret_is_ever_logged(start, runtime_folder, caplog):
    """Logs are kept, shipped and searched by many; a cookie in them is a login for whoever reads it."""
    caplog.set_level(logging.DEBUG)
    logging.getLogger("trio").setLevel(logging.CRITICAL)
    here = start()
    there = start(discovery=static(here))
    wrong = "another-horse-battery-secret"
    start(discovery=static(here), secret=wrong)
    local = start(secret=None, bind=None)
    all_linked(here, there)
    eventually(lambda: rejected(here), "a stranger is refused")

    session = committed(here, confirm="all", user="a value of the session")
    hidden = [SECRET, wrong, (runtime_folder / "local.key").read_text(), session.id, session.token]
    loaded(there, session.cookie)
    loaded(there, "0123456789" * 3 + "ab")
    hidden += ["0123456789" * 3 + "ab", "a value of the session"]
    blocking(here.store.rotate(session))
    hidden += [session.id, session.token]
    blocking(here.store.invalidate(session))
    local.close()
    crash(here, is_push)
    committed(here, confirm=1, user="a value of the session")
    there.close()

    assert "is alive" in caplog.text, "the run was logged"
    eventually(lambda: "replication stopped" in caplog.text, "so was the crash")
    assert "local.key" in caplog.text
    for text in (caplog.text, repr([record.__dict__ for record in caplog.records]), repr(here.config)):
        assert [secret for secret in hidden if secret in text] == []


# Runs alone in a network namespace: nobody else's packets are counted, and IPv6 is off, since the kernel would send
# router solicitations of its own.
NAMESPACE = textwrap.dedent(
    """
    import json, socket, subprocess, sys, time

    def run(*command):
        subprocess.run(command, check=True)

    run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", "lan0", "type", "veth", "peer", "name", "lan1")
    run("ip", "address", "add", "10.99.0.1/24", "dev", "lan0")
    run("ip", "link", "set", "lan1", "up")
    run("ip", "link", "set", "lan0", "up", "multicast", "on")
    run("ip", "route", "add", "default", "dev", "lan0")

    from gossipsess import Config
    from gossipsess.service import RunningNode
    from gossipsess.waiting import blocking

    def sent():
        for line in open("/proc/net/dev"):
            name, _, counters = line.partition(":")
            if name.strip() == "lan0":
                return int(counters.split()[9])

    sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    sniffer.bind(("lan0", 0))
    sniffer.setblocking(False)

    def sniffed():
        count = 0
        while True:
            try:
                sniffer.recv(65536)
            except BlockingIOError:
                return count
            count += 1

    sent_before = sent()
    sniffed()
    config = dict(cluster=sys.argv[1], secret=sys.argv[2], bind="127.0.0.1", discovery="auto")
    nodes = [RunningNode(Config(**config)) for _ in range(2)]
    until = time.monotonic() + 8
    while not all(any(m.linked for m in node.status().members) for node in nodes) and time.monotonic() < until:
        time.sleep(0.01)
    session = nodes[0].store.create()
    session["user"] = "kim"
    outcome = type(blocking(nodes[0].store.commit(session))).__name__
    found = dict(blocking(nodes[1].store.load(session.cookie)))
    until = time.monotonic() + 1.2  # past the next beacon
    while time.monotonic() < until:
        time.sleep(0.05)
    for node in nodes:
        node.close()
    told = {"outcome": outcome, "found": found, "sent": sent() - sent_before, "sniffed": sniffed()}

    # The watch itself: one packet of ours that does leave must be seen both ways.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as loud:
        loud.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("10.99.0.1"))
        loud.sendto(b"x", ("239.255.79.50", 7949))
    told["watched"] = [sent() - sent_before - told["sent"], sniffed()]
    print(json.dumps(told))
    """
)


def test_nothing_leaves_by_another_interface_than_the_one_that_is_bound():
    """Demo, tests and benchmarks run on developers' machines: their networks must not hear of it."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("no unshare or ip command: a network namespace cannot be made")
    able = subprocess.run(
        ["unshare", "-n", "ip", "link", "add", "lan0", "type", "veth", "peer", "name", "lan1"],
        capture_output=True,
        text=True,
        check=False,
    )
    if able.returncode:
        pytest.skip(f"a network namespace with an interface cannot be made here: {able.stderr.strip()}")
    done = subprocess.run(
        ["unshare", "-n", sys.executable, "-c", NAMESPACE, CLUSTER, SECRET],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["outcome"] == "Confirmed"
    assert told["found"] == {"user": "kim"}
    assert (told["sent"], told["sniffed"]) == (0, 0)
    assert min(told["watched"]) >= 1, "the counters and the sniffer see what does leave"
