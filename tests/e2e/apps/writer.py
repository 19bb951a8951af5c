# A process that writes at a given pace and notes how each write ended, until it is killed.
#
# In:  python writer.py NOTES RATE PEERS, and GOSSIPSESS_*. Writing begins once PEERS other nodes are linked.
# Out: the file NOTES, one line for each write that returned, appended by a single write() call, so that what
#      stands there stays there when the process is killed: time, outcome, nodes, session id, key.
#
# Each write is a key of its own. So none of them can hide behind a later one when the survivor is asked.

import os
import sys
import threading
import time
from itertools import count
from typing import Final

from gossipsess import Gone, sync
from gossipsess.config import Config

THREADS: Final = 16
"""At 1,000 writes a second each may take 16 ms."""
KEYS_PER_SESSION: Final = 200


def write(node: sync.RunningFace, notes: int, rate: float, first: int, start_s: float) -> None:
    """Do every `THREADS`th write, each at its due time, for ever."""
    for number in count(first, THREADS):
        if number // THREADS % KEYS_PER_SESSION == 0:
            session = node.sessions.create()
        time.sleep(max(0.0, start_s + number / rate - time.monotonic()))
        key = f"key-{number}"
        session[key] = number
        outcome = node.sessions.commit(session, confirm=1)
        nodes = 0 if isinstance(outcome, Gone) else outcome.nodes
        line = f"{time.monotonic()} {type(outcome).__name__} {nodes} {session.id} {key}\n"
        os.write(notes, line.encode())


def main(path: str, rate: float, peers: int) -> None:
    """Join, then write until killed."""
    notes = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    with sync.open_node(Config.from_env()) as node:
        while sum(member.linked for member in node.status().members) < peers:
            time.sleep(0.01)
        start_s = time.monotonic()
        threads = [threading.Thread(target=write, args=(node, notes, rate, i, start_s)) for i in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))
