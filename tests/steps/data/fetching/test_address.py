import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.data.causes import FetchError
from steps.data.fetching.address import AddressGuard, is_public
from steps.data.fetching.host_names import FoundAddress, HostNames

PRIVATE = [
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "224.0.0.1",
    "239.255.255.250",
    "255.255.255.255",
    "240.0.0.1",
    "::",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "fd00:ec2::254",
    "fec0::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::",
    "2001:db8::1",
]


def answering(*answers: list[str]) -> HostNames:
    """Return names that have these answers, one after the other; the last one for ever."""
    left = list(answers)

    def ask(name: str) -> list[FoundAddress]:
        found = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET6 if ":" in text else socket.AF_INET, text) for text in found]

    return HostNames(ask=ask)


@pytest.mark.parametrize("text", PRIVATE)
def test_addresses_that_are_not_public_are_refused(text: str) -> None:
    with pytest.raises(FetchError, match="refused_address"):
        AddressGuard(names=answering([text])).addresses("pictures.example", 80)


@pytest.mark.parametrize("text", ["93.184.216.34", "8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8"])
def test_public_addresses_pass(text: str) -> None:
    assert AddressGuard(names=answering([text])).addresses("pictures.example", 80)[0][1] == (text, 80)


@given(st.ip_addresses(v=4))
def test_no_wrapping_makes_an_address_public(inner: ipaddress.IPv4Address) -> None:
    number = int(inner)
    wrapped = [
        ipaddress.IPv6Address((0xFFFF << 32) | number),
        ipaddress.IPv6Address((0x64FF9B << 96) | number),
        ipaddress.IPv6Address((0x2002 << 112) | (number << 80)),
    ]
    assert {is_public(address) for address in wrapped} == {is_public(inner)}


def test_one_private_address_among_public_ones_is_enough() -> None:
    with pytest.raises(FetchError, match="refused_address"):
        AddressGuard(names=answering(["8.8.8.8", "10.0.0.1"])).addresses("pictures.example", 80)


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "0177.0.0.1", "127.1", "localhost"])
def test_odd_spellings_of_loopback_are_refused(host: str) -> None:
    with pytest.raises(FetchError, match="refused_address"):
        AddressGuard().addresses(host, 80)


def test_allowed_hosts_may_be_private_on_their_port_only() -> None:
    guard = AddressGuard(["127.0.0.1:8000", "inner.example"], answering(["127.0.0.1"]))
    assert guard.addresses("127.0.0.1", 8000)
    assert guard.addresses("INNER.example", 1234)
    with pytest.raises(FetchError, match="refused_address"):
        guard.addresses("127.0.0.1", 8001)


def test_a_name_that_changes_its_address_is_judged_by_the_one_that_is_connected_to() -> None:
    guard = AddressGuard(names=answering(["8.8.8.8"], ["127.0.0.1"]))
    assert guard.addresses("rebinding.example", 80)[0][1][0] == "8.8.8.8"
    assert guard.addresses("rebinding.example", 80)[0][1][0] == "8.8.8.8"


def test_a_host_without_address_does_not_resolve() -> None:
    with pytest.raises(OSError, match="no address"):
        AddressGuard(names=answering([])).addresses("nothing.example", 80)
