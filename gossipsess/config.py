# Config: every setting, from arguments or from GOSSIPSESS_* in the environment; arguments win.
#
# Beside our own variables two that Kubernetes gives are read: POD_IP (which a manifest sets from status.podIP) as the
# address to advertise, and KUBERNETES_SERVICE_HOST, which tells that this is Kubernetes.
# A value that cannot work is refused here, with what to write instead, before a socket is opened; under the name by
# which it was set, which is a variable's for what came from there.
# Not here: how `discovery` is read (discovery.py), how long a secret must be (keyring.py).

import difflib
import ipaddress
import os
import re
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, fields
from types import MappingProxyType, UnionType
from typing import Any, Final, Literal, Self, get_args

from gossipsess.discovery import Discovery, check_ip, parse
from gossipsess.errors import ConfigError
from gossipsess.model.rules import CountBy, Rules
from gossipsess.protocol.memory import MEMORY_LIMIT_MB
from gossipsess.wire.keyring import SECRET_CHARACTERS_MIN, Keyring
from gossipsess.zero_code import AUTO, FOR, STRICT

PORT: Final = 7950
PORT_RANGE: Final = 16
SERVICE: Final = "gossipsess"
NAME_BYTES_MAX: Final = 100
"""Of `host`, `zone` and `node_name`: gossip carries all three, and a datagram must hold several members."""
CLUSTER_CHARACTERS_MAX: Final = 255
_PREFIX: Final = "GOSSIPSESS_"
_FILE: Final = "_FILE"
_IN_FILES: Final = ("secret", "secret_fallbacks")
SECRET_FILE_BYTES_MAX: Final = 64 * 1024

OnUnavailable = Literal["error", "empty"]
Adopt = Literal["on", "off"]
LOGIN_KEYS: Final = ("_auth_user_id", "_user_id", "user_id")
"""Under which Django, Flask-Login and most tutorials keep the user."""

# Type of each setting, and an example to write instead of what is none.
_TYPES: Final[Mapping[str, tuple[type | UnionType, str]]] = {
    "cluster": (str, "'shop'"),
    "secret": (str | None, "os.environ['SHOP_SECRET']"),
    "secret_fallbacks": (tuple, "(former_secret,)"),  # a list could not be hashed, as the whole Config must be
    "discovery": (str, "'auto'"),
    "service": (str, f"'{SERVICE}'"),
    "bind": (str | None, "'127.0.0.1'"),
    "advertise": (str | None, "'10.0.0.1'"),
    "port": (int, f"{PORT}"),
    "port_range": (int, f"{PORT_RANGE}"),
    "host": (str | None, "'pod-1'"),
    "zone": (str | None, "'eu-1a'"),
    "node_name": (str | None, "'web-1'"),
    "confirm": (int | str, "1"),
    "confirm_timeout_s": (int | float, "0.25"),
    "idle_timeout_s": (int | float | None, "1800"),
    "absolute_timeout_s": (int | float | None, "43200"),
    "memory_limit_mb": (int, f"{MEMORY_LIMIT_MB}"),
    "all_to_all_below": (int, f"{Rules().all_to_all_below}"),
    "secondaries": (int, f"{Rules().secondaries}"),
    "count_by": (str, f"'{Rules().count_by}'"),
    "on_unavailable": (str, "'error'"),
    "login_keys": (tuple, "('user_id',)"),
    "adopt": (str, "'on'"),
}

# What each number may be, and what one may want to write instead of another.
_NUMBERS: Final[Mapping[str, tuple[str, str]]] = {
    "port": ("a whole number from 0 to 65535", "0 for any free one"),
    "port_range": ("a whole number from 1 to 1000", "1 to try one port only"),
    "confirm": ("0, 1, 2, ... or all", "0 to wait for nobody, all to wait for every host"),
    "confirm_timeout_s": (
        "a number of seconds, above 0 and below 1000000000",
        "0.05 for a twentieth of a second (to wait for nobody, set confirm to 0)",
    ),
    "idle_timeout_s": (
        "a number of seconds, above 0 and below 1000000000",
        "3600 for an hour, 999999999 for sessions that no pause ends",
    ),
    "absolute_timeout_s": (
        "a number of seconds, above 0 and below 1000000000",
        "86400 for a day, 999999999 for sessions that no age ends",
    ),
    "memory_limit_mb": ("a whole number of MiB from 1 to 999999999", "1024 for a GiB"),
    "all_to_all_below": (
        "a whole number from 2 to 999999999",
        "2 for a primary and secondaries with any number of nodes, 999999999 for every session on every node",
    ),
    "secondaries": (
        "a whole number from 1 to 999999999",
        "1 for one copy beside the primary's (without it the death of a process would end sessions), 2 for one more",
    ),
}
_RANGES: Final[Mapping[str, tuple[int, int]]] = {
    "port": (0, 65535),
    "port_range": (1, 1000),
    "memory_limit_mb": (1, 10**9 - 1),
    "all_to_all_below": (2, 10**9 - 1),
    "secondaries": (1, 10**9 - 1),
}

