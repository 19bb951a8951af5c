# An application as it is without gossipsess, in Litestar. Its twins are the other files here.

import os
from typing import Any

from litestar import Litestar, Request, get, post
from litestar.middleware.session.client_side import CookieBackendConfig


def shown(request: Request[Any, Any, Any]) -> dict[str, Any]:
    return {"user": request.session.get("user"), "process": os.getpid()}


@get("/")
async def home(request: Request[Any, Any, Any]) -> dict[str, Any]:
    return shown(request)


@post("/login")
async def login(request: Request[Any, Any, Any], user: str) -> dict[str, Any]:
    request.session["user"] = user
    return shown(request)


app = Litestar([home, login], middleware=[CookieBackendConfig(secret=b"not a secret....").middleware])
