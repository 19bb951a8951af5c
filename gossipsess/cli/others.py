# Others: the commands that take few lines, the demo's arguments, and the help that names every command.
#
# In:    arguments.    Out: text, or with --json one JSON object a line; an exit code.
# Not here: what the demo does (demo/), and commands with a parser of their own.

import argparse
import json
from collections.abc import Sequence

from gossipsess.cli import asking, run

EXIT_CODES = """\
exit codes:
  0    done, or yes; for a scenario: nothing was lost
  1    no; for a scenario: something was lost
  2    wrong arguments, or it could not start
  130  interrupted
"""

KEYGEN = """\
Prints a new random secret, 43 characters that hold 32 bytes of the system's randomness: what all nodes of one
application share (GOSSIPSESS_SECRET, or the file that GOSSIPSESS_SECRET_FILE names). Who has it can read and end every
session: each application gets its own, kept where passwords are kept. Nothing remembers what was printed.

examples:
  export GOSSIPSESS_SECRET="$(gossipsess keygen)"
  gossipsess keygen | kubectl create secret generic shop-gossipsess --from-file=secret=/dev/stdin
"""

SECRET_BYTES = 32

HOLDERS_POSSIBLE_FROM = 3
"""So many nodes it takes: one is killed, one drained, and one must be left."""

DEMO = f"""\
A small shop in three app processes (--nodes), with nothing else to run: no Redis, no sticky sessions. In front of
them stands a plain round-robin balancer. The terminal shows who knows of whom, and where sessions are held.

On a terminal it serves until Ctrl-C: log in on the page, fill the cart, kill a replica with the command that is
shown, reload. The killed replica is started again after two seconds, and you see it catch up. The page shows where
your session lives, and has buttons that kill a replica, drain one, and start one more.

Without a terminal (a pipe, a CI job) it plays --scenario kill once, from four nodes on --scenario holders, and ends.

The scenario 'kill' logs in through the balancer, puts two things into the cart, kills with SIGKILL the replica
that took the last of them, reads the session on every replica that is left, and waits for the killed one to come
back and catch up.

The scenario 'holders' has 300 visitors log in, does the same shopping, shows on which replicas the session lives,
kills the first of them, drains one (SIGTERM: it hands over and leaves), starts the killed one again and one more.
After each step it shows where the session lives now, waits until it is held there, and reads it there; in the end it
reads it on every replica.
Everything stays on 127.0.0.1.

examples:
  gossipsess demo
  gossipsess demo --scenario kill
  gossipsess demo --scenario kill --json | tail -n 1
  gossipsess demo --nodes 6 --scenario holders

JSON events, in order, with 'kill': started, members, login, cart (twice), killed, survived (for each replica left),
restarted, caught_up, verdict.
With 'holders': started, members, visitors, login, cart (twice); lives, held, survived (for each of these replicas);
killed, grace, and again lives, held, survived; drained, and again; restarted, joined, caught_up (twice), and again;
survived (for each replica), verdict.
On a terminal: started, members, visitors; then killed, drained, restarted, joined and caught_up as it happens, and what
people do on the page: view, login, cart, logout.
Among them, as it happens: up, sees, holds, gains; lost instead of survived, where it was. Every line has at_ms, since
the start.

{EXIT_CODES}"""


def main(arguments: Sequence[str]) -> int:
    """Run one of them and return its exit code.

    Raises:
        SystemExit: the arguments are wrong (2), or only help was wanted (0).
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    match options.command:
        case "demo":
            if options.scenario == "holders" and options.nodes < HOLDERS_POSSIBLE_FROM:
                options.parser.error(
                    f"--scenario holders takes {HOLDERS_POSSIBLE_FROM} nodes or more: it kills one and drains one"
                )
            from gossipsess.cli.demo.run import run as demo

            return demo(play=options.scenario, as_json=options.json, port=options.port, nodes=options.nodes)
        case "keygen":
            return _print_secret(as_json=options.json)
        case _:
            return _print_version(as_json=options.json)


class _Version(argparse.Action):
    """As argparse's own of that name, but looks the version up only where it is wanted."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        _print_version(as_json=False)
        parser.exit()


def _print_version(*, as_json: bool) -> int:
    from importlib.metadata import version

    installed = version("gossipsess")
    print(json.dumps({"version": installed}) if as_json else f"gossipsess {installed}")
    return 0


def _print_secret(*, as_json: bool) -> int:
    import secrets

    secret = secrets.token_urlsafe(SECRET_BYTES)
    print(json.dumps({"secret": secret}) if as_json else secret)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gossipsess",
        description="Web sessions replicated between app processes, peer to peer, with no server to run.",
        epilog=f"Start with: gossipsess demo\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print which version is installed, and end")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser(
        "demo",
        help="a few replicas of a small shop: kill one, and stay logged in",
        description=DEMO,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    demo.set_defaults(parser=demo)
    demo.add_argument("--scenario", choices=["kill", "holders"], help="play this by itself, then end")
    demo.add_argument("--nodes", type=int, choices=range(2, 9), default=3, help="replicas to start (default: 3)")
    demo.add_argument("--json", action="store_true", help="one JSON object a line")
    demo.add_argument(
        "--port", type=_port, default=8000, help="first port to try, for page and replicas (default: %(default)s)"
    )

    commands.add_parser("run", help=run.SUMMARY)
    for name, (summary, _) in asking.COMMANDS.items():
        commands.add_parser(name, help=summary)
    commands.add_parser("doctor", help="why a node is alone, and what to do")
    commands.add_parser("simulate", help="the protocol in a world where everything breaks, from a seed")

    keygen = commands.add_parser(
        "keygen",
        help="print a new secret for the nodes of an application",
        description=KEYGEN,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    keygen.add_argument("--json", action="store_true", help="as a JSON object")

    commands.add_parser("k8s", help="manifests for Kubernetes")

    version = commands.add_parser("version", help="print which version is installed")
    version.add_argument("--json", action="store_true", help="as a JSON object")
    return parser


def _port(text: str) -> int:
    if text.isdecimal() and 0 < int(text) <= 65535:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a port; take 1 to 65535")
