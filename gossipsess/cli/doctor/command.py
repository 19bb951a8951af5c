# Command: what `gossipsess doctor` takes, and what its help teaches. Trio is imported only when it runs.

import argparse
from collections.abc import Sequence
from typing import Final

from gossipsess.cli.doctor.finding import FAULTS

SECONDS: Final = 3.0
SECONDS_MAX: Final = 60.0


def _faults() -> str:
    return "\n".join([f"  {fault:<18} {what}" for fault, what in FAULTS.items()])


DESCRIPTION: Final = f"""\
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
{_faults()}

exit codes:
  0  nothing keeps nodes apart, and there are others
  1  something does, or nobody else was found
  2  the settings are refused, or wrong arguments
"""


def main(arguments: Sequence[str]) -> int:
    """Run it and return its exit code.

    Raises:
        SystemExit: the arguments are wrong (2), or only help was wanted (0).
    """
    parser = argparse.ArgumentParser(
        prog="gossipsess doctor", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument(
        "--seconds",
        type=_seconds,
        default=SECONDS,
        metavar="S",
        help=f"how long to listen to multicast, above 0 and up to {SECONDS_MAX:g} (default: {SECONDS:g})",
    )
    options = parser.parse_args(arguments)
    from gossipsess.cli.doctor.run import run

    return run(seconds=options.seconds, as_json=options.json)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if 0 < seconds <= SECONDS_MAX:
        return seconds
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds; take one above 0 and up to {SECONDS_MAX:g}")
