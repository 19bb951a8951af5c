# A shop on ASGI: a login, a page that says who is logged in, and a page without a session; with each who answered.

import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from gossipsess.web.starlette import SessionMiddleware

VERSION = 1


async def login(request: Request) -> JSONResponse:
    request.session["user_id"] = "kim"
    return JSONResponse({"process": os.getpid()})


async def home(request: Request) -> JSONResponse:
    return JSONResponse({"process": os.getpid(), "user": request.session.get("user_id"), "version": VERSION})


app = Starlette(routes=[Route("/login", login), Route("/", home)])
app.add_middleware(SessionMiddleware)
