"""Which processes that build an application start a node, and when; and what SIGTERM does to them."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap

import pytest

_BUILDS_AN_APP = """
import os, sys, threading
{before}
from flask import Flask
from gossipsess.config import Config
from gossipsess.web.flask import GossipSessions
def build():
    GossipSessions(Flask("shop"), config=Config(discovery="none", port=0))
{build}
def nodes():
    return sum(thread.name == "gossipsess" for thread in threading.enumerate())
print(nodes(), flush=True)
{after}
"""


def run(script, *, check=True, **environ):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, **environ},
        check=check,
    )


def nodes_started(*, before="", build="build()", after="", **environ):
    return run(_BUILDS_AN_APP.format(before=before, build=build, after=after), **environ).stdout.split()


def argv(*words):
    return f"sys.argv = {list(words)!r}"


@pytest.mark.parametrize(
    ("words", "environ"),
    [
        (["flask", "shell"], {"FLASK_RUN_FROM_CLI": "true"}),
        (["flask", "--app", "run", "db", "upgrade"], {"FLASK_RUN_FROM_CLI": "true"}),
        (["flask", "run", "--debug"], {"FLASK_RUN_FROM_CLI": "true"}),
        (["flask", "run"], {"FLASK_RUN_FROM_CLI": "true", "FLASK_DEBUG": "1"}),
        (["/srv/manage.py", "shell"], {}),
        (["/srv/manage.py", "migrate"], {}),
        (["/srv/manage.py", "runserver"], {}),
        (["django-admin", "runserver", "8000"], {}),
        (["manage.py"], {}),
        (["/usr/bin/celery", "-A", "shop", "worker"], {}),
        (["/usr/bin/pytest", "-q"], {}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_process_that_only_builds_the_application_does_not_join_the_cluster(words, environ):
    """A shell, a migration, a task queue would hold sessions that nobody asks them for; a reloader's parent too."""
    assert nodes_started(before=argv(*words), **environ) == ["0"]


def test_neither_does_a_python_prompt():
    """What is tried at a prompt is no replica."""
    assert nodes_started(before="sys.ps1 = '>>> '") == ["0"]


