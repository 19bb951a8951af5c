"""What is Litestar's own about its former cookies; test_web_adoption.py has what they have in common with others."""

import time
from base64 import b64decode, b64encode

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from litestar.exceptions import ImproperlyConfiguredException
from litestar.middleware.session.client_side import ClientSideSessionBackend, CookieBackendConfig

from gossipsess.web import litestar_former
from gossipsess.web.litestar import GossipSessionConfig
from gossipsess.web.litestar_former import PIECES_MAX, SealedCookies
from tests.unit.test_web_adoption import Litestars
from tests.unit.web_support import UNKNOWN_ID

SECRET = b"s" * 32
DAY_S = 24 * 3600
LARGE = {"user_id": 42, "cart": ["x" * 9000]}


def header(cookies):
    return [(b"cookie", "; ".join(f"{name}={value}" for name, value in cookies.items()).encode())]


def sealed(values, max_age=DAY_S, secret=SECRET):
    """Return the cookies that Litestar makes of a session, as a browser sends them."""
    backend = ClientSideSessionBackend(CookieBackendConfig(secret, max_age=max_age))
    cookies = backend._create_session_cookies(backend.dump_data(values))
    return {one.key: one.to_header(header="").split(";")[0].partition("=")[2] for one in cookies}


def read(cookies, max_age=DAY_S):
    return SealedCookies(SECRET, "session", max_age).session_untrusted(header(cookies))


def test_a_session_in_several_cookies_is_taken_and_all_of_them_are_removed(node):
    """Litestar cuts what is longer than a browser keeps; left behind, the pieces would come with every request."""
    old = Litestars().asks("/update", {}, LARGE)[1]
    assert set(old) == {"session-0", "session-1", "session-2", "session-3"}
    app = Litestars(node)
    seen, cookies = app.asks("/view", old)
    assert seen == LARGE
    assert {name for name, value in cookies.items() if value == "null"} == set(old)
    assert app.asks("/view", {"session": cookies["session"]})[0] == LARGE


@pytest.mark.parametrize("leaves", ["by clearing", "by logging in as another"])
def test_pieces_are_removed_by_the_first_answer_too_if_it_sets_or_removes_a_cookie(node, leaves):
    """Also by the first one, and by one to a browser that has kept them beyond the session's end."""
    old, app = Litestars().asks("/update", {}, LARGE)[1], Litestars(node)
    path, change = ("/clear", {}) if leaves == "by clearing" else ("/update", {"user_id": 43})
    _, cookies = app.asks(path, old, change)
    assert {name for name in old if cookies[name] == "null"} == set(old)
    spent, cookies = app.asks("/update", old, {"a": 1})
    assert spent == {"a": 1}
    assert {name for name in old if cookies[name] == "null"} == set(old)


def after(cookies, answered):
    """Return what a browser has then."""
    return {name: value for name, value in {**cookies, **answered}.items() if value != "null"}


@pytest.mark.parametrize("beside", ["its session", "a session of another", "one cookie", "garbage", "an id unknown"])
def test_pieces_that_nobody_looked_at_bring_no_login_back_after_a_logout(node, beside):
    """A stock process's slow answer may set them beside an id of ours; a logout that leaves them there is none."""
    stock, app = Litestars(), Litestars(node)
    pieces = stock.asks("/update", {}, LARGE)[1]
    own = {
        "its session": lambda: app.asks("/view", stock.asks("/update", {}, LARGE)[1])[1]["session"],
        "a session of another": lambda: app.asks("/update", {}, {"user_id": 7})[1]["session"],
        "one cookie": lambda: stock.asks("/update", {}, {"user_id": 7})[1]["session"],
        "garbage": lambda: "garbage",
        "an id unknown": lambda: UNKNOWN_ID,
    }[beside]()
    browser = pieces | {"session": own}
    for path, change in (("/update", {"user_id": 7}), ("/clear", {})):
        browser = after(browser, app.asks(path, browser, change)[1])
    assert not browser
    assert app.asks("/view", browser) == ({}, {})


@pytest.mark.parametrize("how", ["one is missing", "one is of another", "one comes twice"])
def test_pieces_that_do_not_belong_together_are_no_session(how):
    old, other = sealed(LARGE), sealed(LARGE | {"user_id": 7})
    assert read(old).values == LARGE
    line = header(old)
    if how == "one is missing":
        line = header({name: value for name, value in old.items() if name != "session-1"})
    if how == "one is of another":
        line = header(old | {"session-1": other["session-1"]})
    if how == "one comes twice":
        line += header({"session-1": other["session-1"]})
    assert SealedCookies(SECRET, "session", DAY_S).session_untrusted(line) is None


