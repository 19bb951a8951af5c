# Local key: what nodes of one user on one machine share when no secret is set.
#
# A random key in a file that only this user can read. Every node seals with it as with any secret; there is no
# unsealed mode. It is only ever used on loopback (config.py sees to that).

import os
import secrets
from pathlib import Path

from gossipsess.errors import ConfigError
from gossipsess.runtime.folder import check_private, make_folder

KEY_BYTES = 32


def local_secret() -> tuple[str, Path]:
    """Return this user's key and the file it is kept in; the first node to ask makes it.

    Raises:
        ConfigError: the file, or the folder it is in, belongs to or can be read by somebody else.
    """
    try:
        path = Path(make_folder()) / "local.key"
        try:
            _make(path)
        except FileExistsError:
            pass  # another node, now or earlier, has made it
        except OSError as error:
            raise ConfigError(f"{path} cannot be written ({error}).") from error
        check_private(str(path))
    except ConfigError as error:
        raise ConfigError(f"{error} Or set GOSSIPSESS_SECRET: then no such key is needed.") from error
    return path.read_text("ascii").strip(), path


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
