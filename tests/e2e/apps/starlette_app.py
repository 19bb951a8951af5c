# A shop for the end-to-end tests, in Starlette; settings come from GOSSIPSESS_* alone. Its twin is flask_app.py.

import os
import time

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from gossipsess.waiting import in_thread, on_any_loop
from gossipsess.web.starlette import SessionMiddleware


def shown(request: Request) -> JSONResponse:
    session = request.session
    return JSONResponse(
        {
            "user": session.get("user"),
            "cart": session.get("cart"),
            "stale": request.scope["session"].stale,
            "replica": os.environ["GOSSIPSESS_PORT"],
        }
    )


async def login(request: Request) -> JSONResponse:
    request.session["user"] = request.query_params["user"]
    return shown(request)


async def add_to_cart(request: Request) -> JSONResponse:
    await on_any_loop(in_thread(lambda: time.sleep(float(request.query_params.get("after_s", "0")))))
    request.session.setdefault("cart", []).append(request.query_params["item"])
    return shown(request)


async def home(request: Request) -> JSONResponse:
    return shown(request)


app = Starlette(
    routes=[
        Route("/", home),
        Route("/login", login, methods=["POST"]),
        Route("/cart/add", add_to_cart, methods=["POST"]),
    ],
    middleware=[Middleware(SessionMiddleware)],
)
