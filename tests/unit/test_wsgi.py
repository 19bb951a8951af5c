"""The session of a WSGI request, over a real node without network: when it is stored, and what a server still sees."""

import os
import subprocess
import sys
from contextlib import suppress
from wsgiref.util import FileWrapper
from wsgiref.validate import validator

import pytest
from werkzeug.test import Client, EnvironBuilder, run_wsgi_app

from gossipsess.config import Config
from gossipsess.errors import ConfigError, SessionUnavailable, UnreplicableValue
from gossipsess.service import lone_node
from gossipsess.web.wsgi import SessionMiddleware, revoke
from tests.unit.web_support import (
    UNKNOWN_ID,
    TestUser,
    fill,
    node_flooded_with_fetches,
    node_that_misses_a_peer,
    set_cookies,
)

ID, TOKEN = "__Host-gsid", "__Host-gsid-v"
SORRY = "The session is not available right now. Please try again.\n"


def put(environ, key="a"):
    environ["gossipsess.session"][key] = 1


def listing(environ, start_response):
    put(environ)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"page"]


def late(environ, start_response):
    """Changes the session after start_response, and before it returns."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    put(environ)
    return [b"page"]


def generating(environ, start_response):
    """Runs only when its first piece is asked for."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    put(environ)
    yield b"pa"
    yield b"ge"


def empty(environ, start_response):
    put(environ)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "0")])
    return
    yield


def writing(environ, start_response):
    """Sends in the way of old applications."""
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    put(environ)
    write(b"p")
    write(b"a")
    return [b"ge"]


def client_of(app, node, **settings):
    return Client(validator(SessionMiddleware(validator(app), node=node, **settings)))


def raw(app, cookie=None):
    """Call the application as a server does; return (body pieces, status, headers)."""
    builder = EnvironBuilder(headers={"Cookie": cookie} if cookie else None)
    return run_wsgi_app(app, builder.get_environ(), buffered=True)


def get(client):
    response = client.get("/", base_url="https://localhost")  # buffered it would lose what is written
    response.get_data()
    response.close()
    return response


# --- when it is stored --------------------------------------------------------------------------------------


@pytest.mark.parametrize("app", [listing, late, generating, writing], ids=lambda app: app.__name__)
@pytest.mark.filterwarnings("ignore:Unknown REQUEST_METHOD")
def test_the_session_is_stored_before_the_headers_leave_however_the_body_comes(node, app):
    """Both sides see what PEP 3333 says: the validator stands before and behind the middleware."""
    client = client_of(app, node)
    response = get(client)
    assert response.text == "page"
    assert set(set_cookies(response)) == {ID, TOKEN}
    assert dict(node.store.load(client.get_cookie(ID, domain="localhost").value)) == {"a": 1}
    assert set_cookies(get(client)) == {}, "the same value again"


def test_a_generator_that_yields_nothing_has_its_session_stored(node):
    response = get(Client(SessionMiddleware(empty, node=node)))
    assert (response.status_code, response.text) == (200, "")
    assert set(set_cookies(response)) == {ID, TOKEN}


def test_what_is_changed_after_the_headers_have_left_is_not_stored(node):
    """No cookie could tell the client of it."""

    def app(environ, start_response):
        start_response("200 OK", [])
        yield b"page"
        put(environ)

    assert set_cookies(get(Client(SessionMiddleware(app, node=node)))) == {}
    assert not node.node.records


def test_the_body_goes_to_the_server_untouched(node):
    """Servers send a list of one piece with its length, and a file by the kernel: they ask what it is."""
    bodies = [[b"page"], FileWrapper(open(os.devnull, "rb"))]  # noqa: SIM115  # closed by whoever sends it
    for body in bodies:

        def app(environ, start_response, body=body):
            put(environ)
            start_response("200 OK", [])
            return body

        assert SessionMiddleware(app, node=node)({}, lambda *answer: None) is body
    bodies[1].close()


@pytest.mark.parametrize("lazy", [True, False])
def test_a_body_is_closed_as_the_server_closes_ours(node, lazy):
    closed = []

    class Body:
        def __init__(self, begin):
            self.begin = begin

        def __iter__(self):
            self.begin()
            return iter([b"page"])

        def close(self):
            closed.append(True)

    def app(environ, start_response):
        def begin():
            start_response("200 OK", [])

        if not lazy:
            begin()
        return Body(begin if lazy else lambda: None)

    body = SessionMiddleware(app, node=node)({}, lambda *answer: None)
    assert list(body) == [b"page"]
    body.close()
    assert closed == [True]


def test_a_write_that_nobody_confirms_in_time_counts_all_the_same():
    with node_that_misses_a_peer() as node:
        assert set(set_cookies(get(client_of(listing, node)))) == {ID, TOKEN}


# --- what the response says ---------------------------------------------------------------------------------


def test_the_cookies_are_those_of_new_applications(node):
    for line in set_cookies(get(client_of(listing, node))).values():
        attributes = {part.strip() for part in line.split(";")[1:]}
        assert attributes == {"path=/", "httponly", "samesite=lax", "secure"}


