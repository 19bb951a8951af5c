# Sockets: what a node listens on, bound before anything runs, so that a taken port is an error of the caller's.
#
# One port serves UDP and TCP both, taken exclusively: two workers of one machine must never share one. Only the
# beacon socket is shared, since every node of the machine hears the group on the group's own port.

import ipaddress
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

from gossipsess.errors import ConfigError
from gossipsess.model.member import Address

if TYPE_CHECKING:  # it imports Trio
    from gossipsess.runtime.socket_transport import SocketTransport

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

        return SocketTransport(*self)

    def close(self) -> None:
        """Close all of them."""
        for one in self:
            if one is not None:
                one.close()


def bind(address: str, port: int, port_range: int, group: Address | None) -> Sockets:
    """Bind the first port from `port` on that is free for UDP and TCP both, and join `group` on that interface.

    Raises:
        ConfigError: no port of the range is free, or the address is not this machine's.
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
            return Sockets(udp, tcp, _beacon_socket(udp, address, group) if group is not None else None)
        except OSError as error:
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


def route_address(group: Address | None) -> str:
    """Return this machine's address towards `group` (or the default route); loopback where there is no network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(group or ("192.0.2.1", 9))  # no packet is sent; RFC 5737's test address picks the route
        except OSError:
            return "127.0.0.1"
        address: str = probe.getsockname()[0]
        return address


def _pair(address: str, port: int) -> tuple[socket.socket, socket.socket]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    tcp = socket.socket(family, socket.SOCK_STREAM)
    udp = socket.socket(family, socket.SOCK_DGRAM)
    try:
        # Linux lets a listener take a port whose old connections linger, but never one that is listened on.
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
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
