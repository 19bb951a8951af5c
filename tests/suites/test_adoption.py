"""Former cookies on three real nodes, each with its own application; a request may come to any of them."""

import itertools
import time
from concurrent.futures import ThreadPoolExecutor

from flask import Flask, session
from flask.testing import FlaskClient

from gossipsess.service import NodeService
from gossipsess.web.flask import GossipSessions
from tests.suites.scattered import scattered


def shop(node: NodeService | None = None) -> Flask:
    app = Flask("shop")
    app.secret_key = "example"
    if node is not None:
        GossipSessions(app, node=node)
    app.add_url_rule("/put/<key>", "put", lambda key: session.update({key: 1}) or dict(session))
    app.add_url_rule("/view", "view", lambda: dict(session))
    app.add_url_rule("/clear", "clear", lambda: session.clear() or {})
    return app


def ask(app: Flask, path: str, cookies: dict[str, str]) -> tuple[dict, FlaskClient]:
    """Return the answer, and the browser that has it; on a busy machine it comes again, as a 503 asks it to."""
    client = app.test_client()
    for name, value in cookies.items():
        client.set_cookie(name, value)
    for _ in range(50):
        answer = client.get(path)
        if answer.status_code == 200:
            return answer.json, client
        assert answer.status_code == 503
        time.sleep(0.1)
    raise AssertionError("never available")


def test_requests_that_come_at_once_with_an_old_cookie_have_one_session_on_all_nodes():
    """The first page of a visitor after the change, and its images; then the logout, and copies of the cookie."""
    before = shop().test_client()
    before.get("/put/user_id")
    old = {"session": before.get_cookie("session").value}
    images = [f"image-{number}" for number in range(9)]
    with scattered() as cluster:
        apps = [shop(node) for node in cluster.nodes]
        with ThreadPoolExecutor(9) as threads:
            answers = list(threads.map(lambda app, key: ask(app, f"/put/{key}", old), itertools.cycle(apps), images))
        ids = {client.get_cookie("session").value for _, client in answers}
        assert len(ids) == 1
        assert ids != {old["session"]}
        for (_, client), app, image in zip(answers, itertools.cycle(apps[1:] + apps[:1]), images, strict=False):
            cookies = {name: client.get_cookie(name).value for name in ("session", "session-v")}
            assert ask(app, "/view", cookies)[0].items() >= {"user_id": 1, image: 1}.items(), "what it wrote"
        everything = {"user_id": 1, **dict.fromkeys(images, 1)}
        assert all(ask(app, "/view", old)[0] == everything for app in apps)
        ask(apps[0], "/clear", {"session": ids.pop()})
        assert [ask(app, "/view", old)[0] for app in apps] == [{}, {}, {}]
