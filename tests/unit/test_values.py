"""The session-value codec: what is accepted, what is refused and in which words, and its bounds."""

import decimal
import enum
import functools
import re
import subprocess
import sys
import threading
import zoneinfo
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from uuid import UUID
from zoneinfo import ZoneInfo

import cbor2
import pytest
from markupsafe import Markup

from gossipsess.errors import DecodeError, SessionTooLarge, UnreadableValue, UnreplicableValue
from gossipsess.wire.values import DEPTH_MAX, VALUE_BYTES_MAX, decode_value, encode_value
from tests.unit.test_session import session_over, session_with

PATH = "session['user']"


def refusal(value: object) -> UnreplicableValue:
    with pytest.raises(UnreplicableValue) as caught:
        encode_value(value, PATH)
    return caught.value


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


class Profile:
    def __init__(self) -> None:
        self.nick = "kim"

    def greet(self) -> str:
        return f"Hello {self.nick}"


@dataclass
class User:
    id: int
    profile: object


# Accepted


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -(2**64) - 1,
        2**64,
        1.0,
        float("-inf"),
        "grüße",
        b"\x00\xff",
        [],
        (),
        {},
        set(),
        frozenset(),
        {"cart": [{"sku": "a", "price": Decimal("1.50")}], 7: (1, [2, (3,)])},
        {(1, "a"): frozenset({(2,), frozenset()}), date(2024, 2, 29): {1, "1", b"1"}},
        datetime(2024, 10, 27, 2, 30, fold=1),
        datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Rome")),
        datetime(2024, 1, 1, tzinfo=UTC),
        datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=-3, seconds=-1))),
        time(23, 59, 59, 999999),
        time(1, tzinfo=ZoneInfo("Europe/Rome")),
        timedelta.min,
        Decimal("-0E+3"),
        UUID(int=1),
        Markup("<b>"),
    ],
    ids=repr,
)
def test_a_replicable_value_comes_back_equal_and_of_its_type(value):
    """repr() tells apart what == does not: 1 and True, Decimal("1.5") and Decimal("1.50"), a zone's key."""
    again = decode_value(encode_value(value, PATH))
    assert (again, type(again)) == (value, type(value))
    if not isinstance(value, dict | set | frozenset):
        assert repr(again) == repr(value)


def test_the_bytes_of_a_value_stay_as_they_are():
    """Nodes of two releases run side by side during a rollout and read each other's values."""
    value = {
        "a": (1, {2}),
        "at": datetime(2024, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
        "m": Markup("b"),
        "d": Decimal(1),
    }
    assert encode_value(value, PATH).hex() == (
        "a4"
        "6161" + "d9ea6a8201d9ea6b8102"
        "626174" + "d9ea60891907e8010203040506" + "0000"
        "616d" + "d9ea666162"
        "6164" + "d9ea646131"
    )  # fmt: skip


def test_a_decoded_value_shares_nothing_with_the_one_encoded():
    """A request that changes its session must not change what another request reads."""
    inner = [1]
    value = {"a": inner, "b": inner, "t": (inner,)}
    data = encode_value(value, PATH)
    first, second = decode_value(data), decode_value(data)
    first["a"].append(2)
    first["t"][0].append(3)
    assert first == {"a": [1, 2], "b": [1], "t": ([1, 3],)}
    assert second == value == {"a": [1], "b": [1], "t": ([1],)}


def test_a_zone_of_another_library_keeps_its_offset():
    """Old applications bring pytz or dateutil; the moment must survive, though the zone's class cannot."""

    class OtherZone(tzinfo):
        def utcoffset(self, moment: datetime | None) -> timedelta:
            return timedelta(hours=5, minutes=45)

        def dst(self, moment: datetime | None) -> None: ...

    again = decode_value(encode_value(datetime(2024, 1, 1, tzinfo=OtherZone()), PATH))
    assert again.isoformat() == "2024-01-01T00:00:00+05:45"


def test_a_zone_unknown_here_comes_back_as_its_offset():
    """A container image without zone data must still be able to read the session."""
    data = encode_value(datetime(2024, 1, 1, tzinfo=ZoneInfo("Europe/Rome")), PATH)
    again = decode_value(data.replace(b"Europe/Rome", b"Europe/Nome"))
    assert again == datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=1)))


