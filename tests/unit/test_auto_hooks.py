"""What the hooks do to frameworks that applications import: in processes of their own, which it changes for good."""

import json
import subprocess
import sys
import textwrap

import pytest

from gossipsess.zero_code import NOTES_MAX

from .test_auto_boot import environment

PREFIX = """
import json, os, sys
import gossipsess.zero_code as zero_code
def told(**more):
    print(json.dumps({"notes": zero_code.notes, "trio": "trio" in sys.modules, **more}))
"""
FLASKS = "applications get replicated sessions unless they bring their own"


def run(code, **variables):
    environ = environment(**variables)
    environ["GOSSIPSESS_AUTO_FOR"] = environ["GOSSIPSESS_AUTO_FOR"].replace(sys.base_prefix, sys.prefix)
    environ |= {"GOSSIPSESS_DISCOVERY": "none", "GOSSIPSESS_PORT": "0", "FLASK_RUN_FROM_CLI": "true"}  # and no "run"
    return subprocess.run(
        [sys.executable, "-c", PREFIX + textwrap.dedent(code)], env=environ, capture_output=True, text=True, timeout=60
    )


def told_by(code, **variables):
    """Return what a process says of itself that imports and makes what the code does."""
    done = run(code, **variables)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def outcome(told, hook):
    """Return the one note on that hook, without the framework's version."""
    (note,) = [note for note in told["notes"] if note.startswith(f"{hook} ")]
    return note.partition(": ")[2]


@pytest.mark.parametrize(
    "framework", ["starlette.middleware.sessions", "fastapi", "flask", "quart", "litestar", "django"]
)
def test_importing_a_framework_starts_nothing(framework):
    """Shells, migrations and type checkers import applications' modules: Trio would cost them a quarter second."""
    pytest.importorskip(framework)
    told = told_by(f"import {framework}, threading; told(threads=threading.active_count())")
    assert (told["trio"], told["threads"]) == (False, 1)


def test_starlettes_middleware_is_ours_under_its_own_name():
    """FastAPI's is the same one."""
    told = told_by("""
        from starlette.middleware.sessions import SessionMiddleware
        told(taken=SessionMiddleware.__module__)
    """)
    assert told["taken"] == "gossipsess.web.starlette"
    assert outcome(told, "starlette") == "SessionMiddleware is replicated"


@pytest.mark.parametrize("framework", ["flask", "quart"])
def test_an_application_of_flasks_kind_gets_our_sessions_when_it_is_made(framework):
    """Before its own code goes on: routes and hooks come later, as with the adapter's own line."""
    pytest.importorskip(framework)
    told = told_by(f"""
        import {framework}
        adapter = "gossipsess.web.{framework}"
        before = adapter in sys.modules
        app = {framework}.{framework.title()}("shop")
        told(before=before, taken=type(app.session_interface).__module__, adapter=adapter)
    """)
    assert told["before"] is False, "the adapter is imported for an application, and not for an import"
    assert told["taken"] == told["adapter"]
    assert outcome(told, framework) == FLASKS


def test_an_application_that_brings_its_own_sessions_keeps_them_and_that_is_told():
    """It was chosen; to replace it in silence would lose what is in it, and to leave it in silence puzzles."""
    told = told_by("""
        from flask import Flask
        from flask.sessions import SecureCookieSessionInterface
        class Own(SecureCookieSessionInterface): pass
        class Shop(Flask): session_interface = Own()
        class Early(Flask):
            def __init__(self, *args):
                self.session_interface = Own()
                super().__init__(*args)
        late = Flask("late")
        late.session_interface = Own()
        apps = [Shop("shop"), Early("early"), late]
        told(taken=[type(app.session_interface).__name__ for app in apps])
    """)
    assert told["taken"] == ["Own"] * 3
    for name in ("shop", "early", "late"):
        note = f"left alone: application {name!r} brings its own session interface, Own"
        assert [one for one in told["notes"] if one == note], told["notes"]


def test_an_application_that_uses_the_adapter_itself_is_not_given_a_second_one():
    """With settings of its own it would start a second node, and its first sessions go nowhere."""
    told = told_by("""
        from flask import Flask
        from gossipsess.web.flask import GossipSessions
        app = Flask("shop")
        stock = type(app.session_interface).__module__
        GossipSessions(app)
        told(stock=stock, taken=type(app.session_interface).__module__)
    """)
    assert (told["stock"], told["taken"]) == ("flask.sessions", "gossipsess.web.flask")
    assert "application 'shop' uses gossipsess.web.flask itself" in told["notes"]


