# A shop on ASGI: a login, and a page that says who is logged in; with each who answered. With SHOP_PLAIN it knows
# nothing of gossipsess.

import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

if "SHOP_PLAIN" in os.environ:
    from starlette.middleware.sessions import SessionMiddleware
else:
    from gossipsess.web.starlette import SessionMiddleware

VERSION = 1


async def login(request: Request) -> JSONResponse:
    request.session["user_id"] = "kim"
    return JSONResponse({"process": os.getpid()})


async def home(request: Request) -> JSONResponse:
    return JSONResponse({"process": os.getpid(), "user": request.session.get("user_id"), "version": VERSION})


app = Starlette(routes=[Route("/login", login), Route("/", home)])
app.add_middleware(SessionMiddleware, secret_key="only for tests")