@pytest.mark.parametrize(
    ("own", "vary", "cache"),
    [
        ([], ["Cookie"], ["private"]),
        ([("Vary", "Accept")], ["Accept", "Cookie"], ["private"]),
        ([("vary", "Accept, cookie"), ("cache-control", "no-store")], ["Accept, cookie"], ["no-store"]),
        ([("Vary", "*")], ["*"], ["private"]),
    ],
)
def test_what_the_application_says_to_caches_stays(node, own, vary, cache):
    def app(environ, start_response):
        put(environ)
        start_response("200 OK", own)
        return [b""]

    _, _, headers = raw(SessionMiddleware(app, node=node))
    assert headers.getlist("Vary") == vary
    assert headers.getlist("Cache-Control") == cache


def test_an_answer_that_replaces_another_has_the_cookies_too(node):
    """The session is stored by then; without its cookie the client would lose it."""

    def failing():
        raise RuntimeError("the body cannot be made")
        yield

    def app(environ, start_response):
        put(environ)
        start_response("200 OK", [("X-Page", "1")])
        return failing()

    inner = SessionMiddleware(app, node=node)
    answers = []

    def start_response(status, headers, exc_info=None):
        answers.append((status, headers, exc_info))
        return lambda data: None

    replaced = {}

    def catching(environ, start_response):
        return app(environ, replaced.setdefault("start_response", start_response))

    inner.app = catching
    with suppress(RuntimeError):
        list(inner({}, start_response))
    replaced["start_response"]("500 Oops", [], (RuntimeError, RuntimeError(), None))
    [(_, first, _), (status, second, exc_info)] = answers
    assert (status, exc_info[0]) == ("500 Oops", RuntimeError)
    assert [line for line in second if line[0] == "Set-Cookie"] == [line for line in first if line[0] == "Set-Cookie"]
    assert ("X-Page", "1") not in second


def test_an_answer_is_begun_once(node):
    def app(environ, start_response):
        start_response("200 OK", [])
        start_response("404 Not Found", [])
        return []

    with pytest.raises(AssertionError, match="exc_info"):
        raw(SessionMiddleware(app, node=node))


def test_an_application_that_never_begins_its_answer_is_told_so(node):
    with pytest.raises(AssertionError, match="start_response"):
        raw(SessionMiddleware(lambda environ, start_response: iter([b"page"]), node=node))


# --- where something is missing -----------------------------------------------------------------------------


@pytest.mark.parametrize("app", [listing, late, generating, empty, writing], ids=lambda app: app.__name__)
def test_there_is_no_room_however_the_body_comes(app):
    """Nothing of the page goes out, which would say that a login succeeded."""
    full = lone_node(Config(memory_limit_mb=1))
    fill(full)
    response = get(client_of(app, full))
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert response.text == SORRY
    assert set_cookies(response) == {}


@pytest.mark.parametrize("app", [listing, late, generating, empty, writing], ids=lambda app: app.__name__)
def test_a_change_of_a_stand_in_makes_the_answer_503_however_the_body_comes(app):
    with node_flooded_with_fetches() as node:
        middleware = SessionMiddleware(app, node=node, on_unavailable="empty")
        body, status, headers = raw(middleware, f"{ID}={UNKNOWN_ID}")
    assert (status, headers["Retry-After"]) == ("503 Service Unavailable", "1")
    assert b"".join(body).decode() == SORRY


def yielding_first(environ, start_response):
    start_response("200 OK", [])
    yield b"page"
    put(environ)


def writing_first(environ, start_response):
    start_response("200 OK", [])(b"page")
    put(environ)
    return []


@pytest.mark.parametrize("app", [yielding_first, writing_first], ids=lambda app: app.__name__)
def test_a_change_of_a_stand_in_after_the_headers_reaches_the_server(app):
    """It is too late for another answer, and must not pass for success."""
    with node_flooded_with_fetches() as node:
        middleware = SessionMiddleware(app, node=node, on_unavailable="empty")
        with pytest.raises(SessionUnavailable):
            raw(middleware, f"{ID}={UNKNOWN_ID}")


def test_a_body_whose_session_cannot_be_stored_is_closed(node):
    """It may hold a file, or a connection."""
    closed = []

    class Body(list):
        def close(self):
            closed.append(True)

    def app(environ, start_response):
        environ["gossipsess.session"]["cart"] = []
        environ["gossipsess.session"]["cart"].append(TestUser())
        start_response("200 OK", [])
        return Body([b"page"])

    with pytest.raises(UnreplicableValue):
        raw(SessionMiddleware(app, node=node))
    assert closed == [True]


def test_a_request_that_did_not_come_through_the_middleware_is_told_so():
    """A forgotten line of configuration should say its name."""
    with pytest.raises(RuntimeError, match="SessionMiddleware"):
        revoke({}, 42)


@pytest.mark.parametrize("settings", [{"cookie_name": "__Host-a", "path": "/shop"}, {"on_unavailable": "maybe"}])
def test_settings_that_cannot_work_are_refused(node, settings):
    with pytest.raises(ConfigError):
        SessionMiddleware(listing, node=node, **settings)


def test_the_node_starts_with_the_application():
    """A replica that nobody has asked yet may be the only one left when its first request comes."""
    script = """
import threading
from gossipsess.config import Config
from gossipsess.web.wsgi import SessionMiddleware
SessionMiddleware(lambda environ, start_response: [], config=Config(discovery="none", port=0))
print(sum(thread.name == "gossipsess" for thread in threading.enumerate()))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.split() == ["1"]
