# A shop in Django: a login, and a page that says who is logged in; with each who answered. Settings and views in one.
# With SHOP_PLAIN it knows nothing of gossipsess.

import os

from django.http import HttpRequest, JsonResponse
from django.urls import path

VERSION = 1

SECRET_KEY = "only for tests"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = __name__
if "SHOP_PLAIN" in os.environ:
    SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    MIDDLEWARE = ["django.contrib.sessions.middleware.SessionMiddleware"]
else:
    SESSION_ENGINE = "gossipsess.web.django"
    MIDDLEWARE = [os.environ.get("SHOP_MIDDLEWARE", "gossipsess.web.django.SessionMiddleware")]


def login(request: HttpRequest) -> JsonResponse:
    request.session["user_id"] = "kim"
    return JsonResponse({"process": os.getpid()})


def home(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"process": os.getpid(), "user": request.session.get("user_id"), "version": VERSION})


urlpatterns = [path("login", login), path("", home)]
