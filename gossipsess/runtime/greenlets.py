# Greenlets: a process whose threads and sockets gevent or eventlet have replaced cannot run a node.
#
# In:    what is imported.    Out: a ConfigError that says what to use instead.
# Why refuse: Trio takes the primitives it finds, and those belong to a loop that knows nothing of it. What follows is
#             an error that names no reason, or a node that stops whenever a greenlet does not yield.
# Asked before Trio is imported. A library that is imported and has patched nothing does no harm.

import sys

from gossipsess.errors import ConfigError


def refuse_greenlets() -> None:
    """Refuse to run where the standard library's threads are greenlets.

    Raises:
        ConfigError: they are.
    """
    gevent = sys.modules.get("gevent.monkey")
    if gevent is not None and any(gevent.is_module_patched(name) for name in ("threading", "socket", "select")):
        raise ConfigError(refusal("gevent"))
    eventlet = sys.modules.get("eventlet.patcher")
    if eventlet is not None and any(eventlet.is_monkey_patched(name) for name in ("thread", "socket", "select")):
        raise ConfigError(refusal("eventlet"))


def refusal(library: str) -> str:
    """Return what is said of a process that such a library has patched."""
    return (
        f"{library} has replaced this process's threads and sockets, and gossipsess cannot run among greenlets. "
        "Serve with threads instead (gunicorn -k gthread --threads 8), or an ASGI application with uvicorn."
    )
