# Shop, in Django: log in, fill a cart, log out. Its sessions are Django's own, until replicated.diff is applied. (In a
# project of several files the lines that it changes stand in settings.py.)
#
#   pip install django gunicorn
#   gunicorn app:app --bind 127.0.0.1:8001 --threads 8

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect, JsonResponse
from django.urls import path
from django.utils.html import format_html
from django.views.decorators.http import require_POST

settings.configure(
    SECRET_KEY=os.environ.get("SHOP_KEY", "only for trying out"),
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
    ],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
)

PAGE = """<!doctype html><title>Shop</title><p>User: {user}. Cart: {cart}. Answered by process {replica}.
<form method=post action=/login><input name=user required maxlength=40><button>Log in</button></form>
<form method=post action=/cart><input name=item required maxlength=40><button>Into the cart</button></form>
<form method=post action=/logout><button>Log out</button></form>"""


def home(request: HttpRequest) -> HttpResponseBase:
    user, cart = request.session.get("user_id"), request.session.get("cart", [])
    if "application/json" in request.headers.get("Accept", ""):
        return JsonResponse({"user": user, "cart": cart, "replica": os.getpid()})
    shown = {"user": user or "nobody", "cart": ", ".join(cart) or "empty", "replica": str(os.getpid())}
    return HttpResponse(format_html(PAGE, **shown))


@require_POST
def login(request: HttpRequest) -> HttpResponseBase:
    request.session["user_id"] = request.POST["user"]
    request.session.cycle_key()
    return HttpResponseRedirect("/", status=303)


@require_POST
def add_to_cart(request: HttpRequest) -> HttpResponseBase:
    request.session["cart"] = [*request.session.get("cart", []), request.POST["item"]]
    return HttpResponseRedirect("/", status=303)


@require_POST
def logout(request: HttpRequest) -> HttpResponseBase:
    request.session.flush()
    return HttpResponseRedirect("/", status=303)


urlpatterns = [path("", home), path("login", login), path("cart", add_to_cart), path("logout", logout)]
app = get_wsgi_application()
