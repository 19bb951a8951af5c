# Command line: `gossipsess COMMAND`, also `python -m gossipsess COMMAND`.
#
# In:    arguments.    Out: text, or with --json one JSON object a line; an exit code.
# Choice: only the word that says which command is read here, and each imports what it needs. Probes run every few
# seconds, and `run` stands before every start of an application: even argparse would cost them half a start of Python.
# Not here: what a command does and takes (run.py, asking.py, demo/, doctor/, k8s.py, others.py, sim/).

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

ASKING = ("ready", "live", "drain", "status", "members")


def main(arguments: "Sequence[str] | None" = None) -> int:
    """Run one command and return its exit code; None: with the arguments of this process.

    Raises:
        SystemExit: the arguments are wrong (2), or only help was wanted (0).
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    command = arguments[0] if arguments else ""
    if command == "run":
        from gossipsess.cli.run import main as run

        return run(arguments[1:])
    if command in ASKING:
        from gossipsess.cli.asking import main as ask

        return ask(arguments)
    if command == "doctor":
        from gossipsess.cli.doctor.command import main as doctor

        return doctor(arguments[1:])
    if command == "simulate":
        from gossipsess.sim.__main__ import main as simulate

        return simulate(arguments[1:], prog="gossipsess simulate")
    if command == "k8s":
        from gossipsess.cli.k8s import main as k8s

        return k8s(arguments[1:])
    from gossipsess.cli.others import main as others

    return others(arguments)


if __name__ == "__main__":
    sys.exit(main())
