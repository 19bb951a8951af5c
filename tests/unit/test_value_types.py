"""Types that an application registers: what travels, what two releases side by side read, and what is refused."""

import enum
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import InitVar, dataclass, field
from decimal import Decimal
from typing import Any

import cbor2
import pytest

import gossipsess
from gossipsess import ConfigError, UnreadableValue, UnreplicableValue, register_type
from gossipsess.errors import DecodeError
from gossipsess.wire import value_types
from gossipsess.wire.values import DEPTH_MAX, decode_value, encode_value
from tests.unit.machines import ALICE, BOB, Clocked, exchange
from tests.unit.test_session import changed, session_over, session_with, stored

PATH = "session['user']"


@pytest.fixture(autouse=True)
def no_types() -> Iterator[None]:
    """Each test is a process of its own, in which nothing is registered."""
    yield
    forget_types()


@pytest.fixture
def quick_switches() -> Iterator[None]:
    """Threads take turns as often as they can, so that what one may do to another happens."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def forget_types() -> None:
    value_types._by_class, value_types._by_name = {}, {}


@dataclass
class Point:
    x: int
    y: Any = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    start: Point
    end: Point
    tags: tuple[str, ...] = ()


class Colour(enum.Enum):
    RED = object()
    BLUE = (object(),)


class Level(enum.IntEnum):
    LOW = 1


class Kind(enum.StrEnum):
    GUEST = "guest"


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


class Money:
    def __init__(self, amount: Decimal, currency: str) -> None:
        self.amount, self.currency = amount, currency


def money() -> Money:
    register_type(Money, to_value=lambda m: (m.amount, m.currency), from_value=lambda value: Money(*value))
    return Money(Decimal("9.50"), "EUR")


def again(value: object) -> Any:
    return decode_value(encode_value(value, PATH))


def refusal(value: object) -> UnreplicableValue:
    with pytest.raises(UnreplicableValue) as caught:
        encode_value(value, PATH)
    return caught.value


# What travels


def test_a_dataclass_needs_its_name_and_nothing_else():
    """What most applications keep in their sessions, in their own code."""
    register_type(Point)
    register_type(Line)
    value = {"lines": [Line(start=Point(1), end=Point(2, {"deep": (Point(3),)}), tags=("a",))], "none": None}
    assert again(value) == value
    assert type(again(value)["lines"][0].end) is Point
    assert again(value)["lines"][0].tags == ("a",)


def test_it_decorates_classes_too():
    """With a name or without one."""

    @register_type
    @dataclass
    class Plain:
        x: int

    @register_type(name="the named one")
    @dataclass
    class Named:
        x: int

    assert (again(Plain(1)), again(Named(2))) == (Plain(1), Named(2))
    assert b"the named one" in encode_value(Named(2), PATH)


@pytest.mark.parametrize("value", [Colour.RED, Level.LOW, Kind.GUEST, Rights.READ, Rights.READ | Rights.WRITE])
def test_an_enum_comes_back_as_the_member_itself(value):
    """`is` is how members are compared. A combination of flags has no name, a member may have a value that cannot
    travel."""
    register_type(type(value))
    assert again([value])[0] is value
    assert again({value: 1}) == {value: 1}


def test_any_other_class_says_how_it_travels():
    """With any value that travels by itself."""
    sent = money()
    back = again([sent])[0]
    assert (type(back), back.amount, back.currency) == (Money, Decimal("9.50"), "EUR")


def test_a_computed_field_comes_back_as_it_was():
    """It is not the constructor's, and `__post_init__` would make another."""

    @register_type
    @dataclass(frozen=True)
    class Ticket:
        seat: int
        serial: list[int] = field(init=False, default_factory=lambda: [object()])

    ticket = Ticket(1)
    object.__setattr__(ticket, "serial", [7])
    assert again(ticket) == ticket


def test_what_is_registered_may_be_a_member_of_a_set():
    """Its bytes are sorted like any others."""
    register_type(Level)
    register_type(Line, name="frozen", to_value=lambda line: line.tags, from_value=lambda tags: line_with(tags))
    lines = frozenset({line_with(("a",)), line_with(("b",))})
    assert again({lines, Level.LOW}) == {lines, Level.LOW}


