"""The session of a websocket, on both kinds of loop, over a real node without network."""

import contextlib

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from gossipsess.config import Config
from gossipsess.service import lone_node
from gossipsess.web.asgi import SessionMiddleware
from tests.unit.asgi_support import ID, TOKEN, append, client_of, socket_app
from tests.unit.web_support import fill


def talk(node, backend, app, cookies=None):
    """Send one message, hang up; return what the accept set."""
    client = TestClient(SessionMiddleware(app, node=node), base_url="https://testserver", backend=backend)
    headers = {"cookie": "; ".join(f"{name}={value}" for name, value in (cookies or {}).items())}
    socket = client.websocket_connect("/", headers=headers)
    with contextlib.suppress(WebSocketDisconnect), socket:  # the application passes on that the client hung up
        lines = [line.decode() for name, line in socket.extra_headers if name == b"set-cookie"]
        socket.send_text("go")
        assert socket.receive_text() == "done"
    return {line.partition("=")[0]: line.partition("=")[2].partition(";")[0] for line in lines}


def test_a_websocket_reads_and_writes_the_session_of_the_requests(node, backend):
    client = client_of(append, node, backend)
    client.get("/")
    seen = []
    app = socket_app(on_open=lambda session: seen.append(str(session["cart"])), on_message=append)
    assert talk(node, backend, app, client.cookies) == {}
    assert seen == ["['book']"]
    assert node.store.load(client.cookies[ID])["cart"] == ["book", "book"]


def test_a_session_written_before_the_accept_is_given_to_the_client_with_it(node, backend):
    cookies = talk(node, backend, socket_app(on_open=append, on_message=append))
    assert set(cookies) == {ID, TOKEN}
    assert node.store.load(cookies[ID])["cart"] == ["book", "book"]


def test_a_login_on_a_websocket_changes_the_id_before_the_accept_and_not_later(node, backend):
    """Later no cookie can be set: under a new id the session would be lost to its client."""
    client = client_of(append, node, backend)
    client.get("/")
    known = client.cookies[ID]

    def login(session):
        session["user_id"] = session.get("user_id", 41) + 1

    cookies = talk(node, backend, socket_app(on_open=login, on_message=login), client.cookies)
    assert set(cookies) == {ID, TOKEN}
    assert cookies[ID] != known
    assert node.store.load(known) is None
    assert node.store.load(cookies[ID])["user_id"] == 43


def test_a_session_that_the_client_can_never_name_is_not_stored(node, backend):
    """After the accept there is no way left to give it the id."""
    assert talk(node, backend, socket_app(on_open=len, on_message=append)) == {}
    assert not node.node.records


def test_a_websocket_that_begins_a_session_for_which_there_is_no_room_is_closed(backend):
    """Accepted, it would hold a session that the client has no id of."""
    full = lone_node(Config(memory_limit_mb=1))
    fill(full)
    talked = []
    app = SessionMiddleware(socket_app(on_open=append, on_message=talked.append), node=full)
    client = TestClient(app, base_url="https://testserver", backend=backend)
    with pytest.raises(WebSocketDisconnect) as closed, client.websocket_connect("/"):
        pass
    assert closed.value.code == 1013
    assert not talked