def test_a_decimal_has_the_same_bytes_in_every_decimal_context():
    """str(Decimal) follows a setting of the thread, and a session must not look changed for that."""
    data = encode_value(Decimal("1E+9"), PATH)
    with decimal.localcontext(capitals=0):
        assert encode_value(Decimal("1E+9"), PATH) == data


def test_dict_keys_that_only_the_codec_could_confuse_stay_apart():
    """Two Decimal NaNs are two keys."""
    again = decode_value(encode_value({Decimal("NaN"): 1, Decimal("NaN"): 2}, PATH))
    assert list(again.values()) == [1, 2]


def test_markup_comes_back_as_str_where_markupsafe_is_missing(monkeypatch):
    """A worker without a template engine may share the session with a web app that has one."""
    data = encode_value(Markup("<b>"), PATH)
    monkeypatch.setitem(sys.modules, "markupsafe", None)
    again = decode_value(data)
    assert again == "<b>"
    assert type(again) is str


def test_encoding_and_importing_never_import_markupsafe():
    """Whoever does not use it should not pay for it."""
    code = (
        "import sys; from gossipsess.wire.values import *; encode_value([(1,), {2}], 'x')\n"
        "try: encode_value(object(), 'x')\n"
        "except TypeError: print('markupsafe' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"False\n"


# Refused


def test_the_refusal_names_the_object_and_the_innermost_culprit_and_what_to_do():
    """Nobody should have to search a user object for the one field that holds a lock."""
    error = refusal(User(1, Profile()))
    assert (error.path, error.type_name) == ("session['user'].profile", "Profile")
    assert "session['user']: User" in str(error)
    assert "session['user'].profile: Profile" in str(error)
    assert "a dict of the fields you need, or an id" in str(error)


def test_an_object_whose_fields_are_all_replicable_is_the_culprit_itself():
    """There is nothing further inside to point at."""
    error = refusal(User(1, {"nick": "kim"}))
    assert (error.path, error.type_name) == ("session['user']", "User")


class Slotted:
    __slots__ = ("__lock",)

    def __init__(self) -> None:
        self.__lock = threading.Lock()


class SlotUnset(Slotted):
    __slots__ = ("never_set",)


class Cart(list): ...


class Basket(dict): ...


class Colour(enum.Enum):
    RED = 1


Point = namedtuple("Point", "x y")


@pytest.mark.parametrize(
    ("value", "path", "type_name"),
    [
        ({"cart": [{"price": Profile()}]}, "['cart'][0]['price']", "Profile"),
        ((1, (2, object())), "[1][1]", "object"),
        ({1, Profile()}, "{...}", "Profile"),
        ({Profile(): 1}, ".keys(){...}", "Profile"),
        ({(1, 2): {b"k": object()}}, "[(1, 2)][b'k']", "object"),
        ({"k" * 100: object()}, "['" + "k" * 59 + "...]", "object"),
        (User(1, {"deep": [User(2, SlotUnset())]}), ".profile['deep'][0].profile._Slotted__lock", "lock"),
        (Cart([1, Profile()]), "[1]", "Profile"),
        (Point(1, Profile()), "[1]", "Profile"),
        (OrderedDict(a=Profile()), "['a']", "Profile"),
        (Basket(a=1), "", "Basket"),
        (User(1, nested(3 * DEPTH_MAX)), ".profile" + "[0]" * DEPTH_MAX, "list"),
        (Colour.RED, "", "Colour"),
        (Profile, "", "type"),
        (threading, "", "module"),
        (refusal, "", "function"),
        (functools.partial(print), "", "partial"),
    ],
)
def test_the_path_leads_to_the_culprit_as_python_would_write_it(value, path, type_name):
    """A path that can be pasted into a debugger."""
    error = refusal(value)
    assert (error.path, error.type_name) == (PATH + path, type_name)


class Name(str): ...


class Moment(datetime): ...


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        (Colour.RED, "Store its .value"),
        (bytearray(b"x"), "Use bytes"),
        (memoryview(b"x"), "Use bytes"),
        (Name("kim"), "store a plain str"),
        (type("Count", (int,), {})(1), "store a plain int"),
        (Basket(a=1), "store a plain dict"),
        (type("Pair", (tuple,), {})((1, 2)), "store a plain tuple"),
        (Moment(2024, 1, 1), "store a plain datetime"),
        ("\ud800", "'surrogatepass'"),
        (Markup("\ud800"), "'surrogatepass'"),
        (range(3), "Store plain values"),
    ],
)
def test_the_refusal_says_what_to_store_instead(value, remedy):
    """Each of these would come back as another type, or not at all."""
    assert remedy in str(refusal(value))
    assert remedy in str(refusal({"inside": [value]}))


