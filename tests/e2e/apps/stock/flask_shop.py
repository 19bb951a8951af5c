# An application as it is without gossipsess, in Flask. Its twins are the other files here.

import os
from typing import Any

from flask import Flask, request, session

app = Flask(__name__)
app.secret_key = "not a secret"


@app.get("/")
def home() -> dict[str, Any]:
    return {"user": session.get("user"), "process": os.getpid()}


@app.post("/login")
def login() -> dict[str, Any]:
    session["user"] = request.args["user"]
    return home()
