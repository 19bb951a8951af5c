"""Cookies: what a client sends is not to be trusted, what we set is to be accepted."""

import tracemalloc

import pytest

from gossipsess.errors import ConfigError
from gossipsess.web.cookie import REMEMBERED_MAX, CookieSettings, session_of_untrusted

A = "a" * 32
B = "b" * 32
TOKEN = "t" * 32
SETTINGS = CookieSettings(name="gsid")


@pytest.mark.parametrize(
    ("lines", "session"),
    [
        ([f"gsid={A}"], (A, "")),
        ([f"x=1; gsid={A}; gsid-v={TOKEN}; y=2"], (A, TOKEN)),
        ([f"gsid={A}", f"gsid-v={TOKEN}"], (A, TOKEN)),  # HTTP/2 may send one header for each
        ([f"gsid={A}; gsid={A}"], (A, "")),
        ([f"gsid=eyJhIjoxfQ.signed.before; gsid={A}"], (A, "")),  # another framework's, left from before
        ([f"gsid={A}; gsid={B}"], None),
        ([f"gsid={A}; gsid-v=one; gsid-v=two"], (A, "")),
        ([f"gsid={A}; gsid-v={'x' * 5000}"], (A, "")),
        ([f"gsid={A}; gsid-v="], (A, "")),
        ([], None),
        (["gsid"], None),
        ([f"gsid={'a' * 5000}"], None),
        (["gsid=" + "é" * 32], None),
        ([f"gsid={A.upper()}"], None),
        ([f"gsid={A}.{TOKEN}"], None),  # the plain API's form; the token has a cookie of its own
        ([f'gsid="{A}"'], None),
        ([f"gsid-v={TOKEN}"], None),
        ([f"GSID={A}; xgsid={B}"], None),
        ([";;;=;=" + "gsid=;" * 2000], None),
    ],
)
def test_only_one_well_formed_session_counts(lines, session):
    """Anything else is a stranger's doing or damage; adopting it would be session fixation, refusing it a lock-out."""
    headers = [(b"host", b"x"), *[(b"cookie", line.encode()) for line in lines]]
    assert SETTINGS.session_untrusted(headers) == session


def test_other_headers_and_their_case_do_not_matter():
    assert SETTINGS.session_untrusted(
        iter([(b"x-cookie", b"gsid=" + b"b" * 32), (b"Cookie", f"gsid={A}".encode())])
    ) == (A, "")


def test_what_is_remembered_of_headers_has_a_bound():
    """A client chooses what else it sends, and how much of it."""
    tracemalloc.start()
    try:
        for number in range(2 * REMEMBERED_MAX):
            for length in (900, 20_000):
                assert SETTINGS.session_untrusted([(b"cookie", f"gsid={A}; x={number:0{length}}".encode())]) == (A, "")
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 2_000_000


def test_values_of_a_framework_may_hold_any_text():
    """Flask decodes cookies as UTF-8 before we see them."""
    assert session_of_untrusted(["é" * 32, "\x00" * 32], ["é" * 64]) is None
    assert session_of_untrusted([A], ["é" * 81]) == (A, "")


def test_a_cookie_has_the_attributes_that_were_set():
    settings = CookieSettings(
        name="s", max_age_s=60, path="/shop", domain="example.com", same_site="strict", partitioned=True
    )
    assert settings.header("s", "v") == (
        "s=v; path=/shop; Max-Age=60; httponly; samesite=strict; secure; domain=example.com; partitioned"
    )
    assert CookieSettings(name="s", secure=False).header("s", "v") == "s=v; path=/; httponly; samesite=lax"


def test_a_removed_cookie_has_the_same_attributes():
    """A browser only removes a cookie of the same name, path and domain."""
    line = CookieSettings(name="s", max_age_s=60, path="/shop", domain="example.com").header("s", "")
    assert line == (
        "s=null; path=/shop; expires=Thu, 01 Jan 1970 00:00:00 GMT; httponly; samesite=lax; secure; domain=example.com"
    )


def test_same_site_is_taken_as_frameworks_take_it():
    """Starlette and Litestar let it be written in any case; an application that ran must run on."""
    assert "; samesite=lax" in CookieSettings(name="s", same_site="Lax").header("s", "v")


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "a b"},
        {"name": "a;b"},
        {"name": ""},
        {"name": "s", "path": "/; domain=evil.example"},
        {"name": "s", "domain": "a\r\nSet-Cookie: x=y"},
        {"name": "s", "same_site": "Lax; Max-Age=1"},
        {"name": "s", "same_site": None},
        {"name": "__Host-s", "secure": False},
        {"name": "__Host-s", "path": "/shop"},
        {"name": "__Host-s", "domain": "example.com"},
    ],
)
def test_settings_that_no_browser_would_accept_are_refused(settings):
    """A cookie that is silently dropped looks like a login that does not work."""
    with pytest.raises(ConfigError):
        CookieSettings(**settings)
