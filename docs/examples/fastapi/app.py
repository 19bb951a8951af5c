# Shop, in FastAPI: log in, fill a cart, log out. Its sessions are Starlette's, until replicated.diff is applied.
#
#   pip install fastapi itsdangerous python-multipart uvicorn
#   uvicorn app:app --port 8001

import os
from html import escape
from typing import Annotated

from fastapi import FastAPI, Form, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.middleware.sessions import SessionMiddleware

PAGE = """<!doctype html><title>Shop</title><p>User: {user}. Cart: {cart}. Answered by process {replica}.
<form method=post action=/login><input name=user required maxlength=40><button>Log in</button></form>
<form method=post action=/cart><input name=item required maxlength=40><button>Into the cart</button></form>
<form method=post action=/logout><button>Log out</button></form>"""

app = FastAPI()
app.add_middleware(SessionMiddleware, secret_key=os.environ.get("SHOP_KEY", "only for trying out"))


@app.get("/")
async def home(request: Request) -> Response:
    user, cart = request.session.get("user_id"), request.session.get("cart", [])
    if "application/json" in request.headers.get("accept", ""):
        return JSONResponse({"user": user, "cart": cart, "replica": os.getpid()})
    shown = {"user": user or "nobody", "cart": ", ".join(cart) or "empty", "replica": str(os.getpid())}
    return HTMLResponse(PAGE.format(**{name: escape(text) for name, text in shown.items()}))


@app.post("/login")
async def login(request: Request, user: Annotated[str, Form()]) -> Response:
    request.session["user_id"] = user
    return RedirectResponse("/", 303)


@app.post("/cart")
async def add_to_cart(request: Request, item: Annotated[str, Form()]) -> Response:
    request.session["cart"] = [*request.session.get("cart", []), item]
    return RedirectResponse("/", 303)


@app.post("/logout")
async def logout(request: Request) -> Response:
    request.session.clear()
    return RedirectResponse("/", 303)
