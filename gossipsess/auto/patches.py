# Patches: what each hook changes in its framework.
#
# In:    the framework's module, just imported.    Out: the change, and a sentence on it; or an exception and no change.
# Rule:  what an application chose itself stays: a session interface of its own, an engine that is not the framework's.
#        That is noted where it is seen. A wrong setting of ours raises as it does with the adapters themselves.
# Bound: adapters are imported when an application is made, where that can wait: many programs import Flask for its
#        command line or its types and serve nothing. None of them imports Trio before something is served.
# Not here: sessions (web/), and which versions these are for (hooks.py).

import logging
from collections.abc import Callable
from dataclasses import fields
from functools import cache, wraps
from importlib import import_module
from types import ModuleType
from typing import Any

from gossipsess.zero_code import LEFT_ALONE, notes

log = logging.getLogger("gossipsess")


def starlette(module: ModuleType) -> str:
    """Replace the class of the session middleware, before anybody has imported it from there."""
    from gossipsess.web.starlette import SessionMiddleware

    module.SessionMiddleware = SessionMiddleware  # type: ignore[attr-defined]
    return "SessionMiddleware is replicated"


def flask(module: ModuleType) -> str:
    """Have each application that keeps Flask's session interface get ours when it is made."""
    return _replace_interface(module.Flask, "gossipsess.web.flask")


def quart(module: ModuleType) -> str:
    """As `flask`."""
    return _replace_interface(module.Quart, "gossipsess.web.quart")


def flask_session(module: ModuleType) -> str:
    """Have Flask-Session leave alone the applications that have our interface."""
    init_app: Callable[[Any, Any], None] = module.Session.init_app

    @wraps(init_app)
    def leave(self: Any, app: Any) -> None:
        if not _is_ours(app.session_interface):
            init_app(self, app)

    module.Session.init_app = leave
    return "Session(app) changes nothing where sessions are replicated"


class _Interface:
    """The attribute `session_interface` of an application class, which notes what applications assign to it."""

    def __init__(self, stock: object) -> None:
        self._stock = stock

    def __get__(self, app: Any, owner: type) -> Any:
        return self._stock if app is None else vars(app).get("session_interface", self._stock)

    def __set__(self, app: Any, interface: object) -> None:
        vars(app)["session_interface"] = interface
        if not _is_ours(interface):
            _note_own(app, interface)


def _replace_interface(app_class: Any, adapter: str) -> str:
    stock = app_class.session_interface
    app_class.session_interface = _Interface(stock)
    init: Callable[..., None] = app_class.__init__

    @wraps(init)
    def init_with_ours(self: Any, *args: Any, **named: Any) -> None:
        init(self, *args, **named)
        if self.session_interface is stock:
            import_module(adapter).GossipSessions(self)
        elif "session_interface" not in vars(self):
            _note_own(self, self.session_interface)  # its class has one

    app_class.__init__ = init_with_ours
    return "applications get replicated sessions unless they bring their own"


def _is_ours(interface: object) -> bool:
    return type(interface).__module__.startswith("gossipsess.")


def _note_own(app: Any, interface: object) -> None:
    note = f"{LEFT_ALONE}application {app.name!r} brings its own session interface, {type(interface).__qualname__}"
    notes.append(note)
    log.warning("%s", note)


def litestar(module: ModuleType) -> str:
    """Replace the config of server-side sessions, before anybody has imported it from there."""
    module.ServerSideSessionConfig = _litestar_config()  # type: ignore[attr-defined]
    return "ServerSideSessionConfig is replicated"


def litestar_cookies(module: ModuleType) -> str:
    """Replace the config of sessions in cookies, which has a `secret` beside what the other has."""
    stock: Any = module.CookieBackendConfig

    class CookieBackendConfig(_litestar_config()):  # type: ignore[misc]
        def __init__(self, *args: Any, **named: Any) -> None:
            said = stock(*args, **named)  # which refuses what it always has
            super().__init__(**{one.name: getattr(said, one.name) for one in fields(said) if one.name != "secret"})
            self.secret = said.secret

    module.CookieBackendConfig = CookieBackendConfig  # type: ignore[attr-defined]
    return "CookieBackendConfig is replicated, and the data of its cookies is not read"


@cache
def _litestar_config() -> Any:
    """Return our config, with which applications start the node before they serve."""
    from litestar import Litestar

    from gossipsess.web.litestar import GossipSessionConfig

    made: list[GossipSessionConfig] = []

    class Config(GossipSessionConfig):
        def __post_init__(self) -> None:
            super().__post_init__()
            made.append(self)

    init = Litestar.__init__

    @wraps(init)
    def init_with_lifespan(self: Any, *args: Any, **named: Any) -> None:
        # Whose middleware it is an application does not say; the node is the same for all of a process.
        named["lifespan"] = [*(named.get("lifespan") or ()), *[config.lifespan for config in made]]
        init(self, *args, **named)

    Litestar.__init__ = init_with_lifespan  # type: ignore[method-assign]
    return Config