@pytest.mark.parametrize("value", [["a", "\ud800"], ({"b": 1, "a": "\ud800"},), {1, (2, "\ud800")}])
def test_text_that_is_not_utf8_is_found_wherever_it_is(value):
    """The encoder meets it when the path is long gone, so it is looked for again."""
    assert refusal(value).type_name == "str"
    assert refusal(value).path != PATH


def test_a_time_of_day_in_a_zone_unknown_here_hides_nothing_else_of_the_session(monkeypatch):
    """It has no offset by itself. As an error of the bytes it made every request of that session fail, a logout too."""
    session = session_with(opens=time(9, 30, tzinfo=ZoneInfo("Europe/Berlin")), user="kim")
    monkeypatch.setitem(sys.modules, "tzdata", None)
    ZoneInfo.clear_cache()
    zoneinfo.reset_tzpath(to=[])
    try:
        there = session_over(session.record)
        assert there._decoded() == {"user": "kim"}, "what Starlette's session is made of"
        with pytest.raises(UnreadableValue, match=r"session\['opens'\] .*'Europe/Berlin', which is not known here"):
            there["opens"]
        there.clear()
        assert there.is_empty
    finally:
        zoneinfo.reset_tzpath()


def test_a_zone_without_an_offset_is_refused():
    """Its moment could not be told anywhere else."""

    class Nowhere(tzinfo):
        def utcoffset(self, moment: datetime | None) -> None: ...

    assert "gives no UTC offset" in str(refusal(datetime(2024, 1, 1, tzinfo=Nowhere())))
    assert "gives no UTC offset" in str(refusal(time(1, tzinfo=Nowhere())))


def test_looking_for_the_culprit_runs_none_of_its_code():
    """A property may query a database, and __getattr__ of a lazy object may do anything."""

    def forbidden(*args: object) -> None:
        raise AssertionError("the refused object's own code ran")

    class Lazy:
        __slots__ = ("field",)
        __getattr__ = __getattribute__ = __repr__ = __str__ = __eq__ = __hash__ = __len__ = __iter__ = forbidden
        __dict__ = __class__ = dear = property(forbidden)

    lazy = Lazy()
    Lazy.field.__set__(lazy, Profile())
    assert refusal([lazy]).path == "session['user'][0].field"


def test_values_are_never_shown():
    """Messages end in logs, and sessions hold secrets."""
    assert "hunter2" not in str(refusal(User(1, {"password": "hunter2", "k": object(), "n": Name("hunter2")})))


