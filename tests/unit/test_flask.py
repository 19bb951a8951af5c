"""Flask's session, held by a real node without network; the application stays as it is."""

from datetime import timedelta

import pytest
from flask import Flask, Response, session
from flask.sessions import SessionMixin
from quart import Quart

from gossipsess.config import Config
from gossipsess.errors import UnreplicableValue
from gossipsess.service import lone_node
from gossipsess.web.flask import GossipSessions
from tests.unit.web_support import UNKNOWN_ID, TestUser, fill, node_that_misses_a_peer, set_cookies


def app_of(node, **config):
    app = Flask("shop")
    app.config.update(TESTING=True, **config)
    GossipSessions(app, node=node)

    @app.get("/append")
    def append():
        session.setdefault("cart", []).append("book")
        return str(len(session["cart"]))

    @app.get("/permanent")
    def permanent():
        session.permanent = True
        session["a"] = 1
        return ""

    @app.get("/put/<key>")
    def put(key):
        session[key] = 1
        session.modified = True
        return ""

    @app.get("/rotate")
    def rotate():
        session.rotate()
        return ""

    @app.get("/pop/<key>")
    def pop(key):
        session.pop(key, None)
        return str(session.modified)

    @app.get("/clear")
    def clear():
        session.clear()
        return ""

    @app.get("/view")
    def view():
        return dict(session)

    @app.get("/untouched")
    def untouched():
        return ""

    @app.get("/bad")
    def bad():
        session["good"] = "kept"
        try:
            session["user"] = {"profile": TestUser()}
        except UnreplicableValue as error:
            return str(error)
        return "accepted"

    @app.get("/crash")
    def crash():
        session["cart"].append(TestUser())
        return ""

    return app


def test_what_one_request_wrote_the_next_one_reads(node):
    """The change inside the list is one that Flask's own session loses without ``session.modified = True``."""
    client = app_of(node).test_client()
    assert [client.get("/append").text for _ in range(3)] == ["1", "2", "3"]
    assert client.get("/view").json == {"cart": ["book"] * 3}


def test_another_application_object_over_the_same_node_reads_it_too(node):
    one, other = app_of(node).test_client(), app_of(node).test_client()
    one.get("/append")
    other.set_cookie("session", one.get_cookie("session").value)
    assert other.get("/append").text == "2"


def test_the_session_is_flasks_and_ours(node):
    with app_of(node).test_request_context():
        assert isinstance(session, SessionMixin)
        assert session.new
        assert not session.permanent
        assert not session.modified
        session["a"] = 1
        assert session.modified
        session.modified = False
        assert session.modified, "what was changed is stored whatever the application says"


def test_the_id_is_set_once_and_the_token_by_every_response_that_wrote(node):
    """A slow response that set the id again could put back an id that a login has retired meanwhile."""
    client = app_of(node).test_client()
    assert set(set_cookies(client.get("/append"))) == {"session", "session-v"}
    assert set(set_cookies(client.get("/append"))) == {"session-v"}
    assert set_cookies(client.get("/view")) == {}


def test_nothing_written_means_nothing_stored_and_no_cookie(node):
    client = app_of(node).test_client()
    for path in ("/view", "/untouched", "/clear", "/pop/a"):
        assert set_cookies(client.get(path)) == {}
    assert not node.node.records


def test_how_long_a_session_is_to_live_begins_none(node):
    """Many applications say so before every request: each robot and each health check would have a session."""
    app = app_of(node)

    @app.before_request
    def all_are_permanent():
        session.permanent = True

    client = app.test_client()
    assert set_cookies(client.get("/view")) == {}
    assert not node.node.records
    assert "Expires=" in set_cookies(client.get("/append"))["session"]
    (record,) = node.node.records.values()
    assert "_permanent" in record.entries
    assert client.get("/append").text == "2", "and whoever has one keeps it"


