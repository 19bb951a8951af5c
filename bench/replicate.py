# Replicate: what replication costs between two processes, without a web server.
#
# Node A writes round-robin over its sessions; each write is what a request does: load by cookie, assign one
# attribute, commit. The clock stops when B has acknowledged the last of it; then every session of A and of B is
# compared, and a difference is exit code 1. Each pass has two fresh processes.
#
# In:    options (--help).   Out: a line for each pass, or with --json an object for each pass.
# Counted:  CPU of the whole process (--busy: less the thread that burns it), user and system, on each side.
#           IP bytes both ways by the counters of the network interface, acknowledgements and membership included.
# Not counted: creating the sessions, coming to know each other; of making the random values only the CPU, 0.3 us each.
# Network:  as root, a network namespace for each process and a veth pair between them, which carries nothing else
#           and, as a wire does, no packet over 1500 bytes. Else the loopback interface, which others use too.
#           A namespace without a name lives as long as its process: nothing is left behind, not even by kill -9.
# Lag:      in a second run at a steady pace, from before the assignment on A to a subscriber's thread on B.
#           Under full load it would only measure the length of the queue.
# Not here: bounds. Whoever runs this judges; tests/e2e/test_bench.py sees that it works.

import argparse
import json
import os
import secrets
import shutil
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

from gossipsess.config import Config
from gossipsess.protocol.outcomes import Confirmed
from gossipsess.service import NodeService, RunningNode
from gossipsess.session import Session
from gossipsess.waiting import blocking

ATTRIBUTES: Final = 10
VALUE_BYTES: Final = 100
PATIENCE_S: Final = 30.0
"""How long the nodes may take to find each other, or B to catch up once A has stopped writing."""
LAG_RATE: Final = 2000.0
"""Updates a second while lag is measured: a busy process, not a full queue."""
LAG_UPDATES: Final = 4000
VETH: Final = "gsbench"
LOOPBACK: Final = "127.0.0.1"
ADDRESSES: Final = ("10.231.77.1", "10.231.77.2")
_ETHERNET_BYTES = 14
_SENT_AT = struct.Struct(">Q")


class BenchError(Exception):
    """The measurement did not come about; the message says why."""


class Figures(NamedTuple):
    """One pass."""

    confirm: int
    writers: int
    busy: bool
    updates: int
    updates_per_s: float
    cpu_us_a: float
    """CPU microseconds an update, on the writing side."""
    cpu_us_b: float
    wire_bytes: float
    """IP bytes an update, both ways."""
    lag_p50_ms: float
    lag_p99_ms: float
    read_us: float
    """A load by cookie of a session held, on A, after the writing."""
    degraded: int
    """Updates that were not confirmed in time, of both runs."""
    interface: str
    equal: bool
    """B held what A held, after both runs."""


# --- in each of the two processes -------------------------------------------------------------------------


