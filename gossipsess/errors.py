# Every exception gossipsess raises, grouped by whose fault it is.
#
# The application's:  ConfigError, UnreplicableValue, UnreadableValue, SessionTooLarge. The message says what to write
#                     instead.
# The moment's:       SessionUnavailable, MemoryFull. Nothing is lost; the same request may succeed a little later.
# A peer's or a stranger's bytes:  WireError and below. Counted and dropped where they arrive; a request never
#                     sees one, and no state has changed when one is raised.


class GossipsessError(Exception):
    """Base of everything gossipsess raises on purpose."""


class ConfigError(GossipsessError, ValueError):
    """A setting is wrong; the message names it, its value, what is allowed and what to write instead."""


class UnreplicableValue(GossipsessError, TypeError):
    """A value cannot be sent to other processes; raised where it is assigned, and nothing has changed.

    Attributes:
        path: where the refused value sits, as Python would write it: ``session['user'].profile``.
        type_name: the refused value's type.
    """

    def __init__(self, message: str, *, path: str, type_name: str) -> None:
        super().__init__(message)
        self.path = path
        self.type_name = type_name


class UnreadableValue(GossipsessError, TypeError):
    """A stored value holds an object that this process cannot make; raised where it is read.

    Its type is not registered here (`register_type`), or its `from_value` failed. The value is kept and replicated as
    it is, and every other key can be read.

    Attributes:
        path: where it is kept: ``session['user']``.
        type_name: the name under which its type is registered elsewhere.
    """

    def __init__(self, message: str, *, path: str, type_name: str) -> None:
        super().__init__(message)
        self.path = path
        self.type_name = type_name


class SessionTooLarge(GossipsessError, ValueError):
    """A value or a whole session is over its size bound; raised where it is assigned, nothing has changed."""


class SessionUnavailable(GossipsessError):
    """Whether the session exists is not known now: those who may hold it did not answer in time.

    Not the same as absent: do not clear the cookie, and make no session under its id.
    """


class MemoryFull(SessionUnavailable):
    """A new session is not stored: this node's sessions together have met `Config.memory_limit_mb`.

    Raised by the commit that would store it; nothing has changed. Sessions that exist go on. On the web the answer
    is 503.
    """


class WireError(GossipsessError):
    """Bytes from the network that this node refuses. State has not changed."""


class DecodeError(WireError):
    """Authenticated bytes that are not a message: malformed, over a bound, or of an unknown kind."""


class SealError(WireError):
    """Bytes that do not authenticate: another secret, another cluster, damaged, truncated or replayed."""


class StrangerError(SealError):
    """A node that has another secret, or is of another cluster."""


class SelfReached(SealError):
    """A dial came back to the node that dialed: that address is one of its own."""


class VersionError(WireError):
    """A peer with which no protocol version is shared."""
