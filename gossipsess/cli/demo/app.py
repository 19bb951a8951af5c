# App: one replica of the shop, an ordinary Starlette application; `uvicorn gossipsess.cli.demo.app:app`.
#
# In:    requests; GOSSIPSESS_* from crew.py, GOSSIPSESS_NODE_NAME being "replica-<number>".
# Out:   pages and JSON to browsers; on standard output one JSON object a line for crew.py: what this replica
#        knows of the cluster whenever that changes, what people clicked, and what they ordered for other replicas.
# Standard input is the way back: what crew.py knows of all replicas, a line of JSON whenever that changes. This process
# ends with the one that started it, which holds the other end.
# Not here: HTML (page.py).

import asyncio
import contextlib
import json
import os
import sys
import threading
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Final
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gossipsess.cli.demo.page import COOKIE, PRODUCTS, REPLICAS_MAX, Mate, Peer, Replica, View, cluster, crew, page
from gossipsess.cli.demo.ports import LOOPBACK
from gossipsess.model.identity import short, sid_of
from gossipsess.protocol.placement import partition_of
from gossipsess.service import process_node
from gossipsess.session import Session
from gossipsess.web.starlette import SessionMiddleware

LOOK_EVERY_S: Final = 0.1
LOOK_EVERY_WHEN_MOVING_S: Final = 0.02
"""While sessions come to this replica; the few hundred of a demo do so in a moment."""
USER_CHARACTERS_MAX: Final = 40
ORDERS: Final = ("kill", "drain", "start", "join")

NUMBER: Final = int(os.environ.get("GOSSIPSESS_NODE_NAME", "replica-0").removeprefix("replica-"))
REPLICA_HEADER: Final = {"X-Replica": str(NUMBER)}

mates: tuple[Mate, ...] = ()
"""All replicas, as crew.py last told; replaced by the thread that listens to it."""


async def home(request: Request) -> Response:
    """The page."""
    seen = view(request)
    tell_click("view", seen)
    return HTMLResponse(page(seen, mates), headers=REPLICA_HEADER)


async def login(request: Request) -> Response:
    """Take any name at its word."""
    form = await form_of(request)
    request.scope["session"].rotate()  # the key "user" is this shop's own: such a login says that it is one
    request.session["user"] = form.get("user", "").strip()[:USER_CHARACTERS_MAX] or "somebody"
    tell_click("login", view(request))
    return back_home()


async def logout(request: Request) -> Response:
    """End the session, the cart with it."""
    tell_click("logout", view(request))
    request.session.clear()
    return back_home()


async def add_to_cart(request: Request) -> Response:
    """Put one thing into the cart; 400 for what the shop does not sell."""
    item = (await form_of(request)).get("item")
    if item not in PRODUCTS:
        return PlainTextResponse("No such thing in this shop.", 400)
    request.session.setdefault("cart", []).append(item)
    tell_click("cart", view(request))
    return back_home()


async def session(request: Request) -> Response:
    """What the page shows, as JSON: the fields of `View`."""
    return JSONResponse(asdict(view(request)), headers=REPLICA_HEADER)


async def holders(request: Request) -> Response:
    """Where the session lives whose id is in X-Session, and whether this replica holds it, as JSON.

    In the cookie the id would have the session loaded, and so fetched from those who hold it.
    """
    session_id = request.headers.get("X-Session", "")
    names = process_node().holders_of(session_id)
    return JSONResponse({"holders": names, "holds": bool(names) and short(sid_of(session_id)) in held()})


async def cluster_panel(request: Request) -> Response:
    """The page's panel of other replicas, which the page asks for again and again. Uses no session."""
    return HTMLResponse(cluster(replica(request)))


async def crew_panel(request: Request) -> Response:
    """The page's panel of all replicas. Uses no session."""
    return HTMLResponse(crew(mates))


async def order(request: Request) -> Response:
    """Have a replica killed, drained or started, or one more started.

    400 for what is none of these, 403 where another site's page has sent it, 409 where there are as many as may be.
    """
    if not from_own_page(request):
        return PlainTextResponse("Another site may not order this; open the demo's page on 127.0.0.1.", 403)
    form = await form_of(request)
    what, number = form.get("order"), form.get("replica", "")
    if what not in ORDERS:
        return PlainTextResponse(f"No such order; there are {', '.join(ORDERS)}.", 400)
    if what == "join":
        number = "0"
        if len(mates) >= REPLICAS_MAX:
            return PlainTextResponse(f"There are {REPLICAS_MAX} replicas, and there may be no more.", 409)
    elif number not in [str(mate.number) for mate in mates]:
        return PlainTextResponse(f"No such replica; {what} one of 1 to {len(mates)}.", 400)
    answer = back_home()
    # After the answer: it may be this very replica that is to die.
    answer.background = BackgroundTask(tell_order, what, int(number))
    return answer


def from_own_page(request: Request) -> bool:
    """Say whether the page itself has sent a form, or a program; and not, in a browser, the page of another site.

    Any page may have a browser post a form to 127.0.0.1, and a name of its own may lead there too. A browser says whose
    page it was, a program says nothing.
    """
    address = request.headers.get("Host", "")
    if address.partition(":")[0] not in (LOOPBACK, "localhost"):
        return False
    origin = request.headers.get("Origin")
    if origin is not None:
        return origin == f"http://{address}"
    return request.headers.get("Sec-Fetch-Site", "none") in ("same-origin", "none")