@pytest.mark.parametrize("make", [lambda x: [x], lambda x: {"a": {"b": x}}, lambda x: (1, x)])
def test_a_value_that_contains_itself_is_refused_with_the_way_back(make):
    """Not a RecursionError, and not a hint about depth that sends one off to count brackets."""
    value: list[object] = []
    value.append(make(value))
    root = {"tree": value}
    error = refusal(root)
    assert "contains itself" in str(error)
    steps = re.findall(r"\[[^]]*\]", error.path.removeprefix(PATH))
    paths = ("root" + "".join(steps[:count]) for count in range(len(steps) + 1))
    on_the_way = [id(eval(path, {"root": root})) for path in paths]
    assert on_the_way.count(on_the_way[-1]) == 2, "once around the cycle is enough"


def test_objects_that_refer_to_each_other_are_searched_once():
    """ORM objects do that all the time."""
    one, two = User(1, None), User(2, None)
    one.profile, two.profile = two, one
    assert refusal(one).path == "session['user'].profile"


def test_a_long_chain_of_objects_is_not_followed_to_its_end():
    """The search costs a walk for each object, in the request that made the mistake."""
    chain: object = None
    for number in range(1000):
        chain = User(number, chain)
    assert refusal(chain).path.count(".profile") < 20


# Bounds


def test_depth_is_bounded_on_both_sides():
    """What one node accepts, every other accepts; what none sends, none accepts."""
    data = encode_value(nested(DEPTH_MAX), PATH)
    assert decode_value(data) == nested(DEPTH_MAX)
    assert "32 other containers" in str(refusal(nested(DEPTH_MAX + 1)))
    with pytest.raises(DecodeError):
        decode_value(b"\x81" + data)


def test_the_deepest_tuples_and_dates_still_come_back():
    """A tuple takes two of CBOR's own levels and a date three, which must not make its bound the narrower."""
    value: object = datetime(2024, 1, 1, tzinfo=ZoneInfo("Europe/Rome"))
    for _ in range(DEPTH_MAX):
        value = (value,)
    assert decode_value(encode_value(value, PATH)) == value


@pytest.mark.parametrize("wrap", [lambda text: text, lambda text: {"bio": text}], ids=["plain", "inside"])
def test_a_value_over_the_size_bound_is_refused_with_path_size_and_bound(wrap):
    """Raised at the line that made it too large, not when a frame fails to be sent."""
    overhead = len(encode_value(wrap("x" * 100_000), PATH)) - 100_000
    largest = "x" * (VALUE_BYTES_MAX - overhead)
    assert decode_value(encode_value(wrap(largest), PATH)) == wrap(largest)
    with pytest.raises(
        SessionTooLarge,
        match=rf"^session\['user'\] takes {VALUE_BYTES_MAX + 1} bytes, and {VALUE_BYTES_MAX} ",
    ):
        encode_value(wrap(largest + "x"), PATH)


def test_many_small_containers_fit_as_long_as_their_bytes_do():
    """The guard against endless walks counts items, and must not refuse before the size does."""
    value = [[]] * (VALUE_BYTES_MAX - 5)
    assert len(encode_value(value, PATH)) == VALUE_BYTES_MAX


def test_a_small_object_that_unfolds_without_end_is_refused_at_once():
    """Thirty lists of ten references are a few kilobytes here and 10**30 items on the wire."""
    value: object = 1
    for _ in range(DEPTH_MAX):
        value = [value] * 10
    with pytest.raises(SessionTooLarge, match=f"at least {VALUE_BYTES_MAX + 1} bytes"):
        encode_value(value, PATH)
    with pytest.raises(SessionTooLarge, match="at least"):
        encode_value(["x" * 1_000_000] * 100_000, PATH)
    with pytest.raises(SessionTooLarge, match="at least"):
        encode_value({("x" * 1_000_000,) * 100_000}, PATH)


# Hostile bytes


@pytest.mark.parametrize(
    "tag", [0, 1, 4, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799]
)
def test_no_tag_but_ours_is_decoded(tag):
    """cbor2 would compile a peer's regular expression, or tie its lists into a cycle."""
    for content in ("a", b"a", 1, [1, 2], {}, [[1]]):
        with pytest.raises(DecodeError, match="tag"):
            decode_value(cbor2.dumps(cbor2.CBORTag(tag, content)))


