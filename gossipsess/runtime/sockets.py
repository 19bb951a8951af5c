# Sockets: what a node listens on, bound before anything runs, so that a taken port is an error of the caller's.
#
# One port serves UDP and TCP both, taken exclusively: two workers of one machine must never share one. Only the
# beacon socket is shared, since every node of the machine hears the group on the group's own port.

import ipaddress
import logging
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from gossipsess.errors import ConfigError
from gossipsess.model.member import Address

if TYPE_CHECKING:  # it imports Trio
    from gossipsess.runtime.socket_transport import SocketTransport

log = logging.getLogger("gossipsess")

BACKLOG = 128


class Sockets(NamedTuple):
    """A node's own sockets, not blocking."""

    udp: socket.socket
    tcp: socket.socket
    beacon: socket.socket | None
    """Hears the multicast group; None where multicast is off. Beacons are sent from `udp`."""

    @property
    def port(self) -> int:
        """The port of both `udp` and `tcp`."""
        port: int = self.tcp.getsockname()[1]
        return port

    def transport(self) -> "SocketTransport":
        """Return what a driver uses them by."""
        from gossipsess.runtime.socket_transport import SocketTransport

        return SocketTransport(*self, is_dual=_is_dual(self.udp))

    def close(self) -> None:
        """Close all of them."""
        for one in self:
            if one is not None:
                one.close()


def bind(
    address: str,
    port: int,
    port_range: int,
    group: Address | None,
    *,
    interface: str | None = None,
    can_do_without: bool = False,
) -> Sockets:
    """Bind the first port from `port` on that is free for UDP and TCP both, and join `group`.

    Args:
        address: to listen on.
        port: the first to try; 0 for any.
        port_range: how many to try.
        group: of multicast; None for none.
        interface: the address of the one to join the group on, where that is not `address`.
        can_do_without: where the group cannot be joined, a warning is enough, since others are found in another way.

    Raises:
        ConfigError: no port of the range is free, or the address is not this machine's, or the group cannot be joined.
    """
    tried = [0] * 50 if port == 0 else range(port, min(port + port_range, 65536))
    failure: OSError | None = None
    for candidate in tried:
        try:
            udp, tcp = _pair(address, candidate)
        except OSError as error:
            failure = error
            continue
        try:
            return Sockets(udp, tcp, _beacon_socket(udp, interface or address, group) if group is not None else None)
        except OSError as error:
            if can_do_without:
                log.warning("multicast group %s cannot be joined (%s): this node goes on without it", group, error)
                return Sockets(udp, tcp, None)
            udp.close()
            tcp.close()
            raise ConfigError(
                f"multicast group {group} cannot be joined on bind={address!r}: {error}. "
                "Name the nodes instead, as in discovery='static://10.0.0.1:7950,10.0.0.2:7950'."
            ) from error
    raise ConfigError(
        f"none of the ports {port} to {port + port_range - 1} is free for UDP and TCP on bind={address!r} "
        f"({failure}). Choose another port (GOSSIPSESS_PORT), or a larger port_range."
    )


def route_address(group: Address | None, *, dual: bool = False) -> str:
    """Return this machine's address towards `group`, or the default route; `dual`: of either version of IP.

    Raises:
        ConfigError: there is none but loopback, which others would dial in vain.
    """
    ways = [(socket.AF_INET, one) for one in (group, ("192.0.2.1", 9)) if one is not None]  # RFC 5737: for examples
    for family, there in [*ways, *([(socket.AF_INET6, ("2001:db8::1", 9))] if dual else [])]:
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(there)  # no packet is sent: it only picks the route
            address: str = probe.getsockname()[0]
            if not ipaddress.ip_address(address).is_loopback:
                return address
    raise ConfigError(
        "this machine has no address but loopback's, at which no other could reach this node. Set GOSSIPSESS_ADVERTISE "
        "to the address that others see, or GOSSIPSESS_BIND=127.0.0.1 for nodes on this machine alone."
    )


def is_local(address: str) -> bool:
    """Say whether an IP address is one of this machine's."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
        return True


def _is_dual(sock: socket.socket) -> bool:
    if sock.family != socket.AF_INET6:
        return False
    bound: str = sock.getsockname()[0]
    return ipaddress.ip_address(bound).is_unspecified


def _pair(address: str, port: int) -> tuple[socket.socket, socket.socket]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    tcp = socket.socket(family, socket.SOCK_STREAM)
    udp = socket.socket(family, socket.SOCK_DGRAM)
    try:
        # Linux lets a listener take a port whose old connections linger, but never one that is listened on.
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            only = not ipaddress.ip_address(address).is_unspecified  # whatever the machine's default is
            for one in (tcp, udp):
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        tcp.bind((address, port))
        udp.bind((address, tcp.getsockname()[1]))
        tcp.listen(BACKLOG)
    except OSError:
        tcp.close()
        udp.close()
        raise
    for one in (tcp, udp):
        one.setblocking(False)
    return udp, tcp


def _beacon_socket(udp: socket.socket, address: str, group: Address) -> socket.socket:
    loopback = ipaddress.ip_address(address).is_loopback
    udp.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(address))
    # TTL 0 never leaves the machine; 1 never leaves the network segment.
    udp.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 0 if loopback else 1)
    udp.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
    beacon = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        beacon.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "SO_REUSEPORT"):
            beacon.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        beacon.bind(group)
        membership = struct.pack("4s4s", socket.inet_aton(group[0]), socket.inet_aton(address))
        beacon.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
    except OSError:
        beacon.close()
        raise
    beacon.setblocking(False)
    return beacon
