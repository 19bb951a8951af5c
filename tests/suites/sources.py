"""A framework's own tests: its source distribution, fetched from the package index that pip uses.

The distribution is of the version that is installed, so that what is tested is what is imported. It is unpacked once,
into build/sources of the repository.
"""

import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

SOURCES = Path(__file__).parents[2] / "build" / "sources"
FETCH_TIMEOUT_S = 300.0


class NotFetched(Exception):
    """The package index cannot be reached, or has no source distribution of this version."""


def source_of(package: str) -> Path:
    """Return the unpacked source distribution of a package, of the version that is installed.

    Raises:
        NotFetched: it is not there yet, and cannot be had; the message says what pip said.
    """
    wanted = f"{package}=={version(package)}"
    folder = SOURCES / wanted.replace("==", "-")
    if not folder.exists():
        SOURCES.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=SOURCES) as draft:
            archive = _fetched(wanted, Path(draft))
            with tarfile.open(archive) as tar:
                tar.extractall(Path(draft) / "unpacked", filter="data")
            [unpacked] = (Path(draft) / "unpacked").iterdir()
            try:
                unpacked.rename(folder)
            except OSError:  # another process was faster
                assert folder.exists(), "nobody else has put it there"
    return folder


def _fetched(wanted: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:"]
    done = subprocess.run(
        [*command, f"--dest={folder}", wanted], capture_output=True, text=True, timeout=FETCH_TIMEOUT_S
    )
    archives = list(folder.glob("*.tar.gz"))
    if done.returncode or not archives:
        raise NotFetched(f"no source distribution of {wanted}: {done.stderr.strip()[-500:] or 'pip found none'}")
    return archives[0]
