# Address: under which address this node tells others to reach it, and whether that can work.
#
# In:    the settings, the environment, the routes.    Out: findings, and the address. No packet is sent.
# Loopback beside a bind that other machines reach is refused by the settings already (config.py, runtime/sockets.py).

import ipaddress
from collections.abc import Mapping

from gossipsess.cli.doctor.finding import Finding
from gossipsess.config import Config
from gossipsess.runtime.sockets import is_local
from gossipsess.service import advertised_host


def check_address(config: Config, environ: Mapping[str, str]) -> tuple[str, list[Finding]]:
    """Return the address that others are told, and what is to be said of it.

    Raises:
        ConfigError: there is none.
    """
    host = advertised_host(config)
    bind = config.bind_address
    if not is_local(bind):
        advice = "Correct GOSSIPSESS_BIND, or leave it out."
        text = f"no interface of this machine has bind={bind!r}: no node can start here"
        return host, [Finding("address", "fail", text, advice, "address")]
    text = f"others are told {host} ({_why(config, environ)}); listening on {bind}"
    if is_local(host):
        return host, [Finding("address", "ok", text)]
    return host, [
        Finding(
            "address",
            "warn",
            f"{text}; but no interface of this machine has {host}",
            "Right only where something in between forwards that address, UDP and TCP, on the same port. Else correct "
            "GOSSIPSESS_ADVERTISE or POD_IP, or leave both out.",
            "address",
        )
    ]


def _why(config: Config, environ: Mapping[str, str]) -> str:
    if config.advertise is None:
        bound = ipaddress.ip_address(config.bind_address)
        return "the route out of this machine" if bound.is_unspecified else "the bound address"
    if "GOSSIPSESS_ADVERTISE" not in environ and environ.get("POD_IP") == config.advertise:
        return "POD_IP"
    return "GOSSIPSESS_ADVERTISE"
