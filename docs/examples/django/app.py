# Shop, in Django: log in, fill a cart, log out. Its sessions are Django's own, until replicated.diff is applied.
#
#   pip install django gunicorn
#   gunicorn app:app --bind 127.0.0.1:8001 --threads 8 --preload
#
# A project in one file and without a database; a larger one has these settings in its settings.py, and Django's own
# login, whose session key changes as it does here.

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.template import Context, Engine
from django.urls import path
from django.views.decorators.http import require_POST

settings.configure(
    SECRET_KEY=os.environ.get("SHOP_KEY", "only for trying out"),
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    ROOT_URLCONF=__name__,
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
)

PAGE = Engine().from_string("""<!doctype html><title>Shop</title>
<p>User: {{ user|default:"nobody" }}. Cart: {{ cart|join:", "|default:"empty" }}. Answered by process {{ replica }}.
<form method=post action=/login><input name=user required maxlength=40><button>Log in</button></form>
<form method=post action=/cart><input name=item required maxlength=40><button>Into the cart</button></form>
<form method=post action=/logout><button>Log out</button></form>""")


def home(request: HttpRequest) -> HttpResponse:
    shown = {"user": request.session.get("user_id"), "cart": request.session.get("cart", []), "replica": os.getpid()}
    if "application/json" in request.headers.get("Accept", ""):
        return JsonResponse(shown)
    return HttpResponse(PAGE.render(Context(shown)))


@require_POST
def login(request: HttpRequest) -> HttpResponse:
    request.session.cycle_key()
    request.session["user_id"] = request.POST["user"]
    return redirect_home()


@require_POST
def add_to_cart(request: HttpRequest) -> HttpResponse:
    request.session["cart"] = [*request.session.get("cart", []), request.POST["item"]]
    return redirect_home()


@require_POST
def logout(request: HttpRequest) -> HttpResponse:
    request.session.flush()
    return redirect_home()


def redirect_home() -> HttpResponse:
    return HttpResponseRedirect("/", status=303)


urlpatterns = [
    path("", home),
    path("login", login),
    path("cart", add_to_cart),
    path("logout", logout),
]
app = get_wsgi_application()
