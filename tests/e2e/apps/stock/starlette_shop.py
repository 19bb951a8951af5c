# An application as it is without gossipsess, in Starlette. Its twins are the other files here.

import os

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


async def home(request: Request) -> JSONResponse:
    return JSONResponse({"user": request.session.get("user"), "process": os.getpid()})


async def login(request: Request) -> JSONResponse:
    request.session["user"] = request.query_params["user"]
    return await home(request)


app = Starlette(
    routes=[Route("/", home), Route("/login", login, methods=["POST"])],
    middleware=[Middleware(SessionMiddleware, secret_key="not a secret")],
)
