# Trio loop: where the node of an application on Trio is to run, in the application's own loop or in a thread beside it.
#
#     python -m tests.hosts.trio_loop [--rounds 4] [--writes 500] [--blocked 3] [--json]
#
# In:    two processes on loopback; the one that is measured runs Trio, with its node either way.
# Out:   what a confirmed write takes it; and, while one of its handlers computes for some seconds without yielding, how
#        many of the other process's writes go out unconfirmed, and what that process takes it for.
# Choice: rounds of both places in turn, and of a write's time the best round: what others do on the machine only adds.
# Not here: asyncio and threads, which have no loop that a node could be a guest of.

import argparse
import json
import statistics
import subprocess
import sys
import time
import uuid
from contextlib import AsyncExitStack
from typing import Any, Final

import trio

from gossipsess import Degraded, inline
from gossipsess.config import Config
from gossipsess.service import NodeService, RunningNode, process_node
from gossipsess.waiting import blocking, on_trio

PLACES: Final = ("loop", "thread")
WITHIN_S: Final = 20.0


def config(cluster: str, seed: int | None, host: str) -> Config:
    """Return the settings of one of the two nodes."""
    discovery = "none" if seed is None else f"static://127.0.0.1:{seed}"
    return Config(
        cluster=cluster, secret="measured-on-loopback", bind="127.0.0.1", port=0, discovery=discovery, host=host
    )


async def measured(place: str, settings: Config, writes: int, blocked_s: float) -> None:
    """Run the application that is measured; it prints one line, waits for one, blocks, and waits for another."""
    async with AsyncExitStack() as stack:
        service: NodeService
        if place == "loop":
            face = await stack.enter_async_context(inline.open_node(settings))
            service = face._service
        else:
            service = process_node(settings)
        while not any(member.linked for member in service.status().members):  # noqa: ASYNC110  # nothing tells of it
            await trio.sleep(0.01)
        took_ms = []
        session = service.store.create()
        for number in range(writes):
            session["number"] = number
            began_s = time.perf_counter()
            await on_trio(service.store.commit(session, 1))
            took_ms.append((time.perf_counter() - began_s) * 1000)
            await trio.sleep(0.002)
        print(json.dumps(took_ms[writes // 10 :]), flush=True)
        await trio.to_thread.run_sync(sys.stdin.readline)
        until_s = time.monotonic() + blocked_s
        while time.monotonic() < until_s:  # a handler that computes
            pass
        await trio.to_thread.run_sync(sys.stdin.readline)


def look(place: str, writes: int, blocked_s: float) -> dict[str, Any]:
    """Return what was measured with the node in one place."""
    cluster = f"loop-{uuid.uuid4().hex[:8]}"
    other = RunningNode(config(cluster, None, "there"))
    seed = other.status().address[1]
    command = [sys.executable, "-m", "tests.hosts.trio_loop", "--child", place, cluster, str(seed)]
    command += ["--writes", str(writes), "--blocked", str(blocked_s)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        took_ms = json.loads(child.stdout.readline())
        child.stdin.write("block\n")
        child.stdin.flush()
        time.sleep(0.1)
        until_s = time.monotonic() + blocked_s - 0.2
        unconfirmed = count = 0
        states: set[str] = set()
        while time.monotonic() < until_s:
            session = other.store.create()
            session["number"] = count
            unconfirmed += isinstance(blocking(other.store.commit(session, 1)), Degraded)
            count += 1
            states |= {member.state for member in other.status().members}
            time.sleep(0.01)
        child.stdin.write("end\n")
        child.stdin.flush()
        child.wait(WITHIN_S)
    finally:
        child.kill()
        child.wait()
        other.close()
    return {
        "node in the": place,
        "a confirmed write, ms (median)": round(statistics.median(took_ms), 2),
        "others' writes meanwhile": count,
        "of them unconfirmed": unconfirmed,
        "taken for": states,
    }


def best(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one row for the rounds of one place."""
    place, write, others, unconfirmed, taken_for = rounds[0]
    return {
        place: rounds[0][place],
        write: min(one[write] for one in rounds),
        others: sum(one[others] for one in rounds),
        unconfirmed: sum(one[unconfirmed] for one in rounds),
        taken_for: ", ".join(sorted(set().union(*[one[taken_for] for one in rounds]))),
    }


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.hosts.trio_loop")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--writes", type=int, default=500)
    parser.add_argument("--blocked", type=float, default=3.0, help="seconds that a handler computes")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        place, cluster, seed = arguments.child
        trio.run(measured, place, config(cluster, int(seed), "here"), arguments.writes, arguments.blocked)
        return 0
    rounds = [[look(place, arguments.writes, arguments.blocked) for place in PLACES] for _ in range(arguments.rounds)]
    rows = [best(list(of_place)) for of_place in zip(*rounds, strict=True)]
    if arguments.json:
        print(json.dumps(rows, indent=1))
    else:
        print("| " + " | ".join(rows[0]) + " |")
        print("| " + " | ".join("---" for _ in rows[0]) + " |")
        for row in rows:
            print("| " + " | ".join(str(value) for value in row.values()) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
