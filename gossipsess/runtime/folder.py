# Folder: a place on this machine that only this user can enter. The local key is kept there, and the sockets at which
# nodes are asked.
#
# Rule:  gossipsess in $XDG_RUNTIME_DIR, else gossipsess-<user id> in $TMPDIR, else in /tmp. So whoever asks a node must
#        be the same user, with the same environment.
# A probe looks here every few seconds, and each starts a Python for it: tempfile and pathlib, which say the same, would
# cost as much as all the rest.
# Not here: the key (localkey.py), the sockets (inquiry.py).

import os
import stat

from gossipsess.errors import ConfigError


def folder_path() -> str:
    """Return where it is, or would be."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base:
        return os.path.join(base, "gossipsess")
    return os.path.join(os.environ.get("TMPDIR") or "/tmp", f"gossipsess-{os.getuid()}")  # noqa: S108  # checked below


def make_folder() -> str:
    """Make it unless it is there, and return where it is.

    Raises:
        ConfigError: it cannot be made, or somebody else may enter it.
    """
    folder = folder_path()
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be made ({error.strerror}). Set XDG_RUNTIME_DIR to a folder that this user can write to."
        ) from error
    check_private(folder)
    return folder


def check_private(path: str) -> None:
    """Refuse a file or folder that is not this user's alone.

    Raises:
        ConfigError: it belongs to somebody else, can be read or entered by others, or is a link.
        OSError: there is nothing.
    """
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise ConfigError(
            f"{path} must belong to this user and be closed to all others (chmod go-rwx), and be no link. "
            "Remove it and it is made anew."
        )
