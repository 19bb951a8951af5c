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

from gossipsess.cli.demo import holders, scenario
from gossipsess.cli.demo.balancer import Balancer
from gossipsess.cli.demo.crew import Crew, DemoError
from gossipsess.cli.demo.narrator import Narrator
from gossipsess.cli.demo.page import REPLICAS_MAX
from gossipsess.cli.demo.ports import LOOPBACK, take_ports
from gossipsess.cli.demo.visitors import visit

HOLDERS_BY_DEFAULT_FROM: Final = 4
"""With so many replicas it is worth a look where a session lives; with fewer, kill one."""
DONE, LOST, CANNOT_START, INTERRUPTED = 0, 1, 2, 130


def run(*, play: str | None, as_json: bool, port: int, nodes: int) -> int:
    """Run the demo with `nodes` replicas and return the exit code.

    `play` is the scenario; None: one is played only where there is no terminal.
    """
    missing = [name for name in ("uvicorn", "starlette") if importlib.util.find_spec(name) is None]
    if missing:
        print(f'the demo needs {" and ".join(missing)}: pip install "gossipsess[demo]"', file=sys.stderr)
        return CANNOT_START
    if play is None and (not sys.stdin.isatty() or os.environ.get("CI")):
        play = "kill" if nodes < HOLDERS_BY_DEFAULT_FROM else "holders"
    try:
        return asyncio.run(_demo(Narrator(sys.stdout, as_json=as_json), play, port, nodes))
    except (DemoError, OSError) as error:
        print(f"the demo cannot run: {error}", file=sys.stderr)
        return CANNOT_START


async def _demo(narrator: Narrator, play: str | None, first_port: int, nodes: int) -> int:
    page_socket, *others = take_ports(first_port, 1 + REPLICAS_MAX)
    page_port: int = page_socket.getsockname()[1]
    replica_ports: list[int] = [one.getsockname()[1] for one in others]
    for one in others:
        one.close()
    crew = Crew(replica_ports, nodes, narrator, tells_clicks=play is None)
    # Not `async with`: from Python 3.12 on that waits until every browser has closed its idle connections.
    server = await asyncio.start_server(Balancer(lambda: crew.ports).serve, sock=page_socket)
    keeping = asyncio.create_task(crew.run())
    acting = asyncio.create_task(_act(play, crew, page_port, narrator))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, acting.cancel)
    try:
        await asyncio.wait((keeping, acting), return_when=asyncio.FIRST_COMPLETED)
        if not acting.done():
            keeping.result()  # it ends by itself only with a DemoError
        if not acting.cancelled():
            return acting.result()
        return DONE if play is None else INTERRUPTED  # Ctrl-C is how serving is meant to end
    finally:
        server.close()
        keeping.cancel()
        acting.cancel()
        await asyncio.gather(keeping, acting, return_exceptions=True)


async def _act(play: str | None, crew: Crew, page_port: int, narrator: Narrator) -> int:
    match play:
        case None:
            return await _serve(crew, page_port, narrator)
        case "kill":
            return DONE if await scenario.play(scenario.kill, crew, page_port, narrator) else LOST
        case _:
            return DONE if await scenario.play(holders.follow, crew, page_port, narrator) else LOST


async def _serve(crew: Crew, page_port: int, narrator: Narrator) -> int:
    await crew.tell_ready(page_port)
    await visit(page_port, narrator)
    narrator.advise(
        f"  The shop:  http://{LOOPBACK}:{page_port}\n\n"
        "  Log in and put something in the cart. Then kill the replica that answered you,\n"
        "  from another terminal:\n\n"
        + "".join(f"      kill -9 {replica.pid}    # replica {replica.number}\n" for replica in crew.replicas)
        + "\n  and reload: login, cart and session id are still there. The page has buttons for that too,\n"
        "  and for draining a replica and starting one more. Ctrl-C ends the demo."
    )
    await asyncio.Event().wait()  # until Ctrl-C
    return DONE
