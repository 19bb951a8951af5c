# A shop on WSGI: a login, and a page that says who is logged in; with each who answered. With SHOP_PLAIN it knows
# nothing of gossipsess.

import os

from flask import Flask, session

VERSION = 1

app = Flask(__name__)
if "SHOP_PLAIN" in os.environ:
    app.secret_key = "only for tests"
else:
    from gossipsess.web.flask import GossipSessions

    GossipSessions(app)


@app.get("/login")
def login() -> dict[str, object]:
    session["user_id"] = "kim"
    return {"process": os.getpid()}


@app.get("/")
def home() -> dict[str, object]:
    return {"process": os.getpid(), "user": session.get("user_id"), "version": VERSION}
