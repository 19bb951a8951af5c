# Ports: free ones of 127.0.0.1, where everything in the demo stays.

import socket
from typing import Final

LOOPBACK: Final = "127.0.0.1"
PORTS_TRIED: Final = 1000


def take_ports(first: int, count: int) -> list[socket.socket]:
    """Return sockets that listen on the first `count` free ports from `first` on; close one to free its port.

    Raises:
        OSError: there are not so many among the next `PORTS_TRIED`.
    """
    taken: list[socket.socket] = []
    for port in range(first, min(first + PORTS_TRIED, 65536)):
        one = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # an earlier demo's old connections may linger
            one.bind((LOOPBACK, port))
            one.listen()
        except OSError:
            one.close()
            continue
        taken.append(one)
        if len(taken) == count:
            return taken
    for one in taken:
        one.close()
    raise OSError(f"fewer than {count} free ports from {first} on; try another --port")
