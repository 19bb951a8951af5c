# Shop, in Starlette: log in, fill a cart, log out. Its sessions are Starlette's own, until replicated.diff is applied.
#
#   pip install starlette itsdangerous python-multipart uvicorn
#   uvicorn app:app --port 8001

import os
from html import escape

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

PAGE = """<!doctype html><title>Shop</title><p>User: {user}. Cart: {cart}. Answered by process {replica}.
<form method=post action=/login><input name=user required maxlength=40><button>Log in</button></form>
<form method=post action=/cart><input name=item required maxlength=40><button>Into the cart</button></form>
<form method=post action=/logout><button>Log out</button></form>"""


async def home(request: Request) -> Response:
    user, cart = request.session.get("user_id"), request.session.get("cart", [])
    if "application/json" in request.headers.get("accept", ""):
        return JSONResponse({"user": user, "cart": cart, "replica": os.getpid()})
    shown = {"user": user or "nobody", "cart": ", ".join(cart) or "empty", "replica": str(os.getpid())}
    return HTMLResponse(PAGE.format(**{name: escape(text) for name, text in shown.items()}))


async def login(request: Request) -> Response:
    request.session["user_id"] = (await request.form())["user"]
    return RedirectResponse("/", 303)


async def add_to_cart(request: Request) -> Response:
    item = (await request.form())["item"]
    request.session["cart"] = [*request.session.get("cart", []), item]
    return RedirectResponse("/", 303)


async def logout(request: Request) -> Response:
    request.session.clear()
    return RedirectResponse("/", 303)


app = Starlette(
    routes=[
        Route("/", home),
        Route("/login", login, methods=["POST"]),
        Route("/cart", add_to_cart, methods=["POST"]),
        Route("/logout", logout, methods=["POST"]),
    ],
    middleware=[Middleware(SessionMiddleware, secret_key=os.environ.get("SHOP_KEY", "only for trying out"))],
)