_NO_VARIABLES: Final[Mapping[str, str]] = MappingProxyType({})
_POD_IP: Final = "POD_IP"
_IN_KUBERNETES: Final = "KUBERNETES_SERVICE_HOST"
_SERVICE_LINK: Final = re.compile(
    r"GOSSIPSESS_(SERVICE_HOST=.*|SERVICE_PORT(_\w+)?=.*|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?=.*|PORT=\w+://.*)"
)
"""What Kubernetes puts into each pod where a Service is called gossipsess, as for every Service. No settings."""
_variables: Final[ContextVar[Mapping[str, str]]] = ContextVar("variables", default=_NO_VARIABLES)
"""While settings are made from the environment: the variable of each setting that came from there."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of one node.

    Attributes:
        cluster: nodes of other clusters are not heard. 1 to 255 characters, the same on every node of one
            application and another for every other application.
        secret: what the nodes share, at least 16 characters. None: a random key in a file that only this user
            can read, and loopback only.
        secret_fallbacks: former secrets still accepted while a new one is rolled out.
        discovery: where other nodes are, one of these or several joined by commas:
            ``auto``: multicast on the default group; and, with a secret, the addresses that `service` has in DNS: in
            Kubernetes from the start, elsewhere only while multicast hears nobody.
            ``multicast://239.255.79.50:7949``: another group. IPv4 only.
            ``dns://shop-gossip``, ``dns://shop-gossip:7950``: the addresses of a name (A and AAAA), of a headless
            Service say. The port is the first that workers take, `port` where none is given.
            ``srv://_gossip._tcp.shop.example``: SRV records, with their ports; takes the extra ``dns``.
            ``static://10.0.0.1:7950,10.0.0.2:7950``: addresses.
            ``none``: nobody.
        service: the name, or ``name:port``, that ``auto`` looks up.
        bind: the IP address to listen on, and the interface for multicast. None: 127.0.0.1 without a secret,
            every interface with one; of IPv6 too where `advertise` is an address of that. ``::`` serves both.
        advertise: the IP address at which others reach this node. None: `bind`, or where that is every interface,
            what the variable POD_IP says, else the address from which this machine reaches the multicast group, else
            its default route. Never loopback, where other machines are listened for.
        port: first port to try, for UDP and TCP both. 0: any free one.
        port_range: how many ports to try; several workers on one machine take the next free one.
        host: name of the machine or pod, for counting copies; 1 to 100 bytes of UTF-8, printable, not blank. None:
            the advertised address.
        zone: what hosts share that may fail at once, a rack or an availability zone; 1 to 100 bytes of UTF-8,
            printable, not blank. A session's copies go to distinct zones where there are enough, else to distinct
            hosts. None: not known; nodes without one count as one zone.
        node_name: name of this node in logs and status, and what decides which sessions it holds: another one on
            every node, and the same again when the node is restarted, so that none have to move. 1 to 100 bytes of
            UTF-8, printable, not blank. None: ``ip:port``.
        confirm: how many other hosts must hold a write before `commit` returns, 0 or more, or ``all``.
        confirm_timeout_s: how long that may take, seconds; then the outcome is Degraded.
        idle_timeout_s: a session that nobody used for this long ends, seconds. None: as the web framework says where
            its adapter stands in for its own sessions, else 1800.
        absolute_timeout_s: a session ends this long after its creation, whatever happens, seconds. None: as the web
            framework says where its adapter stands in for its own sessions, else 43200.
        memory_limit_mb: what all sessions together may take in each process, in MiB, by an account that is roughly
            right; 1 or more. From there on the first commit of a new session raises `MemoryFull`, on the web the
            answer is 503; existing sessions go on. What counts is what this node holds: with fewer nodes than
            `all_to_all_below` every session, else its share and what it has fetched. Best the same on every node: what
            one accepts its holders take in. Smaller: a flood of visitors is turned away sooner. Larger: the process
            may be killed for its memory.
        all_to_all_below: with fewer nodes than this, every node holds every session; from there on each session has a
            primary and `secondaries`. 2 or more. Larger: more nodes may fail at once, and reads ask nobody, for more
            memory and traffic in each. The same on every node.
        secondaries: how many nodes hold a session beside its primary, 1 or more. Larger: so many nodes may fail at the
            same moment and no session is lost, for as much more memory and traffic. The same on every node.
        count_by: what `all_to_all_below` counts, ``node`` or ``host``. By ``host`` the workers of one machine or pod
            count once. The same on every node.
        on_unavailable: what a web request gets whose session may exist and cannot be had in time. ``error``: the
            application does not run, and the answer is 503. ``empty``: it runs with an empty session, in which
            `unavailable` is true and every change raises `SessionUnavailable`. The cookie stays either way.
        login_keys: the keys under which web applications keep the user in a session. A new value under one of them is
            a login: the session's id changes, and the session is that user's, for `revoke`. Empty: none are watched,
            and the application calls `WebSession.rotate` and assigns `Session.user`.
        adopt: whether a signed or sealed cookie that a web framework's own sessions have left in a browser, valid
            still, begins a session with its data, once: ``on``, where the adapter is given the framework's key; or
            ``off``.

    Raises:
        ConfigError: a value that cannot work; the message says which setting, what is allowed, and what to write
            instead.
    """

    cluster: str = "default"
    secret: str | None = None
    secret_fallbacks: tuple[str, ...] = ()
    discovery: str = "auto"
    bind: str | None = None
    advertise: str | None = None
    port: int = PORT
    port_range: int = PORT_RANGE
    host: str | None = None
    node_name: str | None = None
    confirm: int | Literal["all"] = 1
    confirm_timeout_s: float = 0.25
    idle_timeout_s: float | None = None
    absolute_timeout_s: float | None = None
    memory_limit_mb: int = MEMORY_LIMIT_MB
    service: str = SERVICE
    zone: str | None = None
    all_to_all_below: int = Rules().all_to_all_below
    secondaries: int = Rules().secondaries
    count_by: CountBy = Rules().count_by
    on_unavailable: OnUnavailable = "error"
    login_keys: tuple[str, ...] = LOGIN_KEYS
    adopt: Adopt = "on"

    def __post_init__(self) -> None:
        self._check_types()
        self._check_names()
        self._check_secrets()
        self._check_numbers()
        self._check_addresses()
        self._check_reach()
        self._check_choices()

    def __repr__(self) -> str:
        shown = {field.name: getattr(self, field.name) for field in fields(self)}
        shown["secret"] = "***" if self.secret else None
        shown["secret_fallbacks"] = len(self.secret_fallbacks)
        return f"Config({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **arguments: Any) -> Self:
        """Return settings from `arguments`, then ``GOSSIPSESS_<NAME>``, then the defaults.

        An argument that is None counts as not given. Lists are comma-joined in the environment. For the secrets there
        is also a variable that names a file with the value in it: ``GOSSIPSESS_SECRET_FILE`` and
        ``GOSSIPSESS_SECRET_FALLBACKS_FILE``.

        Raises:
            ConfigError: an unknown name, or a value that cannot work.
        """
        environ = os.environ if environ is None else environ
        names = {field.name for field in fields(cls)}
        values: dict[str, Any] = {}
        variables: dict[str, str] = {}
        before = _variables.set(variables)
        try:
            for variable, text in environ.items():
                if variable in (AUTO, STRICT, FOR):  # no settings of a node
                    continue
                if variable.startswith(_PREFIX) and not (
                    _IN_KUBERNETES in environ and _SERVICE_LINK.fullmatch(f"{variable}={text}")
                ):
                    name = variable[len(_PREFIX) :].lower()
                    if name.removesuffix(_FILE.lower()) in _IN_FILES and name not in names:
                        name = name.removesuffix(_FILE.lower())
                        if f"{_PREFIX}{name.upper()}" in environ:
                            raise ConfigError(f"{variable} and {_PREFIX}{name.upper()} are both set. Leave one out.")
                        text = _content(variable, text)
                    if name not in names:
                        raise ConfigError(f"{variable} is not a setting.{_nearest(name, names)}")
                    variables[name] = variable
                    values[name] = _parsed(name, text)
            for name, value in arguments.items():
                if name not in names:
                    raise ConfigError(f"{name} is not a setting.{_nearest(name, names)}")
                if value is not None:
                    variables.pop(name, None)
                    values[name] = value
            pod_ip = environ.get(_POD_IP)
            # Without a secret, or bound to one address, a node is not reached by the pod's.
            if pod_ip and values.get("secret") and not values.keys() & {"bind", "advertise"}:
                variables["advertise"] = _POD_IP
                values["advertise"] = pod_ip
            return cls(**values)
        finally:
            _variables.reset(before)

    @property
    def bind_address(self) -> str:
        """The IP address to listen on."""
        if self.bind is not None:
            return self.bind
        if self.secret is None:
            return "127.0.0.1"
        return "::" if self.advertise and ":" in self.advertise else "0.0.0.0"  # noqa: S104  # only with the secret

    def discovery_parts(self) -> Discovery:
        """Return what `discovery` says.

        Raises:
            ConfigError: it cannot be read.
        """
        return parse(
            self.discovery,
            self.service,
            text_as_set=_as_set("discovery", self.discovery),
            service_as_set=_as_set("service", self.service),
            bind_address=self.bind_address,
            port=self.port or PORT,
            port_range=self.port_range,
            in_kubernetes=_IN_KUBERNETES in os.environ,
        )

    def _check_types(self) -> None:
        for name, (kind, example) in _TYPES.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, kind):
                shown = "..." if name.startswith("secret") else repr(value)
                raise ConfigError(
                    f"{name}={shown} has the wrong type ({type(value).__name__}). Write, say, {name}={example}."
                )
        if not all(isinstance(fallback, str) for fallback in self.secret_fallbacks):
            raise ConfigError("secret_fallbacks: each of them is a str, as in secret_fallbacks=(former_secret,).")
        check_login_keys(self.login_keys)

    def _check_names(self) -> None:
        for name in ("host", "zone", "node_name"):
            text = getattr(self, name)
            if text is None:
                continue
            if not text.isprintable() or not text.strip() or len(text.encode()) > NAME_BYTES_MAX:
                raise ConfigError(
                    f"{_as_set(name, text)} must be 1 to {NAME_BYTES_MAX} bytes of UTF-8 that can be printed, not "
                    f"blank, as in {_name(name)}={_TYPES[name][1]}; or leave it out."
                )
        if not 1 <= len(self.cluster) <= CLUSTER_CHARACTERS_MAX:
            raise ConfigError(
                f"{_as_set('cluster', self.cluster)} must have 1 to {CLUSTER_CHARACTERS_MAX} characters, as in "
                f"{_as_set('cluster', 'shop')}."
            )

    def _check_secrets(self) -> None:
        local = "-" * SECRET_CHARACTERS_MIN  # stands for the key that is read from a file when the node starts
        try:
            Keyring.from_secrets(self.cluster, local if self.secret is None else self.secret, self.secret_fallbacks)
        except UnicodeEncodeError:
            raise ConfigError(
                f"{_name('cluster')}, {_name('secret')} and {_name('secret_fallbacks')}: one of them holds half a "
                "character (a lone surrogate). Write text that UTF-8 can carry."
            ) from None
        except ConfigError as error:
            name, _, says = str(error).partition(":")
            raise ConfigError(f"{_name(name)}:{says}") from None

    def _check_addresses(self) -> None:
        for name in ("bind", "advertise"):
            text = getattr(self, name)
            if text is not None:
                check_ip(_name(name), text)
        if self.advertise is not None and ipaddress.ip_address(self.advertise).is_unspecified:
            raise ConfigError(
                f"{_as_set('advertise', self.advertise)}: name the one address at which others reach this node, as in "
                f"{_as_set('advertise', '10.0.0.1')}."
            )
        if (
            self.advertise is not None
            and ipaddress.ip_address(self.advertise).is_loopback
            and not ipaddress.ip_address(self.bind_address).is_loopback
        ):
            raise ConfigError(
                f"{_as_set('advertise', self.advertise)}: other machines that dial it would reach themselves. Name the "
                f"address at which they see this one, or listen on loopback alone, as in bind={self.advertise!r}."
            )
        if self.secret is None and not ipaddress.ip_address(self.bind_address).is_loopback:
            raise ConfigError(
                f"{_as_set('bind', self.bind)} needs a secret: without one, anybody on that network could read and "
                "take over sessions. Set GOSSIPSESS_SECRET to the same value on every node, or bind 127.0.0.1."
            )

    def _check_reach(self) -> None:
        parts = self.discovery_parts()
        if parts.multicast is not None and ipaddress.ip_address(self.bind_address).version != 4:
            raise ConfigError(
                f"{_as_set('bind', self.bind)} and {_as_set('discovery', self.discovery)}: multicast is IPv4 only. "
                f"Name the nodes, as in {_as_set('discovery', f'static://[fd00::1]:{PORT}')}, or bind an IPv4 address."
            )
        if self.secret is None and "://" in self.discovery and parts.names:
            raise ConfigError(
                f"{_as_set('discovery', self.discovery)}: a name tells of other machines, and without a secret a node "
                "talks to its own only. Set GOSSIPSESS_SECRET to the same value on every node."
            )
        if self.secret is None:
            named = [("discovery", host) for host, _ in parts.seeds]
            named += [("advertise", self.advertise)] if self.advertise is not None else []
            for name, host in named:
                if not ipaddress.ip_address(host).is_loopback:
                    raise ConfigError(
                        f"{_as_set(name, getattr(self, name))}: {host} is not on this machine, and without a secret a "
                        "node talks to its own machine only. Set GOSSIPSESS_SECRET to the same value on every node, or "
                        "name an address of 127.0.0.0/8."
                    )

    def _check_numbers(self) -> None:
        if self.confirm != "all" and not (isinstance(self.confirm, int) and self.confirm >= 0):
            raise _no_such_number("confirm", self.confirm)
        for name, (least, most) in _RANGES.items():
            if not least <= getattr(self, name) <= most:
                raise _no_such_number(name, getattr(self, name))
        for name in ("confirm_timeout_s", "idle_timeout_s", "absolute_timeout_s"):
            seconds = getattr(self, name)
            if seconds is not None and not 0 < seconds < 10**9:
                raise _no_such_number(name, seconds)

    def _check_choices(self) -> None:
        if self.count_by not in get_args(CountBy):
            raise ConfigError(f"{_as_set('count_by', self.count_by)} must be 'node' or 'host'; the default is 'node'.")
        if self.adopt not in get_args(Adopt):
            raise ConfigError(f"{_as_set('adopt', self.adopt)} must be 'on' or 'off'; the default is 'on'.")
        check_on_unavailable(self.on_unavailable)


