# A shop for the end-to-end tests, in Flask; settings come from GOSSIPSESS_* alone. Its twin is starlette_app.py.

import os
import time
from typing import Any

from flask import Flask, request, session

from gossipsess.web.flask import GossipSessions

app = Flask(__name__)
GossipSessions(app)


def shown() -> dict[str, Any]:
    return {
        "user": session.get("user"),
        "cart": session.get("cart"),
        "stale": session.stale,  # type: ignore[attr-defined]  # Flask's proxy is typed as the plain mixin
        "replica": os.environ["GOSSIPSESS_PORT"],
    }


@app.get("/")
def home() -> dict[str, Any]:
    return shown()


@app.post("/login")
def login() -> dict[str, Any]:
    session["user"] = request.args["user"]
    return shown()


@app.post("/cart/add")
def add_to_cart() -> dict[str, Any]:
    time.sleep(float(request.args.get("after_s", "0")))
    session.setdefault("cart", []).append(request.args["item"])
    return shown()
