# Asking: the commands that ask the nodes of this machine: ready, live, drain, status, members.
#
# In:    what the nodes answer (runtime/inquiry.py).    Out: text, or with --json one JSON object a line; an exit code.
# Kubernetes runs the first two every few seconds in each pod, beside the application. So nothing is imported here that
# is not needed: Trio, Config, typing, or argparse where there is nothing to parse. And none of them decides anything: a
# node says itself whether it is ready.
# Not here: how a node is asked.

import os
import sys
import time

from gossipsess.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Iterator, Sequence
    from typing import Any

    Status = dict[str, Any]
    """What a node answers: the fields of `gossipsess.Status`, and its cluster and process."""

CLUSTER = "default"
"""As `Config.cluster`, which costs too much to ask."""
TIMEOUT_S = 10.0
"""As long as a node that leaves hands over, at most (`driver.DRAIN_S`)."""
LOOK_EVERY_S = 0.05
WAIT_LOOK_EVERY_S = 1.0

EXIT_CODES = """\
exit codes:
  0  yes
  1  no, and it says why
  2  wrong arguments
"""
WHICH = """\
Asked are the nodes that run on this machine (in this pod) under this user; --cluster says which of them, where several
applications run here. Nodes and this command need the same XDG_RUNTIME_DIR and TMPDIR in their environments, if any."""

READY = f"""\
Say whether this machine (this pod) should be sent requests: whether at least one of its nodes holds what the nodes it
has met hold, or has met nobody for two seconds, or has run for a minute; and does not leave or drain. Whether it has
met others never matters: pods that wait for each other to be ready would wait for ever.

{WHICH}

as a probe in Kubernetes:
  readinessProbe:
    exec: {{command: ["gossipsess", "ready"]}}
    periodSeconds: 5
    timeoutSeconds: 5

{EXIT_CODES}"""

LIVE = f"""\
Say whether a node runs and answers. One that leaves, or is not ready yet, does. It answers from a thread of its own:
that the application answers too, only a request to it can tell.

{WHICH}

as a probe in Kubernetes:
  livenessProbe:
    exec: {{command: ["gossipsess", "live"]}}
    periodSeconds: 10
    timeoutSeconds: 5

{EXIT_CODES}"""

DRAIN = f"""\
Prepare this machine (this pod) for its end. From the first moment none of its nodes is ready any more; each hands over
what only it holds, and goes on serving requests. This returns when all is handed over. There is no way back: a node
that drains is to be stopped.

Who stops a node by SIGTERM alone loses nothing either: it drains then, for at most {TIMEOUT_S:.0f} seconds. But until
the balancer has noticed that it is gone, requests are refused. With --wait they are served meanwhile.

{WHICH}

before the end of a pod in Kubernetes:
  lifecycle:
    preStop:
      exec: {{command: ["gossipsess", "drain", "--timeout", "20", "--wait", "5"]}}
  (and a terminationGracePeriodSeconds that leaves time for the requests that still run)

exit codes:
  0  all is handed over
  1  not all, and it says how much is left; or there is no node
  2  wrong arguments
"""

STATUS = f"""\
Print what each node of this machine says of itself: whether it is ready, how many sessions it holds, and what is being
moved. With --json one object for each, with the fields of `gossipsess.Status`.

{WHICH}

exit codes:
  0  at least one node answered
  1  none did
  2  wrong arguments
"""

MEMBERS = f"""\
Print all nodes of the cluster, as one node of this machine sees them: itself first, then the live ones, then those that
have died or left lately. A live node to which there is no link for more than some seconds cannot be reached by TCP.
With --json one object for each.

{WHICH}

exit codes:
  0  a node answered
  1  none did
  2  wrong arguments
"""


COMMANDS = {
    "ready": ("should this pod be sent requests? a readiness probe", READY),
    "live": ("does a node answer? a liveness probe", LIVE),
    "drain": ("hand over what only this pod holds, before it is stopped", DRAIN),
    "status": ("what the nodes of this machine say of themselves", STATUS),
    "members": ("all nodes of the cluster, as one of this machine sees them", MEMBERS),
}
"""A line for each, and its help."""


