"""Django on three real nodes: a page whose images each another process answers."""

import threading
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

import pytest
from django.test import Client, override_settings

from tests.suites.scattered import scattered
from tests.unit.django_project import served_by

ENGINES = [f"django.contrib.sessions.backends.{name}" for name in ("cache", "signed_cookies")]
IMAGES = 9


class OneForEachThread:
    """In place of a random choice: each request goes to one node with all that it does."""

    def __init__(self):
        self.of_thread = threading.local()

    def randrange(self, count):
        return getattr(self.of_thread, "number", 0) % count


@pytest.mark.parametrize("former", ENGINES)
def test_requests_that_adopt_a_session_at_the_same_moment_find_one_and_lose_nothing(former):
    """After a switch every visitor's first page comes with the former cookie, image by image."""
    with scattered(confirm="all") as nodes, served_by(nodes):
        nodes._rng = choice = OneForEachThread()
        for seed in range(5):
            with override_settings(SESSION_ENGINE=former):
                session = import_module(former).SessionStore()
                session.update({"cart": ["book"], "seed": seed})
                session.save()
            with override_settings(GOSSIPSESS_ADOPT=former), ThreadPoolExecutor(IMAGES) as pool:
                together = threading.Barrier(IMAGES)

                def image(number, cookie=session.session_key, together=together):
                    choice.of_thread.number = number
                    client = Client()
                    client.cookies["sessionid"] = cookie
                    together.wait(10)
                    for _ in range(20):  # a browser tries again where a busy machine did not answer in time
                        answer = client.get(f"/put/key-{number}/seen")
                        if answer.status_code != 503:
                            break
                    return answer.status_code, client

                answers = list(pool.map(image, range(IMAGES)))
                assert [status for status, _ in answers] == [200] * IMAGES
                assert len({client.cookies["sessionid"].value for _, client in answers}) == 1
                seen = answers[0][1].get("/view").json()
            assert seen == {"cart": ["book"], "seed": seed} | {f"key-{number}": "seen" for number in range(IMAGES)}
        assert min(nodes.asked[number] for number in range(3)) > IMAGES