def line_with(tags: tuple[str, ...]) -> Line:
    return Line(start=None, end=None, tags=tags)  # type: ignore[arg-type]


# Two releases of an application, side by side


def test_an_older_release_drops_a_field_that_it_does_not_have_and_a_newer_one_takes_its_default():
    """A rolling deployment serves one session by both."""
    register_type(Point)
    data = encode_value(Point(1, 2), PATH)
    forget_types()

    @dataclass
    class Other:
        x: int
        z: list[int] = field(default_factory=lambda: [3])

    register_type(Other, name="Point")
    assert decode_value(data, PATH) == Other(1, [3])


def test_a_release_that_only_looks_at_a_value_does_not_write_it_back():
    """It would take from the newer release what that has stored, though nobody changed anything."""
    register_type(Point)
    record = stored({"at": Point(1, 2), "other": 1})
    forget_types()

    @dataclass
    class Older:
        x: int

    register_type(Older, name="Point")
    session = session_over(record)
    assert session["at"] == Older(1)
    session["other"] = 2
    assert set(changed(session)) == {"other"}
    session["at"].x = 5
    assert set(changed(session)) == {"other", "at"}, "but a change of its own counts"
    session["at"].x = 1
    session["at"] = Older(1)
    assert set(changed(session)) == {"other", "at"}, "and so does an assignment"


def test_a_change_inside_a_registered_object_is_noticed():
    """As one inside a list is."""
    register_type(Point)
    session = session_with(at=Point(1), unchanged=Point(2))
    assert session["unchanged"].x == 2
    session["at"].x = 7
    assert changed(session) == {"at": encode_value(Point(7), PATH)}


# What this process cannot read


def test_a_key_with_a_type_that_is_not_registered_says_so_and_all_others_can_be_read():
    """One worker was started without the module; the shop must still be able to show the cart."""
    register_type(Point)
    session = session_with(at={"here": [Point(1)]}, cart=["book"])
    forget_types()
    assert session["cart"] == ["book"]
    for _ in range(2):
        with pytest.raises(
            UnreadableValue, match=r"session\['at'\] cannot be read: 'Point' is not registered"
        ) as caught:
            session["at"]
        assert "gossipsess.register_type" in str(caught.value)
        assert (caught.value.path, caught.value.type_name) == ("session['at']", "Point")
    with pytest.raises(UnreadableValue):
        session.get("at")
    assert "at" in session
    session["cart"].append("pen")
    assert set(changed(session)) == {"cart"}, "what nobody touched stays as it is"
    register_type(Point)
    assert session["at"] == {"here": [Point(1)]}


def test_a_key_that_cannot_be_read_can_be_deleted_and_cleared_and_replaced():
    """A logout must not depend on it."""
    register_type(Point)
    made = [session_with(at=Point(1), user="kim") for _ in range(3)]
    forget_types()
    deleted, cleared, replaced = made
    del deleted["at"]
    cleared.clear()
    replaced["at"] = 1
    assert set(changed(deleted)) == {"at"}
    assert changed(cleared) == {"at": None, "user": None}
    assert replaced["at"] == 1


def test_nodes_replicate_what_they_cannot_read():
    """Values are the application's: a node that stores them for others knows none of its classes."""
    register_type(Point)
    here, there = (Clocked(node).alone() for node in (ALICE, BOB))
    here.linked(BOB)
    there.linked(ALICE)
    session = here.store.create()
    session["at"] = Point(1)
    here.store.commit(session, 0)
    forget_types()
    here.waits(1.0)
    exchange(here, there)
    other = there.store.load(session.cookie)
    with pytest.raises(UnreadableValue):
        other["at"]
    there.store.rotate(other, 0)
    register_type(Point)
    assert dict(there.store.load(other.cookie)) == {"at": Point(1)}


@pytest.mark.parametrize(
    ("to_value", "from_value", "says"),
    [
        (lambda m: 1, lambda value: {}["x"], "KeyError"),
        (lambda m: 1, lambda value: value, "returned int"),
    ],
)
def test_a_from_value_that_fails_is_told_with_the_path_and_without_the_value(to_value, from_value, says):
    """The reader is the one who can mend it, and the message ends in a log."""
    register_type(Money, to_value=to_value, from_value=from_value)
    data = encode_value(Money(Decimal(1), "EUR"), PATH)
    with pytest.raises(UnreadableValue, match=says) as caught:
        decode_value(data, PATH)
    assert str(caught.value).startswith(f"{PATH} cannot be read: 'Money'")
    assert (caught.value.__cause__ is not None) == (says == "KeyError")