class Options:
    """What may be said after the command's name; here, what holds where nothing is."""

    def __init__(self) -> None:
        self.cluster = os.environ.get("GOSSIPSESS_CLUSTER", CLUSTER)
        self.json = False
        self.timeout = TIMEOUT_S
        self.wait = 0.0


def main(arguments: "Sequence[str]") -> int:
    """Run one of them, its name first, and return its exit code.

    Raises:
        SystemExit: the arguments are wrong (2), or only help was wanted (0).
    """
    command = arguments[0]
    options: Any = Options()
    if len(arguments) > 1 or not options.cluster:  # without a name it is refused
        options = _parser(command).parse_args(arguments[1:])
    cluster, as_json = options.cluster, options.json
    try:
        match command:
            case "ready":
                return _ready(cluster, as_json=as_json)
            case "live":
                return _live(cluster, as_json=as_json)
            case "drain":
                return _drain(cluster, options.timeout, options.wait, as_json=as_json)
            case "status":
                return _status(cluster, as_json=as_json)
            case _:
                return _members(cluster, as_json=as_json)
    except ConfigError as error:
        return _say(command, False, f"nobody was asked: {error}", as_json=as_json)
    except KeyboardInterrupt:
        return 130


def _parser(command: str) -> "ArgumentParser":
    import argparse

    class Help(argparse.RawDescriptionHelpFormatter):
        """As its base; but that imports shutil, bz2 and lzma for the width of the terminal, for each argument anew."""

        def __init__(self, prog: str) -> None:
            super().__init__(prog, width=118)

    def cluster(text: str) -> str:
        if text:
            return text
        raise argparse.ArgumentTypeError("the name of a cluster has at least one character")

    def seconds(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = -1.0
        if 0 <= number <= 86400:
            return number
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to 86400")

    parser = argparse.ArgumentParser(
        prog=f"gossipsess {command}", description=COMMANDS[command][1], formatter_class=Help
    )
    unsaid = Options()
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument(
        "--cluster",
        type=cluster,
        default=unsaid.cluster,
        metavar="NAME",
        help="the nodes of this cluster (default: GOSSIPSESS_CLUSTER, else %(default)s)",
    )
    if command == "drain":
        parser.add_argument(
            "--timeout",
            type=seconds,
            default=unsaid.timeout,
            metavar="S",
            help="how long to wait for all to be handed over (default: %(default)s seconds)",
        )
        parser.add_argument(
            "--wait",
            type=seconds,
            default=unsaid.wait,
            metavar="S",
            help="return no sooner than this, so that balancers have noticed (default: 0 seconds)",
        )
    return parser


# --- the commands -----------------------------------------------------------------------------------------


def _ready(cluster: str, *, as_json: bool) -> int:
    nodes, unready = _Nodes(cluster), []
    for name, probed in nodes.probed():
        if probed["ready"]:
            return _say("ready", True, f"{_called(probed)} is ready", as_json=as_json)
        unready.append(name)
    why = []
    for _, status in nodes.asked(only=unready):
        if status["ready"]:  # meanwhile
            return _say("ready", True, f"{_called(status)} is ready", as_json=as_json)
        why.append(f"{_called(status)} {why_unready(status)}")
    return _say("ready", False, "; ".join([*why, *nodes.missing()]), as_json=as_json)


def _live(cluster: str, *, as_json: bool) -> int:
    nodes = _Nodes(cluster)
    for _, probed in nodes.probed():
        return _say("live", True, f"{_called(probed)} answers", as_json=as_json)
    return _say("live", False, "; ".join(nodes.missing()), as_json=as_json)


def _status(cluster: str, *, as_json: bool) -> int:
    nodes = _Nodes(cluster)
    found = sorted([status for _, status in nodes.asked()], key=lambda status: str(status["name"]))
    if found:
        print(("\n" if as_json else "\n\n").join([_json(s) if as_json else status_text(s) for s in found]))
    for line in nodes.missing():
        print(line, file=sys.stderr)
    return 0 if found else 1


def _members(cluster: str, *, as_json: bool) -> int:
    nodes = _Nodes(cluster)
    found = sorted([status for _, status in nodes.asked()], key=lambda status: (not status["ready"], status["name"]))
    for line in nodes.missing():
        print(line, file=sys.stderr)
    if not found:
        return 1
    seer = found[0]
    itself = {key: seer[key] for key in ("node", "name", "address", "host", "zone", "leaving")}
    members = [{**itself, "state": "alive", "linked": True}, *seer["members"]]
    if as_json:
        for member in members:
            print(_json({**member, "seen_by": seer["node"]}))
    else:
        print(f"{_called(seer)} sees in cluster {seer['cluster']!r}:\n\n{members_text(members)}")
    return 0


def _drain(cluster: str, timeout_s: float, wait_s: float, *, as_json: bool) -> int:
    from gossipsess.runtime import inquiry

    started_s = time.monotonic()
    met: dict[str, Status] = {}
    done: dict[str, None] = {}  # in whole, once
    while True:
        nodes = _Nodes(cluster)
        left: list[str] = []
        now = dict(nodes.asked())
        # Also a worker that was started meanwhile, in the place of another.
        for reply in inquiry.ask(inquiry.DRAIN, only=[name for name, status in now.items() if not status["leaving"]]):
            now[reply.name] = reply.answer or now[reply.name]
            if not as_json:
                print(f"{_called(now[reply.name])} drains", flush=True)
        for name, status in now.items():
            met[name] = status
            if status["leaving"] and not status["handing_over"] and not status["unconfirmed"]:
                # That is for good: what is written here from now on others hold, and confirm.
                done[name] = None
            if name not in done:
                left.append(f"{_called(status)} has {_left(status)}")
        left += [f"process {process} does not answer" for process in nodes.silent]
        passed_s = time.monotonic() - started_s
        over = not left or passed_s >= timeout_s
        if over and passed_s >= wait_s:
            break
        time.sleep(max(0.0, min(WAIT_LOOK_EVERY_S, wait_s - passed_s)) if over else LOOK_EVERY_S)
    if not met:
        return _say("drained", False, "; ".join(nodes.missing()), as_json=as_json)
    alone = [status for status in met.values() if status["sessions"] and not _others(status)]
    left += [f"nobody else is there to take {_count(one['sessions'], 'session')} of {_called(one)}" for one in alone]
    text = "; ".join(left) or f"{_count(len(met), 'node')} drained in {passed_s:.1f} s"
    keys = ("node", "name", "process", "handing_over", "unconfirmed", "sessions")
    told = [{key: status[key] for key in keys} for status in met.values()]
    return _say("drained", not left, text, as_json=as_json, nodes=told)


class _Nodes:
    """The nodes of a cluster that run on this machine."""

    def __init__(self, cluster: str) -> None:
        self.silent: list[str] = []
        """Processes that did not answer, of whatever cluster."""
        self._cluster = cluster
        self._found = False
        self._elsewhere: dict[str, None] = {}

    def asked(self, only: list[str] | None = None) -> "Iterator[tuple[str, Status]]":
        """Ask them all, or `only` those of these sockets; give each one's socket and status when it comes.

        Raises:
            ConfigError: somebody else could answer for them.
        """
        return self._replies("status", only)

    def probed(self) -> "Iterator[tuple[str, Status]]":
        """As `asked`, but give of each status only what a probe needs: `inquiry.PROBED`."""
        return self._replies("probe")

    def _replies(self, request: str, only: list[str] | None = None) -> "Iterator[tuple[str, Status]]":
        from gossipsess.runtime import inquiry

        for reply in inquiry.ask(request, only):
            status = reply.answer
            if status is None or "cluster" not in status:
                self.silent.append(reply.process)
            elif status["cluster"] != self._cluster:
                self._elsewhere[status["cluster"]] = None
            else:
                self._found = True
                yield reply.name, status

    def missing(self) -> list[str]:
        """Say which nodes, now that they were asked, one might have wanted to hear of."""
        from gossipsess.runtime.folder import folder_path

        missing = [f"process {process} does not answer" for process in self.silent]
        if self._elsewhere and not self._found:
            others = ", ".join(map(repr, self._elsewhere))
            missing.append(f"no node of cluster {self._cluster!r} runs here, but of {others}: try --cluster")
        elif not self._found and not self.silent:
            missing.append(f"no node of this user runs here (there is none in {folder_path()})")
        return missing


# --- text -------------------------------------------------------------------------------------------------


def status_text(status: "Status") -> str:
    """Return what a node says of itself, for people."""
    live = [member for member in status["members"] if member["state"] in ("alive", "suspect")]
    linked = sum(member["linked"] for member in live)
    mib = status["memory_bytes"] / 2**20
    zone = f", zone {status['zone']}" if status["zone"] else ""
    where = "every node" if status["mode"] == "all-to-all" else f"{status['copies']} nodes"
    lines = [
        ("ready", "yes" if status["ready"] else f"no: it {why_unready(status)}"),
        ("address", f"{_address(status['address'])}, host {status['host']}{zone}"),
        ("cluster", f"{status['cluster']}: {_count(len(live), 'other node')} live, {linked} linked"),
        ("sessions", f"{status['sessions']:,}, {mib:.1f} of {status['memory_limit_bytes'] / 2**20:,.0f} MiB"),
        ("placement", f"{status['mode']}: each session lives on {where}"),
        ("moving", _moving(status)),
        ("unconfirmed", f"{status['unconfirmed']:,}"),
    ]
    return "\n".join([_called(status), *[f"  {name:<12}{text}" for name, text in lines]])


def members_text(members: "list[dict[str, Any]]") -> str:
    """Return a table of members."""
    rows = [("NAME", "ADDRESS", "HOST", "ZONE", "STATE", "LINK", "NODE")]
    for member in members:
        live = member["state"] in ("alive", "suspect")
        state = "leaving" if live and member["leaving"] else member["state"]
        link = "yes" if member["linked"] else "no" if live else "-"
        address = _address(member["address"])
        rows.append((member["name"], address, member["host"], member["zone"] or "-", state, link, member["node"]))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows])


