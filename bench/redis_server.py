# Redis server: one for a comparison, on a port of its own on loopback, ended with it.
#
# In:    nothing.   Out: the port of a server that answers; None where redis-server is not installed.
# It keeps nothing: no snapshot, no log of writes, so that its figures are the best it can show.

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

PATIENCE_S: Final = 10.0
WHY_MISSING: Final = "redis-server is not installed (on Debian: apt-get install redis-server)"


@contextmanager
def redis_server() -> Iterator[int | None]:
    """Run a Redis server; gives its port, or None where there is none to run.

    Raises:
        TimeoutError: it did not answer within `PATIENCE_S`.
    """
    program = shutil.which("redis-server")
    if program is None:
        yield None
        return
    port = _free_port()
    options = f"--port {port} --bind 127.0.0.1 --appendonly no --loglevel warning".split()
    # Ended with this process also where that is killed, on Linux.
    setpriv = shutil.which("setpriv")
    prefix = [setpriv, "--pdeathsig", "TERM"] if setpriv else []
    with tempfile.TemporaryDirectory() as folder:
        command = [*prefix, program, *options, "--save", "", "--dir", folder]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            _wait_until_it_answers(port)
            yield port
        finally:
            server.terminate()
            server.wait()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _wait_until_it_answers(port: int) -> None:
    give_up_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
                connection.sendall(b"PING\r\n")
                if connection.recv(16).startswith(b"+PONG"):
                    return
        except OSError:
            pass
        if time.monotonic() > give_up_s:
            raise TimeoutError(f"redis-server does not answer on port {port}")
        time.sleep(0.02)