@pytest.mark.parametrize(
    "data",
    [
        "",
        "f7",  # undefined
        "e0",  # a simple value
        "81f7",
        "9f01ff",  # an array without a length
        "5f4161ff",  # bytes in pieces
        "6161" + "00",  # a byte after the value
        "80" + "00",
        "f6" + "f6",
        "1800",  # 0 in two bytes
        "61ff",  # not UTF-8
        "9bffffffffffffffff",  # an array said to be huge
        "7b00000000ffffffff",
        "a201000101",  # the same key twice
        "a1800000",  # a list as key
        "a1d9ea6141" + "0000",  # a tag as key
        "d9ea6b820101",  # a set with the same member twice
        "d9ea6b8180",  # a set with a list in it
        "d9ea6d8101",  # a key without a value
        "d9ea6d828001",  # a list as key
        "d9ea6a01",  # a tuple of what is no array
        "d9ea6f80",  # a tag of ours that is not in use
        "d9ea6001",  # a datetime of what is no array
        "d9ea6080",
        "d9ea60891907e80d0100000000" + "00f6",  # month 13
        "d9ea60891907e8f50100000000" + "00f6",  # month True
        "d9ea60891907e8010100000000" + "00" + "1bffffffffffffffff",  # an offset of centuries
        "d9ea60891907e8010100000000" + "00" + "8263" + b"../".hex() + "00",  # a way out of the zone folder
        "d9ea60891907e8010100000000" + "00" + "8262" + b"no".hex() + "f6",  # an unknown zone and no offset
        "d9ea6100",  # day 0
        "d9ea63831b7fffffffffffffff0000",  # a timedelta of too many days
        "d9ea6461" + b"x".hex(),  # no decimal
        "d9ea6401",
        "d9ea6541" + "00",  # a UUID of one byte
        "d9ea6601",  # markup that is no text
        "c201",  # a big int that is not bytes
        "d9ea6b81d9ea64" + "64" + b"SNAN".hex(),  # a member that cannot be hashed
    ],
)  # fmt: skip
def test_malformed_bytes_are_a_decode_error(data):
    """Counted and dropped where they arrive; any other exception would end the receive loop."""
    with pytest.raises(DecodeError):
        decode_value(bytes.fromhex(data))


def test_whatever_two_bytes_are_is_a_value_or_a_decode_error():
    """All of them: a head alone, whose length is missing, is what random damage seldom leaves."""
    ends = [b"", *(bytes([byte]) for byte in range(256))]
    read = 0
    for data in (bytes([first]) + end for first in range(256) for end in ends):
        try:
            decode_value(data)
        except DecodeError:
            continue
        read += 1
    assert read > 256, "numbers below 256, at the least"


def test_bytes_over_the_size_bound_are_refused_unread():
    """Their cost must not grow with what a peer chooses to send."""
    with pytest.raises(DecodeError, match="bytes, not between"):
        decode_value(cbor2.dumps("x" * VALUE_BYTES_MAX))


def test_endless_nesting_is_a_decode_error():
    """Neither the parser's stack nor ours may be spent by a peer."""
    for head in (b"\x81", b"\xa1", b"\xc6", b"\xd9\xea\x6a\x81"):
        with pytest.raises(DecodeError):
            decode_value(head * 50_000 + b"\x00")


@pytest.mark.parametrize("number", [2**64 - 1, 2**64, -(2**64), -(2**64) - 1, 2**200])
def test_a_large_number_may_be_a_key(number):
    """CBOR tags numbers beyond 64 bits, and a tag as a key was once refused on the way back."""
    value = {number: "x", "deep": [{number: 1}]}
    assert decode_value(encode_value(value, "session['n']")) == value


def test_a_key_that_python_cannot_write_hides_no_refusal():
    """An int of thousands of digits may be a key, and the error must still be ours, and name what is to blame."""
    assert refusal({10**5000: object()}).path == f"{PATH}[<int>]"