def test_how_much_is_looked_at_is_bounded():
    """Of more pieces Litestar itself reads nothing either."""
    most = sealed({"k": "x" * 29_000})
    assert len(most) == PIECES_MAX
    assert len(read(most).values["k"]) == 29_000
    many = sealed({"k": "x" * 34_000})
    assert len(many) > PIECES_MAX
    assert read(many) is None
    backend = ClientSideSessionBackend(CookieBackendConfig(SECRET))
    pieces = [many[name].encode() for name in sorted(many)]
    with pytest.raises(Exception):  # noqa: B017, PT011  # base64's or the seal's
        backend.load_data(pieces)
    [(name, value)] = sealed({"k": 1}).items()
    assert read({name: value + "!" * 20_000}) is None


@pytest.mark.parametrize("value", ["null", ""])
def test_a_cookie_that_litestar_has_cleared_is_in_nobodys_way(value):
    """It writes "null" there, when a session has grown over one cookie's size."""
    assert read(sealed(LARGE) | {"session": value}).values == LARGE


@pytest.mark.parametrize("part", [0.0, 0.49, 0.51, 0.99])
def test_it_is_taken_until_the_end_that_it_names(monkeypatch, part):
    """And counts as made a little before it was, so that a revocation of that moment reaches it."""
    made_at = 1_800_000_000 + part
    monkeypatch.setattr(time, "time", lambda: made_at)
    cookies = sealed({"k": 1})
    former = read(cookies)
    assert abs(former.ends_at - made_at - DAY_S) < 1
    assert made_at - 2 < former.signed_at < made_at
    monkeypatch.setattr(time, "time", lambda: float(former.ends_at - 1))
    assert read(cookies) == former
    monkeypatch.setattr(time, "time", lambda: float(former.ends_at))
    assert read(cookies) is None


def test_one_that_would_be_made_in_the_future_is_not_taken():
    """Its `max_age` was longer than the one that is set now; what is stamped so would move the clocks."""
    assert read(sealed({"k": 1}, max_age=2 * DAY_S)) is None
    assert read(sealed({"k": 1}, max_age=DAY_S // 2)).values == {"k": 1}
    assert read(sealed({"k": 1}), max_age=100 * 366 * DAY_S).signed_at == 0


def resealed(text, ends, secret=SECRET):
    nonce = b"n" * 12
    return b64encode(nonce + AESGCM(secret).encrypt(nonce, text, ends) + b"additional_authenticated_data=" + ends)


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        (b"{", b'{"expires_at": %d}'),
        (b"[1]", b'{"expires_at": %d}'),
        (b"{}", b'{"expires_at": %d}'),
        (b"\xff", b'{"expires_at": %d}'),
        (b"[" * 100_000, b'{"expires_at": %d}'),
        (b'{"k": 1}', b'{"expires": %d}'),
        (b'{"k": 1}', b'{"expires_at": "%d"}'),
        (b'{"k": 1}', b"[%d]"),
        (b'{"k": 1}', b"%d"),
        (b'{"k": 1}', b"{%d"),
    ],
)
def test_what_the_same_key_has_sealed_and_is_no_session_is_none(text, ends):
    ends_at = int(time.time()) + 60
    assert read({"session": resealed(b'{"k": 1}', b'{"expires_at": %d}' % ends_at).decode()}).values == {"k": 1}
    value = resealed(text, ends % ends_at).decode()
    pieces = [value[i : i + 15_000] for i in range(0, len(value), 15_000)]
    cookies = {"session": value} if len(pieces) == 1 else {f"session-{i}": piece for i, piece in enumerate(pieces)}
    assert read(cookies) is None


@pytest.mark.parametrize("size", [0, 11, 12, 27, 28, 40])
def test_what_is_too_short_for_a_seal_is_none(size):
    assert read({"session": b64encode(b"x" * size).decode()}) is None
    assert read({"session": b64encode(b"x" * size + b"additional_authenticated_data={}").decode()}) is None


def test_nothing_of_it_is_parsed_before_its_seal_is_opened(monkeypatch):
    """Each byte is covered: its data, and when it ends, which Litestar itself reads first."""
    [value] = sealed({"user_id": 42}).values()
    raw = b64decode(value)
    parsed = []
    monkeypatch.setattr(litestar_former.json, "loads", parsed.append)
    for place in range(len(raw)):
        damaged = bytearray(raw)
        damaged[place] ^= 1
        assert read({"session": b64encode(damaged).decode()}) is None
    assert read({"session": resealed(b"{}", b'{"expires_at": 1}', secret=b"o" * 32).decode()}) is None
    assert not parsed


def test_a_secret_of_no_such_cookie_is_refused():
    for secret in (b"short", b"", "s" * 32):
        with pytest.raises(ImproperlyConfiguredException, match="16, 24 or 32 bytes"):
            GossipSessionConfig(secret=secret)
    with pytest.raises(ImproperlyConfiguredException, match="name a secret"):
        GossipSessionConfig(SECRET)  # where CookieBackendConfig has it
    assert "ssssss" not in repr(GossipSessionConfig(secret=SECRET))
