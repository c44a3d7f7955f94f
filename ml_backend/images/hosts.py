"""Which hosts images may be fetched from, besides Label Studio itself.

Task data are written by people, and what they name is asked for from inside of the network that nextmask runs in. So
only public addresses are asked, unless an administrator names others. Names are no protection: whoever owns a name
decides what it resolves to. Hence the address that is connected to is what counts, except for names that the
administrator gave.
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
        text: the setting as it was given.
        public: whether every public address may be asked.
        names: host names, with the port or None for any.
        suffixes: ends of host names such as ".example.org", with ports.
        networks: networks (single addresses included), with ports.
    """

    text: str
    public: bool
    names: frozenset[tuple[str, int | None]]
    suffixes: tuple[tuple[str, int | None], ...]
    networks: tuple[tuple[Network, int | None], ...]

    @classmethod
    def parse(cls, text: str) -> ImageHosts:
        """Read a list with commas between its entries.

        Raises:
            ValueError: an entry is none of the forms; its text says which.
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
        """Whether a host is allowed by its name, whatever that resolves to."""
        host = host.lower().rstrip(".")
        if (host, port) in self.names or (host, None) in self.names:
            return True
        return any(host.endswith(suffix) and wanted in (None, port) for suffix, wanted in self.suffixes)

    def permit(self, address: str, port: int) -> bool:
        """Whether an address that a name resolved to may be connected to."""
        outer = ipaddress.ip_address(address)
        inner = _inner(outer)
        if self.public and is_public(outer):
            return True
        return any(
            wanted in (None, port) and (outer in network or inner in network) for network, wanted in self.networks
        )


def is_public(address: Address) -> bool:
    """Whether an address belongs to the public internet.

    Not private, loopback, link-local (where clouds give out credentials), shared (CGNAT), multicast, reserved or
    unspecified, also where IPv6 wraps IPv4.
    """
    inner = _inner(address)
    if inner.is_multicast or inner.is_reserved or not inner.is_global:
        return False
    return inner.version == 4 or inner in _GLOBAL_UNICAST


def entry_for(host: str, port: int) -> str:
    """Return the entry that allows a host."""
    shown = f"[{host}]" if ":" in host else host
    return shown.strip("[]") if port in _DEFAULT_PORTS else f"{shown}:{port}"


def _inner(address: Address) -> Address:
    """The IPv4 address that an IPv6 address leads to (mapped, 6to4, NAT64); others as they are."""
    if address.version == 4:
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _split(entry: str) -> tuple[str, int | None]:
    """Take the port off a host; an IPv6 address with a port stands in brackets."""
    found = _PORT.fullmatch(entry)
    if found is None:
        return entry.strip("[]"), None
    port = int(found["port"])
    if not 0 < port < 65536:
        raise ValueError(f"{entry!r} has no valid port")
    return found["host"].strip("[]"), port


def _network(host: str) -> Network | None:
    try:
        return ipaddress.ip_network(host, strict=False)
    except ValueError:
        return None
