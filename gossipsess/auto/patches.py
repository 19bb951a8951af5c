# Patches: what each hook changes in its framework.
#
# In:    the framework's module, just imported.    Out: the change, and a sentence on it; or an exception and no change.
# Rule:  what an application chose itself stays: a session interface of its own, an engine that is not the framework's.
#        That is noted where it is seen, and refused there with GOSSIPSESS_AUTO_STRICT. A wrong setting of ours raises
#        as it does with the adapters themselves.
# Bound: adapters are imported when an application is made, where that can wait: many programs import Flask for its
#        command line or its types and serve nothing. None of them imports Trio before something is served.
# Not here: sessions (web/), and which versions these are for (hooks.py).

import logging
import os
import sys
from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from importlib import import_module
from types import ModuleType
from typing import Any

from gossipsess.errors import GossipsessError
from gossipsess.zero_code import LEFT_ALONE, is_strict, note

log = logging.getLogger("gossipsess")

ENGINE, MIDDLEWARE = "gossipsess.web.django", "gossipsess.web.django.SessionMiddleware"
"""Only named here: what is there wants Django's settings."""
DJANGOS_ENGINES = [
    f"django.contrib.sessions.backends.{name}" for name in ("db", "cache", "cached_db", "file", "signed_cookies")
]
DJANGOS_MIDDLEWARE = "django.contrib.sessions.middleware.SessionMiddleware"

_imported: set[str] = set()
"""Adapters that are imported because a hook wanted them, and not because the application uses them itself."""


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
        if not _is_ours(interface) and hasattr(app, "import_name"):  # else it is being made, and has no name yet
            _note_own(app, interface)


def _replace_interface(app_class: Any, adapter: str) -> str:
    stock = app_class.session_interface
    app_class.session_interface = _Interface(stock)
    init: Callable[..., None] = app_class.__init__

    @wraps(init)
    def init_with_ours(self: Any, *args: Any, **named: Any) -> None:
        init(self, *args, **named)
        if self.session_interface is not stock:
            _note_own(self, self.session_interface)  # its class has one, or it was given one while it was made
        elif adapter in sys.modules and adapter not in _imported:
            _note(f"application {self.name!r} uses {adapter} itself")
        else:
            _imported.add(adapter)
            import_module(adapter).GossipSessions(self)

    app_class.__init__ = init_with_ours
    return "applications get replicated sessions unless they bring their own"


def _is_ours(interface: object) -> bool:
    return type(interface).__module__.startswith("gossipsess.")


def _note_own(app: Any, interface: object) -> None:
    _note(f"{LEFT_ALONE}application {app.name!r} brings its own session interface, {type(interface).__qualname__}")


def _note(sentence: str) -> None:
    note(sentence)
    if sentence.startswith(LEFT_ALONE) and is_strict(os.environ):
        raise GossipsessError(sentence)
    log.log(logging.WARNING if sentence.startswith(LEFT_ALONE) else logging.INFO, "%s", sentence)


def django(module: ModuleType) -> str:
    """Have Django's settings name our engine in place of one of Django's own, once they are loaded."""
    init, configure = module.Settings.__init__, module.LazySettings.configure

    @wraps(init)
    def init_with_ours(self: Any, *args: Any, **named: Any) -> None:
        init(self, *args, **named)
        _replace_engine(self)

    @wraps(configure)
    def configure_with_ours(self: Any, *args: Any, **named: Any) -> None:
        configure(self, *args, **named)
        _replace_engine(self)

    module.Settings.__init__, module.LazySettings.configure = init_with_ours, configure_with_ours
    return "settings are looked at when they are loaded"


def _replace_engine(settings: Any) -> None:
    engine = settings.SESSION_ENGINE
    if engine == ENGINE:
        _note(f"the settings name {ENGINE} themselves")
    elif engine not in DJANGOS_ENGINES:
        _note(f"{LEFT_ALONE}SESSION_ENGINE is {engine}, which is not Django's own")
    else:
        settings.SESSION_ENGINE = ENGINE
        settings.MIDDLEWARE = [MIDDLEWARE if name == DJANGOS_MIDDLEWARE else name for name in settings.MIDDLEWARE]
        if not hasattr(settings, "GOSSIPSESS_ADOPT"):
            settings.GOSSIPSESS_ADOPT = engine  # who is logged in there stays so
        _note(f"SESSION_ENGINE is {ENGINE} in place of {engine}")


def litestar(module: ModuleType) -> str:
    """Replace the configs of both kinds of sessions, before anybody has imported them from there."""
    if "gossipsess.web.litestar" in sys.modules:  # it is what imports this
        return "the application uses gossipsess.web.litestar itself"
    from litestar import Litestar
    from litestar.middleware.session import client_side, server_side

    from gossipsess.web.litestar import GossipSessionConfig

    stock: Any = client_side.CookieBackendConfig
    made: list[GossipSessionConfig] = []

    class ServerSideSessionConfig(GossipSessionConfig):
        def __post_init__(self) -> None:
            super().__post_init__()
            made.append(self)

    class CookieBackendConfig(ServerSideSessionConfig):
        def __init__(self, *args: Any, **named: Any) -> None:
            said = stock(*args, **named)  # which refuses what it always has
            super().__init__(**{one.name: getattr(said, one.name) for one in fields(said)})

    init = Litestar.__init__

    @wraps(init)
    def init_with_lifespan(self: Any, *args: Any, **named: Any) -> None:
        # Which config's middleware an application has it does not say; the node is the same for all of a process.
        named["lifespan"] = [*(named.get("lifespan") or ()), *[config.lifespan for config in made]]
        init(self, *args, **named)

    Litestar.__init__ = init_with_lifespan  # type: ignore[method-assign]
    server_side.ServerSideSessionConfig = ServerSideSessionConfig  # type: ignore[misc]
    client_side.CookieBackendConfig = CookieBackendConfig  # type: ignore[misc, assignment]
    return "ServerSideSessionConfig and CookieBackendConfig are replicated"
