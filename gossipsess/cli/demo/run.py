# Run: the demo from its first process to its last.
#
# In:    the command's options, and whether standard input is a terminal.    Out: an exit code.
# On a terminal it serves until Ctrl-C. Elsewhere nobody would press that, so it plays a scenario and ends.
# Everything is asyncio: this process hosts no node, and asyncio's subprocesses and streams are all it needs.

import asyncio
import importlib.util
import os
import signal
import sys
from typing import Final

from gossipsess.cli.demo.balancer import Balancer
from gossipsess.cli.demo.crew import Crew, DemoError
from gossipsess.cli.demo.narrator import Narrator
from gossipsess.cli.demo.ports import LOOPBACK, take_ports
from gossipsess.cli.demo.scenario import play_kill

REPLICAS: Final = 3
DONE, LOST, CANNOT_START, INTERRUPTED = 0, 1, 2, 130


def run(*, scenario: str | None, as_json: bool, port: int) -> int:
    """Run the demo and return the exit code. `scenario` None: one is played only where there is no terminal."""
    missing = [name for name in ("uvicorn", "starlette") if importlib.util.find_spec(name) is None]
    if missing:
        print(f'the demo needs {" and ".join(missing)}: pip install "gossipsess[demo]"', file=sys.stderr)
        return CANNOT_START
    plays = scenario is not None or not sys.stdin.isatty() or bool(os.environ.get("CI"))
    try:
        return asyncio.run(_demo(Narrator(sys.stdout, as_json=as_json), plays, port))
    except (DemoError, OSError) as error:
        print(f"the demo cannot run: {error}", file=sys.stderr)
        return CANNOT_START


async def _demo(narrator: Narrator, plays: bool, first_port: int) -> int:
    page_socket, *others = take_ports(first_port, 1 + REPLICAS)
    page_port: int = page_socket.getsockname()[1]
    replica_ports: list[int] = [one.getsockname()[1] for one in others]
    for one in others:
        one.close()
    crew = Crew(replica_ports, narrator, tells_clicks=not plays)
    # Not `async with`: from Python 3.12 on that waits until every browser has closed its idle connections.
    server = await asyncio.start_server(Balancer(replica_ports).serve, sock=page_socket)
    keeping = asyncio.create_task(crew.run())
    acting = asyncio.create_task((_play if plays else _serve)(crew, page_port, narrator))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, acting.cancel)
    try:
        await asyncio.wait((keeping, acting), return_when=asyncio.FIRST_COMPLETED)
        if not acting.done():
            keeping.result()  # it ends by itself only with a DemoError
        if not acting.cancelled():
            return acting.result()
        return INTERRUPTED if plays else DONE  # Ctrl-C is how serving is meant to end
    finally:
        server.close()
        keeping.cancel()
        acting.cancel()
        await asyncio.gather(keeping, acting, return_exceptions=True)


async def _play(crew: Crew, page_port: int, narrator: Narrator) -> int:
    return DONE if await play_kill(crew, page_port, narrator) else LOST


async def _serve(crew: Crew, page_port: int, narrator: Narrator) -> int:
    await crew.tell_ready(page_port)
    narrator.advise(
        f"  The shop:  http://{LOOPBACK}:{page_port}\n\n"
        "  Log in and put something in the cart. Then kill the replica that answered you,\n"
        "  from another terminal:\n\n"
        + "".join(f"      kill -9 {replica.pid}    # replica {replica.number}\n" for replica in crew.replicas)
        + "\n  and reload: login, cart and session id are still there. Ctrl-C ends the demo."
    )
    await asyncio.Event().wait()  # until Ctrl-C
    return DONE
