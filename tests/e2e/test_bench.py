# The replication benchmark runs and sees what it is to see. Its figures are judged by whoever runs it.

import json
import subprocess
import sys
from pathlib import Path

from bench import replicate
from gossipsess.config import Config
from gossipsess.service import lone_node

SCRIPT = Path(replicate.__file__)


def test_b_ends_up_with_what_a_wrote_and_every_figure_is_there() -> None:
    """A benchmark that nobody runs breaks unnoticed, and the next figures are then of something else."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--quick", "--json", "--confirm", "0", "1", "--writers", "2"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    passes = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["confirm"] for one in passes] == [0, 1]
    for one in passes:
        assert one["equal"] is True
        assert one["updates"] == 500
        # The values alone are 100 bytes an update, and each of them travels.
        assert one["wire_bytes"] > replicate.VALUE_BYTES, one
        for figure in ("updates_per_s", "cpu_us_a", "cpu_us_b", "lag_p50_ms", "lag_p99_ms", "read_us"):
            assert one[figure] > 0, one


def test_one_different_value_makes_the_digests_differ() -> None:
    """Equality is the benchmark's verdict on B; a digest of ids alone would let lost updates pass."""
    service = lone_node(Config())
    session = service.store.create()
    session["color"] = "red"
    service.store.commit(session)
    before = replicate.digest(service)
    assert before == replicate.digest(service)
    session["color"] = "blue"
    service.store.commit(session)
    assert before != replicate.digest(service)