def test_an_application_of_quarts_is_refused():
    """Taken, each of its requests would fail."""
    with pytest.raises(TypeError, match=r"gossipsess\.web\.quart"):
        GossipSessions(Quart("shop"))


def test_flask_sessions_way_to_a_new_id_is_kept(node):
    """Its applications call this at a login; without it that page would be an error."""
    app = app_of(node)

    @app.get("/regenerate")
    def regenerate():
        app.session_interface.regenerate(session)
        return ""

    client = app.test_client()
    client.get("/append")
    client.get("/put/rotate")  # an application's keys come before names of ours
    known = client.get_cookie("session").value
    client.get("/regenerate")
    assert client.get_cookie("session").value != known
    assert node.store.load(known) is None
    assert client.get("/append").text == "2"


def test_caches_are_told_where_the_session_was_used(node):
    """A page without Vary may be shown to another user; one with it for nothing cannot be cached."""
    client = app_of(node).test_client()
    wrote = client.get("/append")
    assert (wrote.headers["Vary"], wrote.headers["Cache-Control"]) == ("Cookie", "private")
    assert client.get("/view").headers["Vary"] == "Cookie"
    assert "Vary" not in client.get("/untouched").headers
    assert "Cache-Control" not in client.get("/view").headers


@pytest.mark.parametrize("path", ["/put/_user_id", "/rotate"])
def test_a_login_moves_the_session_to_a_new_id(node, path):
    """Who has made a visitor use an id that they know would be logged in together with the visitor."""
    client = app_of(node).test_client()
    client.get("/append")
    known = client.get_cookie("session").value
    answer = client.get(path)
    assert set(set_cookies(answer)) == {"session", "session-v"}
    assert answer.headers["Vary"] == "Cookie"
    assert client.get_cookie("session").value != known
    assert client.get("/append").text == "2"
    assert node.store.load(known) is None
    client.get("/put/_user_id")
    assert set_cookies(client.get("/put/_user_id")) == {}, "the same user again is no login"


def test_a_request_on_the_old_id_that_ends_after_the_login_gets_no_cookies(node):
    """Its cookies would put the dead id back into the browser, and end the login."""
    app = app_of(node)
    client, late = app.test_client(), app.test_client()

    @app.get("/slow/<key>")
    def slow(key):
        client.get("/put/user_id")
        session[key] = 2
        return ""

    client.get("/append")
    late.set_cookie("session", client.get_cookie("session").value)
    assert set_cookies(late.get("/slow/user_id")) == {}
    assert client.get("/view").json == {"cart": ["book"], "user_id": 1}


def test_deleting_every_key_ends_the_session_and_removes_both_cookies(node):
    """This is how applications log out; the id must be dead everywhere, not only in this browser."""
    client = app_of(node).test_client()
    client.get("/append")
    stolen = client.get_cookie("session").value
    assert set(set_cookies(client.get("/clear"))) == {"session", "session-v"}
    assert client.get_cookie("session") is None
    assert client.get_cookie("session-v") is None
    assert node.store.load(stolen) is None


@pytest.mark.parametrize("cookie", [UNKNOWN_ID, "garbage", "x" * 4000, "é" * 32])
def test_an_id_that_we_did_not_make_is_never_adopted(node, cookie):
    """An attacker who chooses the victim's id would share the victim's login."""
    client = app_of(node).test_client()
    client.set_cookie("session", cookie)
    client.get("/append")
    assert client.get_cookie("session").value != cookie
    assert node.store.load(cookie) is None


def test_the_cookies_have_flasks_settings(node):
    app = app_of(
        node,
        SESSION_COOKIE_NAME="sid",
        SESSION_COOKIE_DOMAIN="localhost",
        SESSION_COOKIE_PATH="/",
        SESSION_COOKIE_SECURE=True,
        SESSION_COOKIE_HTTPONLY=False,
        SESSION_COOKIE_SAMESITE="Strict",
        SESSION_COOKIE_PARTITIONED=True,
    )
    lines = set_cookies(app.test_client().get("/append", base_url="https://localhost"))
    assert set(lines) == {"sid", "sid-v"}
    for line in lines.values():
        attributes = {part.strip() for part in line.split(";")[1:]}
        assert attributes == {"Domain=localhost", "Path=/", "Secure", "SameSite=Strict", "Partitioned"}


