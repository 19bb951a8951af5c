# Page: the shop as one HTML page with nothing to load.
#
# In:    a `View`.    Out: HTML; every value in it is escaped.
# It works without scripts. The script only asks again, without cookies, what the replicas and the cluster look like:
# so asking neither uses the session nor keeps it alive.
# A session's id is never shown; what stands for it is the start of its one-way hash.

import time
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from gossipsess.cli.demo.narrator import things, where

COOKIE: Final = "gossipsess_demo"
"""Of its own name: cookies of 127.0.0.1 go to every port, and a developer has other applications there."""
REPLICAS_MAX: Final = 10
"""So many there may be in the end; the command starts 2 to 8, and the page one more at a time."""
VISITOR: Final = "visitor"
"""What the names of those begin with whom the demo itself has log in (visitors.py)."""
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
class Mate:
    """One of the replicas, as the demo that runs them sees it."""

    number: int
    state: str
    """``starting``, ``up``, ``killed``, ``draining`` or ``drained``."""
    pid: int
    port: int
    sessions: int
    """How many it holds."""
    copies: int
    """How many of them live on other replicas."""
    partitions: int
    """Of how many partitions it holds what there is, by one of their holders."""
    share: int
    """How many it is to hold."""
    synced: bool
    """It holds all that it is to hold."""


@dataclass(frozen=True)
class Replica:
    """The replica that answers."""

    number: int
    pid: int
    port: int
    peers: tuple[Peer, ...]
    held: tuple[str, ...]
    """The sessions it holds, each as the first 8 hexadecimal digits of its id's hash."""
    copies: int
    """On how many replicas each session lives, as it sees the cluster."""
    gaining: int
    """Of how many parts of all sessions it is to have a copy and may not have all yet."""

    @property
    def live(self) -> int:
        """How many replicas are up, by what this one knows."""
        return 1 + sum(peer.state in ("alive", "suspect") for peer in self.peers)


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
    holders: tuple[str, ...] = ()
    """Names of the replicas on which the session lives, the primary first; empty: nothing is stored yet."""


def page(view: View, mates: Sequence[Mate]) -> str:
    """Return the whole page; `mates` are all replicas."""
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
  <p>{things(len(mates), "replica")}, round robin, no session server.
    Reload: another one answers, and still knows you.</p>
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
  <section class="wide" id="crew">{crew(mates)}</section>
  <section class="wide" id="cluster">{cluster(replica)}</section>
</main>
<footer>This page was made by replica {replica.number}, pid {replica.pid}.</footer>
<script>{SCRIPT}</script>
</body>
</html>
"""


def crew(mates: Sequence[Mate]) -> str:
    """Return the panel of all replicas, with the buttons that kill, drain and start them."""
    rows = "".join(
        f"<tr><td>replica {mate.number}</td><td><span class='state {mate.state}'>{mate.state}</span></td>"
        f"<td>{mate.sessions}</td><td>{mate.copies}</td><td>{_partitions(mate)}</td>"
        f"<td>{'yes' if mate.synced else 'no'}</td><td>{mate.pid}</td>"
        f"<td><form method='post' action='/crew' class='row'>"
        f"<input type='hidden' name='replica' value='{mate.number}'>{_orders(mate.state)}</form></td></tr>"
        for mate in mates
    )
    return (
        "<h2>The replicas</h2><table><tr><th></th><th>state</th><th>sessions</th><th>live elsewhere</th>"
        f"<th>partitions</th><th>synced</th><th>pid</th><th></th></tr>{rows}</table>{_join(len(mates))}"
    )


def _partitions(mate: Mate) -> str:
    return str(mate.share) if mate.partitions == mate.share else f"{mate.partitions} of {mate.share}"


def _join(replicas: int) -> str:
    if replicas >= REPLICAS_MAX:
        return ""
    return "<form method='post' action='/crew'><button name='order' value='join'>Start one more</button></form>"


def _orders(state: str) -> str:
    orders = {"up": ("kill", "drain"), "drained": ("start",)}.get(state, ())
    return "".join(f"<button class='quiet' name='order' value='{order}'>{order}</button>" for order in orders)


def cluster(replica: Replica) -> str:
    """Return the panel of what one replica knows of the others."""
    rows = "".join(
        f"<tr><td>{escape(peer.name)}</td><td><span class='state {escape(peer.state)}'>{escape(peer.state)}</span></td>"
        f"<td>{'yes' if peer.linked else 'no'}</td><td>{escape(peer.address)}</td></tr>"
        for peer in replica.peers
    )
    moving = f" {things(replica.gaining, 'partition')} still moving here." if replica.gaining else ""
    return (
        f"<h2>The cluster, as replica {replica.number} sees it now</h2>"
        f"<p>It holds {things(len(replica.held), 'session')}. Each session lives on {replica.copies} of {replica.live}"
        f" replicas.{moving}</p>"
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
        f"<dt>lives</dt><dd>{escape(where(view.holders, view.replica.live))}</dd>"
        f"<dt>created</dt><dd>{_clock(view.created)}</dd>"
        f"<dt>last accessed</dt><dd>{_clock(view.accessed)} (noted once a minute)</dd>{stale}</dl>"
    )


def _clock(unix_s: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(unix_s))


STYLE: Final = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --accent: #3558c4; }
.r1 { --accent: #2a7d4f; } .r2 { --accent: #3558c4; } .r3 { --accent: #b0561a; } .r4 { --accent: #8a3ab9; }
.r5 { --accent: #0f7f8c; } .r6 { --accent: #b3346b; } .r7 { --accent: #6b6b1f; } .r8 { --accent: #5a6475; }
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
.alive, .up { background: #2a7d4f; } .dead, .killed { background: #b3261e; }
.suspect, .starting, .draining { background: #a86a00; }
"""

SCRIPT: Final = """
const shown = {};
setInterval(async () => {
  for (const panel of ["crew", "cluster"]) {
    try {
      const answer = await fetch("/" + panel, {credentials: "omit"});
      const text = answer.ok ? await answer.text() : shown[panel];
      // Only what has changed: a button that is replaced while it is pressed would not work.
      if (text !== shown[panel]) document.getElementById(panel).innerHTML = shown[panel] = text;
    } catch { /* nobody is up just now; ask again */ }
  }
}, 1500);
"""
