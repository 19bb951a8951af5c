# Memory: what a session takes in the memory of a process that holds it.
#
# In:    options (--help).   Out: one line, or with --json an object.
# Method: a process of its own fills a node with sessions, all different, as an application writes them, and looks how
#         much more memory is resident afterwards. A node that holds sessions written elsewhere needs some more, since
#         there the names of keys are not shared between records: `account` is what `Status.memory_bytes` counts for
#         that case, and what MEMORY_LIMIT_MB is compared with.
# Redis:  the same values as JSON under a key of 50 characters that expires, as session extensions store them; what the
#         server says that it has used. It holds each once, or once more for each of its own replicas.
# Not here: what a cluster holds: every session on each node below four nodes, on two from there on (scale.py).

import argparse
import gc
import json
import secrets
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script, with or without install

from bench.redis_server import WHY_MISSING, redis_server
from gossipsess.config import Config
from gossipsess.service import lone_node
from gossipsess.session import Session

WARM_UP: Final = 1000
"""Sessions made before anything is measured: modules, pools and dictionaries have come to their size."""
MEMORY_LIMIT_MB: Final = 1_000_000
"""Whatever is asked for is to be measured."""


def values() -> dict[str, Any]:
    """Return what a visitor's session may hold after the login; 183 characters as JSON."""
    return {
        "user_id": secrets.randbelow(10**6),
        "name": f"Kim {secrets.token_hex(6)}",
        "csrf_token": secrets.token_hex(32),
        "theme": "dark",
        "cart": ["book", "pen", "lamp"],
    }


def measure(sessions: int, extra_bytes: int) -> dict[str, float]:
    """Fill a node of this process; return bytes a session."""
    node = lone_node(Config(memory_limit_mb=MEMORY_LIMIT_MB))

    def fill(count: int) -> Session:
        for _ in range(count):
            session = node.store.create()
            session.update(values())
            if extra_bytes:
                session["extra"] = secrets.token_bytes(extra_bytes)
            node.store.commit(session)
        return session

    fill(WARM_UP)
    gc.collect()
    before, account_before = _resident_bytes(), node.status().memory_bytes
    last = fill(sessions)
    gc.collect()
    resident, account = _resident_bytes() - before, node.status().memory_bytes
    node.store.invalidate(last)
    freed = account - node.status().memory_bytes
    each = round((account - account_before) / sessions)
    return {
        "sessions": sessions,
        "extra_bytes": extra_bytes,
        "json_bytes": len(json.dumps(values())),
        "resident_bytes": round(resident / sessions),
        "account_bytes": each,
        "ended_account_bytes": each - freed,
    }


def measure_redis(sessions: int, extra_bytes: int) -> int | None:
    """Fill a Redis server; return bytes a session, None where there is no server to run."""
    with redis_server() as port:
        client = shutil.which("redis-cli")
        if port is None or client is None:
            return None

        def tell(*arguments: str, text: str = "") -> str:
            command = [client, "-p", str(port), *arguments]
            return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout

        def used_bytes() -> int:
            line = next(line for line in tell("INFO", "memory").splitlines() if line.startswith("used_memory:"))
            return int(line.partition(":")[2])

        def fill(count: int) -> None:
            lines = []
            for _ in range(count):
                value = json.dumps(values() | ({"extra": secrets.token_hex(extra_bytes // 2)} if extra_bytes else {}))
                lines.append(f"SET session:{secrets.token_hex(21)} '{value}' EX 1209600\r\n")
            tell("--pipe", text="".join(lines))

        fill(WARM_UP)
        before = used_bytes()
        fill(sessions)
        return round((used_bytes() - before) / sessions)


def _resident_bytes() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python bench/memory.py", description="What a session takes in memory.")
    parser.add_argument("--sessions", type=int, default=20_000)
    parser.add_argument("--bytes", type=int, default=0, help="of one more value in each session (default: %(default)s)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = measure(options.sessions, options.bytes)
    redis = measure_redis(options.sessions, options.bytes)
    if options.json:
        print(json.dumps(figures | {"redis_bytes": redis}))
    else:
        print(
            f"{options.sessions} sessions of five keys, {figures['json_bytes'] + options.bytes} bytes as JSON: "
            f"{figures['resident_bytes']} bytes resident each, {figures['account_bytes']} by the account "
            f"({figures['ended_account_bytes']} once it has ended, for a day)"
        )
        print(f"in Redis {redis} bytes each" if redis is not None else f"not measured: {WHY_MISSING}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