def test_a_session_that_becomes_permanent_gets_its_cookie_anew_with_an_expiry_date(node):
    """Otherwise it would still end when the browser closes."""
    client = app_of(node).test_client()
    assert "Expires" not in set_cookies(client.get("/append"))["session"]
    lines = set_cookies(client.get("/permanent"))
    assert all("Expires" in lines[name] for name in ("session", "session-v"))
    assert client.get("/view").json["_permanent"] is True
    assert set_cookies(client.get("/permanent")) == {}


@pytest.mark.parametrize(
    ("lifetime_s", "refresh", "of_read", "of_write"),
    [
        (390, True, {"session"}, {"session", "session-v"}),
        (390, False, set(), {"session", "session-v"}),
        (410, True, set(), {"session-v"}),
    ],
)
def test_the_cookie_of_a_permanent_session_is_renewed_after_a_quarter_of_its_life(
    node, lifetime_s, refresh, of_read, of_write
):
    """PERMANENT_SESSION_LIFETIME counts from the last request in Flask; a user who is active stays logged in."""
    node.node.replica.sessions.clock.offset_ms -= 100_000  # what is created now is 100 seconds old
    app = app_of(node, PERMANENT_SESSION_LIFETIME=timedelta(seconds=lifetime_s), SESSION_REFRESH_EACH_REQUEST=refresh)
    client = app.test_client()
    client.get("/permanent")
    assert set(set_cookies(client.get("/untouched"))) == of_read
    assert set(set_cookies(client.get("/append"))) == of_write


@pytest.mark.parametrize("path", ["/append", "/permanent"])
@pytest.mark.parametrize(
    ("lifetime", "timeouts", "lives", "is_over"),
    [
        (None, {}, timedelta(days=30), timedelta(days=32)),
        (timedelta(hours=2), {}, timedelta(minutes=119), timedelta(minutes=122)),
        (None, {"idle_timeout_s": 3600}, timedelta(minutes=59), timedelta(minutes=62)),
        (timedelta(hours=2), {"idle_timeout_s": 36000}, timedelta(minutes=119), timedelta(minutes=122)),
        (timedelta(days=365_000), {}, timedelta(days=10_000), timedelta(days=12_000)),
        (None, {"absolute_timeout_s": 3600}, timedelta(minutes=59), timedelta(minutes=61)),
    ],
)
def test_a_session_lives_as_long_as_flasks_own_unless_the_settings_say_otherwise(
    path, lifetime, timeouts, lives, is_over
):
    """Flask takes its cookie for PERMANENT_SESSION_LIFETIME since it was set, whether the session is permanent or not.

    Also where the application says so after the extension was there.
    """
    for after, there in ((lives, True), (is_over, False)):
        node = lone_node(Config(**timeouts))
        app = app_of(node)
        app.permanent_session_lifetime = lifetime or app.permanent_session_lifetime
        client = app.test_client()
        client.get(path)
        cookie = client.get_cookie("session").value
        node.node.replica.sessions.clock.offset_ms += after // timedelta(milliseconds=1)
        later = app.test_client()
        later.set_cookie("session", cookie)
        assert bool(later.get("/view").json) is there


def test_a_request_that_only_reads_writes_no_lifetime(node):
    """It is a part of the session that does not change."""
    client = app_of(node).test_client()
    client.get("/append")
    [record] = node.node.records.values()
    client.get("/view")
    assert list(node.node.records.values()) == [record]