def check_login_keys(login_keys: object) -> None:
    """Refuse what `Config.login_keys` cannot be; a list, say, or one key without its tuple.

    Raises:
        ConfigError: no tuple of keys that a session can have.
    """
    if not isinstance(login_keys, tuple) or not all(isinstance(key, str) and key for key in login_keys):
        raise ConfigError(f"{_as_set('login_keys', login_keys)}: it is a tuple of keys, as in login_keys=('user_id',).")


def check_on_unavailable(on_unavailable: str) -> None:
    """Refuse what `Config.on_unavailable` cannot be.

    Raises:
        ConfigError: neither ``error`` nor ``empty``.
    """
    if on_unavailable not in ("error", "empty"):
        shown = _as_set("on_unavailable", on_unavailable)
        raise ConfigError(f"{shown} must be 'error' or 'empty'; the default is 'error'.")


def _parsed(name: str, text: str) -> Any:
    try:
        match name:
            case "port" | "port_range" | "memory_limit_mb" | "all_to_all_below" | "secondaries":
                return int(text)
            case "confirm":
                return "all" if text == "all" else int(text)
            case "confirm_timeout_s" | "idle_timeout_s" | "absolute_timeout_s":
                return float(text)
            case "secret_fallbacks":
                return tuple(part for part in text.split(",") if part)
            case "login_keys":
                return tuple(part.strip() for part in text.split(",") if part.strip())
            case _:
                return text
    except ValueError:
        raise _no_such_number(name, text) from None