class Side:
    """One node, doing what it is asked. Public methods take and return what JSON can say."""

    _service: RunningNode

    def __init__(self) -> None:
        self._cookies: list[str] = []
        self._lags_ms: list[float] = []
        self._burner: threading.Thread | None = None
        self._interface = "lo"

    def hello(self) -> None:
        """Show that this process runs."""

    def start(self, address: str, discovery: str, cluster: str, secret: str, busy: bool) -> int:
        """Start the node; return its port."""
        if address != LOOPBACK:
            self._interface = VETH
            # One segment a packet: otherwise the kernel hands 64 KB packets through, and counts one header each.
            for command in (f"addr add {address}/24 dev {VETH}", f"link set {VETH} up mtu 1500 gso_max_segs 1"):
                subprocess.run(["ip", *command.split()], check=True)
        config = Config(
            cluster=cluster, secret=secret, bind=address, port=0 if discovery == "none" else 7950, discovery=discovery
        )
        self._service = RunningNode(config)
        if busy:
            self._burner = threading.Thread(target=_burn, daemon=True)
            self._burner.start()
        return self._service.status().address[1]

    def meet(self) -> None:
        """Wait until the other node is linked and both have what the other had."""
        wait_until(lambda: any(member.linked for member in self._service.status().members), "a link to the other")
        wait_until(lambda: self._service.synced, "the first sync")

    def fill(self, sessions: int) -> None:
        """Create the sessions, and wait until the other holds them."""
        for _ in range(sessions):
            session = self._service.store.create()
            for number in range(ATTRIBUTES):
                session[_attribute(number)] = os.urandom(VALUE_BYTES)
            blocking(self._service.store.commit(session, 0))
            self._cookies.append(session.cookie)
        self._wait_for_acknowledgements()

    def write(self, updates: int, confirm: int, writers: int, seconds: float, held: bool, rate: float) -> list[float]:
        """Update the sessions in turn; return (updates made, not confirmed in time, seconds until B had them).

        `rate` is updates a second, 0 for as fast as they go. At a rate each value begins with the time.
        """
        store, cookies, count = self._service.store, self._cookies, len(self._cookies)
        values = os.urandom(VALUE_BYTES * updates)
        sessions = [self._loaded(cookie) for cookie in cookies] if held else []
        made, degraded = [0] * writers, [0] * writers
        began_s = time.monotonic()
        end_s = began_s + seconds

        def work(writer: int) -> None:
            for update in range(writer, updates, writers):
                now_s = time.monotonic()
                if rate and (early_s := began_s + update / rate - now_s) > 0:
                    time.sleep(early_s)
                if now_s > end_s:
                    break
                number = update % count
                value = values[update * VALUE_BYTES : (update + 1) * VALUE_BYTES]
                attribute = _attribute(update // count % ATTRIBUTES)
                if rate:
                    attribute, value = _attribute(0), _SENT_AT.pack(time.monotonic_ns()) + value[_SENT_AT.size :]
                session = sessions[number] if held else self._loaded(cookies[number])
                session[attribute] = value
                outcome = blocking(store.commit(session, confirm))
                cookies[number] = session.cookie
                made[writer] += 1
                degraded[writer] += not isinstance(outcome, Confirmed)

        with ThreadPoolExecutor(writers) as threads:
            list(threads.map(work, range(writers)))
        self._wait_for_acknowledgements()
        return [sum(made), sum(degraded), time.monotonic() - began_s]

    def marks(self) -> list[float]:
        """Return the counters that only rise: (CPU seconds of this process, IP bytes of its interface)."""
        cpu_s = time.process_time()
        if self._burner is not None and self._burner.ident is not None:
            cpu_s -= time.clock_gettime(time.pthread_getcpuclockid(self._burner.ident))
        return [cpu_s, _ip_bytes(self._interface)]

    def digest(self) -> str:
        """Return a digest of all that this node holds."""
        return digest(self._service)

    def listen(self) -> None:
        """Note from now on how old each update is when it is heard of."""
        subscription = self._service.subscribe()
        records = self._service.node.records

        def hear() -> None:
            for change in subscription:
                value = records[bytes.fromhex(change.sid)].entries[_attribute(0)].value
                assert value is not None, "nothing is deleted here"
                # The last bytes of an encoded bytes value are the value itself.
                (sent_at_ns,) = _SENT_AT.unpack_from(value, len(value) - VALUE_BYTES)
                self._lags_ms.append((time.monotonic_ns() - sent_at_ns) / 1e6)

        threading.Thread(target=hear, daemon=True).start()

    def lags(self) -> list[float]:
        """Return the median and the 99th percentile of what `listen` noted, milliseconds."""
        lags = sorted(self._lags_ms)
        return [lags[len(lags) // 2], lags[len(lags) * 99 // 100]]

    def read_us(self) -> float:
        """Return what a load by cookie takes: the median of 21 means over all sessions, microseconds."""
        load, cookies = self._service.store.load, self._cookies
        means_us: list[float] = []
        for _ in range(21):
            began_s = time.perf_counter()
            for cookie in cookies:
                load(cookie)
            means_us.append((time.perf_counter() - began_s) / len(cookies) * 1e6)
        return median(means_us)

    def stop(self) -> None:
        """Leave."""
        self._service.close()

    def _loaded(self, cookie: str) -> Session:
        session = self._service.store.load(cookie)
        assert isinstance(session, Session), f"a session written here is {session}"
        return session

    def _wait_for_acknowledgements(self) -> None:
        wait_until(lambda: self._service.status().unconfirmed == 0, "the last acknowledgement")


def digest(service: NodeService) -> str:
    """Return a digest of every session that a node holds: ids, keys, values, and who wrote them when."""
    summary = blake2b()
    for sid, record in sorted(service.node.records.items()):
        entries = [(key, entry.stamp, entry.origin, entry.value) for key, entry in sorted(record.entries.items())]
        summary.update(repr((sid, record.tombstone, entries)).encode())
    return summary.hexdigest()


def serve(side: object) -> None:
    """Have a side do one request a line, until there are no more. A failure goes back as text."""
    answers, sys.stdout = sys.stdout, sys.stderr  # nothing but answers on the pipe
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        try:
            answer = {"answer": getattr(side, request.pop("do"))(**request)}
        except Exception:
            answer = {"failure": traceback.format_exc()}
        print(json.dumps(answer), file=answers, flush=True)


def _attribute(number: int) -> str:
    return f"field-{number}"


def _burn() -> None:
    number = 1
    while True:
        number = number * 16807 % 2147483647


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait at most `PATIENCE_S`, asking again and again.

    Raises:
        BenchError: it did not come.
    """
    give_up_s = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > give_up_s:
            raise BenchError(f"{what} did not come within {PATIENCE_S:.0f} s")
        time.sleep(0.002)


def _ip_bytes(interface: str) -> int:
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, text = line.partition(":")
        if name.strip() == interface:
            counts = [int(number) for number in text.split()]
            received, sent = counts[0] - _ETHERNET_BYTES * counts[1], counts[8] - _ETHERNET_BYTES * counts[9]
            return sent if interface == "lo" else received + sent  # what lo sends is what it receives
    raise BenchError(f"/proc/net/dev has no interface {interface}")


# --- in the process that measures -------------------------------------------------------------------------


Ask = Callable[..., Any]
"""``ask(do, **arguments)``: one side does something, and its answer comes back."""


@contextmanager
def side_process(prefix: list[str], script: str = __file__) -> Iterator[tuple[Ask, int]]:
    """Run what `script` serves under ``--side`` in a process of its own; gives the way to ask it, and its process id.

    Raises:
        BenchError: it ended, or what it was asked to do failed there.
    """
    command = [*prefix, sys.executable, str(Path(script).resolve()), "--side"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        requests, answers = process.stdin, process.stdout
        assert requests is not None
        assert answers is not None

        def ask(do: str, **arguments: object) -> Any:
            print(json.dumps({"do": do, **arguments}), file=requests, flush=True)
            said = json.loads(answers.readline() or '{"failure": "the process ended"}')
            if "failure" in said:
                raise BenchError(said["failure"])
            return said["answer"]

        try:
            ask("hello")  # answered, it runs, and in its own namespace
            yield ask, process.pid
            ask("stop")
        finally:
            process.kill()


def play(options: argparse.Namespace, confirm: int, writers: int, *, busy: bool) -> Figures:
    """Run one pass.

    Raises:
        BenchError: a process failed, or the nodes did not find each other.
    """
    prefix = [] if options.lo else ["unshare", "--net"]
    addresses = (LOOPBACK, LOOPBACK) if options.lo else ADDRESSES
    with side_process(prefix) as (a, pid_a), side_process(prefix) as (b, pid_b):
        if not options.lo:
            command = f"ip link add {VETH} netns {pid_a} type veth peer name {VETH} netns {pid_b}"
            subprocess.run(command.split(), check=True)
        common = {"cluster": f"bench-{os.getpid()}", "secret": secrets.token_urlsafe(), "busy": busy}
        port = a("start", address=addresses[0], discovery="none", **common)
        b("start", address=addresses[1], discovery=f"static://{addresses[0]}:{port}", **common)
        b("meet")
        a("meet")
        a("fill", sessions=options.sessions)

        load = {"confirm": confirm, "writers": writers, "seconds": options.seconds, "held": options.held}
        (cpu_a, bytes_a), (cpu_b, _) = a("marks"), b("marks")
        updates, degraded, took_s = a("write", updates=options.updates, rate=0, **load)
        (cpu_a_end, bytes_a_end), (cpu_b_end, _) = a("marks"), b("marks")
        equal = a("digest") == b("digest")

        b("listen")
        _, degraded_too, _ = a("write", updates=min(options.updates, LAG_UPDATES), rate=LAG_RATE, **load)
        lag_p50_ms, lag_p99_ms = b("lags")
        return Figures(
            confirm=confirm,
            writers=writers,
            busy=busy,
            updates=updates,
            updates_per_s=updates / took_s,
            cpu_us_a=(cpu_a_end - cpu_a) / updates * 1e6,
            cpu_us_b=(cpu_b_end - cpu_b) / updates * 1e6,
            wire_bytes=(bytes_a_end - bytes_a) / updates,
            lag_p50_ms=lag_p50_ms,
            lag_p99_ms=lag_p99_ms,
            read_us=a("read_us"),
            degraded=degraded + degraded_too,
            interface="lo" if options.lo else "veth",
            equal=equal and a("digest") == b("digest"),
        )


HEADING: Final = (
    f"{'':26}{'updates/s':>10}{'CPU us A':>10}{'CPU us B':>10}{'wire B':>8}{'lag p50 ms':>12}{'p99':>8}{'read us':>9}"
)


def main() -> int:
    """Measure; return 1 where B was not what A was, 2 where there was nothing to measure."""
    parser = argparse.ArgumentParser(prog="bench/replicate.py", description="what replication costs")
    parser.add_argument("--updates", type=int, default=50_000)
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--confirm", type=int, nargs="+", default=[0, 1], help="default: 0 1")
    parser.add_argument("--writers", type=int, nargs="+", help="threads; default: 1, and with confirm 1 also 8")
    parser.add_argument("--seconds", type=float, default=60, help="a run stops here with fewer updates")
    parser.add_argument("--busy", action="store_true", help="once more with a thread that burns CPU on each side")
    parser.add_argument("--held", action="store_true", help="keep Session objects; do not load by cookie")
    parser.add_argument("--lo", action="store_true", help="loopback, also where namespaces can be had")
    parser.add_argument("--quick", action="store_true", help="500 updates over 50 sessions: does it work at all?")
    parser.add_argument("--json", action="store_true", help="one object a line for each pass")
    parser.add_argument("--side", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        serve(Side())
        return 0
    if options.quick:
        options.updates, options.sessions = 500, 50
    if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("unshare"):
        options.lo = True
    if not options.json:
        print(HEADING)
    passes = [
        (confirm, writers, busy)
        for busy in ((False, True) if options.busy else (False,))
        for confirm in options.confirm
        for writers in options.writers or ((1, 8) if confirm else (1,))
    ]
    equal = True
    for number, (confirm, writers, busy) in enumerate(passes, 1):
        print(f"pass {number} of {len(passes)} ...", file=sys.stderr)
        try:
            figures = play(options, confirm, writers, busy=busy)
        except BenchError as error:
            print(error, file=sys.stderr)
            return 2
        equal = equal and figures.equal
        print(json.dumps(figures._asdict()) if options.json else _line(figures), flush=True)
    return 0 if equal else 1


def _line(figures: Figures) -> str:
    name = f"confirm={figures.confirm} writers={figures.writers}{' busy' if figures.busy else ''}"
    notes = "" if figures.equal else "  B IS NOT WHAT A IS"
    if figures.degraded:
        notes += f"  {figures.degraded} degraded"
    return (
        f"{name:26}{figures.updates_per_s:10.0f}{figures.cpu_us_a:10.1f}{figures.cpu_us_b:10.1f}"
        f"{figures.wire_bytes:8.0f}{figures.lag_p50_ms:12.2f}{figures.lag_p99_ms:8.2f}{figures.read_us:9.2f}{notes}"
    )


if __name__ == "__main__":
    sys.exit(main())
