# Resolver: the addresses behind a name, by the means of the system, or from SRV records.
#
# dns://  getaddrinfo: search path, hosts file and cache as every other program on the machine has them, A and AAAA.
# srv://  dnspython (the extra `dns`), since the system's resolver has no call for SRV; targets by getaddrinfo again.
# Choice: no time limit of our own. The system's resolver has one, a lookup that is given up would leave its thread
#         behind all the same, and nothing waits for one.
# Not here: when to look up, and what becomes of the answer (protocol/names.py, protocol/discovery.py).

import ipaddress
import socket
from typing import Final

import trio

from gossipsess.model.member import Address, Name

ADDRESSES_MAX: Final = 512
"""Taken from one answer."""
SRV_TARGETS_MAX: Final = 64
"""Each costs a lookup of its own."""


async def look_up(name: Name, family: socket.AddressFamily) -> tuple[Address, ...]:
    """Return where nodes may be, sorted, each address once.

    `family`: AF_INET, AF_INET6, or AF_UNSPEC for both; addresses of another could not be dialed.

    Raises:
        OSError: there was no answer.
    """
    if name.scheme == "dns":
        found = await _addresses(name.host, name.port, family)
    else:
        found = await _srv_addresses(name.host, family)
    return tuple(sorted(set(found))[:ADDRESSES_MAX])


async def _addresses(host: str, port: int, family: socket.AddressFamily) -> list[Address]:
    try:
        answers = await trio.socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
    except UnicodeError as error:  # of a label that is empty or too long
        raise OSError(f"{host!r} is no name: {error}") from None
    addresses = [(str(sockaddr[0]), port) for *_, sockaddr in answers]
    return [one for one in addresses if _is_dialable(one[0])]


async def _srv_addresses(service: str, family: socket.AddressFamily) -> list[Address]:
    found: list[Address] = []
    failure: OSError | None = None
    for host, port in await _srv_targets(service):
        try:
            found += await _addresses(host, port, family)
        except OSError as error:  # of one that is gone; the others count
            failure = error
    if failure is not None and not found:
        raise failure
    return found


async def _srv_targets(service: str) -> list[tuple[str, int]]:
    import dns.asyncbackend
    import dns.asyncresolver
    import dns.exception
    import dns.rdtypes.IN.SRV

    # By name: what dnspython finds out by itself it keeps for the whole process, whose other threads may run asyncio.
    trios = dns.asyncbackend.get_backend("trio")
    try:
        answer = await dns.asyncresolver.resolve(service, "SRV", search=True, backend=trios)
    except dns.exception.DNSException as error:
        raise OSError(str(error) or type(error).__name__) from None
    records = [one for one in answer if isinstance(one, dns.rdtypes.IN.SRV.SRV)]
    # Port 0 and the root are how a record says that there is no such service (RFC 2782).
    targets = [(one.target.to_text(omit_final_dot=True), one.port) for one in records if one.port]
    return sorted(targets)[:SRV_TARGETS_MAX]


def _is_dialable(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    return not (address.is_multicast or address.is_unspecified)
