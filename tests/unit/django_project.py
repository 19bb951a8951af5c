"""A Django project in one module, for the tests: its settings, its views, users that no table holds, and its nodes."""

import asyncio
from contextlib import contextmanager

import django
from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

settings.configure(
    SECRET_KEY="only for tests",
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    SESSION_ENGINE="gossipsess.web.django",
    MIDDLEWARE=["gossipsess.web.django.SessionMiddleware"],
    AUTHENTICATION_BACKENDS=[f"{__name__}.Accounts"],
    LOGGING_CONFIG=None,
    USE_TZ=True,
)
django.setup()

from django.contrib.auth import alogin, alogout, login, logout  # noqa: E402  # they want the settings
from django.contrib.auth.models import User  # noqa: E402

from gossipsess.config import Config  # noqa: E402
from gossipsess.service import NodeService  # noqa: E402
from gossipsess.web import django as engine  # noqa: E402
from gossipsess.web import django_sessions  # noqa: E402
from tests.unit.web_support import TestUser  # noqa: E402


class Account(User):
    class Meta:
        proxy = True
        app_label = "auth"

    def save(self, *args, **named):
        """Note nothing of a login."""


class Accounts:
    """Knows everybody."""

    def get_user(self, user_id):
        return Account(pk=user_id)


def view(request: HttpRequest) -> HttpResponse:
    return JsonResponse(dict(request.session.items()))


def untouched(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


def put(request: HttpRequest, key: str, value: str) -> HttpResponse:
    request.session[key] = value
    return HttpResponse()


def append(request: HttpRequest) -> HttpResponse:
    request.session.setdefault("cart", []).append("book")
    return HttpResponse(len(request.session["cart"]))


def append_inside(request: HttpRequest) -> HttpResponse:
    request.session["cart"].append("book")
    return HttpResponse()


def crash(request: HttpRequest) -> HttpResponse:
    request.session["cart"].append(TestUser())
    return HttpResponse()


def refused(request: HttpRequest) -> HttpResponse:
    request.session["user"] = TestUser()
    return HttpResponse()


def broken(request: HttpRequest) -> HttpResponse:
    request.session["cart"] = [TestUser] if "bad" in request.GET else ["book"]
    return HttpResponse("sorry", status=500)


def delete(request: HttpRequest, key: str) -> HttpResponse:
    del request.session[key]
    return HttpResponse()


def flush(request: HttpRequest) -> HttpResponse:
    request.session.flush()
    return HttpResponse()


def log_in(request: HttpRequest, user: int) -> HttpResponse:
    login(request, Account(pk=user))
    return HttpResponse(request.session.session_key)


def log_out(request: HttpRequest) -> HttpResponse:
    logout(request)
    return HttpResponse()


def log_out_everywhere(request: HttpRequest) -> HttpResponse:
    engine.revoke(request.session["_auth_user_id"])
    logout(request)
    return HttpResponse()


def expire(request: HttpRequest, seconds: int) -> HttpResponse:
    request.session.set_expiry(seconds)
    request.session["user"] = "kim"
    return HttpResponse()


def swallow(request: HttpRequest) -> HttpResponse:
    """Ask whether the session is there before changing it."""
    if request.session.unavailable:
        return HttpResponse(f"{dict(request.session.items())}")
    request.session["seen"] = True
    return HttpResponse("seen")


async def async_append(request: HttpRequest) -> HttpResponse:
    request.session.setdefault("cart", []).append("book")
    return HttpResponse(len(request.session["cart"]))


async def async_twins(request: HttpRequest) -> HttpResponse:
    await request.session.aset("name", "kim")
    await request.session.aset_expiry(60)
    return HttpResponse(await request.session.aget("name"))


async def async_log_in(request: HttpRequest, user: int) -> HttpResponse:
    await alogin(request, Account(pk=user))
    return HttpResponse(request.session.session_key)


async def async_log_out(request: HttpRequest) -> HttpResponse:
    await alogout(request)
    return HttpResponse()


async def async_pause(request: HttpRequest) -> HttpResponse:
    """Change the session, and let others go first."""
    request.session["slow"] = True
    paused.set()
    await go_on.wait()
    return HttpResponse()


paused, go_on = asyncio.Event(), asyncio.Event()

urlpatterns = [
    path("view", view),
    path("untouched", untouched),
    path("put/<key>/<value>", put),
    path("append", append),
    path("append-inside", append_inside),
    path("crash", crash),
    path("refused", refused),
    path("broken", broken),
    path("delete/<key>", delete),
    path("flush", flush),
    path("login/<int:user>", log_in),
    path("logout", log_out),
    path("log-out-everywhere", log_out_everywhere),
    path("expire/<int:seconds>", expire),
    path("swallow", swallow),
    path("async/append", async_append),
    path("async/twins", async_twins),
    path("async/login/<int:user>", async_log_in),
    path("async/logout", async_log_out),
    path("async/pause", async_pause),
]


@contextmanager
def served_by(service, on_unavailable=None):
    """Have the sessions of this node, and of no other."""
    before = django_sessions._configured
    engine.configure(node=service, on_unavailable=on_unavailable)
    try:
        yield service
    finally:
        django_sessions._configured = before


@contextmanager
def clocked(**settings):
    """Have the sessions of a node whose clock stands still until it is told to go on."""
    now_s = [0.0]
    with served_by(NodeService(Config(discovery="none", **settings), None, lambda: now_s[0])):
        yield lambda seconds: now_s.__setitem__(0, now_s[0] + seconds)


def live(service):
    """Return the records of sessions that have not ended."""
    return [record for record in service.node.records.values() if not record.tombstone]
