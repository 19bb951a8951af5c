"""Which nodes hold a session, as an application can ask."""

from gossipsess.config import Config
from gossipsess.service import lone_node
from tests.unit.web_support import UNKNOWN_ID, node_that_misses_a_peer


def test_the_holders_of_a_session_are_told_by_name_whether_it_is_stored_or_not():
    """The names are what operators gave the nodes; an id would change with each restart."""
    config = Config(node_name="myself")
    service = lone_node(config)
    session = service.store.create()
    assert service.holders_of(session.id) == ("myself",)
    session["a"] = 1
    service.store.commit(session)
    assert service.holders_of(session.cookie) == ("myself",), "with a token too"
    with node_that_misses_a_peer(config) as one_of_two:
        assert sorted(one_of_two.holders_of(UNKNOWN_ID)) == ["myself", "other"]


def test_what_is_no_cookie_of_ours_has_no_holders():
    """Anybody can send anything as a cookie."""
    service = lone_node()
    assert [service.holders_of(cookie) for cookie in ("", "x", f"x{UNKNOWN_ID}", f".{UNKNOWN_ID}")] == [()] * 4
