"""Django's sessions, held by a real node without network; the application stays as it is."""

import asyncio
import datetime
import os
import subprocess
import sys
import threading

import pytest
from django.contrib.sessions.backends.base import CreateError, UpdateError
from django.contrib.sessions.middleware import SessionMiddleware as DjangosMiddleware
from django.http import HttpResponse
from django.test import AsyncClient, Client, RequestFactory, override_settings
from django.utils import timezone
from django.utils.module_loading import import_string

from gossipsess.config import Config
from gossipsess.errors import SessionUnavailable, UnreplicableValue
from gossipsess.model.identity import is_session_id, sid_of
from gossipsess.model.record import ABSOLUTE, REGISTERS
from gossipsess.model.table import register
from gossipsess.service import lone_node
from gossipsess.web.django_sessions import sessions
from tests.unit import django_project
from tests.unit.django_project import clocked, engine, live, served_by
from tests.unit.web_support import UNKNOWN_ID, HeldBackNode, TestUser, fill, node_that_misses_a_peer

WEEK_S, DAY_S = 7 * 24 * 3600, 24 * 3600
ENGINE_ALONE = override_settings(MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"])


@pytest.fixture(autouse=True)
def node():
    """A node of the test's own."""
    with served_by(lone_node()) as service:
        yield service


def stored(**values):
    session = engine.SessionStore()
    session.update(values)
    session.save()
    return session


def key_of(client):
    return client.cookies["sessionid"].value


def names(response):
    return {name for name, morsel in response.cookies.items() if morsel.value}


# --- what Django's own engines do too -----------------------------------------------------------------------


@pytest.mark.parametrize("middleware", [django_project.settings.MIDDLEWARE, ENGINE_ALONE.options["MIDDLEWARE"]])
def test_a_change_inside_a_value_is_kept(middleware):
    """With Django's own engines it is lost in silence, unless the view says `modified`."""
    with override_settings(MIDDLEWARE=middleware):
        client = Client()
        assert client.get("/append").content == b"1"
        assert client.get("/append").content == b"2"
        client.get("/append-inside")
        assert client.get("/view").json() == {"cart": ["book"] * 3}


def test_only_what_changed_travels(node):
    """A whole session for each change would undo what another request changes at the same moment."""
    client = Client()
    client.get("/put/one/1")
    client.get("/put/two/2")
    client.get("/put/two/3")
    [record] = live(node)
    stamps = {key: entry.stamp for key, entry in record.entries.items()}
    newest = {key for key, stamp in stamps.items() if stamp == max(stamps.values())}
    assert newest - REGISTERS == {"two"}


@pytest.mark.parametrize("middleware", [django_project.settings.MIDDLEWARE, ENGINE_ALONE.options["MIDDLEWARE"]])
def test_a_counter_and_a_set_alone_make_a_session_and_two_requests_at_once_both_count(middleware):
    """They are content that Django's own test for an empty session does not see."""

    def look(request):
        request.session.counter_of("visits").add()
        request.session.set_of("seen").add(request.path)
        return HttpResponse("")

    with override_settings(MIDDLEWARE=middleware):
        request = RequestFactory().get("/a")
        answer = import_string(middleware[0])(look)(request)
        first = answer.cookies["sessionid"].value
        requests = [engine.SessionStore(first) for _ in range(2)]
        for number, session in enumerate(requests):
            session.counter_of("visits").add()
            session.set_of("seen").add(number)
        for session in requests:
            session.save()
        again = engine.SessionStore(first)
        assert (again.counter_of("visits").value, set(again.set_of("seen"))) == (3, {"/a", 0, 1})
        assert (dict(again.items()), again.is_empty()) == ({}, False)
        again.cycle_key()
        moved = engine.SessionStore(again.session_key)
        assert (moved.counter_of("visits").value, len(moved.set_of("seen"))) == (3, 3)
        moved.flush()
        assert moved.counter_of("visits").value == 0


@pytest.mark.parametrize("middleware", [django_project.settings.MIDDLEWARE, ENGINE_ALONE.options["MIDDLEWARE"]])
def test_two_requests_at_once_keep_both_their_changes(middleware):
    """With Django's own engines the later save undoes the earlier."""
    with override_settings(MIDDLEWARE=middleware):
        first = stored(cart=["book"])
        second, third = engine.SessionStore(first.session_key), engine.SessionStore(first.session_key)
        second["seen"] = "a"
        third["cart"].append("pen")
        second.save()
        third.save()
        assert dict(engine.SessionStore(first.session_key).items()) == {"cart": ["book", "pen"], "seen": "a"}


def test_a_value_that_cannot_travel_is_refused_where_it_is_assigned():
    """And not by the first process that has company."""
    with pytest.raises(UnreplicableValue, match=r"session\['user'\]: TestUser"):
        Client().get("/refused")


def test_a_value_that_cannot_travel_inside_another_is_refused_at_the_save(node):
    """Nothing is stored then."""
    client = Client()
    client.get("/append")
    with pytest.raises(UnreplicableValue, match=r"session\['cart'\]\[1\]: TestUser"):
        client.get("/crash")
    assert client.get("/view").json() == {"cart": ["book"]}


def test_an_error_page_is_shown_although_the_session_could_not_be_saved():
    """Django saves nothing with a 5xx; so what is wrong with the session must not hide what is wrong with the view."""
    client = Client()
    assert client.get("/broken").content == b"sorry"
    assert "sessionid" not in client.cookies
    session = engine.SessionStore()
    session["cart"] = []
    session["cart"].append(TestUser())
    assert session.modified


def test_an_emptied_session_lives_on_under_its_key(node):
    """Only `flush` ends one; and the cookie stays, as with Django's engines."""
    client = Client()
    client.get("/put/foo/bar")
    key = key_of(client)
    response = client.get("/delete/foo")
    assert response.cookies["sessionid"].value == key
    assert engine.SessionStore().exists(key)
    assert dict(engine.SessionStore(key).items()) == {}
    client.get("/put/foo/again")
    assert key_of(client) == key


def test_modified_set_to_false_lets_a_change_pass_and_no_later_one():
    """Applications say so of changes that are not worth a save; a later one is."""
    session = stored(cart=["book"])
    session["seen"] = 1
    session["cart"].append("pen")
    session.modified = False
    assert not session.modified
    session["cart"].append("ink")
    assert session.modified
    session = engine.SessionStore(session.session_key)
    session["seen"] = 1
    session.modified = False
    session["other"] = 2
    assert session.modified
    session.save()
    assert not session.__dict__["_seen"]


def test_a_copy_of_a_session_begins_with_create(node):
    """As Django's `create` does, the session that was stays."""
    session = stored(cart=["book"])
    before = session.session_key
    session.create()
    assert session.session_key != before
    for key in (before, session.session_key):
        assert engine.SessionStore(key)["cart"] == ["book"]


def test_a_key_that_is_to_be_created_is_made_here_all_the_same():
    """Whoever may name an id may plant it."""
    session = engine.SessionStore(UNKNOWN_ID)
    session.save(must_create=True)
    assert session.session_key != UNKNOWN_ID
    assert is_session_id(session.session_key)
    assert not session.exists(UNKNOWN_ID)


@pytest.mark.parametrize(
    "cookie", [UNKNOWN_ID, "x" * 32, "short", UNKNOWN_ID.upper(), '"', "é" * 32, UNKNOWN_ID + ".t"]
)
def test_an_id_that_nobody_made_is_never_adopted(node, cookie):
    """An attacker may have planted it in the browser."""
    client = Client()
    client.cookies["sessionid"] = cookie
    client.get("/put/user/kim")
    assert key_of(client) != cookie
    assert list(node.node.records) == [sid_of(key_of(client))]


def test_what_exists_cannot_be_created():
    """Django's word for it is CreateError."""
    key = stored(a=1).session_key
    for session in (engine.SessionStore(key), engine.SessionStore(key)):
        with pytest.raises(CreateError):
            session.save(must_create=True)
        session["b"] = 2


def test_values_keep_their_types():
    """Django's JSON makes lists of tuples and text of dates."""
    when = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    session = stored(pair=(1, 2), when=when, raw=b"\0")
    assert dict(engine.SessionStore(session.session_key).items()) == {"pair": (1, 2), "when": when, "raw": b"\0"}


# --- logins and their ends ----------------------------------------------------------------------------------


def test_a_login_gives_the_session_one_new_id(node):
    """Whoever knew the id before the login is not logged in; and what a signal noted of the new one stays true."""
    client = Client()
    client.get("/append")
    before = key_of(client)
    told = client.get("/login/7").content.decode()
    assert told == key_of(client) != before
    assert client.get("/view").json()["cart"] == ["book"]
    assert len(node.node.records) == 2, "one that has ended, and one that lives"
    assert [record.sid for record in live(node)] == [sid_of(told)]
    assert not engine.SessionStore().exists(before)
    assert engine.SessionStore(told)._session.user == "7"


def test_a_login_as_somebody_else_begins_an_empty_session(node):
    """As Django's `login` has it."""
    client = Client()
    client.get("/login/7")
    client.get("/append")
    client.get("/login/8")
    assert "cart" not in client.get("/view").json()
    assert len(live(node)) == 1


def test_a_login_without_djangos_login_gives_the_session_a_new_id_too(node):
    """Tutorials put the user under `user_id`, and forget about the id."""
    client = Client()
    client.get("/append")
    before = key_of(client)
    client.get("/put/user_id/7")
    assert key_of(client) != before
    assert client.get("/view").json() == {"cart": ["book"], "user_id": "7"}
    after = key_of(client)
    client.get("/put/user_id/7")
    assert key_of(client) == after, "no login: nothing new"


def test_a_test_that_logs_its_client_in_by_hand_is_logged_in():
    """`client.session` is no answer that could set a cookie; so its save must not change the id."""
    client = Client()
    session = client.session
    session["user_id"] = 7
    session.save()
    assert client.get("/view").json() == {"user_id": 7}
    session = client.session
    session["user_id"] = 8
    session.save()
    assert client.get("/view").json() == {"user_id": 8}


def test_force_login_works():
    """What most test suites of Django projects begin with."""
    client = Client()
    client.force_login(django_project.Account(pk=7))
    assert client.get("/view").json()["_auth_user_id"] == "7"
    client.logout()
    assert client.get("/view").json() == {}


def test_logged_out_stays_logged_out(node):
    """A copy of the cookies is worth nothing then, and both go from the browser."""
    client = Client()
    client.get("/login/7")
    kept = {name: morsel.value for name, morsel in client.cookies.items()}
    assert set(kept) == {"sessionid", "sessionid-v"}
    response = client.get("/logout")
    assert {name: morsel["max-age"] for name, morsel in response.cookies.items()} == dict.fromkeys(kept, 0)
    thief = Client()
    for name, value in kept.items():
        thief.cookies[name] = value
    assert thief.get("/view").json() == {}
    assert not live(node)


def test_a_user_is_logged_out_everywhere():
    """Given as Django has it, as a user; or by what the session holds."""
    phone, desk, other = Client(), Client(), Client()
    phone.get("/login/7")
    desk.get("/login/7")
    other.get("/login/8")
    assert engine.revoke(django_project.Account(pk=7)).sessions == 2
    assert [client.get("/view").json().get("_auth_user_id") for client in (phone, desk, other)] == [None, None, "8"]
    assert asyncio.run(engine.arevoke(8)).sessions == 1
    desk.get("/login/7")
    assert desk.get("/view").json()["_auth_user_id"] == "7", "a later login counts"


def test_who_logs_out_everywhere_from_within_a_request_is_answered():
    """The revocation ends the very session that the answer would save."""
    client = Client()
    client.get("/login/7")
    response = client.get("/log-out-everywhere")
    assert response.status_code == 200
    assert client.cookies["sessionid"].value == ""
    assert client.get("/view").json() == {}


def test_a_request_that_changes_what_another_has_ended_is_interrupted(node):
    """Django's answer, 400: nothing of it is stored, and the ended session does not come back."""
    client = Client()
    client.get("/append")
    key = key_of(client)

    async def scenario():
        django_project.paused, django_project.go_on = asyncio.Event(), asyncio.Event()
        slow = AsyncClient()
        slow.cookies["sessionid"] = key
        asked = asyncio.create_task(slow.get("/async/pause"))
        await django_project.paused.wait()
        await engine.SessionStore(key).adelete()
        django_project.go_on.set()
        return await asked

    response = asyncio.run(scenario())
    assert response.status_code == 400
    assert not names(response)
    assert not live(node)


def test_what_was_ended_cannot_be_saved_any_more():
    """Neither by who ended it, nor where nothing was changed."""
    session = stored(cart=["book"])
    other = engine.SessionStore(session.session_key)
    other.delete()
    session["cart"].append("pen")
    with pytest.raises(UpdateError):
        session.save()
    for again in (other, engine.SessionStore(session.session_key)):
        with pytest.raises(UpdateError):
            again.save()


def test_a_key_that_another_request_has_cycled_gives_nothing_back(node):
    """Two logins at once: the second one finds the visitor's session ended, and must not take its data up again."""
    session = stored(cart=["book"])
    other = engine.SessionStore(session.session_key)
    assert other["cart"]
    session.cycle_key()
    other.cycle_key()
    assert dict(other.items()) == {}
    assert other.session_key not in (None, session.session_key)
    assert len(live(node)) == 2


def test_a_cookie_of_a_session_that_is_no_more_is_left_alone_by_who_only_reads():
    """A slow answer to what was asked before a login would else remove the cookie that the login has just set."""
    client = Client()
    client.cookies["sessionid"] = UNKNOWN_ID
    assert not client.get("/view").cookies
    assert names(client.get("/flush")) == set()
    assert client.cookies["sessionid"].value == ""


# --- cookies and caches -------------------------------------------------------------------------------------


def test_cookies_are_set_where_something_was_written_and_only_there():
    """Each that is set keeps an answer out of every cache."""
    client = Client()
    assert not client.get("/untouched").has_header("Vary")
    response = client.get("/view")
    assert (response["Vary"], dict(response.cookies)) == ("Cookie", {})
    response = client.get("/put/a/1")
    assert names(response) == {"sessionid", "sessionid-v"}
    assert response["Cache-Control"] == "private"
    assert not client.get("/view").cookies
    assert client.get("/untouched").has_header("Vary") is False


def test_the_token_is_never_for_scripts_and_all_else_is_as_the_settings_say():
    """A site that lets its scripts read the id has its reasons; nobody has any for the token."""
    with override_settings(
        SESSION_COOKIE_HTTPONLY=False,
        SESSION_COOKIE_SECURE=True,
        SESSION_COOKIE_SAMESITE="Strict",
        SESSION_COOKIE_PATH="/shop",
        SESSION_COOKIE_DOMAIN="example.org",
        SESSION_COOKIE_NAME="__Secure-shop",
    ):
        response = Client().get("/put/a/1", secure=True)
    first, second = response.cookies["__Secure-shop"], response.cookies["__Secure-shop-v"]
    assert (first["httponly"], second["httponly"]) == ("", True)
    for cookie in (first, second):
        assert [cookie[name] for name in ("secure", "samesite", "path", "domain")] == [
            True,
            "Strict",
            "/shop",
            "example.org",
        ]


def test_with_the_engine_alone_all_others_are_waited_for(node):
    """No token says then what the client has seen, so every replica must have it."""
    assert engine.SessionStore()._confirm == "all"
    asked = []
    with override_settings(MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"]):
        client = Client()
        client.get("/put/a/1")
        assert set(client.cookies) == {"sessionid"}
    middleware = engine.SessionMiddleware(lambda request: asked.append(request.session) or object_response())
    middleware(RequestFactory().get("/"))
    assert asked[0]._confirm is None


def object_response():
    return django_project.HttpResponse()


def test_another_engine_is_served_as_django_does(caplog):
    """A project's tests may put one in place; and whoever forgot the engine is told."""
    with override_settings(SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies"):
        client = Client()
        client.get("/put/a/1")
        assert client.get("/view").json() == {"a": "1"}
        assert asyncio.run(AsyncClient().get("/view")).status_code == 200
    assert "gossipsess.web.django" in caplog.text
    assert issubclass(engine.SessionMiddleware, DjangosMiddleware), "the checks of Django's admin want it"


# --- when sessions end --------------------------------------------------------------------------------------


def test_a_session_ends_so_long_after_its_last_save_as_django_says():
    """Two weeks, unless SESSION_COOKIE_AGE says otherwise; reading prolongs nothing."""
    with clocked() as goes_on:
        client = Client()
        client.get("/put/user/kim")
        goes_on(WEEK_S)
        assert client.get("/view").json()
        goes_on(WEEK_S - 60)
        assert client.get("/view").json()
        client.get("/put/user/lee")
        goes_on(2 * WEEK_S - 60)
        assert client.get("/view").json()
        goes_on(120)
        assert client.get("/view").json() == {}


def test_with_save_every_request_use_prolongs_a_session_and_costs_no_write():
    """Such a setting must not make a write of every read."""
    with clocked() as goes_on, override_settings(SESSION_SAVE_EVERY_REQUEST=True, SESSION_COOKIE_AGE=DAY_S):
        client = Client()
        client.get("/put/user/kim")
        [record] = live(sessions().launch())
        for _ in range(5):
            goes_on(DAY_S - 60)
            assert names(client.get("/view")) == {"sessionid"}
        assert live(sessions().launch()) == [record]
        goes_on(DAY_S + 120)
        assert client.get("/view").json() == {}


def test_with_save_every_request_no_cookie_of_an_ended_session_is_set():
    """It would come over that of a login which has just ended it."""
    session = stored(user="kim")
    with override_settings(SESSION_SAVE_EVERY_REQUEST=True):

        def end(request):
            request.session.get("user")
            engine.SessionStore(session.session_key).delete()
            return object_response()

        request = RequestFactory().get("/")
        request.COOKIES["sessionid"] = session.session_key
        response = engine.SessionMiddleware(end)(request)
    assert not response.cookies


@pytest.mark.parametrize(
    ("expiry", "lives_s"),
    [
        (300, 300),
        (datetime.timedelta(hours=1), 3600),
        (0, 2 * WEEK_S),  # the browser ends it; the server as ever
    ],
)
def test_a_session_ends_when_set_expiry_says(expiry, lives_s):
    """Each may have a time of its own."""
    with clocked() as goes_on:
        session = engine.SessionStore()
        session["user"] = "kim"
        session.set_expiry(expiry)
        session.save()
        goes_on(lives_s - 20)
        assert "user" in engine.SessionStore(session.session_key)
        goes_on(40)
        assert "user" not in engine.SessionStore(session.session_key)


@pytest.mark.parametrize("every_request", [False, True])
@pytest.mark.parametrize("expiry", [-10, datetime.timedelta(seconds=-10), -1e12])
def test_a_session_that_is_over_when_it_is_saved_is_over_on_nodes_whose_clocks_lag(expiry, every_request):
    """Clocks of several nodes differ by milliseconds; by ten seconds here, so the tenth of them must be kept."""
    with clocked() as goes_on, override_settings(SESSION_SAVE_EVERY_REQUEST=every_request):
        goes_on(1000)
        session = engine.SessionStore()
        session["user"] = "kim"
        session.set_expiry(expiry)
        session.save()
        assert register(session._session_cache.record, ABSOLUTE) / 1000 <= sessions().store.time() - 10
        assert "user" not in engine.SessionStore(session.session_key)


def test_the_librarys_own_timeouts_are_upper_bounds():
    """Where an operator sets them, they hold for a session that the application lets live longer."""
    with clocked(idle_timeout_s=600, absolute_timeout_s=3600) as goes_on:
        client = Client()
        client.get(f"/expire/{WEEK_S}")
        for _ in range(11):
            goes_on(300)
            assert client.get("/view").json()["user"] == "kim"
            client.get("/put/a/1")
        goes_on(301)
        assert client.get("/view").json() == {}
        client.get("/put/a/1")
        goes_on(700)
        assert client.get("/view").json() == {}


def test_a_session_lives_although_a_test_has_stopped_the_clock(monkeypatch):
    """Suites freeze the time, mostly in the past; the node's goes on."""
    monkeypatch.setattr(timezone, "now", lambda: datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))
    client = Client()
    client.get("/put/user/kim")
    assert client.get("/view").json() == {"user": "kim"}


def test_the_cookie_lives_as_long_as_django_says():
    """Its Max-Age and expiry are Django's own."""
    response = Client().get("/expire/300")
    assert [response.cookies[name]["max-age"] for name in ("sessionid", "sessionid-v")] == [300, 300]
    response = Client().get("/expire/0")
    assert [response.cookies[name]["max-age"] for name in ("sessionid", "sessionid-v")] == ["", ""]


# --- sessions that cannot be had ----------------------------------------------------------------------------


def asks(path, *, asynchronous):
    """Ask with a cookie of ours that nobody here knows."""
    client = AsyncClient() if asynchronous else Client()
    client.cookies["sessionid"] = UNKNOWN_ID
    response = client.get(path)
    return asyncio.run(response) if asynchronous else response


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_session_that_cannot_be_known_is_a_503_and_its_cookie_stays(asynchronous):
    """To go on as if nobody were logged in would lose what the visitor has."""
    with node_that_misses_a_peer() as service, served_by(service):
        response = asks("/view", asynchronous=asynchronous)
    assert (response.status_code, response["Retry-After"], response["Cache-Control"]) == (503, "1", "no-store")
    assert not response.cookies


@pytest.mark.parametrize("asynchronous", [False, True])
def test_with_empty_a_page_for_everybody_stays_up_and_a_change_is_a_503(asynchronous):
    """What is changed would be lost."""
    with node_that_misses_a_peer() as service, served_by(service, "empty"):
        response = asks("/swallow", asynchronous=asynchronous)
        assert (response.status_code, response.content, response["Cache-Control"]) == (200, b"{}", "no-store")
        assert not response.cookies
        for path in ("/put/a/1", "/flush", "/append", "/login/7"):
            response = asks(path, asynchronous=asynchronous)
            assert (response.status_code, dict(response.cookies)) == (503, {}), path
        assert not live(service)


def test_with_the_engine_alone_what_cannot_be_known_is_an_error():
    """Django has no other answer to what an engine raises; `SessionMiddleware` has."""
    with node_that_misses_a_peer() as service, served_by(service):
        for use in (lambda session: session["a"], lambda session: session.exists(UNKNOWN_ID), lambda s: s.flush()):
            with pytest.raises(SessionUnavailable):
                use(engine.SessionStore(UNKNOWN_ID))


@pytest.mark.parametrize("asynchronous", [False, True])
def test_where_there_is_no_room_for_a_new_session_the_answer_is_a_503(asynchronous):
    """And those who are logged in go on."""
    with served_by(lone_node(Config(discovery="none", memory_limit_mb=1))) as service:
        client = Client()
        client.get("/put/user/kim")
        fill(service)
        other = AsyncClient() if asynchronous else Client()
        response = other.get("/put/user/lee")
        response = asyncio.run(response) if asynchronous else response
        assert (response.status_code, dict(response.cookies)) == (503, {})
        client.get("/put/seen/1")
        assert client.get("/view").json() == {"user": "kim", "seen": "1"}


# --- async --------------------------------------------------------------------------------------------------


def test_an_async_view_uses_its_session_as_a_sync_one_does(node):
    """Django's database engines raise SynchronousOnlyOperation there."""

    async def scenario():
        client = AsyncClient()
        answers = [await client.get("/async/append") for _ in range(2)]
        assert [answer.content for answer in answers] == [b"1", b"2"]
        assert (await client.get("/async/twins")).content == b"kim"
        before = client.cookies["sessionid"].value
        told = (await client.get("/async/login/7")).content.decode()
        assert told == client.cookies["sessionid"].value != before
        session = await client.asession()
        assert await session.aget("_auth_user_id") == "7"
        assert await session.aget("cart") == ["book", "book"]
        response = await client.get("/async/logout")
        assert {name: morsel["max-age"] for name, morsel in response.cookies.items()} == {
            "sessionid": 0,
            "sessionid-v": 0,
        }

    asyncio.run(scenario())
    assert not live(node)


@ENGINE_ALONE
def test_with_the_engine_alone_an_async_view_uses_its_session_too(node):
    """One line is enough to be rid of SynchronousOnlyOperation."""

    async def scenario():
        client = AsyncClient()
        answers = [(await client.get("/async/append")).content for _ in range(2)]
        before = client.cookies["sessionid"].value
        told = (await client.get("/async/login/7")).content.decode()
        assert told == client.cookies["sessionid"].value != before
        await client.get("/async/logout")
        return answers

    assert asyncio.run(scenario()) == [b"1", b"2"]
    assert not live(node)


def test_under_asgi_other_requests_go_on_while_a_session_is_asked_for_or_the_node_starts():
    """A worker has one loop for all its visitors."""
    node = HeldBackNode()
    with served_by(node):

        async def scenario():
            asked = asyncio.create_task(AsyncClient().get("/put/user/kim"))
            for _ in range(20):  # these would not come to their turn
                await asyncio.sleep(0.01)
            assert not asked.done()
            node.release.set()
            return await asked

        assert names(asyncio.run(scenario())) == {"sessionid", "sessionid-v"}


def test_under_asgi_a_wait_for_a_session_holds_up_nobody():
    """150 ms, if a holder does not answer: in the view it would be of everybody's time."""
    with node_that_misses_a_peer() as service, served_by(service):

        async def scenario():
            client = AsyncClient()
            client.cookies["sessionid"] = UNKNOWN_ID
            asked = asyncio.create_task(client.get("/async/append"))
            turns = 0
            while not asked.done():
                await asyncio.sleep(0.005)
                turns += 1
            return (await asked).status_code, turns, threading.active_count()

        status, turns, _ = asyncio.run(scenario())
    assert status == 503
    assert turns > 5


# --- where the node starts ----------------------------------------------------------------------------------

PROJECT = """
import sys
from django.conf import settings
settings.configure(
    SECRET_KEY="x", ROOT_URLCONF=__name__, SESSION_ENGINE="gossipsess.web.django",
    MIDDLEWARE=["gossipsess.web.django.SessionMiddleware"], LOGGING_CONFIG=None,
)
from django.http import HttpResponse
from django.urls import path
urlpatterns = [path("", lambda request: HttpResponse(request.session.get("a", "")))]
import django
django.setup()
"""


def python(code, **environment):
    """Run a program as its users would; what it writes to stderr is a failure."""
    done = subprocess.run(
        [sys.executable, "-c", PROJECT + code],
        env={**os.environ, "GOSSIPSESS_DISCOVERY": "none", "GOSSIPSESS_PORT": "0", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_management_command_starts_no_node():
    """`migrate` is run in a pod of its own while the others serve; it must not join them, nor wait for them."""
    python(
        """
from django.core.management import execute_from_command_line
execute_from_command_line(["manage.py", "check"])
from gossipsess.web import django as engine, django_sessions
assert engine.SessionMiddleware and django_sessions.sessions().store is None and "trio" not in sys.modules
"""
    )


@pytest.mark.parametrize("middleware", ["gossipsess.web.django", "django.contrib.sessions.middleware"])
@pytest.mark.parametrize("make", ["wsgi", "asgi"])
def test_the_application_object_starts_the_node(make, middleware):
    """A replica must hold the sessions before anybody asks it."""
    python(
        f"""
settings.MIDDLEWARE = ["{middleware}.SessionMiddleware"]
from django.core.{make} import get_{make}_application
get_{make}_application()
from gossipsess.service import _of_process
assert [node.synced for node in _of_process.values()] == [True]
"""
    )


def test_without_an_application_object_the_first_session_starts_the_node():
    """A script makes none, and nothing says beforehand that it will use a session."""
    python(
        """
from gossipsess.service import _of_process
from gossipsess.web.django import SessionStore
session = SessionStore()
assert not _of_process
session["a"] = 1
session.save()
assert [node.synced for node in _of_process.values()] == [True]
"""
    )


def test_djangos_test_runner_has_sessions_without_a_network():
    """A suite must not meet the developer's running server, nor wait for others; and it needs no setting for that."""
    python(
        """
from django.test import Client
from django.test.utils import setup_test_environment
from gossipsess.service import _of_process
setup_test_environment()
client = Client()
session = client.session
session["a"] = 1
session.save()
assert client.get("/").content == b"1"
assert client.session["a"] == 1
assert not _of_process and "trio" not in sys.modules
""",
        GOSSIPSESS_DISCOVERY="auto",
    )
