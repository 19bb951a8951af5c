# Local key: what nodes of one user on one machine share when no secret is set.
#
# A random key in a file that only this user can read. Every node seals with it as with any secret; there is no
# unsealed mode. It is only ever used on loopback (config.py sees to that).

import os
import secrets
import stat
import tempfile
from pathlib import Path

from gossipsess.errors import ConfigError

KEY_BYTES = 32


def local_secret() -> tuple[str, Path]:
    """Return this user's key and the file it is kept in; the first node to ask makes it.

    Raises:
        ConfigError: the file, or the folder it is in, belongs to or can be read by somebody else.
    """
    folder = _folder()
    path = folder / "local.key"
    try:
        _make(path)
    except FileExistsError:
        pass  # another node, now or earlier, has made it
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error}). Set GOSSIPSESS_SECRET instead.") from error
    _check_private(path)
    return path.read_text("ascii").strip(), path


def _folder() -> Path:
    base = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(base) / "gossipsess" if base else Path(tempfile.gettempdir()) / f"gossipsess-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made ({error}). Set GOSSIPSESS_SECRET instead.") from error
    _check_private(folder)
    return folder


def _make(path: Path) -> None:
    # Written whole under another name and then linked: no node ever reads half a key, and the first one wins.
    draft = path.with_name(f".{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(KEY_BYTES))
        os.link(draft, path)
    finally:
        draft.unlink()


def _check_private(path: Path) -> None:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise ConfigError(
            f"{path} must belong to this user and be closed to all others (chmod go-rwx), and be no link. "
            "Remove it and a new key is made, or set GOSSIPSESS_SECRET."
        )
