# An application as it is without gossipsess, in Quart. Its twins are the other files here.

import os
from typing import Any

from quart import Quart, request, session

app = Quart(__name__)
app.secret_key = "not a secret"


@app.get("/")
async def home() -> dict[str, Any]:
    return {"user": session.get("user"), "process": os.getpid()}


@app.post("/login")
async def login() -> dict[str, Any]:
    session["user"] = request.args["user"]
    return await home()
