"""What frameworks put into sessions and is no plain value: lazy texts, texts marked as safe, tokens of OAuth."""

import subprocess
import sys
from collections import Counter, OrderedDict, defaultdict, namedtuple
from enum import Enum, IntEnum, IntFlag, StrEnum
from typing import Any

import pytest

from gossipsess.errors import UnreplicableValue
from gossipsess.wire.values import decode_value, encode_value
from tests.unit.test_session import changed, session_with

PATH = "session['user']"


def again(value: object) -> Any:
    return decode_value(encode_value(value, PATH))


def exactly(value: object) -> str:
    """Return what tells values of equal contents and other types apart."""
    return f"{type(value)} {value!r}"


def lazy_of(module: str, said: list[str]) -> Any:
    """Return a lazy text of a framework, which says what the list holds when it is told."""
    names = {"speaklater": "make_lazy_string", "django.utils.functional": "lazy"}
    imported = pytest.importorskip(module)
    if module == "django.utils.functional":
        return imported.lazy(lambda: said[0], str)()
    if module == "speaklater":
        return getattr(imported, names[module])(lambda: said[0])
    return getattr(imported, "LazyProxy" if module == "babel.support" else "LazyString")(lambda: said[0])


LAZY = ["django.utils.functional", "flask_babel.speaklater", "quart_babel.speaklater", "babel.support", "speaklater"]


@pytest.mark.parametrize("module", LAZY)
def test_a_lazy_text_is_stored_as_the_text_that_it_stands_for(module):
    """`flash(_("Saved"))` is in every translated application, and its framework's own sessions took it."""
    said = ["Saved"]
    lazy = lazy_of(module, said)
    for value, stored in (
        (lazy, "Saved"),
        ([("info", lazy)], [("info", "Saved")]),
        ({"m": {"deep": lazy}}, {"m": {"deep": "Saved"}}),
    ):
        assert again(value) == stored
    assert type(again(lazy)) is str


@pytest.mark.parametrize("module", LAZY)
def test_a_lazy_text_is_told_where_it_is_assigned(module):
    """What the user was told in one language is not told in another because the request changed it meanwhile."""
    said = ["Saved"]
    session = session_with()
    session["m"] = lazy_of(module, said)
    said[0] = "Gespeichert"
    assert session["m"] == "Saved"
    assert type(session["m"]) is str
    assert changed(session) == {"m": encode_value("Saved", PATH)}


@pytest.mark.parametrize("module", LAZY)
def test_a_lazy_text_that_cannot_be_told_is_refused(module):
    """Outside of a request, say: the line that stored it is the one to change."""
    lazy = lazy_of(module, [])
    with pytest.raises(UnreplicableValue, match=r"session\['user'\]\[0\]: .* is a lazy text that cannot be told here"):
        encode_value([lazy], PATH)


@pytest.mark.parametrize("wrap", [lambda lazy: {lazy}, lambda lazy: {lazy: 1}, lambda lazy: {(1, lazy): 1}])
def test_a_lazy_text_is_no_key(wrap):
    """Two that differ may stand for one text, and the dict would come back smaller."""
    lazy = lazy_of("django.utils.functional", ["x"])
    with pytest.raises(UnreplicableValue, match=r"Store the text: str\(value\)"):
        encode_value(wrap(lazy), PATH)


def test_the_lazy_texts_of_the_frameworks_own_functions_are_known():
    """By the ways in which applications make them."""
    flask = pytest.importorskip("flask")
    flask_babel = pytest.importorskip("flask_babel")
    app = flask.Flask("shop")
    flask_babel.Babel(app)
    with app.test_request_context():
        assert again(flask_babel.lazy_gettext("Hello %(name)s", name="Kim")) == "Hello Kim"
    settings = pytest.importorskip("django.conf").settings
    if not settings.configured:
        settings.configure(USE_I18N=False)
    translation = pytest.importorskip("django.utils.translation")
    text = pytest.importorskip("django.utils.text")
    assert again(translation.gettext_lazy("Hello")) == "Hello"
    assert again(translation.ngettext_lazy("%d book", "%d books") % 2) == "2 books"
    assert again(text.format_lazy("{} there", translation.gettext_lazy("Hello"))) == "Hello there"


def test_djangos_safe_string_comes_back_as_one_and_stays_safe_through_a_lazy_one():
    """Markup does, and templates would escape what the application has marked as safe."""
    safestring = pytest.importorskip("django.utils.safestring")
    back = again([safestring.mark_safe("<b>")])[0]
    assert (back, type(back)) == ("<b>", safestring.SafeString)
    lazy = lazy_of("django.utils.functional", [safestring.mark_safe("<b>")])
    assert type(again(lazy)) is str, "a lazy text is stored as a plain one, which templates escape"


