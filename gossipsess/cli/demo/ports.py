# Ports: free ones of 127.0.0.1, where everything in the demo stays.

import socket
from typing import Final

LOOPBACK: Final = "127.0.0.1"
PORTS_TRIED: Final = 1000


def take_ports(first: int, count: int) -> list[socket.socket]:
    """Return sockets that listen on `count` free ports in a row; close one to free its port.

    They begin at `first`, or any number of times `count` above it. So while the first of them is kept, no demo that
    looks from the same port on takes one of the others, though they are free until a replica is up, and while it is
    away.

    Raises:
        OSError: there are not so many among the next `PORTS_TRIED`.
    """
    for start in range(first, min(first + PORTS_TRIED, 65537 - count), count):
        taken: list[socket.socket] = []
        try:
            for port in range(start, start + count):
                one = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
                taken.append(one)
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # an earlier demo's connections may linger
                one.bind((LOOPBACK, port))
                one.listen()
        except OSError:
            for one in taken:
                one.close()
            continue
        return taken
    raise OSError(f"no {count} free ports in a row from {first} on; try another --port")
