"""Sessions of the engine that a Django project had before: nobody is logged out by the change, and once is once."""

import asyncio
from importlib import import_module

import pytest
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.test import AsyncClient, Client, override_settings

from gossipsess.config import Config
from gossipsess.service import lone_node
from tests.unit import django_project
from tests.unit.django_project import engine, live, served_by
from tests.unit.web_support import TestUser

Session = apps.get_model("sessions", "Session")
ENGINES = [
    f"django.contrib.sessions.backends.{name}" for name in ("db", "cache", "cached_db", "file", "signed_cookies")
]
SERVER_SIDE = ENGINES[:4]
ENGINE_ALONE = "django.contrib.sessions.middleware.SessionMiddleware"


@pytest.fixture(autouse=True)
def node(tmp_path):
    with served_by(lone_node()) as service, override_settings(SESSION_FILE_PATH=str(tmp_path)):
        if Session._meta.db_table not in connection.introspection.table_names():
            with connection.schema_editor() as editor:
                editor.create_model(Session)
        yield service


def client_of(former, **values):
    """Return a browser with a session of the former engine."""
    client = Client()
    with override_settings(SESSION_ENGINE=former, MIDDLEWARE=[ENGINE_ALONE]):
        session = client.session
        session.update(values)
        session.save()
        client.cookies["sessionid"] = session.session_key
    return client


def copy_of(client, kind=Client):
    """Return another browser with the same cookies."""
    copy = kind()
    for name, morsel in client.cookies.items():
        copy.cookies[name] = morsel.value
    return copy


def former_has(former, key):
    return bool(import_module(former).SessionStore(key).load())


@pytest.mark.parametrize("middleware", ["gossipsess.web.django.SessionMiddleware", ENGINE_ALONE])
@pytest.mark.parametrize("former", ENGINES)
def test_a_session_of_the_former_engine_is_taken_over(former, middleware, node):
    """Its user is not logged out; its id, which may lie in a dump of the table, is not the new one."""
    client = client_of(former, cart=["book"], _auth_user_id="7")
    before = client.cookies["sessionid"].value
    with override_settings(GOSSIPSESS_ADOPT=former, MIDDLEWARE=[middleware]):
        assert client.get("/view").json() == {"cart": ["book"], "_auth_user_id": "7"}
        after = client.cookies["sessionid"].value
        assert after != before
        assert client.get("/append").content == b"2"
        assert client.cookies["sessionid"].value == after
    assert former == ENGINES[-1] or not former_has(former, before)
    assert engine.SessionStore(after)._session.user == "7"


@pytest.mark.parametrize("former", ENGINES)
def test_it_is_not_without_the_setting(former, node):
    """A project may have had its reasons for the change."""
    client = client_of(former, cart=["book"])
    assert client.get("/view").json() == {}
    with override_settings(GOSSIPSESS_ADOPT=former), served_by(lone_node(Config(discovery="none", adopt="off"))):
        assert client.get("/view").json() == {}


@pytest.mark.parametrize("former", ENGINES)
def test_the_requests_of_one_page_find_one_session(former, node):
    """They all come with the former cookie, and each changes something."""
    client = client_of(former, cart=["book"])
    with override_settings(GOSSIPSESS_ADOPT=former):
        images = [copy_of(client) for _ in range(3)]
        for number, image in enumerate(images):
            image.get(f"/put/key-{number}/seen")
        assert len({image.cookies["sessionid"].value for image in images}) == 1
        assert images[0].get("/view").json() == {
            "cart": ["book"],
            "key-0": "seen",
            "key-1": "seen",
            "key-2": "seen",
        }


@pytest.mark.parametrize("former", ENGINES)
def test_who_logs_out_afterwards_stays_logged_out(former, node):
    """A copy of the former cookie is worth nothing then, although it is still signed."""
    client = client_of(former, _auth_user_id="7")
    thief = copy_of(client)
    with override_settings(GOSSIPSESS_ADOPT=former):
        assert client.get("/view").json()
        client.get("/logout")
        assert thief.get("/view").json() == {}
        assert copy_of(thief).get("/append").content == b"1"


