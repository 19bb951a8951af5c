# Shop, in Litestar: log in, fill a cart, log out. Its sessions are Litestar's own, until replicated.diff is applied.
#
#   pip install litestar uvicorn
#   uvicorn app:app --port 8001

import os
from html import escape
from typing import Annotated, Any

from litestar import Litestar, MediaType, Request, Response, get, post
from litestar.enums import RequestEncodingType
from litestar.middleware.session.server_side import ServerSideSessionConfig
from litestar.params import Body
from litestar.response import Redirect

PAGE = """<!doctype html><title>Shop</title><p>User: {user}. Cart: {cart}. Answered by process {replica}.
<form method=post action=/login><input name=user required maxlength=40><button>Log in</button></form>
<form method=post action=/cart><input name=item required maxlength=40><button>Into the cart</button></form>
<form method=post action=/logout><button>Log out</button></form>"""

Form = Annotated[dict[str, str], Body(media_type=RequestEncodingType.URL_ENCODED)]


@get("/")
async def home(request: Request[Any, Any, Any]) -> Response[Any]:
    user, cart = request.session.get("user_id"), request.session.get("cart", [])
    if "application/json" in request.headers.get("accept", ""):
        return Response({"user": user, "cart": cart, "replica": os.getpid()})
    shown = {"user": user or "nobody", "cart": ", ".join(cart) or "empty", "replica": str(os.getpid())}
    return Response(PAGE.format(**{name: escape(text) for name, text in shown.items()}), media_type=MediaType.HTML)


@post("/login")
async def login(request: Request[Any, Any, Any], data: Form) -> Redirect:
    request.session["user_id"] = data["user"]
    return Redirect("/", status_code=303)


@post("/cart")
async def add_to_cart(request: Request[Any, Any, Any], data: Form) -> Redirect:
    request.session["cart"] = [*request.session.get("cart", []), data["item"]]
    return Redirect("/", status_code=303)


@post("/logout")
async def logout(request: Request[Any, Any, Any]) -> Redirect:
    request.clear_session()
    return Redirect("/", status_code=303)


app = Litestar([home, login, add_to_cart, logout], middleware=[ServerSideSessionConfig().middleware])
