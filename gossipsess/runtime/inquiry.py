# Inquiry: asking the nodes of this user on this machine, from any process.
#
# In:    a request, one word.    Out: each node's answer as it comes: a JSON object, or a probe's few fields.
# Each node listens at a Unix socket of its own, <process id>-<node>.sock in this user's folder. A connection carries
# one line each way. Whoever can enter the folder may ask; nothing of it is on the network.
# A socket at which nobody listens is left over from a process that was killed; whoever meets it removes it. Its name is
# never used again, so a new node's cannot be meant; and a node that does not answer still listens.
# As in folder.py imports are few, since probes pay for them: typing alone would be a fifth of a bare start of Python,
# and so would the enumerations that socket makes of what _socket has. A parser of JSON would be two thirds, so what a
# probe asks is answered in a form of its own.
# Not here: who answers (admin.py), and what follows for a command (cli/asking.py).

import _socket as socket
import errno
import os
import select
import time

from gossipsess.runtime.folder import check_private, folder_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

ENDING = ".sock"
STATUS, DRAIN, PROBE = "status", "drain", "probe"
"""What a node may be asked: how it is; before it answers that, to hand over what it holds and take no more; and whether
it is ready, with no more than `PROBED`."""
PROBED = ("cluster", "name", "node", "process", "ready")
"""The fields of a probe's answer, as a status calls them, in this order; the last is ``yes`` or ``no``."""
REQUEST_BYTES_MAX = 64
ANSWER_BYTES_MAX = 4_000_000
"""Ten thousand members, as a status tells of them."""
ANSWER_S = 2.0
"""How long to wait for answers. A node's thread gives them, which may share one core with its application."""
SOCKET_PATH_BYTES_MAX = 100
"""Linux takes paths of up to 107 bytes, others of 103."""


class Reply:
    """What came of asking one node."""

    __slots__ = ("answer", "name")

    def __init__(self, name: str, answer: "dict[str, Any] | None") -> None:
        self.name = name
        """Its socket's name, which no other node ever has."""
        self.answer = answer
        """What it said; None: it runs, and did not answer in time."""

    @property
    def process(self) -> str:
        """The id of its process."""
        return self.name.partition("-")[0]


def names() -> list[str]:
    """Return the names of all sockets, those left over included.

    Raises:
        ConfigError: somebody else may enter the folder, and answer for nodes of this user's.
    """
    folder = folder_path()
    try:
        check_private(folder)
        # One that begins with a dot is being made: nobody listens there yet, and it must not be taken for left over.
        return sorted(name for name in os.listdir(folder) if name.endswith(ENDING) and not name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []


def ask(request: str, only: list[str] | None = None, within_s: float = ANSWER_S) -> "Iterator[Reply]":
    """Ask all nodes of this user at once, or `only` those of these names; give each reply when it comes.

    Raises:
        ConfigError: as `names`.
    """
    until_s = time.monotonic() + within_s
    waiting: dict[socket.socket, tuple[str, bytearray]] = {}
    silent: list[str] = []
    try:
        for name in names() if only is None else only:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            waiting[sock] = (name, bytearray())
            sock.setblocking(False)
            try:
                at(name, sock.connect)
                sock.sendall(request.encode("ascii") + b"\n")
                continue
            except (ConnectionRefusedError, FileNotFoundError):
                _remove(name)
            except OSError:  # its queue is full, or it has closed it since
                silent.append(name)
            del waiting[sock]
            sock.close()
        while waiting and (left_s := until_s - time.monotonic()) > 0:
            for sock in select.select(list(waiting), [], [], left_s)[0]:
                name, received = waiting[sock]
                try:
                    data = sock.recv(65536)
                except OSError:
                    data = b""
                received += data
                if not data or data.endswith(b"\n") or len(received) > ANSWER_BYTES_MAX:
                    del waiting[sock]
                    sock.close()
                    yield Reply(name, _probed(received) if request == PROBE else _parsed(received))
        for name in (*silent, *[name for name, _ in waiting.values()]):
            yield Reply(name, None)
    finally:
        for sock in waiting:
            sock.close()


def remove_left_over() -> None:
    """Remove sockets of processes of this machine that are no more.

    A node calls this when it starts, for where nobody ever asks. It disturbs none that run.
    """
    for name in names():
        process = name.partition("-")[0]
        if not process.isdecimal() or os.path.exists(f"/proc/{process}"):
            continue
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            at(name, sock.connect)
        except (ConnectionRefusedError, FileNotFoundError):
            _remove(name)
        except OSError:
            pass
        finally:
            sock.close()


def at(name: str, use: "Callable[[str], object]") -> None:
    """Call `use` with a path by which the socket of that name is bound or connected to.

    Raises:
        OSError: what `use` raises; also where the folder's path is too long for a socket, and there is no way round.
    """
    folder = folder_path()
    path = os.path.join(folder, name)
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX:
        use(path)
        return
    if not os.path.isdir("/proc/self/fd"):
        raise OSError(errno.ENAMETOOLONG, "too long for a socket; set XDG_RUNTIME_DIR to a shorter path", path)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        use(f"/proc/self/fd/{descriptor}/{name}")
    finally:
        os.close(descriptor)


def _remove(name: str) -> None:
    try:  # noqa: SIM105  # contextlib is one of those imports
        os.unlink(os.path.join(folder_path(), name))
    except OSError:
        pass  # somebody else was quicker


def probe_line(*fields: object) -> bytes:
    """Return the answer to a probe: the values of `PROBED`."""
    return b"\t".join([str(field).encode("unicode_escape") for field in fields]) + b"\n"


def _probed(received: bytearray) -> "dict[str, Any] | None":
    fields = received.removesuffix(b"\n").split(b"\t")
    if len(fields) != len(PROBED):
        return None  # a node that knows of no probes says so
    try:
        answer: dict[str, Any] = {
            name: field.decode("unicode_escape") for name, field in zip(PROBED, fields, strict=True)
        }
    except ValueError:
        return None
    return {**answer, "ready": answer["ready"] == "yes"}


def _parsed(received: bytearray) -> "dict[str, Any] | None":
    import json

    try:
        answer = json.loads(received)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None