async def form_of(request: Request) -> dict[str, str]:
    """Return the fields of a posted form; Starlette's own reader would need one more package."""
    return {name: values[-1] for name, values in parse_qs((await request.body()).decode("utf-8", "replace")).items()}


def back_home() -> Response:
    """Return the answer to a form: open the page again."""
    return RedirectResponse("/", 303, headers=REPLICA_HEADER)


def view(request: Request) -> View:
    """Return what this replica shows of the request's session and of the cluster."""
    own: Session = request.scope["session"].gossipsess
    stored = bool(own)
    return View(
        user=own.get("user"),
        cart=tuple(own.get("cart", ())),
        session=short(sid_of(own.id)) if stored else None,
        created=own.created_at,
        accessed=own.accessed_at,
        stale=own.stale,
        replica=replica(request),
        holders=tuple(dict.fromkeys(process_node().holders_of(own.id))) if stored else (),
    )


def replica(request: Request) -> Replica:
    """Return what this replica knows of itself and of the others."""
    status = process_node().status()
    gaining = status.gaining.partitions if status.gaining is not None else 0
    return Replica(NUMBER, os.getpid(), request.scope["server"][1], peers(), held(), status.copies, gaining)


def peers() -> tuple[Peer, ...]:
    """Return the other replicas; of one that was started again, its present life."""
    status = process_node().status()
    latest = {
        member.name: Peer(member.name, member.state, member.linked, f"{member.address[0]}:{member.address[1]}")
        for member in reversed(status.members)  # the present or last life comes first there, so the last one wins
        if member.name != status.name  # a former life of this replica
    }
    return tuple(latest[name] for name in sorted(latest))


def held() -> tuple[str, ...]:
    """Return the short hashes of the sessions that this replica holds, ended ones left out."""
    node = process_node().node
    with node.locked():
        return tuple(short(sid) for sid, record in node.records.items() if not record.tombstone)


def copies() -> int:
    """Return how many of these live on other replicas, and are here because a request has brought or left them here."""
    service = process_node()
    with service.node.locked() as replica:
        layout, node, records = replica.placement.layout, replica.node, service.node.records
        elsewhere = [sid for sid in records if not layout.holds(node, partition_of(sid))]
        return sum(not records[sid].tombstone for sid in elsewhere)


def tell(kind: str, **fields: object) -> None:
    """Tell crew.py one thing: a line of JSON on standard output."""
    print(json.dumps({"kind": kind, **fields}), flush=True)


async def tell_order(what: str, number: int) -> None:
    """Tell what somebody ordered. A coroutine, since a function would run in a thread, and two lines get into one."""
    tell("order", order=what, replica=number)


def tell_click(what: str, seen: View) -> None:
    """Tell crew.py what somebody clicked, and what they see of their session before or after it."""
    tell("click", what=what, user=seen.user, items=len(seen.cart), session=seen.session, stale=seen.stale)


async def tell_changes() -> None:
    """Tell what this replica knows of the others and how many sessions it holds, whenever that changes."""
    before = None
    while True:
        status = process_node().status()
        share = status.primary_partitions + status.secondary_partitions
        gaining = min(status.gaining.of - status.gaining.come, share) if status.gaining is not None else 0
        now = (peers(), len(held()), copies(), status.synced, share - gaining, share)
        if now != before:
            before = now
            tell(
                "knows",
                peers={peer.name: peer.state for peer in now[0]},
                linked=[peer.name for peer in now[0] if peer.linked],
                sessions=now[1],
                copies=now[2],
                synced=now[3],
                partitions=now[4],
                share=now[5],
            )
        await asyncio.sleep(LOOK_EVERY_WHEN_MOVING_S if gaining else LOOK_EVERY_S)


class TellsHandover:
    """Around the session middleware, which has its node leave at the end of the lifespan: tells what it handed over."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        service, own = process_node(), 0

        async def receive_and_count() -> Message:
            nonlocal own
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                own = len(held()) - copies()
            return message

        async def tell_and_send(message: Message) -> None:
            if message["type"] == "lifespan.shutdown.complete" and not service.status().handing_over:
                tell("handed_over", sessions=own)
            await send(message)

        await self._app(scope, receive_and_count, tell_and_send)


def listen_to_crew() -> None:
    """Take in what the process that started this one says, until it is gone; then end this one."""
    global mates
    # Not sys.stdin itself: the interpreter takes its lock when it ends, and would abort while this thread waits in it.
    with open(sys.stdin.fileno(), "rb", closefd=False) as lines:
        for line in lines:  # ends then, however the parent went
            mates = tuple([Mate(**fields) for fields in json.loads(line)])
    os._exit(0)


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Tell of changes while the replica serves, and end with the demo."""
    threading.Thread(target=listen_to_crew, daemon=True).start()
    telling = asyncio.create_task(tell_changes())
    yield
    telling.cancel()


app = Starlette(
    routes=[
        Route("/", home),
        Route("/login", login, methods=["POST"]),
        Route("/logout", logout, methods=["POST"]),
        Route("/cart", add_to_cart, methods=["POST"]),
        Route("/session", session),
        Route("/holders", holders),
        Route("/cluster", cluster_panel),
        Route("/crew", crew_panel),
        Route("/crew", order, methods=["POST"]),
    ],
    middleware=[Middleware(TellsHandover), Middleware(SessionMiddleware, session_cookie=COOKIE)],
    lifespan=lifespan,
)
