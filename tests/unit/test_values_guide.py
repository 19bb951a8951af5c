"""docs/VALUES.md says what works: its examples are run, one after the other, in one session."""

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import gossipsess
from tests.unit.machines import Clocked
from tests.unit.test_value_types import forget_types

GUIDE = Path(__file__).parents[2] / "docs" / "VALUES.md"


@pytest.fixture
def ran() -> Any:
    """What the examples left: the session, as another request finds it, and the names they made."""
    here = Clocked(confirm=0).alone()
    names: dict[str, Any] = {"gossipsess": gossipsess, "Decimal": Decimal, "session": here.store.create()}
    examples = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert len(examples) == 5
    for example in examples:
        exec(compile(example, str(GUIDE), "exec"), names)
    here.store.commit(names["session"])
    yield here.store.load(names["session"].cookie), names
    forget_types()


def test_the_guides_examples_leave_what_it_says(ran):
    """A guide that nobody runs is wrong after a month."""
    session, names = ran
    assert session["cart"] == {"items": ["book", "pen"]}
    assert (session["seen"], session["theme"]) == ([7], "dark")
    assert session["basket"] == names["Basket"](["book", "pen"], "EUR")
    assert session["plan"] is names["Plan"].PAID
    assert (session["budget"].amount, session["budget"].currency) == (Decimal("9.50"), "EUR")
    assert "user" not in session
    assert (session.counter_of("visits").value, session.counter_of("credit").value) == (1, -250)
    assert set(session.set_of("seen")) == {"/books/7"}
