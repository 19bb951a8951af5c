# Shop, in Flask: log in, fill a cart, log out. Its sessions are Flask's own, until replicated.diff is applied.
#
#   pip install flask gunicorn
#   gunicorn app:app --bind 127.0.0.1:8001 --threads 8 --preload

import os

from flask import Flask, redirect, render_template_string, request, session
from flask.typing import ResponseReturnValue

PAGE = """<!doctype html><title>Shop</title><p>User: {{ user or "nobody" }}. Cart: {{ cart | join(", ") or "empty" }}.
Answered by process {{ replica }}.
<form method=post action=/login><input name=user required maxlength=40><button>Log in</button></form>
<form method=post action=/cart><input name=item required maxlength=40><button>Into the cart</button></form>
<form method=post action=/logout><button>Log out</button></form>"""

app = Flask(__name__)
app.secret_key = os.environ.get("SHOP_KEY", "only for trying out")


@app.get("/")
def home() -> ResponseReturnValue:
    shown = {"user": session.get("user_id"), "cart": session.get("cart", []), "replica": os.getpid()}
    if "application/json" in request.headers.get("Accept", ""):
        return shown
    return render_template_string(PAGE, **shown)


@app.post("/login")
def login() -> ResponseReturnValue:
    session["user_id"] = request.form["user"]
    return redirect("/", 303)


@app.post("/cart")
def add_to_cart() -> ResponseReturnValue:
    session["cart"] = [*session.get("cart", []), request.form["item"]]
    return redirect("/", 303)


@app.post("/logout")
def logout() -> ResponseReturnValue:
    session.clear()
    return redirect("/", 303)