@pytest.mark.parametrize("former", ENGINES)
def test_a_user_who_was_logged_out_everywhere_is_not_logged_in_by_a_former_cookie(former, node):
    """The revocation ends what it could not see."""
    client = client_of(former, _auth_user_id="7")
    other = client_of(former, _auth_user_id="8")
    engine.revoke(7)
    with override_settings(GOSSIPSESS_ADOPT=former):
        assert client.get("/view").json() == {}
        assert other.get("/view").json() == {"_auth_user_id": "8"}


def test_what_cannot_travel_is_left_behind_with_a_word(node, caplog):
    """An engine in memory takes anything; the login is worth more than one value."""
    former = "django.contrib.sessions.backends.cache"
    client = client_of(former, _auth_user_id="7", odd=TestUser())
    with override_settings(GOSSIPSESS_ADOPT=former):
        assert client.get("/view").json() == {"_auth_user_id": "7"}
    assert "odd" in caplog.text
    assert "TestUser" in caplog.text


def test_an_error_page_sets_the_new_cookie_too(node):
    """The former one is worth nothing soon; with Django's own engines a 5xx sets none."""
    former = "django.contrib.sessions.backends.cache"
    client = client_of(former, cart=["book"])
    before = client.cookies["sessionid"].value
    with override_settings(GOSSIPSESS_ADOPT=former):
        assert client.get("/broken").status_code == 500
    assert client.cookies["sessionid"].value != before
    assert client.get("/view").json() == {"cart": ["book"]}


def test_a_former_engine_that_cannot_be_asked_is_a_503_and_the_cookie_stays(node, caplog):
    """To go on as if nobody were logged in would lose the login."""
    client = client_of("django.contrib.sessions.backends.db", _auth_user_id="7")
    with override_settings(GOSSIPSESS_ADOPT="django.contrib.sessions.backends.db"):
        with connection.schema_editor() as editor:
            editor.delete_model(Session)
        response = client.get("/view")
        assert (response.status_code, dict(response.cookies)) == (503, {})
        assert client.cookies["sessionid"].value not in caplog.text
        assert Client().get("/view").status_code == 200, "without a cookie nobody is asked"


def test_a_setting_that_names_no_engine_is_an_error(node):
    """It would be found out when everybody is logged out."""
    client = client_of("django.contrib.sessions.backends.cache", cart=[])
    with (
        override_settings(GOSSIPSESS_ADOPT="shop.sessions"),
        pytest.raises(ImproperlyConfigured, match="names no session engine"),
    ):
        client.get("/view")


@pytest.mark.parametrize("former", ["django.contrib.sessions.backends.cache", "django.contrib.sessions.backends.file"])
def test_under_asgi_it_is_the_same(former, node):
    """The former engine is asked by its async methods."""
    client = copy_of(client_of(former, cart=["book"]), AsyncClient)
    with override_settings(GOSSIPSESS_ADOPT=former):

        async def scenario():
            assert (await client.get("/async/append")).content == b"2"
            return (await client.get("/view")).json()

        assert asyncio.run(scenario()) == {"cart": ["book"] * 2}
    assert len(live(node)) == 2, "the session, and the mark that its cookie was adopted"


def test_a_session_keeps_the_time_that_set_expiry_gave_it(node):
    """An hour stays an hour."""
    former = "django.contrib.sessions.backends.cache"
    client = client_of(former, cart=["book"], _session_expiry=3600)
    with override_settings(GOSSIPSESS_ADOPT=former):
        response = client.get("/view")
    assert response.cookies["sessionid"]["max-age"] == 3600
    assert django_project.settings.SESSION_COOKIE_AGE > 3600


@pytest.mark.parametrize("middleware", ["gossipsess.web.django.SessionMiddleware", ENGINE_ALONE])
def test_an_absolute_timeout_counts_from_the_adoption(middleware):
    """Of when it began the engine says nothing; counted from a day ago, twelve hours would be over at once."""
    former = "django.contrib.sessions.backends.cache"
    client = client_of(former, cart=["book"])
    limited = lone_node(Config(discovery="none", absolute_timeout_s=12 * 3600))
    with served_by(limited), override_settings(GOSSIPSESS_ADOPT=former, MIDDLEWARE=[middleware]):
        client.get("/view")
        assert [client.get("/append").content for _ in range(2)] == [b"2", b"3"]
        limited.node.replica.sessions.clock.offset_ms += (12 * 3600 + 10) * 1000
        assert client.get("/view").json() == {}
