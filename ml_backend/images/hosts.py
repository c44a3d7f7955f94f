"""The hosts, besides Label Studio, that images may be fetched from.

People write the data of tasks, and nextmask fetches what they name from inside its own network. So only public
addresses are allowed, unless the administrator allows others. The owner of a name decides what it resolves to:
therefore the address of a connection is checked, except for names that the administrator has allowed.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

PUBLIC = "public"
_DEFAULT_PORTS = (80, 443)
_NAME = re.compile(r"(\*\.)?(?!-)[a-z0-9_-]{1,63}(\.(?!-)[a-z0-9_-]{1,63})*")
_PORT = re.compile(r"(?P<host>\[[^]]*\]|[^:]*):(?P<port>[0-9]{1,5})")
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_FORMS = "public, a host name, *.example.org, an IP address or a network such as 10.0.0.0/8; a port may follow a host"


@dataclass(frozen=True)
class ImageHosts:
    """The hosts of the setting NEXTMASK_IMAGE_HOSTS.

    Attributes:
        text: the setting as it was entered.
        public: whether every public address is allowed.
        names: allowed host names, each with its port; None: all ports.
        suffixes: allowed ends of host names, such as ".example.org", with ports.
        networks: allowed networks and addresses, with ports.
    """

    text: str
    public: bool
    names: frozenset[tuple[str, int | None]]
    suffixes: tuple[tuple[str, int | None], ...]
    networks: tuple[tuple[Network, int | None], ...]

    @classmethod
    def parse(cls, text: str) -> ImageHosts:
        """Read the setting: entries with commas between them.

        Raises:
            ValueError: an entry has none of the valid forms; the message names it.
        """
        names: set[tuple[str, int | None]] = set()
        suffixes: list[tuple[str, int | None]] = []
        networks: list[tuple[Network, int | None]] = []
        entries = [entry.strip().lower() for entry in text.split(",") if entry.strip()]
        for entry in entries:
            if entry == PUBLIC:
                continue
            host, port = _split(entry)
            network = _network(host)
            if network is not None:
                networks.append((network, port))
            elif _NAME.fullmatch(host) is None or host.replace(".", "").isdigit():
                raise ValueError(f"{entry!r} is none of: {_FORMS}")
            elif host.startswith("*."):
                suffixes.append((host[1:], port))
            else:
                names.add((host, port))
        return cls(text.strip(), PUBLIC in entries, frozenset(names), tuple(suffixes), tuple(networks))

    def named(self, host: str, port: int) -> bool:
        """Whether the setting allows a host by name, whatever the name resolves to."""
        host = host.lower().rstrip(".")
        if (host, port) in self.names or (host, None) in self.names:
            return True
        return any(host.endswith(suffix) and wanted in (None, port) for suffix, wanted in self.suffixes)

    def permit(self, address: str, port: int) -> bool:
        """Whether the setting allows a connection to an IP address."""
        outer = ipaddress.ip_address(address)
        inner = _inner(outer)
        if self.public and is_public(outer):
            return True
        return any(
            wanted in (None, port) and (outer in network or inner in network) for network, wanted in self.networks
        )


def is_public(address: Address) -> bool:
    """Whether an address belongs to the public internet.

    Private, loopback, link-local (where clouds give out credentials), shared (CGNAT), multicast, reserved and
    unspecified addresses do not; neither do IPv6 addresses that lead to such an IPv4 address.
    """
    inner = _inner(address)
    if inner.is_multicast or inner.is_reserved or not inner.is_global:
        return False
    return inner.version == 4 or inner in _GLOBAL_UNICAST


def entry_for(host: str, port: int) -> str:
    """Return the entry of NEXTMASK_IMAGE_HOSTS that allows a host and port."""
    shown = f"[{host}]" if ":" in host else host
    return shown.strip("[]") if port in _DEFAULT_PORTS else f"{shown}:{port}"


def _inner(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address leads to (mapped, 6to4, NAT64); other addresses as they are."""
    if address.version == 4:
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _split(entry: str) -> tuple[str, int | None]:
    """Return host and port of an entry (None: all ports); an IPv6 address with a port stands in brackets."""
    match = _PORT.fullmatch(entry)
    if match is None:
        return entry.strip("[]"), None
    port = int(match["port"])
    if not 0 < port < 65536:
        raise ValueError(f"{entry!r} has no valid port")
    return match["host"].strip("[]"), port


def _network(host: str) -> Network | None:
    try:
        return ipaddress.ip_network(host, strict=False)
    except ValueError:
        return None
