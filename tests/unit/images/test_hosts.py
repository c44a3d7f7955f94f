"""Which hosts images may be fetched from: the setting, and what a public address is."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_backend.errors import ConfigurationError
from ml_backend.images.hosts import ImageHosts, entry_for, is_public
from ml_backend.settings import load_settings

CLOSED = (
    # IPv4: this network, private, shared (CGNAT), loopback, link-local (metadata of clouds), special, documentation,
    # benchmarks, multicast, reserved, broadcast
    *("0.0.0.0", "10.1.2.3", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.255.254", "169.254.169.254"),
    *("172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.2.1", "192.168.1.1", "198.18.0.1", "198.51.100.1"),
    *("203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
    # IPv6: unspecified, loopback, unique local (metadata of AWS), link-local, site-local, multicast, documentation
    *("::", "::1", "fd00:ec2::254", "fc00::1", "fe80::1", "fe80::1%1", "fec0::1", "ff02::1", "2001:db8::1", "100::1"),
    # IPv4 in IPv6: compatible, mapped, 6to4, NAT64, local NAT64, Teredo
    *("::7f00:1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "64:ff9b::7f00:1"),
    *("64:ff9b::a9fe:a9fe", "64:ff9b:1::a00:1", "2001:0:4136:e378:8000:63bf:3fff:fdd2"),
    # not in use
    *("4000::1", "::2:3:4"),
)
OPEN = ("1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "::ffff:1.1.1.1", "2002:101:101::1", "64:ff9b::101:101")


@pytest.mark.parametrize("address", CLOSED)
def test_what_is_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    assert not ImageHosts.parse("public").permit(address, 80)


@pytest.mark.parametrize("address", OPEN)
def test_what_is_public(address: str) -> None:
    assert ImageHosts.parse("public").permit(address, 443)
    assert not ImageHosts.parse("").permit(address, 443)


@given(st.ip_addresses(v=4))
def test_an_address_inside_of_another_is_as_public_as_it_is_itself(inner: ipaddress.IPv4Address) -> None:
    number = int(inner)
    for outer in (0xFFFF << 32 | number, 0x2002 << 112 | number << 80, 0x64FF9B << 96 | number):
        assert is_public(ipaddress.IPv6Address(outer)) == is_public(inner), ipaddress.IPv6Address(outer)


@pytest.mark.parametrize(
    ("entry", "host", "port", "allowed"),
    [
        ("images.lan", "images.lan", 80, True),
        ("images.lan", "IMAGES.LAN.", 9000, True),
        ("images.lan", "evil.images.lan", 80, False),
        ("images.lan:9000", "images.lan", 9000, True),
        ("images.lan:9000", "images.lan", 80, False),
        ("minio", "minio", 9000, True),
        ("*.example.org", "a.b.example.org", 443, True),
        ("*.example.org", "example.org", 443, False),
        ("*.example.org", "badexample.org", 443, False),
        ("*.example.org:443", "a.example.org", 80, False),
        ("public", "images.lan", 80, False),
        ("xn--bcher-kva.example", "xn--bcher-kva.example", 80, True),
    ],
)
def test_names(entry: str, host: str, port: int, allowed: bool) -> None:
    assert ImageHosts.parse(f"1.2.3.4, {entry}").named(host, port) is allowed


@pytest.mark.parametrize(
    ("entry", "address", "port", "allowed"),
    [
        ("10.0.0.0/8", "10.9.9.9", 80, True),
        ("10.0.0.0/8", "::ffff:10.9.9.9", 80, True),
        ("10.0.0.0/8", "11.0.0.1", 80, False),
        ("10.0.0.5", "10.0.0.5", 9000, True),
        ("10.0.0.5:9000", "10.0.0.5", 9000, True),
        ("10.0.0.5:9000", "10.0.0.5", 9001, False),
        ("fd00::/8", "fd00::7", 80, True),
        ("::1", "::1", 80, True),
        ("[::1]:9000", "::1", 9000, True),
        ("[::1]:9000", "::1", 80, False),
        ("public,10.0.0.0/8", "1.1.1.1", 80, True),
    ],
)
def test_networks(entry: str, address: str, port: int, allowed: bool) -> None:
    assert ImageHosts.parse(entry).permit(address, port) is allowed


@pytest.mark.parametrize(
    "entry",
    [
        "http://images.lan",
        "*",
        "a*.org",
        "images.lan/folder",
        "images.lan:0",
        "images.lan:99999",
        "10.0.0",
        "bücher.de",
    ],
)
def test_what_is_no_entry_is_said_by_the_setting(entry: str) -> None:
    with pytest.raises(ConfigurationError, match="NEXTMASK_IMAGE_HOSTS"):
        load_settings(image_hosts=f"public,{entry}")


@pytest.mark.parametrize(("host", "port"), [("images.lan", 80), ("images.lan", 9000), ("::1", 9000), ("10.0.0.5", 443)])
def test_the_entry_that_is_advised_allows_the_host(host: str, port: int) -> None:
    hosts = ImageHosts.parse(entry_for(host, port))
    assert hosts.named(host, port) or hosts.permit(host, port)
