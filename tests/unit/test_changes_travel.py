"""Every way in which a dict is changed is noticed at the commit, on each framework's session, and only that travels."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest

from gossipsess import Session, register_type
from gossipsess.model.delta import changes_since
from gossipsess.model.record import RESERVED
from gossipsess.web.django_sessions import DjangoSession
from gossipsess.web.flask_like import FlaskWebSession
from gossipsess.web.litestar import LitestarWebSession
from gossipsess.web.session import WebSession
from gossipsess.web.starlette import StarletteWebSession
from tests.unit.machines import Clocked
from tests.unit.test_value_types import forget_types

CLASSES = [Session, WebSession, StarletteWebSession, FlaskWebSession, DjangoSession, LitestarWebSession]


@dataclass
class Basket:
    items: list[str]


def content() -> dict[str, Any]:
    return {
        "a": {"b": [1], "s": {1}},
        "cart": ["book"],
        "basket": Basket(["book"]),
        "pair": ("x", ["y"]),
        "theme": "dark",
        "n": 1,
        "last": None,
    }


def in_place(session: Any) -> None:
    session |= {"theme": "light", "n": 1}


def popped_missing(session: Any) -> None:
    session.pop("missing", None)
    with suppress(KeyError):
        session.pop("missing")


def put_back(session: Any) -> None:
    session["cart"].append("pen")
    session["cart"].pop()
    session["theme"] = "light"
    session["theme"] = "dark"
    del session["n"]
    session["n"] = 1


def read(session: Any) -> None:
    assert session.copy() == dict(session) == dict(session.items()) == content()
    assert session | {"n": 2} == content() | {"n": 2}
    assert {"n": 2, "z": 3} | session == {"z": 3} | content()
    assert list(session.values()) == list(content().values())


def copied(session: Any) -> None:
    taken = session.copy()
    taken["theme"] = "light"
    taken.clear()


CHANGES: dict[str, tuple[Callable[[Any], object], set[str]]] = {
    "assign": (lambda s: s.__setitem__("theme", "light"), {"theme"}),
    "assign the same": (lambda s: s.__setitem__("cart", ["book"]), set()),
    "assign an equal of another type": (lambda s: s.__setitem__("n", 1.0), {"n"}),
    "delete": (lambda s: s.__delitem__("theme"), {"theme"}),
    "|=": (in_place, {"theme"}),
    "update": (lambda s: s.update({"n": 2, "new": 1}, theme="dark"), {"n", "new"}),
    "update with pairs": (lambda s: s.update([("n", 2), ("last", None)]), {"n"}),
    "pop": (lambda s: s.pop("theme"), {"theme"}),
    "pop what is not there": (popped_missing, set()),
    "popitem": (lambda s: s.popitem(), {"last"}),
    "setdefault of what is not there": (lambda s: s.setdefault("new", []).append(1), {"new"}),
    "setdefault of what is there": (lambda s: s.setdefault("cart", []).append("pen"), {"cart"}),
    "setdefault alone": (lambda s: s.setdefault("theme", "light"), set()),
    "clear": (lambda s: s.clear(), set(content())),
    "a list in a dict": (lambda s: s["a"]["b"].append(2), {"a"}),
    "a set in a dict": (lambda s: s["a"]["s"].discard(1), {"a"}),
    "a list": (lambda s: s["cart"].sort(reverse=True) or s["cart"].append("pen"), {"cart"}),
    "a list in a tuple": (lambda s: s["pair"][1].clear(), {"pair"}),
    "a list in a registered object": (lambda s: s["basket"].items.append("pen"), {"basket"}),
    "an attribute of a registered object": (lambda s: setattr(s["basket"], "items", []), {"basket"}),
    "what get returns": (lambda s: s.get("cart").append("pen"), {"cart"}),
    "what values returns": (lambda s: next(iter(s.values()))["b"].append(2), {"a"}),
    "what a copy holds": (lambda s: s.copy()["cart"].append("pen"), {"cart"}),
    "a copy": (copied, set()),
    "change and change back": (put_back, set()),
    "read everything": (read, set()),
    "read everything, change one": (lambda s: (read(s), s["a"]["b"].append(2)), {"a"}),
}


@pytest.fixture(autouse=True)
def types():
    register_type(Basket)
    yield
    forget_types()


def of_application(session: Session) -> Any:
    """Return what an application has of it."""
    return session.for_application() if isinstance(session, WebSession) else session


@pytest.mark.parametrize("session_class", CLASSES)
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_noticed_and_nothing_else_travels(session_class, name):
    """Frameworks differ in which of them they notice; an application that moves here relies on any of them.

    What travels is counted in the delta that a holder would be sent.
    """
    change, keys = CHANGES[name]
    here = Clocked(session_class=session_class, confirm=0).alone()
    session = here.store.create()
    of_application(session).update(content())
    here.store.commit(session)
    before = here.node.records[session.record.sid]
    request = here.store.load(session.cookie)
    shown = of_application(request)
    change(shown)
    assert request.modified == bool(keys)
    expected = dict(shown)
    assert not isinstance(shown, dict) or dict(dict.items(shown)) == expected, "what json.dumps sees"
    here.store.commit(request)
    after = here.node.records[session.record.sid]
    delta = changes_since(after, before)
    assert sorted(entry[0] for entry in delta.entries) == sorted(keys)
    again = here.store.load(session.cookie)
    assert dict(again) == expected
    assert after is before or keys
    assert not any(key.startswith(RESERVED) for key in again)


@pytest.mark.parametrize("session_class", CLASSES)
def test_counters_and_sets_are_on_every_session(session_class):
    """They are the session's, whatever framework it is of; and no key of the dict that it looks like."""
    here = Clocked(session_class=session_class, confirm=0).alone()
    session = here.store.create()
    session["theme"] = "dark"
    here.store.commit(session)
    requests = [here.store.load(session.cookie) for _ in range(2)]
    for number, request in enumerate(requests):
        shown = of_application(request)
        shown.counter_of("visits").add()
        shown.set_of("seen").add(number)
        before = here.node.records[session.record.sid]
        here.store.commit(request)
        assert len(changes_since(here.node.records[session.record.sid], before).entries) == 2
    again = of_application(here.store.load(session.cookie))
    assert (again.counter_of("visits").value, set(again.set_of("seen"))) == (2, {0, 1})
    assert dict(again) == {"theme": "dark"}


@pytest.mark.parametrize("session_class", CLASSES)
def test_what_cannot_be_read_here_troubles_nobody_who_does_not_ask_for_it(session_class):
    """Sessions that hold all their values, as a dict does, would else refuse the whole request."""
    here = Clocked(session_class=session_class, confirm=0).alone()
    session = here.store.create()
    session.update(basket=Basket([]), theme="dark")
    here.store.commit(session)
    forget_types()
    loaded = here.store.load(session.cookie)
    again = of_application(loaded)
    assert again["theme"] == "dark"
    assert not loaded.modified
    with pytest.raises(TypeError, match=r"session\['basket'\] cannot be read"):
        again["basket"]
    del again["basket"]
    again.clear()
    assert len(again) == 0