@pytest.mark.parametrize(("value", "taken"), [("1", "flask_session"), ("1,flask_session", "gossipsess")])
def test_flask_session_gives_way_only_where_it_is_named(value, taken):
    """What it has in Redis stays there: somebody has to say that this is wanted."""
    pytest.importorskip("flask_session")
    told = told_by(
        """
        from flask import Flask
        from flask_session import Session
        import cachelib
        app = Flask("shop")
        app.config |= {"SESSION_TYPE": "cachelib", "SESSION_CACHELIB": cachelib.SimpleCache()}
        Session(app)
        told(taken=type(app.session_interface).__module__.partition(".")[0])
        """,
        AUTO=value,
    )
    assert told["taken"] == taken


@pytest.mark.parametrize("auth", [False, True])
def test_litestars_configs_are_ours_and_take_what_theirs_take(auth):
    """Also where Litestar's own authentication imports them first."""
    pytest.importorskip("litestar")
    told = told_by(f"""
        if {auth}:
            from litestar.security.session_auth import SessionAuth
        from litestar import Litestar
        from litestar.middleware.session.client_side import CookieBackendConfig
        from litestar.middleware.session.server_side import ServerSideSessionConfig
        cookies, stored = CookieBackendConfig(b"s" * 16, "sid", max_age=7), ServerSideSessionConfig(key="sid")
        app = Litestar([], middleware=[cookies.middleware])
        told(key=[cookies.key, stored.key], max_age=cookies.max_age, secret=len(cookies.secret),
             taken=cookies.middleware.middleware.__module__, lifespans=len(app._lifespan_managers))
    """)
    assert (told["key"], told["max_age"], told["secret"]) == (["sid", "sid"], 7, 16)
    assert told["taken"] == "gossipsess.web.litestar"
    assert told["lifespans"] == 2, "the node starts before anything is served"


def test_litestars_cookie_config_refuses_what_it_always_has():
    """A secret of the wrong length is found when it is written, and not once zero code is off again."""
    pytest.importorskip("litestar")
    done = run("""
        from litestar.middleware.session.client_side import CookieBackendConfig
        CookieBackendConfig(secret=b"short")
    """)
    assert "secret length must be 16" in done.stderr


def test_an_application_that_uses_litestars_adapter_itself_is_left_as_it_is():
    """The hook fires in the middle of that adapter's own import, and must not ask for it again."""
    pytest.importorskip("litestar")
    told = told_by("""
        from gossipsess.web.litestar import GossipSessionConfig
        from litestar.middleware.session.server_side import ServerSideSessionConfig
        told(stock=ServerSideSessionConfig.__module__, below=issubclass(GossipSessionConfig, ServerSideSessionConfig))
    """)
    assert (told["stock"], told["below"]) == ("litestar.middleware.session.server_side", True)
    assert outcome(told, "litestar") == "the application uses gossipsess.web.litestar itself"


DJANGO = """
    from django.conf import settings
    {how}
    adopt = getattr(settings, "GOSSIPSESS_ADOPT", None)
    told(engine=settings.SESSION_ENGINE, middleware=list(settings.MIDDLEWARE), adopt=adopt)
"""
STOCK_MIDDLEWARE = "django.contrib.sessions.middleware.SessionMiddleware"
OUR_MIDDLEWARE = "gossipsess.web.django.SessionMiddleware"
BY_HAND = "settings.configure(SESSION_ENGINE={engine!r}, MIDDLEWARE=['other.First', {middleware!r}])"
IN_A_MODULE = """import types
    shop = sys.modules["shop_settings"] = types.ModuleType("shop_settings")
    shop.SESSION_ENGINE, shop.MIDDLEWARE, shop.SECRET_KEY = {engine!r}, ("other.First", {middleware!r}), "x"
    os.environ["DJANGO_SETTINGS_MODULE"] = "shop_settings"
"""


@pytest.mark.parametrize("how", [BY_HAND, IN_A_MODULE])
@pytest.mark.parametrize("engine", ["db", "signed_cookies"])
def test_djangos_settings_name_our_engine_in_place_of_its_own(how, engine):
    """However they are made; the former engine is named too, so that who is logged in there stays so."""
    pytest.importorskip("django")
    stock = f"django.contrib.sessions.backends.{engine}"
    told = told_by(DJANGO.format(how=how.format(engine=stock, middleware=STOCK_MIDDLEWARE)))
    assert told["engine"] == "gossipsess.web.django"
    assert told["middleware"] == ["other.First", OUR_MIDDLEWARE]
    assert told["adopt"] == stock
    assert f"SESSION_ENGINE is gossipsess.web.django in place of {stock}" in told["notes"]


@pytest.mark.parametrize("engine", ["redis_sessions.session", "gossipsess.web.django"])
def test_an_engine_that_is_not_djangos_own_is_left_alone(engine):
    """A project that chose one has its reasons, and one that names ours has all of it in its settings."""
    pytest.importorskip("django")
    told = told_by(DJANGO.format(how=BY_HAND.format(engine=engine, middleware=STOCK_MIDDLEWARE)))
    assert (told["engine"], told["middleware"][1], told["adopt"]) == (engine, STOCK_MIDDLEWARE, None)
    assert any(engine in note for note in told["notes"])


