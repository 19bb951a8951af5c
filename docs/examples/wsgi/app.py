# Shop, in WSGI without a framework: log in, fill a cart, log out. Its sessions are Beaker's, until replicated.diff is
# applied.
#
#   pip install beaker gunicorn
#   gunicorn app:app --bind 127.0.0.1:8001 --threads 8 --preload

import json
import os
from collections.abc import Callable, Iterable
from html import escape
from typing import Any
from urllib.parse import parse_qs

from beaker.middleware import SessionMiddleware

SESSION = "beaker.session"

PAGE = """<!doctype html><title>Shop</title><p>User: {user}. Cart: {cart}. Answered by process {replica}.
<form method=post action=/login><input name=user required maxlength=40><button>Log in</button></form>
<form method=post action=/cart><input name=item required maxlength=40><button>Into the cart</button></form>
<form method=post action=/logout><button>Log out</button></form>"""


def shop(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    session = environ[SESSION]
    match environ["REQUEST_METHOD"], environ["PATH_INFO"]:
        case "GET", "/":
            return [home(session, environ.get("HTTP_ACCEPT", ""), start_response)]
        case "POST", "/login":
            session["user_id"] = field(environ, "user")
        case "POST", "/cart":
            session["cart"] = [*session.get("cart", []), field(environ, "item")]
        case "POST", "/logout":
            session.clear()
        case _:
            start_response("404 Not Found", [("Content-Length", "0")])
            return []
    start_response("303 See Other", [("Location", "/"), ("Content-Length", "0")])
    return []


def home(session: Any, accept: str, start_response: Callable[..., object]) -> bytes:
    user, cart = session.get("user_id"), session.get("cart", [])
    if "application/json" in accept:
        kind, body = "application/json", json.dumps({"user": user, "cart": cart, "replica": os.getpid()})
    else:
        shown = {"user": user or "nobody", "cart": ", ".join(cart) or "empty", "replica": str(os.getpid())}
        kind, body = "text/html; charset=utf-8", PAGE.format(**{name: escape(text) for name, text in shown.items()})
    start_response("200 OK", [("Content-Type", kind), ("Content-Length", str(len(body.encode())))])
    return body.encode()


def field(environ: dict[str, Any], name: str) -> str:
    form = parse_qs(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)).decode())
    return form[name][0]


app = SessionMiddleware(shop, {"session.type": "memory", "session.auto": True, "session.key": "shop"})
