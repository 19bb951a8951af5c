# Doctor: each fault that is planted here is named by `gossipsess doctor`, as the most likely reason.
#
# One round: a network with one fault, and two pods that start in it, with one configuration. The doctor is run in the
# first of them, beside its application, as `kubectl exec` would. Where no application can start, in a pod without one.
#
#   nothing         the control: all is well, and the doctor must say so
#   no-dns          the Service's name does not exist; multicast is dropped
#   dns-silent      the name server does not answer; multicast is dropped
#   own-record      the name has the first pod's address only; multicast is dropped
#   wrong-secret    the second pod has another secret
#   wrong-cluster   the second pod is of another cluster
#   udp-blocked     UDP is dropped between pods
#   tcp-blocked     TCP is dropped between pods
#   all-blocked     both are
#   multicast       the settings say multicast and nothing else, and the network drops it
#   clock-ahead     the second pod's clock is a minute ahead
#   clock-behind    ... behind
#   own-clock       the clock of the first of three pods is a minute behind
#   ports           another program has the only port of the range
#   loopback        POD_IP is 127.0.0.1
#
# Clean means: each was named first, with the exit code that says so; and the control got no complaint.
#
# From the repository's root: python -m tests.lab.doctor --fault udp-blocked

import json
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import trio

from ..chaos.fleet import run_script, script_parser, until
from ..e2e.harness import START_S
from .form import add_shape
from .lab import Deployment, Lab, open_lab
from .network import Protocol
from .pod import App, Pod

DOCTOR: Final = (sys.executable, "-m", "gossipsess", "doctor", "--json", "--seconds", "1.5")
DOCTOR_MAX_S: Final = 60.0
OTHER_SECRET: Final = "another-secret-of-24-characters"


class Fault(NamedTuple):
    """What is wrong, and what the doctor is to make of it."""

    named: str
    """The first reason's fault (gossipsess/cli/doctor/finding.py); empty: none."""
    exit_code: int = 1
    multicast: bool = False
    has_records: tuple[bool, bool] = (True, True)
    """The first pod's address is told under the name of the Service, and the others' are."""
    blocked: tuple[Protocol, ...] = ()
    told: tuple[tuple[str, str], ...] = ()
    """What all pods are told beside the usual."""
    others_told: tuple[tuple[str, str], ...] = ()
    """What all but the first are told."""
    secret: str = "shared"
    """Which secret all but the first have."""
    nodes: int = 2
    meets: bool = False
    """The pods become one cluster all the same, and the doctor is called then."""


def clock(ahead_s: int) -> tuple[tuple[str, str], ...]:
    """Return variables that have a process believe another time of day."""
    path = os.pathsep.join([str(Path(__file__).parent / "shifted_clock"), os.environ.get("PYTHONPATH", "")])
    return (("PYTHONPATH", path.rstrip(os.pathsep)), ("LAB_AHEAD_S", str(ahead_s)))


FAULTS: Final = {
    "nothing": Fault("", 0, multicast=True, meets=True),
    "no-dns": Fault("dns", has_records=(False, False)),
    "dns-silent": Fault("dns"),
    "own-record": Fault("dns-own", 0, has_records=(True, False), meets=True),  # the other pod asks too, and dials
    "wrong-secret": Fault("secret", secret="another"),
    "wrong-cluster": Fault("secret", others_told=(("GOSSIPSESS_CLUSTER", "blog"),)),
    "udp-blocked": Fault("udp-blocked", blocked=("udp",)),
    "tcp-blocked": Fault("tcp-blocked", blocked=("tcp",)),
    "all-blocked": Fault("tcp-blocked", blocked=("tcp", "udp")),
    "multicast": Fault("multicast-dropped", told=(("GOSSIPSESS_DISCOVERY", "multicast://239.255.79.50:7949"),)),
    "clock-ahead": Fault("clock", others_told=clock(60)),
    "clock-behind": Fault("clock", others_told=clock(-60)),
    "own-clock": Fault("clock", told=clock(-60), others_told=clock(0), nodes=3),
    "ports": Fault("ports", told=(("GOSSIPSESS_PORT_RANGE", "1"),), nodes=1),
    "loopback": Fault("settings", 2, told=(("POD_IP", "127.0.0.1"),), nodes=1),
}
WITHOUT_APPLICATION: Final = ("ports", "loopback")
# Another program, for as long as the doctor looks.
_TAKING_THE_PORT: Final = """
import socket, subprocess, sys
with socket.create_server(("", 7950)):
    sys.exit(subprocess.call(sys.argv[1:]))
"""