def test_a_session_that_was_ended_meanwhile_stays_ended(node):
    """A slow request must not log the user in again, and must not put the dead id back into the browser."""
    node.node.replica.sessions.clock.offset_ms -= 100_000
    app = app_of(node, PERMANENT_SESSION_LIFETIME=timedelta(seconds=200))

    @app.get("/slow/<path:change>")
    def slow(change):
        node.store.invalidate(node.store.load(client.get_cookie("session").value))
        if change == "write":
            session["late"] = True
        return ""

    for change in ("write", "read"):
        client = app.test_client()
        client.get("/permanent")
        cookie = client.get_cookie("session").value
        assert set_cookies(client.get(f"/slow/{change}")) == {}
        assert node.store.load(cookie) is None


def test_flasks_test_client_can_prepare_and_inspect_a_session(node):
    client = app_of(node).test_client()
    with client.session_transaction() as prepared:
        prepared["cart"] = ["pen"]
    assert client.get("/append").text == "2"
    with client.session_transaction() as left:
        assert left["cart"] == ["pen", "book"]


def test_a_value_that_cannot_travel_is_refused_where_it_is_assigned_and_the_rest_is_kept(node):
    """Found in the request that made it, and by name; not in production when the second replica is added."""
    client = app_of(node).test_client()
    refusal = client.get("/bad").text
    assert "session['user']" in refusal
    assert "TestUser" in refusal
    assert client.get("/view").json == {"good": "kept"}


def test_a_value_that_cannot_travel_inside_a_list_fails_its_request_and_changes_nothing(node, caplog):
    """Flask saves again with the error's page: a second error there would take the page's place, and be logged too."""
    app = app_of(node, PROPAGATE_EXCEPTIONS=False)
    app.register_error_handler(500, lambda error: (f"sorry, {session['cart'][0]}", 500))
    client = app.test_client()
    client.get("/append")
    response = client.get("/crash")
    assert (response.status_code, response.text) == (500, "sorry, book")
    assert response.headers["Vary"] == "Cookie"
    assert [record.message for record in caplog.records] == ["Exception on /crash [GET]"]
    assert client.get("/view").json == {"cart": ["book"]}


def test_a_write_that_nobody_confirms_in_time_counts_all_the_same():
    with node_that_misses_a_peer() as node:
        client = app_of(node).test_client()
        assert set(set_cookies(client.get("/append"))) == {"session", "session-v"}
        assert client.get("/append").text == "2"


def test_a_session_that_cannot_be_stored_for_lack_of_memory_makes_the_answer_503():
    """The page of a successful login, and no login: the visitor would be sent in circles. Others stay logged in.

    Nothing of the view's own answer goes out: no redirect, no cookie, no cached page. What it opened is closed.
    """
    node = lone_node(Config(memory_limit_mb=1))
    app = app_of(node)
    closed = []

    class Page:
        def __iter__(self):
            yield b"Welcome"

        def close(self):
            closed.append(True)

    @app.get("/login")
    def login():
        session["user_id"] = 42
        response = Response(Page(), 302, {"Location": "/welcome", "ETag": "1"}, direct_passthrough=True)
        response.set_cookie("seen", "1")
        return response

    known = app.test_client()
    known.get("/append")
    fill(node)
    answer = app.test_client().get("/login", buffered=True)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"
    assert "try again" in answer.text
    assert "Welcome" not in answer.text
    assert set_cookies(answer) == {}
    assert "Location" not in answer.headers
    assert "ETag" not in answer.headers
    assert closed
    assert set(set_cookies(known.get("/login"))) == {"seen", "session", "session-v"}
    assert known.get("/append").text == "2"


def test_one_extension_object_serves_several_applications(node):
    sessions = GossipSessions(node=node)
    for name in ("one", "two"):
        app = Flask(name)
        sessions.init_app(app)
        app.add_url_rule("/", view_func=lambda: session.update(a=1) or "")
        assert set(set_cookies(app.test_client().get("/"))) == {"session", "session-v"}
