# Settings: what this node is told to be, and where to look for others.
#
# In:    the settings, the keys made of them, the environment.    Out: findings. Nothing is sent.
# The key's id is shown, never the secret: nodes meet where it is the same, so it is what two machines compare.

import ipaddress
from collections.abc import Mapping

from gossipsess.cli.doctor.finding import Finding
from gossipsess.config import Config
from gossipsess.wire.keyring import Keyring

IN_KUBERNETES = "KUBERNETES_SERVICE_HOST"


def check_settings(config: Config, keyring: Keyring, environ: Mapping[str, str]) -> list[Finding]:
    """Say which cluster this is, and how others are looked for."""
    former = ", ".join(key.key_id.hex() for key in keyring.fallbacks)
    text = f"cluster {config.cluster!r}, key {keyring.primary.key_id.hex()}"
    text += f", former keys {former}" if former else ""
    found = [Finding("settings", "ok", text)]
    if config.secret is None:
        found.append(_no_secret(in_kubernetes=IN_KUBERNETES in environ))
    return [*found, _discovery(config, in_kubernetes=IN_KUBERNETES in environ)]


def _no_secret(*, in_kubernetes: bool) -> Finding:
    return Finding(
        "settings",
        "fail" if in_kubernetes else "info",
        "no secret is set: nodes of this user on this machine only, on loopback",
        "For nodes on several machines or pods set GOSSIPSESS_SECRET (or GOSSIPSESS_SECRET_FILE) to the same value on "
        "each.",
        "no-secret",
    )


def _discovery(config: Config, *, in_kubernetes: bool) -> Finding:
    parts = config.discovery_parts()
    ways = [f"multicast {parts.multicast[0]}:{parts.multicast[1]}"] if parts.multicast else []
    for name in parts.names:
        why = ""
        if parts.names_when_alone:
            why = " (only while multicast brings nobody: this is not Kubernetes)"
        elif config.discovery == "auto":
            why = " (from the start: this is Kubernetes)" if in_kubernetes else " (from the start: no multicast)"
        ways.append(f"{name}{why}")
    ways += [f"static://{host}:{port}" for host, port in parts.seeds]
    if not ways:
        return Finding(
            "settings",
            "warn",
            f"discovery={config.discovery!r} looks for nobody: only who names this node's address meets it",
            "Leave GOSSIPSESS_DISCOVERY out, or name where the other nodes are.",
            "discovery-none",
        )
    if "auto" in config.discovery and ipaddress.ip_address(config.bind_address).is_loopback:
        ways.append("no name (on loopback nobody whom DNS tells of could be reached)")
    return Finding("settings", "ok", f"discovery={config.discovery!r}: {', '.join(ways)}")