async def play(name: str, *, app: App = "starlette", version: Literal[4, 6] = 4) -> dict[str, Any]:
    """Plant one fault; return what the doctor made of it. `version` is of IP.

    Raises:
        ScenarioError: an application did not come up, or the doctor did not end.
    """
    fault = FAULTS[name]
    async with open_lab(version) as lab:
        lab.network.faults.multicast = fault.multicast
        lab.network.faults.blocked = set(fault.blocked)
        await lab.network.apply()
        first = lab.new_deployment("shop", has_records=fault.has_records[0], app=app, environ=dict(fault.told))
        others = lab.new_deployment(
            "other",
            service=first.service,
            has_records=fault.has_records[1],
            app=app,
            secret=fault.secret,
            environ={"GOSSIPSESS_CLUSTER": "shop", **dict(fault.told), **dict(fault.others_told)},
        )
        if name in WITHOUT_APPLICATION:
            code, told = await _without_application(lab, fault)
        else:
            code, told = await _with_applications(lab, name, first, others)
    answer = json.loads(told)
    reasons = answer["reasons"]
    return {
        "named": (reasons[0]["fault"] if reasons else "") == fault.named and code == fault.exit_code,
        "fault": name,
        "exit_code": code,
        "reasons": [one["fault"] for one in reasons],
        "text": reasons[0]["text"] if reasons else "",
        "findings": answer["findings"],
    }


async def _with_applications(lab: Lab, name: str, first: Deployment, others: Deployment) -> tuple[int, str]:
    fault = FAULTS[name]
    if name == "dns-silent":
        lab.dns.pause()
    async with trio.open_nursery() as nursery:
        for pods, count in ((first, 1), (others, fault.nodes - 1)):
            nursery.start_soon(partial(pods.start, count, probed=False))
    if fault.meets:
        await until(lambda: _meet([*first.pods, *others.pods]), "both pods meet", START_S)
    return await first.pods[0].run(DOCTOR, within_s=DOCTOR_MAX_S)


async def _meet(pods: list[Pod]) -> bool:
    nodes = sum(pod.nodes for pod in pods)
    return all([(await pod.status())["linked"] == nodes - 1 for pod in pods])


async def _without_application(lab: Lab, fault: Fault) -> tuple[int, str]:
    environ = {"GOSSIPSESS_SECRET": OTHER_SECRET, **dict(fault.told)}
    address = lab.network.free_address()
    pod = lab.new_pod("bare", "starlette", {"POD_IP": address, **environ}, address)
    await pod.attach()
    if fault.named != "ports":
        return await pod.run(DOCTOR, within_s=DOCTOR_MAX_S)
    return await pod.run([sys.executable, "-c", _TAKING_THE_PORT, *DOCTOR], within_s=DOCTOR_MAX_S)


def main(arguments: Sequence[str] | None = None) -> int:
    """Play it; return 1 if it was not clean."""
    parser = script_parser(
        "doctor",
        "Plant faults in a network of pods, one after the other, and see whether the doctor names each. Prints one "
        "line of JSON; exit code 1 if it missed one.",
        "--fault udp-blocked --fault wrong-secret",
        control="Among them is 'nothing', of which the doctor must not complain.",
        package="tests.lab",
        seconds=900,
    )
    parser.add_argument("--fault", action="append", choices=FAULTS, help="these only; may be given several times")
    add_shape(parser)
    options = parser.parse_args(arguments)

    async def planted() -> dict[str, Any]:
        played = [await play(name, app=options.app, version=options.ip) for name in options.fault or FAULTS]
        missed = [{name: one[name] for name in ("fault", "exit_code", "reasons", "text")} for one in played
                  if not one["named"]]  # fmt: skip
        return {
            "clean": not missed,
            "named": {one["fault"]: one["named"] for one in played},
            "says": {one["fault"]: one["text"] for one in played},
            "missed": missed,
        }

    return run_script("doctor", options.seconds, planted)


if __name__ == "__main__":
    sys.exit(main())