def _content(variable: str, path: str) -> str:
    """Return what a file says, without the line's end that editors and tools put there."""
    try:
        with open(path, "rb") as file:
            content = file.read(SECRET_FILE_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{variable}={path!r} cannot be read: {error}. Name a file that this user may read."
        ) from None
    if len(content) > SECRET_FILE_BYTES_MAX:
        raise ConfigError(f"{variable}={path!r} has over {SECRET_FILE_BYTES_MAX} bytes: that is no secret.")
    return content.decode("utf-8", "surrogateescape").rstrip("\r\n")


def _no_such_number(name: str, value: object) -> ConfigError:
    allowed, instead = _NUMBERS[name]
    default = getattr(Config, name)
    if default is None:
        default = f"what the web framework says, else {_TYPES[name][1]}"
    return ConfigError(f"{_as_set(name, value)} must be {allowed}. Write {instead}, or leave it out for {default}.")


def _name(name: str) -> str:
    """Return how the user calls a setting: by the variable it came from, or as an argument."""
    return _variables.get().get(name, name)


def _as_set(name: str, value: object) -> str:
    return f"{_name(name)}={value!r}"


def _nearest(name: str, names: set[str]) -> str:
    near = difflib.get_close_matches(name, sorted(names), n=1)
    return f" Did you mean {_PREFIX}{near[0].upper()} ({near[0]})?" if near else ""