def test_a_safe_string_comes_back_as_str_where_django_is_missing():
    """A worker without it may share the session."""
    data = bytes.fromhex("d9ea67" + "63" + b"<b>".hex())
    code = (
        "import sys; sys.modules['django'] = None; sys.modules['django.utils.safestring'] = None\n"
        "from gossipsess.wire.values import decode_value\n"
        f"print([decode_value({data!r})])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"['<b>']\n"


@pytest.mark.parametrize("module", ["oauthlib.oauth2.rfc6749.tokens", "authlib.oauth2.rfc6749.wrappers"])
def test_the_token_of_an_oauth_client_is_stored_as_the_dict_that_it_is(module):
    """`session["oauth_token"] = client.fetch_token(...)` is how their own documentation logs a user in."""
    token = pytest.importorskip(module).OAuth2Token({"access_token": "x", "expires_at": 1, "scope": ["a"]})
    back = again({"token": token})["token"]
    assert type(back) is dict
    assert back == dict(token)


def test_looking_whether_something_is_lazy_runs_none_of_its_code():
    """Not even of a class that pretends to be one."""

    def forbidden(*args: object) -> None:
        raise AssertionError("the refused object's own code ran")

    class Meta(type):
        __eq__ = __instancecheck__ = __subclasscheck__ = forbidden  # type: ignore[assignment]
        __hash__ = type.__hash__
        __mro__ = property(forbidden)  # type: ignore[assignment]

    class LazyString(metaclass=Meta):
        __str__ = __getattr__ = __getattribute__ = forbidden  # type: ignore[assignment]
        __class__ = property(forbidden)  # type: ignore[assignment]

    LazyString.__module__, LazyString.__qualname__ = "flask_babel.speaklater", "LazyString"
    pytest.importorskip("flask_babel.speaklater")
    from gossipsess.wire.value_standins import is_lazy_text, stood_for

    assert not is_lazy_text(LazyString())
    assert stood_for(LazyString()) is None


Point = namedtuple("Point", "x y")
Plan = Enum("Plan", {"PAID": "paid"}, type=str)


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (Plan.PAID, "paid"),
        (StrEnum("Day", ["MON"]).MON, "mon"),
        (IntEnum("Level", ["LOW"]).LOW, 1),
        (IntFlag("Right", ["READ", "WRITE"])(3), 3),
        (Point(1, [2]), (1, [2])),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (defaultdict(list, a=[1]), {"a": [1]}),
        (Counter("aab"), {"a": 2, "b": 1}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_json_writes_as_its_base_is_stored_as_its_base(value, stored):
    """The sessions of frameworks are JSON: an application whose session held it would answer 500 with ours."""
    assert exactly(again(value)) == exactly(stored)
    assert exactly(again({"deep": [value]})) == exactly({"deep": [stored]})
    session = session_with()
    session["v"] = value
    assert session["v"] is value, "this request goes on with its own object"
    assert changed(session) == {"v": encode_value(stored, PATH)}


def test_enumerations_are_keys_and_members_as_their_base_is():
    """They are equal to it, so that none is lost."""
    assert again({Plan.PAID: {Plan.PAID}}) == {"paid": {"paid"}}


def test_the_multi_dicts_of_requests_are_stored_as_indexing_reads_them():
    """`session["filters"] = request.args`, and `request.GET` in Django: JSON wrote those values."""
    werkzeug = pytest.importorskip("werkzeug.datastructures")
    django = pytest.importorskip("django.utils.datastructures")
    args = werkzeug.ImmutableMultiDict([("q", "1"), ("q", "2")])
    get = django.MultiValueDict({"q": ["1", "2"]})
    assert (exactly(again(args)), exactly(again(get))) == (exactly({"q": args["q"]}), exactly({"q": get["q"]}))


@pytest.mark.parametrize("module", ["django.utils.functional", "werkzeug.local"])
def test_proxies_of_objects_are_no_texts(module):
    """`request.user` and `current_user` stand for whole objects: they are refused as these are."""
    imported = pytest.importorskip(module)
    proxy = imported.SimpleLazyObject(lambda: "x") if module.startswith("django") else imported.LocalProxy(lambda: "x")
    with pytest.raises(UnreplicableValue) as caught:
        encode_value(proxy, PATH)
    assert str(caught.value).startswith(f"{PATH}: {'SimpleLazyObject' if 'django' in module else 'LocalProxy'} ")


def test_nothing_is_imported_to_tell_whether_something_is_lazy():
    """Whoever does not use a framework should not pay for it."""
    code = (
        "import sys; from gossipsess.wire.values import *\n"
        "try: encode_value(object(), 'x')\n"
        "except TypeError: print([name for name in sys.modules if name.split('.')[0] in "
        "('django', 'babel', 'flask_babel', 'speaklater', 'authlib', 'oauthlib', 'markupsafe')])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"[]\n"
