# Shop: the smallest application that shows a session. Log in, fill a cart, and see which pod answers.
#
# In:    GET /, and the forms on it.    Out: HTML; the session is `request.session`, as in any Starlette application.
# The one line that replicates it is the middleware's. Its settings come from GOSSIPSESS_*, which the manifests set.

import html
import logging
import os
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from gossipsess.web.starlette import SessionMiddleware

logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
logging.getLogger("gossipsess").setLevel("INFO")  # who comes and goes, and what keeps nodes apart

POD = os.environ.get("GOSSIPSESS_HOST", "this machine")


async def home(request: Request) -> Response:
    user, cart = request.session.get("user_id"), request.session.get("cart", [])
    greeting = "Not logged in."
    if user is not None:
        greeting = f"Logged in as {html.escape(user)}. In the cart: {html.escape(', '.join(cart)) or 'nothing'}."
    return HTMLResponse(
        "<!doctype html><title>Shop</title>"
        f"<p>{greeting}<p>Answered by {html.escape(POD)}."
        "<form method=post action=/login><input name=user required maxlength=40><button>Log in</button></form>"
        "<form method=post action=/cart><input name=item required maxlength=40><button>Into the cart</button></form>"
        "<form method=post action=/logout><button>Log out</button></form>"
    )


async def login(request: Request) -> Response:
    request.session["user_id"] = (await form(request)).get("user", "somebody")  # the session's id changes by itself
    return back()


async def cart(request: Request) -> Response:
    request.session.setdefault("cart", []).append(
        (await form(request)).get("item", "thing")
    )  # a change inside a value is noticed
    return back()


async def logout(request: Request) -> Response:
    request.session.clear()
    return back()


async def form(request: Request) -> dict[str, str]:
    fields = parse_qs((await request.body()).decode("utf-8", "replace"))
    return {name: values[0][:40] for name, values in fields.items()}


def back() -> Response:
    return RedirectResponse("/", status_code=303)


app = Starlette(
    routes=[
        Route("/", home),
        Route("/login", login, methods=["POST"]),
        Route("/cart", cart, methods=["POST"]),
        Route("/logout", logout, methods=["POST"]),
    ],
    middleware=[Middleware(SessionMiddleware)],  # behind TLS: Middleware(SessionMiddleware, https_only=True)
)
