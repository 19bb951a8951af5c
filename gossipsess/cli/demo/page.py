# Page: the shop as one HTML page with nothing to load.
#
# In:    a `View`.    Out: HTML; every value in it is escaped.
# It works without scripts. The script only asks again, without cookies, what the cluster looks like: so asking
# neither uses the session nor keeps it alive.
# A session's id is never shown; what stands for it is the start of its one-way hash.

import time
from dataclasses import dataclass
from html import escape
from typing import Final

COOKIE: Final = "gossipsess_demo"
"""Of its own name: cookies of 127.0.0.1 go to every port, and a developer has other applications there."""
PRODUCTS: Final = ("tea", "book", "lamp", "plant")


@dataclass(frozen=True)
class Peer:
    """Another replica, as one replica sees it."""

    name: str
    state: str
    """``alive``, ``suspect``, ``dead`` or ``left``."""
    linked: bool
    address: str
    """IP address and port at which the nodes talk."""


@dataclass(frozen=True)
class Replica:
    """The replica that answers."""

    number: int
    pid: int
    port: int
    peers: tuple[Peer, ...]
    held: tuple[str, ...]
    """The sessions it holds, each as the first 8 hexadecimal digits of its id's hash."""


@dataclass(frozen=True)
class View:
    """What one request sees. Times are Unix seconds."""

    user: str | None
    cart: tuple[str, ...]
    session: str | None
    """The first 8 hexadecimal digits of the hash of the session's id; None: nothing is stored yet."""
    created: float
    accessed: float
    stale: bool
    replica: Replica


def page(view: View) -> str:
    """Return the whole page."""
    replica = view.replica
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>gossipsess demo shop</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>
<header>
  <h1>The gossip shop</h1>
  <p>Three replicas, round robin, no session server. Reload: another one answers, and still knows you.</p>
</header>
<main>
  <section class="answered r{replica.number}">
    <h2>Replica {replica.number} answered</h2>
    <dl>
      <dt>process</dt><dd>pid {replica.pid}, port {replica.port}</dd>
      <dt>kill it</dt><dd><code>kill -9 {replica.pid}</code> then reload</dd>
    </dl>
    <form action="/"><button>Reload</button></form>
  </section>
  <section>
    <h2>You</h2>
    {_user(view)}
  </section>
  <section>
    <h2>Cart <small>{len(view.cart)}</small></h2>
    <p class="cart">{_cart(view)}</p>
    <form method="post" action="/cart" class="row">{_products()}</form>
  </section>
  <section>
    <h2>Your session</h2>
    {_session(view)}
  </section>
  <section class="wide" id="cluster">{cluster(replica)}</section>
</main>
<footer>This page was made by replica {replica.number}, pid {replica.pid}.</footer>
<script>{SCRIPT}</script>
</body>
</html>
"""


def cluster(replica: Replica) -> str:
    """Return the panel of what one replica knows of the others."""
    rows = "".join(
        f"<tr><td>{escape(peer.name)}</td><td><span class='state {escape(peer.state)}'>{escape(peer.state)}</span></td>"
        f"<td>{'yes' if peer.linked else 'no'}</td><td>{escape(peer.address)}</td></tr>"
        for peer in replica.peers
    )
    return (
        f"<h2>The cluster, as replica {replica.number} sees it now</h2>"
        f"<p>It holds {len(replica.held)} session{'' if len(replica.held) == 1 else 's'}.</p>"
        f"<table><tr><th>peer</th><th>state</th><th>linked</th><th>address</th></tr>{rows}</table>"
    )


def _user(view: View) -> str:
    if view.user is None:
        return (
            '<p>Not logged in.</p><form method="post" action="/login" class="row">'
            '<input name="user" value="kim" maxlength="40" aria-label="name" required><button>Log in</button></form>'
        )
    return (
        f"<p>Logged in as <strong>{escape(view.user)}</strong>.</p>"
        '<form method="post" action="/logout"><button class="quiet">Log out</button></form>'
    )


def _cart(view: View) -> str:
    return " ".join(f"<span>{escape(item)}</span>" for item in view.cart) or "Empty."


def _products() -> str:
    return "".join(f'<button name="item" value="{item}">Add {item}</button>' for item in PRODUCTS)


def _session(view: View) -> str:
    if view.session is None:
        return "<p>None yet: nothing is stored before there is something to store.</p>"
    stale = "<dt>stale</dt><dd>a write of yours was not found in time</dd>" if view.stale else ""
    return (
        f"<dl><dt>id (hash)</dt><dd><code>{escape(view.session)}…</code></dd>"
        f"<dt>created</dt><dd>{_clock(view.created)}</dd>"
        f"<dt>last accessed</dt><dd>{_clock(view.accessed)} (noted once a minute)</dd>{stale}</dl>"
    )


def _clock(unix_s: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(unix_s))


STYLE: Final = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --accent: #3558c4; }
.r1 { --accent: #2a7d4f; } .r2 { --accent: #3558c4; } .r3 { --accent: #b0561a; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1.5rem 1rem; }
h1 { margin: 0; font-size: 1.6rem; } h2 { margin: 0 0 .5rem; font-size: 1.05rem; }
header p, footer { opacity: .75; margin: .2rem 0 1.2rem; } footer { margin-top: 1rem; }
main { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr)); gap: 1rem; }
section { border: 1px solid var(--line); border-radius: .6rem; padding: 1rem; overflow-x: auto; }
.wide { grid-column: 1 / -1; }
.answered { border-left: .5rem solid var(--accent); }
.answered h2 { color: var(--accent); font-size: 1.3rem; }
small { background: var(--soft); border-radius: 1rem; padding: .1rem .6rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: 0 0 .8rem; }
dt { opacity: .7; } dd { margin: 0; } p { margin: 0 0 .8rem; }
code { background: var(--soft); border-radius: .3rem; padding: .1rem .35rem; }
.cart span { display: inline-block; background: var(--soft); border-radius: .4rem; padding: .1rem .6rem; }
.row { display: flex; flex-wrap: wrap; gap: .5rem; }
button { font: inherit; padding: .35rem .8rem; border: 0; border-radius: .4rem; cursor: pointer;
  color: #fff; background: #3558c4; }
button:hover { filter: brightness(1.15); }
button.quiet { background: none; color: inherit; border: 1px solid var(--line); }
input { font: inherit; padding: .3rem .5rem; border: 1px solid var(--line); border-radius: .4rem; }
table { width: 100%; border-collapse: collapse; } th { opacity: .7; font-weight: normal; }
th, td { text-align: left; padding: .3rem .5rem .3rem 0; border-top: 1px solid var(--line); }
.state { border-radius: 1rem; padding: .05rem .6rem; color: #fff; background: #777; }
.alive { background: #2a7d4f; } .suspect { background: #a86a00; } .dead { background: #b3261e; }
"""

SCRIPT: Final = """
setInterval(async () => {
  try {
    const answer = await fetch("/cluster", {credentials: "omit"});
    if (answer.ok) document.getElementById("cluster").innerHTML = await answer.text();
  } catch { /* nobody is up just now; ask again */ }
}, 1500);
"""
