# sitecustomize: what a Python under `gossipsess run` imports when it starts. It asks boot.py, and never fails.
#
# Whatever Python an application starts comes here, as PYTHONPATH goes to all of them: only those of gossipsess's own
# environment are touched. A sitecustomize of somebody else, which this one hides, gets its turn.

import os
import sys


def _boot() -> None:
    if "gossipsess.boot" in sys.modules:
        return  # gossipsess.pth, of this or of another environment, has come before
    process, _, python = os.environ.get("GOSSIPSESS_AUTO_FOR", "").partition(":")
    mine = "%d.%d:%s" % (sys.version_info[0], sys.version_info[1], sys.prefix)  # noqa: UP031  # of any Python
    why = "this is Python %s, and gossipsess runs on %s" % (mine, python)  # noqa: UP031
    if python in ("", mine):
        try:
            from gossipsess import boot
        except Exception as error:  # it is not there, or broken
            why = str(error)
        else:
            boot.boot()
            return
    elif process != str(os.getpid()):
        return  # not the command itself, but something that it starts
    # As boot.fail, which is not there.
    sys.stderr.write("gossipsess: sessions are not replicated in process %d: %s\n" % (os.getpid(), why))  # noqa: UP031
    sys.stderr.flush()
    if os.environ.get("GOSSIPSESS_AUTO_STRICT", "").lower() not in ("", "0", "off", "no", "false", "none"):
        os._exit(1)


def _next() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [path for path in sys.path if os.path.abspath(path) != here]
    own = sys.modules.pop("sitecustomize")
    try:
        import sitecustomize  # type: ignore[import-not-found]  # noqa: F401  # now another one, if any; what it raises Python tells, as ever
    except ImportError as error:
        if error.name != "sitecustomize":
            raise
    finally:
        sys.modules.setdefault("sitecustomize", own)


_boot()
_next()
