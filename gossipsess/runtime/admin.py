# Admin: a running node answers what is asked from outside its process, at a Unix socket in this user's folder.
#
# In:    one short line a connection (inquiry.py says which).    Out: one line, a JSON object; then it is closed.
# A socket for each node and not for each process: nodes of one process have loops of their own, and none has to know
# of another.
# What fails here never ends the node. Where no socket can be had it goes on without one, and says so once.
# Not here: who asks (inquiry.py, cli/asking.py).

import json
import logging
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict

import trio

from gossipsess.errors import ConfigError
from gossipsess.model.identity import short
from gossipsess.node import Node
from gossipsess.runtime.folder import folder_path, make_folder
from gossipsess.runtime.forks import unforked
from gossipsess.runtime.inquiry import (
    DRAIN,
    ENDING,
    PROBE,
    REQUEST_BYTES_MAX,
    STATUS,
    at,
    probe_line,
    remove_left_over,
)
from gossipsess.status import snapshot
from gossipsess.zero_code import notes

log = logging.getLogger("gossipsess")

CONNECTIONS_MAX = 16
"""At a time; beyond, they are closed unanswered. Only this user can open any."""
CONNECTION_S = 2.0
"""How long one may take to ask, and to take the answer."""
FAILED_PAUSE_S = 0.1
"""After accepting failed, out of descriptors, say."""


class Admin:
    """The socket at which one node is asked."""

    def __init__(self, node: Node, cluster: str) -> None:
        self._node = node
        self._cluster = cluster
        self._listener: socket.socket | None = None
        self._path = ""
        self._open: dict[socket.socket, None] = {}
        self._failed = False

    def open(self) -> None:
        """Make the socket. Never raises."""
        name = f"{os.getpid()}-{short(self._node.node_id)}{ENDING}"
        draft = f".{name}"
        self._path = os.path.join(folder_path(), draft)
        try:
            make_folder()
            remove_left_over()
            with unforked:
                self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                self._listener.setblocking(False)
                at(draft, self._listener.bind)
                self._listener.listen(CONNECTIONS_MAX)
                # Only now under its name: to others a socket at which nobody listens yet would be one left over.
                path = os.path.join(folder_path(), name)
                os.rename(self._path, path)
                self._path = path
        except (ConfigError, OSError) as error:
            self.close()
            log.warning("`gossipsess ready`, `drain` and `status` will not find this node: it has no socket. %s", error)

    async def serve(self, drain: Callable[[], None]) -> None:
        """Answer until cancelled. `drain` begins to hand over; it is called in this loop, any number of times."""
        if self._listener is None:
            return
        async with trio.open_nursery() as nursery:
            while True:
                try:
                    await trio.lowlevel.wait_readable(self._listener)
                    with unforked:
                        connection = self._listener.accept()[0]
                        self._open[connection] = None
                except BlockingIOError:
                    continue
                except OSError:
                    await trio.sleep(FAILED_PAUSE_S)
                    continue
                if len(self._open) > CONNECTIONS_MAX:
                    self._done(connection)
                else:
                    nursery.start_soon(self._serve_one, connection, drain)

    def close(self) -> None:
        """Close the socket and remove it."""
        if self._listener is not None:
            with suppress(OSError):
                os.unlink(self._path)
        self.forget()

    def forget(self) -> None:
        """Close everything, in a forked child: the socket itself is the parent's."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for connection in self._open:
            connection.close()
        self._open.clear()

    async def _serve_one(self, connection: socket.socket, drain: Callable[[], None]) -> None:
        try:
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(connection))
            with trio.move_on_after(CONNECTION_S):
                request = b""
                while not request.endswith(b"\n"):
                    received = await stream.receive_some(REQUEST_BYTES_MAX)
                    request += received
                    if not received or len(request) > REQUEST_BYTES_MAX:
                        return
                await stream.send_all(self._answer(request.strip().decode("ascii", "replace"), drain))
        except trio.BrokenResourceError:
            pass  # it asked, and did not wait
        except Exception:
            if not self._failed:
                self._failed = True
                log.exception("a question from outside could not be answered; from now on this is not logged")
        finally:
            self._done(connection)

    def _done(self, connection: socket.socket) -> None:
        connection.close()
        self._open.pop(connection, None)

    def _answer(self, request: str, drain: Callable[[], None]) -> bytes:
        if request not in (STATUS, DRAIN, PROBE):
            return b'{"error": "a node can be asked: status, drain, probe"}\n'
        if request == DRAIN:
            drain()
        status = snapshot(self._node)
        if request == PROBE:
            ready = "yes" if status.ready else "no"
            return probe_line(self._cluster, status.name, status.node, os.getpid(), ready)
        answer = {
            "cluster": self._cluster,
            "process": os.getpid(),
            "ready": status.ready,
            **asdict(status),
            "auto": notes,
        }
        return json.dumps(answer).encode() + b"\n"
