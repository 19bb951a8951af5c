# A web application whose clients can tell what is missing: every write of a session has a key of its own.
#
# In:     uvicorn shop:app, and GOSSIPSESS_*.
# Out:    GET / and POST /write answer with all that the session shows, POST /logout ends it; the rest is for the
#         scripts. Its twin is shop_flask.py.
# Choice: a key for each write, since a value that is read, added to and written back could be overwritten by a write
#         whose answer never came; then a later write would hide an earlier one, and nothing would have gone wrong.

import os
import threading
import time
from typing import Final

from digests import digests
from node_status import node_status
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from gossipsess.protocol.outcomes import Confirmed
from gossipsess.protocol.placement import EVERYWHERE
from gossipsess.service import process_node
from gossipsess.waiting import blocking
from gossipsess.web.starlette import SessionMiddleware

TELL_EVERY_S: Final = 0.01


def tell_pulled() -> None:
    """Print how much has been moved here, whenever it is more: nobody can ask before the port is open."""
    node, told = process_node(), 0
    while not node.synced:
        pulled = node.status().pulled_bytes
        if pulled > told:
            told = pulled
            print(f"pulled {pulled} bytes", flush=True)
        time.sleep(TELL_EVERY_S)


def shown(request: Request) -> JSONResponse:
    values = dict(request.session)
    return JSONResponse(
        {"seen": values, "stale": request.scope["session"].stale, "replica": os.environ.get("GOSSIPSESS_HOST")}
    )


async def read(request: Request) -> JSONResponse:
    return shown(request)


async def write(request: Request) -> JSONResponse:
    request.session[request.query_params["key"]] = request.query_params["value"]
    return shown(request)


async def logout(request: Request) -> JSONResponse:
    request.session.clear()
    return shown(request)


def fill(request: Request) -> JSONResponse:
    """Create sessions with one random value each; answer with the ids of those that were confirmed as asked."""
    store = process_node().new_store()
    value_bytes, confirm = (int(request.query_params[name]) for name in ("bytes", "confirm"))
    ids = []
    for _ in range(int(request.query_params["sessions"])):
        session = store.create()
        # Encoded, the head of a text takes up to five bytes, and a value may have no more than its limit in all.
        session["data"] = os.urandom(value_bytes // 2 + 1).hex()[: max(value_bytes - 5, 0)]
        if isinstance(blocking(store.commit(session, confirm)), Confirmed):
            ids.append(session.id)
    return JSONResponse({"ids": ids})


async def status(_: Request) -> JSONResponse:
    return JSONResponse(node_status())


def all_digests(_: Request) -> JSONResponse:
    return JSONResponse(digests(process_node().node))


async def owners(_: Request) -> JSONResponse:
    """Answer with the names of the holders of each partition, the primary first."""
    with process_node().node.locked() as replica:
        layout = replica.placement.layout
    return JSONResponse([[member.name for member in layout.holders(one)] for one in range(EVERYWHERE)])


threading.Thread(target=tell_pulled, daemon=True).start()

app = Starlette(
    routes=[
        Route("/", read),
        Route("/write", write, methods=["POST"]),
        Route("/logout", logout, methods=["POST"]),
        Route("/fill", fill, methods=["POST"]),
        Route("/status", status),
        Route("/owners", owners),
        Route("/digests", all_digests),
    ],
    middleware=[Middleware(SessionMiddleware)],
)