def test_an_enum_member_that_this_release_does_not_have_cannot_be_read():
    """Another one in its place would be a lie."""
    register_type(Level)
    data = encode_value(Level.LOW, PATH)
    forget_types()
    register_type(enum.IntEnum("Level", ["HIGH"]))
    with pytest.raises(UnreadableValue, match="'Level' could not be made"):
        decode_value(data)


# What is refused


class Special(Point): ...


@dataclass
class Outer:
    inner: Any


@pytest.mark.parametrize(
    ("value", "path", "type_name"),
    [
        (Special(1), "", "Special"),
        (Outer([Point(1), object()]), ".inner[1]", "object"),
        ({"a": Outer(Outer({"k": Special(1)}))}, "['a'].inner.inner['k']", "Special"),
        (Outer("\ud800"), ".inner", "str"),
    ],
)
def test_the_path_to_what_cannot_travel_leads_through_registered_objects(value, path, type_name):
    """A derived class would come back as its base, registered or not."""
    register_type(Point)
    register_type(Outer)
    error = refusal(value)
    assert (error.path, error.type_name) == (PATH + path, type_name)


def test_a_to_value_that_fails_is_told_where_it_is_assigned():
    """Whatever it raises, the assignment is refused and nothing else."""
    register_type(Money, to_value=lambda m: m.price, from_value=lambda value: value)
    assert "session['user'][0]: Money has a to_value that raised AttributeError" in str(
        refusal([Money(Decimal(1), "")])
    )
    register_type(Money, to_value=lambda m: [object()], from_value=lambda value: value)
    assert refusal(Money(Decimal(1), "")).path == "session['user']<to_value>[0]"
    register_type(Money, to_value=lambda m: m, from_value=lambda value: value)
    assert "returns an object of a registered type" in str(refusal(Money(Decimal(1), "")))


def test_a_dataclass_object_without_one_of_its_fields_is_refused():
    """An ORM may leave a field out; it must not come back with a default."""
    register_type(Point)
    point = Point(1)
    del point.x
    assert "Point has no x" in str(refusal(point))


def test_objects_that_contain_themselves_are_refused_with_the_way_back():
    """As lists are."""
    register_type(Outer)
    outer = Outer(None)
    outer.inner = Outer([outer])
    assert "contains itself" in str(refusal(outer))


def test_objects_count_as_one_level_each():
    """The bound is the same on both sides, however an object is told, and neither stack is a peer's to spend."""
    register_type(Outer)
    register_type(Money, to_value=lambda m: (m.amount,), from_value=lambda value: Money(value[0], ""))
    value: Any = None
    for number in range(DEPTH_MAX):
        value = Money(value, "") if number % 2 else Outer(value)
    data = encode_value(value, PATH)
    decode_value(data)
    assert "32 other containers" in str(refusal(Outer(value)))
    assert "32 other containers" in str(refusal(Money(value, "")))
    for around in (b"\x81", bytes.fromhex("d9ea6e82" + "65" + b"Money".hex() + "81")):
        with pytest.raises(DecodeError):
            decode_value(around + data)


@pytest.mark.parametrize("kind", [Point, Colour, Money])
def test_the_refusal_of_what_could_be_registered_says_how(kind):
    """Nobody reads the documentation before the first error."""
    value = Colour.RED if kind is Colour else kind(1, 2)
    assert "gossipsess.register_type" in str(refusal(value))


@dataclass
class WithInitVar:
    x: int
    seed: InitVar[int]


@dataclass(init=False)
class OwnConstructor:
    x: int

    def __init__(self, text: str) -> None:
        self.x = int(text)


