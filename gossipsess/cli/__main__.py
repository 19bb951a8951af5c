# Command line: `gossipsess COMMAND`, also `python -m gossipsess COMMAND`.
#
# In:    arguments.    Out: text, or with --json one JSON object a line; an exit code.
# Choice: argparse, and each command imports what it needs when it runs, so that --help costs no import of Trio.
# Not here: what a command does (demo/, doctor/).

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Final

from gossipsess.cli.doctor.finding import FAULTS

EXIT_CODES: Final = """\
exit codes:
  0    done; for a scenario: nothing was lost
  1    a scenario lost something
  2    wrong arguments, or it could not start
  130  interrupted before a scenario's verdict
"""

DOCTOR_S_MAX: Final = 60.0

HOLDERS_POSSIBLE_FROM: Final = 3
"""So many nodes it takes: one is killed, one drained, and one must be left."""

DEMO: Final = f"""\
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

DOCTOR: Final = """\
Why is a node alone? This looks at everything that must be right for nodes to meet, says what is not, and what to do.

Run it where the application runs, beside it and with the same environment: it uses the same settings, ports, keys and
name service as a node does. In Kubernetes:

  kubectl exec POD -- gossipsess doctor

It looks at: the settings; the address that others are told; the ports on this machine; multicast, its own beacons and
those of others; the names that are looked up; each address that any of these tells of, or that a node there knows:
TCP, secret and cluster, UDP, clock, and how many others the node there sees. It takes part in nothing: it becomes no
member, and sees no session. Others may log that a stranger called, where its secret is not theirs.

The last lines name the most likely cause first. Where two sides do not meet, run it on both.

  ok    as it should be       warn  may be the reason, or become one
  info  worth knowing         FAIL  keeps nodes apart

examples:
  gossipsess doctor
  gossipsess doctor --seconds 12          others say a beacon every ten seconds
  gossipsess doctor --json | jq '.reasons[0]'

With --json one object: well, cluster, key (its public id), findings, and reasons, which are those findings that are
wrong, the most likely cause first. Each has check, verdict, text, advice and fault, a word of:
{faults}

exit codes:
  0  nothing keeps nodes apart, and there are others
  1  something does, or nobody else was found
  2  the settings are refused, or wrong arguments
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; None: with the arguments of this process.

    Raises:
        SystemExit: the arguments are wrong (2), or only help was wanted (0).
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] == "simulate":
        from gossipsess.sim.__main__ import main as simulate  # it has a parser of its own

        return simulate(arguments[1:], prog="gossipsess simulate")
    parser = _parser()
    options = parser.parse_args(arguments)
    match options.command:
        case "demo":
            if options.scenario == "holders" and options.nodes < HOLDERS_POSSIBLE_FROM:
                options.parser.error(
                    f"--scenario holders takes {HOLDERS_POSSIBLE_FROM} nodes or more: it kills one and drains one"
                )
            from gossipsess.cli.demo.run import run

            return run(play=options.scenario, as_json=options.json, port=options.port, nodes=options.nodes)
        case "doctor":
            from gossipsess.cli.doctor.run import run as examine

            return examine(seconds=options.seconds, as_json=options.json)
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

    doctor = commands.add_parser(
        "doctor",
        help="why a node is alone, and what to do",
        description=DOCTOR.format(faults="\n".join([f"  {fault:<18} {what}" for fault, what in FAULTS.items()])),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    doctor.add_argument("--json", action="store_true", help="one JSON object")
    doctor.add_argument(
        "--seconds",
        type=_seconds,
        default=3.0,
        metavar="S",
        help=f"how long to listen to multicast, above 0 and up to {DOCTOR_S_MAX:g} (default: 3)",
    )

    commands.add_parser("simulate", help="the protocol in a world where everything breaks, from a seed")

    version = commands.add_parser("version", help="print which version is installed")
    version.add_argument("--json", action="store_true", help="as a JSON object")
    return parser


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if 0 < seconds <= DOCTOR_S_MAX:
        return seconds
    raise argparse.ArgumentTypeError(
        f"{text!r} is not a number of seconds; take one above 0 and up to {DOCTOR_S_MAX:g}"
    )


def _port(text: str) -> int:
    if text.isdecimal() and 0 < int(text) <= 65535:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a port; take 1 to 65535")


if __name__ == "__main__":
    sys.exit(main())
