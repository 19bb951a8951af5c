# Discovery strings: where the setting `discovery` says that other nodes are.
#
# In:    `discovery`, as in ``auto`` or ``dns://shop-gossip,static://10.0.0.1:7950``; the settings that it is read by.
# Out:   `Discovery`: a multicast group, addresses, and names to ask the name service for.
# Rule:  items are joined by commas; one without a scheme has that of the item before it. What cannot be read is refused
#        under the name by which it was set.
# Not here: what else must hold for the addresses to be of use (config.py), looking there (protocol/discovery.py).

import ipaddress
import re
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final

from gossipsess.errors import ConfigError
from gossipsess.model.member import Address, Name

MULTICAST_GROUP: Final = ("239.255.79.50", 7949)
"""Administratively scoped (RFC 2365), and below Linux's ephemeral ports."""

_HOST: Final = re.compile(r"(?=.{1,253}\.?$)[A-Za-z0-9_]([-A-Za-z0-9_]{0,62})(\.[A-Za-z0-9_][-A-Za-z0-9_]{0,62})*\.?")
"""A name as the resolver takes it (RFC 1123, and RFC 2782's underscores)."""


@dataclass(frozen=True)
class Discovery:
    """Where to look for other nodes."""

    multicast: Address | None
    """The group to say and hear beacons on; None for no multicast."""
    seeds: tuple[Address, ...]
    """Addresses that are dialed until somebody there answers."""
    names: tuple[Name, ...] = ()
    """What the name service is asked for."""
    names_when_alone: bool = False
    """Only while nobody was met otherwise."""

    @property
    def looks_for_others(self) -> bool:
        """There is a way to find others."""
        return self.multicast is not None or self.can_do_without_multicast

    @property
    def can_do_without_multicast(self) -> bool:
        """There is another way to find others."""
        return bool(self.seeds or self.names)


def parse(
    text: str,
    service: str,
    *,
    text_as_set: str,
    service_as_set: str,
    bind_address: str,
    port: int,
    port_range: int,
    in_kubernetes: bool,
) -> Discovery:
    """Return what the setting `discovery` says.

    Args:
        text: the setting. `service`: the name, or ``name:port``, that ``auto`` looks up.
        text_as_set: the setting with its name, for messages: ``GOSSIPSESS_DISCOVERY='auto'``. `service_as_set`: so too.
        bind_address: where this node listens. ``auto`` has no multicast but on IPv4 or on loopback, and asks for no
            name from loopback, where nobody whom a name service tells of could be reached.
        port: of a name that comes without one, and of how many (`port_range`) from it on.
        in_kubernetes: ``auto`` asks for `service` from the start, and not only while multicast hears nobody.

    Raises:
        ConfigError: it cannot be read.
    """
    multicast: Address | None = None
    seeds: list[Address] = []
    names: list[Name] = []
    names_when_alone = False
    scheme = ""
    for item in text.split(","):
        item = item.strip()
        if "://" in item:
            scheme, item = item.split("://", 1)
        elif item in ("auto", "none"):
            scheme = item
        if scheme == "auto":
            bound = ipaddress.ip_address(bind_address)
            multicast = MULTICAST_GROUP if bound.version == 4 or bound.is_loopback else None
            if not bound.is_loopback:
                names.append(_dns(service_as_set, service, port, port_range))
                names_when_alone = multicast is not None and not in_kubernetes
        elif scheme == "multicast":
            multicast = _group(text_as_set, item)
        elif scheme == "static":
            seeds.append(_address(text_as_set, item))
        elif scheme == "dns":
            names.append(_dns(text_as_set, item, port, port_range))
        elif scheme == "srv":
            names.append(_srv(text_as_set, item))
        elif scheme != "none":
            raise ConfigError(
                f"{text_as_set}: allowed are auto, none, multicast://GROUP:PORT, dns://NAME[:PORT], srv://NAME and "
                "static://IP:PORT[,IP:PORT...], joined by commas."
            )
    lazy = names_when_alone and len(names) == 1
    return Discovery(multicast, tuple(seeds), tuple(dict.fromkeys(names)), lazy)


def check_ip(setting: str, text: str) -> str:
    """Return an IP address as sockets write it: IPv6 has many ways, and addresses are compared.

    `setting`: what it was given for, for messages.

    Raises:
        ConfigError: it is none.
    """
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ConfigError(
            f"{setting}: {text!r} is not an IP address, and names are not looked up. Write the address, as in 10.0.0.1."
        ) from None


def _group(setting: str, item: str) -> Address:
    address = _address(setting, item)
    group = ipaddress.ip_address(address[0])
    if group.version != 4 or not group.is_multicast:
        raise ConfigError(
            f"{setting}: {group} is not a multicast address of IPv4. "
            "Take one of 239.0.0.0/8, as in multicast://239.255.79.50:7949."
        )
    return address


def _address(setting: str, item: str) -> Address:
    host, _, port = item.rpartition(":")
    if not host or not _is_port(port):
        raise ConfigError(f"{setting}: {item!r} is not IP:PORT, as in 10.0.0.1:7950.")
    host = host.removeprefix("[").removesuffix("]")
    return (check_ip(setting, host), int(port))


def _dns(setting: str, item: str, port: int, port_range: int) -> Name:
    host, colon, given = item.partition(":")
    _check_host(setting, item, host)
    if colon and not _is_port(given):
        raise ConfigError(f"{setting}: {item!r}: {given!r} is not a port, as in {host}:7950.")
    return Name("dns", host, int(given) if colon else port, port_range)


def _srv(setting: str, item: str) -> Name:
    host, colon, _ = item.partition(":")
    _check_host(setting, item, host)
    if colon:
        raise ConfigError(f"{setting}: {item!r} has a port, but SRV records tell theirs. Write srv://{host}.")
    if find_spec("dns") is None:
        raise ConfigError(
            f"{setting}: {item!r} takes the extra dns: pip install 'gossipsess[dns]'; or write dns://{host}."
        )
    return Name("srv", host, 0, 1)


def _check_host(setting: str, item: str, host: str) -> None:
    if not _HOST.fullmatch(host):
        raise ConfigError(f"{setting}: {item!r} is not a name that can be looked up, as in gossipsess or shop.example.")


def _is_port(text: str) -> bool:
    return text.isdecimal() and 0 < int(text) <= 65535
