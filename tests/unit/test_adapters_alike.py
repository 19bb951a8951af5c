"""What every adapter does alike, played against each through its framework's real test client.

First on one node; then with every operation sent to a random one of three, as behind a balancer without stickiness.
"""

import time
from collections.abc import Callable, Iterator

import pytest

from gossipsess.config import Config
from gossipsess.errors import UnreplicableValue
from gossipsess.service import NodeService, lone_node
from gossipsess.waiting import blocking
from tests.unit.adapters import ADAPTERS, USER, Adapter, Answer, Ask, Browser, Views, patient_nodes
from tests.unit.web_support import UNKNOWN_ID, TestUser, fill, node_flooded_with_fetches


def append(session):
    session.setdefault("cart", []).append("book")
    return len(session["cart"])


def login(session):
    session["user_id"] = USER


def clear(session):
    getattr(session, "flush", session.clear)()  # in Django a session may be empty, and is ended by this


def show(session):
    return dict(session)


def put(key: str) -> Callable[..., None]:
    return lambda session: session.__setitem__(key, 1)


VIEWS: Views = {"append": append, "login": login, "clear": clear, "show": show, "a": put("a"), "b": put("b")}


@pytest.fixture(params=ADAPTERS)
def adapter(request) -> Adapter:
    return ADAPTERS[request.param]


@pytest.fixture(scope="module")
def three_nodes() -> Iterator[NodeService]:
    with patient_nodes() as nodes:
        yield nodes


@pytest.fixture(params=["alone", "scattered"])
def node(request) -> NodeService:
    return lone_node() if request.param == "alone" else request.getfixturevalue("three_nodes")


@pytest.fixture
def ask(adapter: Adapter, node: NodeService) -> Ask:
    return adapter.serve(VIEWS, node)


@pytest.fixture
def browser(ask: Ask) -> Browser:
    return Browser(ask)


def stored(node: NodeService, session_id: str) -> dict | None:
    """Return what the cluster has of a session: None where that is nothing."""
    session = blocking(node.store.load(session_id))
    return None if session is None else dict(session)


def until(what: Callable[[], bool]) -> bool:
    """Wait for what a further node learns a moment later; without a version token nobody has promised it earlier."""
    until_s = time.monotonic() + 5
    while not what():  # asked once more it might be false again: the next answer is another node's
        if time.monotonic() > until_s:
            return False
        time.sleep(0.01)
    return True


def test_what_was_written_is_read_by_the_next_request_also_inside_a_list(browser):
    """The change inside the list is the one that frameworks' own sessions lose."""
    assert [browser.get("append").text for _ in range(3)] == ["1", "2", "3"]


def test_cookies_are_set_by_writes_only_and_the_id_once(browser, adapter):
    """A Set-Cookie on every answer keeps caches from keeping any, and a late one puts an id back that is retired."""
    wrote = browser.get("append")
    assert set(wrote.cookies) == {adapter.cookie, f"{adapter.cookie}-v"}
    assert "private" in wrote.header("Cache-Control")
    assert (adapter.cookie in browser.get("append").cookies) == adapter.saves_assignments
    for path in ("show", "untouched"):
        answer = browser.get(path)
        assert answer.cookies == {}
        assert answer.header("Cache-Control") == ""


@pytest.mark.parametrize("path", ["show", "untouched", "clear"])
def test_nothing_written_is_nothing_stored(adapter, path):
    """Robots and health checks would fill the memory with empty sessions."""
    node = lone_node()
    assert Browser(adapter.serve(VIEWS, node)).get(path).cookies == {}
    assert not node.node.records


def test_whoever_reads_the_session_tells_caches_so(browser, adapter):
    """Without it one user's page is shown to another; with it for nothing no cache keeps the page."""
    assert "Cookie" in browser.get("show").header("Vary"), "an empty session was read too"
    assert "Cookie" in browser.get("append").header("Vary")
    assert "Cookie" in browser.get("show").header("Vary")
    assert ("Cookie" in browser.get("untouched").header("Vary")) == adapter.varies_always


def test_a_login_changes_the_id_and_ends_the_old_one(browser, adapter, node):
    """Who has made a visitor use an id that they know would be logged in with the visitor."""
    browser.get("append")
    known = browser.cookies[adapter.cookie]
    assert set(browser.get("login").cookies) == {adapter.cookie, f"{adapter.cookie}-v"}
    assert browser.cookies[adapter.cookie] != known
    assert browser.get("append").text == "2"
    assert until(lambda: stored(node, known) is None)
    known = browser.cookies[adapter.cookie]
    assert (browser.get("login").cookies == {}) != adapter.saves_assignments
    assert browser.cookies[adapter.cookie] == known, "the same user again is no login"


def test_deleting_every_key_ends_the_session_everywhere(browser, ask, adapter, node):
    """So applications log out. Who has the cookie still must find nothing."""
    browser.get("append")
    thief = browser.another()
    assert set(browser.get("clear").cookies) == {adapter.cookie, f"{adapter.cookie}-v"}
    assert browser.cookies == {}
    assert thief.get("show").text == "{}"
    assert stored(node, thief.cookies[adapter.cookie]) is None


@pytest.mark.parametrize("cookie", [UNKNOWN_ID, "garbage", "x" * 3000])
def test_an_id_that_we_did_not_make_is_never_adopted(ask, adapter, node, cookie):
    """An attacker who chooses the victim's id would share the victim's login."""
    browser = Browser(ask, {adapter.cookie: cookie})
    assert browser.get("append").text == "1"
    assert browser.cookies[adapter.cookie] != cookie
    assert stored(node, cookie) is None