def test_a_test_run_starts_no_node_by_building_the_application(tmp_path):
    """The suite of a user's application would join whatever serves on the same machine."""
    (tmp_path / "test_shop.py").write_text(
        _BUILDS_AN_APP.format(before="", build="build()", after="def test(): assert nodes() == 0")
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert "1 passed" in done.stdout, done.stdout


@pytest.mark.parametrize(
    ("words", "environ"),
    [
        ([sys.executable], {}),
        (["flask", "run"], {"FLASK_RUN_FROM_CLI": "true"}),
        (["flask", "-e", ".env", "--app=run", "run"], {"FLASK_RUN_FROM_CLI": "true", "FLASK_DEBUG": "0"}),
        (["flask", "run", "--debug"], {"FLASK_RUN_FROM_CLI": "true", "WERKZEUG_RUN_MAIN": "true"}),
        (["manage.py", "runserver"], {"RUN_MAIN": "true"}),
        (["manage.py", "runserver", "--noreload"], {}),
        (["waitress-serve", "shop:app"], {}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_node_starts_with_the_application(words, environ):
    """A replica that nobody has asked yet may be the only one left when its first request comes."""
    assert nodes_started(before=argv(*words), **environ) == ["1"]


def test_the_node_starts_in_a_worker_of_gunicorns():
    """Without --preload each worker builds the application itself."""
    in_a_worker = "exec('build()', {'__name__': 'gunicorn.workers.base', 'build': build})"
    assert nodes_started(before="import gunicorn.arbiter", build=in_a_worker) == ["1"]


def test_gunicorns_master_starts_no_node_but_its_workers_do():
    """Under --preload the master builds the application; a thread that it started would be dead in the workers."""
    fork_twice = """
if os.fork() == 0:
    print(nodes(), flush=True)
    if os.fork() == 0:
        print(nodes(), flush=True)
        os._exit(0)
    os.wait()
    os._exit(0)
os.wait()
"""
    assert nodes_started(before="import gunicorn.arbiter", after=fork_twice) == ["0", "1", "0"]


_GEVENT = """
import sys, types
monkey = types.ModuleType("gevent.monkey")
monkey.is_module_patched = lambda name: {patched}
sys.modules["gevent.monkey"] = monkey
"""
_EVENTLET = """
import sys, types
patcher = types.ModuleType("eventlet.patcher")
patcher.is_monkey_patched = lambda name: {patched}
sys.modules["eventlet.patcher"] = patcher
"""


@pytest.mark.parametrize("library", [_GEVENT, _EVENTLET], ids=["gevent", "eventlet"])
def test_greenlets_are_refused_in_one_sentence_before_trio_is_imported(library):
    """Else the error is Trio's, and names neither the reason nor a way out. (The real ones: tests/hosts.)"""
    refused = """
try:
    build()
except Exception as error:
    print(type(error).__name__, "-k gthread" in str(error), "trio" in sys.modules)
"""
    assert nodes_started(before=library.format(patched=True), build=refused) == ["ConfigError", "True", "False", "0"]
    assert nodes_started(before=library.format(patched=False)) == ["1"]


def test_a_preloading_master_of_greenlet_workers_refuses_at_once():
    """gevent patches after the fork, when the worker's node would run already."""
    refused = "try:\n    build()\nexcept Exception as error:\n    print(type(error).__name__)"
    before = "import gunicorn.arbiter, types; sys.modules['gunicorn.workers.ggevent'] = types.ModuleType('ggevent')"
    assert nodes_started(before=before, build=refused) == ["ConfigError", "0"]


_ENDS = """
import os, signal, sys, time
from gossipsess.config import Config
from gossipsess.service import leave_at_sigterm, process_node
{before}
node = process_node(Config(discovery="none", port=0))
leave = node.leave_soon
node.leave_soon = lambda: (print("left", flush=True), leave())
leave_at_sigterm()
{after}
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(10)
"""


def test_where_nobody_handles_sigterm_the_node_leaves_before_it_ends_the_process():
    """flask run, waitress: the others would take the process for dead, and what it wrote last would be gone."""
    done = run(_ENDS.format(before="", after=""), check=False)
    assert done.stdout.split() == ["left"]
    assert done.returncode == -signal.SIGTERM, "who waits for the process sees why it ended"


def test_a_containers_first_process_ends_too():
    """The kernel spares it what it sends itself: it would serve on without a node, until the grace period is over."""
    alone = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]
    if not shutil.which("unshare") or subprocess.run([*alone, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine gives no namespace of processes")
    script = _ENDS.format(before="print(os.getpid(), flush=True)", after="")
    done = subprocess.run(
        [*alone, sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout.split() == ["1", "left"]
    assert done.returncode == 128 + signal.SIGTERM


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_server_that_handles_sigterm_is_not_touched(when):
    """It finishes its requests first; the node leaves at the end of the process."""
    handler = "signal.signal(signal.SIGTERM, lambda *_: (print('served', flush=True), sys.exit(3)))"
    done = run(_ENDS.format(**{"before": "", "after": "", when: handler}), check=False)
    assert done.stdout.split() == ["served", "left"]
    assert done.returncode == 3


def test_the_sigterm_of_a_forked_child_ends_it_at_once():
    """A task that an application forks has no node to wait for."""
    fork = """
child = os.fork()
if not child:
    print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, flush=True)
else:
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
    done = run(_ENDS.format(before="", after=fork), check=False)
    assert done.stdout.split() == ["True", "-15", "left"]


def test_requests_that_come_while_the_node_leaves_are_served_by_that_node():
    """It hands over for up to ten seconds. A new node would be empty: whoever comes meanwhile would be logged out."""
    done = run(
        """
import os, signal, time
from gossipsess.config import Config
from gossipsess.service import leave_at_sigterm
from gossipsess.waiting import blocking
from gossipsess.web.adapter import NodeSessions
from gossipsess.web.session import WebSession
sessions = NodeSessions(WebSession, Config(discovery="none", port=0), None, None)
store = sessions.start()
session = store.create()
session["user"] = "kim"
blocking(store.commit(session, 1))
node = sessions.launch()
leave = node.leave_soon
def leave_while_requests_come():
    leave()
    store = sessions.store or sessions.start()
    print((blocking(store.load(session.id)) or {}).get("user"), sessions.launch() is node, flush=True)
node.leave_soon = leave_while_requests_come
leave_at_sigterm()
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(10)
""",
        check=False,
    )
    assert done.stdout.split() == ["kim", "True"]
    assert done.returncode == -signal.SIGTERM


def test_a_node_that_has_left_or_is_the_parents_serves_no_request_any_more():
    """Nobody hears of what it would be told. The next request starts another."""
    done = run(
        """
import os
from gossipsess.config import Config
from gossipsess.web.adapter import NodeSessions
from gossipsess.web.session import WebSession
sessions = NodeSessions(WebSession, Config(discovery="none", port=0), None, None)
def say():
    first = sessions.launch()
    print(sessions.store is None, sessions.start() is sessions.store, sessions.launch() is first, flush=True)
print(sessions.stop())
say()
print(sessions.stop())
say()
child = os.fork()
if not child:
    print(sessions.stop(), sessions.store is None)
    say()
    print(sessions.stop(), flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(sessions.store is None, sessions.stop())
"""
    )
    new = ["True", "True", "True"]
    assert done.stdout.split() == ["False", *new, "True", *new, "False", "True", *new, "True", "False", "True"]


def test_the_child_of_a_fork_makes_its_own_store_over_a_node_that_was_given():
    """Another thread may have held a lock of the parent's store at that moment: nobody would ever let go of it."""
    done = run(
        """
import os
from gossipsess.service import lone_node
from gossipsess.web.adapter import NodeSessions
from gossipsess.web.session import WebSession
sessions = NodeSessions(WebSession, None, lone_node(), None)
store = sessions.start()
child = os.fork()
if not child:
    print(sessions.store is None, sessions.start() is not store, flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(sessions.store is store)
"""
    )
    assert done.stdout.split() == ["True", "True", "True"]
