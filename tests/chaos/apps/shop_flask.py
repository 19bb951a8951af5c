# The shop of shop.py in Flask, as far as clients see it, for gunicorn with workers that each have a node.

import os
from typing import Any

from digests import digests
from flask import Flask, request, session
from node_status import node_status

from gossipsess.service import process_node
from gossipsess.web.flask import GossipSessions

app = Flask(__name__)
GossipSessions(app)


def shown() -> dict[str, Any]:
    return {
        "seen": dict(session),
        "stale": session.stale,  # type: ignore[attr-defined]  # Flask's proxy is typed as the plain mixin
        "replica": os.environ.get("GOSSIPSESS_HOST"),
    }


@app.get("/")
def read() -> dict[str, Any]:
    return shown()


@app.post("/write")
def write() -> dict[str, Any]:
    session[request.args["key"]] = request.args["value"]
    return shown()


@app.post("/logout")
def logout() -> dict[str, Any]:
    session.clear()
    return shown()


@app.get("/status")
def status() -> dict[str, Any]:
    return node_status()


@app.get("/digests")
def all_digests() -> dict[str, Any]:
    return digests(process_node().node)
