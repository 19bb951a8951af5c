# Adapter: what all adapters do alike, whatever their framework and however they wait.
#
#   NodeSessions.start / .store   the store over this process's node
#   NodeSessions.stand_in         what a request gets whose session is not available
#   save                          store what the request changed; say which cookies follow from it
#   launch_early                  start the node when the application is built, where that is right (launch.py)
#
# Nothing here waits for other nodes: where the store returns a Future, so do these, and the adapter waits in its
# own way. Not here: header lines (cookie.py, or the framework).

import time
from concurrent.futures import Future
from typing import Final, NamedTuple

from gossipsess.config import Config, OnUnavailable, check_login_keys, check_on_unavailable
from gossipsess.errors import ConfigError, SessionUnavailable
from gossipsess.model.record import REGISTERS
from gossipsess.protocol.outcomes import Gone, Outcome
from gossipsess.runtime import forks
from gossipsess.service import NodeService, RunningNode, process_node
from gossipsess.store import SessionStore
from gossipsess.web.cookie import token_name
from gossipsess.web.launch import launch_early as launch_early
from gossipsess.web.session import WebSession

UNAVAILABLE: Final = "The session is not available right now. Please try again."
"""What a 503 says where the application has no page for it."""
BEGINS_TOO_LATE: Final = (
    "a session that begins after its websocket was accepted is not stored: the client can never name it. Write to the "
    "session first, or let a request begin it."
)
"""What the log says then."""
UNLIMITED_S: Final = 1e9
"""The age limit of frameworks that have none: some thirty years. Sessions that nobody uses end all the same."""
LEAST_IDLE_S: Final = 1.0
"""Where a framework's lifetime is none at all, which is how tests and some applications end sessions: that the cookie
ends ends them. A record that was over before it is stored would be asked for on every node."""
READY_TIMEOUT_S: Final = 10.0
"""A node that has not synced by then serves all the same: it asks the others for what it lacks."""
REFRESH_AFTER: Final = 0.25
"""Part of a cookie's life after which it is set again."""


class NodeSessions:
    """The sessions of this process's node, as one adapter sees them.

    `node` takes the place of the process's own node where it is given (tests, several nodes in one process), and
    `on_unavailable`, `login_keys` and `adopt` those of the node's settings. `idle_timeout_s` and `absolute_timeout_s`
    are the framework's own, which the settings may shorten; None: the settings', or else the library's.

    Raises:
        ConfigError: `on_unavailable`, `login_keys` or `adopt` cannot be that.
    """

    def __init__(
        self,
        session_class: type[WebSession],
        config: Config | None,
        node: NodeService | None,
        on_unavailable: OnUnavailable | None,
        *,
        idle_timeout_s: float | None = None,
        absolute_timeout_s: float | None = None,
        login_keys: tuple[str, ...] | None = None,
        adopt: bool | None = None,
    ) -> None:
        if on_unavailable is not None:
            check_on_unavailable(on_unavailable)
        if login_keys is not None:
            check_login_keys(login_keys)
        if adopt is not None and not isinstance(adopt, bool):
            raise ConfigError(f"adopt={adopt!r} must be True, False, or None for what GOSSIPSESS_ADOPT says.")
        self._on_unavailable = on_unavailable
        self._login_keys = login_keys
        self._adopt = adopt
        self._session_class = session_class
        self._config = config
        self._node = node
        self._idle_timeout_s = idle_timeout_s
        self._absolute_timeout_s = absolute_timeout_s
        # With the generation of the process: none outlives a fork, in which a lock of its may have been held.
        self._of_process: tuple[int, NodeService, SessionStore] | None = None

    @property
    def store(self) -> SessionStore | None:
        """The store; None where this process has yet to `start`, or its node was stopped."""
        if self._of_process is None:
            return None
        generation, node, store = self._of_process
        if generation != forks.generation or (node.closed and node is not self._node):
            return None
        return store

    def launch(self) -> NodeService:
        """Start the node unless it runs; do not wait until it has met the others.

        Raises:
            ConfigError: a setting is wrong, or no port is free.
        """
        return self._node or process_node(self._config)

    def start(self) -> SessionStore:
        """Start the node unless it runs, block until it can answer (at most `READY_TIMEOUT_S`); return the store.

        Raises:
            ConfigError: a setting is wrong, or no port is free.
        """
        node = self.launch()
        if isinstance(node, RunningNode):
            node.wait_ready(READY_TIMEOUT_S)
        login_keys = node.config.login_keys if self._login_keys is None else self._login_keys
        session_class = self._session_class
        if login_keys != session_class.login_keys:
            session_class = type(session_class.__name__, (session_class,), {"login_keys": login_keys})
        store = node.new_store(session_class, self._idle_timeout_s, self._absolute_timeout_s)
        self._of_process = (forks.generation, node, store)
        return store

    @property
    def config(self) -> Config:
        """The node's settings. Known once there is a store."""
        assert self._of_process is not None, "the store came with it"
        return self._of_process[1].config

    @property
    def adopts(self) -> bool:
        """Sessions that the framework's own have left in browsers are adopted. Known once there is a store."""
        assert self._of_process is not None, "the store came with it"
        return self._of_process[1].config.adopt == "on" if self._adopt is None else self._adopt

    def stand_in(self, store: SessionStore) -> WebSession | None:
        """Return what takes the place of a session that is not available; None: the request is refused."""
        assert self._of_process is not None, "the store came with it"
        if (self._on_unavailable or self._of_process[1].config.on_unavailable) == "error":
            return None
        session = store.create()
        assert isinstance(session, WebSession), "the store was made for this class"
        session.unavailable = True
        return session

    def stop(self) -> bool:
        """Let this process's node leave the cluster; another request would start a new one. Blocks for a moment.

        Returns whether there was one to stop.
        """
        if self._node is None and self._of_process is not None:
            generation, node, _ = self._of_process
            if generation == forks.generation and isinstance(node, RunningNode):
                node.close()
                return True
        return False


