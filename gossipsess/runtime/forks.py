# Forks: a lock that a fork of this process waits for, and what tells a child from its parent.
#
# Whoever opens a socket holds it until the socket is noted where a child will look for it. Without it another thread
# could fork just between, and the child would keep a copy that it does not know of.

import os
import threading

unforked = threading.RLock()
"""Reentrant: a signal handler that forks may interrupt whoever holds it."""
generation = 0
"""Another in each child than in its parent. It costs less than to ask the system for the process id."""


def _in_child() -> None:
    global generation
    generation += 1
    unforked.release()


os.register_at_fork(before=unforked.acquire, after_in_parent=unforked.release, after_in_child=_in_child)
