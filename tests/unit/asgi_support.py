"""What the tests of the ASGI middleware share: small applications behind it, and their clients."""

from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from gossipsess.web.asgi import SessionMiddleware

ID, TOKEN = "__Host-gsid", "__Host-gsid-v"


def serving(view, *, headers=()):
    """An ASGI application that calls view(session) and then answers; what it returns is the body."""

    async def app(scope, receive, send):
        assert scope["type"] == "http", "it serves http only"
        body = str(view(scope["session"])).encode()
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


def client_of(view, node, backend="asyncio", *, headers=(), **settings):
    app = SessionMiddleware(serving(view, headers=headers), node=node, **settings)
    return TestClient(app, base_url="https://testserver", backend=backend)


def append(session):
    session.setdefault("cart", []).append("book")
    return len(session["cart"])


def socket_app(*, on_open, on_message):
    """An ASGI application that calls on_open(session) before it accepts, and on_message(session) with each message."""

    async def app(scope, receive, send):
        session = scope["session"]
        assert (await receive())["type"] == "websocket.connect"
        on_open(session)
        await send({"type": "websocket.accept"})
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message["code"])
            on_message(session)
            await send({"type": "websocket.send", "text": "done"})

    return app