def test_two_requests_at_once_keep_both_their_changes(adapter, node):
    """Whole-session writes lose the one that comes first."""
    views = dict(VIEWS)
    browser = Browser(adapter.serve(views, node))
    browser.get("append")

    def slow(session):
        browser.get("a")
        session["b"] = 1

    views["slow"] = slow
    browser.another().get("slow")
    # The order of keys is the one in which a node learned of them.
    assert until(lambda: all(f"'{key}'" in browser.get("show").text for key in ("cart", "a", "b")))


def test_a_request_that_ends_after_the_logout_brings_nothing_back(adapter, node):
    """Neither the session nor, into the browser, its dead id."""
    views = dict(VIEWS)
    browser = Browser(adapter.serve(views, node))
    browser.get("login")
    late = browser.another()

    def slow(session):
        session["late"] = True
        browser.get("clear")

    views["slow"] = slow
    answer = late.get("slow")
    assert answer.status < 500, "Django says so with 400, as it always has"
    assert answer.cookies == {}
    assert late.get("show").text == "{}"
    assert until(lambda: stored(node, late.cookies[adapter.cookie]) is None)


def test_a_slow_request_does_not_undo_a_login(adapter, node):
    """It reads the session before, and stores after; the dead id must not come back to the browser."""
    views = dict(VIEWS)
    browser = Browser(adapter.serve(views, node))
    browser.get("append")
    late = browser.another()

    def slow(session):
        session["late"] = True
        browser.get("login")

    views["slow"] = slow
    assert late.get("slow").cookies == {}
    assert f"'user_id': {USER}" in browser.get("show").text


def test_a_value_that_cannot_travel_is_refused_where_it_is_assigned(adapter, node):
    """In the request that made it, by name; and what else the request wrote is kept."""

    def bad(session):
        session["good"] = 1
        try:
            session["user"] = {"profile": TestUser()}
        except UnreplicableValue as error:
            return error.path
        return "accepted"

    browser = Browser(adapter.serve({**VIEWS, "bad": bad}, node))
    assert "profile" in browser.get("bad").text
    assert browser.get("show").text == str({"good": 1})


def test_a_value_that_cannot_travel_inside_a_list_fails_its_request_and_changes_nothing(adapter, node):
    """It is found when the response is about to leave; half a session must not be stored."""

    def bad(session):
        session["half"] = 1
        session["cart"].append(TestUser())

    browser = Browser(adapter.serve({**VIEWS, "bad": bad}, node))
    browser.get("append")
    try:
        answer = browser.get("bad")
    except UnreplicableValue:  # test clients of WSGI pass on what reaches the server
        answer = Answer(500, "", [])
    assert answer.status == 500
    assert answer.cookies == {}
    assert browser.get("show").text == str({"cart": ["book"]})


def test_a_user_is_logged_out_on_every_device(ask):
    """From within a request, by the user and without the ids."""
    phone, laptop, other = Browser(ask), Browser(ask), Browser(ask)
    phone.get("login")
    laptop.get("login")
    other.get("append")
    laptop.get("revoke")
    assert [browser.get("show").text for browser in (phone, laptop)] == ["{}", "{}"]
    assert other.get("append").text == "2"


def test_where_it_is_not_known_whether_the_session_exists_no_view_runs(adapter):
    """To go on without would log the visitor out, to go on with a new session would replace the login."""
    ran = []
    with node_flooded_with_fetches() as node:
        browser = Browser(
            adapter.serve({"view": lambda session: ran.append(session)}, node), {adapter.cookie: UNKNOWN_ID}
        )
        answer = browser.get("view")
    assert (answer.status, answer.header("Retry-After")) == (503, "1")
    assert answer.cookies == {}
    assert not ran


def test_pages_for_everybody_stay_up_where_that_is_asked_for_and_changes_are_refused(adapter):
    """A login that its user saw succeed must not be dropped in silence, and the cookie must stay."""
    views: Views = {**VIEWS, "ask": lambda session: session.unavailable}
    with node_flooded_with_fetches() as node:
        browser = Browser(adapter.serve(views, node, on_unavailable="empty"), {adapter.cookie: UNKNOWN_ID})
        page = browser.get("ask")
        assert (page.status, page.text, page.cookies) == (200, "True", {})
        shown = browser.get("show")
        assert (shown.text, shown.header("Cache-Control")) == ("{}", "no-store")
        for path in ("login", "clear"):
            answer = browser.get(path)
            assert (answer.status, answer.header("Retry-After")) == (503, "1"), path
            assert answer.cookies == {}


def test_a_session_for_which_there_is_no_room_makes_the_answer_503(adapter):
    """The page of a successful login, and no login: the visitor would be sent in circles. Others stay logged in."""
    node = lone_node(Config(memory_limit_mb=1))
    ask = adapter.serve(VIEWS, node)
    known = Browser(ask)
    known.get("append")
    fill(node)
    answer = Browser(ask).get("login")
    assert (answer.status, answer.header("Retry-After")) == (503, "1")
    assert answer.cookies == {}
    assert known.get("append").text == "2"


def test_all_nodes_were_asked(adapter, three_nodes):
    """Scattered over one node only, the tests above would say nothing."""
    browser = Browser(adapter.serve(VIEWS, three_nodes))
    three_nodes.asked.clear()
    for count in range(1, 11):
        assert browser.get("append").text == str(count)
    assert set(three_nodes.asked) == {0, 1, 2}