@pytest.mark.parametrize(
    ("arguments", "options", "says"),
    [
        ((Money,), {}, "to_value=..., from_value=..."),
        ((Special,), {}, "above @dataclass"),
        ((Money,), {"to_value": str}, "both"),
        ((WithInitVar,), {}, "other arguments"),
        ((OwnConstructor,), {}, "other arguments"),
        ((dict,), {}, "a class of your own"),
        ((bool,), {}, "a class of your own"),
        (("Point",), {}, "a class of your own"),
        ((Point,), {"name": ""}, "1 to 256"),
        ((Point,), {"name": "x" * 257}, "1 to 256"),
        ((Point,), {"name": "\ud800"}, "1 to 256"),
    ],
)
def test_a_registration_that_cannot_work_is_refused_at_once(arguments, options, says):
    """And not by the first session that needs it."""
    with pytest.raises(ConfigError, match=says):
        register_type(*arguments, **options)
    assert value_types._by_class == value_types._by_name == {}


def test_a_name_has_one_class_and_a_class_one_name():
    """Else what comes back depends on who came last."""
    register_type(Point)
    register_type(Point)
    with pytest.raises(ConfigError, match="another name="):
        register_type(Outer, name="Point")
    with pytest.raises(ConfigError, match="registered already, as 'Point'"):
        register_type(Point, name="P")
    assert again(Point(1)) == Point(1)
    with pytest.raises(UnreplicableValue):
        encode_value(Outer(1), PATH)


def test_a_class_whose_module_was_loaded_anew_takes_its_place():
    """Notebooks and reloaders do that all the time."""

    def load() -> type:
        @dataclass
        class Loaded:
            x: int

        return register_type(Loaded)

    old, new = load(), load()
    assert type(again(new(1))) is new
    with pytest.raises(UnreplicableValue):
        encode_value(old(1), PATH)


def test_threads_register_at_once_and_none_is_lost(quick_switches):
    """Modules are imported by whichever request needs them first."""
    classes: list[Any] = [enum.Enum(f"E{number}", ["A"]) for number in range(400)]
    together = threading.Barrier(4)

    def work(mine: list[Any]) -> None:
        together.wait()
        for cls in mine:
            register_type(cls)

    threads = [threading.Thread(target=work, args=(classes[start::4],)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(value_types._by_name) == len(value_types._by_class) == 400
    assert all(again(cls.A) is cls.A for cls in classes)


# Hostile bytes


@pytest.mark.parametrize(
    "content",
    [
        1,
        [],
        ["Point"],
        [1, 1],
        ["Point", 1, 1],
        ["Point", cbor2.CBORTag(60014, ["Point", {}])],
        ["Point", cbor2.CBORTag(35, "x")],
    ],
)
def test_a_malformed_object_is_a_decode_error(content):
    """Counted and dropped, as any other malformed value."""
    register_type(Point)
    with pytest.raises(DecodeError):
        decode_value(cbor2.dumps(cbor2.CBORTag(60014, content)))


@pytest.mark.parametrize("name", ["", "os.system", "builtins.eval", "tests.unit.test_value_types.Point", "x" * 1000])
@pytest.mark.parametrize("plain", [1, "id", [1], {}, {"x": 1}])
def test_bytes_choose_no_code_but_what_is_registered(name, plain):
    """A name is looked up in a table, and nowhere else."""
    register_type(Point)
    with pytest.raises(UnreadableValue):
        decode_value(cbor2.dumps(cbor2.CBORTag(60014, [name, plain])))


@pytest.mark.parametrize("plain", [1, "x", [1, 2], {"y": 1}, {1: 2}, None, cbor2.CBORTag(60010, [])])
def test_fields_that_are_none_are_no_other_error(plain):
    """The constructor refuses them, whatever it raises."""
    register_type(Point)
    with pytest.raises(UnreadableValue, match="could not be made"):
        decode_value(cbor2.dumps(cbor2.CBORTag(60014, ["Point", plain])))


def test_the_bytes_of_an_object_stay_as_they_are():
    """Nodes of two releases run side by side during a rollout."""
    register_type(Point)
    register_type(Level)
    assert encode_value([Point(1), Level.LOW], PATH).hex() == (
        "82" + "d9ea6e8265506f696e74a2617801617900" + "d9ea6e82654c6576656c634c4f57"
    )


def test_registering_imports_neither_trio_nor_cbor():
    """Modules of an application do it where their classes are defined, in processes that serve nothing too."""
    code = (
        "import sys, gossipsess; gossipsess.register_type(type('A', (), {}), to_value=id, from_value=id)\n"
        "print([name for name in ('trio', 'cbor2', 'cryptography') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"[]\n"
    assert "register_type" in dir(gossipsess)
