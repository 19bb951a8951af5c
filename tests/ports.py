"""Ports of loopback for tests: below the ephemeral range, so that no outgoing connection takes one meanwhile."""

import contextlib
import random
import socket
from typing import Final

LOOPBACK: Final = "127.0.0.1"
PORTS: Final = range(20000, 32000)
"""What Linux by default (from 32768) and macOS (from 49152) give to no outgoing connection."""


def free_ports(count: int) -> list[int]:
    """Return `count` different ports of 127.0.0.1 that nobody uses, neither for TCP nor for UDP."""
    found: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        if _is_free(port):
            found.append(port)
            if len(found) == count:
                return found
    raise AssertionError(f"no {count} free ports in {PORTS}")


def free_range(count: int) -> int:
    """Return the first of `count` ports of 127.0.0.1 in a row that nobody uses, neither for TCP nor for UDP."""
    firsts = PORTS[: len(PORTS) - count + 1]
    for first in random.sample(firsts, len(firsts)):
        if all(_is_free(port) for port in range(first, first + count)):
            return first
    raise AssertionError(f"no {count} free ports in a row in {PORTS}")


def _is_free(port: int) -> bool:
    with contextlib.ExitStack() as held:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            probe = held.enter_context(socket.socket(socket.AF_INET, kind))
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                return False
    return True