def why_unready(status: "Status") -> str:
    """Return why a node is not ready, to follow its name."""
    if not status["running"]:
        return "has stopped replicating"
    if status["leaving"]:
        return f"drains or leaves, and has {_left(status)}"
    if not any(member["state"] == "alive" for member in status["members"]):
        return "has met nobody yet, and waits a little"
    gaining = status["gaining"]
    if gaining is None:
        return "has met others, and is about to pull what they hold"
    return f"pulls what the others hold: {gaining['come']:,} of {_count(gaining['of'], 'partition')} are here"


def _left(status: "Status") -> str:
    parts = [_count(status["handing_over"], "partition")] if status["handing_over"] else []
    parts += [_count(status["unconfirmed"], "session state")] if status["unconfirmed"] else []
    return f"{' and '.join(parts) or 'nothing more'} to hand over"


def _moving(status: "Status") -> str:
    parts = []
    gaining = status["gaining"]
    if gaining is not None:
        eta = "" if gaining["eta_s"] is None else f", about {gaining['eta_s']:.0f} s left"
        parts.append(f"pulls {_count(gaining['of'], 'partition')}, of which {gaining['come']:,} are here{eta}")
    if status["handing_over"]:
        parts.append(f"hands over {_count(status['handing_over'], 'partition')}")
    return "; ".join(parts) or "nothing"


def _others(status: "Status") -> int:
    return sum(member["state"] in ("alive", "suspect") and not member["leaving"] for member in status["members"])


def _called(status: "Status") -> str:
    return f"{status['name']} ({status['node']}, process {status['process']})"


def _address(address: "list[Any]") -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _say(what: str, yes: bool, text: str, *, as_json: bool, **more: object) -> int:
    print(_json({what: yes, "text": text, **more}) if as_json else f"{'yes' if yes else 'no'}: {text}")
    return 0 if yes else 1


def _json(told: "dict[str, Any]") -> str:
    import json

    return json.dumps(told)