class Saving(NamedTuple):
    """A write on its way."""

    outcome: Outcome | Future[Outcome]
    cookies: tuple[tuple[str, str], ...]
    """(name, value) of each cookie to set; value "" removes it."""
    ended: bool
    """The request ended the session."""

    def cookies_after(self, outcome: Outcome) -> tuple[tuple[str, str], ...]:
        """Return the cookies to set, once the outcome is known.

        None of them where the session was ended or rotated meanwhile: the answer to that request has set or removed the
        cookies, and these would put the dead id back.
        """
        return () if isinstance(outcome, Gone) and not self.ended else self.cookies


def save(
    store: SessionStore, session: WebSession, name: str, max_age_s: float | None, *, may_rotate: bool = True
) -> Saving | None:
    """Store what a request changed; None where that is nothing, or the session is no more.

    Whoever calls asks `needs_no_save` first, since so it is with most requests.

    A stored session in which nothing is left ends, and one in which somebody logged in gets a new id, unless
    `may_rotate` is False: no cookie can be set any more. `name` is the id cookie's; after a quarter of `max_age_s`
    writes set the id cookie again, so that it outlasts a session in use. That of an adopted session replaces the former
    cookie.

    Raises:
        UnreplicableValue: a value was changed in place into something that cannot travel. Nothing is stored.
        SessionTooLarge: values have grown over a bound in place. Nothing is stored.
        MemoryFull: the session is new, and there is no room for it. The answer is 503. Nothing is stored.
    """
    used = session.accessed  # by the application, and not by what follows
    if not (session.assigned or session.asked_to_rotate or session.adopted or session.changes()):
        return None
    before = session.record
    is_new = not before.entries
    if not is_new and session.is_empty and any(key not in REGISTERS for key, _ in session.changes()):
        return Saving(store.invalidate(session), ((name, ""), (token_name(name), "")), ended=True)
    rotates = may_rotate and session.rotates
    sets_id = is_new or rotates or session.adopted or (max_age_s is not None and wants_refresh(session, max_age_s))
    outcome = store.rotate(session) if rotates else store.commit(session)
    if session.record is not before:
        token = (token_name(name), session.token)
        return Saving(outcome, ((name, session.id), token) if sets_id else (token,), ended=False)
    if session.adopted and used and _is_there(store, session):
        return Saving(outcome, ((name, session.id),), ended=False)
    return None


def refreshes(store: SessionStore, session: WebSession, max_age_s: float | None) -> bool:
    """Say whether the id cookie is to be set anew by a response that wrote nothing."""
    is_due = max_age_s is not None and not session.is_new and wants_refresh(session, max_age_s)
    return is_due and _is_there(store, session)


def wants_refresh(session: WebSession, max_age_s: float) -> bool:
    """Say whether the id cookie of a stored session may be near its end."""
    return time.time() - session.created_at > max_age_s * REFRESH_AFTER


def _is_there(store: SessionStore, session: WebSession) -> bool:
    # Another request may have ended or rotated it since; its answer has set the cookies.
    try:
        return isinstance(store.load(session.id), WebSession)
    except SessionUnavailable:
        return False