NEWER = """
    from gossipsess.auto.hooks import HOOKS
    for hook in HOOKS:
        hook.below = (0, 1)
    from starlette.middleware.sessions import SessionMiddleware
    told(taken=SessionMiddleware.__module__)
"""


def test_a_version_that_was_never_tried_is_left_alone_and_that_is_told():
    """What a hook replaces may have moved: a half-patched framework is worse than one that is not replicated."""
    done = run(NEWER)
    told = json.loads(done.stdout)
    assert told["taken"] == "starlette.middleware.sessions"
    (note,) = [note for note in told["notes"] if note.startswith("left alone: starlette: version ")]
    assert note.endswith("is not among those that were tried, >=0.40,<0.1")
    assert note in done.stderr, "a warning, where logging is not set up"


def test_where_nothing_may_be_left_alone_the_import_fails():
    """Who wants replication or nothing finds out at the start, and not by logged-out users."""
    done = run(NEWER, AUTO_STRICT="1")
    assert done.returncode == 1
    assert "GossipsessError: left alone: starlette: version " in done.stderr.splitlines()[-1]


def test_an_application_that_gets_over_a_failed_import_is_refused_the_next_one_too():
    """`except Exception` around an optional framework is common; the second import must not bring what is stock."""
    done = run(
        """
        import contextlib
        from gossipsess.auto.hooks import HOOKS
        for hook in HOOKS:
            hook.below = (0, 1)
        with contextlib.suppress(Exception):
            import starlette.middleware.sessions
        import starlette.middleware.sessions
        """,
        AUTO_STRICT="1",
    )
    assert done.returncode == 1
    assert "GossipsessError: left alone: starlette: version " in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("framework", "brings"),
    [
        ("flask", "import flask; flask.Flask('shop').session_interface = object()"),
        ("flask", "import flask; type('Shop', (flask.Flask,), {'session_interface': object()})('shop')"),
        ("django", "from django.conf import settings; settings.configure(SESSION_ENGINE='theirs')"),
    ],
    ids=["interface", "class", "engine"],
)
def test_where_nothing_may_be_left_alone_an_application_with_its_own_sessions_does_not_start(framework, brings):
    """It would serve unreplicated, which is what that switch is to rule out."""
    pytest.importorskip(framework)
    assert run(brings).returncode == 0
    done = run(brings, AUTO_STRICT="1")
    assert done.returncode == 1
    assert "GossipsessError: left alone: " in done.stderr.splitlines()[-1]


def test_only_the_frameworks_that_are_named_are_touched():
    """A process may have several, of which one is to keep its own."""
    told = told_by("import flask, starlette.middleware.sessions; told()", AUTO="fastapi")
    assert [note.partition(" ")[0] for note in told["notes"]] == ["GOSSIPSESS_AUTO=fastapi", "starlette"]


def test_an_import_by_hand_does_the_same_and_tells_what_it_came_too_late_for():
    """For who controls neither command nor environment; what others have taken before cannot be taken back."""
    code = """
        import flask
        from starlette.middleware.sessions import SessionMiddleware as taken_before
        import gossipsess.auto
        from starlette.middleware.sessions import SessionMiddleware
        told(before=taken_before.__module__, taken=SessionMiddleware.__module__,
             flask=type(flask.Flask("shop").session_interface).__module__)
    """
    told = told_by(code, AUTO=None)
    assert told["notes"][0] == "import gossipsess.auto"
    assert (told["before"], told["taken"]) == ("starlette.middleware.sessions", "gossipsess.web.starlette")
    assert told["flask"] == "gossipsess.web.flask"
    late = "left alone: what was made of {} before gossipsess.auto was imported"
    assert {late.format("flask"), late.format("starlette.middleware.sessions")} <= set(told["notes"])


def test_an_import_by_hand_heeds_the_switch():
    """Off is off, wherever zero code comes from."""
    told = told_by("import gossipsess.auto, flask; told()", AUTO="off")
    assert told["notes"] == []


def test_notes_are_bounded_and_each_is_told_once():
    """A test suite makes thousands of applications in one process, and a node's answer carries the notes."""
    told = told_by("""
        from flask import Flask
        from flask.sessions import SecureCookieSessionInterface
        for number in range(100):
            for _ in range(2):
                Flask(f"shop{number}").session_interface = SecureCookieSessionInterface()
        told()
    """)
    assert len(told["notes"]) == NOTES_MAX
    assert len(set(told["notes"])) == len(told["notes"])
