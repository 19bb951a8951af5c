# Django sessions: what keeps a session's data, and which node the sessions of this process stand on.
#
# In:    Django's settings, the environment, what `configure` was told.   Out: the store (store.py) of this process.
# Rule:  what a test has configured; under Django's test runner a node without network or thread; else this process's.
# The node starts with the first session that is used, or with the application (`launch_with_application`).
# Not here: which of a process's moments that is (launch.py), and what is asked of the store (django_engine.py).

from typing import Final

from django.conf import settings
from django.core import mail

from gossipsess.config import Config, OnUnavailable
from gossipsess.model.record import USER
from gossipsess.protocol.events import Changes
from gossipsess.service import NodeService, lone_node
from gossipsess.store import SessionStore as Store
from gossipsess.waiting import in_thread, on_any_loop
from gossipsess.web.adapter import NodeSessions
from gossipsess.web.django_lifespan import answer_lifespan
from gossipsess.web.launch import launch_early
from gossipsess.web.session import WebSession


class DjangoSession(WebSession):
    """What a `SessionStore` keeps its data in.

    Attributes:
        begins_empty: it is stored by its first commit even if nothing is in it, as Django's `create` has it.
        new_id: this request has given it its id, which nobody else can know.
    """

    begins_empty = False
    new_id = False

    def changes(self) -> Changes:
        """Return what this request changed; of an empty session that is to be stored, that it is nobody's."""
        changes = super().changes()
        return changes or (((USER, None),) if self.begins_empty and self.is_new else ())

    @property
    def rotates(self) -> bool:
        """A save moves what is stored to a new id; not once more where Django's `login` has just done so."""
        return not self.new_id and super().rotates

    def refuse_if_stand_in(self, how: str) -> None:
        """Raise what a change of a stand-in raises.

        Raises:
            SessionUnavailable: this is one.
        """
        self._changing(how)


def sessions() -> NodeSessions:
    """Return the sessions of this process's node; under Django's test runner, of one without network."""
    global _of_tests
    if _configured is not None:
        return _configured
    if not _is_tested():
        return _of_process
    if _of_tests is None:
        _of_tests = NodeSessions(DjangoSession, None, lone_node(Config.from_env()), None)
    return _of_tests


def configure(
    config: Config | None = None, node: NodeService | None = None, on_unavailable: OnUnavailable | None = None
) -> None:
    """Say what the sessions of this process stand on, before the first of them is used; for tests, mostly.

    Args:
        config: the node's settings; None: those of the environment.
        node: a node to use instead of this process's own.
        on_unavailable: ``error`` or ``empty``; None: the node's setting.

    Raises:
        ConfigError: `on_unavailable` is none of those.
    """
    global _configured
    _configured = NodeSessions(DjangoSession, config, node, on_unavailable)


def store() -> Store:
    """Return the store of this process; start its node if need be, and block until it can answer."""
    return sessions().store or sessions().start()


async def ready() -> None:
    """Start this process's node if need be; the event loop goes on meanwhile."""
    if sessions().store is None:
        _ = await on_any_loop(in_thread(sessions().start))


def launch_with_application() -> None:
    """Start the node where an application is built; not under Django's test runner, nor for a command.

    Raises:
        ConfigError: a setting of the node is wrong, or no port is free.
    """
    if not _is_tested():
        answer_lifespan(sessions)
        launch_early(sessions())


_of_process: Final = NodeSessions(DjangoSession, None, None, None)
_of_tests: NodeSessions | None = None
_configured: NodeSessions | None = None


def _is_tested() -> bool:
    # What `setup_test_environment` leaves behind, of Django's test runner and of pytest-django. Each of the two may be
    # there elsewhere: an EMAIL_BACKEND for development makes the one, a careless setting the other.
    return hasattr(mail, "outbox") and "testserver" in settings.ALLOWED_HOSTS
